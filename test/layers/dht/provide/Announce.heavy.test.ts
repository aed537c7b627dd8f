import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Node } from "../../../../src/layers/dht/wire/Nodes.ts"
import { positionOf } from "../../../../src/layers/dht/wire/Position.ts"
import { type ContentKey, toBytes } from "../../../../src/schema/Content.ts"
import * as ProvideNetwork from "../../../support/ProvideNetwork.ts"
import { assertPlaced, assertPlacedAmongDead, inTime, keysOf } from "../../../support/ProvideNetwork.ts"

describe("Announce", () => {
  it.effect("puts every key on its closest peers, in a network of 199", () =>
    Effect.gen(function*() {
      for (const [length, seeds] of [[1, 20], [10, 10], [100, 3], [1000, 2]] as const) {
        for (let seed = 0; seed < seeds; seed++) {
          const network = ProvideNetwork.make(199, { seed: `${seed}`, knowledge: 0.7, bucketSize: 20 })
          const keys = keysOf(length, `${seed}`)
          const { told } = yield* network.announce(keys)
          assertPlaced(network, keys, told, `seed ${seed}, ${length} keys:`)
        }
      }
    }))

  it.effect("takes at most three messages for each of 10,000 keys on 200 nodes, and the lookups of 100", () =>
    Effect.gen(function*() {
      const network = ProvideNetwork.make(200)
      const few = yield* network.announce(keysOf(100))
      const keys = keysOf(10_000, "many")
      const many = yield* network.announce(keys)
      for (const [length, { cost, messages }] of [[100, few], [10_000, many]] as const) {
        console.log(
          `${length} keys on 200 nodes: ${cost.lookups} lookups, ${messages} messages, ${
            messages / length
          } for each key`
        )
      }
      assertPlaced(network, keys, many.told)
      assert.isAtMost(many.cost.lookups, 2 * few.cost.lookups)
      assert.isAtMost(many.messages, 3 * keys.length)

      // A region at a time, as keys are renewed.
      const prefixes = new Map(keys.map((key) => [key, positionOf(toBytes(key)).h0]))
      const cost = { lookups: 0, messages: 0 }
      for (let region = 0; region < 32; region++) {
        const { cost: { lookups, messages }, told } = yield* network.announce(
          keys.filter((key) => prefixes.get(key)! >>> 27 === region)
        )
        cost.lookups += lookups
        cost.messages += messages
        for (const copies of told.values()) assert.strictEqual(copies, 20)
      }
      console.log(
        `10000 keys on 200 nodes, in 32 regions: ${cost.lookups} lookups, ${cost.messages} messages, ${
          cost.messages / keys.length
        } for each key`
      )
      assert.isAtMost(cost.messages, 3 * keys.length)
    }))

  it.effect("keeps to a region of the keyspace when its keys do", () =>
    Effect.gen(function*() {
      const network = ProvideNetwork.make(199)
      const keys = keysOf(2000).filter((key) => network.closest(key)[0]!.position.h0 >>> 28 === 5)
      const { cost, told } = yield* network.announce(keys)
      assertPlaced(network, keys, told)
      assert.isAtMost(cost.lookups, 8)
      assert.isAtMost(cost.messages / keys.length, 3)
    }))

  it.effect("makes up for copies whose keepers fail in the middle", () =>
    Effect.gen(function*() {
      for (const after of [100, 300, 450]) {
        let asked = 0
        const network: ProvideNetwork.ProvideNetwork = ProvideNetwork.make(199, {
          onRequest: (peer) => {
            if (++asked === after) {
              network.nodes.forEach((node, index) => index % 6 === 4 && node !== peer && network.dead.add(node))
            }
            return network.dead.has(peer) ? "fail" : "answer"
          }
        })
        const keys = keysOf(300)
        const { told } = yield* inTime(network.announce(keys))
        assert.isAbove(network.dead.size, 30)
        const copies = (nodes: ReadonlyArray<Node>, key: ContentKey) =>
          nodes.filter((node) => network.has(node, key)).length
        for (const key of keys) {
          assert.isAtLeast(told.get(key)!, 20)
          assert.isAtLeast(copies(network.nodes, key), 20)
        }
        // A peer that died after it had acknowledged its copies cannot be noticed.
        const living = keys.reduce((sum, key) => sum + copies(network.closest(key), key), 0) / keys.length
        assert.isAtLeast(living, after === 100 ? 19 : 16, `after ${after}`)
      }
    }))

  it.effect("finds the live peers when a fifth of 199 known peers is dead", () =>
    Effect.gen(function*() {
      for (const [size, length] of [[199, 1], [199, 300]] as const) {
        yield* assertPlacedAmongDead(size, length)
      }
    }))
})
