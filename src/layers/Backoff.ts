/**
 * A schedule that its user steps by hand, where the waits between attempts are not one loop: an attempt may be started
 * by a sighting, and a backoff may outlive a connection.
 */
import { Clock, type Duration, Effect, Pull, Schedule } from "effect"

export interface Backoff<in Input> {
  /** The wait before the next attempt, counted from now; undefined when the schedule has ended. */
  readonly next: (input: Input) => Effect.Effect<Duration.Duration | undefined>
}

/** Begins the schedule anew. */
export const make = <Input>(schedule: Schedule.Schedule<unknown, Input>): Effect.Effect<Backoff<Input>> =>
  Effect.map(Schedule.toStep(schedule), (step) => ({
    next: Effect.fnUntraced(function*(input: Input) {
      const now = yield* Clock.currentTimeMillis
      return yield* step(now, input).pipe(
        Effect.map(([, delay]): Duration.Duration | undefined => delay),
        Pull.catchDone(() => Effect.succeed(undefined))
      )
    })
  }))
