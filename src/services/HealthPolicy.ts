/**
 * How often a peer is asked whether it is alive, and when it is given up.
 */
import { Context, type Duration, Schedule } from "effect"

/** How often a peer is pinged, and when it counts as dead. */
export interface HealthPolicyOptions {
  /** The time from the end of one ping to the start of the next. */
  readonly probe: Schedule.Schedule<unknown>
  /** How long an answer may take, unless the peer moves other bytes meanwhile. Counts only time in which this process ran. */
  readonly timeout: Duration.Input
  /** Misses in a row that close the connection. A miss is asked again at once. */
  readonly maxFailures: number
}

/**
 * Pings that notice a dead peer within 10 s: every 4 s (jittered, so 4.8 s at most), 2.4 s to answer, closed after two misses, and
 * 0.25 s more where the remote is frozen: 9.85 s at most. {@link fast} notices within 3 s. Replace it with `Layer.succeed`.
 */
export const HealthPolicy = Context.Reference<HealthPolicyOptions>("codio-network/services/HealthPolicy", {
  defaultValue: () => ({
    probe: Schedule.spaced("4 seconds").pipe(Schedule.jittered),
    timeout: "2400 millis",
    maxFailures: 2
  })
})

/** Notices a dead peer within 3 s, for five times the pings. */
export const fast: HealthPolicyOptions = {
  probe: Schedule.spaced("800 millis").pipe(Schedule.jittered),
  timeout: "850 millis",
  maxFailures: 2
}
