/**
 * Who makes room in a full table.
 */
import { Context, Duration } from "effect"
import type { Direction, Interest, PeerId } from "../schema/Peer.ts"
import { interestRank } from "../schema/Peer.ts"

/**
 * A connected peer that may be evicted. A kept peer, and one that this node holds by a stream of its own, is never a candidate.
 */
export interface EvictionCandidate {
  readonly id: PeerId
  readonly interest: Interest
  /** Which side dialled the connection that made it a peer. */
  readonly direction: Direction
  /** Whether it has streams open, all of them opened by the remote. */
  readonly isBusy: boolean
  /** Since its last stream ended, or since it came. */
  readonly idleDuration: Duration.Duration
  readonly connectionDuration: Duration.Duration
}

/**
 * The peer that needs the place.
 */
export interface Newcomer {
  readonly id: PeerId
  readonly interest: Interest
  readonly direction: Direction
}

/**
 * Answers who of the candidates may be evicted for the newcomer, the first one first. None: the newcomer is refused.
 *
 * Asked for each connection to a full table, in the gate and once more on admission; of the answer as many are evicted as the limit that
 * is full needs, which is one.
 */
export type EvictionRule = (
  candidates: ReadonlyArray<EvictionCandidate>,
  newcomer: Newcomer
) => ReadonlyArray<EvictionCandidate>

/**
 * The default: a wanted or kept newcomer evicts peers of lower interest, a dial of this node's own for which nobody asked (the DHT's) evicts
 * transient peers without streams, an inbound stranger nobody. The lowest interest goes first, then those without streams, then who is idle
 * the longest.
 */
export const byInterest: EvictionRule = (candidates, newcomer) => {
  const rank = interestRank(newcomer.interest)
  const isClaimed = rank >= interestRank("wanted")
  if (!isClaimed && newcomer.direction === "inbound") return []
  return candidates
    .filter(({ interest, isBusy }) => isClaimed ? interestRank(interest) < rank : interest === "transient" && !isBusy)
    .sort((a, b) =>
      interestRank(a.interest) - interestRank(b.interest) ||
      Number(a.isBusy) - Number(b.isBusy) ||
      Duration.toMillis(b.idleDuration) - Duration.toMillis(a.idleDuration)
    )
}

/**
 * The rule of a node: {@link byInterest} by default. Replace it with `Layer.succeed`.
 */
export const EvictionPolicy = Context.Reference<EvictionRule>("codio-network/services/EvictionPolicy", {
  defaultValue: () => byInterest
})
