import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { TestClock } from "effect/testing"
import type { KnownSource } from "../../../src/services/Discovery.ts"
import { ReconnectPolicy } from "../../../src/services/ReconnectPolicy.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../../src/testing/TestNetwork.ts"
import * as CoreNode from "../../support/CoreNode.ts"

const net = SimNetwork.layer({ latency: "5 millis", seed: "sightings" })

/** Waits so long between dials that a spec sees which ones a sighting begins. */
const seldom = Effect.provideService(ReconnectPolicy, () => Schedule.spaced("1 day"))

const absent = { id: SimNetwork.peerId("absent"), addresses: [SimNetwork.address("absent")] }

/** A node that is connected to one peer, and so is not isolated, with room for one that discovery finds. */
const companion = Effect.gen(function*() {
  const alice = yield* CoreNode.make("alice", { minPeers: 2, connectionIdleTimeout: "1 day" })
  const friend = yield* CoreNode.make("friend", { minPeers: 0, connectionIdleTimeout: "1 day" })
  yield* TestNetwork.run(alice.manager.connect((yield* friend.addresses)[0]!))
  return alice
})

type Node = Effect.Success<ReturnType<typeof CoreNode.make>>

/** How many dials have failed a second after the sighting. */
const sighted = Effect.fnUntraced(function*(node: Node, found: typeof absent, source: KnownSource = "mdns") {
  yield* node.discovery.announce(found, source)
  // In steps, since what a step sets off may have to sleep in turn.
  yield* Effect.repeat(TestClock.adjust("100 millis"), { times: 9 })
  return node.happened("DialFailed").length
})

describe("a sighting of a kept peer", () => {
  it.effect("hurries its dial once in 10 seconds", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      yield* alice.manager.keep(absent)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* sighted(alice, absent), 2)
      for (let n = 0; n < 8; n++) assert.strictEqual(yield* sighted(alice, absent), 2)
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(yield* sighted(alice, absent), 2)
      assert.strictEqual(yield* sighted(alice, absent), 3)
    }).pipe(Effect.provide(net), seldom))

  it.effect("hurries nothing where the source has not seen the peer alive", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      yield* alice.manager.keep(absent)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* sighted(alice, absent, "remembered"), 1)
    }).pipe(Effect.provide(net), seldom))

  it.effect("does not hurry the dial of a peer that refuses", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const bob = yield* CoreNode.make("bob")
      const found = { id: bob.id, addresses: [...yield* bob.addresses] }
      yield* bob.manager.block(alice.id)
      yield* alice.manager.keep(found)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(alice.happened("DialFailed").length, 1)
      assert.strictEqual(yield* sighted(alice, found), 1)
    }).pipe(Effect.provide(net), seldom))
})

describe("a sighting of another peer", () => {
  it.effect("begins no dial beyond `minPeers`, dials under way included", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* companion
      yield* network.link("alice", "bob", { latency: "1 second" })
      const bob = yield* CoreNode.make("bob", { minPeers: 0 })
      const carol = yield* CoreNode.make("carol", { minPeers: 0 })
      yield* alice.discovery.announce({ id: bob.id, addresses: yield* bob.addresses }, "mdns")
      yield* alice.discovery.announce({ id: carol.id, addresses: yield* carol.addresses }, "mdns")
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual((yield* alice.manager.status).pendingDials, [bob.id])
      yield* TestClock.adjust("1 minute")
      assert.isTrue(yield* alice.table.has(bob.id))
      assert.isFalse(yield* alice.table.has(carol.id))
    }).pipe(Effect.provide(net)))

  it.effect("begins no dial while its retry waits, without a new address", () =>
    Effect.gen(function*() {
      const alice = yield* companion
      assert.strictEqual(yield* sighted(alice, absent), 1)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* sighted(alice, absent), 1)
      const moved = { ...absent, addresses: [SimNetwork.address("elsewhere")] }
      assert.strictEqual(yield* sighted(alice, moved), 2)
    }).pipe(Effect.provide(net), seldom))

  it.effect("never dials one that the program disconnected", () =>
    Effect.gen(function*() {
      const alice = yield* companion
      const bob = yield* CoreNode.make("bob", { minPeers: 0 })
      const found = { id: bob.id, addresses: yield* bob.addresses }
      yield* TestNetwork.run(alice.manager.connect(found))
      yield* TestNetwork.run(alice.manager.disconnect(bob.id))
      yield* TestClock.adjust("1 hour")
      yield* alice.discovery.announce(found, "mdns")
      yield* TestClock.adjust("1 minute")
      assert.isFalse(yield* alice.table.has(bob.id))
    }).pipe(Effect.provide(net)))

  it.effect("dials neither a blocked peer nor this node", () =>
    Effect.gen(function*() {
      const alice = yield* companion
      yield* alice.manager.block(absent.id)
      assert.strictEqual(yield* sighted(alice, absent), 0)
      const before = (yield* alice.manager.status).knownPeers
      const self = { id: alice.id, addresses: [SimNetwork.address("alice 2")] }
      assert.strictEqual(yield* sighted(alice, self), 0)
      assert.strictEqual((yield* alice.manager.status).knownPeers, before)
    }).pipe(Effect.provide(net)))
})
