/**
 * Lookups that those who ask for the same key at the same time share, and whose outcome answers for a short while.
 *
 * A lookup runs for as long as somebody reads it: the last reader that stops ends it. A reader that comes in the middle is given what has
 * been found so far at once.
 */
import { Cache, type Duration, Effect, Exit, Queue, RcMap, type Scope, Stream } from "effect"
import * as Pulse from "./Pulse.ts"

export interface SharedLookupsOptions<K, A, E> {
  /** One lookup; hands over what it finds as it comes. Interrupted when nobody reads it any more. */
  readonly lookup: (key: K, found: (some: ReadonlyArray<A>) => void) => Effect.Effect<void, E>
  /** How long the outcome of a lookup answers for the next. */
  readonly cacheTime: Duration.Input
  /** Whether a failure answers as well. */
  readonly isCached: (error: E) => boolean
}

export interface SharedLookups<K, A, E> {
  /** What a lookup finds, several at once where they came at once. Ends with it. */
  readonly find: (key: K) => Stream.Stream<A, E>
  /** Forgets those that found nothing: what made them may have changed. */
  readonly forgetEmpty: Effect.Effect<void>
}

/** How many outcomes are kept. */
const outcomesMax = 1024

export const make = Effect.fnUntraced(function*<K, A, E>(
  options: SharedLookupsOptions<K, A, E>
): Effect.fn.Return<SharedLookups<K, A, E>, never, Scope.Scope> {
  const outcomes = yield* Cache.make<K, Outcome<A, E>>({
    capacity: outcomesMax,
    timeToLive: options.cacheTime,
    // Asked only for what is there; see `find`.
    lookup: () => Effect.never
  })
  // Started again by whatever changes meanwhile, so that an outcome of before does not answer after.
  let epoch = 0

  const flights: RcMap.RcMap<K, Flight<A, E>> = yield* RcMap.make({
    lookup: Effect.fnUntraced(function*(key: K) {
      const flight: Flight<A, E> = { found: [], changed: Pulse.make(), exit: undefined }
      const began = epoch
      yield* options.lookup(key, (some) => {
        if (some.length === 0) return
        flight.found.push(...some)
        flight.changed.beatUnsafe()
      }).pipe(
        Effect.onExit((exit) => {
          flight.exit = exit
          const { found } = flight
          const isCached = Exit.isSuccess(exit)
            ? found.length > 0 || began === epoch
            : began === epoch && !Exit.hasInterrupts(exit) && isTold(exit, options.isCached)
          return Effect.all([
            isCached ? Cache.set(outcomes, key, { found, exit }) : Effect.void,
            // Whoever comes now asks anew, once the outcome answers no more. One that is cut off has left the map, and another may be in it.
            Exit.hasInterrupts(exit) ? Effect.void : RcMap.invalidate(flights, key),
            flight.changed.beat
          ], { discard: true })
        }),
        Effect.forkScoped
      )
      return flight
    })
  })

  const follow = (key: K) =>
    Stream.callback<A, E>(Effect.fnUntraced(function*(queue) {
      const flight = yield* RcMap.get(flights, key)
      let taken = 0
      while (true) {
        const next = flight.changed.next()
        if (taken < flight.found.length) Queue.offerAllUnsafe(queue, flight.found.slice(taken))
        taken = flight.found.length
        if (flight.exit !== undefined) {
          return yield* Exit.isSuccess(flight.exit) ? Queue.end(queue) : Queue.failCause(queue, flight.exit.cause)
        }
        yield* next
      }
    }))

  return {
    find: (key) =>
      Stream.unwrap(Effect.map(Cache.getSuccess(outcomes, key), (known) => {
        if (known._tag === "None") return follow(key)
        const { exit, found } = known.value
        const all = Stream.fromArray(found)
        return Exit.isSuccess(exit) ? all : Stream.concat(all, Stream.failCause(exit.cause))
      })),
    forgetEmpty: Effect.suspend(() => {
      epoch++
      return Effect.flatMap(
        Cache.entries(outcomes),
        (entries) =>
          Effect.forEach(
            entries,
            ([key, { exit, found }]) =>
              found.length === 0 || Exit.isFailure(exit) ? Cache.invalidate(outcomes, key) : Effect.void,
            {
              discard: true
            }
          )
      )
    })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Outcome<A, E> {
  readonly found: ReadonlyArray<A>
  readonly exit: Exit.Exit<void, E>
}

/** A lookup that runs, and what it has found. */
interface Flight<A, E> {
  readonly found: Array<A>
  readonly changed: Pulse.Pulse
  exit: Exit.Exit<void, E> | undefined
}

function isTold<E>(exit: Exit.Exit<void, E>, isCached: (error: E) => boolean): boolean {
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && isCached(error.value)
}
