import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import type * as Backoff from "../../../src/layers/Backoff.ts"
import * as Book from "../../../src/layers/peers/PeerBook.ts"
import type { ConnectError } from "../../../src/schema/NetworkError.ts"
import { DialError, Unreachable } from "../../../src/schema/NetworkError.ts"
import type { DisconnectReason, GoodbyeReason } from "../../../src/schema/NetworkEvent.ts"
import type { Multiaddr } from "../../../src/schema/Peer.ts"
import { Interests } from "../../../src/services/Interests.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"

const layer = (maxKnownPeers = 4096) => Book.layer.pipe(Layer.provide(NetworkConfig.layer({ maxKnownPeers })))
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

const end = (at: number, changes: Partial<Book.ConnectionEnd> = {}): Book.ConnectionEnd => ({
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
  asked: (peer) => Book.asked(peer, [address]),
  wanted: Book.wanted,
  keep: (peer, _, { keeps }) => void keeps.push(Book.keptBy(peer)),
  keepEnds: (_, __, { keeps }) => keeps.pop()?.(),
  call: (peer, _, { calls }) => void calls.push(Book.calledBy(peer)),
  callEnds: (_, __, { calls }) => calls.pop()?.(),
  block: (peer, _, { blocks }) => void blocks.push(Book.blockedBy(peer)),
  blockEnds: (_, __, { blocks }) => blocks.pop()?.(),
  suspended: Book.suspended,
  connected: Book.connected,
  restarts: (peer, now) => Book.saidGoodbye(peer, "shutdown", now + cooldown),
  leaves: (peer, now) => Book.saidGoodbye(peer, "disconnect", now + cooldown),
  lost: (peer, now) => Book.lost(peer, end(now), now + cooldown),
  idle: (peer, now) => Book.lost(peer, end(now, { isOurs: true, reason: "idle" }), now + cooldown),
  replaced: (peer, now) => Book.lost(peer, end(now, { isOurs: true, isReplaced: true }), now + cooldown),
  rests: (peer, now) => Book.rests(peer, now + 1000),
  sought: Book.sought,
  found: Book.found,
  missed: Book.missed,
  attemptBegins: Book.attemptBegins,
  attemptEnds: Book.attemptEnds,
  refused: Book.refused,
  backsOff: (peer) => Book.backsOff(peer, backoff),
  retriesAt: (peer, now) => Book.retriesAt(peer, now + 1000),
  waitsUntil: (peer, now) => Book.waitsUntil(peer, now + 1000),
  waitEnds: Book.waitEnds,
  givenUp: Book.givenUp,
  startAnew: Book.startAnew,
  hurried: Book.hurried,
  reappeared: Book.reappeared,
  dialled: (peer, now) => Book.dialled(peer, now, unreachable)
} satisfies Record<string, (peer: Book.PeerRecord, now: number, wishes: Wishes) => void>

type Word = keyof typeof transitions

const words = Object.keys(transitions) as ReadonlyArray<Word>
const Step = Schema.Struct({ word: Schema.Literals(words), pause: Schema.Literals([0, 1000, 14_999, 15_000, 600_000]) })
const History = Schema.Array(Step)
type History = typeof History.Type

const backoff: Backoff.Backoff<ConnectError> = { next: () => Effect.succeed(undefined) }

/** A record with a past, the time now, and the wishes that are still open. */
const after = (history: History) =>
  Effect.gen(function*() {
    const peer = (yield* Book.PeerBook).record(bob)
    const wishes: Wishes = { keeps: [], calls: [], blocks: [] }
    let now = 1_000_000
    for (const { pause, word } of history) {
      transitions[word](peer, now, wishes)
      now += pause
    }
    return { peer, now, wishes }
  }).pipe(Effect.provide(layer()))

/** A spec of what a transition must do to a record with any past. */
const check = (
  name: string,
  law: (past: { readonly peer: Book.PeerRecord; readonly now: number; readonly wishes: Wishes }) => void
) => it.effect.prop(name, { history: History }, ({ history }) => Effect.map(after(history), law))

const isUnhindered = (peer: Book.PeerRecord) => !peer.suspended && peer.blocks === 0

describe("PeerBook", () => {
  it.effect("keeps as many peers as it may, and lets those without interest go first, the longest unseen before others", () =>
    Effect.gen(function*() {
      const book = yield* Book.PeerBook
      const [kept, wanted, connected, sought] = ["kept", "wanted", "connected", "sought"].map(SimNetwork.peerId)
      const [old, seen] = ["old", "seen"].map(SimNetwork.peerId)
      Book.keptBy(book.record(kept!))
      Book.wanted(book.record(wanted!))
      Book.connected(book.record(connected!), 0)
      Book.sought(book.record(sought!))
      book.record(seen!)
      book.record(old!)
      book.record(seen!)
      assert.strictEqual(book.size(), 6)
      book.record(bob)
      assert.strictEqual(book.size(), 6)
      assert.isUndefined(book.get(old!))
      for (const id of [kept!, wanted!, connected!, sought!, seen!, bob]) assert.isDefined(book.get(id))
      for (let n = 0; n < 100; n++) book.record(SimNetwork.peerId(`stranger ${n}`))
      assert.strictEqual(book.size(), 6)
      for (const id of [kept!, wanted!, connected!, sought!]) assert.isDefined(book.get(id))
    }).pipe(Effect.provide(layer(6))))

  it.effect("remembers the last 8 dials, in bounded words", () =>
    Effect.gen(function*() {
      const peer = (yield* Book.PeerBook).record(bob)
      for (let n = 0; n < 20; n++) Book.dialled(peer, n, unreachable)
      assert.deepStrictEqual(peer.dials.map(({ at }) => at), [19, 18, 17, 16, 15, 14, 13, 12])
      assert.strictEqual(peer.dials[0]?.outcome, "Unreachable")
      assert.isBelow(peer.dials[0]?.message?.length ?? 0, 210)
      Book.dialled(peer, 20)
      assert.deepStrictEqual(peer.dials[0], { at: 20, outcome: "Connected", message: undefined })
    }).pipe(Effect.provide(layer())))

  it.effect("remembers refusals of strangers without making them known", () =>
    Effect.gen(function*() {
      const book = yield* Book.PeerBook
      for (let at = 0; at < 20; at++) book.noteRefusal(bob, { at, direction: "inbound", reason: "full" })
      for (let n = 0; n < 4; n++) {
        book.noteRefusal(SimNetwork.peerId(`x${n}`), { at: 0, direction: "inbound", reason: "full" })
      }
      assert.strictEqual(book.size(), 0)
      assert.strictEqual(book.refusalsOf(bob).length, 8)
      assert.strictEqual(book.refusalsOf(bob)[0]?.at, 19)
      book.noteRefusal(SimNetwork.peerId("x4"), { at: 0, direction: "inbound", reason: "full" })
      assert.deepStrictEqual(book.refusalsOf(bob), [])
    }).pipe(Effect.provide(layer(5))))
})

describe("the interests that the table asks for", () => {
  it.effect("are those of the records, and strangers are transient", () =>
    Effect.gen(function*() {
      const book = yield* Book.PeerBook
      const interests = yield* Interests
      assert.strictEqual(interests.of(bob), "transient")
      assert.strictEqual(book.size(), 0)
      const peer = book.record(bob)
      const end = Book.keptBy(peer)
      assert.strictEqual(interests.of(bob), "kept")
      assert.deepStrictEqual([...interests.wanted()], [bob])
      const unblock = Book.blockedBy(peer)
      assert.deepStrictEqual([interests.of(bob), interests.isBlocked(bob)], ["transient", true])
      assert.deepStrictEqual([...interests.wanted()], [])
      unblock()
      end()
      assert.deepStrictEqual([interests.of(bob), interests.isBlocked(bob)], ["transient", false])
    }).pipe(Effect.provide(layer())))

  it.effect("want a stranger that answers at a dialled address, until the last of its dials ends", () =>
    Effect.gen(function*() {
      const book = yield* Book.PeerBook
      const interests = yield* Interests
      const ends = [book.answers(bob), book.answers(bob)]
      assert.strictEqual(interests.of(bob), "wanted")
      assert.deepStrictEqual([...interests.wanted()], [bob])
      assert.strictEqual(book.size(), 0)
      ends[0]!()
      ends[0]!()
      assert.strictEqual(interests.of(bob), "wanted")
      const endKeep = Book.keptBy(book.record(bob))
      assert.strictEqual(interests.of(bob), "kept")
      endKeep()
      ends[1]!()
      assert.strictEqual(interests.of(bob), "transient")
      assert.deepStrictEqual([...interests.wanted()], [])
    }).pipe(Effect.provide(layer())))
})

describe("a peer's record, whatever its past", () => {
  check("a wish lasts until it ends, and ending it twice changes nothing", ({ peer, wishes }) => {
    for (
      const [count, begin] of [["keeps", Book.keptBy], ["calls", Book.calledBy], ["blocks", Book.blockedBy]] as const
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
    assert.strictEqual(Book.interestOf(peer), isUnhindered(peer) ? strongest : "transient")
    assert.strictEqual(Book.isDesired(peer), isUnhindered(peer) && (wishes.keeps.length > 0 || peer.wanted))
  })

  check("a call that fails leaves no wish behind, and one that succeeds does", ({ peer }) => {
    const former = Book.interestOf(peer)
    Book.calledBy(peer)()
    assert.strictEqual(Book.interestOf(peer), former)
    Book.wanted(peer)
    assert.strictEqual(Book.isDesired(peer), isUnhindered(peer))
    Book.givenUp(peer)
    assert.isFalse(peer.wanted)
    assert.deepStrictEqual([peer.backoff, peer.attempts], [undefined, 0])
  })

  check("a disconnect outlasts everything but a question of the program", ({ now, peer, wishes }) => {
    Book.wanted(peer)
    Book.sought(peer)
    Book.suspended(peer)
    assert.deepStrictEqual([peer.wanted, peer.discovered], [false, false])
    for (const word of words) {
      if (word !== "asked") transitions[word](peer, now, wishes)
      assert.strictEqual(Book.interestOf(peer), "transient")
      assert.isFalse(Book.isDesired(peer) || Book.isCandidate(peer))
    }
    for (const end of wishes.blocks) end()
    Book.keptBy(peer)
    Book.attemptBegins(peer)
    Book.lost(peer, end(now, { isOurs: true, reason: "disconnect" }), now)
    assert.deepStrictEqual([peer.hurried, peer.parted], [false, true])
    Book.asked(peer, [])
    assert.strictEqual(Book.interestOf(peer), "kept")
    assert.deepStrictEqual([peer.hurried, peer.parted], [true, false])
  })

  check("a connection ends every wait, and what a former loss meant", ({ now, peer }) => {
    const { connectedAt } = peer
    Book.waitsUntil(peer, now + 1000)
    Book.connected(peer, now)
    assert.deepStrictEqual([peer.failNextDialWith, peer.parted, peer.retryAt], [undefined, false, undefined])
    assert.strictEqual(peer.connectedAt, connectedAt ?? now)
  })

  const reasons: ReadonlyArray<GoodbyeReason> = ["idle", "evicted", "disconnect", "blocked", "shutdown"]

  for (const reason of reasons) {
    const isForGood = reason === "idle" || reason === "disconnect" || reason === "blocked"
    const outcome = isForGood ? "is wanted no more" : "stays wanted"

    check(`a peer that said ${reason} ${outcome}, and rests`, ({ now, peer }) => {
      Book.connected(peer, now)
      Book.wanted(peer)
      Book.sought(peer)
      Book.saidGoodbye(peer, reason, now + cooldown)
      const { restUntil } = peer
      const heard = { reason: "remote", remoteReason: reason, isExpected: true } as const
      Book.lost(peer, end(now + 20_000, heard), now + 2 * cooldown)
      assert.strictEqual(peer.wanted, !isForGood)
      assert.strictEqual(peer.parted, isForGood)
      assert.isAtLeast(peer.restUntil, now + cooldown)
      // Heeded when it was said, and not again with the end of the connection.
      assert.strictEqual(peer.restUntil, restUntil)
      assert.deepStrictEqual([peer.discovered, peer.connectedAt], [false, undefined])
      assert.deepStrictEqual([peer.flapping, Book.isRefusal(peer.failNextDialWith!)], [true, true])
    })

    check(`a connection that ends with ${reason} counts as a goodbye`, ({ now, peer }) => {
      Book.lost(peer, end(now), now)
      Book.wanted(peer)
      Book.lost(peer, end(now, { reason: "remote", remoteReason: reason }), now + cooldown)
      assert.strictEqual(peer.wanted, !isForGood)
      assert.strictEqual(peer.parted, isForGood)
      assert.isAtLeast(peer.restUntil, now + cooldown)
    })

    check(`a peer that this node let go with ${reason} is wanted no more, and rests`, ({ now, peer }) => {
      Book.wanted(peer)
      const { failNextDialWith: former, flapping, hurried } = peer
      Book.lost(peer, end(now, { isOurs: true, reason }), now + cooldown)
      assert.strictEqual(peer.wanted, false)
      assert.strictEqual(peer.parted, isForGood)
      assert.isAtLeast(peer.restUntil, now + cooldown)
      assert.deepStrictEqual([peer.flapping, peer.hurried, peer.failNextDialWith], [flapping, hurried, former])
      assert.deepStrictEqual([peer.discovered, peer.connectedAt], [false, undefined])
    })
  }

  check("a peer lost after 15 s is dialled at once; lost earlier, that counts as a refusal", ({ now, peer }) => {
    Book.lost(peer, end(now), now)
    for (const [lasted, isStable] of [[14_999, false], [15_000, true], [14_999, false]] as const) {
      Book.connected(peer, now)
      Book.attemptBegins(peer)
      Book.backsOff(peer, backoff)
      Book.retriesAt(peer, now)
      const { attempts, restUntil } = peer
      Book.lost(peer, end(now + lasted), now + cooldown)
      assert.deepStrictEqual(peer.lastDisconnect, { at: now + lasted, reason: "lost", remoteReason: undefined, lasted })
      assert.strictEqual(peer.restUntil, restUntil)
      assert.deepStrictEqual([peer.hurried, peer.flapping], [isStable, !isStable])
      assert.deepStrictEqual([peer.attempts, peer.backoff], isStable ? [0, undefined] : [attempts, backoff])
      assert.strictEqual(peer.failNextDialWith !== undefined && Book.isRefusal(peer.failNextDialWith), !isStable)
      Book.attemptEnds(peer)
      assert.isUndefined(peer.failNextDialWith)
    }
  })

  check("a loss that a newer connection replaces is noted, and changes nothing else", ({ now, peer }) => {
    const before = { ...peer }
    const reason: DisconnectReason = "evicted"
    Book.lost(peer, end(now, { isOurs: true, isReplaced: true, reason }), now + cooldown)
    assert.strictEqual(peer.lastDisconnect?.reason, reason)
    assert.deepStrictEqual({ ...peer, lastDisconnect: before.lastDisconnect }, before)
  })

  check("a rest is never shortened", ({ now, peer }) => {
    Book.rests(peer, now + 5000)
    const { restUntil } = peer
    assert.isAtLeast(restUntil, now + 5000)
    Book.rests(peer, now + 1000)
    assert.strictEqual(peer.restUntil, restUntil)
  })

  check("attempts are counted until one succeeds or a sighting begins anew", ({ now, peer }) => {
    const { attempts } = peer
    Book.backsOff(peer, backoff)
    Book.retriesAt(peer, now + 1000)
    assert.deepStrictEqual([peer.attempts, peer.retryAt], [attempts + 1, now + 1000])
    Book.waitEnds(peer)
    assert.deepStrictEqual([peer.attempts, peer.retryAt], [attempts + 1, undefined])
    Book.waitsUntil(peer, now + 2000)
    assert.deepStrictEqual([peer.attempts, peer.retryAt], [attempts + 1, now + 2000])
    Book.attemptBegins(peer)
    assert.deepStrictEqual([peer.hurried, peer.retryAt], [false, undefined])
    assert.strictEqual(peer.backoff, backoff)
    Book.found(peer)
    assert.deepStrictEqual([peer.attempts, peer.backoff], [0, undefined])
    Book.retriesAt(peer, now)
    Book.refused(peer)
    assert.isTrue(peer.flapping)
    Book.hurried(peer, now)
    assert.deepStrictEqual(
      [peer.attempts, peer.flapping, peer.hurried, peer.failNextDialWith, peer.hurriedAt],
      [0, false, true, undefined, now]
    )
  })

  check("a dial that nobody asked for ranks the peer as discovered until it fails", ({ peer, wishes }) => {
    Book.sought(peer)
    assert.isTrue(peer.discovered)
    if (isUnhindered(peer) && !peer.wanted && wishes.keeps.length + wishes.calls.length === 0) {
      assert.strictEqual(Book.interestOf(peer), "discovered")
    }
    Book.missed(peer)
    assert.isFalse(peer.discovered)
  })

  check("an isolated node hopes for it, unless it parted or only ever dialled in", ({ now, peer }) => {
    if (Book.isDesired(peer)) assert.isTrue(Book.isCandidate(peer))
    if (!isUnhindered(peer) || Book.isDesired(peer)) return
    const isOnlyInbound = [...peer.addresses.values()].length === 0
    Book.connected(peer, now)
    assert.strictEqual(Book.isCandidate(peer), !isOnlyInbound)
    peer.addresses.learn(address, "dht")
    assert.isTrue(Book.isCandidate(peer))
    Book.lost(peer, end(now, { isOurs: true, reason: "idle" }), now)
    assert.isFalse(Book.isCandidate(peer))
    Book.reappeared(peer)
    assert.isTrue(Book.isCandidate(peer))
  })
})
