/**
 * Peers remembered across restarts: where they were reached last.
 */
import type { DateTime, Effect, Option } from "effect"
import { Context } from "effect"
import type { Multiaddr, PeerId } from "../schema/Peer.ts"

/**
 * An address at which a connection stood, and when last. Without `/p2p/<id>`.
 */
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
  /** A connection to the address stood: it goes first, and at most 8 addresses of a peer are kept. Writing to disk happens later. */
  readonly remember: (peer: PeerId, address: Multiaddr) => Effect.Effect<void>
  /** What is remembered of one peer. */
  readonly get: (peer: PeerId) => Effect.Effect<Option.Option<RememberedPeer>>
  /** All of them, those seen last first; at most `maxKnownPeers`, the longest unseen go first. */
  readonly peers: Effect.Effect<ReadonlyArray<RememberedPeer>>
}>()("codio-network/services/PeerStore") {}
