/**
 * How far a node is with announcing what it provides.
 */
import { Schema } from "effect"

/** What announcing all keys that were due at one time came to. */
export const ProvideCycle = Schema.Struct({
  /** When it ended. */
  at: Schema.DateTimeUtc,
  /** How long it took. */
  duration: Schema.Duration,
  /** How many keys were announced, whether or not somebody took them. */
  keys: Schema.Int,
  /** How many lookups it took. */
  lookups: Schema.Int,
  /** How many messages: a message is what is written to a peer at a time, together with the answer. */
  messages: Schema.Int
})
export type ProvideCycle = typeof ProvideCycle.Type

/**
 * The state of everything that `startProviding` began and `stopProviding` has not ended.
 */
export class ProvideStatus extends Schema.Class<ProvideStatus>("codio-network/ProvideStatus")({
  /** Keys that this node provides. */
  keys: Schema.Int,
  /** Those that wait for their announcement, or are being announced. */
  queued: Schema.Int,
  /** Those with an announcement that is alive: somebody has acknowledged a copy that has not expired. */
  announced: Schema.Int,
  /** The copies of those, as acknowledged when they were announced last: of the key with the fewest, and on average. */
  copies: Schema.Struct({ least: Schema.Int, mean: Schema.Finite }),
  /** Absent until a first cycle has ended. */
  lastCycle: Schema.optionalKey(ProvideCycle),
  /** How late the most overdue key is. */
  lag: Schema.Duration,
  /**
   * Why nothing is announced, absent while something can be.
   *
   * - `NoPeers`: there is nobody who could take a copy.
   * - `NoAddresses`: this node has no address to announce.
   * - `Isolated`: nobody who could take a copy is connected, and of those who are known none could be reached when that was tried last. It is
   *   tried again on the schedule of `KadDhtPolicy.retry`, and goes on at once with the first that is connected.
   */
  paused: Schema.optionalKey(Schema.Literals(["NoPeers", "NoAddresses", "Isolated"]))
}) {}
