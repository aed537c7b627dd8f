/**
 * When a lost peer is dialled again.
 */
import { Context, type Duration, Effect, type Pull, Schedule } from "effect"
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
 * A peer that was connected for 15 s is dialled again at once after a loss, and from the first step on when it has said
 * that it shuts down. A shorter connection counts as a failed dial, so that a peer that comes and goes stays in its
 * backoff. A peer whose interest has changed, such as a wanted one that is kept, begins the schedule of its new
 * interest. The schedule's input is the error of the last dial. After a refusal by a table whose last slot is only
 * promised the next dial follows in 3 s, and the delays do not grow: the promise is over by then, whether it was taken
 * up or not. So at most 8 times in a row. Replace it with `Layer.succeed`.
 */
export const ReconnectPolicy = Context.Reference<(peer: KnownPeer) => Schedule.Schedule<unknown, ConnectError>>(
  "codio-network/services/ReconnectPolicy",
  {
    defaultValue: () => (peer) =>
      comingBack(
        peer.interest === "kept" ? exponentialBackoff : exponentialBackoff.pipe(Schedule.upTo({ times: 8 }))
      )
  }
)

/** Whether the dial failed only because slots are promised to other peers, at this node or at the remote. */
export const isPromised = (error: ConnectError): boolean =>
  error._tag === "PeerLimitExceeded"
    ? error.rule === "promised"
    : error._tag === "DialError" && error.reason._tag === "Refused" && error.reason.why === "promised"

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** A remote that always says that its slot is promised must not be dialled every few seconds for ever. */
const promisesMax = 8

/** A slot is promised for three seconds at most. */
const afterPromise: Schedule.Schedule<unknown> = Schedule.jittered(Schedule.spaced("3 seconds"))

/** The schedule, without its step when the error tells of a slot that is only promised. */
const comingBack = (schedule: Schedule.Schedule<unknown, ConnectError>): Schedule.Schedule<unknown, ConnectError> =>
  Schedule.fromStep(Effect.gen(function*() {
    const step = yield* Schedule.toStep(schedule)
    const soon = yield* Schedule.toStep(afterPromise)
    let promises = 0
    return (now: number, error: ConnectError): Pull.Pull<[unknown, Duration.Duration], never, unknown> => {
      promises = isPromised(error) ? promises + 1 : 0
      return promises > 0 && promises <= promisesMax ? soon(now, error) : step(now, error)
    }
  }))
