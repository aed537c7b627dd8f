import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schedule } from "effect"
import * as Backoff from "../../src/layers/Backoff.ts"

describe("Backoff", () => {
  it.effect("gives the waits of the schedule one by one, and none when it has ended", () =>
    Effect.gen(function*() {
      const backoff = yield* Backoff.make(Schedule.exponential("1 second", 2).pipe(Schedule.upTo({ times: 3 })))
      const waits = []
      for (let i = 0; i < 4; i++) waits.push(yield* backoff.next(undefined))
      assert.deepStrictEqual(waits.map((wait) => wait && Duration.toMillis(wait)), [1000, 2000, 4000, undefined])
    }))
})
