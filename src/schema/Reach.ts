/**
 * What an address reaches: the whole internet, a network in which its numbers are reused, this machine, or nobody.
 *
 * The ranges are those of the special-purpose registries of IANA for IPv4 and IPv6 (RFC 6890). A range counts as public
 * only where the registry says "globally reachable".
 */
import { Result } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import type { Multiaddr } from "./Peer.ts"

/**
 * - `public`: the same host from everywhere.
 * - `local`: reused in many networks, or without a host at all: private, link-local, documentation, benchmarking.
 * - `loopback`: the machine that dials.
 * - `nowhere`: no single host: unspecified, multicast, broadcast, reserved.
 */
export type Reach = "public" | "local" | "loopback" | "nowhere"

/** What an IP address reaches by its own range. What an IPv6 address stands for is a question for {@link reached}. */
export const reachOf = (ip: NetAddress.IpAddress): Reach => {
  if (isIn(nowhere, ip)) return "nowhere"
  if (isIn(loopback, ip)) return "loopback"
  return isIn(local, ip) && !isIn(publicWithinLocal, ip) ? "local" : "public"
}

/**
 * The addresses that a packet to this address reaches: the IPv4 address that it stands for, or itself. An ISATAP
 * address is both, since its prefix is routed as well. The prefixes are those of RFC 4291 (mapped, compatible), 2765
 * (translated), 6052 (NAT64), 3056 (6to4) and 5214 (ISATAP).
 *
 * Gotchas
 * - A network may have a NAT64 prefix of its own, which looks like any other address.
 */
export const reached = (ip: NetAddress.IpAddress): ReadonlyArray<NetAddress.IpAddress> => {
  if (NetAddress.isIpv4Address(ip) || NetAddress.isUnspecified(ip) || NetAddress.isLoopback(ip)) return [ip]
  const [a, b, c, d, e, f, g, h] = NetAddress.ipv6ToSegments(ip)
  const last = () => ipv4Of(g, h)
  if (a === 0 && b === 0 && c === 0 && d === 0) {
    if (e === 0 && (f === 0 || f === 0xffff) || e === 0xffff && f === 0) return [last()]
  }
  if (a === 0x64 && b === 0xff9b && c === 0 && d === 0 && e === 0 && f === 0) return [last()]
  if (a === 0x2002) return [ipv4Of(b, c)]
  return f === 0x5efe && (e === 0 || e === 0x200) ? [ip, last()] : [ip]
}

/**
 * Where an address leads that another node may tell: an IP address, a name that has to be resolved first, or another
 * node of the simulator. Undefined for every other form. The forms are `ip4`, `ip6`, `dns`, `dns4` or `dns6` and then
 * `tcp`; such an address of a relay and then `p2p-circuit`; and `dnsaddr`. A relayed address leads to the relay.
 *
 * An IP address or `localhost` in the part for a name is no name that another node may tell: the system resolves it
 * without asking DNS.
 */
export const toldHostOf = (address: Multiaddr): NetAddress.IpAddress | "name" | "simulated" | undefined => {
  const [relayOrPeer = "", behind, ...more] = address.split("/p2p-circuit")
  if (more.length > 0 || behind !== undefined && !/^(?:\/p2p\/[^/]+)?$/.test(behind)) return undefined
  if (/^\/memory\/[^/]+(?:\/p2p\/[^/]+)?$/.test(relayOrPeer)) return "simulated"
  const [, dnsaddr] = /^\/dnsaddr\/([^/]+)(?:\/p2p\/[^/]+)?$/.exec(relayOrPeer) ?? []
  if (dnsaddr !== undefined) return behind === undefined && isName(dnsaddr) ? "name" : undefined
  const [, protocol, host = "", port, peer] =
    /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/(\d{1,5})(\/p2p\/[^/]+)?$/.exec(relayOrPeer) ?? []
  if (protocol === undefined || Number(port) === 0 || behind !== undefined && peer === undefined) return undefined
  const ip = NetAddress.ipFromString(host)
  if (protocol.startsWith("ip")) return Result.isSuccess(ip) ? ip.success : undefined
  return Result.isFailure(ip) && isName(host) ? "name" : undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Networks by family: strangers have this node judge addresses by the thousand. */
const networks = (...texts: ReadonlyArray<string>) => {
  const all = texts.map(IpNetwork.fromStringUnsafe)
  const isOf4 = ({ address }: IpNetwork.IpNetwork) => NetAddress.isIpv4Address(address)
  return { of4: all.filter(isOf4), of6: all.filter((network) => !isOf4(network)) }
}

const isIn = ({ of4, of6 }: ReturnType<typeof networks>, ip: NetAddress.IpAddress): boolean =>
  (NetAddress.isIpv4Address(ip) ? of4 : of6).some((network) => IpNetwork.contains(network, ip))

const nowhere = networks("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8")

const loopback = networks("127.0.0.0/8", "::1/128")

const local = networks(
  "10.0.0.0/8",
  "100.64.0.0/10",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  // All of IPv6 but 2000::/3, the only part that IANA gives out.
  "::/3",
  "4000::/2",
  "8000::/1",
  // Teredo, benchmarking and ORCHID among them.
  "2001::/23",
  "2001:db8::/32",
  "3fff::/20"
)

const publicWithinLocal = networks(
  "192.0.0.9/32",
  "192.0.0.10/32",
  "2001:1::1/128",
  "2001:1::2/128",
  "2001:1::3/128",
  "2001:3::/32",
  "2001:4:112::/48",
  "2001:20::/28",
  "2001:30::/28"
)

const ipv4Of = (high: number, low: number): NetAddress.Ipv4Address =>
  NetAddress.ipv4FromBytesUnsafe(Uint8Array.of(high >> 8, high & 255, low >> 8, low & 255))

const isName = (text: string): boolean =>
  text.length <= 253 && /^[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_.])?$/i.test(text) &&
  !/^(?:.+\.)?localhost\.?$/i.test(text)
