import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Doubts from "../../../../src/layers/dht/lookup/Doubts.ts"
import { lookup, type LookupAnswer, type LookupOptions } from "../../../../src/layers/dht/lookup/Lookup.ts"
import {
  commonPrefixLength,
  compareDistance,
  ofDigest,
  type Position,
  positionOf
} from "../../../../src/layers/dht/wire/Position.ts"

describe("Lookup", () => {
  it.effect.prop(
    "finds the true closest in a network whose tables are whole",
    {
      size: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 400 })),
      seed: Schema.Int,
      key: Schema.String,
      together: Schema.Literals([1, 3, 100]),
      atHand: Schema.Literals([0, 30, 100])
    },
    Effect.fnUntraced(function*({ atHand, key, seed, size, together }) {
      const network = networkOf(size, String(seed))
      const target = positionAt(key)
      const asked: Array<string> = []
      const first = network.peers[0]!
      const result = yield* lookup({
        target,
        self: first.key,
        seeds: network.answer(first, target),
        together,
        isAtHand: (peer) => peer.position.bytes[31]! % 100 < atHand,
        ask: (peer) => {
          asked.push(peer.key)
          return Effect.succeed({ closer: network.answer(peer, target) })
        }
      })
      assert.deepStrictEqual(
        result.closest.map(({ key }) => key),
        network.closest(target).filter(({ key }) => key !== first.key).slice(0, 20).map(({ key }) => key)
      )
      assert.strictEqual(new Set(asked).size, asked.length)
      assert.deepStrictEqual([result.asked, result.answered], [asked.length, asked.length])
    }),
    { arbitrary: { runs: 30 } }
  )

  it.effect.prop(
    "passes failing peers over, and gives those that answered, nearest first",
    {
      size: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 200 })),
      dead: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100 })),
      seed: Schema.Int,
      paths: Schema.Literals([1, 3]),
      atHand: Schema.Literals([0, 30, 100])
    },
    Effect.fnUntraced(function*({ atHand, dead, paths, seed, size }) {
      const network = networkOf(size, String(seed))
      const target = positionAt(`key of ${seed}`)
      const isDead = (peer: Peer) => peer.position.bytes[31]! % 100 < dead
      const asked = new Set<string>()
      const first = network.peers[0]!
      const result = yield* lookup({
        target,
        paths,
        isAtHand: (peer) => peer.position.bytes[30]! % 100 < atHand,
        self: first.key,
        seeds: network.answer(first, target),
        ask: (peer) => {
          assert.isFalse(asked.has(peer.key))
          asked.add(peer.key)
          return isDead(peer) ? Effect.fail("dead") : Effect.succeed({ closer: network.answer(peer, target) })
        }
      })
      const expected = network.closest(target).filter((peer) => asked.has(peer.key) && !isDead(peer))
      samePeers(result.closest, expected.slice(0, 20))
      assert.strictEqual(result.asked, asked.size)
      assert.strictEqual(result.answered, expected.length)
      // Every known peer nearer than the last of them has been asked.
      const known = new Set(expected.flatMap((peer) => network.answer(peer, target)).map(({ key }) => key))
      const last = result.closest.length < 20 ? undefined : result.closest.at(-1)
      for (const peer of network.closest(target)) {
        if (last !== undefined && compareDistance(peer.position, last.position, target) >= 0) break
        if (peer !== first && known.has(peer.key) && !isDead(peer)) assert.isTrue(asked.has(peer.key))
      }
    }),
    { arbitrary: { runs: 30 } }
  )

  it.effect("finds nearly all of the closest peers, the nearest first, when a fifth of 400 is dead", () =>
    Effect.gen(function*() {
      const network = networkOf(400, "fifth")
      const isDead = (peer: Peer) => peer !== network.peers[0] && peer.position.bytes[31]! < 51
      let missed = 0
      for (let run = 0; run < 20; run++) {
        const target = positionAt(`key ${run}`)
        const { closest } = yield* lookup({
          target,
          seeds: network.answer(network.peers[0]!, target),
          ask: (peer) => isDead(peer) ? Effect.fail("dead") : Effect.succeed({ closer: network.answer(peer, target) })
        })
        const expected = network.closest(target).filter((peer) => !isDead(peer)).slice(0, 20)
        missed += expected.filter((peer) => !closest.includes(peer)).length
        // An answer names twenty peers, dead ones included, so a peer may be named by nobody and cannot be found.
        samePeers(closest.slice(0, 16), expected.slice(0, 16))
      }
      assert.isAtMost(missed, 10)
    }))

  it.effect("is empty without seeds, and when all of them fail", () =>
    Effect.gen(function*() {
      const none = yield* lookup({ target: positionAt("x"), seeds: [], ask: () => Effect.die("nobody is asked") })
      assert.deepStrictEqual(none, { closest: [], asked: 0, answered: 0, hops: 0 })
      const dead = yield* lookup({ target: positionAt("x"), seeds: peersOf(3), ask: () => Effect.fail("dead") })
      assert.deepStrictEqual(dead, { closest: [], asked: 3, answered: 0, hops: 0 })
    }))

  it.effect("counts how many answers in a row led to the closest peer", () =>
    Effect.gen(function*() {
      // A chain: each peer knows the next.
      const target = positionAt("x")
      const chain = peersOf(7).toSorted((a, b) => compareDistance(b.position, a.position, target))
      const ask = (peer: Peer) => Effect.succeed({ closer: chain.slice(chain.indexOf(peer) + 1).slice(0, 1) })
      const { closest, hops } = yield* lookup({ target, seeds: [chain[0]!], ask, count: 3 })
      assert.strictEqual(hops, 7)
      samePeers(closest, chain.toReversed().slice(0, 3))
      assert.strictEqual((yield* lookup({ target, seeds: chain, ask, count: 3 })).hops, 1)
    }))

  it.effect("asks at most `parallel` peers at once, and tells each its rank", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(30), { count: 8, parallel: 3 })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust(0)
      samePeers(bench.waiting(), bench.byDistance.slice(0, 3))
      assert.deepStrictEqual(bench.ranks, [0, 1, 2])
      bench.answer(0)
      bench.fail(1)
      samePeers(bench.waiting(), bench.byDistance.slice(2, 5))
      // The failed peer no longer counts.
      assert.deepStrictEqual(bench.ranks, [0, 1, 2, 3, 3])
      for (let index = 2; index < 9; index++) bench.answer(index)
      const { asked, closest } = yield* Fiber.join(fiber)
      assert.strictEqual(asked, 9)
      samePeers(closest, [0, 2, 3, 4, 5, 6, 7, 8].map((index) => bench.byDistance[index]!))
    }))

  it.effect("among peers about as near asks connected ones first, and tells each its rank", () =>
    Effect.gen(function*() {
      // The key of each peer says how many leading bits it shares with the target.
      const target = ofDigest(new Uint8Array(32))
      const peers = [9, 7, 6, 5, 4, 3, 2].map((bits) => {
        const bytes = new Uint8Array(32)
        bytes[bits >> 3] = 0x80 >> (bits & 7)
        return { key: String(bits), position: ofDigest(bytes) }
      })
      const ask = Effect.fnUntraced(function*(atHand: ReadonlyArray<string>, count: number) {
        const asked: Array<readonly [string, number]> = []
        const { closest } = yield* lookup({
          target,
          seeds: peers,
          count,
          parallel: 1,
          isAtHand: ({ key }) => atHand.includes(key),
          ask: ({ key }, rank) => {
            asked.push([key, rank])
            return Effect.succeed({ closer: [] })
          }
        })
        samePeers(closest, peers.slice(0, count))
        return asked
      })
      const byDistance = peers.map(({ key }, index) => [key, index] as const)
      assert.deepStrictEqual(yield* ask([], 7), byDistance)
      assert.deepStrictEqual(yield* ask(peers.map(({ key }) => key), 7), byDistance)
      // A peer at hand may share four bits fewer than the nearest, not five.
      assert.deepStrictEqual(yield* ask(["5"], 7), [["5", 3], ...byDistance.filter(([key]) => key !== "5")])
      assert.deepStrictEqual(yield* ask(["4"], 7), [
        ["9", 0],
        ["4", 4],
        ...byDistance.filter(([key]) => key !== "9" && key !== "4")
      ])
      // Peers that the lookup need not ask are not asked, though at hand.
      assert.deepStrictEqual(yield* ask(["5", "6"], 3), [["6", 2], ["9", 0], ["7", 1]])
    }))

  it.effect("reads the answers that have arrived after each `together` questions", () =>
    Effect.gen(function*() {
      const target = positionAt("x")
      const seeds = peersOf(30)
      const [nearest] = seeds.toSorted((a, b) => compareDistance(a.position, b.position, target))
      // The nearest peer's answer is there in the next turn of the event loop.
      const ask = (peer: Peer) =>
        peer === nearest ? Effect.as(Effect.yieldNow, { closer: [], enough: true }) : Effect.never
      assert.strictEqual((yield* lookup({ target, seeds, ask, together: 3 })).asked, 3)
      assert.strictEqual((yield* lookup({ target, seeds, ask })).asked, 10)
    }))

  it.effect("goes on to `parallel` questions when no answer comes, and to all when they fail at once", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(30), { parallel: 8, together: 3 })
      const fiber = yield* Effect.forkChild(bench.lookup, { startImmediately: true })
      samePeers(bench.waiting(), bench.byDistance.slice(0, 3))
      while (bench.waiting().length < 8) yield* Effect.yieldNow
      yield* TestClock.adjust(0)
      samePeers(bench.waiting(), bench.byDistance.slice(0, 8))
      yield* Fiber.interrupt(fiber)
      const dead = yield* lookup({
        target: positionAt("x"),
        seeds: peersOf(30),
        together: 3,
        ask: () => Effect.fail("dead")
      })
      assert.deepStrictEqual(dead, { closest: [], asked: 30, answered: 0, hops: 0 })
    }))

  it.effect("ends with the first answer that is enough, and interrupts the other questions", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(30), { parallel: 5 })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust(0)
      bench.answer(3, { closer: [], enough: true })
      assert.deepStrictEqual(yield* Fiber.join(fiber), {
        closest: [bench.byDistance[3]!],
        asked: 5,
        answered: 1,
        hops: 1
      })
      assert.strictEqual(bench.interrupted.length, 4)
    }))

  it.effect("interrupts its questions when it is interrupted, and waits for their ends", () =>
    Effect.gen(function*() {
      let ended = 0
      const fiber = yield* Effect.forkChild(lookup({
        target: positionAt("x"),
        seeds: peersOf(30),
        ask: () =>
          Effect.never.pipe(
            Effect.onInterrupt(() => Effect.andThen(Effect.sleep("1 second"), Effect.sync(() => ended++)))
          )
      }))
      yield* TestClock.adjust("100 millis")
      const interruption = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(interruption.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isDefined(interruption.pollUnsafe())
      assert.strictEqual(ended, 10)
    }))

  it.effect("ends with the defect of a question", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(
        lookup({ target: positionAt("x"), seeds: peersOf(3), ask: () => Effect.die("a bug") })
      )
      assert.deepStrictEqual(exit, Exit.die("a bug"))
    }))

  it.effect("goes on to the next peer while one is slow, and does not wait for it when enough others have answered", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(30), { count: 4, parallel: 4, slowAfter: "300 millis" })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust(0)
      for (const index of [1, 2, 3]) bench.answer(index)
      yield* TestClock.adjust("299 millis")
      samePeers(bench.waiting(), [bench.byDistance[0]!])
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      samePeers(bench.waiting(), [bench.byDistance[0]!, bench.byDistance[4]!])
      bench.answer(4)
      const { answered, asked, closest } = yield* Fiber.join(fiber)
      assert.deepStrictEqual([asked, answered], [5, 4])
      samePeers(closest, bench.byDistance.slice(1, 5))
      samePeers(bench.interrupted, [bench.byDistance[0]!])
    }))

  it.effect("counts a slow peer that answers before the end", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(30), { count: 4, parallel: 4, slowAfter: "300 millis" })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust(0)
      for (const index of [1, 2, 3]) bench.answer(index)
      yield* TestClock.adjust("300 millis")
      bench.answer(0)
      const { closest } = yield* Fiber.join(fiber)
      samePeers(closest, bench.byDistance.slice(0, 4))
      samePeers(bench.interrupted, [bench.byDistance[4]!])
    }))

  it.effect("waits four times as long for slow peers when fewer peers have answered than are wanted", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(4), { slowAfter: "300 millis" })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust(0)
      bench.answer(0)
      bench.fail(1)
      yield* TestClock.adjust("400 millis")
      bench.answer(2)
      // The slowest answer took 400 ms, so a question is slow after 800 ms.
      yield* TestClock.adjust("2799 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      samePeers((yield* Fiber.join(fiber)).closest, [bench.byDistance[0]!, bench.byDistance[2]!])
      samePeers(bench.interrupted, [bench.byDistance[3]!])
    }))

  it.effect("waits for late peers as long as no peer has answered", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(2), { slowAfter: "300 millis" })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust("1 minute")
      bench.fail(0)
      assert.isUndefined(fiber.pollUnsafe())
      bench.answer(1)
      samePeers((yield* Fiber.join(fiber)).closest, [bench.byDistance[1]!])
    }))

  it.effect("takes no peer for slow before twice the time of the slowest answer", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(30), { count: 4, parallel: 4, slowAfter: "300 millis" })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust("250 millis")
      for (const index of [1, 2]) bench.answer(index)
      yield* TestClock.adjust("249 millis")
      samePeers(bench.waiting(), [bench.byDistance[0]!, bench.byDistance[3]!])
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(bench.waiting().length, 4)
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("asks no more than three times `parallel` at once when all are slow", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(100), { parallel: 4, slowAfter: "300 millis" })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust("1 minute")
      samePeers(bench.waiting(), bench.byDistance.slice(0, 12))
      bench.fail(0)
      samePeers(bench.waiting(), bench.byDistance.slice(1, 13))
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("costs a lookup with dead peers the time after which they are slow", () =>
    Effect.gen(function*() {
      const network = networkOf(400, "time")
      const target = positionAt("key")
      const isDead = (peer: Peer) => peer.position.bytes[31]! < 51
      const fiber = yield* Effect.forkChild(Effect.andThen(
        lookup({
          target,
          seeds: network.answer(network.peers[0]!, target),
          ask: (peer) =>
            isDead(peer)
              ? Effect.andThen(Effect.sleep("10 seconds"), Effect.fail("timed out"))
              : Effect.as(Effect.sleep("50 millis"), { closer: network.answer(peer, target) })
        }),
        (result) => Effect.map(Clock.currentTimeMillis, (took) => ({ ...result, took }))
      ))
      yield* TestClock.adjust("30 seconds")
      const { closest, took } = yield* Fiber.join(fiber)
      samePeers(closest, network.closest(target).filter((peer) => !isDead(peer)).slice(0, 20))
      assert.isAtMost(took, 1_500)
    }))

  it.effect("heeds the nearest `count` of an answer, and asks no more than `asksMax`", () =>
    Effect.gen(function*() {
      const target = positionAt("x")
      const crowd = peersOf(2_000).toSorted((a, b) => compareDistance(a.position, b.position, target))
      const [liar] = peersOf(1)
      const asked: Array<Peer> = []
      const ask = (peer: Peer) => {
        asked.push(peer)
        return peer === liar ? Effect.succeed({ closer: crowd.toReversed() }) : Effect.fail("nobody is there")
      }
      yield* lookup({ target, seeds: [liar!], ask })
      samePeers(asked, [liar!, ...crowd.slice(0, 20)])

      // Each peer of a crowd names the next nearer one.
      const names = (peer: Peer) => Effect.succeed({ closer: [crowd[crowd.indexOf(peer) - 1]!] })
      const far = crowd.slice(-5)
      assert.strictEqual((yield* lookup({ target, seeds: far, ask: names })).asked, 200)
      assert.strictEqual((yield* lookup({ target, seeds: far, ask: names, asksMax: 33 })).asked, 33)
    }))

  it.effect("leads around liars by disjoint paths", () =>
    Effect.gen(function*() {
      // Liars answer at once, name only each other, and are nearer than all others.
      const target = positionAt("x")
      const network = networkOf(300, "honest")
      const liars = peersOf(20_000, "liar").toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(
        0,
        30
      )
      const holder = network.closest(target)[0]!
      const isFound = Effect.fnUntraced(function*(paths: number) {
        let found = false
        const fiber = yield* Effect.forkChild(lookup({
          target,
          seeds: [liars[29]!, ...network.answer(network.peers[0]!, target).slice(-3)],
          paths,
          ask: (peer) => {
            if (liars.includes(peer)) return Effect.succeed({ closer: liars })
            return Effect.map(Effect.sleep("1 millis"), () => {
              found ||= peer === holder
              return { closer: network.answer(peer, target), enough: found }
            })
          }
        }))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(fiber)
        return found
      })
      assert.isFalse(yield* isFound(1))
      assert.isTrue(yield* isFound(4))
    }))

  it.effect("follows on each path only what its own peers told", () =>
    Effect.gen(function*() {
      const target = positionAt("x")
      const all = peersOf(40).toSorted((a, b) => compareDistance(b.position, a.position, target))
      // Two chains that share their end; the first peer of one of them names no other.
      const bench = benchOf(all, { seeds: all.slice(0, 2), paths: 2, parallel: 2, count: 2 })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust(0)
      samePeers(bench.waiting(), [all[1]!, all[0]!])
      bench.answerPeer(all[1]!, { closer: [all[3]!, all[39]!] })
      samePeers(bench.waiting(), [all[0]!, all[39]!])
      bench.answerPeer(all[39]!, { closer: [] })
      samePeers(bench.waiting(), [all[0]!, all[3]!])
      bench.answerPeer(all[3]!, { closer: [] })
      // One path is at its end; the other goes on, and counts peers that both paths know as answered.
      bench.answerPeer(all[0]!, { closer: [all[2]!, all[39]!] })
      samePeers(bench.waiting(), [all[2]!])
      bench.answerPeer(all[2]!, { closer: [] })
      const { asked, closest } = yield* Fiber.join(fiber)
      assert.strictEqual(asked, 5)
      samePeers(closest, [all[39]!, all[3]!])
    }))

  it.effect("asks doubtful peers beside the others, and waits for them 50 ms after the others have answered", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(16), { parallel: 4, doubts: doubtsOf(isOf(peersOf(12))) })
      const others = bench.byDistance.filter((peer) => !isOf(peersOf(12))(peer))
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust(0)
      samePeers(bench.waiting(), others)
      for (const peer of others) bench.answerPeer(peer, { closer: [] })
      assert.strictEqual(bench.waiting().length, 12)
      yield* TestClock.adjust("49 millis")
      const [early] = bench.waiting()
      bench.answerPeer(early!, { closer: [] })
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isDefined(fiber.pollUnsafe())
      const { answered, closest } = yield* Fiber.join(fiber)
      assert.strictEqual(answered, 5)
      samePeers(closest, bench.byDistance.filter((peer) => peer === early || others.includes(peer)))
      assert.strictEqual(bench.interrupted.length, 11)
    }))

  it.effect("waits for doubtful peers twice as long as the slowest other answer took", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(5), { doubts: doubtsOf(isOf(peersOf(2))) })
      const others = bench.byDistance.filter((peer) => !isOf(peersOf(2))(peer))
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust("100 millis")
      for (const peer of others) bench.answerPeer(peer, { closer: [] })
      yield* TestClock.adjust("199 millis")
      // The answer of a doubtful peer prolongs nothing.
      bench.answerPeer(bench.waiting()[0]!, { closer: [] })
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(fiber)).answered, 4)
    }))

  it.effect("waits for doubtful peers as for others until the first peer answers", () =>
    Effect.gen(function*() {
      const bench = benchOf(peersOf(30), { doubts: doubtsOf(() => true) })
      const fiber = yield* Effect.forkChild(bench.lookup)
      yield* TestClock.adjust("3 seconds")
      samePeers(bench.waiting(), bench.byDistance)
      bench.answer(7)
      yield* TestClock.adjust("40 millis")
      bench.answer(3)
      yield* TestClock.adjust("9 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      samePeers((yield* Fiber.join(fiber)).closest, [bench.byDistance[3]!, bench.byDistance[7]!])
    }))

  it.effect("does not wait for what misleading peers invent anew, and asks for a fifth of `count` of it", () =>
    Effect.gen(function*() {
      const liars = peersOf(12, "liar")
      const honest = peersOf(5, "honest")
      let invented = 0
      const doubts = Doubts.make(() => 0)
      const ask = (peer: Peer): Effect.Effect<LookupAnswer<Peer>, string> => {
        if (honest.includes(peer)) return Effect.succeed({ closer: [...liars, ...honest] })
        if (!liars.includes(peer)) return Effect.andThen(Effect.sleep("5 seconds"), Effect.fail("timed out"))
        return Effect.succeed({ closer: peersOf(20, `invented ${invented++}`) })
      }
      const first = yield* Effect.forkChild(
        lookup({ target: positionAt("x"), seeds: [...liars, ...honest], ask, doubts })
      )
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(first)
      assert.isTrue(liars.every(({ key }) => doubts.isMisleading(key)))
      assert.isFalse(honest.some(({ key }) => doubts.isMisleading(key)))
      const fiber = yield* Effect.forkChild(
        lookup({ target: positionAt("y"), seeds: [...liars, ...honest], ask, doubts })
      )
      yield* TestClock.adjust("50 millis")
      const { answered, asked } = yield* Fiber.join(fiber)
      assert.deepStrictEqual([answered, asked], [17, 21])
    }))

  it.effect("asks for what a misleading peer names when others name it, too, and when there is nobody else", () =>
    Effect.gen(function*() {
      const [liar, honest, found] = peersOf(3) as [Peer, Peer, Peer]
      const doubts = { isDoubtful: () => false, isMisleading: (key: string) => key === liar.key, named: () => {} }
      const answers = new Map([[liar, [found]], [honest, [found]], [found, []]])
      for (const seeds of [[liar, honest], [liar]]) {
        const result = yield* Effect.forkChild(lookup({
          target: positionAt("x"),
          seeds,
          doubts,
          // Longer than a doubtful peer is waited for, unless nobody else has answered.
          ask: (peer) =>
            Effect.as(Effect.sleep(peer === found && seeds.length > 1 ? "400 millis" : "40 millis"), {
              closer: answers.get(peer)!
            })
        }))
        yield* TestClock.adjust("10 seconds")
        assert.include((yield* Fiber.join(result)).closest, found)
      }
    }))

  it.effect("waits for what a misleading peer has named from when others name it", () =>
    Effect.gen(function*() {
      const [liar, honest, ...named] = peersOf(10) as [Peer, Peer, ...Array<Peer>]
      const target = positionAt("x")
      // Four of a count of 20 are asked before anybody else names them.
      const rest = named.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(4)
      const answers = new Map([[liar, named], [honest, rest]])
      const result = yield* Effect.forkChild(lookup({
        target,
        seeds: [liar, honest],
        doubts: { isDoubtful: () => false, isMisleading: (key) => key === liar.key, named: () => {} },
        ask: (peer) =>
          Effect.as(Effect.sleep(peer === liar ? "10 millis" : peer === honest ? "40 millis" : "400 millis"), {
            closer: answers.get(peer) ?? []
          })
      }))
      yield* TestClock.adjust("10 seconds")
      assert.includeMembers([...(yield* Fiber.join(result)).closest], rest)
    }))

  it.effect("tells what came of the peers that a peer was the first to name, but for those known to be silent", () =>
    Effect.gen(function*() {
      const [seed, good, bad, silent, ...rest] = peersOf(6) as [Peer, Peer, Peer, Peer, Peer, Peer]
      const told: Array<readonly [string, number, number]> = []
      yield* lookup({
        target: positionAt("x"),
        seeds: [seed],
        doubts: {
          isDoubtful: (key) => key === silent.key,
          isMisleading: () => false,
          named: (...counts) => void told.push(counts)
        },
        ask: (peer) =>
          peer === bad || peer === silent || rest.includes(peer)
            ? Effect.fail("nobody")
            : Effect.succeed({ closer: peer === seed ? [good, bad, silent] : [...rest, bad, silent] })
      })
      assert.sameDeepMembers(told, [[seed.key, 1, 0], [seed.key, 0, 1], [good.key, 0, 1], [good.key, 0, 1]])
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Doubts of these peers, and nothing else. */
function doubtsOf(isDoubtful: (peer: { readonly key: string }) => boolean) {
  return { isDoubtful: (key: string) => isDoubtful({ key }), isMisleading: () => false, named: () => {} }
}

function isOf(peers: ReadonlyArray<Peer>) {
  const keys = new Set(peers.map(({ key }) => key))
  return ({ key }: { readonly key: string }) => keys.has(key)
}

function samePeers(actual: ReadonlyArray<Peer>, expected: ReadonlyArray<Peer>): void {
  assert.deepStrictEqual(actual.map(({ key }) => key), expected.map(({ key }) => key))
}

interface Peer {
  readonly key: string
  readonly position: Position
}

function positionAt(text: string): Position {
  return positionOf(new TextEncoder().encode(text))
}

function peersOf(count: number, seed = "peer"): ReadonlyArray<Peer> {
  return Array.from(
    { length: count },
    (_, index) => ({ key: `${seed} ${index}`, position: positionAt(`${seed} ${index}`) })
  )
}

/** A network in which every bucket of every node is full: 20 peers, or all that belong in it. */
function networkOf(size: number, seed: string) {
  const peers = peersOf(size, seed)
  const closest = (target: Position, among = peers) =>
    among.toSorted((a, b) => compareDistance(a.position, b.position, target))
  const tables = new Map<string, ReadonlyArray<Peer>>()
  const tableOf = (peer: Peer) => {
    const known = tables.get(peer.key)
    if (known !== undefined) return known
    const buckets = new Map<number, Array<Peer>>()
    // Which peers a full bucket holds is a matter of chance.
    for (const other of closest(positionAt(`chance of ${peer.key}`))) {
      if (other === peer) continue
      const length = commonPrefixLength(peer.position, other.position)
      const bucket = buckets.get(length)
      if (bucket === undefined) buckets.set(length, [other])
      else if (bucket.length < 20) bucket.push(other)
    }
    const table = [...buckets.values()].flat()
    tables.set(peer.key, table)
    return table
  }
  return {
    peers,
    closest: (target: Position) => closest(target),
    answer: (peer: Peer, target: Position) => closest(target, [...tableOf(peer)]).slice(0, 20)
  }
}

/** A lookup whose questions end when the spec says so. */
function benchOf(peers: ReadonlyArray<Peer>, changes: Partial<LookupOptions<Peer>>) {
  const target = positionAt("x")
  const byDistance = peers.toSorted((a, b) => compareDistance(a.position, b.position, target))
  const asks = new Map<Peer, Deferred.Deferred<LookupAnswer<Peer>, string>>()
  const interrupted: Array<Peer> = []
  const ranks: Array<number> = []
  const end = (peer: Peer, exit: Exit.Exit<LookupAnswer<Peer>, string>) => {
    const ask = asks.get(peer)
    if (ask === undefined) throw new Error(`${peer.key} was not asked`)
    asks.delete(peer)
    Deferred.doneUnsafe(ask, exit)
  }
  return {
    byDistance,
    interrupted,
    ranks,
    /** The peers being asked, the longest asked first. */
    waiting: () => [...asks.keys()],
    answer: (index: number, answer: LookupAnswer<Peer> = { closer: byDistance }) =>
      end(byDistance[index]!, Exit.succeed(answer)),
    answerPeer: (peer: Peer, answer: LookupAnswer<Peer>) => end(peer, Exit.succeed(answer)),
    fail: (index: number) => end(byDistance[index]!, Exit.fail("refused")),
    lookup: lookup({
      target,
      seeds: peers,
      ask: (peer, rank) => {
        const ask = Deferred.makeUnsafe<LookupAnswer<Peer>, string>()
        asks.set(peer, ask)
        ranks.push(rank)
        return Deferred.await(ask).pipe(Effect.onInterrupt(() => Effect.sync(() => interrupted.push(peer))))
      },
      ...changes
    })
  }
}
