/**
 * The answers to "why?": what a node knows of one peer, and the state of the node itself.
 */
import { Schema } from "effect"
import { plain } from "./Json.ts"
import { DisconnectReason, GoodbyeReason, RefusalReason } from "./NetworkEvent.ts"
import { Direction, Interest, Multiaddr, Path, PeerId } from "./Peer.ts"

/**
 * Where an address comes from.
 *
 * - `given`: the program, by `connect` or `keep`.
 * - `worked`: this node once connected to it.
 * - `mdns`, `dht`, `remembered`: the source of discovery that named it; an implementation of your own may have others.
 * - `identify`: a connected peer told it of itself.
 */
export const AddressSource = Schema.String

/** One address of a peer, with the outcome of the last dials to it. */
export const AddressRecord = Schema.Struct({
  address: Multiaddr,
  source: AddressSource,
  lastSuccess: Schema.optionalKey(Schema.DateTimeUtc),
  lastFailure: Schema.optionalKey(Schema.DateTimeUtc),
  /** Why the last dial failed. Absent once a dial has succeeded. */
  problem: Schema.optionalKey(Schema.String),
  /** Whether the `AddressGuard` keeps this node from dialling the address. */
  isGuarded: Schema.Boolean
})
export type AddressRecord = typeof AddressRecord.Type

/** A dial of a peer, with all of its addresses. */
export const DialRecord = Schema.Struct({
  at: Schema.DateTimeUtc,
  /** `Connected`, or the reason of the error, such as `Unreachable` or `PeerLimitExceeded`. */
  outcome: Schema.String,
  message: Schema.optionalKey(Schema.String)
})
export type DialRecord = typeof DialRecord.Type

/** A connection with the peer that this node's gate refused. */
export const RefusalRecord = Schema.Struct({
  at: Schema.DateTimeUtc,
  direction: Direction,
  reason: RefusalReason
})
export type RefusalRecord = typeof RefusalRecord.Type

/** How the last connection with the peer ended. */
export const DisconnectRecord = Schema.Struct({
  at: Schema.DateTimeUtc,
  /** Which side closed the connection; `unknown` when it ended without a goodbye. */
  by: Schema.Literals(["local", "remote", "unknown"]),
  /** Why it was closed. */
  reason: DisconnectReason,
  remoteReason: Schema.optionalKey(GoodbyeReason),
  connectionDuration: Schema.Duration
})
export type DisconnectRecord = typeof DisconnectRecord.Type

/** When a peer whose dial failed is dialled again. `attempt` counts from 1 since the last stable connection. */
export const RetryRecord = Schema.Struct({ at: Schema.DateTimeUtc, attempt: Schema.Int })
export type RetryRecord = typeof RetryRecord.Type

/** What a node knows of one peer, and what it will do about it. Each list has the last eight entries, newest first. */
export class PeerExplanation extends Schema.Class<PeerExplanation>("codio-network/PeerExplanation")({
  id: PeerId,
  /** The answer in one sentence. */
  summary: Schema.String,
  isConnected: Schema.Boolean,
  /** The path to the peer. Absent while it is not connected. */
  path: Schema.optionalKey(Path),
  interest: Interest,
  /** Whether the program called `disconnect` and has not asked for the peer since. */
  isSuspended: Schema.Boolean,
  isBlocked: Schema.Boolean,
  /** Whether a dial is under way. */
  isDialing: Schema.Boolean,
  addresses: Schema.Array(AddressRecord),
  dials: Schema.Array(DialRecord),
  refusals: Schema.Array(RefusalRecord),
  lastDisconnect: Schema.optionalKey(DisconnectRecord),
  nextRetry: Schema.optionalKey(RetryRecord),
  /** Discovery does not dial the peer before this time, unless the peer is seen at a new address. */
  restsUntil: Schema.optionalKey(Schema.DateTimeUtc)
}) {
  /** As `JSON.stringify` prints it: durations as `...Millis`, times as ISO 8601. */
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/**
 * Whether a node is isolated, and why: it has peers, it knows no peer to try, or the peers that it tries do not answer.
 */
export const Isolation = Schema.TaggedUnion({
  /** At least one peer is connected. */
  Connected: {},
  /** No peer is connected, and there is none to try: none was given, found or remembered, or all left on purpose. */
  Alone: {},
  /** No peer is connected although there are peers to try. */
  Isolated: {
    since: Schema.DateTimeUtc,
    candidates: Schema.Int,
    attempts: Schema.Int,
    nextAttempt: Schema.optionalKey(Schema.DateTimeUtc)
  }
})
export type Isolation = typeof Isolation.Type

/** The slots of the peer table: how many there are, and how many are in use, in all, by direction and by interest. */
export const Slots = Schema.Struct({
  /** `maxPeers`. */
  limit: Schema.Int,
  used: Schema.Int,
  /** `maxInboundPeers`. */
  inboundLimit: Schema.Int,
  /** Slots in use by peers that dialled this node. */
  inbound: Schema.Int,
  /** Slots that the gate reserved for connections that are not admitted yet. They are not counted as used. */
  reserved: Schema.Int,
  kept: Schema.Int,
  wanted: Schema.Int,
  discovered: Schema.Int,
  transient: Schema.Int
})
export type Slots = typeof Slots.Type

/**
 * Why this node reset a stream that a peer had opened.
 *
 * - `streams`: the peer had `maxStreamsPerPeer` streams of the protocol already.
 * - `unauthorized`: `authorize` of the protocol did not allow the peer.
 * - `buffered`: too many bytes waited, in all streams (`maxBufferedBytes`) or in the peer's streams of the protocol
 *   (`maxBufferedBytesPerPeer`), and this stream held the most. It may be one that this node opened.
 */
export const StreamRefusal = Schema.Literals(["streams", "unauthorized", "buffered"])
export type StreamRefusal = typeof StreamRefusal.Type

/** What waits in the streams of a node, and the streams that it reset to keep a bound. */
export const StreamStatus = Schema.Struct({
  /** Bytes that wait in streams of any protocol: received and not read, or written and not sent. */
  buffered: Schema.Int,
  /** `maxBufferedBytes`. */
  bufferLimit: Schema.Int,
  /** Streams reset since the start, by {@link StreamRefusal}. */
  refused: Schema.Record(Schema.String, Schema.Int)
})
export type StreamStatus = typeof StreamStatus.Type

/** The state of a node. */
export class NodeStatus extends Schema.Class<NodeStatus>("codio-network/NodeStatus")({
  peer: PeerId,
  addresses: Schema.Array(Multiaddr),
  isolation: Isolation,
  slots: Slots,
  /** The targets that are being dialled. */
  pendingDials: Schema.Array(Schema.String),
  /** Peers that wait for their next dial, the earliest dial first. */
  backoffs: Schema.Array(Schema.Struct({ peer: PeerId, ...RetryRecord.fields })),
  /** How many peers the node knows, connected or not. At most `maxKnownPeers`. */
  knownPeers: Schema.Int,
  /** Connections refused since the start, by reason. */
  refusals: Schema.Record(Schema.String, Schema.Int),
  streams: StreamStatus,
  /** Defects since the start in work that nobody waits for, and that went on. Each is a bug, and in the log. */
  defects: Schema.Int
}) {
  /** As `JSON.stringify` prints it: durations as `...Millis`, times as ISO 8601. */
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}
