/**
 * An event without memory: whoever waits when it beats goes on.
 *
 * With a latch that each waiter closes, one waiter can close it before another has seen the beat. Here a waiter calls
 * `next()` first, then checks its condition, then awaits.
 */
import { Effect, Latch } from "effect"

export interface Pulse {
  /** Lets everybody go on who took `next` before. */
  readonly beat: Effect.Effect<void>
  readonly beatUnsafe: () => void
  /** The coming beat, as of this call. */
  readonly next: () => Effect.Effect<void>
}

export const make = (): Pulse => {
  let latch: Latch.Latch | undefined
  const beatUnsafe = () => {
    const former = latch
    latch = undefined
    former?.openUnsafe()
  }
  return {
    beat: Effect.sync(beatUnsafe),
    beatUnsafe,
    next: () => (latch ??= Latch.makeUnsafe(false)).await
  }
}

/**
 * Ends when the condition holds, which is asked now and after each beat.
 */
export const until = Effect.fnUntraced(function*(pulse: Pulse, condition: Effect.Effect<boolean>) {
  while (true) {
    const next = pulse.next()
    if (yield* condition) return
    yield* next
  }
})
