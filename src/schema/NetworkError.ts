/**
 * Every typed error of the library.
 *
 * Each operation has one error. Where it can fail in several ways the error has a tagged `reason`, so that callers
 * write `Effect.catchTag("DialError", ...)` or `Effect.catchReason("DialError", "Unreachable", ...)`.
 *
 * - `isRetryable`: whether the same call may succeed later without a change by the caller.
 * - `message`: one line that says what was attempted, on what, why it failed and, where the caller can do something,
 *   what.
 * - `cause`: the error of the layer below, kept for logs.
 */
import { Duration, Predicate, Schema } from "effect"
import { shortened } from "./Canonical.ts"
import { PeerId } from "./Peer.ts"

const cause = { cause: Schema.optionalKey(Schema.Defect()) }

// ---------------------------------------------------------------------------------------------------------------------
// text
// ---------------------------------------------------------------------------------------------------------------------

/** A text is not a peer id: neither base58 such as `12D3KooW...` nor the CID of a key. `detail` shows it. */
export class InvalidPeerId extends Schema.TaggedError<InvalidPeerId>()("InvalidPeerId", { detail: Schema.String }) {
  readonly isRetryable = false
  override get message() {
    return this.detail
  }
}

/** A text is not a content key, or a key does not have 1 to 80 bytes. `detail` says which. */
export class InvalidContentKey
  extends Schema.TaggedError<InvalidContentKey>()("InvalidContentKey", { detail: Schema.String })
{
  readonly isRetryable = false
  override get message() {
    return this.detail
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// dial
// ---------------------------------------------------------------------------------------------------------------------

/** No address answered within `dialTimeout`. Retry, or raise `dialTimeout` for slow networks. */
export class DialTimeout extends Schema.TaggedError<DialTimeout>()("DialTimeout", { after: Schema.Duration }) {
  readonly isRetryable = true
  override get message() {
    return `no answer within ${Duration.format(this.after)}`
  }
}

/**
 * No connection came about: nothing listens at the address, there is no route, the connection broke during its
 * handshake, or no address of the peer is known. Check the address, or retry later.
 */
export class Unreachable extends Schema.TaggedError<Unreachable>()("Unreachable", { detail: Schema.String, ...cause }) {
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/**
 * This node refused its own dial: it blocks the peer, its table is full, the dial was given up, or the node is
 * stopping. `detail` says which.
 */
export class Denied extends Schema.TaggedError<Denied>()("Denied", { detail: Schema.String, ...cause }) {
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/**
 * The remote closed the connection right after its handshake. `why` is the remote's own reason: nodes of this library
 * say whether they are full, have promised their last slots to peers that are being connected (`promised`), block this
 * node or are stopping. Other nodes may say nothing. Retry later, after a promise in a few seconds; a block lasts until
 * the remote lifts it.
 */
export class Refused extends Schema.TaggedError<Refused>()("Refused", {
  why: Schema.optionalKey(Schema.Literals(["full", "promised", "blocked", "shutdown"])),
  ...cause
}) {
  readonly isRetryable = true
  override get message() {
    switch (this.why) {
      case "full":
        return "the remote refused the connection: it has no slot for this peer"
      case "promised":
        return "the remote refused the connection: its last slot is promised to another peer; try again in a few seconds"
      case "blocked":
        return "the remote refused the connection: it blocks this peer"
      case "shutdown":
        return "the remote refused the connection: it is stopping"
      default:
        return "the remote refused the connection; it may be full or block this peer"
    }
  }
}

/** The peer that answers at the address is not the one that was asked for. Correct the `/p2p` part of the address. */
export class UnexpectedPeer
  extends Schema.TaggedError<UnexpectedPeer>()("UnexpectedPeer", { expected: PeerId, ...cause })
{
  readonly isRetryable = false
  override get message() {
    return `another peer than ${this.expected} answers there; check the /p2p part of the address`
  }
}

/** The target is this node itself. Dial another peer. */
export class DialedSelf extends Schema.TaggedError<DialedSelf>()("DialedSelf", {}) {
  readonly isRetryable = false
  override get message() {
    return "the target is this node itself"
  }
}

/** The target is not a multiaddr, or this node has no transport for it. Correct the address. */
export class InvalidAddress extends Schema.TaggedError<InvalidAddress>()("InvalidAddress", { detail: Schema.String }) {
  readonly isRetryable = false
  override get message() {
    return this.detail
  }
}

/** The reasons of a {@link DialError}. */
export const DialReason = Schema.Union([
  DialTimeout,
  Unreachable,
  Denied,
  Refused,
  UnexpectedPeer,
  DialedSelf,
  InvalidAddress
])
export type DialReason = typeof DialReason.Type

/**
 * One reason for several dials that all failed. A refusal comes first, because an answer says more than silence at
 * other addresses; then the reason that all dials share; else `Unreachable` with the messages of all. `cause` is kept
 * in an `Unreachable`.
 */
export const mergeDialReasons = (reasons: ReadonlyArray<DialReason>, cause: Error | undefined): DialReason => {
  const isShared = new Set(reasons.map(({ _tag }) => _tag)).size === 1
  const common = reasons.find(({ _tag }) => _tag === "Denied" || _tag === "Refused") ??
    (isShared ? reasons[0] : undefined)
  if (common !== undefined && common._tag !== "Unreachable") return common
  const detail = [...new Set(reasons.map(({ message }) => message))].join("; ")
  return new Unreachable({ detail, ...(cause === undefined ? {} : { cause }) })
}

/**
 * A dial gave no connection. `target` is the address or the peer id that was asked for; `reason` says why and what to
 * do.
 */
export class DialError
  extends Schema.TaggedError<DialError>()("DialError", { target: Schema.String, reason: DialReason })
{
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
  override get message() {
    return `dial ${this.target}: ${this.reason.message}`
  }
}

/**
 * The table has no slot for the peer, and no connected peer may be evicted for it.
 *
 * `rule` is the limit that was met: `full` (`maxPeers`, the default), `inbound` (`maxInboundPeers`) or `subnet`
 * (`maxPeersPerSubnet`); `limit` is its value. Raise that option, or disconnect a peer. `promised`: the last of
 * `maxPeers` slots are promised to peers that are being connected; try again in a few seconds.
 */
export class PeerLimitExceeded extends Schema.TaggedError<PeerLimitExceeded>()("PeerLimitExceeded", {
  peer: PeerId,
  limit: Schema.Int,
  rule: Schema.optionalKey(Schema.Literals(["full", "promised", "inbound", "subnet", "connections"]))
}) {
  readonly isRetryable = true
  override get message() {
    const rule = this.rule ?? "full"
    if (rule === "connections") return `no further connection of ${this.peer}: it has ${this.limit} already`
    if (rule === "promised") {
      return `no slot for ${this.peer}: the last of ${this.limit} is promised to another peer; try again in a few seconds`
    }
    const option = rule === "full" ? "maxPeers" : rule === "inbound" ? "maxInboundPeers" : "maxPeersPerSubnet"
    const whose = rule === "full" ? "" : rule === "inbound" ? " for peers that dial in" : " for peers of its subnet"
    return `no slot for ${this.peer}: all ${this.limit}${whose} are taken; raise ${option} or disconnect a peer`
  }
}

/** The operation needs a connected peer, and the peer is not connected, or left meanwhile. Call `connect` first. */
export class PeerNotConnected extends Schema.TaggedError<PeerNotConnected>()("PeerNotConnected", { peer: PeerId }) {
  readonly isRetryable = true
  override get message() {
    return `${this.peer} is not connected`
  }
}

/** The errors of `connect`. */
export type ConnectError = DialError | PeerLimitExceeded

// ---------------------------------------------------------------------------------------------------------------------
// streams and protocols
// ---------------------------------------------------------------------------------------------------------------------

/** The stream broke: the remote or this side reset it, or its connection was lost. Open a new stream. */
export class StreamReset extends Schema.TaggedError<StreamReset>()("StreamReset", { detail: Schema.String, ...cause }) {
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/** The remote did not read or answer in time. Open a new stream, or find a peer that is less busy. */
export class StreamTimeout extends Schema.TaggedError<StreamTimeout>()("StreamTimeout", { after: Schema.Duration }) {
  readonly isRetryable = true
  override get message() {
    return `no progress within ${Duration.format(this.after)}`
  }
}

/**
 * The relayed connection used up the bytes or the time that its relay allows. Open a new stream, best over a direct
 * connection.
 */
export class LimitReached extends Schema.TaggedError<LimitReached>()("LimitReached", { ...cause }) {
  readonly isRetryable = true
  override get message() {
    return "the relay's limit of bytes or time was reached; what was read is incomplete"
  }
}

/** The remote has no handler for the protocol. Ask another peer, or offer it an older protocol. */
export class ProtocolNotSupported
  extends Schema.TaggedError<ProtocolNotSupported>()("ProtocolNotSupported", { ...cause })
{
  readonly isRetryable = false
  override get message() {
    return "the remote does not speak this protocol"
  }
}

/**
 * The stream takes no more writes: `closeWrite` was called, or the stream has ended. Open a new stream to write more.
 */
export class WriteAfterEnd extends Schema.TaggedError<WriteAfterEnd>()("WriteAfterEnd", {}) {
  readonly isRetryable = false
  override get message() {
    return "the write side is closed"
  }
}

/**
 * `write` was given something else than a `Uint8Array`; the stream goes on. Encode a text first, such as by
 * `new TextEncoder().encode(text)`.
 */
export class ChunkInvalid extends Schema.TaggedError<ChunkInvalid>()("ChunkInvalid", { detail: Schema.String }) {
  /** The problem of what was given to `write`, if there is one. */
  static readonly of = (chunk: unknown): ChunkInvalid | undefined =>
    Predicate.isUint8Array(chunk) ? undefined : new ChunkInvalid({
      detail: typeof chunk === "string"
        ? "write: expected a Uint8Array, got a text; encode it by new TextEncoder().encode(text)"
        : `write: expected a Uint8Array, got ${shortened(chunk)}`
    })
  readonly isRetryable = false
  override get message() {
    return this.detail
  }
}

/** The reasons of a {@link StreamError}. */
export const StreamReason = Schema.Union([
  StreamReset,
  StreamTimeout,
  LimitReached,
  ProtocolNotSupported,
  WriteAfterEnd,
  ChunkInvalid
])
export type StreamReason = typeof StreamReason.Type

/** A stream could not be opened, read or written. `reason` says why and what to do. */
export class StreamError extends Schema.TaggedError<StreamError>()("StreamError", {
  peer: PeerId,
  protocol: Schema.String,
  reason: StreamReason
}) {
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
  override get message() {
    return `stream ${this.protocol} with ${this.peer}: ${this.reason.message}`
  }
}

/**
 * A protocol cannot be handled or opened: its id is malformed, or this node has a handler for it already. Choose
 * another id.
 */
export class ProtocolError extends Schema.TaggedError<ProtocolError>()("ProtocolError", {
  protocol: Schema.String,
  detail: Schema.String,
  ...cause
}) {
  readonly isRetryable = false
  override get message() {
    return `protocol ${this.protocol}: ${this.detail}`
  }
}

/**
 * A message of `/codio/1.0.0` was `Malformed` or `TooLarge`, or the remote `Refused` the request with a code. A bug or
 * another version on one of the two sides; retrying does not help.
 */
export class MessageError extends Schema.TaggedError<MessageError>()("MessageError", {
  reason: Schema.Union([
    Schema.TaggedStruct("Malformed", { detail: Schema.String }),
    Schema.TaggedStruct("TooLarge", { bytes: Schema.Number, limit: Schema.Number }),
    Schema.TaggedStruct("Late", { after: Schema.Duration }),
    Schema.TaggedStruct("Refused", { code: Schema.String })
  ])
}) {
  get isRetryable() {
    return this.reason._tag === "Late"
  }
  override get message() {
    switch (this.reason._tag) {
      case "Malformed":
        return `malformed message: ${this.reason.detail}`
      case "TooLarge":
        return `message of ${this.reason.bytes} bytes is over the limit of ${this.reason.limit}`
      case "Late":
        return `the message was not complete within ${Duration.format(this.reason.after)}`
      case "Refused":
        return `the remote refused the request: ${this.reason.code}`
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// ping
// ---------------------------------------------------------------------------------------------------------------------

/** The peer did not answer the ping in time. The node itself closes a peer that misses several pings in a row. */
export class PingTimeout extends Schema.TaggedError<PingTimeout>()("PingTimeout", { after: Schema.Duration }) {
  readonly isRetryable = true
  override get message() {
    return `no answer within ${Duration.format(this.after)}`
  }
}

/** The remote has no ping protocol. It counts as alive as long as its connection stands. */
export class PingUnsupported extends Schema.TaggedError<PingUnsupported>()("PingUnsupported", {}) {
  readonly isRetryable = false
  override get message() {
    return "the remote does not speak /ipfs/ping/1.0.0"
  }
}

/** The peer is not connected, or the ping's stream broke. Connect to the peer first. */
export class StreamFailed
  extends Schema.TaggedError<StreamFailed>()("StreamFailed", { detail: Schema.String, ...cause })
{
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/** A ping had no answer. `reason` says why. */
export class PingError extends Schema.TaggedError<PingError>()("PingError", {
  peer: PeerId,
  reason: Schema.Union([PingTimeout, PingUnsupported, StreamFailed])
}) {
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
  override get message() {
    return `ping ${this.peer}: ${this.reason.message}`
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// dht
// ---------------------------------------------------------------------------------------------------------------------

/** This node has no DHT: it was started with the option `dht` off. */
export class DhtOff extends Schema.TaggedError<DhtOff>()("DhtOff", {}) {
  readonly isRetryable = false
  override get message() {
    return "this node has no DHT; start it with the option dht set to server or client"
  }
}

/** The routing table of the DHT is empty, so there is no peer to ask. Connect to a peer that speaks the DHT first. */
export class NoPeers extends Schema.TaggedError<NoPeers>()("NoPeers", {}) {
  readonly isRetryable = true
  override get message() {
    return "no peer of the DHT is known; connect to one first"
  }
}

/** The lookup did not end in time. Retry: the peers that answered are known by then. */
export class QueryTimeout extends Schema.TaggedError<QueryTimeout>()("QueryTimeout", { after: Schema.Duration }) {
  readonly isRetryable = true
  override get message() {
    return `the lookup did not end within ${Duration.format(this.after)}`
  }
}

/** The lookup ended, and no peer that was asked has the record. Retry once somebody has published it. */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { ...cause }) {
  readonly isRetryable = true
  override get message() {
    return "no peer in reach has it"
  }
}

/** The DHT does not take the key, the value or the record. `detail` says why; correct what was given. */
export class RecordInvalid
  extends Schema.TaggedError<RecordInvalid>()("RecordInvalid", { detail: Schema.String, ...cause })
{
  readonly isRetryable = false
  override get message() {
    return this.detail
  }
}

/** The time to live of an announcement is below 1 minute or above 24 hours. `ttl` is what was given. */
export class TtlInvalid extends Schema.TaggedError<TtlInvalid>()("TtlInvalid", { ttl: Schema.String }) {
  readonly isRetryable = false
  override get message() {
    return `a ttl is between 1 minute and 24 hours, not ${this.ttl}`
  }
}

/**
 * Fewer nodes have stored a value, or returned one, than the caller asked for. Copies that were stored stay. Retry,
 * which may reach more nodes, or ask for a lower `quorum`.
 */
export class QuorumFailed extends Schema.TaggedError<QuorumFailed>()("QuorumFailed", {
  /** How many nodes were needed. */
  quorum: Schema.Int,
  /** How many were asked. */
  asked: Schema.Int,
  /** How many of those have stored the value, or returned one. */
  acknowledged: Schema.Int
}) {
  readonly isRetryable = true
  override get message() {
    return `${this.acknowledged} of ${this.asked} nodes asked, where ${this.quorum} were needed`
  }
}

/** The query broke inside the DHT. `detail` and `cause` say where. Retry; if it happens again, report it. */
export class QueryFailed extends Schema.TaggedError<QueryFailed>()("QueryFailed", { detail: Schema.String, ...cause }) {
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/**
 * An operation on the DHT failed. `operation` is a member of `Dht`, or one that a program's own implementation adds;
 * `subject` is the key or the peer id, and may be empty; `reason` says why and what to do.
 */
export class DhtError extends Schema.TaggedError<DhtError>()("DhtError", {
  operation: Schema.String,
  subject: Schema.String,
  reason: Schema.Union([DhtOff, NoPeers, QueryTimeout, NotFound, RecordInvalid, TtlInvalid, QuorumFailed, QueryFailed])
}) {
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
  override get message() {
    // The path of a value is any text.
    const subject = this.subject === "" ? "" : ` ${shortened(this.subject)}`
    return `${this.operation}${subject}: ${this.reason.message.replace(/\s+/g, " ")}`
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// start and persistence
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Options are wrong. `problems` has a line for each wrong or unknown option, which names it and says what is expected.
 */
export class ConfigError
  extends Schema.TaggedError<ConfigError>()("ConfigError", { problems: Schema.Array(Schema.String) })
{
  readonly isRetryable = false
  override get message() {
    return `invalid options: ${this.problems.join("; ")}`
  }
}

/**
 * A part of the libp2p node could not be built or started: a port in use, an address that this machine does not have, a
 * package of another version than expected. `module` names the part.
 */
export class HostError
  extends Schema.TaggedError<HostError>()("HostError", { module: Schema.String, detail: Schema.String, ...cause })
{
  readonly isRetryable = true
  override get message() {
    return `${this.module}: ${this.detail}`
  }
}

/**
 * The file of the private key cannot be read, written or understood. Check its permissions. A new key is a new peer id.
 */
export class IdentityError extends Schema.TaggedError<IdentityError>()("IdentityError", {
  path: Schema.String,
  detail: Schema.String,
  ...cause
}) {
  readonly isRetryable = false
  override get message() {
    return `identity ${this.path}: ${this.detail}`
  }
}

/**
 * The data directory cannot be created, read or written, or another process uses it. Give each node a directory of its
 * own.
 */
export class DataDirectoryError extends Schema.TaggedError<DataDirectoryError>()("DataDirectoryError", {
  path: Schema.String,
  detail: Schema.String,
  ...cause
}) {
  readonly isRetryable = false
  override get message() {
    return `data directory ${this.path}: ${this.detail}`
  }
}

/**
 * The records of known peers could not be read or written. Check the disk and the permissions of the data directory.
 */
export class PeerStoreError
  extends Schema.TaggedError<PeerStoreError>()("PeerStoreError", { operation: Schema.String, ...cause })
{
  readonly isRetryable = true
  override get message() {
    const why = this.cause instanceof Error ? `: ${this.cause.message}` : ""
    return `peer store: ${this.operation} failed${why}; check that the data directory can be read and written`
  }
}

/** The node could not start. `reason` is the error of the part that failed. */
export class NetworkStartError extends Schema.TaggedError<NetworkStartError>()("NetworkStartError", {
  reason: Schema.Union([
    ConfigError,
    HostError,
    IdentityError,
    DataDirectoryError,
    PeerStoreError,
    DialError,
    ProtocolError
  ])
}) {
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
  override get message() {
    return `cannot start: ${this.reason.message}`
  }
}

/** Any error of the library. */
export type NetworkError =
  | InvalidPeerId
  | InvalidContentKey
  | ConnectError
  | PeerNotConnected
  | StreamError
  | ProtocolError
  | MessageError
  | PingError
  | DhtError
  | NetworkStartError
