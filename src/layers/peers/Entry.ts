/**
 * A connected peer, as the peer table holds it.
 */
import { Clock, type DateTime, Duration, Effect, Latch, Scope } from "effect"
import type { Interest, Path, PeerId, RemoteIdentity } from "../../schema/Peer.ts"
import { PeerInfo } from "../../schema/Peer.ts"
import type { Departure } from "../../services/PeerTable.ts"
import type { Connection } from "../../services/Transport.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import * as Connections from "./Connections.ts"
import type { Occupant } from "./Slots.ts"

export interface Entry extends Occupant {
  /** The peer's life: its tasks run in it, and its end closes the connections. */
  readonly scope: Scope.Closeable
  readonly connections: Connections.PeerConnections
  /** The date of `connectedAt`. Kept, so that it is the same whenever it is asked. */
  readonly connectedOn: DateTime.Utc
  /** Opened when `PeerConnected` is published. `PeerDisconnected` waits for it. */
  readonly announced: Latch.Latch
  /** Opened when `PeerDisconnected` is published. The next `PeerConnected` of the same peer waits for it. */
  readonly parted: Latch.Latch
  roundTripTime: Duration.Duration | undefined
  remote: RemoteIdentity | undefined
  /** The path that was told last. */
  path: Path
  /** The reason to report if the connections close next; set by `PeerTable.expect`. */
  expected: Departure | undefined
}

/** An entry without connections, made of the peer's first one. */
export const make = (
  local: PeerId,
  { direction, peer }: Connection,
  path: Path,
  clock: Clock.Clock,
  now: number
): Entry => ({
  id: peer,
  scope: Scope.makeUnsafe("parallel"),
  connections: Connections.make(local, peer),
  announced: Latch.makeUnsafe(false),
  parted: Latch.makeUnsafe(false),
  isInbound: direction === "inbound",
  networks: new Set(),
  connectedAt: now,
  connectedOn: Elapsed.dateOf(clock, now),
  holds: 0,
  attends: 0,
  remoteKeeps: 0,
  idleSince: now,
  roundTripTime: undefined,
  remote: undefined,
  path,
  expected: undefined
})

/** Streams that are open on the peer's connections, whoever opened them. */
export const activeStreams = Effect.fnUntraced(function*({ connections }: Entry) {
  let active = 0
  for (const connection of connections.all()) active += yield* connection.activeStreams
  return active
})

/** Whether a stream is open, or is being opened. */
export const isBusy = Effect.fnUntraced(function*(entry: Entry) {
  return entry.holds + entry.attends > 0 || (yield* activeStreams(entry)) > 0
})

/** As {@link isBusy}, besides the streams by which the remote's program keeps this node. */
export const isBusyBesidesKeep = Effect.fnUntraced(function*(entry: Entry) {
  const { attends, holds, remoteKeeps } = entry
  return holds > 0 || attends > remoteKeeps || (yield* activeStreams(entry)) > remoteKeeps
})

/** Closes the peer's connections. */
export const closeConnections = (entry: Entry) =>
  eachConnection(entry, (connection) => Supervised.once("the close of a connection", connection.close))

/** Completes when the remote has what was written to streams that are closed. */
export const flushed = (entry: Entry) => eachConnection(entry, (connection) => connection.flushed)

/** What the table tells others of the peer. */
export const infoOf = Effect.fnUntraced(function*(entry: Entry, interest: Interest) {
  const clock = yield* Clock.Clock
  const now = Elapsed.millisUnsafe(clock)
  const [best] = yield* entry.connections.best
  const all = entry.connections.all()
  const busy = yield* isBusy(entry)
  const { connectedAt, connectedOn, idleSince, remote, roundTripTime } = entry
  return new PeerInfo({
    id: entry.id,
    addresses: all.map((connection) => connection.remoteAddress),
    direction: all[0]?.direction ?? "outbound",
    path: (yield* (best ?? all[0])?.path ?? Effect.undefined) ?? entry.path,
    interest,
    connectedAt: connectedOn,
    ...(busy ? {} : { idleSince: Elapsed.dateOf(clock, idleSince) }),
    connectionDuration: Duration.millis(now - connectedAt),
    idleDuration: busy ? Duration.zero : Duration.millis(now - idleSince),
    ...(roundTripTime === undefined ? {} : { roundTripTime }),
    protocolVersion: remote?.protocolVersion ?? "",
    agentVersion: remote?.agentVersion ?? "",
    protocols: remote?.protocols ?? [],
    listenAddresses: remote?.listenAddresses ?? [],
    ...(remote?.observedAddress === undefined ? {} : { observedAddress: remote.observedAddress })
  }, unchecked)
})

/** Inputs were validated on entry; validating a `PeerId` again would decode it again. */
export const unchecked = { disableChecks: true }

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const eachConnection = (entry: Entry, body: (connection: Connection) => Effect.Effect<void>) =>
  Effect.suspend(() =>
    // Bounded by the connections that one peer may have.
    Effect.forEach(entry.connections.all(), body, { concurrency: "unbounded", discard: true })
  )
