/**
 * When records are announced, and what a lookup in the DHT may cost.
 */
import { Context, type Duration, Schedule } from "effect"

/** When keys are announced again, and what a lookup may cost. */
export interface KadDhtPolicyOptions {
  /** The waits after an announcement that reached nobody. */
  readonly retry: Schedule.Schedule<unknown>
  /**
   * Its first wait, drawn once for each node, is the time between announcements that reached somebody. Servers forget a record after 24
   * hours, those of Rust and JavaScript alike.
   */
  readonly republish: Schedule.Schedule<unknown>
  /**
   * How long a lookup may take, unless its caller says otherwise. Ends `findPeer` with `QueryTimeout`, and `findProviders` as well when it
   * found nobody.
   */
  readonly findTimeout: Duration.Input
  /** How many providers a lookup gives before it ends, unless its caller says otherwise. */
  readonly maxProviders: number
  /** How long what a lookup came to, a failure included, answers for the next one of the same key. */
  readonly cacheTime: Duration.Input
}

/**
 * Announces again 1 s after a failure, doubling to 1 minute, and otherwise every 11 hours; gives a lookup 10 s and 128 providers, and keeps
 * what it came to for 5 s. Replace it with `Layer.succeed`.
 */
export const KadDhtPolicy = Context.Reference<KadDhtPolicyOptions>("codio-network/services/KadDhtPolicy", {
  defaultValue: () => ({
    retry: Schedule.min([Schedule.exponential("1 second", 2), Schedule.spaced("1 minute")]).pipe(Schedule.jittered),
    republish: Schedule.spaced("11 hours").pipe(Schedule.jittered),
    findTimeout: "10 seconds",
    maxProviders: 128,
    cacheTime: "5 seconds"
  })
})
