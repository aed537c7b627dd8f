import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"
import * as LogLines from "../support/LogLines.ts"
import { record } from "../support/record.ts"

const net = SimNetwork.layer({ latency: "10 millis", seed: "stop" })
const protocol = "/sim/stop/1.0.0"

/** A node in a scope of its own, which a spec closes. */
const stoppable = Effect.fnUntraced(function*(name: string) {
  const scope = yield* Scope.make()
  const node = yield* Scope.provide(TestNetwork.makeNode(name), scope)
  /** Closes the scope, and gives the milliseconds that took. */
  const stop = Effect.gen(function*() {
    const start = yield* Clock.currentTimeMillis
    const fiber = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
    while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust("10 millis")
    yield* Fiber.join(fiber)
    return (yield* Clock.currentTimeMillis) - start
  })
  return { node, scope, stop }
})

const pair = Effect.gen(function*() {
  const { node: alice, scope, stop } = yield* stoppable("alice")
  const bob = yield* TestNetwork.makeNode("bob")
  yield* TestNetwork.connected(alice, bob)
  return { alice, bob, scope, stop }
})

/** Has the node write so many bytes to a stream that it leaves before they have been taken. */
const leaves = Effect.fnUntraced(function*(from: Network["Service"], to: Network["Service"], bytes: number) {
  const scope = yield* Scope.make()
  const stream = yield* TestNetwork.run(Scope.provide(from.open(to.localPeer, protocol), scope))
  yield* Effect.forkScoped(Effect.ignore(stream.write(new Uint8Array(bytes))), { startImmediately: true })
  yield* Scope.close(scope, Exit.void)
})

describe("a node that stops", () => {
  it.effect("says goodbye and is gone within the time of a few messages", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { bob, stop } = yield* pair
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(yield* stop, 100)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* bob.peerCount, 0)
      assert.deepStrictEqual(lines, [])
    }).pipe(Effect.provide(net), LogLines.capture))

  it.effect("is heard to say goodbye by a remote that is 300 ms away, there and back", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { bob, stop } = yield* pair
      const events = yield* record(bob)
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(yield* stop, 1000)
      yield* TestClock.adjust("1 second")
      const left = events.flatMap((event) =>
        event._tag === "PeerDisconnected" ? [[event.reason, event.remoteReason]] : []
      )
      assert.deepStrictEqual<unknown>(left, [["remote", "shutdown"]])
      assert.deepStrictEqual(lines, [])
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "150 millis", seed: "far" })), LogLines.capture))

  it.effect("delivers what it has written to a remote that reads slowly", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob, stop } = yield* pair
      let received = 0
      let ended = false
      yield* bob.handle(protocol, (stream) =>
        Stream.runForEach(stream.read, (chunk) => {
          received += chunk.length
          return Effect.sleep("600 millis")
        }).pipe(Effect.andThen(Effect.sync(() => ended = true))))
      yield* leaves(alice, bob, 1_000_000)
      const took = yield* stop
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual([received, ended], [1_000_000, true])
      assert.isAbove(took, 1000)
      assert.isBelow(took, 4000)
      assert.match(
        lines.join(),
        new RegExp(`^Warn: stopping took \\d\\.\\d s, of which streams of ${bob.localPeer} \\d`)
      )
    }).pipe(Effect.provide(net), LogLines.capture))

  it.effect("is held by a remote that never reads no longer than its time limit, and says so", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob, stop } = yield* pair
      yield* bob.handle(protocol, () => Effect.never)
      yield* leaves(alice, bob, 1_000_000)
      const took = yield* stop
      assert.isAtLeast(took, 4000)
      assert.isAtMost(took, 4500)
      assert.deepStrictEqual(lines, [
        `Warn: stopping took ${(took / 1000).toFixed(1)} s, of which streams of ${bob.localPeer} 4.0 s (left to itself)`
      ])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* bob.peerCount, 0)
    }).pipe(Effect.provide(net), LogLines.capture))

  it.effect("is held by a silent remote as little", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { alice, bob, stop } = yield* pair
      yield* bob.handle(protocol, (stream) => Stream.runDrain(stream.read))
      yield* network.blackhole(bob)
      yield* Effect.forkScoped(Effect.scoped(alice.open(bob.localPeer, protocol)), { startImmediately: true })
      assert.isAtMost(yield* stop, 5000)
    }).pipe(Effect.provide(net), LogLines.capture))

  it.effect("leaves a handler that ignores interruption to itself, tells which, and still says goodbye", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob, scope, stop } = yield* pair
      yield* Scope.provide(alice.handle(protocol, () => Effect.uninterruptible(Effect.never)), scope)
      yield* TestNetwork.run(bob.open(alice.localPeer, protocol))
      yield* TestClock.adjust("1 second")
      const took = yield* stop
      assert.isAtLeast(took, 4000)
      assert.isAtMost(took, 5000)
      assert.deepStrictEqual(lines, [
        `Warn: the handler of ${protocol} does not end when it is interrupted, and is left to itself`,
        `Warn: stopping took ${(took / 1000).toFixed(1)} s, of which the handler of ${protocol} 4.0 s (left to itself)`
      ])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* bob.peerCount, 0)
    }).pipe(Effect.provide(net), LogLines.capture))

  it.effect("waits for a handler that ends in time", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob, scope, stop } = yield* pair
      let finished = 0
      yield* Scope.provide(
        alice.handle(protocol, () =>
          Effect.onInterrupt(Effect.never, () =>
            Effect.andThen(
              Effect.sleep("700 millis"),
              Effect.sync(() => finished++)
            ))),
        scope
      )
      yield* TestNetwork.run(bob.open(alice.localPeer, protocol))
      yield* TestClock.adjust("1 second")
      assert.approximately(yield* stop, 750, 100)
      assert.strictEqual(finished, 1)
      assert.deepStrictEqual(lines, [])
    }).pipe(Effect.provide(net), LogLines.capture))

  it.effect("gives up its dials at once", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { node: alice, scope, stop } = yield* stoppable("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      const [address] = yield* bob.addresses
      yield* network.blackhole(bob)
      yield* Scope.provide(alice.keep(address!), scope)
      const dial = yield* Effect.forkChild(Effect.flip(alice.connect(address!)), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isAtMost(yield* stop, 100)
      const error = yield* TestNetwork.run(Fiber.join(dial))
      assert.strictEqual(error._tag === "DialError" && error.reason._tag, "Denied")
    }).pipe(Effect.provide(net), LogLines.capture))
})
