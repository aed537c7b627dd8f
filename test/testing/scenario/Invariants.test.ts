import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import * as Invariants from "../../../src/testing/scenario/Invariants.ts"
import { SimNetwork } from "../../../src/testing/index.ts"

const alice = SimNetwork.peerId("alice")
const bob = SimNetwork.peerId("bob")

/** Two nodes that have each other, with some fields changed. */
const views = (
  differences: { readonly alice?: Partial<Invariants.NodeView>; readonly bob?: Partial<Invariants.NodeView> } = {}
): ReadonlyArray<Invariants.NodeView> => {
  const view = (name: string, other: string): Invariants.NodeView => ({
    name,
    peer: SimNetwork.peerId(name),
    isAwake: true,
    size: 1,
    maxPeers: 2,
    peers: new Map([[SimNetwork.peerId(other), 0]]),
    neighbours: new Set([SimNetwork.peerId(other)]),
    hears: new Set([SimNetwork.peerId(other)]),
    blocked: new Set(),
    kept: new Set()
  })
  return [{ ...view("alice", "bob"), ...differences.alice }, { ...view("bob", "alice"), ...differences.bob }]
}

const none = { size: 0, peers: new Map<typeof bob, number>(), neighbours: new Set<typeof bob>() }

const make = (canDial = true) =>
  Invariants.make({
    healthBound: Duration.seconds(10),
    oneSidedMillisMax: () => 10_000,
    missingMillisMax: (awayMillis) => Math.min(85_000, 29_000 + awayMillis),
    canDial: () => canDial
  })

/** The broken promise when nothing changes from second 0 to the given second. */
const after = (seconds: number, nodes: ReadonlyArray<Invariants.NodeView>, { look } = make()) => {
  look(0, nodes)
  return look(seconds * 1_000, nodes)?.invariant
}

