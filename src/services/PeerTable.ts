/**
 * Who is connected. The only writer of peer state.
 *
 * A connected peer is a `Scope`: its slot under `maxPeers`, its connections and its tasks live in it, and a peer leaves
 * the table only by the end of its scope.
 *
 * Gotchas
 * - A peer with several connections takes one slot, and leaves with the last of them. Between nodes of this library
 *   they become one within seconds. No stream is cut: each other connection ends after its last stream.
 * - `release` and `admit` are idempotent for each connection: dial and queue may both report it.
 */
import type { Duration, Effect, Option, Scope } from "effect"
import { Context } from "effect"
import type { PeerLimitExceeded, PeerNotConnected } from "../schema/NetworkError.ts"
import type { DisconnectReason, GoodbyeReason, RefusalReason } from "../schema/NetworkEvent.ts"
import type { Slots } from "../schema/NodeStatus.ts"
import type { Multiaddr, PeerId, PeerInfo, RemoteIdentity } from "../schema/Peer.ts"
import type { Connection } from "./Transport.ts"

/**
 * Why a peer left.
 */
export interface Departure {
  readonly reason: DisconnectReason
  /** The remote's own reason, where the remote told one. */
  readonly remoteReason: GoodbyeReason | undefined
  /** Whether the reason was known before the connections closed; see `expect` and `remove`. */
  readonly isExpected: boolean
}

/**
 * What a closed connection was to the table.
 *
 * - `last`: the peer's last connection, so the peer was lost.
 * - `other`: one of several; the peer is still there.
 * - `removed`: the peer had been removed on purpose before: it was idle, evicted, disconnected, or blocked.
 * - `unknown`: the connection was never admitted, or its end was reported before.
 */
export type Released =
  | { readonly kind: "last" | "removed"; readonly departure: Departure }
  | { readonly kind: "other" }
  | { readonly kind: "unknown" }

/** The connected peers, at most `maxPeers`. */
export class PeerTable extends Context.Service<PeerTable, {
  /**
   * The gate's first question, before any cryptography: may a peer from the address have a slot? False when the
   * address's network has `maxPeersPerSubnet` peers. True all the same while a wanted or kept peer is not connected: it
   * may be the dialler, which only the handshake shows. Never suspends.
   */
  readonly accepts: (remoteAddress: Multiaddr) => Effect.Effect<boolean>
  /**
   * Why a dial of the peer would be refused, as far as that is known before the dial: there is no slot and no peer to
   * evict, or the peer is blocked. Reserves nothing. Never suspends.
   */
  readonly refuses: (peer: PeerId) => Effect.Effect<RefusalReason | undefined>
  /**
   * The gate's last question: is there a slot for the peer, or a peer to evict by `EvictionPolicy`? Answers with the
   * reason of the refusal. No reason means that a slot is reserved until `admit`, for 1 s at most (3 s for a dial of
   * this node), or until the connection is released. A refusal in `admit` would come too late: identify has been
   * answered by then, and the dialler counts this node as a peer. Never suspends.
   */
  readonly reserve: (
    connection: Pick<Connection, "peer" | "direction" | "remoteAddress">
  ) => Effect.Effect<RefusalReason | undefined>
  /**
   * Adds a connection and, for a new peer, takes one of `maxPeers` slots for as long as the peer's scope lives.
   *
   * The authority on the limits. Safe to call twice for one connection. Fails with `PeerLimitExceeded` when the table
   * is full and no peer may be evicted, and with `PeerNotConnected` when the connection closed before it was admitted.
   * After a failure the caller closes the connection.
   */
  readonly admit: (connection: Connection) => Effect.Effect<void, PeerLimitExceeded | PeerNotConnected>
  /** The transport reports a connection gone; see {@link Released}. */
  readonly release: (connection: Connection) => Effect.Effect<Released>
  /** While the scope is open the peer is neither idle nor evicted. Gives the peer's best connection. */
  readonly hold: (peer: PeerId) => Effect.Effect<Connection, PeerNotConnected, Scope.Scope>
  /** While the scope is open the peer is not idle, but may be evicted: for streams that the remote opened. */
  readonly attend: (connection: Connection) => Effect.Effect<void, PeerNotConnected, Scope.Scope>
  /** While the scope is open the remote's program keeps this node: a transient peer is a guest (`GuestPolicy`). */
  readonly keptByRemote: (peer: PeerId) => Effect.Effect<void, PeerNotConnected, Scope.Scope>
  /**
   * Runs the body on the peer's best connection. When another connection becomes the best, interrupts the run and
   * begins anew there: for streams that live as long as the peer. Ends when a run ends, or the peer is not connected.
   */
  readonly follow: (peer: PeerId, body: (connection: Connection) => Effect.Effect<void>) => Effect.Effect<void>
  /**
   * The remote means to close one of several connections, and asks this side to open nothing more on it. False while
   * this side has a stream open there, and where no other connection is open, or only a worse one.
   */
  readonly retire: (connection: Connection) => Effect.Effect<boolean>
  /**
   * Says goodbye with the reason where the remote is a Codio node, closes the peer's scope, and so its connections.
   * True when the peer was in the table.
   */
  readonly remove: (peer: PeerId, reason: GoodbyeReason) => Effect.Effect<boolean>
  /**
   * The reason to report if the peer is lost next: a goodbye was heard, or pings went unanswered. A goodbye outranks
   * pings that fail after it.
   */
  readonly expect: (peer: PeerId, reason: DisconnectReason, remoteReason?: GoodbyeReason) => Effect.Effect<void>
  /**
   * Call it when a peer is no longer kept: its idle time begins now. Other changes of interest need no call, since the
   * table asks `Interests` when it decides.
   */
  readonly interestFell: (peer: PeerId) => Effect.Effect<void>
  /** Stores the round-trip time of an answered ping. */
  readonly measured: (peer: PeerId, roundTripTime: Duration.Duration) => Effect.Effect<void>
  /** Stores what identify told, and publishes `PeerIdentified`, once for each peer. */
  readonly identified: (peer: PeerId, remote: RemoteIdentity) => Effect.Effect<void>
  /** Runs the task in a fiber of each peer's scope, for peers of now and to come, while this scope lives. */
  readonly eachPeer: (task: (peer: PeerId) => Effect.Effect<void>) => Effect.Effect<void, never, Scope.Scope>
  /**
   * The open connections of a peer, the best one first: direct before relayed, then those that the peer with the
   * smaller id dialled, then the newest. The remote orders them alike. Empty when the peer is not connected.
   */
  readonly connections: (peer: PeerId) => Effect.Effect<ReadonlyArray<Connection>>
  /** Whether the peer is connected. Cheaper than `get`. */
  readonly has: (peer: PeerId) => Effect.Effect<boolean>
  /** A connected peer. */
  readonly get: (peer: PeerId) => Effect.Effect<Option.Option<PeerInfo>>
  /** The connected peers, oldest first. */
  readonly peers: Effect.Effect<ReadonlyArray<PeerInfo>>
  /** How many peers are connected. */
  readonly size: Effect.Effect<number>
  /** Slots in use, as of now. */
  readonly slots: Effect.Effect<Slots>
}>()("codio-network/services/PeerTable") {}
