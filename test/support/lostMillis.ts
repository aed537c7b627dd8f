/** For how long a busy machine did not run this process. */
import { Effect } from "effect"

/** How often it looks, in milliseconds. */
const everyMillis = 10

/** How late a timer is on an idle machine. */
const lateMillis = 5

/**
 * How long this process has waited for a processor since the effect ran. Its own computations do not count, however
 * long they keep a timer waiting.
 */
export const lostMillis = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      const seen = { lost: 0, at: performance.now(), cpu: process.cpuUsage() }
      const timer = setInterval(() => {
        const at = performance.now()
        const { system, user } = process.cpuUsage(seen.cpu)
        const waited = at - seen.at - everyMillis - (system + user) / 1000
        if (waited > lateMillis) seen.lost += waited
        Object.assign(seen, { at, cpu: process.cpuUsage() })
      }, everyMillis)
      return { seen, timer }
    }),
    ({ timer }) => Effect.sync(() => clearInterval(timer))
  ),
  ({ seen }) => () => seen.lost
)
