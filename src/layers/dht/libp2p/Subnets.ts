/**
 * The subnets by which the DHT counts peers. [libp2p]
 */
import type { Multiaddr as Libp2pMultiaddr } from "@multiformats/multiaddr"
import type { Multiaddr } from "../../../schema/Peer.ts"
import { countedNetworkOf } from "../../../schema/Subnet.ts"
import type { Components } from "../../libp2p/wire/Components.ts"

/** The subnet in which an address is counted, if any. */
export const subnetOf = (address: Libp2pMultiaddr): string | undefined =>
  countedNetworkOf(address.toString() as Multiaddr)

/** Whether a subnet is one of this node's own, which is not counted: in a data centre all peers may be in it. */
export const isOwn = (addresses: Pick<Components["addressManager"], "getAddresses">, subnet: string): boolean =>
  addresses.getAddresses().some((address) => subnetOf(address) === subnet)
