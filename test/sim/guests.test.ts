/**
 * Guests: peers that only the remote keeps. They have their slots for a while, and not for ever.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import { GuestPolicy } from "../../src/services/GuestPolicy.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"
import { record } from "../support/record.ts"

const net = SimNetwork.layer({ latency: "5 millis", seed: "guests" })

type Node = Network["Service"]

/** A hub of three slots. It is full of guests, which came one second after the other. */
const fullHub = Effect.gen(function*() {
  const hub = yield* TestNetwork.makeNode("hub", { maxPeers: 3, minPeers: 0 })
  yield* hub.handle("/sim/wait/1.0.0", (stream) => Stream.runDrain(stream.read))
  const [address] = yield* hub.addresses
  const guests = yield* Effect.forEach(["guest-1", "guest-2", "guest-3"], (name) => TestNetwork.makeNode(name))
  for (const guest of guests) {
    yield* guest.keep(address!)
    yield* TestClock.adjust("1 second")
  }
  assert.deepStrictEqual(yield* idsOf(hub), guests.map(({ localPeer }) => localPeer))
  return { hub, guests: guests as [Node, Node, Node] }
})

const idsOf = (node: Node) => Effect.map(node.peers, (peers) => peers.map(({ id }) => id))

/** Whether the hub has a slot for the stranger, who dials it once. */
const comesIn = Effect.fnUntraced(function*(stranger: Node, hub: Node) {
  const [address] = yield* hub.addresses
  return (yield* Effect.exit(TestNetwork.run(stranger.connect(address!))))._tag === "Success"
})

describe("a table that is full of peers that only they keep", () => {
  it.effect("is theirs for ten minutes; then the oldest of them makes room for each newcomer", () =>
    Effect.gen(function*() {
      const { guests, hub } = yield* fullHub
      const [first, second, third] = guests
      const told = yield* record(first)
      const [newcomer, another] = yield* Effect.all([TestNetwork.makeNode("newcomer"), TestNetwork.makeNode("another")])
      yield* TestClock.adjust("590 seconds")
      assert.isFalse(yield* comesIn(newcomer, hub))
      yield* TestClock.adjust("10 seconds")
      // Before the evicted guest dials again.
      assert.isTrue(yield* comesIn(newcomer, hub))
      assert.deepStrictEqual(yield* idsOf(hub), [second.localPeer, third.localPeer, newcomer.localPeer])
      yield* TestClock.adjust("1 second")
      const left = told.flatMap((event) => event._tag === "PeerDisconnected" ? [event.remoteReason] : [])
      assert.deepStrictEqual(left, ["evicted"])
      assert.isTrue(yield* comesIn(another, hub))
      assert.strictEqual(yield* hub.peerCount, 3)
      assert.include(yield* idsOf(hub), another.localPeer)
    }).pipe(Effect.provide(net)))

  it.effect("lets the guest that was evicted come again, when another's stay is over", () =>
    Effect.gen(function*() {
      const { guests: [first], hub } = yield* fullHub
      const newcomer = yield* TestNetwork.makeNode("newcomer")
      yield* TestClock.adjust("10 minutes")
      assert.isTrue(yield* comesIn(newcomer, hub))
      assert.notInclude(yield* idsOf(hub), first.localPeer)
      yield* TestClock.adjust("2 minutes")
      assert.include(yield* idsOf(hub), first.localPeer)
      assert.strictEqual(yield* hub.peerCount, 3)
    }).pipe(Effect.provide(net)))

  it.effect("makes no room of a guest with a stream of the application, nor of one that the hub wants itself", () =>
    Effect.gen(function*() {
      const { guests: [first, second, third], hub } = yield* fullHub
      yield* TestNetwork.run(first.open(hub.localPeer, "/sim/wait/1.0.0"))
      yield* TestNetwork.run(hub.connect(second.localPeer))
      yield* TestClock.adjust("20 minutes")
      assert.isTrue(yield* comesIn(yield* TestNetwork.makeNode("newcomer"), hub))
      assert.includeMembers(yield* idsOf(hub), [first.localPeer, second.localPeer])
      assert.notInclude(yield* idsOf(hub), third.localPeer)
    }).pipe(Effect.provide(net)))

  it.effect("keeps them for as long as another policy says", () =>
    Effect.gen(function*() {
      const { guests, hub } = yield* fullHub
      const newcomer = yield* TestNetwork.makeNode("newcomer")
      yield* TestClock.adjust("1 hour")
      assert.isFalse(yield* comesIn(newcomer, hub))
      assert.deepStrictEqual(yield* idsOf(hub), guests.map(({ localPeer }) => localPeer))
    }).pipe(
      Effect.provideService(GuestPolicy, { stay: "2 hours", share: 0.5 }),
      Effect.provide(net)
    ))
})
