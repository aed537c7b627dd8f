import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Metric, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Multiaddr, PeerId } from "../../../src/schema/Peer.ts"
import { EvictionPolicy } from "../../../src/services/EvictionPolicy.ts"
import * as NetworkMetrics from "../../../src/services/NetworkMetrics.ts"
import { PeerTable } from "../../../src/services/PeerTable.ts"
import * as FakeConnection from "../../support/FakeConnection.ts"
import * as FakeInterests from "../../support/FakeInterests.ts"
import * as FakeTable from "../../support/FakeTable.ts"

const [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(FakeConnection.peerId) as [
  PeerId,
  PeerId,
  PeerId,
  PeerId
]

/** A connection of the peer during whose admission, after the victims were chosen, something happens. */
const whileAdmitted = (peer: PeerId, happens: Effect.Effect<unknown, never, never>) => {
  const connection = FakeConnection.make(peer)
  return { ...connection, path: Effect.andThen(happens, connection.path) }
}

describe("an eviction", () => {
  it.effect("spares a peer that is held or kept by the time of the admission", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const interests = yield* FakeInterests.FakeInterests
      yield* peers.admit(FakeConnection.make(alice))
      yield* FakeInterests.rank(bob, "wanted")
      const scope = yield* Scope.make()
      const held = whileAdmitted(bob, Scope.provide(Effect.orDie(peers.hold(alice)), scope))
      assert.strictEqual((yield* Effect.flip(peers.admit(held)))._tag, "PeerLimitExceeded")
      yield* Scope.close(scope, Exit.void)
      const kept = whileAdmitted(bob, Effect.sync(() => interests.set.set(alice, "kept")))
      assert.strictEqual((yield* Effect.flip(peers.admit(kept)))._tag, "PeerLimitExceeded")
      interests.set.delete(alice)
      assert.isTrue(yield* peers.has(alice))
      yield* peers.admit(FakeConnection.make(bob))
      assert.isFalse(yield* peers.has(alice))
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 1 }))))

  it.effect("takes no peer that has gone by the time of the admission", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      yield* peers.admit(FakeConnection.make(alice))
      yield* TestClock.adjust("1 second")
      yield* peers.admit(FakeConnection.make(carol))
      yield* FakeInterests.rank(bob, "wanted")
      yield* peers.admit(whileAdmitted(
        bob,
        Effect.andThen(peers.remove(alice, "disconnect"), Effect.orDie(peers.admit(FakeConnection.make(dave))))
      ))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(
        events.flatMap((event) => event._tag === "PeerDisconnected" ? [[event.peer, event.reason]] : []),
        [[alice, "disconnect"], [carol, "evicted"]]
      )
      assert.sameMembers((yield* peers.peers).map(({ id }) => id), [bob, dave])
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 2 }))))

  it.effect("offers no kept, held or dialled peer to the policy", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      for (const peer of [alice, bob]) yield* peers.admit(FakeConnection.make(peer))
      yield* FakeInterests.rank(alice, "kept")
      yield* peers.hold(bob)
      yield* FakeInterests.rank(carol, "wanted")
      assert.strictEqual(yield* peers.reserve(FakeConnection.make(carol)), "full")
      assert.strictEqual((yield* Effect.flip(peers.admit(FakeConnection.make(carol))))._tag, "PeerLimitExceeded")
      assert.strictEqual(yield* peers.size, 2)
    }).pipe(
      Effect.scoped,
      Effect.provide(Layer.provide(
        FakeTable.layer({ maxPeers: 2 }),
        Layer.succeed(EvictionPolicy)((candidates) => candidates)
      ))
    ))
})

