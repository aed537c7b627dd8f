/**
 * Peers remembered across restarts, with the addresses at which they were reached.
 */
import type { DateTime, Effect, Option } from "effect"
import { Context } from "effect"
import type { Multiaddr, PeerId } from "../schema/Peer.ts"

/** An address at which the peer was reached, and when last. Without `/p2p/<id>`. */
export interface RememberedAddress {
  readonly address: Multiaddr
  readonly lastSuccess: DateTime.Utc
}

/**
 * A remembered peer. Its addresses are ordered by their last success, newest first.
 */
export interface RememberedPeer {
  readonly id: PeerId
  readonly addresses: ReadonlyArray<RememberedAddress>
  readonly lastSeen: DateTime.Utc
}

/** The peers that this node remembers, across restarts if it has a `dataDirectory`. */
export class PeerStore extends Context.Service<PeerStore, {
  /**
   * Remembers that the peer was reached at the address, which becomes its first. At most 8 addresses of a peer are
   * kept. Writing to disk happens later.
   */
  readonly remember: (peer: PeerId, address: Multiaddr) => Effect.Effect<void>
  /** The record of one peer. */
  readonly get: (peer: PeerId) => Effect.Effect<Option.Option<RememberedPeer>>
  /** All records, those seen last first. At most `maxKnownPeers`; of more, those unseen for longest are forgotten. */
  readonly peers: Effect.Effect<ReadonlyArray<RememberedPeer>>
}>()("codio-network/services/PeerStore") {}
