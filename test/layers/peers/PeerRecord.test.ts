import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as PeerRecord from "../../../src/layers/peers/PeerRecord.ts"
import { DialError, Unreachable } from "../../../src/schema/NetworkError.ts"
import type { DisconnectReason, GoodbyeReason } from "../../../src/schema/NetworkEvent.ts"
import type { Interest, Multiaddr } from "../../../src/schema/Peer.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"

const bob = SimNetwork.peerId("bob")
const address = "/ip4/192.0.2.1/tcp/4001" as Multiaddr
const unreachable = new DialError({ target: "x", reason: new Unreachable({ detail: "x".repeat(10_000) }) })
const cooldown = 300_000

/** Wishes that are open, which a history may end later. */
interface Wishes {
  readonly keeps: Array<() => void>
  readonly calls: Array<() => void>
  readonly blocks: Array<() => void>
}

const end = (at: number, changes: Partial<PeerRecord.ConnectionEnd> = {}): PeerRecord.ConnectionEnd => ({
  at,
  isOurs: false,
  isReplaced: false,
  reason: "lost",
  remoteReason: undefined,
  isExpected: false,
  ...changes
})

/** Everything that can happen to a record, as one word each. */
const transitions = {
  asked: (peer) => PeerRecord.asked(peer, [address]),
  wanted: PeerRecord.wanted,
  keep: (peer, _, { keeps }) => void keeps.push(PeerRecord.keptBy(peer)),
  keepEnds: (_, __, { keeps }) => keeps.pop()?.(),
  call: (peer, _, { calls }) => void calls.push(PeerRecord.calledBy(peer)),
  callEnds: (_, __, { calls }) => calls.pop()?.(),
  block: (peer, _, { blocks }) => void blocks.push(PeerRecord.blockedBy(peer)),
  blockEnds: (_, __, { blocks }) => blocks.pop()?.(),
  suspended: PeerRecord.suspended,
  connected: PeerRecord.connected,
  restarts: (peer, now) => PeerRecord.saidGoodbye(peer, "shutdown", now + cooldown),
  leaves: (peer, now) => PeerRecord.saidGoodbye(peer, "disconnect", now + cooldown),
  lost: (peer, now) => PeerRecord.lost(peer, end(now), now + cooldown),
  idle: (peer, now) => PeerRecord.lost(peer, end(now, { isOurs: true, reason: "idle" }), now + cooldown),
  replaced: (peer, now) => PeerRecord.lost(peer, end(now, { isOurs: true, isReplaced: true }), now + cooldown),
  rests: (peer, now) => PeerRecord.rests(peer, now + 1000),
  sought: PeerRecord.sought,
  found: PeerRecord.found,
  missed: PeerRecord.missed,
  attemptBegins: PeerRecord.attemptBegins,
  attemptEnds: PeerRecord.attemptEnds,
  refused: PeerRecord.refused,
  backsOff: (peer) => PeerRecord.backsOff(peer, backoff),
  retriesAt: (peer, now) => PeerRecord.retriesAt(peer, now + 1000),
  waitsUntil: (peer, now) => PeerRecord.waitsUntil(peer, now + 1000),
  waitEnds: PeerRecord.waitEnds,
  givenUp: PeerRecord.givenUp,
  startAnew: PeerRecord.startAnew,
  hurried: PeerRecord.hurried,
  reappeared: PeerRecord.reappeared,
  dialled: (peer, now) => PeerRecord.dialled(peer, now, unreachable)
} satisfies Record<string, (peer: PeerRecord.PeerRecord, now: number, wishes: Wishes) => void>

type Word = keyof typeof transitions

const words = Object.keys(transitions) as ReadonlyArray<Word>
const Step = Schema.Struct({ word: Schema.Literals(words), pause: Schema.Literals([0, 1000, 14_999, 15_000, 600_000]) })
const History = Schema.Array(Step)
type History = typeof History.Type

const backoff: PeerRecord.PeerBackoff = { interest: "kept", next: () => Effect.succeed(undefined) }

/** A record with a past, the time now, and the wishes that are still open. */
const after = (history: History) =>
  Effect.sync(() => {
    let heard: Interest = "transient"
    const peer = PeerRecord.make(bob, (changed) => {
      heard = PeerRecord.interestOf(changed)
    })
    const wishes: Wishes = { keeps: [], calls: [], blocks: [] }
    let now = 1_000_000
    for (const { pause, word } of history) {
      transitions[word](peer, now, wishes)
      assert.strictEqual(heard, PeerRecord.interestOf(peer), `${word} tells of the interest that it changes`)
      now += pause
    }
    return { peer, now, wishes }
  })

