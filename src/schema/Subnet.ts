/**
 * The network that an address lies in, as a text to compare: what limits by host and by subnet count.
 */
import type { Multiaddr } from "./Peer.ts"

/**
 * The first bits of the IP address at which a multiaddr begins: `prefix4` of an IPv4 address, `prefix6` of an IPv6 one, in the form
 * `203.0.113.0/24` or `2001:db8:0:100:0:0:0:0/56`. An IPv4 address in IPv6 clothes is what it is.
 *
 * None for a name, for another kind of address, and for a relayed one: that begins with the relay's address, not the peer's.
 */
export const subnetOf = (address: Multiaddr, prefix4: number, prefix6: number): string | undefined => {
  if (address.includes("/p2p-circuit")) return undefined
  const [, protocol, host = ""] = address.split("/")
  if (protocol === "ip4") return masked(octets(host), 8, prefix4, ".")
  if (protocol !== "ip6") return undefined
  const clothed = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(host)
  if (clothed?.[1] !== undefined) return masked(octets(clothed[1]), 8, prefix4, ".")
  return masked(groups(host), 16, prefix6, ":")
}

/** The network of one owner: /24 of IPv4, /56 of IPv6. */
export const networkOf = (address: Multiaddr): string | undefined => subnetOf(address, 24, 56)

/** One host: an IPv4 address, or the /64 that an IPv6 host chooses its addresses from. */
export const hostNetworkOf = (address: Multiaddr): string | undefined => subnetOf(address, 32, 64)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const octets = (host: string): Array<number> => host.split(".").map(Number)

function groups(host: string): Array<number> {
  const [head = "", tail] = host.split("::")
  const parse = (text: string) => text === "" ? [] : text.split(":").flatMap(group)
  const left = parse(head)
  if (tail === undefined) return left
  const right = parse(tail)
  return [...left, ...Array.from({ length: 8 - left.length - right.length }, () => 0), ...right]
}

// The last 32 bits may be written as an IPv4 address.
function group(text: string): Array<number> {
  if (!text.includes(".")) return [Number.parseInt(text, 16)]
  const [a = 0, b = 0, c = 0, d = 0] = octets(text)
  return [a * 256 + b, c * 256 + d]
}

function masked(units: ReadonlyArray<number>, size: number, prefix: number, separator: string): string {
  const kept = units.map((unit, index) => {
    const bits = Math.max(0, Math.min(size, prefix - index * size))
    return unit & ((1 << size) - (1 << (size - bits)))
  })
  return `${kept.map((unit) => unit.toString(size === 8 ? 10 : 16)).join(separator)}/${prefix}`
}