describe("the invariants", () => {
  it("hold of nodes that have each other", () => {
    assert.isUndefined(after(1_000, views()))
  })

  it("limit: more peers than maxPeers", () => {
    assert.isUndefined(after(0, views({ alice: { size: 2 } })))
    assert.strictEqual(after(0, views({ alice: { size: 3 } })), "limit")
  })

  it("blocked: a peer that is blocked and there", () => {
    assert.strictEqual(after(0, views({ alice: { blocked: new Set([bob]) } })), "blocked")
    assert.isUndefined(after(0, views({ alice: { ...none, blocked: new Set([bob]) }, bob: none })))
  })

  it("dead: a peer out of reach longer than the bound, unless the node itself stands still", () => {
    const broken = views({ alice: { neighbours: new Set() }, bob: none })
    assert.isUndefined(after(10, broken))
    assert.strictEqual(after(10.001, broken), "dead")
    assert.strictEqual(after(11, views({ bob: { isAwake: false } })), "dead")
    assert.isUndefined(after(11, views({ alice: { isAwake: false, neighbours: new Set() }, bob: none })))
  })

  it("dead: counts from when it began, anew after each time that it was not so", () => {
    const { look } = make()
    const broken = views({ alice: { neighbours: new Set() }, bob: { neighbours: new Set() } })
    look(0, broken)
    look(9_000, views())
    look(10_000, broken)
    assert.isUndefined(look(20_000, broken))
    assert.strictEqual(look(20_001, broken)?.invariant, "dead")
  })

  it("dead: counts anew with a new connection, when messages pass again, and when a peer wakes that is heard", () => {
    const mute = { neighbours: new Set<typeof bob>() }
    const deaf = { ...mute, hears: new Set<typeof bob>() }
    const asleep = { isAwake: false }
    const histories = [
      [{ alice: deaf, bob: asleep }, { bob: asleep }],
      [{ alice: deaf, bob: asleep }, { alice: mute, bob: asleep }],
      [{ alice: mute, bob: asleep }, { alice: mute }],
      [{ alice: mute, bob: asleep }, { bob: asleep }]
    ]
    for (const [before, after] of histories) {
      const { look } = make()
      look(0, views(before))
      look(9_000, views(after))
      assert.isUndefined(look(19_000, views(after)))
      assert.strictEqual(look(19_001, views(after))?.invariant, "dead")
    }
    // A peer that wakes, or that falls asleep, and cannot be heard shows nothing.
    for (const [before, after] of [[asleep, {}], [{}, asleep]]) {
      const { look } = make()
      look(0, views({ alice: deaf, bob: before! }))
      look(9_000, views({ alice: deaf, bob: after! }))
      assert.strictEqual(look(10_001, views({ alice: deaf, bob: after! }))?.invariant, "dead")
    }
  })

  it("dead: counts anew for a node whose clock has leapt", () => {
    const invariants = make()
    const broken = views({ alice: { neighbours: new Set() }, bob: none })
    invariants.look(0, broken)
    invariants.leapt("alice")
    assert.isUndefined(invariants.look(11_000, broken))
    assert.strictEqual(invariants.look(21_001, broken)?.invariant, "dead")
  })

  it("one-sided: a peer that does not have the node", () => {
    const broken = views({ bob: { size: 0, peers: new Map() } })
    assert.isUndefined(after(10, broken))
    assert.strictEqual(after(11, broken), "one-sided")
  })

  const kept = (seconds: number, bound: number, given = make()) => {
    const broken = views({ alice: { ...none, kept: new Set([bob]) }, bob: none })
    given.look(seconds * 1_000, broken)
    assert.isUndefined(given.look((seconds + bound) * 1_000, broken))
    assert.strictEqual(given.look((seconds + bound) * 1_000 + 1, broken)?.invariant, "kept")
  }
  const alone = views({ alice: { ...none, kept: new Set([bob]) } }).slice(0, 1)

  it("kept: a kept peer that could be dialled and is not there", () => {
    const broken = { ...none, kept: new Set([bob]) }
    kept(0, 29)
    assert.isUndefined(after(86, views({ alice: broken, bob: none }), make(false)))
    assert.isUndefined(after(86, views({ alice: broken, bob: { ...none, isAwake: false } })))
    // A full table may refuse.
    assert.isUndefined(after(86, views({ alice: broken, bob: { ...none, size: 2 } })))
  })

  it("kept: a peer that was lost and came back between two looks has another connection", () => {
    const given = make()
    const cameAt = (at: number) => views({ alice: { peers: new Map([[bob, at]]) } })
    given.look(0, cameAt(0))
    given.look(14_000, cameAt(0))
    given.look(14_500, cameAt(14_400))
    given.look(20_000, cameAt(14_400))
    // None of the two lasted 15 s, so it has been away since 0.
    kept(20, 49, given)
    const one = make()
    for (const second of [0, 14, 20]) one.look(second * 1_000, cameAt(0))
    kept(20, 29, one)
  })

  it("kept: has a bound by how long the peer had been away, which counts from its last connection of 15 s", () => {
    const steady = make()
    for (const second of [0, 15]) steady.look(second * 1_000, views())
    for (const second of [16, 30, 44]) steady.look(second * 1_000, alone)
    kept(45, 29 + 30, steady)
    const flapping = make()
    for (const second of [0, 15]) flapping.look(second * 1_000, views())
    flapping.look(16_000, alone)
    for (const second of [20, 34]) flapping.look(second * 1_000, views())
    flapping.look(35_000, alone)
    kept(45, 29 + 30, flapping)
    const back = make()
    for (const second of [0, 15]) back.look(second * 1_000, views())
    back.look(16_000, alone)
    for (const second of [20, 35]) back.look(second * 1_000, views())
    back.look(36_000, alone)
    kept(45, 29 + 10, back)
  })

  it("kept: a keeper whose peer was not there yet when it began has been without it since then", () => {
    const late = make()
    for (const second of [0, 20]) late.look(second * 1_000, alone)
    kept(45, 29 + 45, late)
  })

  it("kept: the time in which the keeper stood still is no part of a connection", () => {
    const asleep = make()
    for (const second of [0, 10]) asleep.look(second * 1_000, views())
    for (const second of [11, 19]) asleep.look(second * 1_000, views({ alice: { isAwake: false } }))
    for (const second of [20, 24]) asleep.look(second * 1_000, views())
    asleep.look(25_000, alone)
    kept(45, 29 + 45, asleep)
  })

  it("kept: has the longest bound after a disconnect, until a connection lasts", () => {
    const invariants = make()
    for (const second of [0, 15]) invariants.look(second * 1_000, views())
    invariants.excuse("bob")
    invariants.look(15_500, views())
    kept(16, 85, invariants)
    const back = make()
    back.excuse("bob")
    for (const second of [0, 15]) back.look(second * 1_000, views())
    kept(16, 30, back)
  })

  it("kept: counts anew for a keeper that was gone meanwhile, and not for the peer", () => {
    const broken = views({ alice: { ...none, kept: new Set([bob]) }, bob: none })
    const keeper = make()
    keeper.look(0, broken)
    keeper.look(10_000, broken.slice(1))
    kept(20, 29, keeper)
    const peer = make()
    peer.look(0, broken)
    peer.look(10_000, broken.slice(0, 1))
    kept(20, 29 + 20, peer)
  })

  it("kept: counts anew from an excuse", () => {
    const invariants = make()
    const broken = views({ alice: { ...none, kept: new Set([bob]) }, bob: { ...none, kept: new Set([alice]) } })
    invariants.look(0, broken)
    invariants.excuse("bob")
    assert.isUndefined(invariants.look(80_000, broken))
  })

  it("one-sided: has a bound by the two nodes", () => {
    const invariants = Invariants.make({
      healthBound: Duration.seconds(10),
      oneSidedMillisMax: ({ name }, other) => name === "alice" && other.name === "bob" ? 1_000 : 10_000,
      missingMillisMax: () => 85_000,
      canDial: () => true
    })
    const broken = views({ bob: { size: 0, peers: new Map() } })
    assert.isUndefined(after(1, broken, invariants))
    assert.strictEqual(after(1.001, broken, invariants), "one-sided")
  })
})
