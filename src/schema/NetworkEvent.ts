/**
 * What happens in a node, for observers. No part of the library decides anything from these.
 */
import { Schema } from "effect"
import { Direction, Interest, Multiaddr, PeerId } from "./Peer.ts"

/**
 * Why a peer left the table.
 *
 * - `idle`, `evicted`, `disconnect`, `blocked`, `shutdown`: this side closed, for that reason.
 * - `unhealthy`: this side closed after unanswered pings.
 * - `remote`: the remote said goodbye; its own reason is in `remoteReason`.
 * - `lost`: the connection ended without a word: the remote crashed, the network failed, or the remote's software says no goodbye.
 */
export const DisconnectReason = Schema.Literals([
  "idle",
  "evicted",
  "disconnect",
  "blocked",
  "shutdown",
  "unhealthy",
  "remote",
  "lost"
])
export type DisconnectReason = typeof DisconnectReason.Type

/** What a remote may say when it leaves. */
export const GoodbyeReason = Schema.Literals(["idle", "evicted", "disconnect", "blocked", "shutdown"])
export type GoodbyeReason = typeof GoodbyeReason.Type

/**
 * Why this node refused a connection.
 *
 * - `full`, `inbound`, `subnet`: `maxPeers`, `maxInboundPeers`, `maxPeersPerSubnet`, and nobody may be evicted for the peer.
 * - `connections`: the peer has eight connections already.
 * - `blocked`: the program blocks the peer. `shutdown`: the node is stopping.
 * - `pending`, `rate`: too many handshakes at once, or connections from one host; the peer is not known yet.
 */
export const RefusalReason = Schema.Literals([
  "full",
  "inbound",
  "subnet",
  "connections",
  "blocked",
  "shutdown",
  "pending",
  "rate"
])
export type RefusalReason = typeof RefusalReason.Type

/** A source told of a peer, for the first time or with an address that was not known. */
export class PeerDiscovered extends Schema.TaggedClass<PeerDiscovered>()("PeerDiscovered", {
  peer: PeerId,
  addresses: Schema.Array(Multiaddr),
  source: Schema.String
}) {}

/** A peer took a place in the table. */
export class PeerConnected extends Schema.TaggedClass<PeerConnected>()("PeerConnected", {
  peer: PeerId,
  address: Multiaddr,
  direction: Direction,
  interest: Interest
}) {}

/** Identify answered: what the peer is. Follows `PeerConnected`. */
export class PeerIdentified extends Schema.TaggedClass<PeerIdentified>()("PeerIdentified", {
  peer: PeerId,
  protocolVersion: Schema.String,
  agentVersion: Schema.String,
  protocols: Schema.Array(Schema.String)
}) {}

/** A peer gave its place back. `connectionDuration` is in the past tense: how long it was there. */
export class PeerDisconnected extends Schema.TaggedClass<PeerDisconnected>()("PeerDisconnected", {
  peer: PeerId,
  reason: DisconnectReason,
  remoteReason: Schema.optionalKey(GoodbyeReason),
  connectionDuration: Schema.Duration
}) {}

/**
 * This node refused a connection to or from a peer, which takes no place. What is refused before the handshake, by the address alone, is
 * counted (`codio_refusals_total`) and not told.
 */
export class PeerRefused extends Schema.TaggedClass<PeerRefused>()("PeerRefused", {
  peer: PeerId,
  address: Multiaddr,
  direction: Direction,
  reason: RefusalReason
}) {}

/** A dial of this node failed, asked for by `connect`, by `keep` or by discovery. */
export class DialFailed extends Schema.TaggedClass<DialFailed>()("DialFailed", {
  target: Schema.String,
  reason: Schema.String,
  message: Schema.String
}) {}

/** A kept or wanted peer will be dialled again after `delay`. `attempt` counts from 1 since the last stable connection. */
export class ReconnectScheduled extends Schema.TaggedClass<ReconnectScheduled>()("ReconnectScheduled", {
  peer: PeerId,
  attempt: Schema.Int,
  delay: Schema.Duration
}) {}

/** The policy gave a wanted peer up after so many attempts. */
export class ReconnectFailed extends Schema.TaggedClass<ReconnectFailed>()("ReconnectFailed", {
  peer: PeerId,
  attempts: Schema.Int
}) {}

/** A ping went unanswered. The connection is closed when `misses` reaches the policy's limit. */
export class PeerUnhealthy extends Schema.TaggedClass<PeerUnhealthy>()("PeerUnhealthy", {
  peer: PeerId,
  misses: Schema.Int
}) {}

/** A relay holds a place for this node. */
export class RelayReserved extends Schema.TaggedClass<RelayReserved>()("RelayReserved", {
  relay: PeerId,
  addresses: Schema.Array(Multiaddr)
}) {}

/** A relay no longer holds a place for this node. It is asked again on a schedule. */
export class RelayLost extends Schema.TaggedClass<RelayLost>()("RelayLost", { relay: PeerId }) {}

/**
 * The node lost its last peer although there are peers to try, or has a peer again. While it is isolated it tries all that it knows, without
 * end. `candidates` is how many peers there were to try.
 */
export class IsolationChanged extends Schema.TaggedClass<IsolationChanged>()("IsolationChanged", {
  isolated: Schema.Boolean,
  candidates: Schema.Int
}) {}

/** Everything that `network.events` tells. */
export const NetworkEvent = Schema.Union([
  PeerDiscovered,
  PeerConnected,
  PeerIdentified,
  PeerDisconnected,
  PeerRefused,
  DialFailed,
  ReconnectScheduled,
  ReconnectFailed,
  PeerUnhealthy,
  RelayReserved,
  RelayLost,
  IsolationChanged
])
export type NetworkEvent = typeof NetworkEvent.Type
