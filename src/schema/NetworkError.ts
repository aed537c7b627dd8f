/**
 * Every typed error of the library.
 *
 * One error for each operation, with a tagged `reason` where there is more than one way to fail, so that callers write
 * `Effect.catchTag("DialError", ...)` or `Effect.catchReason("DialError", "Unreachable", ...)`. `isRetryable` says whether the same call
 * may succeed later. A message says what was attempted, on what, why it failed and, where something can be done, what. The `cause` is the
 * error of the layer below, kept for logs.
 */
import { Duration, Schema } from "effect"
import { PeerId } from "./Peer.ts"

const cause = { cause: Schema.optionalKey(Schema.Defect()) }

// ---------------------------------------------------------------------------------------------------------------------
// dial
// ---------------------------------------------------------------------------------------------------------------------

/** Nobody answered in time. */
export class DialTimeout extends Schema.TaggedError<DialTimeout>()("DialTimeout", { after: Schema.Duration }) {
  readonly isRetryable = true
  override get message() {
    return `no answer within ${Duration.format(this.after)}`
  }
}

/** Nobody is there, or no address is known: refused by the host, no route, a connection that broke before it stood. */
export class Unreachable extends Schema.TaggedError<Unreachable>()("Unreachable", { detail: Schema.String, ...cause }) {
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/** This node refused its own dial: the peer is blocked, or the node is stopping. */
export class Denied extends Schema.TaggedError<Denied>()("Denied", { detail: Schema.String, ...cause }) {
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/**
 * The remote closed the connection as soon as it stood. `why` is what it said: a node of this library says whether it is full, blocks this
 * node or is stopping; of others nothing may be known.
 */
export class Refused extends Schema.TaggedError<Refused>()("Refused", {
  why: Schema.optionalKey(Schema.Literals(["full", "blocked", "shutdown"])),
  ...cause
}) {
  readonly isRetryable = true
  override get message() {
    switch (this.why) {
      case "full":
        return "the remote refused the connection: it has no place for this peer"
      case "blocked":
        return "the remote refused the connection: it blocks this peer"
      case "shutdown":
        return "the remote refused the connection: it is stopping"
      default:
        return "the remote refused the connection; it may be full or block this peer"
    }
  }
}

/** Somebody else answers at this address. */
export class UnexpectedPeer
  extends Schema.TaggedError<UnexpectedPeer>()("UnexpectedPeer", { expected: PeerId, ...cause })
{
  readonly isRetryable = false
  override get message() {
    return `another peer than ${this.expected} answers there; check the /p2p part of the address`
  }
}

/** The target is this node. */
export class DialedSelf extends Schema.TaggedError<DialedSelf>()("DialedSelf", {}) {
  readonly isRetryable = false
  override get message() {
    return "the target is this node itself"
  }
}

/** The text is no multiaddr, or one for which this node has no transport. */
export class InvalidAddress extends Schema.TaggedError<InvalidAddress>()("InvalidAddress", { detail: Schema.String }) {
  readonly isRetryable = false
  override get message() {
    return this.detail
  }
}

/** Why a dial failed. */
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
 * One reason for several dials that have all failed: a refusal before anything else, since somebody who answers tells more than silence
 * elsewhere; then the reason that all share; else `Unreachable` with the words of each. An `Unreachable` carries the cause.
 */
export const mergeDialReasons = (reasons: ReadonlyArray<DialReason>, cause: Error | undefined): DialReason => {
  const isShared = new Set(reasons.map(({ _tag }) => _tag)).size === 1
  const common = reasons.find(({ _tag }) => _tag === "Denied" || _tag === "Refused") ??
    (isShared ? reasons[0] : undefined)
  if (common !== undefined && common._tag !== "Unreachable") return common
  const detail = [...new Set(reasons.map(({ message }) => message))].join("; ")
  return new Unreachable({ detail, ...(cause === undefined ? {} : { cause }) })
}

/** A dial that gave no connection. `target` is the address or the peer id that was asked for. */
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

/** All `limit` places that `rule` has (`full` is `maxPeers`, the default) are taken by peers that this one may not evict. */
export class PeerLimitExceeded extends Schema.TaggedError<PeerLimitExceeded>()("PeerLimitExceeded", {
  peer: PeerId,
  limit: Schema.Int,
  rule: Schema.optionalKey(Schema.Literals(["full", "inbound", "subnet"]))
}) {
  readonly isRetryable = true
  override get message() {
    const rule = this.rule ?? "full"
    const option = rule === "full" ? "maxPeers" : rule === "inbound" ? "maxInboundPeers" : "maxPeersPerSubnet"
    const whose = rule === "full" ? " peers" : rule === "inbound" ? " for peers that dial in" : " of its subnet"
    return `no place for ${this.peer}: all ${this.limit}${whose} are taken; raise ${option} or disconnect one`
  }
}

/** The peer is not in the table: it never was, or it left. */
export class PeerNotConnected extends Schema.TaggedError<PeerNotConnected>()("PeerNotConnected", { peer: PeerId }) {
  readonly isRetryable = true
  override get message() {
    return `${this.peer} is not connected`
  }
}

/** What `connect` fails with. */
export type ConnectError = DialError | PeerLimitExceeded | PeerNotConnected

// ---------------------------------------------------------------------------------------------------------------------
// streams and protocols
// ---------------------------------------------------------------------------------------------------------------------

/** The stream ended before its time: reset by the remote or by this side, or lost with its connection. */
export class StreamReset extends Schema.TaggedError<StreamReset>()("StreamReset", { detail: Schema.String, ...cause }) {
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/** The remote neither read nor answered in time. */
export class StreamTimeout extends Schema.TaggedError<StreamTimeout>()("StreamTimeout", { after: Schema.Duration }) {
  readonly isRetryable = true
  override get message() {
    return `no progress within ${Duration.format(this.after)}`
  }
}

/** The relay's limit on bytes or time cut the stream. */
export class LimitReached extends Schema.TaggedError<LimitReached>()("LimitReached", { ...cause }) {
  readonly isRetryable = true
  override get message() {
    return "the relay's limit of bytes or time was reached; what was read is incomplete"
  }
}

/** The remote does not speak the protocol. */
export class ProtocolNotSupported
  extends Schema.TaggedError<ProtocolNotSupported>()("ProtocolNotSupported", { ...cause })
{
  readonly isRetryable = false
  override get message() {
    return "the remote does not speak this protocol"
  }
}

/** The stream carries no more writes: `closeWrite` was called, or the stream is over. */
export class WriteAfterEnd extends Schema.TaggedError<WriteAfterEnd>()("WriteAfterEnd", {}) {
  readonly isRetryable = false
  override get message() {
    return "the write side is closed"
  }
}

/** Why a stream failed. */
export const StreamReason = Schema.Union([
  StreamReset,
  StreamTimeout,
  LimitReached,
  ProtocolNotSupported,
  WriteAfterEnd
])
export type StreamReason = typeof StreamReason.Type

/** A stream that could not be opened, read or written. */
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

/** A protocol that cannot be handled or opened: the id is not one, or another handler has it. */
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

/** A message that breaks the rules of its protocol. */
export class MessageError extends Schema.TaggedError<MessageError>()("MessageError", {
  reason: Schema.Union([
    Schema.TaggedStruct("Malformed", { detail: Schema.String }),
    Schema.TaggedStruct("TooLarge", { bytes: Schema.Number, limit: Schema.Number }),
    Schema.TaggedStruct("Refused", { code: Schema.String })
  ])
}) {
  readonly isRetryable = false
  override get message() {
    switch (this.reason._tag) {
      case "Malformed":
        return `malformed message: ${this.reason.detail}`
      case "TooLarge":
        return `message of ${this.reason.bytes} bytes is over the limit of ${this.reason.limit}`
      case "Refused":
        return `the remote refused the request: ${this.reason.code}`
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// ping
// ---------------------------------------------------------------------------------------------------------------------

/** No answer in time. */
export class PingTimeout extends Schema.TaggedError<PingTimeout>()("PingTimeout", { after: Schema.Duration }) {
  readonly isRetryable = true
  override get message() {
    return `no answer within ${Duration.format(this.after)}`
  }
}

/** The remote does not answer pings; it counts as alive. */
export class PingUnsupported extends Schema.TaggedError<PingUnsupported>()("PingUnsupported", {}) {
  readonly isRetryable = false
  override get message() {
    return "the remote does not speak /ipfs/ping/1.0.0"
  }
}

/** The ping's stream broke, or the peer is not connected. */
export class StreamFailed
  extends Schema.TaggedError<StreamFailed>()("StreamFailed", { detail: Schema.String, ...cause })
{
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/** A ping without answer. */
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

/** Nobody can be asked: the routing table is empty. */
export class NoPeers extends Schema.TaggedError<NoPeers>()("NoPeers", {}) {
  readonly isRetryable = true
  override get message() {
    return "no peer of the DHT is known; connect to one first"
  }
}

/** The lookup did not end in time. */
export class QueryTimeout extends Schema.TaggedError<QueryTimeout>()("QueryTimeout", { after: Schema.Duration }) {
  readonly isRetryable = true
  override get message() {
    return `the lookup did not end within ${Duration.format(this.after)}`
  }
}

/** The lookup ended and nobody knew. */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { ...cause }) {
  readonly isRetryable = true
  override get message() {
    return "nobody in reach knows it"
  }
}

/** A key or record that the DHT does not take. */
export class RecordInvalid
  extends Schema.TaggedError<RecordInvalid>()("RecordInvalid", { detail: Schema.String, ...cause })
{
  readonly isRetryable = false
  override get message() {
    return this.detail
  }
}

/** A time to live that no announcement can have. `ttl` is what was given. */
export class TtlInvalid extends Schema.TaggedError<TtlInvalid>()("TtlInvalid", { ttl: Schema.String }) {
  readonly isRetryable = false
  override get message() {
    return `a ttl is between 1 minute and 24 hours, not ${this.ttl}`
  }
}

/**
 * Fewer nodes have stored a value, or given one, than the caller asked for. What was stored stays, and the same call may reach more.
 */
export class QuorumFailed extends Schema.TaggedError<QuorumFailed>()("QuorumFailed", {
  /** How many nodes were needed. */
  quorum: Schema.Int,
  /** How many were asked. */
  asked: Schema.Int,
  /** How many of them have stored the value, or given one. */
  acknowledged: Schema.Int
}) {
  readonly isRetryable = true
  override get message() {
    return `${this.acknowledged} of ${this.asked} nodes asked, where ${this.quorum} were needed`
  }
}

/** The query broke for a reason of the DHT's implementation. */
export class QueryFailed extends Schema.TaggedError<QueryFailed>()("QueryFailed", { detail: Schema.String, ...cause }) {
  readonly isRetryable = true
  override get message() {
    return this.detail
  }
}

/** An operation on the DHT that failed. `subject` is the key or the peer id. */
export class DhtError extends Schema.TaggedError<DhtError>()("DhtError", {
  operation: Schema.Literals([
    "startProviding",
    "stopProviding",
    "findProviders",
    "findPeer",
    "closestPeers",
    "putValue",
    "getValue"
  ]),
  subject: Schema.String,
  reason: Schema.Union([NoPeers, QueryTimeout, NotFound, RecordInvalid, TtlInvalid, QuorumFailed, QueryFailed])
}) {
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
  override get message() {
    return `${this.operation} ${this.subject}: ${this.reason.message}`
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// start and persistence
// ---------------------------------------------------------------------------------------------------------------------

/** Options that do not decode. One problem for each field that is wrong, each naming the field. */
export class ConfigError
  extends Schema.TaggedError<ConfigError>()("ConfigError", { problems: Schema.Array(Schema.String) })
{
  readonly isRetryable = false
  override get message() {
    return `invalid options: ${this.problems.join("; ")}`
  }
}

/** A module of the host that could not be built or started. */
export class HostError
  extends Schema.TaggedError<HostError>()("HostError", { module: Schema.String, detail: Schema.String, ...cause })
{
  readonly isRetryable = true
  override get message() {
    return `${this.module}: ${this.detail}`
  }
}

/** The key file cannot be used or written. */
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

/** The data directory cannot be used, or another process uses it. */
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

/** What is remembered of peers could not be read or written. */
export class PeerStoreError
  extends Schema.TaggedError<PeerStoreError>()("PeerStoreError", { operation: Schema.String, ...cause })
{
  readonly isRetryable = true
  override get message() {
    const why = this.cause instanceof Error ? `: ${this.cause.message}` : ""
    return `peer store: ${this.operation} failed${why}; check that the data directory can be read and written`
  }
}

/** A node that could not start: bad options, an identity or a data directory that cannot be used, a port in use. */
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
  | ConnectError
  | StreamError
  | ProtocolError
  | MessageError
  | PingError
  | DhtError
  | NetworkStartError
