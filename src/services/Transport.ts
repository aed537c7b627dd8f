/**
 * The port to the wire: connections and byte streams between peers, in this library's own vocabulary.
 *
 * libp2p implements it for production (`layers/libp2p/Transport.ts`), the simulated network for
 * tests (`testing/ports/SimTransport.ts`). The contract suite in `test/contract` runs against both.
 */
import type { Effect, Option, Queue, Scope, Stream } from "effect"
import { Context, Duration } from "effect"
import type { DialError, PingError, ProtocolError, Refused, StreamError, HostError } from "../schema/NetworkError.ts"
import type { RefusalReason } from "../schema/NetworkEvent.ts"
import type { StreamRefusal } from "../schema/NodeStatus.ts"
import type { DialTarget, Direction, Multiaddr, Path, PeerId, ProtocolId, RemoteIdentity } from "../schema/Peer.ts"

/**
 * What the gate's rule is asked about: an inbound connection before its handshake (`stage: "address"`); every
 * connection, in or out, in the last step before it exists (`stage: "peer"`); and an address that the program did not
 * give (`stage: "dial"`): one that the transport dials of its own accord, for the DHT or for a peer whose addresses the
 * caller did not name, and each IP address that a `Told` address resolves to, before a socket connects to it.
 */
export type GateRequest =
  | {
    readonly stage: "dial"
    readonly direction: "outbound"
    /** The address as it was told. */
    readonly remoteAddress: Multiaddr
    /** Where the socket is about to connect to, when `remoteAddress` is a name. */
    readonly resolved?: Multiaddr
    /** The remote addresses, as this node saw them, of those who told it; empty where nobody knows. */
    readonly tellers: ReadonlyArray<Multiaddr>
    /** The peer that is expected there, if known. */
    readonly peer?: PeerId
  }
  | {
    readonly stage: "address"
    readonly direction: "inbound"
    readonly remoteAddress: Multiaddr
    /** The addresses of the other inbound connections that are between the two stages now. */
    readonly pending: ReadonlyArray<Multiaddr>
  }
  | { readonly stage: "peer"; readonly direction: Direction; readonly peer: PeerId; readonly remoteAddress: Multiaddr }

/**
 * Answers whether a connection is allowed; it must not suspend. `true` allows. `false` or a reason refuses; a reason is
 * told to the remote (see {@link farewellFor}), but only at stage `peer`.
 */
export type GateRule = (request: GateRequest) => Effect.Effect<boolean | RefusalReason>

/**
 * The reason that a remote's host gives when it refuses or closes a connection: it has no free slot, its last free slot
 * is promised to a peer that is being connected, it made room for another peer, it blocks this node, it is stopping.
 * Other software just closes.
 */
export type Farewell = "full" | "promised" | "evicted" | "blocked" | "shutdown"

/** What a remote is told when the gate refuses it: whether it may come back, not which limit it met. */
export const farewellFor = (reason: RefusalReason): Exclude<Farewell, "evicted"> =>
  reason === "blocked" || reason === "shutdown" || reason === "promised" ? reason : "full"

/**
 * The `why` of the `Refused` with which a dial fails when the remote ends the connection before it has answered
 * identify; none when the remote gave no reason. A remote that evicts this node at once has no slot for it.
 */
export const refusedWhy = (farewell: Farewell | undefined): Pick<Refused, "why"> =>
  farewell === undefined ? {} : { why: farewell === "evicted" ? "full" : farewell }

/**
 * One connection to a peer. The same object is given by `dial`, by `events` and by a handler's stream.
 */
