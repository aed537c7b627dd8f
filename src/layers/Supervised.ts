/**
 * Background work that no defect ends in silence.
 *
 * A fiber that nobody waits for dies unseen: a policy that throws would end the redialling of a kept peer for ever.
 * Work that runs here goes on after a defect, which is logged with its cause once and counted.
 */
import { Cause, Duration, Effect, type Fiber, FiberMap, FiberSet, Layer, Metric, type Scope } from "effect"
import { Defects } from "../services/Defects.ts"
import * as NetworkMetrics from "../services/NetworkMetrics.ts"
import { BoundedMap } from "./BoundedMap.ts"

/** How many different defects are remembered, so that each is logged once. */
const loggedMax = 256

const firstMillis = 1_000
const longestMillis = 60_000

/** The wait after so many defects in a row: 1 s, doubling to 1 minute. */
export const waitAfter = (defects: number): Duration.Duration =>
  Duration.millis(Math.min(longestMillis, firstMillis * 2 ** Math.min(16, defects - 1)))

/**
 * Runs work once. A defect ends this one run: for the events of a pump, the runs of a schedule, and what a callback of
 * libp2p starts.
 */
export const once = <A, R>(name: string, work: Effect.Effect<A, never, R>): Effect.Effect<void, never, R> =>
  Effect.catchCause(
    Effect.asVoid(work),
    (cause) => isDefect(cause) ? report(name, cause) : Effect.failCause(cause)
  )

/**
 * Runs work until it ends by itself. After a defect it begins anew, after 1 s, doubling to 1 minute; work that ran for
 * a minute earns the shortest wait again.
 */
export const lasting = <A, R>(name: string, work: Effect.Effect<A, never, R>): Effect.Effect<void, never, R> =>
  Effect.gen(function*() {
    let defects = 0
    while (true) {
      const [ran, cause] = yield* Effect.timed(Effect.catchCause(Effect.as(work, undefined), Effect.succeed))
      if (cause === undefined) return
      if (!isDefect(cause)) return yield* Effect.failCause(cause)
      defects = Duration.toMillis(ran) >= longestMillis ? 1 : defects + 1
      yield* report(name, cause)
      yield* Effect.sleep(waitAfter(defects))
    }
  })

/** Repeats work without end while the scope lives, as {@link lasting} does after a defect. */
export const forever = <A, R>(
  name: string,
  work: Effect.Effect<A, never, R>
): Effect.Effect<void, never, R | Scope.Scope> =>
  // `Effect.forever` lets other fibers run between two rounds. `TestClock` gives fibers one turn to fall asleep before
  // it moves on: with that pause the next round would set its timer a turn too late, and the timer would end too late.
  // No round needs the pause, since the work waits in each round by itself.
  Effect.asVoid(
    Effect.forkScoped(lasting(name, Effect.forever(work, { disableYield: true })), { startImmediately: true })
  )

/** Runs work in the background while the scope lives, as {@link lasting} does. */
export const fork = <A, R>(
  name: string,
  work: Effect.Effect<A, never, R>
): Effect.Effect<void, never, R | Scope.Scope> =>
  Effect.asVoid(Effect.forkScoped(lasting(name, work), { startImmediately: true }))

/** Starts work in the scope from code that is no effect, such as a callback; each piece runs {@link once}. */
export const makeRun = <R = never>(
  name: string
): Effect.Effect<(work: Effect.Effect<unknown, never, R>) => Fiber.Fiber<void>, never, R | Scope.Scope> =>
  Effect.map(FiberSet.makeRuntime<R, void, never>(), (run) => (work) => run(once(name, work)))

/** Starts work in the scope, each piece of which runs {@link once}. */
export const makeSet = Effect.fnUntraced(function*(name: string) {
  const fibers = yield* FiberSet.make<void, never>()
  const here = yield* told
  return <R>(work: Effect.Effect<unknown, never, R>) => FiberSet.run(fibers, here(once(name, work)))
})

/** Work of which there is one piece for each key. */
export const makeMap = Effect.fnUntraced(function*<K>(name: string) {
  const fibers = yield* FiberMap.make<K, void, never>()
  const here = yield* told
  return {
    has: (key: K) => FiberMap.hasUnsafe(fibers, key),
    size: FiberMap.size(fibers),
    /** Interrupts the work of the key, if there is any. */
    remove: (key: K) => FiberMap.remove(fibers, key),
    /** Starts the work {@link once}, unless a piece with the key runs. */
    run: <R>(key: K, work: Effect.Effect<unknown, never, R>) =>
      FiberMap.run(fibers, key, here(once(name, work)), { onlyIfMissing: true })
  }
})

/**
 * Makes work tell its defects to the node that this is run in. Needed where the fiber of a caller starts the work: an
 * operation of `Network` runs in the context of its caller.
 */
export const told = Effect.map(
  Defects,
  (defects) => <A, E, R>(work: Effect.Effect<A, E, R>) => Effect.provideService(work, Defects, defects)
)

/** Counts the defects of a node, and logs each of them once. */
export const layer: Layer.Layer<never> = Layer.sync(Defects, () => {
  const logged = new BoundedMap<string, true>(loggedMax)
  let count = 0
  return {
    report: (work, cause) =>
      Effect.suspend(() => {
        count++
        const text = `${work}: ${String(Cause.squash(cause))}`
        const isNew = !logged.has(text)
        logged.set(text, true)
        return Effect.andThen(
          Metric.update(Metric.withAttributes(NetworkMetrics.defects, { work }), 1),
          isNew ? Effect.logError(`a defect in the work "${work}", which goes on`, cause) : Effect.void
        )
      }),
    count: Effect.sync(() => count)
  }
})

/** Whether something died that was not only interrupted. */
export const isDefect = (cause: Cause.Cause<unknown>): boolean => Cause.hasDies(cause)

/** Logs the defect once, and counts it. Its log line is all that can be done when logging itself dies. */
export const report = (name: string, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Effect.flatMap(Defects, (defects) => Effect.ignoreCause(defects.report(name, cause)))