/** A spec of what a transition must do to a record with any past. */
const check = (
  name: string,
  law: (past: { readonly peer: PeerRecord.PeerRecord; readonly now: number; readonly wishes: Wishes }) => void
) => it.effect.prop(name, { history: History }, ({ history }) => Effect.map(after(history), law))

const isUnhindered = (peer: PeerRecord.PeerRecord) => !peer.suspended && peer.blocks === 0

/** What a value holds, as far as properties and maps lead. */
const heldBy = (value: unknown, seen = new Set<unknown>()): Set<unknown> => {
  if (typeof value !== "object" || value === null || seen.has(value)) return seen
  seen.add(value)
  if (value instanceof Map) { for (const entry of value.values()) heldBy(entry, seen) }
  for (const part of Object.values(value)) heldBy(part, seen)
  return seen
}

describe("a peer's record, whatever its past", () => {
  check("it holds reasons and never an error, whose stack would hold a connection", ({ now, peer }) => {
    PeerRecord.lost(peer, end(now), now)
    PeerRecord.connected(peer, now)
    PeerRecord.lost(peer, end(now), now)
    PeerRecord.dialled(peer, now, unreachable)
    peer.addresses.learn(address, "given")
    peer.addresses.failed(address, now, unreachable, true)
    assert.isTrue(peer.failsNextDial)
    for (const held of heldBy(peer)) assert.notInstanceOf(held, Error)
  })

  check("a wish lasts until it ends, and ending it twice changes nothing", ({ peer, wishes }) => {
    for (
      const [count, begin] of [["keeps", PeerRecord.keptBy], ["calls", PeerRecord.calledBy], [
        "blocks",
        PeerRecord.blockedBy
      ]] as const
    ) {
      assert.strictEqual(peer[count], wishes[count].length)
      const end = begin(peer)
      assert.strictEqual(peer[count], wishes[count].length + 1)
      end()
      end()
      assert.strictEqual(peer[count], wishes[count].length)
    }
  })

  check("its interest is the strongest wish, unless it is blocked or suspended", ({ peer, wishes }) => {
    const strongest = wishes.keeps.length > 0
      ? "kept"
      : wishes.calls.length > 0 || peer.wanted
      ? "wanted"
      : peer.discovered
      ? "discovered"
      : "transient"
    assert.strictEqual(PeerRecord.interestOf(peer), isUnhindered(peer) ? strongest : "transient")
    assert.strictEqual(PeerRecord.isDesired(peer), isUnhindered(peer) && (wishes.keeps.length > 0 || peer.wanted))
  })

  check("a call that fails leaves no wish behind, and one that succeeds does", ({ peer }) => {
    const former = PeerRecord.interestOf(peer)
    PeerRecord.calledBy(peer)()
    assert.strictEqual(PeerRecord.interestOf(peer), former)
    PeerRecord.wanted(peer)
    assert.strictEqual(PeerRecord.isDesired(peer), isUnhindered(peer))
    PeerRecord.givenUp(peer)
    assert.isFalse(peer.wanted)
    assert.deepStrictEqual([peer.backoff, peer.attempts], [undefined, 0])
  })

  check("a disconnect outlasts everything but a question of the program", ({ now, peer, wishes }) => {
    PeerRecord.wanted(peer)
    PeerRecord.sought(peer)
    PeerRecord.suspended(peer)
    assert.deepStrictEqual([peer.wanted, peer.discovered], [false, false])
    for (const word of words) {
      if (word !== "asked") transitions[word](peer, now, wishes)
      assert.strictEqual(PeerRecord.interestOf(peer), "transient")
      assert.isFalse(PeerRecord.isDesired(peer) || PeerRecord.isCandidate(peer))
    }
    for (const end of wishes.blocks) end()
    PeerRecord.keptBy(peer)
    PeerRecord.attemptBegins(peer)
    PeerRecord.lost(peer, end(now, { isOurs: true, reason: "disconnect" }), now)
    assert.deepStrictEqual([peer.hurried, peer.parted], [false, true])
    PeerRecord.asked(peer, [])
    assert.strictEqual(PeerRecord.interestOf(peer), "kept")
    assert.deepStrictEqual([peer.hurried, peer.parted], [true, false])
  })

  check("a connection ends every wait, and what a former loss meant", ({ now, peer }) => {
    const { connectedAt } = peer
    PeerRecord.waitsUntil(peer, now + 1000)
    PeerRecord.connected(peer, now)
    assert.deepStrictEqual([peer.failsNextDial, peer.parted, peer.retryAt], [false, false, undefined])
    assert.strictEqual(peer.connectedAt, connectedAt ?? now)
  })

  const reasons: ReadonlyArray<GoodbyeReason> = ["idle", "evicted", "disconnect", "blocked", "shutdown"]

  for (const reason of reasons) {
    const isForGood = reason === "idle" || reason === "disconnect" || reason === "blocked"
    const outcome = isForGood ? "is wanted no more" : "stays wanted"

    check(`a peer that said ${reason} ${outcome}, and rests`, ({ now, peer }) => {
      PeerRecord.connected(peer, now)
      PeerRecord.wanted(peer)
      PeerRecord.sought(peer)
      PeerRecord.saidGoodbye(peer, reason, now + cooldown)
      const { restUntil } = peer
      const heard = { reason: "remote", remoteReason: reason, isExpected: true } as const
      PeerRecord.lost(peer, end(now + 20_000, heard), now + 2 * cooldown)
      assert.strictEqual(peer.wanted, !isForGood)
      assert.strictEqual(peer.parted, isForGood)
      assert.isAtLeast(peer.restUntil, now + cooldown)
      // Heeded when it was said, and not again with the end of the connection.
      assert.strictEqual(peer.restUntil, restUntil)
      assert.deepStrictEqual([peer.discovered, peer.connectedAt], [false, undefined])
      assert.deepStrictEqual([peer.flapping, peer.failsNextDial], [true, true])
    })

    check(`a connection that ends with ${reason} counts as a goodbye`, ({ now, peer }) => {
      PeerRecord.lost(peer, end(now), now)
      PeerRecord.wanted(peer)
      PeerRecord.lost(peer, end(now, { reason: "remote", remoteReason: reason }), now + cooldown)
      assert.strictEqual(peer.wanted, !isForGood)
      assert.strictEqual(peer.parted, isForGood)
      assert.isAtLeast(peer.restUntil, now + cooldown)
    })

    check(`a peer that this node let go with ${reason} is wanted no more, and rests`, ({ now, peer }) => {
      PeerRecord.wanted(peer)
      const { failsNextDial: former, flapping, hurried } = peer
      PeerRecord.lost(peer, end(now, { isOurs: true, reason }), now + cooldown)
      assert.strictEqual(peer.wanted, false)
      assert.strictEqual(peer.parted, isForGood)
      assert.isAtLeast(peer.restUntil, now + cooldown)
      assert.deepStrictEqual([peer.flapping, peer.hurried, peer.failsNextDial], [flapping, hurried, former])
      assert.deepStrictEqual([peer.discovered, peer.connectedAt], [false, undefined])
    })
  }

  check("a peer lost after 15 s is dialled at once; lost earlier, that counts as a refusal", ({ now, peer }) => {
    PeerRecord.lost(peer, end(now), now)
    for (const [lasted, isStable] of [[14_999, false], [15_000, true], [14_999, false]] as const) {
      PeerRecord.connected(peer, now)
      PeerRecord.attemptBegins(peer)
      PeerRecord.backsOff(peer, backoff)
      PeerRecord.retriesAt(peer, now)
      const { attempts, restUntil } = peer
      PeerRecord.lost(peer, end(now + lasted), now + cooldown)
      assert.deepStrictEqual(peer.lastDisconnect, { at: now + lasted, reason: "lost", remoteReason: undefined, lasted })
      assert.strictEqual(peer.restUntil, restUntil)
      assert.deepStrictEqual([peer.hurried, peer.flapping], [isStable, !isStable])
      assert.deepStrictEqual([peer.attempts, peer.backoff], isStable ? [0, undefined] : [attempts, backoff])
      assert.strictEqual(peer.failsNextDial, !isStable)
      PeerRecord.attemptEnds(peer)
      assert.isFalse(peer.failsNextDial)
    }
  })

  check("a loss that a newer connection replaces is noted, and changes nothing else", ({ now, peer }) => {
    const before = { ...peer }
    const reason: DisconnectReason = "evicted"
    PeerRecord.lost(peer, end(now, { isOurs: true, isReplaced: true, reason }), now + cooldown)
    assert.strictEqual(peer.lastDisconnect?.reason, reason)
    assert.deepStrictEqual({ ...peer, lastDisconnect: before.lastDisconnect }, before)
  })

  check("a rest is never shortened", ({ now, peer }) => {
    PeerRecord.rests(peer, now + 5000)
    const { restUntil } = peer
    assert.isAtLeast(restUntil, now + 5000)
    PeerRecord.rests(peer, now + 1000)
    assert.strictEqual(peer.restUntil, restUntil)
  })

  check("attempts are counted until one succeeds or a sighting begins anew", ({ now, peer }) => {
    const { attempts } = peer
    PeerRecord.backsOff(peer, backoff)
    PeerRecord.retriesAt(peer, now + 1000)
    assert.deepStrictEqual([peer.attempts, peer.retryAt], [attempts + 1, now + 1000])
    PeerRecord.waitEnds(peer)
    assert.deepStrictEqual([peer.attempts, peer.retryAt], [attempts + 1, undefined])
    PeerRecord.waitsUntil(peer, now + 2000)
    assert.deepStrictEqual([peer.attempts, peer.retryAt], [attempts + 1, now + 2000])
    PeerRecord.attemptBegins(peer)
    assert.deepStrictEqual([peer.hurried, peer.retryAt], [false, undefined])
    assert.strictEqual(peer.backoff, backoff)
    PeerRecord.found(peer)
    assert.deepStrictEqual([peer.attempts, peer.backoff], [0, undefined])
    PeerRecord.retriesAt(peer, now)
    PeerRecord.refused(peer)
    assert.isTrue(peer.flapping)
    PeerRecord.hurried(peer, now)
    assert.deepStrictEqual(
      [peer.attempts, peer.flapping, peer.hurried, peer.failsNextDial, peer.hurriedAt],
      [0, false, true, false, now]
    )
  })

  check("a dial that nobody asked for ranks the peer as discovered until it fails", ({ peer, wishes }) => {
    PeerRecord.sought(peer)
    assert.isTrue(peer.discovered)
    if (isUnhindered(peer) && !peer.wanted && wishes.keeps.length + wishes.calls.length === 0) {
      assert.strictEqual(PeerRecord.interestOf(peer), "discovered")
    }
    PeerRecord.missed(peer)
    assert.isFalse(peer.discovered)
  })

  check("an isolated node hopes for it, unless it parted or only ever dialled in", ({ now, peer }) => {
    if (PeerRecord.isDesired(peer)) assert.isTrue(PeerRecord.isCandidate(peer))
    if (!isUnhindered(peer) || PeerRecord.isDesired(peer)) return
    const isOnlyInbound = [...peer.addresses.values()].length === 0
    PeerRecord.connected(peer, now)
    assert.strictEqual(PeerRecord.isCandidate(peer), !isOnlyInbound)
    peer.addresses.learn(address, "dht")
    assert.isTrue(PeerRecord.isCandidate(peer))
    PeerRecord.lost(peer, end(now, { isOurs: true, reason: "idle" }), now)
    assert.isFalse(PeerRecord.isCandidate(peer))
    PeerRecord.reappeared(peer)
    assert.isTrue(PeerRecord.isCandidate(peer))
  })
})

describe("a peer's record", () => {
  it("is no way out of isolation while only the peer itself has told its addresses", () => {
    const peer = PeerRecord.make(bob, () => {})
    peer.addresses.learn(address, "identify")
    assert.isFalse(PeerRecord.isCandidate(peer))
    peer.addresses.learn("/ip4/192.0.2.2/tcp/4001" as Multiaddr, "mdns")
    assert.isTrue(PeerRecord.isCandidate(peer))
  })

  it("remembers the last 8 dials, in bounded words", () => {
    const peer = PeerRecord.make(bob, () => {})
    for (let n = 0; n < 20; n++) PeerRecord.dialled(peer, n, unreachable)
    assert.deepStrictEqual(peer.dials.map(({ at }) => at), [19, 18, 17, 16, 15, 14, 13, 12])
    assert.strictEqual(peer.dials[0]?.outcome, "Unreachable")
    assert.isBelow(peer.dials[0]?.message?.length ?? 0, 210)
    assert.match(peer.dials[0]?.message ?? "", /^dial x: xxx.*\.\.\.$/)
    PeerRecord.dialled(peer, 20)
    assert.deepStrictEqual(peer.dials[0], { at: 20, outcome: "Connected", message: undefined })
  })
})