export interface Connection {
  /** Unique in the process, also among several nodes. */
  readonly id: string
  readonly peer: PeerId
  readonly direction: Direction
  /** The remote's address, without `/p2p/<id>`; for a relayed connection the relay's address and `/p2p-circuit`. */
  readonly remoteAddress: Multiaddr
  /** Direct or relayed; with the bytes and the time that the relay still allows. */
  readonly path: Effect.Effect<Path>
  readonly isOpen: Effect.Effect<boolean>
  /**
   * Application streams that are open now, opened by either side. Streams of ping, identify, kad, autonat and dcutr are
   * not counted.
   */
  readonly activeStreams: Effect.Effect<number>
  /**
   * All streams that are open now, with those of the transport's own protocols and those still being negotiated. Those
   * of ping, which stay open from one ping to the next, are not counted.
   */
  readonly streams: Effect.Effect<number>
  /**
   * Bytes of streams, of any protocol, that the remote has sent, or has read and made room for again. A peer that moves
   * bytes over a slow link is alive, though its answer to a ping waits behind them.
   */
  readonly progress: Effect.Effect<number>
  /** What the remote told by identify, once it has. */
  readonly remote: Effect.Effect<Option.Option<RemoteIdentity>>
  /**
   * The reason that the remote's host gave when it closed the connection; undefined while the connection is open, and
   * when it gave none.
   */
  readonly farewell: Effect.Effect<Farewell | undefined>
  /** Opens a stream that lives as long as the scope; see {@link ByteStream}. Interruption aborts the negotiation. */
  readonly open: (protocol: ProtocolId) => Effect.Effect<ByteStream, StreamError, Scope.Scope>
  /**
   * Completes when the remote has the data of all streams whose scope has closed, or when the connection is gone.
   * Streams with an open scope are not waited for. The time limit is the caller's.
   */
  readonly flushed: Effect.Effect<void>
  /**
   * From now on the transport's own streams, such as the DHT's, are opened on another connection to the peer.
   */
  readonly retire: Effect.Effect<void>
  /** Closes the connection: gracefully for 250 ms, then by force. Never fails, and is safe to call twice. */
  readonly close: Effect.Effect<void>
}

/** The properties by which connections are compared. */
export interface Ranked {
  readonly direction: Direction
  readonly isDirect: boolean
}

/**
 * Compares two connections to one peer, the better first: direct before relayed, then the direction that both sides
 * prefer. Of equals the newest is best, so sort a list whose newest comes first.
 */
export const comparing = (local: PeerId, peer: PeerId) => {
  const preferred: Direction = local < peer ? "outbound" : "inbound"
  return (a: Ranked, b: Ranked): number =>
    Number(b.isDirect) - Number(a.isDirect) || Number(b.direction === preferred) - Number(a.direction === preferred)
}

/**
 * A stream of bytes in both directions, with backpressure both ways. It has no message boundaries: chunks may be split
 * and joined on the way.
 *
 * It ends with its scope. After a failure or an interruption the stream is reset. Otherwise its write half closes, and
 * the stream lingers for at most 10 s until the remote closes its own half: a reset would take from a slow remote the
 * bytes that it has not yet read. Bytes that arrive while the stream lingers reset it.
 */
export interface ByteStream {
  readonly connection: Connection
  readonly protocol: ProtocolId
  /**
   * The bytes that the remote sends. Ends when the remote has closed its write half; fails when the stream is reset, or
   * cut by a relay's limit. A reader that stops pulling stops the sender, after at most 8 MiB. One reader at a time; a
   * second run continues where the first stopped.
   */
  readonly read: Stream.Stream<Uint8Array, StreamError>
  /**
   * Sends a chunk of any size, and suspends while the remote is behind. The chunk must not be changed afterwards. Fails
   * with `WriteAfterEnd` after `closeWrite`, with `ChunkInvalid` for what is no `Uint8Array`.
   */
  readonly write: (chunk: Uint8Array) => Effect.Effect<void, StreamError>
  /**
   * Ends this side's half: the remote's `read` ends once it has read everything. Writes fail afterwards. Safe to call
   * twice.
   */
  readonly closeWrite: Effect.Effect<void, StreamError>
  /**
   * Completes when nothing can come of the stream any more: at once when it is reset by either side, otherwise when its
   * connection is over. A stream that both sides have ended is not lost before its connection.
   */
  readonly lost: Effect.Effect<StreamLoss>
}

/**
 * How a stream was lost: `ended` when its connection is over and the remote had ended its half before, so that all it
 * sent has arrived; `cut` otherwise.
 */
export type StreamLoss = "cut" | "ended"

