import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import * as PeerBook from "../../../src/layers/peers/PeerBook.ts"
import * as PeerRecord from "../../../src/layers/peers/PeerRecord.ts"
import { Interests } from "../../../src/services/Interests.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"

const layer = (maxKnownPeers = 4096) => PeerBook.layer.pipe(Layer.provide(NetworkConfig.layer({ maxKnownPeers })))
const bob = SimNetwork.peerId("bob")

/** What changes a wish, as one word each. */
const wishes = {
  mentioned: () => {},
  asked: (peer) => PeerRecord.asked(peer, []),
  wanted: PeerRecord.wanted,
  givenUp: PeerRecord.givenUp,
  sought: PeerRecord.sought,
  missed: PeerRecord.missed,
  suspended: PeerRecord.suspended,
  leaves: (peer) => PeerRecord.saidGoodbye(peer, "disconnect", 0),
  keep: (peer, ends) => void ends.push(PeerRecord.keptBy(peer)),
  call: (peer, ends) => void ends.push(PeerRecord.calledBy(peer)),
  block: (peer, ends) => void ends.push(PeerRecord.blockedBy(peer)),
  oldestEnds: (_, ends) => ends.shift()?.()
} satisfies Record<string, (peer: PeerRecord.PeerRecord, ends: Array<() => void>) => void>

const History = Schema.Array(Schema.Struct({
  peer: Schema.Literals(["bob", "carol", "dave", "erin"]),
  word: Schema.Literals(Object.keys(wishes) as ReadonlyArray<keyof typeof wishes>)
}))

describe("PeerBook", () => {
  it.effect("keeps as many peers as it may, and lets those without interest go first, the longest unseen before others", () =>
    Effect.gen(function*() {
      const book = yield* PeerBook.PeerBook
      const [kept, wanted, connected, sought] = ["kept", "wanted", "connected", "sought"].map(SimNetwork.peerId)
      const [old, seen] = ["old", "seen"].map(SimNetwork.peerId)
      PeerRecord.keptBy(book.record(kept!))
      PeerRecord.wanted(book.record(wanted!))
      PeerRecord.connected(book.record(connected!), 0)
      PeerRecord.sought(book.record(sought!))
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

  it.effect("remembers refusals of strangers without making them known", () =>
    Effect.gen(function*() {
      const book = yield* PeerBook.PeerBook
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
      const book = yield* PeerBook.PeerBook
      const interests = yield* Interests
      assert.strictEqual(interests.of(bob), "transient")
      assert.strictEqual(book.size(), 0)
      const peer = book.record(bob)
      const end = PeerRecord.keptBy(peer)
      assert.strictEqual(interests.of(bob), "kept")
      assert.deepStrictEqual([...interests.wanted()], [bob])
      const unblock = PeerRecord.blockedBy(peer)
      assert.deepStrictEqual([interests.of(bob), interests.isBlocked(bob)], ["transient", true])
      assert.deepStrictEqual([...interests.wanted()], [])
      unblock()
      end()
      assert.deepStrictEqual([interests.of(bob), interests.isBlocked(bob)], ["transient", false])
    }).pipe(Effect.provide(layer())))

  it.effect("want a stranger that answers at a dialled address, until the last of its dials ends", () =>
    Effect.gen(function*() {
      const book = yield* PeerBook.PeerBook
      const interests = yield* Interests
      const ends = [book.answers(bob), book.answers(bob)]
      assert.strictEqual(interests.of(bob), "wanted")
      assert.deepStrictEqual([...interests.wanted()], [bob])
      assert.strictEqual(book.size(), 0)
      ends[0]!()
      ends[0]!()
      assert.strictEqual(interests.of(bob), "wanted")
      const endKeep = PeerRecord.keptBy(book.record(bob))
      assert.strictEqual(interests.of(bob), "kept")
      endKeep()
      ends[1]!()
      assert.strictEqual(interests.of(bob), "transient")
      assert.deepStrictEqual([...interests.wanted()], [])
    }).pipe(Effect.provide(layer())))

  it.effect.prop(
    "want the peers whose records say so, whatever has happened",
    { history: History },
    ({ history }) =>
      Effect.gen(function*() {
        const book = yield* PeerBook.PeerBook
        const interests = yield* Interests
        const ends: Array<() => void> = []
        for (const { peer, word } of history) {
          wishes[word](book.record(SimNetwork.peerId(peer)), ends)
          const wanted = [...book.all()].filter((record) => ["wanted", "kept"].includes(PeerRecord.interestOf(record)))
          assert.deepStrictEqual([...interests.wanted()].sort(), wanted.map(({ id }) => id).sort())
        }
      }).pipe(Effect.provide(layer(2)))
  )
})
