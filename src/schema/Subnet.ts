/**
 * The network of an address as text. The limits for each host and each subnet compare these texts.
 */
import { Result } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import type { Multiaddr } from "./Peer.ts"

/**
 * The IP address at which a multiaddr begins; none for a name or another kind of address. An IPv4-mapped IPv6 address
 * is the IPv4 address that it stands for: both reach the same host, so they count as the same.
 */
export const ipOf = (address: Multiaddr): NetAddress.IpAddress | undefined => {
  const [, protocol, host = ""] = address.split("/", 3)
  if (protocol !== "ip4" && protocol !== "ip6") return undefined
  const ip = NetAddress.ipFromString(host)
  return Result.isSuccess(ip) ? NetAddress.toCanonical(ip.success) : undefined
}

/**
 * The IP address at which the peer itself is reached: {@link ipOf}, but none for a relayed address, which begins with
 * the relay's.
 */
export const directIpOf = (address: Multiaddr): NetAddress.IpAddress | undefined =>
  address.includes("/p2p-circuit") ? undefined : ipOf(address)

/** The multiaddr of a host, which names no port. */
export const hostOf = (ip: NetAddress.IpAddress): Multiaddr =>
  `/ip${NetAddress.isIpv4Address(ip) ? 4 : 6}/${NetAddress.formatIp(ip)}` as Multiaddr

const subnetOfIp = (ip: NetAddress.IpAddress, prefix4: number, prefix6: number): string =>
  IpNetwork.format(IpNetwork.fromAddressUnsafe(ip, NetAddress.isIpv4Address(ip) ? prefix4 : prefix6))

/**
 * The network that the multiaddr lies in, of `prefix4` bits for IPv4 and `prefix6` bits for IPv6, in the form
 * `203.0.113.0/24` or `2001:db8:0:100::/56`. None for a name, for another kind of address, and for a relayed one.
 */
export const subnetOf = (address: Multiaddr, prefix4: number, prefix6: number): string | undefined => {
  const ip = directIpOf(address)
  return ip === undefined ? undefined : subnetOfIp(ip, prefix4, prefix6)
}

/** Whether the address is one of this machine itself, as seen from this machine. */
export const isLoopback = (address: Multiaddr): boolean => {
  const ip = ipOf(address)
  return ip !== undefined && NetAddress.isLoopback(ip)
}

/** Whether the address is reused in every network, so that no public host has it. */
export const isPrivate = (ip: NetAddress.IpAddress): boolean =>
  NetAddress.isLinkLocal(ip) ||
  (NetAddress.isIpv4Address(ip)
    ? NetAddress.isPrivate(ip) || sharedRanges.some((range) => IpNetwork.contains(range, ip))
    : NetAddress.isUniqueLocal(ip))

/**
 * The network that `maxPeersPerSubnet` counts an address in: /24 of IPv4, /56 of IPv6.
 *
 * None for a relayed connection, whose address is the relay's. None for a loopback, link-local or private address: all
 * peers in a local network, and all peers behind a proxy on this machine, share one subnet. Such a peer is inside a
 * network of this node's own, where the limit protects from nothing.
 */
export const countedNetworkOf = (address: Multiaddr): string | undefined => {
  const ip = directIpOf(address)
  return ip === undefined || NetAddress.isLoopback(ip) || isPrivate(ip) ? undefined : subnetOfIp(ip, 24, 56)
}

/** One host: an IPv4 address, or the /64 that an IPv6 host chooses its addresses from. */
export const hostNetworkOf = (address: Multiaddr): string | undefined => subnetOf(address, 32, 64)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// effect's predicates cover the ranges of private networks; a provider's NAT and a test of network equipment use these.
const sharedRanges = ["100.64.0.0/10", "198.18.0.0/15"].map(IpNetwork.fromStringUnsafe)
