/**
 * Streams by protocol, between connected peers.
 */
import type { Effect, Scope } from "effect"
import { Context } from "effect"
import type { PeerNotConnected, ProtocolError, StreamError } from "../schema/NetworkError.ts"
import type { PeerId, ProtocolId } from "../schema/Peer.ts"
import type { ByteStream } from "./Transport.ts"

/** Streams by protocol id. */
export class Protocols extends Context.Service<Protocols, {
  /**
   * Answers a protocol while the scope lives. The handler runs once for each stream that a peer opens, and the stream
   * lives as long as the handler. A handler that fails or dies resets its stream and is logged; other streams go on.
   * Streams that are open when the scope closes are reset. Fails when the id is taken.
   */
  readonly handle: <E, R>(
    protocol: ProtocolId,
    handler: (stream: ByteStream) => Effect.Effect<void, E, R>
  ) => Effect.Effect<void, ProtocolError, Scope.Scope | Exclude<R, Scope.Scope>>
  /**
   * Opens a stream to a connected peer for as long as the scope lives. Meanwhile the peer is neither idle nor evicted.
   */
  readonly open: (
    peer: PeerId,
    protocol: ProtocolId
  ) => Effect.Effect<ByteStream, StreamError | PeerNotConnected, Scope.Scope>
}>()("codio-network/services/Protocols") {}