/** What waits in the streams of a node, and how many streams were reset to keep a bound. */
export interface StreamAccount {
  /** Bytes that wait in streams of any protocol: received and not read, or written and not sent. */
  readonly buffered: Effect.Effect<number>
  /** Bytes that may wait: `maxBufferedBytes`. */
  readonly limit: number
  /** Counts a stream that is reset to keep a bound. */
  readonly refuse: (reason: StreamRefusal) => Effect.Effect<void>
  /** Streams reset since the start. */
  readonly refusals: Effect.Effect<Readonly<Partial<Record<StreamRefusal, number>>>>
}

/** The bounds of a protocol that the transport keeps. */
export interface HandleLimits {
  /** Bytes that may wait in all streams of the protocol that one peer has open here. Above it the fullest is reset. */
  readonly maxBufferedBytesPerPeer?: number | undefined
}

/**
 * A connection opened, was identified, or closed. `Identified` comes at most once for each connection, between the
 * other two.
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
  /** What waits in all streams, of the transport's own protocols too as far as it can be seen. */
  readonly streams: StreamAccount
  /**
   * The addresses at which this node can be dialled now, each ending in `/p2p/<local peer>`. Empty before it listens.
   */
  readonly addresses: Effect.Effect<ReadonlyArray<Multiaddr>>
  /**
   * Tells others the address, besides those that the node finds itself, while the scope lives. The address is among
   * `addresses` then, and peers that are connected hear of it.
   */
  readonly announce: (address: Multiaddr) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Listens on one more address while the scope lives, and gives the addresses at which it is reached, each ending in
   * `/p2p/<local peer>`. Closing the scope closes the port and the connections that came through it. Fails when the
   * address is not one that this transport understands, is taken, or belongs to another machine.
   */
  readonly listen: (address: Multiaddr) => Effect.Effect<ReadonlyArray<Multiaddr>, HostError, Scope.Scope>
  /**
   * Connects. Resolves after identify ({@link identifyTime} at most): a remote's gate refuses after the handshake, and
   * the dial then fails with `Refused`. For a peer that is already connected it gives the open connection. Interruption
   * aborts the dial, but closes no connection of which `events` has told `Identified`. Retry, timeout and limits belong
   * to the caller.
   *
   * The gate is asked for a `Told` address and for what it resolves to, and not for an address that is a text.
   */
  readonly dial: (target: DialTarget) => Effect.Effect<Connection, DialError>
  /**
   * Installs the one admission rule, in and out, while the scope lives. Without a rule every inbound connection is
   * refused. A second rule at the same time is a defect.
   */
  readonly gate: (rule: GateRule) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Names the peers that the transport must not forget while the scope lives, however many others it hears of: what it
   * remembers besides connected peers has a bound. The rule is asked in one step. One rule at a time, the latest.
   */
  readonly retain: (isOfInterest: (peer: PeerId) => boolean) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Every connection, whoever dialled it, and those older than this layer: once `Opened` and once `Closed`. Lossless;
   * one consumer. `Opened` arrives while this node's dial still waits for identify.
   */
  readonly events: Queue.Dequeue<ConnectionEvent>
  /**
   * Answers a protocol while the scope lives. The stream lives as long as the handler runs; a handler that dies resets
   * the stream and is logged. Streams that are open when the scope closes are reset. Fails when the id is taken.
   */
  readonly handle: (
    protocol: ProtocolId,
    handler: (stream: ByteStream) => Effect.Effect<void>,
    limits?: HandleLimits
  ) => Effect.Effect<void, ProtocolError, Scope.Scope>
  /**
   * The round-trip time to a connected peer. Each connection has one ping at a time: a ping waits for its turn, then
   * runs `begun` and is sent. All pings of a connection go over one stream if the remote lets it stand; that a stream
   * ends between two pings is no failure. A ping never dials, and fails with `StreamFailed` when the peer is not
   * connected. The time limit is the caller's, who may count it anew from `begun`; a transport without turns need not
   * run it. Interruption aborts the ping.
   */
  readonly ping: (peer: PeerId, begun?: Effect.Effect<void>) => Effect.Effect<Duration.Duration, PingError>
}>()("codio-network/services/Transport") {}
