/**
 * Which addresses that strangers tell are worth a dial, and safe.
 *
 * A stranger may name any address: one in a private network that happens to exist here too, or one of this machine itself. Dialling it
 * probes the local network on the stranger's behalf (kubo#10327). The guard is asked about addresses that come from the DHT and from
 * identify, not about those that this program gave, that mDNS heard on the local network, or that worked before.
 */
import { Context } from "effect"
import { BlockList, isIP } from "node:net"
import type { Multiaddr } from "../schema/Peer.ts"
import { networkOf } from "../schema/Subnet.ts"
import type { NetworkInterface } from "./NetworkMonitor.ts"

/**
 * What the guard may look at besides the address.
 */
export interface GuardedMachine {
  /** The addresses of this machine. */
  readonly interfaces: ReadonlyArray<NetworkInterface>
  /** Whether the address was told by a peer on this machine; where nobody knows who told it, whether this node has such a peer. */
  readonly isToldLocally: boolean
}

/** Answers whether the address may be dialled. */
export type AddressGuardRule = (address: Multiaddr, machine: GuardedMachine) => boolean

/**
 * Lets every public address pass, and every name; a private or link-local one only when it lies in the subnet of one of this machine's
 * interfaces; loopback only when a peer on this machine told it. Multicast, unspecified and reserved addresses never pass. Of a relayed
 * address the relay's own is judged.
 */
export const ownSubnetsOnly: AddressGuardRule = (address, { interfaces, isToldLocally }) => {
  const host = hostOf(address)
  if (host === undefined) return true
  const is = (list: BlockList) => list.check(host, isIP(host) === 6 ? "ipv6" : "ipv4")
  if (is(nowhere)) return false
  if (is(loopback)) return isToldLocally
  return !is(local) || is(subnetsOf(interfaces))
}

/** Lets everything pass. */
export const anyAddress: AddressGuardRule = () => true

/**
 * The guard of a node: {@link ownSubnetsOnly} by default. Replace it with `Layer.succeed`.
 */
export const AddressGuard = Context.Reference<AddressGuardRule>("codio-network/services/AddressGuard", {
  defaultValue: () => ownSubnetsOnly
})

/** The IP address at which a multiaddr begins; none for a name or another kind. */
export const hostOf = (address: Multiaddr): string | undefined => {
  const [, protocol, host] = address.split("/")
  return (protocol === "ip4" || protocol === "ip6") && host !== undefined && isIP(host) !== 0 ? host : undefined
}

/** Whether the address is one of this machine itself, as seen from this machine. */
export const isLoopback = (address: Multiaddr): boolean => {
  const host = hostOf(address)
  return host !== undefined && loopback.check(host, isIP(host) === 6 ? "ipv6" : "ipv4")
}

/** Whether the address is one that no stranger on the internet can have: loopback, link-local or private. */
export const isLocal = (address: Multiaddr): boolean => {
  const host = hostOf(address)
  if (host === undefined) return false
  const family = isIP(host) === 6 ? "ipv6" : "ipv4"
  return loopback.check(host, family) || local.check(host, family)
}

/**
 * The network that `maxPeersPerSubnet` counts an address in. None for relayed connections, whose address is the relay's, and for loopback,
 * link-local and private addresses: all of a local network has one subnet, and so has everybody behind a proxy on this machine. Whoever
 * has such an address stands in a network of this node's own, from which the limit is no defence.
 */
export const countedNetworkOf = (address: Multiaddr): string | undefined => {
  if (isLocal(address)) return undefined
  return networkOf(address)
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Node's list knows IPv4 addresses in IPv6 clothes as what they are.
const listOf = (...subnets: ReadonlyArray<readonly [network: string, prefixLength: number]>): BlockList => {
  const list = new BlockList()
  for (const [network, prefixLength] of subnets) {
    list.addSubnet(network, prefixLength, isIP(network) === 6 ? "ipv6" : "ipv4")
  }
  return list
}

// From IANA's registries of special-purpose addresses.
const loopback = listOf(["127.0.0.0", 8], ["::1", 128])
const local = listOf(
  ["10.0.0.0", 8],
  ["172.16.0.0", 12],
  ["192.168.0.0", 16],
  ["169.254.0.0", 16],
  ["100.64.0.0", 10],
  ["198.18.0.0", 15],
  ["fc00::", 7],
  ["fe80::", 10]
)
const nowhere = listOf(["0.0.0.0", 8], ["224.0.0.0", 4], ["240.0.0.0", 4], ["::", 128], ["ff00::", 8])

// The monitor gives the same array until something changes.
const subnets = new WeakMap<ReadonlyArray<NetworkInterface>, BlockList>()
const subnetsOf = (interfaces: ReadonlyArray<NetworkInterface>): BlockList => {
  const known = subnets.get(interfaces)
  if (known !== undefined) return known
  const list = listOf(
    ...interfaces.filter(({ internal }) => !internal).map((one) => [one.address, one.prefixLength] as const)
  )
  subnets.set(interfaces, list)
  return list
}
