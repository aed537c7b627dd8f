/**
 * A `PeerTable` whose entries are scopes.
 *
 * Every transition of the map is one synchronous step, so that no two fibers can interleave in it and the gate can ask without suspending;
 * what takes time (a goodbye, closing connections) happens after the step, to an entry that is no longer in the map. The limits therefore
 * hold at every instant.
 *
 * Idleness is one fiber for all peers, which sleeps until the first of them may be idle: a peer that is kept or has streams costs no wake.
 */
import { Clock, DateTime, Duration, Effect, Exit, Fiber, FiberSet, Latch, Layer, Metric, Schema, Scope } from "effect"
import { PeerLimitExceeded, PeerNotConnected } from "../../schema/NetworkError.ts"
import type { DisconnectReason, RefusalReason } from "../../schema/NetworkEvent.ts"
import { GoodbyeReason, PeerConnected, PeerDisconnected, PeerIdentified } from "../../schema/NetworkEvent.ts"
import type { Interest, PeerId, RemoteIdentity } from "../../schema/Peer.ts"
import { PeerInfo } from "../../schema/Peer.ts"
import { EvictionPolicy } from "../../services/EvictionPolicy.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import * as NetworkMetrics from "../../services/NetworkMetrics.ts"
import { PeerTable, type Released } from "../../services/PeerTable.ts"
import { Shutdown } from "../../services/Shutdown.ts"
import { type Connection, Transport } from "../../services/Transport.ts"
import * as CodioRequests from "../codio/CodioRequests.ts"
import * as PeerConnections from "./Connections.ts"
import * as PeerPlaces from "./Slots.ts"
import * as Pulse from "../Pulse.ts"

/** Connections of one peer. Two come of dialling each other at once, a third of a relay; a remote with more takes what others need. */
const connectionsMax = 8

interface Entry extends PeerPlaces.Occupant {
  readonly scope: Scope.Closeable
  readonly connections: PeerConnections.PeerConnections
  /** Opened when `PeerConnected` is published, so that `PeerDisconnected` may be, and when that is, so that the peer may come again. */
  readonly announced: Latch.Latch
  readonly parted: Latch.Latch
  roundTripTime: Duration.Duration | undefined
  remote: RemoteIdentity | undefined
  expected: { readonly reason: DisconnectReason; readonly remoteReason: GoodbyeReason | undefined } | undefined
}

type Task = (entry: Entry) => Effect.Effect<void>

