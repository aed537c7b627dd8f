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

/** The network of one owner: /24 of IPv4, /56 of IPv6. */
export const networkOf = (address: Multiaddr): string | undefined => {
  const ip = directIpOf(address)
  return ip === undefined ? undefined : networkOfIp(ip)
}

/** {@link networkOf} of an IP address. */
export const networkOfIp = (ip: NetAddress.IpAddress): string => subnetOfIp(ip, 24, 56)

/** One host: an IPv4 address, or the /64 that an IPv6 host chooses its addresses from. */
export const hostNetworkOf = (address: Multiaddr): string | undefined => subnetOf(address, 32, 64)
