import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Node } from "../../../../src/layers/dht/wire/Nodes.ts"
import { keyOf } from "../../../../src/layers/dht/wire/Nodes.ts"
import { compareDistance, positionOf } from "../../../../src/layers/dht/wire/Position.ts"
import { type ContentKey, toBytes } from "../../../../src/schema/Content.ts"
import * as ProvideNetwork from "../../../support/ProvideNetwork.ts"
import { assertPlaced, assertPlacedAmongDead, inTime, keysOf } from "../../../support/ProvideNetwork.ts"

describe("Announce", () => {
  for (const size of [5, 20, 49]) {
    it.effect(`puts every key on its closest peers, in networks of ${size}`, () =>
      Effect.gen(function*() {
        for (const [length, seeds] of [[1, 8], [10, 4], [300, 1]] as const) {
          for (let seed = 0; seed < seeds; seed++) {
            const network = ProvideNetwork.make(size, { seed: `${size} ${seed}`, knowledge: 0.7, bucketSize: 20 })
            const keys = keysOf(length, `${seed}`)
            const { cost, messages, told } = yield* network.announce(keys)
            assertPlaced(network, keys, told, `seed ${seed}, ${length} keys:`)
            assert.strictEqual(cost.messages, messages)
          }
        }
      }))
  }

  it.effect("takes as many messages for a key as it has copies, when the table has the closest peers", () =>
    Effect.gen(function*() {
      for (const size of [20, 49, 199]) {
        const network = ProvideNetwork.make(size)
        for (let seed = 0; seed < 10; seed++) {
          const { cost, messages } = yield* network.announce(keysOf(1, `${seed}`))
          assert.strictEqual(messages, Math.min(size - 1, 20), `seed ${seed}`)
          assert.deepStrictEqual(cost, { lookups: 1, messages })
        }
      }
    }))

  it.effect("shares the lookups of many keys", () =>
    Effect.gen(function*() {
      const network = ProvideNetwork.make(199)
      const few = yield* network.announce(keysOf(100))
      const many = yield* network.announce(keysOf(1000))
      assert.isAtMost(few.cost.lookups, 30)
      assert.isAtMost(many.cost.lookups, 30)
      assert.isAtMost(few.messages, 800)
      assert.isAtMost(many.messages, 1000)
    }))

  it.effect("finds the live peers when a fifth of the known peers is dead", () =>
    Effect.gen(function*() {
      for (const [size, length] of [[20, 10], [49, 1], [49, 100]] as const) {
        yield* assertPlacedAmongDead(size, length)
      }
    }))

  it.effect("makes up for copies whose keepers fail in the middle", () =>
    Effect.gen(function*() {
      let writes = 0
      const network: ProvideNetwork.ProvideNetwork = ProvideNetwork.make(49, {
        onRequest: (peer, before) => {
          // Half of the peers have their copies.
          if (before.length > 0 && ++writes === 24) {
            network.nodes.forEach((node, index) => index % 6 === 4 && node !== peer && network.dead.add(node))
          }
          return network.dead.has(peer) ? "fail" : "answer"
        }
      })
      const keys = keysOf(100)
      const { told } = yield* inTime(network.announce(keys))
      assert.strictEqual(network.dead.size, 8)
      for (const key of keys) {
        assert.strictEqual(told.get(key), 20)
        assert.isAtLeast(network.nodes.filter((node) => network.has(node, key)).length, 20)
      }
      // Peers that died without a copy have been replaced.
      const unserved = [...network.dead].filter((node) => network.records.get(node)!.size === 0)
      assert.isAbove(unserved.length, 0)
    }))

  it.effect("leaves a record with peers beyond the closest when the closest are not to be trusted", () =>
    Effect.gen(function*() {
      for (const length of [1, 100]) {
        const keys = keysOf(length)
        const [crowded] = keys as [ContentKey]
        const position = positionOf(toBytes(crowded))
        const network: ProvideNetwork.ProvideNetwork = ProvideNetwork.make(199, {
          peersBeyond: (target) => target.h0 === position.h0 ? farthest().slice(0, 7) : []
        })
        const farthest = () =>
          network.nodes.filter((node) => node !== network.self)
            .sort((a, b) => compareDistance(b.position, a.position, position))
        const { told } = yield* network.announce(keys)
        assertPlaced(network, keys.slice(1), told)
        assert.isTrue(network.closest(crowded).every((node) => network.has(node, crowded)))
        assert.deepStrictEqual(farthest().slice(0, 9).map((node) => network.has(node, crowded)), [
          ...Array(7).fill(true),
          false,
          false
        ])
        assert.strictEqual(told.get(crowded), 27)
      }
    }))

  it.effect("counts no refused copy, and gives the refusing peer the other keys all the same", () =>
    Effect.gen(function*() {
      const keys = keysOf(300)
      const refused = keys.filter((_, index) => index % 100 === 7)
      const unwanted = new Set(refused.map((key) => keyOf(toBytes(key))))
      const network: ProvideNetwork.ProvideNetwork = ProvideNetwork.make(12, {
        onRequest: (peer, before) =>
          peer === network.nodes[5] && before.some((key) => unwanted.has(key)) ? "refuse" : "answer"
      })
      const picky = network.nodes[5]!
      const { told } = yield* network.announce(keys)
      for (const key of keys) {
        const isRefused = refused.includes(key)
        assert.strictEqual(told.get(key), isRefused ? 10 : 11)
        assert.strictEqual(network.has(picky, key), !isRefused)
      }
      const alone = yield* network.announce(refused.slice(0, 1))
      assert.strictEqual(alone.told.get(refused[0]!), 10)
      assert.strictEqual(alone.messages, 11)
    }))

  it.effect("writes no key once it is stopped", () =>
    Effect.gen(function*() {
      for (const [size, length] of [[20, 1], [49, 1], [49, 100]] as const) {
        const [stopped, ...others] = keysOf(length) as [ContentKey, ...Array<ContentKey>]
        const name = keyOf(toBytes(stopped))
        let given = 0
        const network = ProvideNetwork.make(size, {
          onRequest: (_, before) => {
            if (before.includes(name)) {
              // Writes that were under way when the key was stopped.
              given++
            }
            return "answer"
          }
        })
        const { told } = yield* network.announce([stopped, ...others], {
          isWanted: (key) => key !== stopped || given < 3
        })
        assert.isUndefined(told.get(stopped))
        assert.isAtLeast(given, 3)
        assert.isAtMost(given, 2 + (length === 1 ? 20 : 8))
        assertPlaced(network, others, told)
      }
    }))

  it.effect("stops with the batch", () =>
    Effect.gen(function*() {
      const network = ProvideNetwork.make(49, { latency: 10 })
      const fiber = yield* Effect.forkChild(network.announce(keysOf(300)), { startImmediately: true })
      yield* TestClock.adjust("50 millis")
      yield* Fiber.interrupt(fiber)
      const messages = network.messages()
      assert.isAbove(messages, 10)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(network.messages(), messages)
    }))

  it.effect("reports no keys when no peer answers", () =>
    Effect.gen(function*() {
      for (const length of [1, 300]) {
        const network = ProvideNetwork.make(20)
        network.nodes.slice(1).forEach((node) => network.dead.add(node))
        const { messages, told } = yield* network.announce(keysOf(length))
        assert.strictEqual(told.size, 0)
        assert.isAtMost(messages, 19)
      }
    }))

  it.effect("sends nothing when it knows no peer", () =>
    Effect.gen(function*() {
      const { messages, told } = yield* ProvideNetwork.make(1).announce(keysOf(10))
      assert.strictEqual(told.size + messages, 0)
    }))

  it.effect("reports the writes to an optimistic caller, and confirms them all the same", () =>
    Effect.gen(function*() {
      const network = ProvideNetwork.make(49, { latency: 20 })
      const startedAt = yield* Clock.currentTimeMillis
      const keys = keysOf(1)
      const fiber = yield* Effect.forkChild(network.announce(keys, { isOptimistic: true }), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      const { told, writtenAt } = yield* Fiber.join(fiber)
      assert.strictEqual(writtenAt, startedAt)
      assertPlaced(network, keys, told)
      assert.strictEqual(network.sends(), 20)

      // Fewer than ten peers may not be the closest.
      const small = ProvideNetwork.make(10)
      const confirmed = yield* small.announce(keys, { isOptimistic: true })
      assert.isUndefined(confirmed.writtenAt)
      assert.strictEqual(small.sends(), 0)
      assertPlaced(small, keys, confirmed.told)
    }))

  it.effect("asks all peers at once when the table has the closest, and ten at a time when it may not", () =>
    Effect.gen(function*() {
      for (const [bucketSize, millis] of [[Infinity, 20], [4, 40]] as const) {
        const network = ProvideNetwork.make(99, { latency: 20, bucketSize })
        const fiber = yield* Effect.forkChild(network.announce(keysOf(1)), { startImmediately: true })
        yield* TestClock.adjust(millis - 1)
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(bucketSize === Infinity ? 1 : 60)
        assert.isDefined(fiber.pollUnsafe())
      }
    }))

  it.effect("sends the ttl with each record", () =>
    Effect.gen(function*() {
      for (const length of [1, 100]) {
        const network = ProvideNetwork.make(20)
        const keys = keysOf(length)
        yield* network.announce(keys, { ttlSeconds: 90 })
        for (const peer of network.closest(keys[0]!)) {
          assert.deepStrictEqual(network.records.get(peer)!.get(keyOf(toBytes(keys[0]!))), { ttlSeconds: 90 })
        }
      }
    }))

  it.effect("writes to eight peers at a time, 16 KiB each, and pauses as long as a write has taken", () =>
    Effect.gen(function*() {
      const lasts = new Map<Node, number>()
      const pauses = new Set<number>()
      const clock = yield* Clock.Clock
      const latency = 10
      const network = ProvideNetwork.make(20, {
        latency,
        onRequest: (peer, before) => {
          const now = clock.currentTimeMillisUnsafe()
          assert.isAtMost(before.length, 16 * 1024 / 77)
          if (before.length > 0 && lasts.has(peer)) pauses.add(now - lasts.get(peer)!)
          if (before.length > 0) lasts.set(peer, now)
          return "answer"
        }
      })
      const keys = keysOf(1000)
      const fiber = yield* Effect.forkChild(network.announce(keys), { startImmediately: true })
      while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust(latency)
      const { told } = yield* Fiber.join(fiber)
      assertPlaced(network, keys, told)
      assert.deepStrictEqual([...pauses], [2 * latency])
      assert.strictEqual(network.mostWrites(), 8)
    }))
})
