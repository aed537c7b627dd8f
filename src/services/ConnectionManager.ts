/**
 * Who should be connected: interest, dialling, reconnection, blocking. The only caller of `Transport.dial`.
 */
import type { Effect, Scope } from "effect"
import { Context } from "effect"
import type { ConnectError, DialError } from "../schema/NetworkError.ts"
import type { GoodbyeReason } from "../schema/NetworkEvent.ts"
import type { NodeStatus, PeerExplanation } from "../schema/NodeStatus.ts"
import type { DialTarget, FoundPeer, PeerId, PeerInfo, ToldAddresses } from "../schema/Peer.ts"

/**
 * What this node's dials of a peer came to, without the rest of an explanation. Times are milliseconds of the monotonic
 * clock.
 */
export interface LastContact {
  /** When a dial last reached the peer, at whichever address. */
  readonly reachedAt: number | undefined
  /** When a dial last failed to reach it. */
  readonly failedAt: number | undefined
  /** This node has disconnected the peer, or blocks it. */
  readonly isDismissed: boolean
}

/** Decides which peers to connect to, and dials them. */
export class ConnectionManager extends Context.Service<ConnectionManager, {
  /**
   * Connects to a peer and makes it `wanted`; `Interest` of schema/Peer.ts says until when. Succeeds at once with the
   * peer's info when it is connected. Ends a former `disconnect` of the peer. Interruption ends the wait; a dial that
   * no caller waits for any more is aborted.
   */
  readonly connect: (target: DialTarget) => Effect.Effect<PeerInfo, ConnectError>
  /**
   * Keeps a connection to the peer while the scope lives: the peer is dialled now and redialled without end, by
   * `ReconnectPolicy`, never closed for idleness and never evicted. Returns at once and fails only for this node
   * itself. An address without peer id is dialled by the same policy until its peer is known.
   */
  readonly keep: (target: DialTarget) => Effect.Effect<void, DialError, Scope.Scope>
  /**
   * Closes the connection, ends its reconnection and suspends a `keep` until somebody calls `connect` or `keep`.
   * One-sided and not a ban: a remote that keeps this node dials back and is let in like any stranger.
   */
  readonly disconnect: (peer: PeerId) => Effect.Effect<void>
  /** Closes the connection and refuses the peer, both ways, while the scope lives. Afterwards a keep goes on. */
  readonly block: (peer: PeerId) => Effect.Effect<void, never, Scope.Scope>
  /** The remote said goodbye: the loss that follows is its wish, so discovery leaves the peer alone for a while. */
  readonly goodbye: (peer: PeerId, reason: GoodbyeReason) => Effect.Effect<void>
  /**
   * Why the peer is connected, or is not: its interest, addresses, last dials and refusals, how its last connection
   * ended, and when it is dialled next. Explains unknown peers, too.
   */
  readonly explain: (peer: PeerId) => Effect.Effect<PeerExplanation>
  /** When dials last reached the peer and last failed to; without dates when the peer is unknown. */
  readonly lastContact: (peer: PeerId) => Effect.Effect<LastContact>
  /** What the DHT found of a peer, as a program gets it: each address says whether this node would dial it. */
  readonly judged: (found: ToldAddresses) => Effect.Effect<FoundPeer>
  /** How the node stands: isolated or not and why, slots in use, dials under way and waiting. */
  readonly status: Effect.Effect<NodeStatus>
}>()("codio-network/services/ConnectionManager") {}
