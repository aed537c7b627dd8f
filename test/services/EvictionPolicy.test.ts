import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as ScopedPeerTable from "../../src/layers/peers/ScopedPeerTable.ts"
import type { Direction, Interest } from "../../src/schema/Peer.ts"
import { byInterest, type EvictionCandidate, EvictionPolicy } from "../../src/services/EvictionPolicy.ts"
import { defaultGuestPolicy } from "../../src/services/GuestPolicy.ts"
import { NetworkConfig } from "../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../src/services/NetworkEvents.ts"
import { PeerTable } from "../../src/services/PeerTable.ts"
import * as FakeConnection from "../support/FakeConnection.ts"
import * as FakeInterests from "../support/FakeInterests.ts"

const candidate = (
  name: string,
  interest: Interest,
  idleSeconds: number,
  isBusy = false,
  guestMinutes?: number
): EvictionCandidate & { readonly name: string } => ({
  name,
  id: FakeConnection.peerId(name),
  interest,
  direction: "inbound",
  isGuest: guestMinutes !== undefined,
  isBusy,
  idleDuration: Duration.seconds(idleSeconds),
  connectionDuration: guestMinutes === undefined ? Duration.hours(1) : Duration.minutes(guestMinutes)
})

const chosen = (interest: Interest, direction: Direction, candidates: ReadonlyArray<EvictionCandidate>) =>
  byInterest(candidates, { id: FakeConnection.peerId("newcomer"), interest, direction }, defaultGuestPolicy).map((
    one
  ) => (one as ReturnType<typeof candidate>).name)

const everybody = [
  candidate("wanted", "wanted", 1_000),
  candidate("discovered", "discovered", 900),
  candidate("busy", "transient", 800, true),
  candidate("new", "transient", 1),
  candidate("old", "transient", 100)
]

const table = (rule?: typeof byInterest) =>
  ScopedPeerTable.layer.pipe(
    Layer.provideMerge(NetworkEvents.layer),
    Layer.provide(FakeConnection.transport),
    Layer.provideMerge(FakeInterests.layer),
    Layer.provide(NetworkConfig.layer({ maxPeers: 2 })),
    Layer.provide(rule === undefined ? Layer.empty : Layer.succeed(EvictionPolicy)(rule))
  )

const [alice, bob, carol] = ["alice", "bob", "carol"].map(FakeConnection.peerId) as [
  ReturnType<typeof FakeConnection.peerId>,
  ReturnType<typeof FakeConnection.peerId>,
  ReturnType<typeof FakeConnection.peerId>
]

describe("EvictionPolicy", () => {
  it("evicts by interest, then those without streams, then who is idle the longest", () => {
    assert.deepStrictEqual(chosen("kept", "outbound", everybody), ["old", "new", "busy", "discovered", "wanted"])
    assert.deepStrictEqual(chosen("wanted", "inbound", everybody), ["old", "new", "busy", "discovered"])
  })

  it("evicts nobody for an inbound stranger, and idle strangers for a dial that nobody asked for", () => {
    assert.deepStrictEqual(chosen("transient", "inbound", everybody), [])
    assert.deepStrictEqual(chosen("discovered", "inbound", everybody), [])
    assert.deepStrictEqual(chosen("transient", "outbound", everybody), ["old", "new"])
    assert.deepStrictEqual(chosen("discovered", "outbound", everybody), ["old", "new"])
  })

  const guest = (name: string, minutes: number, isBusy = false) => candidate(name, "transient", 0, isBusy, minutes)

  it("ranks guests above other transient peers, and below all others, the one connected for longest first", () => {
    const guests = [guest("guest", 5), guest("old guest", 60), guest("busy guest", 90, true)]
    assert.deepStrictEqual(chosen("wanted", "inbound", [...guests, ...everybody]), [
      ...["old", "new", "busy"],
      ...["old guest", "guest", "busy guest"],
      "discovered"
    ])
  })

  it("evicts a guest whose stay is over, for whoever comes, the one that is connected for longest first", () => {
    const guests = [guest("young", 9.99), guest("over", 10), guest("longest", 11), guest("busy guest", 90, true)]
    for (const direction of ["inbound", "outbound"] as const) {
      for (const interest of ["transient", "discovered"] as const) {
        assert.deepStrictEqual(chosen(interest, direction, guests), ["longest", "over"])
      }
    }
    // An idle stranger goes first, where it goes at all.
    const mixed = [...guests, candidate("idle", "transient", 10)]
    assert.deepStrictEqual(chosen("transient", "inbound", mixed), ["longest", "over"])
    assert.deepStrictEqual(chosen("transient", "outbound", mixed), ["idle", "longest", "over"])
  })

  it("evicts no guest while guests are less than half of the peers that may be evicted", () => {
    const guests = [guest("over", 60), guest("longest", 90)]
    const others = ["a", "b"].map((name) => candidate(name, "transient", 10))
    assert.deepStrictEqual(chosen("transient", "inbound", [...guests, ...others]), ["longest", "over"])
    assert.deepStrictEqual(chosen("transient", "inbound", [...guests, ...others, candidate("c", "wanted", 1)]), [])
  })

  it.effect("is the table's, and another one replaces it", () =>
    Effect.gen(function*() {
      // The newest first, for everybody.
      const newest: typeof byInterest = (candidates) =>
        [...candidates].sort((a, b) =>
          Duration.toMillis(a.connectionDuration) - Duration.toMillis(b.connectionDuration)
        )
      for (const [rule, left] of [[undefined, [alice, bob]], [newest, [alice, carol]]] as const) {
        yield* Effect.gen(function*() {
          const peers = yield* PeerTable
          yield* peers.admit(FakeConnection.make(alice))
          yield* TestClock.adjust("1 second")
          yield* peers.admit(FakeConnection.make(bob))
          yield* TestClock.adjust("1 second")
          yield* Effect.exit(peers.admit(FakeConnection.make(carol, { inbound: true })))
          assert.sameMembers((yield* peers.peers).map((peer) => peer.id), [...left])
        }).pipe(Effect.provide(table(rule), { local: true }))
      }
    }))

  it.effect("has no say over held and kept peers, nor over those that are no candidates", () =>
    Effect.gen(function*() {
      const asked: Array<ReadonlyArray<string>> = []
      const reckless: typeof byInterest = (candidates) => {
        asked.push(candidates.map(({ id }) => id))
        return [alice, bob, carol].map((id) => ({ ...candidate("", "transient", 1), id }))
      }
      yield* Effect.gen(function*() {
        const peers = yield* PeerTable
        yield* FakeInterests.rank(alice, "kept")
        yield* peers.admit(FakeConnection.make(alice))
        yield* peers.admit(FakeConnection.make(bob))
        const held = yield* Scope.make()
        yield* Scope.provide(peers.hold(bob), held)
        const error = yield* Effect.flip(peers.admit(FakeConnection.make(carol)))
        assert.strictEqual(error._tag, "PeerLimitExceeded")
        assert.deepStrictEqual(asked, [[]])
        yield* Scope.close(held, Exit.void)
        yield* peers.admit(FakeConnection.make(carol))
        assert.sameMembers((yield* peers.peers).map((peer) => peer.id), [alice, carol])
      }).pipe(Effect.provide(table(reckless)))
    }))
})
