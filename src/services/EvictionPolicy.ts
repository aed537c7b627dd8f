/**
 * Which peers make room in a full table.
 */
import { Context, Duration } from "effect"
import type { Direction, Interest, PeerId } from "../schema/Peer.ts"
import { interestRank } from "../schema/Peer.ts"
import type { GuestPolicyOptions } from "./GuestPolicy.ts"

/**
 * A connected peer that may be evicted. Kept peers, and peers to which this node has a stream open, are never
 * candidates.
 */
export interface EvictionCandidate {
  readonly id: PeerId
  readonly interest: Interest
  /** Which side dialled the connection that made it a peer. */
  readonly direction: Direction
  /** Whether the peer is a guest: transient here, and the remote's program keeps this node. See `GuestPolicy`. */
  readonly isGuest: boolean
  /** Whether the peer has streams open, besides those by which the remote keeps this node. The remote opened them. */
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
  newcomer: Newcomer,
  guests: GuestPolicyOptions
) => ReadonlyArray<EvictionCandidate>

/**
 * The default. A wanted or kept newcomer evicts peers of lower interest. A dial by this node that nobody asked for (one
 * of the DHT's) evicts transient peers without streams that are no guests. An inbound stranger evicts none of these.
 * Both evict guests by `GuestPolicy`: the peers of a table that is full of guests would keep it closed for ever.
 *
 * Peers of the lowest interest go first, guests after other transient ones, then those without streams, then those that
 * are idle for longest. Of guests the one that is connected for longest goes first.
 */
export const byInterest: EvictionRule = (candidates, newcomer, guests) => {
  const rank = interestRank(newcomer.interest)
  const isWanted = rank >= interestRank("wanted")
  const isFullOfGuests = candidates.filter(({ isGuest }) => isGuest).length >= guests.share * candidates.length
  const hasStayed = ({ connectionDuration }: EvictionCandidate): boolean =>
    Duration.isGreaterThanOrEqualTo(connectionDuration, Duration.fromInputUnsafe(guests.stay))
  const mayGo = (candidate: EvictionCandidate): boolean => {
    if (isWanted) return interestRank(candidate.interest) < rank
    if (candidate.interest !== "transient" || candidate.isBusy) return false
    return candidate.isGuest ? isFullOfGuests && hasStayed(candidate) : newcomer.direction === "outbound"
  }
  return candidates.filter(mayGo).sort((a, b) =>
    interestRank(a.interest) - interestRank(b.interest) ||
    Number(a.isGuest) - Number(b.isGuest) ||
    Number(a.isBusy) - Number(b.isBusy) ||
    (a.isGuest
      ? Duration.toMillis(b.connectionDuration) - Duration.toMillis(a.connectionDuration)
      : Duration.toMillis(b.idleDuration) - Duration.toMillis(a.idleDuration))
  )
}

/**
 * The rule of a node: {@link byInterest} by default. Replace it with `Layer.succeed`.
 */
export const EvictionPolicy = Context.Reference<EvictionRule>("codio-network/services/EvictionPolicy", {
  defaultValue: () => byInterest
})
