/**
 * What happens in a node, for observers. Events inform: no part of the library acts on them.
 *
 * `JSON.stringify` prints an event with its `_tag`, durations as milliseconds under `...Millis`, times as ISO 8601.
 */
import { Schema } from "effect"
import { plain } from "./Json.ts"
import { Direction, Interest, Multiaddr, Path, PeerId } from "./Peer.ts"

/**
 * Why a peer left the table.
 *
 * - `idle`, `evicted`, `disconnect`, `blocked`, `shutdown`: this side closed, for that reason.
 * - `unhealthy`: this side closed after unanswered pings.
 * - `remote`: the remote said goodbye; its own reason is in `remoteReason`.
 * - `lost`: the connection ended without a goodbye: the remote crashed, the network failed, or the remote's software
 *   sends none.
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

/** The reason that a remote may give with its goodbye. */
export const GoodbyeReason = Schema.Literals(["idle", "evicted", "disconnect", "blocked", "shutdown"])
export type GoodbyeReason = typeof GoodbyeReason.Type

/**
 * Why this node refused a connection.
 *
 * - `full`, `inbound`, `subnet`: `maxPeers`, `maxInboundPeers` or `maxPeersPerSubnet` is reached, and no peer may be
 *   evicted.
 * - `connections`: the peer has two connections already, or three while they become one.
 * - `promised`: such a limit is reached only because slots are promised to peers that are being connected. A promise
 *   lasts for three seconds at most, and is not always taken up.
 * - `blocked`: the program blocks the peer. `shutdown`: the node is stopping.
 * - `pending`: too many handshakes at a time. `rate`: too many connections from one host. The peer's id is not known
 *   yet.
 */
export const RefusalReason = Schema.Literals([
  "full",
  "promised",
  "inbound",
  "subnet",
  "connections",
  "blocked",
  "shutdown",
  "pending",
  "rate"
])
export type RefusalReason = typeof RefusalReason.Type

/** A source of discovery named a peer for the first time, or named a new address of it. */
export class PeerDiscovered extends Schema.TaggedClass<PeerDiscovered>()("PeerDiscovered", {
  peer: PeerId,
  addresses: Schema.Array(Multiaddr),
  source: Schema.String
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/** A peer connected and took a slot of the table. */
export class PeerConnected extends Schema.TaggedClass<PeerConnected>()("PeerConnected", {
  peer: PeerId,
  address: Multiaddr,
  direction: Direction,
  interest: Interest
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/** The peer answered identify. Follows `PeerConnected`. */
export class PeerIdentified extends Schema.TaggedClass<PeerIdentified>()("PeerIdentified", {
  peer: PeerId,
  protocolVersion: Schema.String,
  agentVersion: Schema.String,
  protocols: Schema.Array(Schema.String),
  /** Where the peer says that it listens. */
  listenAddresses: Schema.Array(Multiaddr),
  /** The address of this node, as the peer sees it; absent where the peer does not say. */
  observedAddress: Schema.optionalKey(Multiaddr)
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/**
 * The path to a connected peer changed: a relayed peer became direct, or the other way, or it is reached through
 * another relay. New streams take the path `to`.
 */
export class PeerPathChanged extends Schema.TaggedClass<PeerPathChanged>()("PeerPathChanged", {
  peer: PeerId,
  from: Path,
  to: Path
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/** A peer disconnected and gave its slot back. `connectionDuration` is how long it was connected. */
export class PeerDisconnected extends Schema.TaggedClass<PeerDisconnected>()("PeerDisconnected", {
  peer: PeerId,
  reason: DisconnectReason,
  remoteReason: Schema.optionalKey(GoodbyeReason),
  connectionDuration: Schema.Duration
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/**
 * This node refused a connection to or from a peer; no slot was taken.
 *
 * Connections that are refused before the handshake, by their address alone, are only counted (`codio_refusals_total`).
 */
export class PeerRefused extends Schema.TaggedClass<PeerRefused>()("PeerRefused", {
  peer: PeerId,
  address: Multiaddr,
  direction: Direction,
  reason: RefusalReason
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/** A dial failed that `connect`, `keep` or discovery asked for. */
export class DialFailed extends Schema.TaggedClass<DialFailed>()("DialFailed", {
  target: Schema.String,
  reason: Schema.String,
  message: Schema.String
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/**
 * A kept or wanted peer will be dialled again after `delay`. `attempt` counts from 1 since the last stable connection.
 */
export class ReconnectScheduled extends Schema.TaggedClass<ReconnectScheduled>()("ReconnectScheduled", {
  peer: PeerId,
  attempt: Schema.Int,
  delay: Schema.Duration
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/** The `ReconnectPolicy` gave up a wanted peer after `attempts` dials. */
export class ReconnectFailed extends Schema.TaggedClass<ReconnectFailed>()("ReconnectFailed", {
  peer: PeerId,
  attempts: Schema.Int
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/** A ping went unanswered. The connection is closed when `misses` reaches the policy's limit. */
export class PeerUnhealthy extends Schema.TaggedClass<PeerUnhealthy>()("PeerUnhealthy", {
  peer: PeerId,
  misses: Schema.Int
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/** A relay gave this node a reservation. `addresses` are those at which the node is reachable through the relay. */
export class RelayReserved extends Schema.TaggedClass<RelayReserved>()("RelayReserved", {
  relay: PeerId,
  addresses: Schema.Array(Multiaddr)
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/** The reservation on a relay ended. The relay is asked again on a schedule. */
export class RelayLost extends Schema.TaggedClass<RelayLost>()("RelayLost", { relay: PeerId }) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/**
 * The node became isolated, or is isolated no longer.
 *
 * A node is isolated when no peer is connected although it knows peers to try, `candidates` in number. It tries them
 * without end.
 */
export class IsolationChanged extends Schema.TaggedClass<IsolationChanged>()("IsolationChanged", {
  isolated: Schema.Boolean,
  candidates: Schema.Int
}) {
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

/** All events of `network.events`. */
export const NetworkEvent = Schema.Union([
  PeerDiscovered,
  PeerConnected,
  PeerIdentified,
  PeerPathChanged,
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
