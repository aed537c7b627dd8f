/**
 * The stream behind `provideStatus`: a state that is read when somebody wants to see it, and not kept up to date for nobody.
 */
import { Clock, Effect, Equal, Queue, Stream } from "effect"
import type { ProvideStatus } from "../../../schema/ProvideStatus.ts"

/** The time in which several changes are one. */
export const coalescing = "100 millis"

/** How often an overdue queue is looked at, since its lag grows without any news. */
export const lagInterval = "5 seconds"

/** How often the rest is, since keys become due and copies expire without any news. */
export const idleInterval = "1 minute"

export interface ProvideProgress {
  /** Says that the state has changed. */
  readonly changed: () => void
  readonly status: Stream.Stream<ProvideStatus>
}

/**
 * `read` gives the state as it stands at a time, in milliseconds since the epoch.
 */
export const make = (read: (now: number) => ProvideStatus): ProvideProgress => {
  const readers = new Set<Queue.Queue<void>>()
  return {
    changed() {
      for (const reader of readers) Queue.offerUnsafe(reader, void 0)
    },
    status: Stream.unwrap(Effect.gen(function*() {
      const news = yield* Effect.acquireRelease(
        Effect.tap(Queue.sliding<void>(1), (news) => Effect.sync(() => readers.add(news))),
        (news) => Effect.sync(() => readers.delete(news))
      )
      const state = Effect.map(Clock.currentTimeMillis, read)
      let last: ProvideStatus | undefined
      const next = Effect.gen(function*() {
        for (let told = last;;) {
          if (told !== undefined) {
            yield* Effect.timeoutOption(Queue.take(news), told.queued > 0 ? lagInterval : idleInterval)
            yield* Effect.sleep(coalescing)
            yield* Queue.clear(news)
          }
          const status = yield* state
          if (!Equal.equals(status, told)) return last = told = status
        }
      })
      return Stream.fromEffectRepeat(next)
    }))
  }
}
