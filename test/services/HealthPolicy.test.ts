import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Schedule, Scope } from "effect"
import { TestClock } from "effect/testing"
import { fast, HealthPolicy, type HealthPolicyOptions } from "../../src/services/HealthPolicy.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../src/testing/TestNetwork.ts"

/**
 * How long it takes until a remote that falls silent is gone, in milliseconds: for each of so many moments at which it
 * does.
 */
const noticed = (policy: HealthPolicyOptions | undefined, moments: number) =>
  Effect.gen(function*() {
    const network = yield* SimNetwork
    const alice = yield* TestNetwork.makeNode("alice").pipe(
      policy === undefined ? (node) => node : Effect.provideService(HealthPolicy, policy)
    )
    const took: Array<number> = []
    for (let moment = 0; moment < moments; moment++) {
      const scope = yield* Scope.make()
      // It pings too seldom to notice anything itself.
      const bob = yield* TestNetwork.makeNode(`bob-${moment}`).pipe(
        Effect.provideService(HealthPolicy, { probe: Schedule.spaced("1 hour"), timeout: "1 hour", maxFailures: 1 }),
        Scope.provide(scope)
      )
      yield* TestNetwork.connected(alice, bob)
      yield* TestClock.adjust(Duration.millis(1000 + moment * 97))
      yield* network.blackhole(bob)
      const begun = yield* Clock.currentTimeMillis
      while ((yield* alice.peerCount) > 0) yield* TestClock.adjust("10 millis")
      took.push((yield* Clock.currentTimeMillis) - begun)
      yield* alice.disconnect(bob.localPeer)
      yield* network.kill(bob)
    }
    return took
  }).pipe(Effect.provide(SimNetwork.layer({ latency: "20 millis" })))

describe("HealthPolicy", () => {
  it.effect("notices a silent peer within 10 seconds, whenever it falls silent", () =>
    Effect.gen(function*() {
      const took = yield* noticed(undefined, 60)
      // 0.25 s of the bound are for closing the connection of a frozen remote, which costs nothing here.
      assert.isAtMost(Math.max(...took), 9_650)
      assert.isAtLeast(Math.min(...took), 4_750)
    }))

  it.effect("notices it within 3 seconds with the fast policy", () =>
    Effect.gen(function*() {
      const took = yield* noticed(fast, 60)
      assert.isAtMost(Math.max(...took), 2_710)
      assert.isAtLeast(Math.min(...took), 1_650)
    }))

  it.effect("is followed when another policy replaces it", () =>
    Effect.gen(function*() {
      const took = yield* noticed({ probe: Schedule.spaced("1 minute"), timeout: "5 seconds", maxFailures: 3 }, 10)
      for (const millis of took) {
        assert.isAtLeast(millis, 15_000)
        assert.isAtMost(millis, 75_050)
      }
    }))
})
