import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Latch, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as SharedLookups from "../../../../src/layers/dht/lookup/SharedLookups.ts"

/** Lookups that find what the spec says, when it says so. */
const makeLookups = Effect.gen(function*() {
  const state = { started: 0, running: 0 }
  let current: { found: (some: ReadonlyArray<number>) => void; end: Deferred.Deferred<void, string> } | undefined
  const lookups = yield* SharedLookups.make<string, number, string>({
    lookup: (_, found) =>
      Effect.gen(function*() {
        state.started++
        state.running++
        const end = yield* Deferred.make<void, string>()
        current = { found, end }
        yield* Deferred.await(end)
      }).pipe(Effect.ensuring(Effect.sync(() => state.running--))),
    cacheTime: "5 seconds",
    isCached: (error) => error !== "nobody"
  })
  /** Starts to read, and lets the lookup begin. */
  const read = Effect.fnUntraced(function*(key: string) {
    const seen: Array<number> = []
    const fiber = yield* Effect.forkScoped(
      Stream.runForEach(lookups.find(key), (one) => Effect.sync(() => seen.push(one))),
      { startImmediately: true }
    )
    yield* TestClock.adjust(0)
    return { seen, fiber }
  })
  return {
    lookups,
    state,
    read,
    finds: (...some: ReadonlyArray<number>) =>
      Effect.andThen(Effect.sync(() => current!.found(some)), TestClock.adjust(0)),
    ends: Effect.suspend(() => Effect.andThen(Deferred.succeed(current!.end, void 0), TestClock.adjust(0))),
    fails: (error: string) =>
      Effect.suspend(() => Effect.andThen(Deferred.fail(current!.end, error), TestClock.adjust(0)))
  }
})

