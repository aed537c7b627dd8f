/**
 * How a node on real sockets ends.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Fiber, Latch, Option, Scope, Stream } from "effect"
import type { Network } from "../../src/Network.ts"
import * as Live from "../support/live.ts"
import * as LogLines from "../support/LogLines.ts"

const protocol = "/stop/1.0.0"

/** How late a busy machine may be. `test/sim/stop.test.ts` has the moment itself. */
const lateMillis = 1500

/** A node in a scope that the spec closes, and a peer to which it is connected. */
const pair = Effect.fnUntraced(function*(stopTimeout: `${number} seconds`) {
  const scope = yield* Scope.make()
  const alice = yield* Scope.provide(Live.makeNode({ stopTimeout }), scope)
  const bob = yield* Live.makeNode({ stopTimeout: "1 seconds" })
  const [address] = yield* bob.addresses
  yield* alice.connect(address!)
  const stop = Effect.gen(function*() {
    const start = yield* Clock.currentTimeMillis
    yield* Scope.close(scope, Exit.void)
    return (yield* Clock.currentTimeMillis) - start
  })
  return { alice, bob, scope, stop }
})

/**
 * Writes to a stream as long as the remote takes it, leaves the stream, and gives how many bytes were written at least.
 */
const leaves = (from: Network["Service"], to: Network["Service"]) =>
  Effect.scoped(Effect.gen(function*() {
    const stream = yield* from.open(to.localPeer, protocol)
    const piece = new Uint8Array(32 * 1024)
    for (let written = 0;; written += piece.length) {
      if (Option.isNone(yield* Effect.timeoutOption(stream.write(piece), "300 millis"))) return written
    }
  }))

describe("a node on real sockets that stops", () => {
  it.live("delivers what it has written to a remote that begins to read late", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob, stop } = yield* pair("10 seconds")
      const read = yield* Deferred.make<number>()
      const mayRead = yield* Latch.make()
      yield* bob.handle(protocol, (stream) =>
        mayRead.await.pipe(
          Effect.andThen(Stream.runFold(stream.read, () => 0, (sum, chunk) => sum + chunk.length)),
          Effect.tap((sum) => Deferred.succeed(read, sum)),
          Effect.tapError(() => Deferred.succeed(read, -1))
        ))
      const written = yield* leaves(alice, bob)
      yield* Effect.forkChild(Effect.andThen(Effect.sleep("1500 millis"), mayRead.open), { startImmediately: true })
      const took = yield* stop
      assert.isAtLeast(yield* Deferred.await(read), written)
      // It waited as long as it had to, and not as long as it may.
      assert.isAbove(took, 1400)
      assert.notInclude(lines.join(), "left to itself")
      assert.match(
        lines.join(),
        new RegExp(`^Warn: stopping took \\d\\.\\d s, of which streams of ${bob.localPeer} \\d`)
      )
    }).pipe(LogLines.capture))

  it.live("is held by a remote that never reads no longer than its time limit, and says so", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob, stop } = yield* pair("2 seconds")
      yield* bob.handle(protocol, () => Effect.never)
      yield* leaves(alice, bob)
      const took = yield* stop
      assert.isAbove(took, 1500)
      assert.isBelow(took, 2000 + lateMillis)
      assert.match(
        lines.join("\n"),
        new RegExp(
          `^Warn: stopping took \\d\\.\\d s, of which streams of ${bob.localPeer} [1-3]\\.\\d s \\(left to itself\\)`
        )
      )
      yield* Live.until(Effect.map(bob.peerCount, (count) => count === 0))
    }).pipe(LogLines.capture))

  it.live("leaves a handler that ignores interruption to itself", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob, scope, stop } = yield* pair("2 seconds")
      const running = yield* Deferred.make<void>()
      yield* Scope.provide(
        alice.handle(protocol, () =>
          Effect.uninterruptible(Effect.andThen(Deferred.succeed(running, undefined), Effect.never))),
        scope
      )
      yield* bob.open(alice.localPeer, protocol)
      yield* Deferred.await(running)
      const took = yield* stop
      assert.isAbove(took, 1500)
      assert.isBelow(took, 2000 + lateMillis)
      assert.match(lines.join("\n"), /the handler of \/stop\/1\.0\.0 [1-3]\.\d s \(left to itself\)/)
      yield* Live.until(Effect.map(bob.peerCount, (count) =>
        count === 0))
    }).pipe(LogLines.capture))

  it.live("gives up its dials at once", () =>
    Effect.gen(function*() {
      const { alice, stop } = yield* pair("5 seconds")
      const silent = yield* Live.silentServer
      const dial = yield* Effect.forkChild(Effect.flip(alice.connect(`/ip4/127.0.0.1/tcp/${silent.port}`)), {
        startImmediately: true
      })
      yield* silent.accepted
      // The dial itself would go on for 3 s.
      assert.isBelow(yield* stop, 2700)
      const error = yield* Fiber.join(dial)
      assert.strictEqual(error._tag, "DialError")
    }))
})
