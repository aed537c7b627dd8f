/**
 * Which addresses that come from strangers may be dialled.
 *
 * A stranger may name any address: one in a private network that happens to exist here too, or one of this machine
 * itself. Dialling it would probe the local network on the stranger's behalf (kubo#10327). The guard judges every
 * address that another node told, by identify, by the DHT, by mDNS or through a program's own source of discovery: as
 * it was told, and again what its name resolves to, at the moment in which a socket is about to connect. It does not
 * judge addresses that this program gave. A server of the DHT asks it as well: a private address that this node may not
 * dial is not named to others.
 */
import { Context, Result } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import type { Multiaddr } from "../schema/Peer.ts"
import { reached, reachOf, toldHostOf } from "../schema/Reach.ts"
import { directIpOf } from "../schema/Subnet.ts"
import type { NetworkInterface } from "./NetworkMonitor.ts"

/** What the guard knows besides the address. */
export interface GuardedMachine {
  /** The addresses of this machine. */
  readonly interfaces: ReadonlyArray<NetworkInterface>
  /**
   * The remote address of the node that told the address, as this node sees it: of its connection, or of its mDNS
   * answer. Undefined where nobody knows who told it.
   */
  readonly teller: Multiaddr | undefined
}

/** Answers whether the address may be dialled. */
export type AddressGuardRule = (address: Multiaddr, machine: GuardedMachine) => boolean

/**
 * Lets every public address pass, and every name, since the addresses that it resolves to are judged one by one.
 *
 * An address of a private network passes only when the teller and the address lie in the same subnet of one of this
 * machine's interfaces. This machine's own addresses pass only when the teller is on this machine, and loopback only
 * when the teller came over loopback. Unspecified, multicast and reserved addresses never pass, nor does a form that no
 * transport here understands. An IPv6 address that stands for an IPv4 address is judged as that. A relayed address is
 * judged by the relay's address.
 */
export const ownSubnetsOnly: AddressGuardRule = (address, { interfaces, teller }) => {
  const host = toldHostOf(address)
  if (host === undefined) return false
  if (host === "name" || host === "simulated") return true
  const own = ownOf(interfaces)
  const tellerIp = teller === undefined ? undefined : directIpOf(teller)
  const isToldByLoopback = tellerIp !== undefined && NetAddress.isLoopback(tellerIp)
  const isToldHere = isToldByLoopback || tellerIp !== undefined && isOwn(own, tellerIp)
  return reached(host).every((ip) => {
    const reach = reachOf(ip)
    if (reach === "nowhere") return false
    if (reach === "loopback") return isToldByLoopback
    if (isOwn(own, ip)) return isToldHere
    if (reach === "public") return true
    return own.subnets.some((subnet) =>
      IpNetwork.contains(subnet, ip) &&
      (isToldHere || tellerIp !== undefined && IpNetwork.contains(subnet, tellerIp))
    )
  })
}

/** Lets everything pass. */
export const anyAddress: AddressGuardRule = () => true

/**
 * The guard of a node: {@link ownSubnetsOnly} by default. Replace it with `Layer.succeed`.
 */
export const AddressGuard = Context.Reference<AddressGuardRule>("codio-network/services/AddressGuard", {
  defaultValue: () => ownSubnetsOnly
})

/** Whether the rule lets the address pass, whichever of its tellers told it. */
export const isDialable = (
  rule: AddressGuardRule,
  address: Multiaddr,
  interfaces: ReadonlyArray<NetworkInterface>,
  tellers: ReadonlyArray<Multiaddr>
): boolean =>
  rule(address, { interfaces, teller: undefined }) || tellers.some((teller) => rule(address, { interfaces, teller }))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** This machine's addresses, and the subnets of its interfaces but loopback. */
interface Own {
  readonly addresses: ReadonlySet<string>
  readonly subnets: ReadonlyArray<IpNetwork.IpNetwork>
}

const isOwn = ({ addresses }: Own, ip: NetAddress.IpAddress): boolean => addresses.has(NetAddress.formatIp(ip))

// The monitor gives the same array until something changes.
const owns = new WeakMap<ReadonlyArray<NetworkInterface>, Own>()
const ownOf = (interfaces: ReadonlyArray<NetworkInterface>): Own => {
  const known = owns.get(interfaces)
  if (known !== undefined) return known
  const addresses = new Set<string>()
  const subnets: Array<IpNetwork.IpNetwork> = []
  for (const { address, internal, prefixLength } of interfaces) {
    const ip = NetAddress.ipFromString(address)
    if (Result.isFailure(ip)) continue
    addresses.add(NetAddress.formatIp(ip.success))
    const network = IpNetwork.fromAddress(ip.success, prefixLength)
    if (!internal && Result.isSuccess(network)) subnets.push(network.success)
  }
  const own = { addresses, subnets }
  owns.set(interfaces, own)
  return own
}
