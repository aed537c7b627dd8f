import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"

const net = SimNetwork.layer({ latency: "10 millis", seed: "links" })

const nodes = Effect.all([
  TestNetwork.makeNode("alice"),
  TestNetwork.makeNode("bob"),
  TestNetwork.makeNode("carol")
])

const pinged = (node: Network["Service"], other: Network["Service"]) =>
  Effect.map(TestNetwork.run(node.ping(other.localPeer)), Duration.toMillis)

const counts = (...nodes: ReadonlyArray<Network["Service"]>) => Effect.forEach(nodes, (node) => node.peerCount)

describe("a link", () => {
  it.effect("has a latency of its own, also on connections that are open", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const [alice, bob, carol] = yield* nodes
      yield* TestNetwork.connected(alice, bob)
      yield* TestNetwork.connected(alice, carol)
      yield* network.link(alice, bob, { latency: "150 millis" })
      assert.strictEqual(yield* pinged(alice, bob), 300)
      assert.strictEqual(yield* pinged(bob, alice), 300)
      assert.strictEqual(yield* pinged(alice, carol), 20)
      yield* network.link(alice, bob, { latency: "10 millis", oneWay: true })
      assert.strictEqual(yield* pinged(alice, bob), 160)
    }).pipe(Effect.provide(net)))

  it.effect("has a bandwidth, which all connections between two nodes share", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const [alice, bob] = yield* nodes
      yield* TestNetwork.connected(alice, bob)
      let arrived = 0
      yield* bob.handle("/sim/sink/1.0.0", (stream) =>
        Stream.runForEach(stream.read, (chunk) => Effect.sync(() => (arrived += chunk.length))))
      yield* network.link(alice, bob, { bandwidth: 20_000 })
      const send = Effect.scoped(Effect.flatMap(
        alice.open(bob.localPeer, "/sim/sink/1.0.0"),
        (stream) =>
          Effect.forEach(Array.from({ length: 20 }), () => stream.write(new Uint8Array(1_000)))
      ))
      yield* Effect.forkChild(Effect.all([send, send], { concurrency: 2 }))
      yield* TestClock.adjust("1 second")
      assert.isAbove(arrived, 15_000)
      assert.isAtMost(arrived, 20_000)
      yield* TestClock.adjust("1500 millis")
      assert.strictEqual(arrived, 40_000)
    }).pipe(Effect.provide(net)))

  it.effect("that is mute one way is noticed by both", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const [alice, bob, carol] = yield* nodes
      yield* TestNetwork.connected(alice, bob)
      yield* TestNetwork.connected(alice, carol)
      yield* TestClock.adjust("1 minute")
      yield* network.mute(alice, bob)
      assert.isFalse(network.reaches(alice.localPeer, bob.localPeer))
      assert.isTrue(network.reaches(bob.localPeer, alice.localPeer))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* counts(alice, bob, carol), [1, 0, 1])
      yield* network.heal
      yield* TestClock.adjust("90 seconds")
      assert.deepStrictEqual(yield* counts(alice, bob, carol), [2, 1, 1])
    }).pipe(Effect.provide(net)))
})

describe("a NAT", () => {
  it.effect("lets nodes dial out and each other, and leaves dials from outside without an answer", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const [alice, bob, carol] = yield* nodes
      yield* network.nat([alice, bob])
      yield* TestNetwork.connected(alice, bob)
      yield* TestNetwork.connected(alice, carol)
      const [address] = yield* bob.addresses
      const dial = yield* Effect.forkChild(Effect.flip(carol.connect(address!)), { startImmediately: true })
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(dial.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      const error = yield* Fiber.join(dial)
      assert.strictEqual(error._tag === "DialError" ? error.reason._tag : error._tag, "DialTimeout")
      yield* network.expose(bob)
      yield* TestNetwork.connected(carol, bob)
    }).pipe(Effect.provide(net)))
})
