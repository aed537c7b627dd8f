/**
 * Which peers make room in a full table.
 */
import { Context, Duration } from "effect"
import type { Direction, Interest, PeerId } from "../schema/Peer.ts"
import { interestRank } from "../schema/Peer.ts"

/**
 * A connected peer that may be evicted. Kept peers, and peers to which this node has a stream open, are never
 * candidates.
 */
export interface EvictionCandidate {
  readonly id: PeerId
  readonly interest: Interest
  /** Which side dialled the connection that made it a peer. */
  readonly direction: Direction
  /** Whether the peer has streams open. The remote opened all of them. */
  readonly isBusy: boolean
  /** The time since the peer's last stream ended or, if it had none, since it connected. */
  readonly idleDuration: Duration.Duration
  readonly connectionDuration: Duration.Duration
}

/** The peer that needs a slot. */
export interface Newcomer {
  readonly id: PeerId
  readonly interest: Interest
  readonly direction: Direction
}

/**
 * Answers which candidates may be evicted for the newcomer, in order. If none, the newcomer is refused.
 *
 * Asked for each connection to a full table: in the gate, and once more on admission. As many peers are evicted as the
 * full limit needs, which is one.
 */
export type EvictionRule = (
  candidates: ReadonlyArray<EvictionCandidate>,
  newcomer: Newcomer
) => ReadonlyArray<EvictionCandidate>

/**
 * The default. A wanted or kept newcomer evicts peers of lower interest. A dial by this node that nobody asked for (one
 * of the DHT's) evicts transient peers without streams. An inbound stranger evicts nobody.
 *
 * Peers of the lowest interest go first, then those without streams, then those that are idle for longest.
 */
export const byInterest: EvictionRule = (candidates, newcomer) => {
  const rank = interestRank(newcomer.interest)
  const isWanted = rank >= interestRank("wanted")
  if (!isWanted && newcomer.direction === "inbound") return []
  return candidates
    .filter(({ interest, isBusy }) => isWanted ? interestRank(interest) < rank : interest === "transient" && !isBusy)
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
