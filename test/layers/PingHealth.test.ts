import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { fast, HealthPolicy } from "../../src/services/HealthPolicy.ts"
import { SimNetwork } from "../../src/testing/SimNetwork.ts"
import * as TestNetwork from "../../src/testing/TestNetwork.ts"
import * as CoreNode from "../support/CoreNode.ts"

const pair = Effect.gen(function*() {
  const alice = yield* CoreNode.make("alice")
  const bob = yield* CoreNode.make("bob")
  yield* TestNetwork.run(alice.manager.connect((yield* bob.addresses)[0]!))
  return { alice, bob }
})

const net = SimNetwork.layer({ latency: "20 millis" })

/** A policy without jitter, so that a spec can stand on both sides of each step. */
const steady = { probe: Schedule.spaced("4 seconds"), timeout: "2500 millis", maxFailures: 2 } as const

describe("PingHealth", () => {
  it.effect("measures the round-trip time of each peer", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* TestClock.adjust("1 second")
      const [peer] = yield* alice.table.peers
      assert.strictEqual(peer?.id, bob.id)
      assert.strictEqual(peer?.roundTripTime === undefined ? undefined : Duration.toMillis(peer.roundTripTime), 40)
    }).pipe(Effect.provide(net)))

  it.effect("closes a silent peer after two misses, and not after one", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* TestClock.adjust("30 seconds")
      const network = yield* SimNetwork
      yield* network.blackhole(alice.id, bob.id)
      yield* Effect.repeat(TestClock.adjust("100 millis"), {
        until: () => alice.happened("PeerUnhealthy").length === 1
      })
      yield* TestClock.adjust("2300 millis")
      assert.strictEqual(yield* alice.table.size, 1)
      yield* TestClock.adjust("200 millis")
      assert.strictEqual(yield* alice.table.size, 0)
      const [left] = alice.happened("PeerDisconnected")
      assert.strictEqual(left?._tag === "PeerDisconnected" && left.reason, "unhealthy")
      assert.strictEqual(alice.happened("PeerUnhealthy").length, 2)
    }).pipe(Effect.provide(net), Effect.provideService(HealthPolicy, steady)))

  it.effect("forgives a single miss", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* TestClock.adjust("30 seconds")
      const network = yield* SimNetwork
      yield* network.blackhole(alice.id, bob.id)
      yield* TestNetwork.until(Effect.sync(() => alice.happened("PeerUnhealthy").length === 1))
      yield* network.heal
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* alice.table.size, 1)
      assert.strictEqual(alice.happened("PeerUnhealthy").length, 1)
    }).pipe(Effect.provide(net), Effect.provideService(HealthPolicy, steady)))

  it.effect("notices within three seconds with the fast policy", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* TestClock.adjust("30 seconds")
      const network = yield* SimNetwork
      yield* network.blackhole(alice.id, bob.id)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* alice.table.size, 0)
    }).pipe(Effect.provide(net), Effect.provideService(HealthPolicy, fast)))

  it.effect("tells why a ping has no answer, and never dials for one", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const stranger = yield* CoreNode.make("carol")
      const absent = yield* Effect.flip(alice.health.ping(stranger.id))
      assert.strictEqual(absent.reason._tag, "StreamFailed")
      assert.strictEqual(yield* alice.table.size, 1)
      const network = yield* SimNetwork
      yield* network.blackhole(alice.id, bob.id)
      const late = yield* TestNetwork.run(Effect.flip(alice.health.ping(bob.id)))
      assert.strictEqual(late.reason._tag, "PingTimeout")
      assert.match(late.message, /no answer within 2s 400ms/)
    }).pipe(Effect.provide(net)))
})
