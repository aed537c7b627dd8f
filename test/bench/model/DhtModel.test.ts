import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { crowdingOf, makeNetworkSize } from "../../../src/layers/dht/lookup/Crowding.ts"
import { compareDistance } from "../../../src/layers/dht/wire/Position.ts"
import * as DhtModel from "../../../bench/model/DhtModel.ts"

describe("DhtModel", () => {
  it.effect("finds the true closest of 300 nodes and every record, in a few hops", () =>
    Effect.gen(function*() {
      for (const tables of ["kademlia", "kad-dht", "deepened"] as const) {
        const model = yield* DhtModel.make({ nodes: 300, tables })
        const { asked, closestFound, hops, recordsFound } = yield* DhtModel.survey(model, 20)
        assert.deepStrictEqual([closestFound, recordsFound], [1, 1], tables)
        assert.isAtMost(hops[2], Math.log2(300) / 2)
        assert.isAtMost(asked[2], 35)
      }
    }))

  it.effect("keeps finding nearly all of them while nodes leave and come, and tells what upkeep costs", () =>
    Effect.gen(function*() {
      const model = yield* DhtModel.make({ nodes: 300, tables: "deepened", session: "30 minutes" })
      const upkeep = yield* model.advance("10 minutes")
      // In ten minutes a third of 300 nodes leaves, and as many join.
      assert.isAbove(upkeep.joined, 60)
      assert.isBelow(upkeep.joined, 140)
      assert.strictEqual(model.nodes.length, 300)
      assert.isAbove(upkeep.messagesPerNodeAndHour, 500)
      assert.isBelow(upkeep.messagesPerNodeAndHour, 1_500)
      assert.isAbove(model.tables().dead, 0.1)
      const { closestFound, recordsFound } = yield* DhtModel.survey(model, 20)
      assert.isAtLeast(closestFound, 0.98)
      assert.strictEqual(recordsFound, 1)
    }))

  it.effect("loses a record when all that keep it have left", () =>
    Effect.gen(function*() {
      const model = yield* DhtModel.make({ nodes: 60, session: "3 minutes" })
      const key = model.randomPosition()
      yield* model.provide(key)
      assert.isTrue((yield* model.find(key)).isFound)
      yield* model.advance("30 minutes")
      const { answered, isFound } = yield* model.find(key)
      assert.isFalse(isFound)
      assert.isAbove(answered, 10)
    }))

  it.effect("takes the model's time: a round trip for an answer, a timeout for a dead node when it is waited for", () =>
    Effect.gen(function*() {
      const model = yield* DhtModel.make({ nodes: 21, roundTrip: "100 millis" })
      const whole = yield* model.lookup(model.randomPosition())
      // Twenty questions, ten at once; each takes 40 to 160 ms.
      assert.isAtLeast(whole.tookMillis, 80)
      assert.isAtMost(whole.tookMillis, 320)
      assert.deepStrictEqual([whole.asked, whole.answered, whole.hops], [20, 20, 1])
      const aging = yield* DhtModel.make({ nodes: 21, roundTrip: "100 millis", session: "20 minutes" })
      yield* aging.advance("2 minutes")
      const { answered, asked, tookMillis } = yield* aging.lookup(aging.randomPosition(), { slowAfter: "1 minute" })
      assert.isBelow(answered, asked)
      assert.isAtLeast(tookMillis, 5_000)
    }))

  it.effect("is repeated by its seed", () =>
    Effect.gen(function*() {
      const run = (seed: number) =>
        Effect.gen(function*() {
          const model = yield* DhtModel.make({ nodes: 60, seed, session: "10 minutes" })
          const upkeep = yield* model.advance("5 minutes")
          const { asked, closest, tookMillis } = yield* model.lookup(model.randomPosition())
          return { upkeep, asked, tookMillis, closest: closest.map(({ key }) => key) }
        })
      assert.deepStrictEqual(yield* run(7), yield* run(7))
      assert.notDeepEqual(yield* run(7), yield* run(8))
    }))

  it.effect("puts a crowd nearer to a key than all others", () =>
    Effect.gen(function*() {
      const model = yield* DhtModel.make({ nodes: 200 })
      const key = model.randomPosition()
      const crowd = yield* model.crowd(key, 5, "withholding")
      const sorted = model.nodes.toSorted((a, b) => compareDistance(a.position, b.position, key))
      assert.deepStrictEqual(new Set(sorted.slice(0, 5).map(({ key }) => key)), new Set(crowd.map(({ key }) => key)))
      const { closest } = yield* model.lookup(key)
      assert.deepStrictEqual(closest.slice(0, 5).map(({ kind }) => kind), Array(5).fill("withholding"))
    }))

  it.effect("loses a record to a crowd of twenty and to no smaller one, sees it, and finds the record beyond it", () =>
    Effect.gen(function*() {
      for (const [size, kind] of [[15, "withholding"], [20, "withholding"], [20, "colluding"]] as const) {
        const model = yield* DhtModel.make({ nodes: 300 })
        const estimate = makeNetworkSize()
        for (let index = 0; index < 16; index++) {
          const { closest, target } = yield* model.lookup(model.randomPosition())
          estimate.observe(target, closest)
        }
        const networkSize = estimate.estimate()!
        assert.closeTo(networkSize / 300, 1, 0.25)
        const key = model.randomPosition()
        yield* model.crowd(key, size, kind)
        const { closest } = yield* model.provide(key)
        assert.strictEqual(closest.filter(({ kind }) => kind === "honest").length, 20 - size)
        assert.isTrue(crowdingOf(key, closest, networkSize).isCrowded)
        const find = yield* model.find(key)
        assert.strictEqual(find.isFound, size < 20)
        // All paths end in the crowd.
        assert.strictEqual((yield* model.find(key, { paths: 4 })).isFound, size < 20)
        if (size < 20) continue
        assert.isTrue(crowdingOf(key, find.closest, networkSize).isCrowded)
        assert.isFalse((yield* model.findBeyond(key, networkSize)).isFound)
        yield* model.provideBeyond(key, networkSize)
        assert.isTrue((yield* model.findBeyond(key, networkSize)).isFound)
      }
    }))
})
