/**
 * Lookups in large networks, on the model. `npm run bench:model` prints the figures.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Crowding from "../../../src/layers/dht/lookup/Crowding.ts"
import * as DhtModel from "../../../bench/model/DhtModel.ts"

describe("DhtModel", () => {
  for (const nodes of [1_000, 10_000]) {
    it.effect(`finds the true closest of ${nodes} nodes and every record, in a few hops`, () =>
      Effect.gen(function*() {
        for (const tables of ["kademlia", "deepened"] as const) {
          const model = yield* DhtModel.make({ nodes, tables })
          const { asked, closestFound, hops, recordsFound, tookMillis } = yield* DhtModel.survey(model, 100)
          assert.deepStrictEqual([closestFound, recordsFound], [1, 1], tables)
          assert.isAtMost(hops[2], 0.4 * Math.log2(nodes))
          assert.isAtMost(asked[2], 40)
          // A few round trips of 100 ms.
          assert.isAtMost(tookMillis[1], 500)
        }
      }))

    it.effect(`finds nearly all of the closest of ${nodes} nodes that stay for an hour each, and nearly every record`, () =>
      Effect.gen(function*() {
        const model = yield* DhtModel.make({ nodes, tables: "deepened", session: "1 hour" })
        const upkeep = yield* model.advance("10 minutes")
        assert.isAbove(upkeep.joined, nodes / 8)
        assert.isAtMost(upkeep.messagesPerNodeAndHour, 1_500)
        assert.isAbove(model.tables().dead, 0.1)
        const { asked, closestFound, hops, recordsFound, tookMillis } = yield* DhtModel.survey(model, 100)
        assert.isAtLeast(closestFound, 0.99)
        assert.isAtLeast(recordsFound, 0.99)
        assert.isAtMost(hops[2], 0.5 * Math.log2(nodes))
        assert.isAtMost(asked[2], 60)
        // A dead node costs half a second, not five.
        assert.isAtMost(tookMillis[1], 2_500)
      }))
  }

  it.effect("finds the closest of 100,000 nodes when tables split their own bucket, and not with those of kad-dht", () =>
    Effect.gen(function*() {
      const surveyOf = Effect.fnUntraced(function*(tables: "kad-dht" | "deepened") {
        return yield* DhtModel.survey(yield* DhtModel.make({ nodes: 100_000, tables }), 40)
      })
      const deepened = yield* surveyOf("deepened")
      assert.deepStrictEqual([deepened.closestFound, deepened.recordsFound], [1, 1])
      assert.isAtMost(deepened.hops[2], 0.4 * Math.log2(100_000))
      const fixed = yield* surveyOf("kad-dht")
      assert.isBelow(fixed.closestFound, 0.6)
      assert.isAbove(fixed.asked[0], deepened.asked[2])
    }))

  it.effect("warns of no more than one honest lookup in 500 among 1,000 nodes, and of every crowd that takes a record", () =>
    Effect.gen(function*() {
      const estimate = Crowding.makeNetworkSize()
      const honest = yield* DhtModel.make({ nodes: 1_000 })
      for (let index = 0; index < 32; index++) {
        const { closest, target } = yield* honest.lookup(honest.randomPosition())
        estimate.observe(target, closest)
      }
      const networkSize = estimate.estimate()!
      assert.closeTo(networkSize / 1_000, 1, 0.2)
      let warned = 0
      for (let index = 0; index < 1_000; index++) {
        const { closest, target } = yield* honest.lookup(honest.randomPosition())
        if (Crowding.crowdingOf(target, closest, networkSize).isCrowded) warned++
      }
      assert.isAtMost(warned, 2)

      for (let run = 0; run < 10; run++) {
        const model = yield* DhtModel.make({ nodes: 1_000, seed: run })
        const key = model.randomPosition()
        yield* model.crowd(key, 20, run % 2 === 0 ? "colluding" : "withholding")
        const { closest } = yield* model.provide(key)
        assert.isTrue(Crowding.crowdingOf(key, closest, networkSize).isCrowded)
        assert.isFalse((yield* model.find(key)).isFound)
        yield* model.provideBeyond(key, networkSize)
        assert.isTrue((yield* model.findBeyond(key, networkSize)).isFound)
      }
    }))

  it.effect("finds records while three of four nodes name only each other, wherever they are", () =>
    Effect.gen(function*() {
      const model = yield* DhtModel.make({ nodes: 500 })
      yield* model.scatter(1_500, "colluding")
      for (let run = 0; run < 20; run++) {
        const key = model.randomPosition()
        const { closest } = yield* model.provide(key)
        assert.isAbove(closest.filter(({ kind }) => kind === "honest").length, 0)
        assert.isTrue((yield* model.find(key)).isFound)
      }
    }))
})
