/**
 * The progress of announcing what a node provides.
 */
import { Schema } from "effect"
import { plain } from "./Json.ts"

/** One cycle: the announcement of all keys that were due at one time. */
export const ProvideCycle = Schema.Struct({
  /** When the cycle ended. */
  at: Schema.DateTimeUtc,
  /** How long the cycle took. */
  duration: Schema.Duration,
  /** How many keys were announced, whether or not a peer took them. */
  keys: Schema.Int,
  /** How many lookups the cycle took. */
  lookups: Schema.Int,
  /** How many messages were sent. A message is what is written to a peer at a time, together with the answer. */
  messages: Schema.Int
})
export type ProvideCycle = typeof ProvideCycle.Type

/**
 * The state of everything that `startProviding` began and `stopProviding` has not ended.
 */
export class ProvideStatus extends Schema.Class<ProvideStatus>("codio-network/ProvideStatus")({
  /** Keys that this node provides. */
  keys: Schema.Int,
  /** Keys that wait for their announcement, or are being announced. */
  queued: Schema.Int,
  /** Keys with an announcement in force: a peer has acknowledged a copy, and the copy has not expired. */
  announced: Schema.Int,
  /**
   * Announced keys that are crowded: the nodes closest to the key are nearer to it than chance allows, so somebody may
   * have made their ids, to hide the key. Copies are kept with other nodes, too.
   */
  crowded: Schema.Int,
  /** The acknowledged copies of the announced keys: of the key with the fewest copies, and on average. */
  copies: Schema.Struct({ least: Schema.Int, mean: Schema.Finite }),
  /** The last cycle that ended. Absent before. */
  lastCycle: Schema.optionalKey(ProvideCycle),
  /** How late the most overdue key is. */
  lag: Schema.Duration,
  /**
   * Why nothing is announced. Absent while announcing goes on.
   *
   * - `NoPeers`: no peer is known that could take a copy.
   * - `NoAddresses`: this node has no address to announce.
   * - `Isolated`: no peer that could take a copy is connected, and none of those known could be reached at the last
   *   try. The node tries again on the schedule of `KadDhtPolicy.retry`, and goes on at once when such a peer connects.
   */
  paused: Schema.optionalKey(Schema.Literals(["NoPeers", "NoAddresses", "Isolated"]))
}) {
  /** As `JSON.stringify` prints it: durations as `...Millis`, times as ISO 8601. */
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}
