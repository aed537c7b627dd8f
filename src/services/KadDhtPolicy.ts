/**
 * When records are announced, and what a lookup in the DHT may cost.
 */
import { Context, type Duration, Schedule } from "effect"
import { exponentialBackoff } from "./ReconnectPolicy.ts"

/** When keys are announced again, and what a lookup may cost. */
export interface KadDhtPolicyOptions {
  /** The waits after an announcement that no peer took. */
  readonly retry: Schedule.Schedule<unknown>
  /**
   * The first wait of this schedule, drawn once for each node, is the time between two announcements of a key. Servers,
   * those of Rust and JavaScript alike, forget a record after 24 hours.
   */
  readonly republish: Schedule.Schedule<unknown>
  /**
   * How long a lookup may take, unless its caller says otherwise. At the limit `findPeer` fails with `QueryTimeout`,
   * and so does `findProviders` if it has found no provider.
   */
  readonly findTimeout: Duration.Input
  /** After how many providers a lookup ends, unless its caller says otherwise. */
  readonly maxProviders: number
  /** How long the result of a lookup, or its failure, answers the next lookup for the same key. */
  readonly cacheTime: Duration.Input
}

/**
 * Announces again 1 s after a failure, doubling to 1 minute, and otherwise every 11 hours. Gives a lookup 10 s and 128
 * providers, and keeps its result for 5 s. Replace it with `Layer.succeed`.
 */
export const KadDhtPolicy = Context.Reference<KadDhtPolicyOptions>("codio-network/services/KadDhtPolicy", {
  defaultValue: () => ({
    retry: exponentialBackoff,
    republish: Schedule.spaced("11 hours").pipe(Schedule.jittered),
    findTimeout: "10 seconds",
    maxProviders: 128,
    cacheTime: "5 seconds"
  })
})
