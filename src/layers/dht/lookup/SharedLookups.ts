/**
 * Lookups shared by callers that ask for the same key at the same time, with a short cache of their outcomes.
 *
 * A lookup runs while it has readers: when the last reader stops, the lookup ends. A reader that joins in the middle
 * is given at once what has been found so far.
 */
import { type Cause, Clock, Duration, Effect, Exit, Queue, RcMap, type Scope, Stream } from "effect"
import { BoundedMap } from "../../BoundedMap.ts"
import * as Elapsed from "../../Elapsed.ts"

export interface SharedLookupsOptions<K, A, E> {
  /** One lookup; hands over what it finds as it comes. Interrupted when its last reader stops. */
  readonly lookup: (key: K, found: (some: ReadonlyArray<A>) => void) => Effect.Effect<void, E>
  /** How long the outcome of a lookup is cached for the next. */
  readonly cacheTime: Duration.Input
  /** Whether a failure is cached as well. */
  readonly isCached: (error: E) => boolean
}

/** How long a reader reads a lookup. */
export interface SharedLookupsReader<E> {
  readonly after: Duration.Input
  /** How the reader ends when nothing has been found by then. When something has been found, it just ends. */
  readonly late: () => Effect.Effect<void, E>
}

export interface SharedLookups<K, A, E> {
  /** What a lookup finds, in the chunks in which it came. Ends with the lookup, or when the reader's time is over. */
  readonly find: (key: K, reader?: SharedLookupsReader<E>) => Stream.Stream<A, E>
  /** Forgets the outcomes that found nothing: the reason may have gone. */
  readonly forgetEmpty: Effect.Effect<void>
}

/** How many outcomes are cached. */
const outcomesMax = 1024

export const make = Effect.fnUntraced(function*<K, A, E>(
  options: SharedLookupsOptions<K, A, E>
): Effect.fn.Return<SharedLookups<K, A, E>, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const cacheMillis = Duration.toMillis(Duration.fromInputUnsafe(options.cacheTime))
  // No `Cache` of effect, whose entries expire by the wall clock.
  const outcomes = new BoundedMap<K, Outcome<A, E>>(outcomesMax)
  const outcomeOf = (key: K) => {
    const known = outcomes.get(key)
    if (known === undefined || Elapsed.millisUnsafe(clock) < known.until) return known
    outcomes.delete(key)
    return undefined
  }
  /** Outcomes are cached for the same time, so that the oldest expire first: a failure is let go with its frames. */
  const cache = (key: K, found: ReadonlyArray<A>, exit: Exit.Exit<void, E>) => {
    const now = Elapsed.millisUnsafe(clock)
    for (const [other, { until }] of outcomes) {
      if (until > now) break
      outcomes.delete(other)
    }
    outcomes.set(key, { found, exit, until: now + cacheMillis })
  }
  // Raised by `forgetEmpty`: a lookup that began before it does not cache an empty outcome after it.
  let epoch = 0

  const flights: RcMap.RcMap<K, Flight<A, E>> = yield* RcMap.make({
    lookup: Effect.fnUntraced(function*(key: K) {
      const flight: Flight<A, E> = { found: [], readers: new Set(), exit: undefined }
      const began = epoch
      yield* options.lookup(key, (some) => {
        if (some.length === 0) return
        flight.found.push(...some)
        // Handed to the readers in this step: by the next turn of the event loop other answers are read first, which
        // takes longer.
        for (const queue of flight.readers) {
          Queue.offerAllUnsafe(queue, some)
          Queue.flushUnsafe(queue)
        }
      }).pipe(
        Effect.onExit((exit) => {
          flight.exit = exit
          const { found } = flight
          const isCached = Exit.isSuccess(exit)
            ? found.length > 0 || began === epoch
            : began === epoch && !Exit.hasInterrupts(exit) && isTold(exit, options.isCached)
          if (isCached) cache(key, found, exit)
          return Effect.all([
            // The next reader starts another lookup once the outcome has expired. An interrupted lookup has left the
            // map already, and another may have taken its key.
            Exit.hasInterrupts(exit) ? Effect.void : RcMap.invalidate(flights, key),
            Effect.sync(() => flight.readers.forEach((queue) => finish(queue, exit)))
          ], { discard: true })
        }),
        Effect.forkScoped({ startImmediately: true })
      )
      return flight
    })
  })

  const follow = (key: K, reader: SharedLookupsReader<E> | undefined) =>
    Stream.callback<A, E>(Effect.fnUntraced(function*(queue) {
      const flight = yield* RcMap.get(flights, key)
      yield* Effect.acquireRelease(
        // In one step, so that nothing is found in between.
        Effect.sync(() => {
          Queue.offerAllUnsafe(queue, flight.found)
          flight.readers.add(queue)
        }),
        () => Effect.sync(() => flight.readers.delete(queue))
      )
      if (flight.exit !== undefined) return finish(queue, flight.exit)
      if (reader === undefined) return yield* Effect.never
      yield* Effect.sleep(reader.after)
      finish(queue, flight.found.length > 0 ? Exit.void : yield* Effect.exit(reader.late()))
    }))

  return {
    find: (key, reader) =>
      Stream.suspend(() => {
        const known = outcomeOf(key)
        if (known === undefined) return follow(key, reader)
        const { exit, found } = known
        const all = Stream.fromArray(found)
        return Exit.isSuccess(exit) ? all : Stream.concat(all, Stream.failCause(exit.cause))
      }),
    forgetEmpty: Effect.sync(() => {
      epoch++
      for (const [key, { exit, found }] of outcomes) {
        if (found.length === 0 || Exit.isFailure(exit)) outcomes.delete(key)
      }
    })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Outcome<A, E> {
  readonly found: ReadonlyArray<A>
  readonly exit: Exit.Exit<void, E>
  readonly until: number
}

/** A lookup under way, and what it has found. */
interface Flight<A, E> {
  readonly found: Array<A>
  readonly readers: Set<Queue.Queue<A, E | Cause.Done>>
  exit: Exit.Exit<void, E> | undefined
}

function finish<A, E>(queue: Queue.Queue<A, E | Cause.Done>, exit: Exit.Exit<void, E>): void {
  if (Exit.isSuccess(exit)) Queue.endUnsafe(queue)
  else Queue.failCauseUnsafe(queue, exit.cause)
}

function isTold<E>(exit: Exit.Exit<void, E>, isCached: (error: E) => boolean): boolean {
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && isCached(error.value)
}
