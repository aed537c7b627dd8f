import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"

const net = SimNetwork.layerWithClock({ latency: "20 millis", jitter: "5 millis", seed: "promises" })

const keeps = Effect.fnUntraced(function*(node: Network["Service"], other: Network["Service"]) {
  yield* node.keep((yield* other.addresses)[0]!)
  yield* TestNetwork.until(
    Effect.map(Effect.all([node.peerCount, other.peerCount]), ([one, two]) => one > 0 && two > 0)
  )
})

const counts = (...nodes: ReadonlyArray<Network["Service"]>) => Effect.forEach(nodes, (node) => node.peerCount)

/** Alice has kept Bob for a minute; counts how often either has lost the other since. */
const pair = Effect.gen(function*() {
  const alice = yield* TestNetwork.makeNode("alice")
  const bob = yield* TestNetwork.makeNode("bob")
  yield* keeps(alice, bob)
  yield* TestClock.adjust("1 minute")
  const losses: Array<string> = []
  for (const node of [alice, bob]) {
    yield* Effect.forkScoped(
      Stream.runForEach(node.events, (event) =>
        Effect.sync(() => {
          if (event._tag === "PeerDisconnected") losses.push(event.reason)
        })),
      { startImmediately: true }
    )
  }
  return { alice, bob, losses }
})

describe("bad links", () => {
  it.effect("that lose one transmission in twenty lose no peer in six hours", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { alice, bob, losses } = yield* pair
      yield* network.link(alice, bob, { loss: 0.05 })
      yield* TestClock.adjust("6 hours")
      assert.deepStrictEqual(losses, [])
    }).pipe(Effect.provide(net)))

  it.effect("that take a second each way lose no peer, and can be dialled over", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { alice, bob, losses } = yield* pair
      yield* network.link(alice, bob, { latency: "1 second", jitter: "100 millis" })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(losses, [])
      yield* network.sever(alice, bob)
      yield* TestClock.adjust("6 seconds")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    }).pipe(Effect.provide(net)))
})

describe("a machine", () => {
  it.effect("whose clock leaps by eight hours, or a process that stalls for five seconds, loses no peer", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { alice, bob, losses } = yield* pair
      yield* network.jump(alice, "8 hours")
      yield* TestClock.adjust("1 minute")
      yield* network.jump(bob, "8 hours")
      yield* TestClock.adjust("1 minute")
      yield* network.stall(alice, "5 seconds")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(losses, [])
    }).pipe(Effect.provide(net)))

  it.effect("that slept for a night has whom it keeps within 20 seconds", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { alice, bob } = yield* pair
      yield* network.sleep(alice, "8 hours")
      yield* TestClock.adjust("8 hours")
      assert.deepStrictEqual(yield* counts(bob), [0])
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    }).pipe(Effect.provide(net)))

  it.effect("in another network has whom it keeps within 15 seconds", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { alice, bob } = yield* pair
      yield* network.readdress(alice, { moves: true })
      yield* TestClock.adjust("15 seconds")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    }).pipe(Effect.provide(net)))

  it.effect("that moved is found by whom it is kept, as soon as it is heard of", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice", { enableMdns: true, minPeers: 0 })
      const bob = yield* TestNetwork.makeNode("bob", { enableMdns: true, minPeers: 0 })
      yield* keeps(alice, bob)
      yield* TestClock.adjust("1 minute")
      yield* network.readdress(bob, { moves: true })
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    }).pipe(Effect.provide(net)))
})

describe("a partition that has lasted an hour", () => {
  it.effect("is over within 5 seconds for nodes that hear of each other", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice", { enableMdns: true })
      const bob = yield* TestNetwork.makeNode("bob", { enableMdns: true })
      yield* keeps(alice, bob)
      yield* network.partition([[alice], [bob]])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* counts(alice, bob), [0, 0])
      yield* network.heal
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    }).pipe(Effect.provide(net)))
})

describe("a node behind a NAT", () => {
  it.effect("stays with whom it keeps, and comes back after each loss, though nobody can dial it", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { alice, bob } = yield* pair
      yield* network.nat([alice])
      yield* network.sever(alice, bob)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
      yield* network.kill(bob)
      yield* TestClock.adjust("1 minute")
      const again = yield* TestNetwork.makeNode("bob")
      yield* TestClock.adjust("75 seconds")
      assert.deepStrictEqual(yield* counts(alice, again), [1, 1])
    }).pipe(Effect.provide(net)))
})
