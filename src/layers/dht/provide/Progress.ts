/**
 * The stream behind `provideStatus`. The state is computed when a reader asks for it, not kept up to date for nobody.
 */
import { Effect, Equal, Queue, Stream } from "effect"
import type { ProvideStatus } from "../../../schema/ProvideStatus.ts"

/** Changes within this time are shown as one. */
const coalescing = "100 millis"

/** How often the state is read while keys are overdue: their lag grows without any change. */
const lagInterval = "5 seconds"

/** How often it is read otherwise: keys become due and copies expire without any change. */
const idleInterval = "1 minute"

export interface Progress {
  /** Says that the state has changed. */
  readonly changed: () => void
  readonly status: Stream.Stream<ProvideStatus>
}

/**
 * `read` gives the state as it stands.
 */
export const make = (read: Effect.Effect<ProvideStatus>): Progress => {
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
      let last: ProvideStatus | undefined
      const next = Effect.gen(function*() {
        for (let told = last;;) {
          if (told !== undefined) {
            yield* Effect.timeoutOption(Queue.take(news), told.queued > 0 ? lagInterval : idleInterval)
            yield* Effect.sleep(coalescing)
            yield* Queue.clear(news)
          }
          const status = yield* read
          if (!Equal.equals(status, told)) return last = told = status
        }
      })
      return Stream.fromEffectRepeat(next)
    }))
  }
}
