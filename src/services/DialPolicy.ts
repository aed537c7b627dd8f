/**
 * How the addresses of one peer are dialled.
 */
import { Context, type DateTime, type Duration } from "effect"
import type { Multiaddr } from "../schema/Peer.ts"

/**
 * An address as the policy sees it.
 */
export interface DialCandidate {
  /** Ends in `/p2p/<id>`. */
  readonly address: Multiaddr
  /** When this node was last connected at the address. */
  readonly lastSuccess?: DateTime.Utc | undefined
  /** When a dial of the address last failed. */
  readonly lastFailure?: DateTime.Utc | undefined
}

/** The order and the times in which the addresses of a peer are dialled. */
export interface DialPolicyOptions {
  /**
   * Sorts the addresses of a peer; the first is dialled first. An address that it leaves out is not dialled. The input
   * has the newest address first.
   */
  readonly order: (candidates: ReadonlyArray<DialCandidate>) => ReadonlyArray<DialCandidate>
  /**
   * The delay before the next address is dialled as well, while no dial has succeeded. After a failed dial the next
   * begins at once.
   */
  readonly stagger: Duration.Input
  /**
   * How long the dial of one address may take when there are several. The whole dial, and the dial of an only address,
   * has `dialTimeout`.
   */
  readonly timeout: Duration.Input
  /** Addresses of one peer dialled at the same time. */
  readonly parallelDials: number
}

/**
 * The order of RFC 8305: the address that worked last comes first, then direct addresses, then relayed ones. In both,
 * addresses whose last dial failed come last; IPv6 and IPv4 take turns, newest first.
 */
export const defaultOrder = (candidates: ReadonlyArray<DialCandidate>): ReadonlyArray<DialCandidate> => {
  const classes = new Map<number, Array<DialCandidate>>()
  let latest: DialCandidate | undefined
  for (const candidate of candidates) {
    if (candidate.lastSuccess !== undefined && isLater(candidate.lastSuccess, latest?.lastSuccess)) latest = candidate
  }
  for (const candidate of candidates) {
    if (candidate === latest) continue
    const failed = isLater(candidate.lastFailure, candidate.lastSuccess) ? 1 : 0
    const rank = failed + (candidate.address.includes("/p2p-circuit") ? 2 : 0)
    classes.set(rank, [...classes.get(rank) ?? [], candidate])
  }
  const others = [...classes].sort(([a], [b]) => a - b).flatMap(([, members]) => interleave(members))
  return latest === undefined ? others : [latest, ...others]
}

/**
 * The default: {@link defaultOrder}, 250 ms between addresses (RFC 8305, section 5), 5 s for one of several addresses,
 * 8 dials at a time. Replace it with `Layer.succeed`.
 */
export const DialPolicy = Context.Reference<DialPolicyOptions>("codio-network/services/DialPolicy", {
  defaultValue: () => ({ order: defaultOrder, stagger: "250 millis", timeout: "5 seconds", parallelDials: 8 })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const isLater = (one: DateTime.Utc | undefined, other: DateTime.Utc | undefined): boolean =>
  one !== undefined && (other === undefined || one.epochMilliseconds > other.epochMilliseconds)

/**
 * IPv6 first, then one of each in turn, as RFC 8305 has it. If one family is broken, the other is still dialled soon.
 */
const interleave = (candidates: ReadonlyArray<DialCandidate>): ReadonlyArray<DialCandidate> => {
  const isSix = ({ address }: DialCandidate) => address.startsWith("/ip6/")
  const six = candidates.filter(isSix)
  const rest = candidates.filter((candidate) => !isSix(candidate))
  return Array.from({ length: Math.max(six.length, rest.length) }, (_, i) => [six[i], rest[i]])
    .flat()
    .filter((candidate) => candidate !== undefined)
}
