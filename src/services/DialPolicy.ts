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
  /** When a connection to it stood last. */
  readonly lastSuccess?: DateTime.Utc | undefined
  /** When a dial of it failed last. */
  readonly lastFailure?: DateTime.Utc | undefined
}

/** The order and the times in which the addresses of a peer are dialled. */
export interface DialPolicyOptions {
  /** Sorts the addresses of a peer, of which the first is dialled first; what it leaves out is not dialled. Given newest first. */
  readonly order: (candidates: ReadonlyArray<DialCandidate>) => ReadonlyArray<DialCandidate>
  /** How long after one address the next is dialled too, while none has answered; at once after one that failed. */
  readonly stagger: Duration.Input
  /** How long one of several addresses may take. The whole dial, and that of an only address, has `NetworkConfig.dialTimeout`. */
  readonly timeout: Duration.Input
  /** Addresses of one peer dialled at the same time. */
  readonly parallelDials: number
}

/**
 * The order of RFC 8305 applied to what a node knows: the address that worked last, then direct before relayed, those whose last dial failed
 * behind the others, IPv6 and IPv4 in turn, and newest first among equals.
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
    const place = failed + (candidate.address.includes("/p2p-circuit") ? 2 : 0)
    classes.set(place, [...classes.get(place) ?? [], candidate])
  }
  const others = [...classes].sort(([a], [b]) => a - b).flatMap(([, members]) => interleave(members))
  return latest === undefined ? others : [latest, ...others]
}

/**
 * The default: {@link defaultOrder}, 250 ms between addresses (RFC 8305, section 5), 5 s for one of several, 8 at a time. Replace it with
 * `Layer.succeed`.
 */
export const DialPolicy = Context.Reference<DialPolicyOptions>("codio-network/services/DialPolicy", {
  defaultValue: () => ({ order: defaultOrder, stagger: "250 millis", timeout: "5 seconds", parallelDials: 8 })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const isLater = (one: DateTime.Utc | undefined, other: DateTime.Utc | undefined): boolean =>
  one !== undefined && (other === undefined || one.epochMilliseconds > other.epochMilliseconds)

/** IPv6 first, then one of each in turn, as RFC 8305 has it, so that one broken family delays nobody. */
const interleave = (candidates: ReadonlyArray<DialCandidate>): ReadonlyArray<DialCandidate> => {
  const isSix = ({ address }: DialCandidate) => address.startsWith("/ip6/")
  const six = candidates.filter(isSix)
  const rest = candidates.filter((candidate) => !isSix(candidate))
  return Array.from({ length: Math.max(six.length, rest.length) }, (_, i) => [six[i], rest[i]])
    .flat()
    .filter((candidate) => candidate !== undefined)
}
