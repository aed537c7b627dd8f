import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { SimClock, SimNetwork, TestNetwork } from "../../../src/testing/index.ts"

const clockOf = Effect.filterOrElse(
  Clock.Clock,
  SimClock.isSimClock,
  () => Effect.die(new Error("not the clock of this spec"))
)

describe("SimClock", () => {
  it.effect("ends sleeps in the order of their time, then of their beginning, each at its time", () =>
    Effect.gen(function*() {
      const log: Array<readonly [string, number]> = []
      const sleeps = (name: string, millis: number) =>
        Effect.forkChild(
          Effect.andThen(Effect.sleep(millis), Effect.map(Clock.currentTimeMillis, (now) => log.push([name, now])))
        )
      yield* sleeps("late", 30)
      yield* sleeps("first", 10)
      yield* sleeps("second", 10)
      yield* TestClock.adjust("9 millis")
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust("21 millis")
      assert.deepStrictEqual(log, [["first", 10], ["second", 10], ["late", 30]])
      assert.strictEqual(yield* Clock.currentTimeMillis, 30)
    }).pipe(Effect.provide(SimClock.layer)))

  it.effect("does all that follows from one wake before the next, across fibers, yields and promises", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const says = (text: string) => Effect.sync(() => log.push(text))
      const chain = Effect.gen(function*() {
        yield* Effect.sleep(1)
        yield* Fiber.join(yield* Effect.forkChild(Effect.yieldNow))
        yield* Effect.promise(() => Promise.resolve().then(() => Promise.resolve()))
        yield* Effect.yieldNow
        yield* Effect.promise(() => Promise.resolve())
        yield* says("chain")
        yield* Effect.sleep(1)
        yield* says("and on")
      })
      yield* Effect.forkChild(chain)
      yield* Effect.forkChild(Effect.andThen(Effect.sleep(1.5), says("next")))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(log, ["chain", "next", "and on"])
    }).pipe(Effect.provide(SimClock.layer)))

  it.effect("forgets a sleep that was interrupted", () =>
    Effect.gen(function*() {
      const clock = yield* clockOf
      const fibers = yield* Effect.forEach([5, 1, 4, 2, 3], (hours) => Effect.forkChild(Effect.sleep(`${hours} hours`)))
      yield* TestClock.adjust(0)
      assert.strictEqual(clock.waiting, 5)
      yield* Fiber.interrupt(fibers[1]!)
      yield* Effect.exit(Effect.timeout(Effect.never, "1 second").pipe(Effect.forkChild))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(clock.waiting, 4)
      const before = clock.wakes
      yield* TestClock.adjust("1 day")
      assert.strictEqual(clock.wakes - before, 4)
    }).pipe(Effect.provide(SimClock.layer)))

  it.effect("can be set, and gives the live clock back", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(86_400_000)
      assert.strictEqual(yield* Clock.currentTimeMillis, 86_400_000)
      assert.strictEqual(yield* Clock.currentTimeNanos, 86_400_000_000_000n)
      assert.isAbove(yield* TestClock.withLive(Clock.currentTimeMillis), 1_700_000_000_000)
    }).pipe(Effect.provide(SimClock.layer)))

  it.effect("lets the event loop have its turn in a long adjustment, so that it can be given up", () =>
    Effect.gen(function*() {
      const endless = yield* Effect.forkChild(Effect.forever(Effect.sleep(1)))
      const long = yield* Effect.forkChild(TestClock.adjust("10000 days"))
      yield* TestClock.withLive(Effect.sleep("100 millis"))
      yield* Fiber.interrupt(long)
      yield* Fiber.interrupt(endless)
      assert.isBelow(yield* Clock.currentTimeMillis, Duration.toMillis("10000 days"))
    }).pipe(Effect.provide(SimClock.layer)))

  it.effect("shows a node the same as the test clock does", () => {
    const seen = Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice", { enableMdns: true })
      const bob = yield* TestNetwork.makeNode("bob", { enableMdns: true })
      const counts: Array<number> = []
      for (let minute = 0; minute < 6; minute++) {
        yield* TestClock.adjust("1 minute")
        counts.push(yield* alice.peerCount, yield* bob.peerCount)
      }
      return counts
    }).pipe(Effect.scoped)
    const options = { latency: "10 millis", jitter: "5 millis", seed: "clocks" } as const
    return Effect.gen(function*() {
      const slow = yield* Effect.provide(seen, SimNetwork.layer(options), { local: true })
      const fast = yield* Effect.provide(seen, SimNetwork.layerWithClock(options), { local: true })
      assert.deepStrictEqual(fast, slow)
      assert.deepStrictEqual(fast.slice(0, 2), [1, 1])
    })
  })
})
