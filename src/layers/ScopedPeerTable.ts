/**
 * A `PeerTable` whose entries are scopes.
 *
 * Every transition of the map is one synchronous step, so that no two fibers can interleave in it and the gate can ask without suspending;
 * what takes time (a goodbye, closing connections) happens after the step, to an entry that is no longer in the map. The limits therefore
 * hold at every instant.
 *
 * Idleness is one fiber for all peers, which sleeps until the first of them may be idle: a peer that is kept or has streams costs no wake.
 */
import { Clock, DateTime, Duration, Effect, Exit, FiberSet, Latch, Layer, Metric, Schema, Scope } from "effect"
import { PeerLimitExceeded, PeerNotConnected } from "../schema/NetworkError.ts"
import type { DisconnectReason } from "../schema/NetworkEvent.ts"
import { GoodbyeReason, PeerConnected, PeerDisconnected, PeerIdentified } from "../schema/NetworkEvent.ts"
import type { Interest, Multiaddr, PeerId, RemoteIdentity } from "../schema/Peer.ts"
import { interestRank, PeerInfo } from "../schema/Peer.ts"
import { type EvictionCandidate, EvictionPolicy } from "../services/EvictionPolicy.ts"
import { NetworkConfig } from "../services/NetworkConfig.ts"
import { NetworkEvents } from "../services/NetworkEvents.ts"
import * as NetworkMetrics from "../services/NetworkMetrics.ts"
import { PeerTable, type Released } from "../services/PeerTable.ts"
import { Shutdown } from "../services/Shutdown.ts"
import { type Connection, Transport } from "../services/Transport.ts"
import * as CodioProtocol from "./CodioProtocol.ts"
import * as PeerConnections from "./PeerConnections.ts"
import { countedNetworkOf, limitsFor, missing, type Place } from "./PeerLimits.ts"
import * as Pulse from "./Pulse.ts"

/**
 * How long a place stays reserved between the gate's yes and the admission: of an inbound connection that takes a turn, of an outbound one as
 * long as identify, for which the dial waits 2 s. A connection that closes gives its place back before.
 */
const reservationMillis = { inbound: 1_000, outbound: 3_000 }

/** Connections of one peer. Two come of dialling each other at once, a third of a relay; a remote with more takes what others need. */
const connectionsMax = 8

interface Entry extends Place {
  readonly id: PeerId
  readonly scope: Scope.Closeable
  readonly connections: PeerConnections.PeerConnections
  networks: ReadonlySet<string>
  readonly connectedAt: number
  /** Open scopes of `hold` and of `attend`. */
  holds: number
  attends: number
  idleSince: number
  roundTripTime: Duration.Duration | undefined
  remote: RemoteIdentity | undefined
  expected: { readonly reason: DisconnectReason; readonly remoteReason: GoodbyeReason | undefined } | undefined
}

interface Reservation extends Place {
  readonly expires: number
}

type Task = (entry: Entry) => Effect.Effect<void>

