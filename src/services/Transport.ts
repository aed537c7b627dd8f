/**
 * The port to the wire: connections and byte streams between peers, in this library's own vocabulary.
 *
 * libp2p implements it for production (`layers/Libp2pTransport.ts`), the simulated network for tests
 * (`testing/SimTransport.ts`). The contract suite in `test/contract` runs against both.
 */
import type { Effect, Option, Queue, Scope, Stream } from "effect"
import { Context, Duration } from "effect"
import type { DialError, PingError, ProtocolError, StreamError } from "../schema/NetworkError.ts"
import type { RefusalReason } from "../schema/NetworkEvent.ts"
import type { DialTarget, Direction, Multiaddr, Path, PeerId, ProtocolId, RemoteIdentity } from "../schema/Peer.ts"

/**
 * What the gate's rule is asked: an inbound connection before its handshake (`stage: "address"`), then every
 * connection, in or out, in the last step before it exists (`stage: "peer"`); and an address that the transport dials
 * of its own accord, for the DHT or for a peer whose addresses the caller did not name (`stage: "dial"`).
 */
export type GateRequest =
  | {
    readonly stage: "dial"
    readonly direction: "outbound"
    readonly remoteAddress: Multiaddr
    /** Who is expected there, where that is known. */
    readonly peer?: PeerId
  }
  | {
    readonly stage: "address"
    readonly direction: "inbound"
    readonly remoteAddress: Multiaddr
    /** Where the other inbound connections come from that are between the two stages now. */
    readonly pending: ReadonlyArray<Multiaddr>
  }
  | { readonly stage: "peer"; readonly direction: Direction; readonly peer: PeerId; readonly remoteAddress: Multiaddr }

/**
 * Answers whether a connection may be. It is run synchronously, so it must not suspend. A reason in place of `false`
 * refuses as well, and is told to the remote where the handshake is over.
 */
export type GateRule = (request: GateRequest) => Effect.Effect<boolean | RefusalReason>

/**
 * What a remote's host says of its own accord when it refuses or closes a connection: it has no place, it made room, it
 * blocks this node, it is stopping. Software that says nothing just closes.
 */
export type Farewell = "full" | "evicted" | "blocked" | "shutdown"

/**
 * One connection to a peer. The same object is given by `dial`, by `events` and by a handler's stream.
 */
export interface Connection {
  /** Unique in the process, also among several nodes. */
  readonly id: string
  readonly peer: PeerId
  readonly direction: Direction
  /** Where the remote is, without `/p2p/<id>`; for a relayed connection the relay's address and `/p2p-circuit`. */
  readonly remoteAddress: Multiaddr
  /** Direct or relayed, with what the relay still allows. */
  readonly path: Effect.Effect<Path>
  readonly isOpen: Effect.Effect<boolean>
  /**
   * Application streams that are open now, whoever opened them: not those of ping, identify, kad, autonat and dcutr.
   */
  readonly activeStreams: Effect.Effect<number>
  /** All streams that are open now, also those of the transport's own protocols and those that are being negotiated. */
  readonly streams: Effect.Effect<number>
  /**
   * How many bytes of streams, of any protocol, the remote has sent or has made room for again after it had read them.
   * Whoever moves bytes over a slow link lives, though the answer to a ping waits behind them.
   */
  readonly progress: Effect.Effect<number>
  /** What identify told, once it has. */
  readonly remote: Effect.Effect<Option.Option<RemoteIdentity>>
  /** What the remote's host said when it closed the connection; none while it is open, and where nothing was said. */
  readonly farewell: Effect.Effect<Farewell | undefined>
  /** Opens a stream that lives as long as the scope; see {@link ByteStream}. Interruption aborts the negotiation. */
  readonly open: (protocol: ProtocolId) => Effect.Effect<ByteStream, StreamError, Scope.Scope>
  /**
   * Completes when the remote has what was written to streams whose scope has closed, and when the connection is gone.
   * Streams whose scope is open are not waited for. The time limit is the caller's.
   */
  readonly flushed: Effect.Effect<void>
  /**
   * From now on the transport opens no stream on it of its own accord, as for the DHT, but on another connection with
   * the peer.
   */
  readonly retire: Effect.Effect<void>
  /** Closes it: gracefully for 250 ms, then by force. Never fails, and is safe to call twice. */
  readonly close: Effect.Effect<void>
}

