import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Elapsed from "../../src/layers/Elapsed.ts"
import * as StallingClock from "../support/StallingClock.ts"

describe("Elapsed", () => {
  it.effect("measures what passes, whatever the wall clock shows", () =>
    Effect.gen(function*() {
      const { clock, leap } = yield* StallingClock.make
      const begin = Elapsed.millisUnsafe(clock)
      yield* leap("-1 hour")
      yield* TestClock.adjust("1500 micros")
      assert.strictEqual(Elapsed.millisUnsafe(clock) - begin, 1.5)
    }))

  it.effect("makes dates of times by the wall clock as it is now, and times of dates", () =>
    Effect.gen(function*() {
      const { clock, leap } = yield* StallingClock.make
      yield* TestClock.adjust("1 minute")
      const at = Elapsed.millisUnsafe(clock)
      yield* TestClock.adjust("1 minute")
      yield* leap("1 hour")
      const date = Elapsed.dateOf(clock, at)
      assert.strictEqual(DateTime.formatIso(date), "1970-01-01T01:01:00.000Z")
      assert.strictEqual(Elapsed.timeOf(clock, date), at)
    }))

  it.effect("with sleep begins with the time of day, goes ahead with it, and never back", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(7_200_000)
      const { clock, leap } = yield* StallingClock.make
      const now = Elapsed.withSleep(clock)
      const begin = clock.currentTimeMillisUnsafe()
      const passed = () => now() - begin
      assert.strictEqual(passed(), 0)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(passed(), 60_000)
      yield* leap("1 hour")
      assert.strictEqual(passed(), 3_660_000)
      yield* leap("-1 hour")
      assert.strictEqual(passed(), 3_660_000)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(passed(), 3_720_000)
      // Clocks that are adjusted a little run on.
      for (const by of ["900 millis", "-900 millis", "900 millis"] as const) yield* leap(by)
      assert.strictEqual(passed(), 3_720_000)
    }))
})