describe("SharedLookups", () => {
  it.effect("runs one lookup for readers that ask at the same time, and gives a later reader what is found", () =>
    Effect.gen(function*() {
      const { ends, finds, read, state } = yield* makeLookups
      const first = yield* read("a")
      yield* finds(1, 2)
      const second = yield* read("a")
      assert.deepStrictEqual([first.seen, second.seen], [[1, 2], [1, 2]])
      yield* finds(3)
      yield* ends
      yield* Fiber.join(first.fiber)
      yield* Fiber.join(second.fiber)
      assert.deepStrictEqual([first.seen, second.seen], [[1, 2, 3], [1, 2, 3]])
      assert.strictEqual(state.started, 1)
    }))

  it.effect("hands over a find in the same step, and ends there when that is enough", () =>
    Effect.gen(function*() {
      const ask = yield* Deferred.make<void>()
      const seen: Array<number> = []
      const steps: Array<string> = []
      const lookups = yield* SharedLookups.make<string, number, never>({
        lookup: (_, found) =>
          Effect.andThen(
            Deferred.await(ask),
            Effect.sync(() => {
              found([1])
              steps.push(`read ${seen}`)
              found([2, 3])
              steps.push(`read ${seen}`)
            })
          ).pipe(Effect.andThen(Effect.never), Effect.onInterrupt(() => Effect.sync(() => steps.push("ended")))),
        cacheTime: "5 seconds",
        isCached: () => true
      })
      const reader = yield* Effect.forkScoped(
        Stream.runForEach(Stream.take(lookups.find("a"), 2), (one) => Effect.sync(() => seen.push(one))),
        { startImmediately: true }
      )
      yield* TestClock.adjust(0)
      yield* Deferred.succeed(ask, void 0)
      yield* Fiber.join(reader)
      assert.deepStrictEqual(steps, ["read 1", "read 1,2", "ended"])
    }))

  it.effect("ends the lookup with its last reader, not before", () =>
    Effect.gen(function*() {
      const { read, state } = yield* makeLookups
      const [first, second] = [yield* read("a"), yield* read("a")]
      yield* Fiber.interrupt(first.fiber)
      assert.strictEqual(state.running, 1)
      yield* Fiber.interrupt(second.fiber)
      assert.strictEqual(state.running, 0)
      // An interrupted lookup has no outcome.
      yield* read("a")
      assert.strictEqual(state.started, 2)
    }))

  it.effect("shares a lookup that begins while the one before is still ending", () =>
    Effect.gen(function*() {
      const ending = yield* Latch.make()
      let started = 0
      const lookups = yield* SharedLookups.make<string, number, never>({
        lookup: () => Effect.suspend(() => Effect.ensuring(Effect.never, ++started === 1 ? ending.await : Effect.void)),
        cacheTime: "5 seconds",
        isCached: () => true
      })
      const read = Effect.forkScoped(Stream.runDrain(lookups.find("a")), { startImmediately: true })
      const first = yield* read
      yield* TestClock.adjust(0)
      const stopped = yield* Effect.forkScoped(Fiber.interrupt(first), { startImmediately: true })
      yield* read
      yield* TestClock.adjust(0)
      yield* ending.open
      yield* Fiber.join(stopped)
      yield* read
      yield* TestClock.adjust(0)
      assert.strictEqual(started, 2)
    }))

  it.effect("caches the outcome of a lookup for 5 seconds", () =>
    Effect.gen(function*() {
      const { ends, finds, lookups, read, state } = yield* makeLookups
      yield* read("a")
      yield* finds(1)
      yield* TestClock.adjust("10 seconds")
      yield* ends
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(yield* Stream.runCollect(lookups.find("a")), [1])
      assert.strictEqual(state.started, 1)
      yield* TestClock.adjust("1 millis")
      yield* read("a")
      assert.strictEqual(state.started, 2)
    }))

  it.effect("caches a failure too, unless its cause may have passed", () =>
    Effect.gen(function*() {
      const { fails, finds, lookups, read, state } = yield* makeLookups
      const one = yield* read("a")
      yield* finds(1)
      yield* fails("timeout")
      assert.strictEqual(yield* Effect.flip(Fiber.join(one.fiber)), "timeout")
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(lookups.find("a"))), "timeout")
      assert.strictEqual(state.started, 1)
      yield* read("b")
      yield* fails("nobody")
      yield* read("b")
      assert.strictEqual(state.started, 3)
    }))

  it.effect("forgets empty outcomes when told to, also those of lookups that began before", () =>
    Effect.gen(function*() {
      const { ends, fails, finds, lookups, read, state } = yield* makeLookups
      yield* read("full")
      yield* finds(1)
      yield* ends
      yield* read("empty")
      yield* ends
      yield* read("later")
      yield* lookups.forgetEmpty
      yield* ends
      assert.strictEqual(state.started, 3)
      yield* read("full")
      assert.strictEqual(state.started, 3)
      yield* read("empty")
      yield* read("later")
      assert.strictEqual(state.started, 5)
      // A failure is as empty.
      yield* read("failed before")
      yield* fails("timeout")
      yield* read("fails after")
      yield* lookups.forgetEmpty
      yield* fails("timeout")
      assert.strictEqual(state.started, 7)
      yield* read("failed before")
      yield* read("fails after")
      assert.strictEqual(state.started, 9)
    }))

  it.effect("ends a reader whose time is over, as it says when nothing was found, and leaves other readers alone", () =>
    Effect.gen(function*() {
      const { finds, lookups, read, state } = yield* makeLookups
      const patient = yield* read("a")
      const hurried = { after: "1 second", late: () => Effect.fail("late") } as const
      const first = yield* Effect.forkChild(Effect.exit(Stream.runCollect(lookups.find("a", hurried))))
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* Fiber.join(first), Exit.fail("late"))
      yield* finds(1)
      const second = yield* Effect.forkChild(Effect.exit(Stream.runCollect(lookups.find("a", hurried))))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(second), Exit.succeed([1]))
      assert.deepStrictEqual(patient.seen, [1])
      assert.strictEqual(state.running, 1)
    }))

  it.effect("gives together what came together", () =>
    Effect.gen(function*() {
      const { finds, lookups } = yield* makeLookups
      const together = yield* Queue.unbounded<ReadonlyArray<number>>()
      yield* Effect.forkScoped(
        Stream.runForEach(Stream.chunks(lookups.find("a")), (some) => Queue.offer(together, some)),
        { startImmediately: true }
      )
      yield* TestClock.adjust(0)
      yield* finds(3, 1, 2)
      assert.deepStrictEqual(yield* Queue.take(together), [3, 1, 2])
    }))
})
