/**
 * Byte streams over libp2p: libp2p resets a stream with too many unread bytes, which the port must prevent.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import type { StreamError } from "../../../src/schema/NetworkError.ts"
import type { ByteStream } from "../../../src/services/Transport.ts"
import { openPair } from "../../support/Libp2pNode.ts"

const MiB = 1024 * 1024

setFlagsFromString("--expose-gc")
const collectGarbage = runInNewContext("gc") as () => void
const usedBytes = () => {
  // The first collection leaves freed buffers to a thread, the second waits for the thread.
  collectGarbage()
  collectGarbage()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

/** Writes numbered bytes, and counts the bytes that the stream has taken. */
const upload = (stream: ByteStream, bytes: number, progress: { sent: number }) =>
  Effect.gen(function*() {
    while (progress.sent < bytes) {
      const chunk = new Uint8Array(Math.min(256 * 1024, bytes - progress.sent))
      for (let i = 0; i < chunk.byteLength; i += 4096) chunk[i] = (progress.sent + i) >> 12
      yield* stream.write(chunk)
      progress.sent += chunk.byteLength
    }
    yield* stream.closeWrite
  })

/** Reads to the end, pausing as told before each chunk, and checks the numbers. */
const download = (stream: ByteStream, progress: { read: number }, pause: (read: number) => Effect.Effect<void>) =>
  Stream.runForEach(stream.read, (chunk) =>
    Effect.gen(function*() {
      for (let i = (4096 - progress.read % 4096) % 4096; i < chunk.byteLength; i += 4096) {
        if (chunk[i] !== ((progress.read + i) >> 12) % 256) {
          return yield* Effect.die(`wrong byte at ${progress.read + i}`)
        }
      }
      progress.read += chunk.byteLength
      yield* pause(progress.read)
    }))

/** Sends bytes to a reader that pauses as told. Gives the largest number of bytes that were sent and not yet read. */
const transfer = (bytes: number, pause: (read: number) => Effect.Effect<void>) =>
  Effect.scoped(Effect.gen(function*() {
    const progress = { sent: 0, read: 0 }
    let waitingMax = 0
    const done = yield* Deferred.make<void, StreamError>()
    const { stream } = yield* openPair((stream) =>
      download(stream, progress, (read) =>
        Effect.suspend(() => {
          waitingMax = Math.max(waitingMax, progress.sent - read)
          return pause(read)
        })).pipe(Effect.exit, Effect.flatMap((exit) => Deferred.done(done, exit)))
    )
    yield* upload(stream, bytes, progress)
    yield* Deferred.await(done)
    assert.strictEqual(progress.read, bytes)
    return waitingMax
  }))

describe("ByteStream over libp2p", () => {
  it.live("carries everything to readers that are slow or pause, in bounded memory", () =>
    Effect.gen(function*() {
      const start = performance.now()
      // 8 MiB per second.
      const slow = transfer(64 * MiB, (read) =>
        Effect.suspend(() => Effect.sleep(Math.max(0, read / MiB * 125 - (performance.now() - start)))))
      // Full speed opens the window to its maximum; then the reader stops.
      let paused = false
      const sudden = transfer(232 * MiB, (read) => {
        if (paused || read < 200 * MiB) {
          return Effect.void
        }
        paused = true
        return Effect.sleep("3 seconds")
      })
      const before = usedBytes()
      let grown = 0
      const watch = yield* Effect.forkChild(
        Effect.forever(Effect.andThen(
          Effect.sleep("400 millis"),
          Effect.sync(() => {
            grown = Math.max(grown, usedBytes() - before)
          })
        ))
      )
      const [slowMax, suddenMax] = yield* Effect.all([slow, sudden], { concurrency: 2 })
      yield* Fiber.interrupt(watch)
      assert.isTrue(paused)
      // 8 MiB on either side.
      assert.isBelow(slowMax, 16 * MiB)
      assert.isBelow(suddenMax, 16 * MiB)
      assert.isBelow(grown, 32 * MiB)
      // The reader, and nothing else, was slow.
      assert.isAbove(performance.now() - start, 7900)
    }))
})
