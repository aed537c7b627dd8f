/**
 * The limits on how many peers may be connected: which slots each counts, and by how many it is exceeded.
 */
import type { NetworkConfigValues } from "../../services/NetworkConfig.ts"

/**
 * A slot of the peer table that is taken by a connected peer, or reserved for a peer that is about to be connected.
 */
export interface Slot {
  /** Whether the peer dialled the connection that made it a peer. Never changes while the peer is connected. */
  readonly isInbound: boolean
  /** The networks that the peer's connections come from; see `countedNetworkOf` of schema/Subnet.ts. */
  readonly networks: ReadonlySet<string>
}

/**
 * A limit that a newcomer may break.
 */
export interface Limit {
  readonly name: "full" | "inbound" | "subnet"
  readonly most: number
  readonly counts: (slot: Slot) => boolean
}

/**
 * The limits that count this connection, the narrowest first. A peer that is connected already takes no second slot;
 * only `subnet` can apply, if the connection comes from a new network.
 */
export const limitsFor = (
  config: Pick<NetworkConfigValues, "maxPeers" | "maxInboundPeers" | "maxPeersPerSubnet">,
  connection: { readonly isInbound: boolean; readonly network: string | undefined },
  present?: Slot
): ReadonlyArray<Limit> => {
  const limits: Array<Limit> = []
  const { network } = connection
  if (network !== undefined && config.maxPeersPerSubnet < config.maxPeers && present?.networks.has(network) !== true) {
    limits.push({
      name: "subnet",
      most: config.maxPeersPerSubnet,
      counts: ({ networks }) => networks.has(network)
    })
  }
  if (present !== undefined) return limits
  if (connection.isInbound && config.maxInboundPeers < config.maxPeers) {
    limits.push({ name: "inbound", most: config.maxInboundPeers, counts: ({ isInbound }) => isInbound })
  }
  limits.push({ name: "full", most: config.maxPeers, counts: () => true })
  return limits
}

/**
 * How many of the slots must be given up before one more may be taken; zero or less when there is room.
 */
export const missing = (limit: Limit, ...slots: ReadonlyArray<Iterable<Slot>>): number => {
  let taken = 0
  for (const some of slots) for (const slot of some) if (limit.counts(slot)) taken++
  return taken + 1 - limit.most
}
