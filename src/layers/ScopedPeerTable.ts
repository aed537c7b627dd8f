/**
 * A `PeerTable` whose entries are scopes.
 *
 * Every transition of the map is one synchronous step, so that no two fibers can interleave in it and the gate can ask without suspending;
 * what takes time (a goodbye, closing connections) happens after the step, to an entry that is no longer in the map. `maxPeers` therefore
 * holds at every instant.
 */
import { Clock, DateTime, Duration, Effect, Exit, FiberSet, Layer, Metric, Schema, Scope } from "effect"
import { PeerLimitExceeded, PeerNotConnected } from "../schema/NetworkError.ts"
import type { DisconnectReason } from "../schema/NetworkEvent.ts"
import { GoodbyeReason, PeerConnected, PeerDisconnected, PeerIdentified } from "../schema/NetworkEvent.ts"
import type { Direction, Interest, PeerId, RemoteIdentity } from "../schema/Peer.ts"
import { interestRank, PeerInfo } from "../schema/Peer.ts"
import { NetworkConfig } from "../services/NetworkConfig.ts"
import { NetworkEvents } from "../services/NetworkEvents.ts"
import * as NetworkMetrics from "../services/NetworkMetrics.ts"
import { PeerTable, type Released } from "../services/PeerTable.ts"
import type { Connection } from "../services/Transport.ts"
import * as CodioProtocol from "./CodioProtocol.ts"

/** How long a place stays reserved between the gate's yes and the connection: the last step of an upgrade takes a turn, not a second. */
const reservationMillis = 1_000

/** Connections of one peer. Two come of dialling each other at once, a third of a relay; a remote with more takes what others need. */
const connectionsMax = 8

interface Entry {
  readonly id: PeerId
  readonly scope: Scope.Closeable
  /** By connection id, oldest first. */
  readonly connections: Map<string, Connection>
  readonly connectedAt: number
  /** Open scopes of `hold` and of `attend`. */
  holds: number
  attends: number
  idleSince: number
  roundTripTime: Duration.Duration | undefined
  remote: RemoteIdentity | undefined
  expected: { readonly reason: DisconnectReason; readonly remoteReason: GoodbyeReason | undefined } | undefined
}

type Task = (entry: Entry) => Effect.Effect<void>

