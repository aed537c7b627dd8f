/**
 * The answers to "why?": what a node knows of one peer, and how it stands itself.
 */
import { Schema } from "effect"
import { DisconnectReason, GoodbyeReason, RefusalReason } from "./NetworkEvent.ts"
import { Direction, Interest, Multiaddr, PeerId } from "./Peer.ts"

/**
 * Who told of an address.
 *
 * - `given`: the program, to `connect` or `keep`.
 * - `worked`: a connection of this node stood there.
 * - any other: the source of the sighting, such as `mdns`, `kad`, `remembered`.
 */
export const AddressSource = Schema.String

/** One address of a peer, and how the last dials of it went. */
export const AddressRecord = Schema.Struct({
  address: Multiaddr,
  source: AddressSource,
  lastSuccess: Schema.optionalKey(Schema.DateTimeUtc),
  lastFailure: Schema.optionalKey(Schema.DateTimeUtc),
  /** Why the last dial of it failed, in words; absent once one has succeeded. */
  problem: Schema.optionalKey(Schema.String),
  /** The address guard keeps this node from dialling it. */
  isGuarded: Schema.Boolean
})
export type AddressRecord = typeof AddressRecord.Type

/** A dial of a peer, all addresses together. */
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
  /** Which side closed it; `unknown` when it ended without a word. */
  by: Schema.Literals(["local", "remote", "unknown"]),
  /** The rule that closed it. */
  reason: DisconnectReason,
  remoteReason: Schema.optionalKey(GoodbyeReason),
  connectionDuration: Schema.Duration
})
export type DisconnectRecord = typeof DisconnectRecord.Type

/** When a dial that failed is tried again. `attempt` counts from 1 since the last stable connection. */
export const RetryRecord = Schema.Struct({ at: Schema.DateTimeUtc, attempt: Schema.Int })
export type RetryRecord = typeof RetryRecord.Type

/**
 * What a node knows of one peer, and what it will do about it. Lists are newest first, the last eight of each.
 */
export class PeerExplanation extends Schema.Class<PeerExplanation>("codio-network/PeerExplanation")({
  id: PeerId,
  /** The answer in one sentence. */
  summary: Schema.String,
  isConnected: Schema.Boolean,
  interest: Interest,
  /** `disconnect` was called, and nobody has asked for the peer since. */
  isSuspended: Schema.Boolean,
  isBlocked: Schema.Boolean,
  /** A dial is under way. */
  isDialing: Schema.Boolean,
  addresses: Schema.Array(AddressRecord),
  dials: Schema.Array(DialRecord),
  refusals: Schema.Array(RefusalRecord),
  lastDisconnect: Schema.optionalKey(DisconnectRecord),
  nextRetry: Schema.optionalKey(RetryRecord),
  /** Discovery leaves the peer alone until then, unless it is seen at a new address. */
  restsUntil: Schema.optionalKey(Schema.DateTimeUtc)
}) {}

/**
 * Why a node is isolated, or is not: it has peers, it has nobody to try, or it tries and nobody answers.
 */
export const Isolation = Schema.TaggedUnion({
  /** At least one peer is connected. */
  Connected: {},
  /** No peer is connected, and there is no address to try: nobody was given, found or remembered, or all left on purpose. */
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

/**
 * How a node stands.
 */
export class NodeStatus extends Schema.Class<NodeStatus>("codio-network/NodeStatus")({
  peer: PeerId,
  addresses: Schema.Array(Multiaddr),
  isolation: Isolation,
  /** Places of the table: how many there are, and how many are in use, by direction and by interest; `reserved` ones are promised. */
  slots: Schema.Struct({
    limit: Schema.Int,
    used: Schema.Int,
    inboundLimit: Schema.Int,
    inbound: Schema.Int,
    reserved: Schema.Int,
    kept: Schema.Int,
    wanted: Schema.Int,
    discovered: Schema.Int,
    transient: Schema.Int
  }),
  /** What is being dialled now. */
  pendingDials: Schema.Array(Schema.String),
  /** Peers that wait for their next dial, the next one first. */
  backoffs: Schema.Array(Schema.Struct({ peer: PeerId, ...RetryRecord.fields })),
  /** Peers that are known, connected or not: at most 4,096. */
  knownPeers: Schema.Int,
  /** Connections refused since the start, by reason. */
  refusals: Schema.Record(Schema.String, Schema.Int)
}) {}