/** The `PeerTable` in which each peer has a scope of its own. */
export const make = Effect.gen(function*() {
  const config = yield* NetworkConfig
  const { connectionIdleTimeout } = config
  const policy = yield* EvictionPolicy
  const events = yield* NetworkEvents
  const shutdown = yield* Shutdown
  const transport = yield* Transport
  const idleMillis = Duration.toMillis(connectionIdleTimeout)

  const entries = new Map<PeerId, Entry>()
  const ranks = new Map<PeerId, Interest>()
  // Never admitted again; those among them that this side let go on purpose.
  const departed = new WeakSet<Connection>()
  const dismissed = new WeakMap<Connection, GoodbyeReason>()
  /** Entries that have left the map, until that is published. */
  const leaving = new Map<PeerId, Entry>()
  /** What closes them beside everything else. */
  const closing = new Set<Fiber.Fiber<void>>()
  const tasks = new Set<Task>()
  const barred = new Map<PeerId, number>()
  // Open while nobody can become idle, so that the fiber that looks for idle peers has nothing to sleep until.
  const mayIdle = Latch.makeUnsafe(false)
  let closed = false

  const rankOf = (peer: PeerId): Interest => ranks.get(peer) ?? "transient"

  const streams = Effect.fnUntraced(function*(entry: Entry) {
    let active = 0
    for (const connection of entry.connections.all()) active += yield* connection.activeStreams
    return active
  })

  const places = PeerPlaces.make({ config, policy, entries, ranks, isBusy: (entry) => isBusy(entry) })

  const isBusy = Effect.fnUntraced(function*(entry: Entry) {
    return entry.holds + entry.attends > 0 || (yield* streams(entry)) > 0
  })

  const reserve: PeerTable["Service"]["reserve"] = (connection) =>
    Effect.suspend(() => {
      if (closed) return Effect.succeed<RefusalReason>("shutdown")
      if (barred.has(connection.peer)) return Effect.succeed<RefusalReason>("blocked")
      const entry = entries.get(connection.peer)
      if (entry !== undefined && entry.connections.size() >= connectionsMax) {
        return Effect.succeed<RefusalReason>("connections")
      }
      return places.reserve(connection)
    })

  const info = Effect.fnUntraced(function*(entry: Entry) {
    const now = yield* Clock.currentTimeMillis
    const connections = yield* entry.connections.best
    const all = entry.connections.all()
    const first = connections[0] ?? all[0]
    const busy = yield* isBusy(entry)
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

  /** The step that takes an entry out of the map. `close` follows. */
  const leave = (entry: Entry): void => {
    entries.delete(entry.id)
    leaving.set(entry.id, entry)
  }

  /** What follows the step that took the entry out of the map. */
  const close = Effect.fnUntraced(function*(entry: Entry, reason: DisconnectReason, remoteReason?: GoodbyeReason) {
    const now = yield* Clock.currentTimeMillis
    for (const connection of entry.connections.all()) {
      departed.add(connection)
      if (isGoodbyeReason(reason)) dismissed.set(connection, reason)
    }
    yield* Metric.modify(NetworkMetrics.peers, -1)
    yield* entry.announced.await
    yield* events.publish(
      new PeerDisconnected({
        peer: entry.id,
        reason,
        ...(remoteReason === undefined ? {} : { remoteReason }),
        connectionDuration: Duration.millis(now - entry.connectedAt)
      }, unchecked)
    )
    if (leaving.get(entry.id) === entry) leaving.delete(entry.id)
    yield* entry.parted.open
    if (isGoodbyeReason(reason)) {
      const [connection] = yield* entry.connections.best
      const goodbye = connection === undefined ? Effect.void : CodioRequests.goodbye(connection, reason)
      yield* reason === "shutdown" ? shutdown.part("goodbyes", goodbye) : goodbye
    }
    if (reason === "shutdown") yield* shutdown.part(`streams of ${entry.id}`, flushed(entry), "most")
    const end = Scope.close(entry.scope, Exit.void)
    yield* reason === "shutdown" ? shutdown.part("connections of peers", end) : end
  }, Effect.uninterruptible)

  /**
   * Closes it in a fiber of its own. A scope that closes meanwhile would not let the fiber begin, and the connections would stay, with all who
   * wait for the peer to have parted; so the table waits for it when it ends.
   */
  const closeApart = (entry: Entry, reason: DisconnectReason) =>
    Effect.map(Effect.forkDetach(close(entry, reason)), (fiber) => {
      closing.add(fiber)
      fiber.addObserver(() => closing.delete(fiber))
    })

  const remove = Effect.fnUntraced(function*(peer: PeerId, reason: DisconnectReason) {
    const entry = entries.get(peer)
    if (entry === undefined) return false
    leave(entry)
    yield* close(entry, reason)
    return true
  }, Effect.uninterruptible)

  const release = Effect.fnUntraced(function*(connection: Connection): Effect.fn.Return<Released> {
    departed.add(connection)
    const entry = entries.get(connection.peer)
    if (entry === undefined || !entry.connections.remove(connection)) {
      // What it had reserved and did not come to use.
      places.cancel(connection.peer)
      const reason = dismissed.get(connection)
      return reason === undefined ? { kind: "unknown" } : { kind: "removed", reason }
    }
    if (entry.connections.size() > 0) {
      entry.networks = entry.connections.networks()
      yield* entry.connections.tell
      return { kind: "other" }
    }
    leave(entry)
    yield* entry.connections.tell
    const farewell = yield* connection.farewell
    const { reason, remoteReason } = entry.expected ?? (farewell === undefined
      ? { reason: "lost", remoteReason: undefined } as const
      : { reason: "remote", remoteReason: farewell === "full" ? "evicted" : farewell } as const)
    yield* close(entry, reason, remoteReason)
    return { kind: "last", reason, remoteReason }
  }, Effect.uninterruptible)

  const isExempt = (entry: Entry) => entry.holds + entry.attends > 0 || rankOf(entry.id) === "kept"

  /** Closes who is idle, for ever. A peer's time is never brought forward, so that the first one's is the time of the next look. */
  const closeIdle = Effect.gen(function*() {
    while (true) {
      yield* mayIdle.close
      const now = yield* Clock.currentTimeMillis
      let next = Number.POSITIVE_INFINITY
      for (const entry of [...entries.values()]) {
        if (isExempt(entry)) continue
        if (entry.idleSince + idleMillis - now < toleranceMillis) {
          const active = yield* streams(entry)
          // Asking may have taken more than one step.
          if (entries.get(entry.id) !== entry || isExempt(entry)) continue
          if (active === 0) {
            leave(entry)
            yield* closeApart(entry, "idle")
            continue
          }
          // A stream that the library did not open, such as a relay's: nobody tells when it ends, so its time starts over.
          entry.idleSince = now
        }
        next = Math.min(next, entry.idleSince + idleMillis)
      }
      yield* next === Number.POSITIVE_INFINITY ? mayIdle.await : Effect.sleep(next - now)
    }
  })

  const admit = Effect.fnUntraced(function*(
    connection: Connection
  ): Effect.fn.Return<void, PeerLimitExceeded | PeerNotConnected> {
    const { peer } = connection
    const candidates = places.hasRoom(connection) ? [] : yield* places.victims(connection)
    const now = yield* Clock.currentTimeMillis
    const path = yield* connection.path
    const isOpen = yield* connection.isOpen
    // From here to the next question all is one step: what was looked at before may have changed.
    if (closed || barred.has(peer) || departed.has(connection) || !isOpen) {
      return yield* new PeerNotConnected({ peer }, unchecked)
    }
    const present = entries.get(peer)
    if (present?.connections.has(connection) === true) return
    const room = places.makeRoom(connection, candidates)
    if (room.exceeded !== undefined) {
      const { most, name } = room.exceeded
      return yield* new PeerLimitExceeded({ peer, limit: most, rule: name }, unchecked)
    }
    for (const victim of room.evicted) leave(victim)
    const entry = present ?? newEntry(connection, now)
    const former = leaving.get(peer)
    entry.connections.add(connection, path._tag === "Direct")
    entry.networks = entry.connections.networks()
    entries.set(peer, entry)
    places.settle(peer)
    yield* entry.connections.tell
    // A slow goodbye to an evicted peer delays nobody.
    for (const victim of room.evicted) yield* closeApart(victim, "evicted")
    if (present !== undefined) return yield* Effect.asVoid(Effect.forkIn(entry.connections.settle, entry.scope))
    yield* mayIdle.open
    yield* Scope.addFinalizer(entry.scope, closeAll(entry))
    yield* Metric.modify(NetworkMetrics.peers, 1)
    if (former !== undefined) yield* former.parted.await
    yield* events.publish(
      new PeerConnected({
        peer,
        address: connection.remoteAddress,
        direction: connection.direction,
        interest: rankOf(peer)
      }, unchecked)
    )
    yield* entry.announced.open
    for (const task of tasks) yield* task(entry)
    // It may have closed since it was asked; its `Closed` may have passed already.
    if (!(yield* connection.isOpen)) {
      yield* release(connection)
      return yield* new PeerNotConnected({ peer }, unchecked)
    }
  }, Effect.uninterruptible)

  const newEntry = ({ direction, peer }: Connection, now: number): Entry => ({
    id: peer,
    scope: Scope.makeUnsafe("parallel"),
    connections: PeerConnections.make(transport.localPeer, peer),
    announced: Latch.makeUnsafe(false),
    parted: Latch.makeUnsafe(false),
    isInbound: direction === "inbound",
    networks: new Set(),
    connectedAt: now,
    holds: 0,
    attends: 0,
    idleSince: now,
    roundTripTime: undefined,
    remote: undefined,
    expected: undefined
  })

  // Both are bounded by the connections that one peer may have.
  const flushed = (entry: Entry) =>
    Effect.suspend(() =>
      Effect.forEach(entry.connections.all(), (connection) => connection.flushed, {
        concurrency: "unbounded",
        discard: true
      })
    )
  const closeAll = (entry: Entry) =>
    Effect.suspend(() =>
      Effect.forEach(entry.connections.all(), (connection) => connection.close, {
        concurrency: "unbounded",
        discard: true
      })
    )

  /** Counts a user of the peer for as long as the scope lives, on the connection that is given or the best one. */
  const use = (peer: PeerId, count: PeerConnections.Use, given?: Connection) =>
    Effect.acquireRelease(
      Effect.gen(function*() {
        const entry = entries.get(peer)
        if (entry === undefined) return yield* new PeerNotConnected({ peer }, unchecked)
        const connection = given ?? (yield* entry.connections.best)[0]
        if (entries.get(peer) !== entry || connection === undefined || !entry.connections.has(connection)) {
          return yield* new PeerNotConnected({ peer }, unchecked)
        }
        entry[count]++
        entry.connections.begin(connection, count)
        return { entry, connection }
      }),
      Effect.fnUntraced(function*({ connection, entry }) {
        entry[count]--
        yield* entry.connections.end(connection, count)
        if (entry.holds + entry.attends > 0) return
        entry.idleSince = yield* Clock.currentTimeMillis
        yield* mayIdle.open
      })
    )

  const follow = Effect.fnUntraced(function*(peer: PeerId, body: (connection: Connection) => Effect.Effect<void>) {
    while (true) {
      const entry = entries.get(peer)
      const [connection] = entry === undefined ? [] : yield* entry.connections.best
      if (entry === undefined || connection === undefined) return
      const isAnother = Effect.map(entry.connections.best, ([best]) => best !== connection)
      const isMoved = yield* Effect.raceFirst(
        Effect.as(body(connection), false),
        Effect.as(Pulse.until(entry.connections.changed, isAnother), true)
      )
      if (!isMoved) return
    }
  })

  const rank = (peer: PeerId, interest: Interest) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const former = rankOf(peer)
      if (interest === "transient") ranks.delete(peer)
      else ranks.set(peer, interest)
      const entry = entries.get(peer)
      if (entry === undefined || former !== "kept" || interest === "kept") return Effect.void
      // Exempt until now, so its idle time begins now.
      entry.idleSince = now
      return mayIdle.open
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
    // Both below and in `admit`, for a peer that comes in the middle.
    const begun = new WeakSet<Entry>()
    const task: Task = Effect.fnUntraced(function*(entry) {
      if (begun.has(entry)) return
      begun.add(entry)
      const fiber = yield* Effect.forkIn(body(entry.id), entry.scope)
      yield* FiberSet.add(fibers, fiber)
    })
    yield* Effect.acquireRelease(Effect.sync(() => tasks.add(task)), () => Effect.sync(() => tasks.delete(task)))
    yield* Effect.forEach([...entries.values()], task, { discard: true })
  })

  if (Number.isFinite(idleMillis)) yield* Effect.forkScoped(closeIdle)

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closed = true
      const all = [...entries.values()]
      for (const entry of all) leave(entry)
      // Bounded by `maxPeers`.
      return Effect.forEach(all, (entry) => close(entry, "shutdown"), { concurrency: "unbounded", discard: true })
    }).pipe(
      Effect.andThen(shutdown.part("connections of peers", Effect.suspend(() => Fiber.awaitAll([...closing]))))
    )
  )

  return PeerTable.of({
    accepts: places.accepts,
    refuses: Effect.fnUntraced(function*(peer) {
      if (closed) return "shutdown"
      if (barred.has(peer)) return "blocked"
      return (yield* places.isFullFor(peer)) ? "full" : undefined
    }),
    reserve,
    admit,
    release,
    hold: (peer) => Effect.map(use(peer, "holds"), ({ connection }) => connection),
    attend: (connection) => Effect.asVoid(use(connection.peer, "attends", connection)),
    follow,
    retire: (connection) =>
      Effect.suspend(() => entries.get(connection.peer)?.connections.retire(connection) ?? Effect.succeed(false)),
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
        return entry === undefined ? Effect.succeed([]) : entry.connections.best
      }),
    has: (peer) => Effect.sync(() => entries.has(peer)),
    get: (peer) =>
      Effect.suspend(() => {
        const entry = entries.get(peer)
        return entry === undefined ? Effect.succeedNone : Effect.asSome(info(entry))
      }),
    peers: Effect.suspend(() => Effect.forEach([...entries.values()], info)),
    size: Effect.sync(() => entries.size),
    slots: places.slots
  })
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<PeerTable, never, NetworkConfig | NetworkEvents | Transport> = Layer.effect(
  PeerTable,
  make
)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// What the table makes is of values that were checked when they came in; checking a peer id decodes it.
const unchecked = { disableChecks: true }

const isGoodbyeReason = Schema.is(GoodbyeReason)

// A clock that stands at a fraction of a millisecond misses a sum of fractions by a rounding error.
const toleranceMillis = 0.001
