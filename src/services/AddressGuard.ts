/**
 * Which addresses that come from strangers may be dialled.
 *
 * A stranger may name any address: one in a private network that happens to exist here too, or one of this machine
 * itself. Dialling it would probe the local network on the stranger's behalf (kubo#10327). The guard judges addresses
 * that come from the DHT, from identify and from a program's own sources of discovery. It does not judge addresses that
 * this program gave, that mDNS heard on the local network, or that worked before.
 */
import { Context, Result } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import type { Multiaddr } from "../schema/Peer.ts"
import { ipOf, isPrivate } from "../schema/Subnet.ts"
import type { NetworkInterface } from "./NetworkMonitor.ts"

/** What the guard knows besides the address. */
export interface GuardedMachine {
  /** The addresses of this machine. */
  readonly interfaces: ReadonlyArray<NetworkInterface>
  /**
   * Whether a peer on this machine named the address. Where nobody knows which peer named it: whether a peer on this
   * machine is connected.
   */
  readonly isToldLocally: boolean
}

/** Answers whether the address may be dialled. */
export type AddressGuardRule = (address: Multiaddr, machine: GuardedMachine) => boolean

/**
 * Lets every public address and every name pass. A private or link-local address passes only when it lies in the subnet
 * of one of this machine's interfaces, loopback only when a peer on this machine named it. Multicast, unspecified and
 * reserved addresses never pass. A relayed address is judged by the relay's address.
 */
export const ownSubnetsOnly: AddressGuardRule = (address, { interfaces, isToldLocally }) => {
  const ip = ipOf(address)
  if (ip === undefined) return true
  if (isNowhere(ip)) return false
  if (NetAddress.isLoopback(ip)) return isToldLocally
  return !isPrivate(ip) || isIn(subnetsOf(interfaces), ip)
}

/** Lets everything pass. */
export const anyAddress: AddressGuardRule = () => true

/**
 * The guard of a node: {@link ownSubnetsOnly} by default. Replace it with `Layer.succeed`.
 */
export const AddressGuard = Context.Reference<AddressGuardRule>("codio-network/services/AddressGuard", {
  defaultValue: () => ownSubnetsOnly
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const reservedRanges = ["0.0.0.0/8", "240.0.0.0/4"].map(IpNetwork.fromStringUnsafe)

const isIn = (networks: ReadonlyArray<IpNetwork.IpNetwork>, ip: NetAddress.IpAddress): boolean =>
  networks.some((network) => IpNetwork.contains(network, ip))

/** Whether no host has the address. */
const isNowhere = (ip: NetAddress.IpAddress): boolean =>
  NetAddress.isUnspecified(ip) || NetAddress.isMulticast(ip) || isIn(reservedRanges, ip)

// The monitor gives the same array until something changes.
const subnets = new WeakMap<ReadonlyArray<NetworkInterface>, ReadonlyArray<IpNetwork.IpNetwork>>()
const subnetsOf = (interfaces: ReadonlyArray<NetworkInterface>): ReadonlyArray<IpNetwork.IpNetwork> => {
  const known = subnets.get(interfaces)
  if (known !== undefined) return known
  const list = interfaces.filter(({ internal }) => !internal).flatMap(({ address, prefixLength }) => {
    const network = Result.flatMap(NetAddress.ipFromString(address), (ip) => IpNetwork.fromAddress(ip, prefixLength))
    return Result.isSuccess(network) ? [network.success] : []
  })
  subnets.set(interfaces, list)
  return list
}
