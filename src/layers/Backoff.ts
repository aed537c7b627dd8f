/**
 * A schedule that its user steps by hand, where the waits between attempts are not one loop: an attempt may be started
 * by a sighting, and a backoff may outlive a connection.
 *
 * The schedule begins with the time of day, as schedules by `Schedule.cron` expect, and never goes back.
 */
import { Clock, type Duration, Effect, Pull, Schedule } from "effect"
import * as Elapsed from "./Elapsed.ts"

export interface Backoff<in Input> {
  /** The wait before the next attempt, counted from now; undefined when the schedule has ended. */
  readonly next: (input: Input) => Effect.Effect<Duration.Duration | undefined>
}

/** Begins the schedule anew. */
export const make = <Input>(schedule: Schedule.Schedule<unknown, Input>): Effect.Effect<Backoff<Input>> =>
  Effect.gen(function*() {
    const step = yield* Schedule.toStep(schedule)
    const now = Elapsed.withSleep(yield* Clock.Clock)
    return {
      next: (input: Input) =>
        Effect.suspend(() => step(now(), input)).pipe(
          Effect.map(([, delay]): Duration.Duration | undefined => delay),
          Pull.catchDone(() => Effect.succeed(undefined))
        )
    }
  })
