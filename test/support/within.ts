/** Checks promises about time on real sockets, without the time in which the machine did not run this process. */
import { Effect } from "effect"
import { until } from "./live.ts"
import { lostMillis } from "./lostMillis.ts"

/**
 * Waits until the answer is yes, and gives the milliseconds that it took; a defect when these are more than was
 * promised, or {@link patience}.
 */
export const within = (what: string, limitMillis: number, question: Effect.Effect<boolean>): Effect.Effect<number> =>
  Effect.scoped(Effect.gen(function*() {
    const lost = yield* lostMillis
    const begun = performance.now()
    yield* until(question)
    const took = performance.now() - begun - lost()
    if (took < limitMillis) return took
    return yield* Effect.die(new Error(`${what}: after ${took.toFixed(0)} ms, promised within ${limitMillis} ms`))
  }))