/** What the order looks at. */
export interface Ranked {
  readonly direction: Direction
  readonly isDirect: boolean
}

/**
 * Compares two connections of this node and one peer by the first two rules; the third is that of a list whose newest
 * comes first.
 */
export const comparing = (local: PeerId, peer: PeerId) => {
  const preferred: Direction = local < peer ? "outbound" : "inbound"
  return (a: Ranked, b: Ranked): number =>
    Number(b.isDirect) - Number(a.isDirect) || Number(b.direction === preferred) - Number(a.direction === preferred)
}

/**
 * A stream of bytes in both directions, with backpressure both ways. It has no message borders: chunks may be split and
 * joined on the way.
 *
 * It ends with its scope. When the scope closes after a failure or an interruption the stream is reset. Otherwise the
 * write half closes and the rest lingers for 10 s at most until the remote closes its own half, since a reset would
 * take from a slow remote what it has yet to read; bytes that still arrive while it lingers cause the reset.
 */
export interface ByteStream {
  readonly connection: Connection
  readonly protocol: ProtocolId
  /**
   * What the remote sends. Ends when the remote has closed its write half; fails when the stream is reset, or cut by a
   * relay's limit. A reader that stops pulling stops the sender, after at most 8 MiB. One reader at a time; run again,
   * it goes on with what was not pulled.
   */
  readonly read: Stream.Stream<Uint8Array, StreamError>
  /** Sends a chunk of any size, and suspends while the remote is behind. The chunk must not be changed afterwards. */
  readonly write: (chunk: Uint8Array) => Effect.Effect<void, StreamError>
  /**
   * Ends this side's half: the remote's `read` ends once it has read everything. Writes fail afterwards. Safe to call
   * twice.
   */
  readonly closeWrite: Effect.Effect<void, StreamError>
}

/**
 * A connection came, was identified, or went. `Identified` comes at most once for each connection, between the other
 * two.
 */
export type ConnectionEvent =
  | { readonly _tag: "Opened"; readonly connection: Connection }
  | { readonly _tag: "Identified"; readonly connection: Connection; readonly remote: RemoteIdentity }
  | { readonly _tag: "Closed"; readonly connection: Connection }

/**
 * How long a new connection waits for identify. After it a connection whose remote has told nothing counts as one to a
 * peer that does not speak identify.
 */
export const identifyTime = Duration.seconds(2)

/** Connections and streams over the network, with libp2p or simulated. */
export class Transport extends Context.Service<Transport, {
  /** The id of this node. */
  readonly localPeer: PeerId
  /** Where this node can be dialled now, each ending in `/p2p/<local peer>`. Empty before it listens. */
  readonly addresses: Effect.Effect<ReadonlyArray<Multiaddr>>
  /**
   * Connects. Resolves after identify ({@link identifyTime} at most): a remote's gate refuses when the handshake is
   * over, which is then `Refused`, not a peer. A peer that is already connected gives its open connection. Interruption
   * aborts the dial. Retry, timeout and limits belong to the caller.
   */
  readonly dial: (target: DialTarget) => Effect.Effect<Connection, DialError>
  /**
   * Installs the one admission rule, in and out, while the scope lives. Nothing inbound is let in without a rule. A
   * second rule while one stands is a defect.
   */
  readonly gate: (rule: GateRule) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Every connection, dialled here or not, also one older than this layer: once `Opened` and once `Closed`. Lossless;
   * one consumer. `Opened` arrives while an own dial still waits for identify.
   */
  readonly events: Queue.Dequeue<ConnectionEvent>
  /**
   * Answers a protocol while the scope lives. The stream lives as long as the handler runs; a handler that dies resets
   * it and is logged. Streams open when the scope closes are reset. Fails when the id is taken.
   */
  readonly handle: (
    protocol: ProtocolId,
    handler: (stream: ByteStream) => Effect.Effect<void>
  ) => Effect.Effect<void, ProtocolError, Scope.Scope>
  /**
   * The round-trip time to a connected peer, of one ping at a time: another waits for the one under way. Fails with
   * `StreamFailed` for one that is not connected: it never dials. The time limit is the caller's; interruption aborts
   * the ping.
   */
  readonly ping: (peer: PeerId) => Effect.Effect<Duration.Duration, PingError>
}>()("codio-network/services/Transport") {}
