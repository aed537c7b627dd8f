/**
 * Promises about time on real sockets, of which the time is left out in which the machine did not run this process.
 */
import { Effect } from "effect"
import { until } from "./live.ts"

/** How often it looks, in milliseconds. */
const everyMillis = 10

/** Waits until the answer is yes, and gives the milliseconds that it took; a defect when these are more than was promised, or a minute. */
export const within = (what: string, limitMillis: number, question: Effect.Effect<boolean>): Effect.Effect<number> =>
  Effect.scoped(Effect.gen(function*() {
    const lost = yield* lostMillis
    const begun = performance.now()
    yield* until(question)
    const took = performance.now() - begun - lost()
    if (took < limitMillis) return took
    return yield* Effect.die(new Error(`${what}: after ${took.toFixed(0)} ms, promised within ${limitMillis} ms`))
  }))

// internal -------------------------------------------------------------------------------------------------------------------------------

/**
 * So much this process had to wait for a processor. What it computes itself is no time lost, however long it keeps a timer waiting.
 */
const lostMillis = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      const seen = { lost: 0, at: performance.now(), cpu: process.cpuUsage() }
      const timer = setInterval(() => {
        const at = performance.now()
        const { system, user } = process.cpuUsage(seen.cpu)
        seen.lost += Math.max(0, at - seen.at - everyMillis - (system + user) / 1000)
        Object.assign(seen, { at, cpu: process.cpuUsage() })
      }, everyMillis)
      return { seen, timer }
    }),
    ({ timer }) => Effect.sync(() => clearInterval(timer))
  ),
  ({ seen }) => () => seen.lost
)
