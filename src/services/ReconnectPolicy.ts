/**
 * When a lost peer is dialled again.
 */
import { Context, Schedule } from "effect"
import type { ConnectError } from "../schema/NetworkError.ts"
import type { Interest, PeerId } from "../schema/Peer.ts"

/** The peer that a policy decides about. */
export interface KnownPeer {
  /** Absent for a kept address whose peer is not known yet. */
  readonly id?: PeerId
  readonly interest: Interest
}

/** The waits after failures: 1 s, doubling to at most 1 minute, each 80 to 120 % of that. Without end. */
export const exponentialBackoff: Schedule.Schedule<unknown> = Schedule.min([
  Schedule.exponential("1 second", 2),
  Schedule.spaced("1 minute")
]).pipe(Schedule.jittered)

/**
 * The schedule between the dials of a lost peer: 1 s, doubling to at most 1 min, each delay 80 to 120 % of that.
 * Without end for a kept peer, 8 times for a wanted one.
 *
 * A peer that was connected for 15 s is dialled again at once after a loss. A shorter connection counts as a failed
 * dial, so that a peer that comes and goes stays in its backoff. The schedule's input is the error of the last dial.
 * Replace it with `Layer.succeed`.
 */
export const ReconnectPolicy = Context.Reference<(peer: KnownPeer) => Schedule.Schedule<unknown, ConnectError>>(
  "codio-network/services/ReconnectPolicy",
  {
    defaultValue: () => (peer) =>
      peer.interest === "kept" ? exponentialBackoff : exponentialBackoff.pipe(Schedule.upTo({ times: 8 }))
  }
)
