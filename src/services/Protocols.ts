/**
 * Streams by protocol, between connected peers.
 */
import type { Effect, Scope } from "effect"
import { Context } from "effect"
import type { PeerNotConnected, ProtocolError, StreamError } from "../schema/NetworkError.ts"
import type { PeerId, ProtocolId } from "../schema/Peer.ts"
import type { ByteStream, HandleLimits } from "./Transport.ts"

/**
 * Who may have how many streams of a protocol. A stream beyond it is reset and counted in `NodeStatus.streams.refused`.
 */
export interface HandleOptions<E = never, R = never> extends HandleLimits {
  /**
   * Handlers of the protocol that may run for one peer at a time. A handler counts until it has ended, also when it
   * ignores the end of its stream. Defaults to 1024.
   */
  readonly maxStreamsPerPeer?: number | undefined
  /**
   * Bytes that may wait in all streams of the protocol that one peer has open here, received and not read or written
   * and not sent. Above it the fullest of them is reset. A remote may send 256 KiB on each stream before this node has
   * a say, so allow as much for each stream. Defaults to the node's `maxBufferedBytes`.
   */
  readonly maxBufferedBytesPerPeer?: number | undefined
  /**
   * Whether the peer may use the protocol, asked for each stream before its handler runs. Its time counts as the
   * handler's. When it fails, the stream is refused and the failure is logged. Defaults to everybody.
   */
  readonly authorize?: ((peer: PeerId) => Effect.Effect<boolean, E, R>) | undefined
}

/** Streams by protocol id. */
export class Protocols extends Context.Service<Protocols, {
  /**
   * Answers a protocol while the scope lives. The handler runs once for each stream that a peer opens, and the stream
   * lives as long as the handler.
   *
   * The handler is interrupted when its stream is reset by either side, and when the connection is over. A clean end of
   * what the remote sends interrupts nothing; if the connection is over after it, the handler has 10 s to use what it
   * has read. A handler that fails or dies resets its stream and is logged; other streams go on. Streams that are open
   * when the scope closes are reset. Fails when the id is taken.
   */
  readonly handle: <E, R, E2 = never, R2 = never>(
    protocol: ProtocolId,
    handler: (stream: ByteStream) => Effect.Effect<void, E, R>,
    options?: HandleOptions<E2, R2>
  ) => Effect.Effect<void, ProtocolError, Scope.Scope | Exclude<R | R2, Scope.Scope>>
  /**
   * Opens a stream to a connected peer for as long as the scope lives. Meanwhile the peer is neither idle nor evicted.
   */
  readonly open: (
    peer: PeerId,
    protocol: ProtocolId
  ) => Effect.Effect<ByteStream, StreamError | PeerNotConnected, Scope.Scope>
}>()("codio-network/services/Protocols") {}
