/**
 * A clock for one node, over the test's clock: it can stand still, as for a process that is not scheduled, and leap, as
 * a clock that is set.
 */
import { Clock, Duration, Effect, Latch } from "effect"

export const make = Effect.gen(function*() {
  const outer = yield* Clock.Clock
  const running = yield* Latch.make(true)
  let offsetMillis = 0
  let lateMillis = 0
  const currentTimeMillisUnsafe = () => outer.currentTimeMillisUnsafe() + offsetMillis
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe,
    currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
    currentTimeNanosUnsafe: () => outer.currentTimeNanosUnsafe() + BigInt(offsetMillis) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => outer.currentTimeNanosUnsafe() + BigInt(offsetMillis) * 1_000_000n),
    monotonicTimeNanosUnsafe: () => outer.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: outer.monotonicTimeNanos,
    sleep: (duration) =>
      Effect.suspend(() => outer.sleep(Duration.sum(duration, Duration.millis(lateMillis)))).pipe(
        Effect.andThen(running.await)
      )
  }
  return {
    clock,
    /** From now on no sleep ends, though its time is over. */
    stop: running.close,
    /** Ends the sleeps whose time is over. */
    go: running.open,
    /** Sets the clock forward or back. */
    leap: (duration: Duration.Input) =>
      Effect.sync(() => {
        offsetMillis += Duration.toMillis(Duration.fromInputUnsafe(duration))
      }),
    /** From now on every sleep takes so much longer. */
    lag: (duration: Duration.Input) =>
      Effect.sync(() => {
        lateMillis = Duration.toMillis(Duration.fromInputUnsafe(duration))
      })
  }
})
