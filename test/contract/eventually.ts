import { Duration, Effect } from "effect"
import { patience } from "../support/patience.ts"

/**
 * Waits until a condition holds, asking every 5 ms, for {@link patience} by default. A condition that never holds is a
 * defect that names it.
 */
export const eventually = Effect.fnUntraced(function*<E, R>(
  what: string,
  condition: Effect.Effect<boolean, E, R>,
  limit: Duration.Input = patience
) {
  const waiting = Effect.gen(function*() {
    while (!(yield* condition)) yield* Effect.sleep("5 millis")
  })
  yield* Effect.timeoutOrElse(waiting, {
    duration: limit,
    orElse: () => Effect.die(new Error(`${what}: not within ${Duration.format(Duration.fromInputUnsafe(limit))}`))
  })
})