export const make = Effect.gen(function*() {
  const { connectionIdleTimeout, maxPeers } = yield* NetworkConfig
  const events = yield* NetworkEvents
  const tableScope = yield* Effect.scope
  const idleMillis = Duration.toMillis(connectionIdleTimeout)

  const entries = new Map<PeerId, Entry>()
  const ranks = new Map<PeerId, Interest>()
  const reservations = new Map<PeerId, number>()
  // Never admitted again; those among them that this side let go on purpose.
  const departed = new WeakSet<Connection>()
  const dismissed = new WeakMap<Connection, GoodbyeReason>()
  const tasks = new Set<Task>()
  const barred = new Map<PeerId, number>()
  let closed = false

  const rankOf = (peer: PeerId): Interest => ranks.get(peer) ?? "transient"

  const streams = Effect.fnUntraced(function*(entry: Entry) {
    let active = 0
    for (const connection of entry.connections.values()) active += yield* connection.activeStreams
    return active
  })

  /** Who may be evicted for a peer, the first one first: lowest interest, then without streams, then idle the longest. */
  const victims = Effect.fnUntraced(function*(peer: PeerId, direction: Direction) {
    const rank = interestRank(rankOf(peer))
    const claimed = rank >= interestRank("wanted")
    if (!claimed && direction === "inbound") return []
    const candidates: Array<{ readonly entry: Entry; readonly rank: number; readonly busy: boolean }> = []
    for (const entry of entries.values()) {
      if (entry.holds > 0) continue
      const candidate = {
        entry,
        rank: interestRank(rankOf(entry.id)),
        busy: (yield* streams(entry)) > 0 || entry.attends > 0
      }
      if (claimed ? candidate.rank < rank : candidate.rank === 0 && !candidate.busy) candidates.push(candidate)
    }
    return candidates
      .sort((a, b) => a.rank - b.rank || Number(a.busy) - Number(b.busy) || a.entry.idleSince - b.entry.idleSince)
      .map(({ entry }) => entry)
  })

  const reserve = Effect.fnUntraced(function*(peer: PeerId, direction: Direction) {
    if (closed || barred.has(peer)) return false
    const entry = entries.get(peer)
    if (entry !== undefined) return entry.connections.size < connectionsMax
    const now = yield* Clock.currentTimeMillis
    for (const [other, expires] of reservations) if (expires <= now) reservations.delete(other)
    const missing = entries.size + reservations.size + (reservations.has(peer) ? 0 : 1) - maxPeers
    if (missing > 0 && (yield* victims(peer, direction)).length < missing) return false
    reservations.set(peer, now + reservationMillis)
    return true
  })

  const best = (entry: Entry): Effect.Effect<ReadonlyArray<Connection>> =>
    Effect.gen(function*() {
      const direct: Array<Connection> = []
      const relayed: Array<Connection> = []
      for (const connection of entry.connections.values()) {
        if (yield* connection.isOpen) ((yield* connection.path)._tag === "Direct" ? direct : relayed).push(connection)
      }
      return [...direct, ...relayed]
    })

  const info = Effect.fnUntraced(function*(entry: Entry) {
    const now = yield* Clock.currentTimeMillis
    const connections = yield* best(entry)
    const all = [...entry.connections.values()]
    const first = connections[0] ?? all[0]
    const busy = entry.holds + entry.attends > 0 || (yield* streams(entry)) > 0
    return new PeerInfo({
      id: entry.id,
      addresses: all.map((connection) => connection.remoteAddress),
      direction: all[0]?.direction ?? "outbound",
      path: first === undefined ? { _tag: "Direct" } : yield* first.path,
      interest: rankOf(entry.id),
      connectedAt: DateTime.makeUnsafe(entry.connectedAt),
      ...(busy ? {} : { idleSince: DateTime.makeUnsafe(entry.idleSince) }),
      connectionDuration: Duration.millis(now - entry.connectedAt),
      idleDuration: busy ? Duration.zero : Duration.millis(now - entry.idleSince),
      ...(entry.roundTripTime === undefined ? {} : { roundTripTime: entry.roundTripTime }),
      protocolVersion: entry.remote?.protocolVersion ?? "",
      agentVersion: entry.remote?.agentVersion ?? "",
      protocols: entry.remote?.protocols ?? []
    }, unchecked)
  })

  /** What follows the step that took the entry out of the map. */
  const close = Effect.fnUntraced(function*(entry: Entry, reason: DisconnectReason, remoteReason?: GoodbyeReason) {
    const now = yield* Clock.currentTimeMillis
    for (const connection of entry.connections.values()) {
      departed.add(connection)
      if (isGoodbyeReason(reason)) dismissed.set(connection, reason)
    }
    yield* Metric.modify(NetworkMetrics.peers, -1)
    yield* events.publish(
      new PeerDisconnected({
        peer: entry.id,
        reason,
        ...(remoteReason === undefined ? {} : { remoteReason }),
        connectionDuration: Duration.millis(now - entry.connectedAt)
      }, unchecked)
    )
    if (isGoodbyeReason(reason)) {
      const [connection] = yield* best(entry)
      if (connection !== undefined) yield* CodioProtocol.goodbye(connection, reason)
    }
    yield* Scope.close(entry.scope, Exit.void)
  }, Effect.uninterruptible)

  const remove = Effect.fnUntraced(function*(peer: PeerId, reason: DisconnectReason) {
    const entry = entries.get(peer)
    if (entry === undefined) return false
    entries.delete(peer)
    yield* close(entry, reason)
    return true
  }, Effect.uninterruptible)

  const release = Effect.fnUntraced(function*(connection: Connection): Effect.fn.Return<Released> {
    departed.add(connection)
    const entry = entries.get(connection.peer)
    if (entry === undefined || !entry.connections.delete(connection.id)) {
      const reason = dismissed.get(connection)
      return reason === undefined ? { kind: "unknown" } : { kind: "removed", reason }
    }
    if (entry.connections.size > 0) return { kind: "other" }
    entries.delete(connection.peer)
    const { reason, remoteReason } = entry.expected ?? { reason: "lost", remoteReason: undefined }
    yield* close(entry, reason, remoteReason)
    return { kind: "last", reason, remoteReason }
  }, Effect.uninterruptible)

  const idle: (entry: Entry) => Effect.Effect<void> = Effect.fnUntraced(function*(entry: Entry) {
    let wait = idleMillis
    while (true) {
      yield* Effect.sleep(wait)
      const now = yield* Clock.currentTimeMillis
      if (entry.holds + entry.attends > 0 || rankOf(entry.id) === "kept") {
        wait = idleMillis
      } else if ((yield* streams(entry)) > 0) {
        // A stream that the library did not open, such as a relay's: nobody tells when it ends, so the timer starts over.
        entry.idleSince = now
        wait = idleMillis
      } else {
        wait = entry.idleSince + idleMillis - now
        if (wait <= 0) break
      }
    }
    // The timer runs in the scope that removal closes, so removal is forked into the table's scope. A user may have come meanwhile.
    const end: Effect.Effect<unknown> = Effect.suspend(() => {
      if (entries.get(entry.id) !== entry) return Effect.void
      return entry.holds + entry.attends > 0 ? Effect.forkIn(idle(entry), entry.scope) : remove(entry.id, "idle")
    })
    yield* Effect.forkIn(end, tableScope)
  })

  const admit = Effect.fnUntraced(function*(
    connection: Connection
  ): Effect.fn.Return<void, PeerLimitExceeded | PeerNotConnected> {
    const { peer } = connection
    // The scan may take more than one step; the step below checks the size again.
    const evictable = entries.has(peer) || entries.size < maxPeers ? [] : yield* victims(peer, connection.direction)
    const now = yield* Clock.currentTimeMillis
    if (closed || barred.has(peer) || departed.has(connection) || !(yield* connection.isOpen)) {
      return yield* new PeerNotConnected({ peer }, unchecked)
    }
    let entry = entries.get(peer)
    if (entry !== undefined) {
      entry.connections.set(connection.id, connection)
      return
    }
    let evicted: Entry | undefined
    if (entries.size >= maxPeers) {
      evicted = evictable.find((victim) => entries.get(victim.id) === victim && victim.holds === 0)
      if (evicted === undefined) return yield* new PeerLimitExceeded({ peer, limit: maxPeers })
      entries.delete(evicted.id)
    }
    entry = {
      id: peer,
      scope: Scope.makeUnsafe("parallel"),
      connections: new Map([[connection.id, connection]]),
      connectedAt: now,
      holds: 0,
      attends: 0,
      idleSince: now,
      roundTripTime: undefined,
      remote: undefined,
      expected: undefined
    }
    entries.set(peer, entry)
    reservations.delete(peer)
    yield* Scope.addFinalizer(entry.scope, closeAll(entry))
    yield* Metric.modify(NetworkMetrics.peers, 1)
    // A slow goodbye to the evicted peer delays nobody.
    if (evicted !== undefined) yield* Effect.forkIn(close(evicted, "evicted"), tableScope)
    yield* events.publish(
      new PeerConnected({
        peer,
        address: connection.remoteAddress,
        direction: connection.direction,
        interest: rankOf(peer)
      }, unchecked)
    )
    if (Number.isFinite(idleMillis)) yield* Effect.forkIn(idle(entry), entry.scope)
    for (const task of tasks) yield* task(entry)
    // It may have closed since it was asked; its `Closed` may have passed already.
    if (!(yield* connection.isOpen)) {
      yield* release(connection)
      return yield* new PeerNotConnected({ peer }, unchecked)
    }
  }, Effect.uninterruptible)

  // Bounded by the connections that one peer may have.
  const closeAll = (entry: Entry) =>
    Effect.suspend(() =>
      Effect.forEach([...entry.connections.values()], (connection) => connection.close, {
        concurrency: "unbounded",
        discard: true
      })
    )

  /** Counts a user of the peer for as long as the scope lives, and gives the peer's best connection. */
  const use = (peer: PeerId, count: "holds" | "attends") =>
    Effect.acquireRelease(
      Effect.gen(function*() {
        const entry = entries.get(peer)
        if (entry === undefined) return yield* new PeerNotConnected({ peer }, unchecked)
        const [connection] = yield* best(entry)
        if (entries.get(peer) !== entry || connection === undefined) {
          return yield* new PeerNotConnected({ peer }, unchecked)
        }
        entry[count]++
        return { entry, connection }
      }),
      ({ entry }) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          entry[count]--
          if (entry[count] < 0) throw new Error(`negative ${count} of ${peer}`)
          if (entry.holds + entry.attends === 0) entry.idleSince = now
        })
    )

  const rank = (peer: PeerId, interest: Interest) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      const former = rankOf(peer)
      if (interest === "transient") ranks.delete(peer)
      else ranks.set(peer, interest)
      // Exempt until now, so its idle time begins now.
      const entry = entries.get(peer)
      if (entry !== undefined && former === "kept" && interest !== "kept") entry.idleSince = now
    })

  const update = (peer: PeerId, change: (entry: Entry) => void) =>
    Effect.sync(() => {
      const entry = entries.get(peer)
      if (entry !== undefined) change(entry)
    })

  const identified = Effect.fnUntraced(function*(peer: PeerId, remote: RemoteIdentity) {
    const entry = entries.get(peer)
    if (entry === undefined || entry.remote !== undefined) return
    entry.remote = remote
    const { agentVersion, protocolVersion, protocols } = remote
    yield* events.publish(new PeerIdentified({ peer, agentVersion, protocolVersion, protocols }, unchecked))
  })

  const eachPeer = Effect.fnUntraced(function*(body: (peer: PeerId) => Effect.Effect<void>) {
    const fibers = yield* FiberSet.make<void>()
    const task: Task = Effect.fnUntraced(function*(entry) {
      const fiber = yield* Effect.forkIn(body(entry.id), entry.scope)
      yield* FiberSet.add(fibers, fiber)
    })
    yield* Effect.acquireRelease(Effect.sync(() => tasks.add(task)), () => Effect.sync(() => tasks.delete(task)))
    yield* Effect.forEach([...entries.values()], task, { discard: true })
  })

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closed = true
      const all = [...entries.values()]
      entries.clear()
      // Bounded by `maxPeers`.
      return Effect.forEach(all, (entry) => close(entry, "shutdown"), { concurrency: "unbounded", discard: true })
    })
  )

  return PeerTable.of({
    reserve,
    admit,
    release,
    hold: (peer) => Effect.map(use(peer, "holds"), ({ connection }) => connection),
    attend: (peer) => Effect.asVoid(use(peer, "attends")),
    bar: (peer) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.sync(() => barred.set(peer, (barred.get(peer) ?? 0) + 1)),
        () =>
          Effect.sync(() => {
            const left = (barred.get(peer) ?? 1) - 1
            if (left === 0) barred.delete(peer)
            else barred.set(peer, left)
          })
      )),
    remove,
    expect: (peer, reason, remoteReason) =>
      update(peer, (entry) => {
        entry.expected = { reason, remoteReason }
      }),
    rank,
    measured: (peer, roundTripTime) =>
      update(peer, (entry) => {
        entry.roundTripTime = roundTripTime
      }),
    identified,
    eachPeer,
    connections: (peer) =>
      Effect.suspend(() => {
        const entry = entries.get(peer)
        return entry === undefined ? Effect.succeed([]) : best(entry)
      }),
    has: (peer) => Effect.sync(() => entries.has(peer)),
    get: (peer) =>
      Effect.suspend(() => {
        const entry = entries.get(peer)
        return entry === undefined ? Effect.succeedNone : Effect.asSome(info(entry))
      }),
    peers: Effect.suspend(() => Effect.forEach([...entries.values()], info)),
    size: Effect.sync(() => entries.size)
  })
})

export const layer: Layer.Layer<PeerTable, never, NetworkConfig | NetworkEvents> = Layer.effect(PeerTable, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// What the table makes is of values that were checked when they came in; checking a peer id decodes it.
const unchecked = { disableChecks: true }

const isGoodbyeReason = Schema.is(GoodbyeReason)