describe("the gate's first question", () => {
  it.effect("is no for a full subnet, unless a wanted peer is away", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const { set } = yield* FakeInterests.FakeInterests
      const [near, far] = ["/ip4/203.0.113.9/tcp/1", "/ip4/198.51.100.9/tcp/1"] as [Multiaddr, Multiaddr]
      assert.isTrue(yield* peers.accepts(near))
      yield* peers.admit(FakeConnection.make(alice, { inbound: true, address: "/ip4/203.0.113.1/tcp/1" }))
      assert.deepStrictEqual([yield* peers.accepts(near), yield* peers.accepts(far)], [false, true])
      set.set(bob, "wanted")
      assert.isTrue(yield* peers.accepts(near))
      yield* peers.admit(FakeConnection.make(bob, { address: "/ip4/198.51.100.1/tcp/1" }))
      assert.isFalse(yield* peers.accepts(near))
    }).pipe(Effect.provide(FakeTable.layer({ maxPeersPerSubnet: 1 }))))

  it.effect("counts a slot that is reserved in the subnet", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const near = "/ip4/203.0.113.9/tcp/1" as Multiaddr
      yield* peers.reserve(FakeConnection.make(alice, { inbound: true, address: "/ip4/203.0.113.1/tcp/1" }))
      assert.isFalse(yield* peers.accepts(near))
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* peers.accepts(near))
    }).pipe(Effect.provide(FakeTable.layer({ maxPeersPerSubnet: 1 }))))
})

describe("a connected peer", () => {
  it.effect("may be dialled though the table is full", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      yield* peers.admit(FakeConnection.make(alice))
      assert.isUndefined(yield* peers.refuses(alice))
      assert.strictEqual(yield* peers.refuses(bob), undefined)
      yield* FakeInterests.rank(alice, "kept")
      assert.isUndefined(yield* peers.refuses(alice))
      assert.strictEqual(yield* peers.refuses(bob), "full")
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 1 }))))

  it.effect("counts once for a subnet, and no more for one that its connections have left", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const from = (peer: PeerId, host: string) =>
        FakeConnection.make(peer, { inbound: true, address: `/ip4/${host}/tcp/1` })
      const first = from(alice, "203.0.113.1")
      yield* peers.admit(first)
      yield* peers.admit(from(alice, "203.0.113.2"))
      const elsewhere = from(alice, "198.51.100.1")
      yield* peers.admit(elsewhere)
      assert.strictEqual(yield* peers.reserve(from(bob, "198.51.100.2")), "subnet")
      yield* elsewhere.close
      yield* peers.release(elsewhere)
      assert.isUndefined(yield* peers.reserve(from(bob, "198.51.100.2")))
      assert.strictEqual(yield* peers.reserve(from(carol, "203.0.113.3")), "subnet")
    }).pipe(Effect.provide(FakeTable.layer({ maxPeersPerSubnet: 1 }))))

  it.effect("counts in the gauge while it is connected", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const gauge = Effect.map(Metric.value(NetworkMetrics.peers), ({ value }) => Number(value))
      const before = yield* gauge
      const connection = FakeConnection.make(alice)
      yield* peers.admit(connection)
      assert.strictEqual((yield* gauge) - before, 1)
      yield* connection.close
      yield* peers.release(connection)
      assert.strictEqual((yield* gauge) - before, 0)
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("is told once of what it says of itself", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      yield* peers.admit(FakeConnection.make(alice))
      const remote = { protocolVersion: "/1", agentVersion: "first", protocols: [], listenAddresses: [] }
      yield* peers.identified(alice, remote)
      yield* peers.identified(alice, { ...remote, agentVersion: "second" })
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(
        events.flatMap((event) => event._tag === "PeerIdentified" ? [event.agentVersion] : []),
        ["first"]
      )
    }).pipe(Effect.provide(FakeTable.layer())))
})

describe("the table", () => {
  it.effect("tells nothing of a connection that closed before its admission", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      const closed = FakeConnection.make(alice)
      yield* closed.close
      assert.strictEqual((yield* Effect.flip(peers.admit(closed)))._tag, "PeerNotConnected")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(events, [])
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("ends only when the connections of peers that were evicted before have closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(FakeTable.layer({ maxPeers: 1 }), scope)
      const peers = Context.get(context, PeerTable)
      const { set } = Context.get(context, FakeInterests.FakeInterests)
      const closing = yield* Deferred.make<void>()
      const slow = FakeConnection.make(alice)
      yield* peers.admit({ ...slow, close: Deferred.await(closing) })
      set.set(bob, "wanted")
      yield* peers.admit(FakeConnection.make(bob))
      const end = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isUndefined(end.pollUnsafe())
      yield* Deferred.succeed(closing, undefined)
      yield* Fiber.join(end)
    }))
})
