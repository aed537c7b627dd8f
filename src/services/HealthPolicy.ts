/**
 * How often a peer is pinged, and when it is given up.
 */
import { Context, type Duration, Schedule } from "effect"

/** How often a peer is pinged, and when it counts as dead. */
export interface HealthPolicyOptions {
  /** The time from the end of one ping to the start of the next. */
  readonly probe: Schedule.Schedule<unknown>
  /**
   * How long an answer may take. Time in which this process did not run does not count, and a late answer is no miss
   * while the peer moves other bytes.
   */
  readonly timeout: Duration.Input
  /** How many misses in a row close the connection. After a miss the next ping follows at once. */
  readonly maxFailures: number
}

/**
 * Notices a dead peer within 10 s: a ping every 4 s (jittered, so 4.8 s at most), 2.4 s to answer, closed after two
 * misses. A frozen remote takes 0.25 s more, 9.85 s at most. {@link fast} notices within 3 s. Replace it with
 * `Layer.succeed`.
 */
export const HealthPolicy = Context.Reference<HealthPolicyOptions>("codio-network/services/HealthPolicy", {
  defaultValue: () => ({
    probe: Schedule.spaced("4 seconds").pipe(Schedule.jittered),
    timeout: "2400 millis",
    maxFailures: 2
  })
})

/** Notices a dead peer within 3 s, with five times as many pings. */
export const fast: HealthPolicyOptions = {
  probe: Schedule.spaced("800 millis").pipe(Schedule.jittered),
  timeout: "850 millis",
  maxFailures: 2
}
