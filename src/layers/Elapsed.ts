/**
 * Time that passes, in milliseconds of the monotonic clock: token buckets, backoffs, idle times and whatever expires in
 * memory are measured with it.
 *
 * The wall clock is for what people read, and for what is stored, signed or sent. It is set now and then, by hand, by
 * NTP or with a machine's new battery: measured with it, an hour that goes back refuses every host for an hour.
 */
import { Clock, DateTime, Effect } from "effect"

/** The monotonic clock. Its zero means nothing: on a real machine it is often the last boot. */
export const millisUnsafe = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/** {@link millisUnsafe} of the fiber's clock. */
export const millis: Effect.Effect<number> = Clock.clockWith((clock) => Effect.sync(() => millisUnsafe(clock)))

/**
 * The date of a time of {@link millisUnsafe}, for people. It follows from what the wall clock shows now, so two calls
 * may differ by a millisecond.
 */
export const dateOf = (clock: Clock.Clock, at: number): DateTime.Utc =>
  DateTime.makeUnsafe(Math.floor(clock.currentTimeMillisUnsafe() - (millisUnsafe(clock) - at)))

/** The time of {@link millisUnsafe} at which a date is or was; negative when that was before the clock's zero. */
export const timeOf = (clock: Clock.Clock, date: DateTime.Utc): number =>
  date.epochMilliseconds - clock.currentTimeMillisUnsafe() + millisUnsafe(clock)

/**
 * A clock that begins with the time of day, never goes back, and counts the time in which the machine slept, for which
 * the monotonic clock stands still on some systems.
 *
 * Only the wall clock shows that the machine slept. So a wall clock that is set ahead counts as a sleep, and one that
 * is set back as nothing. For what does no harm when it comes early: to renew, and to look again.
 */
export const withSleep = (clock: Clock.Clock): () => number => {
  const aheadOf = (elapsed: number) => clock.currentTimeMillisUnsafe() - elapsed
  const begin = aheadOf(millisUnsafe(clock))
  let ahead = begin
  let slept = 0
  return () => {
    const elapsed = millisUnsafe(clock)
    const leap = aheadOf(elapsed) - ahead
    // The two clocks round in different ways, and drift.
    if (Math.abs(leap) >= 1_000) {
      ahead += leap
      slept += Math.max(0, leap)
    }
    return begin + elapsed + slept
  }
}