export const make = Effect.gen(function*() {
  const config = yield* NetworkConfig
  const { connectionIdleTimeout, maxPeers } = config
  const evictable = yield* EvictionPolicy
  const events = yield* NetworkEvents
  const shutdown = yield* Shutdown
  const transport = yield* Transport
  const tableScope = yield* Effect.scope
  const idleMillis = Duration.toMillis(connectionIdleTimeout)

  const entries = new Map<PeerId, Entry>()
  const ranks = new Map<PeerId, Interest>()
  const reservations = new Map<PeerId, Reservation>()
  // Never admitted again; those among them that this side let go on purpose.
  const departed = new WeakSet<Connection>()
  const dismissed = new WeakMap<Connection, GoodbyeReason>()
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

  /** Who may be evicted for a connection, the first one first, by the policy. */
  const victims = Effect.fnUntraced(function*({ direction, peer }: Pick<Connection, "peer" | "direction">) {
    const now = yield* Clock.currentTimeMillis
    const candidates: Array<EvictionCandidate> = []
    for (const entry of entries.values()) {
      const interest = rankOf(entry.id)
      if (entry.holds > 0 || interest === "kept" || entry.id === peer) continue
      candidates.push({
        id: entry.id,
        interest,
        direction: entry.isInbound ? "inbound" : "outbound",
        isBusy: (yield* streams(entry)) > 0 || entry.attends > 0,
        idleDuration: Duration.millis(now - entry.idleSince),
        connectionDuration: Duration.millis(now - entry.connectedAt)
      })
    }
    const chosen = evictable(candidates, { id: peer, interest: rankOf(peer), direction })
    // A policy answers with candidates only, whatever it says.
    return chosen.flatMap(({ id }) => {
      const entry = candidates.some((candidate) => candidate.id === id) ? entries.get(id) : undefined
      return entry === undefined ? [] : [entry]
    })
  })

  const limitsOf = ({ direction, remoteAddress }: Pick<Connection, "direction" | "remoteAddress">, present?: Place) =>
    limitsFor(config, { isInbound: direction === "inbound", network: countedNetworkOf(remoteAddress) }, present)

  const forgetExpired = (now: number) => {
    for (const [peer, { expires }] of reservations) if (expires <= now) reservations.delete(peer)
  }

  /** The reservations of all but one peer. */
  function* reservedByOthers(peer?: PeerId): Generator<Place> {
    for (const [other, place] of reservations) if (other !== peer) yield place
  }

  const reserve: PeerTable["Service"]["reserve"] = Effect.fnUntraced(function*(connection) {
    const { direction, peer, remoteAddress } = connection
    if (closed) return "shutdown"
    if (barred.has(peer)) return "blocked"
    const entry = entries.get(peer)
    if (entry !== undefined && entry.connections.size() >= connectionsMax) return "connections"
    const now = yield* Clock.currentTimeMillis
    forgetExpired(now)
    let candidates: ReadonlyArray<Entry> | undefined
    for (const limit of limitsOf(connection, entry)) {
      const need = missing(limit, entries.values(), reservedByOthers(peer))
      if (need <= 0) continue
      candidates ??= yield* victims(connection)
      if (candidates.filter(limit.counts).length < need) return limit.name
    }
    if (entry === undefined) {
      const network = countedNetworkOf(remoteAddress)
      reservations.set(peer, {
        isInbound: direction === "inbound",
        networks: new Set(network === undefined ? [] : [network]),
        expires: now + reservationMillis[direction]
      })
    }
    return undefined
  })

  const accepts = Effect.fnUntraced(function*(remoteAddress: Multiaddr) {
    const [limit] = limitsOf({ direction: "inbound", remoteAddress })
    if (limit?.name !== "subnet") return true
    forgetExpired(yield* Clock.currentTimeMillis)
    if (missing(limit, entries.values(), reservedByOthers()) <= 0) return true
    // It may be a peer for which a place is made, once it has said who it is.
    for (const [peer, interest] of ranks) {
      if (interestRank(interest) >= interestRank("wanted") && !entries.has(peer)) return true
    }
    return false
  })

  const info = Effect.fnUntraced(function*(entry: Entry) {
    const now = yield* Clock.currentTimeMillis
    const connections = yield* entry.connections.best
    const all = entry.connections.all()
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
    for (const connection of entry.connections.all()) {
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
      const [connection] = yield* entry.connections.best
      const goodbye = connection === undefined ? Effect.void : CodioProtocol.goodbye(connection, reason)
      yield* reason === "shutdown" ? shutdown.part("goodbyes", goodbye) : goodbye
    }
    if (reason === "shutdown") yield* shutdown.part(`streams of ${entry.id}`, flushed(entry), "most")
    const end = Scope.close(entry.scope, Exit.void)
    yield* reason === "shutdown" ? shutdown.part("connections of peers", end) : end
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
    if (entry === undefined || !(yield* entry.connections.remove(connection))) {
      // What it had reserved and did not come to use.
      reservations.delete(connection.peer)
      const reason = dismissed.get(connection)
      return reason === undefined ? { kind: "unknown" } : { kind: "removed", reason }
    }
    if (entry.connections.size() > 0) {
      entry.networks = entry.connections.networks()
      return { kind: "other" }
    }
    entries.delete(connection.peer)
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
            entries.delete(entry.id)
            yield* Effect.forkIn(close(entry, "idle"), tableScope)
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
    const isFull = limitsOf(connection, entries.get(peer)).some((limit) => missing(limit, entries.values()) > 0)
    // The scan may take more than one step; the step below looks again.
    const candidates = isFull ? yield* victims(connection) : []
    const now = yield* Clock.currentTimeMillis
    if (closed || barred.has(peer) || departed.has(connection) || !(yield* connection.isOpen)) {
      return yield* new PeerNotConnected({ peer }, unchecked)
    }
    let entry = entries.get(peer)
    if (entry?.connections.has(connection) === true) return
    const evicted = new Set<Entry>()
    for (const limit of limitsOf(connection, entry)) {
      while (missing(limit, remaining(evicted)) > 0) {
        const victim = candidates.find((one) =>
          entries.get(one.id) === one && one.holds === 0 && !evicted.has(one) && limit.counts(one)
        )
        if (victim === undefined) return yield* new PeerLimitExceeded({ peer, limit: limit.most, rule: limit.name })
        evicted.add(victim)
      }
    }
    for (const { id } of evicted) entries.delete(id)
    // A slow goodbye to an evicted peer delays nobody.
    for (const victim of evicted) yield* Effect.forkIn(close(victim, "evicted"), tableScope)
    if (entry !== undefined) {
      yield* entry.connections.add(connection)
      entry.networks = entry.connections.networks()
      return yield* Effect.asVoid(Effect.forkIn(entry.connections.settle, entry.scope))
    }
    entry = {
      id: peer,
      scope: Scope.makeUnsafe("parallel"),
      connections: PeerConnections.make(transport.localPeer, peer),
      isInbound: connection.direction === "inbound",
      networks: new Set(),
      connectedAt: now,
      holds: 0,
      attends: 0,
      idleSince: now,
      roundTripTime: undefined,
      remote: undefined,
      expected: undefined
    }
    yield* entry.connections.add(connection)
    entry.networks = entry.connections.networks()
    entries.set(peer, entry)
    reservations.delete(peer)
    yield* mayIdle.open
    yield* Scope.addFinalizer(entry.scope, closeAll(entry))
    yield* Metric.modify(NetworkMetrics.peers, 1)
    yield* events.publish(
      new PeerConnected({
        peer,
        address: connection.remoteAddress,
        direction: connection.direction,
        interest: rankOf(peer)
      }, unchecked)
    )
    for (const task of tasks) yield* task(entry)
    // It may have closed since it was asked; its `Closed` may have passed already.
    if (!(yield* connection.isOpen)) {
      yield* release(connection)
      return yield* new PeerNotConnected({ peer }, unchecked)
    }
  }, Effect.uninterruptible)

  function* remaining(evicted: ReadonlySet<Entry>): Generator<Place> {
    for (const entry of entries.values()) if (!evicted.has(entry)) yield entry
  }

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
    const task: Task = Effect.fnUntraced(function*(entry) {
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
      entries.clear()
      // Bounded by `maxPeers`.
      return Effect.forEach(all, (entry) => close(entry, "shutdown"), { concurrency: "unbounded", discard: true })
    })
  )

  return PeerTable.of({
    accepts,
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
    slots: Effect.map(Clock.currentTimeMillis, (now) => {
      forgetExpired(now)
      const slots = {
        limit: maxPeers,
        used: entries.size,
        inboundLimit: config.maxInboundPeers,
        inbound: 0,
        reserved: reservations.size,
        kept: 0,
        wanted: 0,
        discovered: 0,
        transient: 0
      }
      for (const entry of entries.values()) {
        slots[rankOf(entry.id)]++
        if (entry.isInbound) slots.inbound++
      }
      return slots
    })
  })
})

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
