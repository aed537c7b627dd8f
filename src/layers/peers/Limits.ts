/**
 * The limits on how many peers may be connected, as far as they can be said of a place: whom each counts, and by how many it is exceeded.
 */
import type { NetworkConfigValues } from "../../services/NetworkConfig.ts"

/**
 * What a peer takes in the table, connected or about to be.
 */
export interface Place {
  /** Whether the peer dialled the connection that made it a peer. It stays what it is as long as the peer does. */
  readonly isInbound: boolean
  /** The networks that its connections come from; see {@link countedNetworkOf}. */
  readonly networks: ReadonlySet<string>
}

/**
 * A limit that a newcomer may break.
 */
export interface Limit {
  readonly name: "full" | "inbound" | "subnet"
  readonly most: number
  readonly counts: (place: Place) => boolean
}

/**
 * The limits that a connection would be counted by, the narrowest first. One of a peer that has a place already takes no other, but may
 * bring a further network into it.
 */
export const limitsFor = (
  config: Pick<NetworkConfigValues, "maxPeers" | "maxInboundPeers" | "maxPeersPerSubnet">,
  connection: { readonly isInbound: boolean; readonly network: string | undefined },
  present?: Place
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
 * How many of the places must be given up before one more may be taken; zero or less when there is room.
 */
export const missing = (limit: Limit, ...places: ReadonlyArray<Iterable<Place>>): number => {
  let taken = 0
  for (const some of places) for (const place of some) if (limit.counts(place)) taken++
  return taken + 1 - limit.most
}
