/**
 * A long cable between two namespaces: a frame leaves one end a delay after it entered the other. It is made of two TAP
 * devices and this process between them, so that no queueing discipline of the kernel is needed.
 */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import type { Readable } from "node:stream"
import { fileURLToPath } from "node:url"

/** An end of a cable: a device that the cable makes. */
export interface End {
  readonly namespace: string
  readonly device: string
}

/** What a cable does to each frame, in each direction. */
export interface Length {
  /** How long each takes. 0 by default. */
  readonly delayMillis?: number
  /** How many pass in a second; further ones wait in a queue without a bound. No limit by default. */
  readonly bytesPerSecond?: number
}

/** Lays the cable while the scope lives; returns when both devices are there. */
export const make = (one: End, other: End, length: Length): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const [near, far] = yield* Effect.all([plug(one), plug(other)])
    near.onFrame = delayed(length, far.put)
    far.onFrame = delayed(length, near.put)
  })

/** What the machine lacks for a cable, in words; undefined when it lacks nothing. */
export const lacks: Effect.Effect<string | undefined> = Effect.gen(function*() {
  if (!existsSync("/dev/net/tun")) return "there is no /dev/net/tun here"
  return yield* Effect.callback<string | undefined>((resume) => {
    spawn("perl", ["-e", "1"], { stdio: "ignore" })
      .on("error", () => resume(Effect.succeed("there is no program perl here")))
      .on("close", () => resume(Effect.succeed(undefined)))
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Plug {
  onFrame: (frame: Buffer) => void
  readonly put: (frame: Buffer) => void
}

const shim = fileURLToPath(new URL("./tap.pl", import.meta.url))

function plug({ device, namespace }: End): Effect.Effect<Plug, never, Scope.Scope> {
  return Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn("ip", ["netns", "exec", namespace, "perl", shim, device], { stdio: ["pipe", "pipe", "inherit"] })
      ),
      (child) => Effect.sync(() => void child.kill("SIGKILL"))
    )
    child.stdin.on("error", () => {})
    const plug: Plug = {
      onFrame: () => {},
      put: (frame) => {
        if (!child.stdin.writable) return
        child.stdin.write(header(frame.length))
        child.stdin.write(frame)
      }
    }
    yield* Effect.callback<void>((resume) => {
      child.once("close", () => resume(Effect.die(new Error(`no device ${device} in ${namespace}`))))
      readFrames(child.stdout, (frame) => frame.length === 0 ? resume(Effect.void) : plug.onFrame(frame))
    })
    return plug
  })
}

function delayed({ bytesPerSecond = Infinity, delayMillis = 0 }: Length, put: (frame: Buffer) => void) {
  // A queue keeps the order, which timers of the same millisecond would not.
  const waiting: Array<Buffer> = []
  let free = 0
  return (frame: Buffer) => {
    const now = performance.now()
    free = Math.max(free, now) + frame.length / bytesPerSecond * 1000
    waiting.push(frame)
    setTimeout(() => put(waiting.shift()!), delayMillis + free - now)
  }
}

function header(length: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(length)
  return bytes
}

function readFrames(input: Readable, onFrame: (frame: Buffer) => void): void {
  let rest = Buffer.alloc(0)
  input.on("data", (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE()) {
      const end = 2 + rest.readUInt16BE()
      onFrame(rest.subarray(2, end))
      rest = rest.subarray(end)
    }
  })
}
