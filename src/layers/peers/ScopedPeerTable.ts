/**
 * A `PeerTable` whose entries are scopes.
 *
 * Every transition of the map is one synchronous step, so that no two fibers can interleave in it and the gate can ask
 * without suspending. What takes time (a goodbye, closing connections) happens after the step, to an entry that is no
 * longer in the map. So the limits hold at every instant.
 */
import { Clock, Effect, Layer, Metric, Scope } from "effect"
import { PeerLimitExceeded, PeerNotConnected } from "../../schema/NetworkError.ts"
import type { GoodbyeReason } from "../../schema/NetworkEvent.ts"
import { PeerConnected, PeerIdentified, PeerPathChanged } from "../../schema/NetworkEvent.ts"
import { isSamePath, type PeerId, type RemoteIdentity } from "../../schema/Peer.ts"
import { EvictionPolicy } from "../../services/EvictionPolicy.ts"
import { GuestPolicy } from "../../services/GuestPolicy.ts"
import { Interests } from "../../services/Interests.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import * as NetworkMetrics from "../../services/NetworkMetrics.ts"
import { PeerTable, type Released } from "../../services/PeerTable.ts"
import { type Connection, Transport } from "../../services/Transport.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import * as Arrivals from "./Arrivals.ts"
import * as Departure from "./Departure.ts"
import * as Entry from "./Entry.ts"
import * as Idleness from "./Idleness.ts"
import * as Slots from "./Slots.ts"
import * as Users from "./Users.ts"

/** The `PeerTable` in which each peer has a scope of its own. */
export const make = Effect.gen(function*() {
  const config = yield* NetworkConfig
  const policy = yield* EvictionPolicy
  const guests = yield* GuestPolicy
  const events = yield* NetworkEvents
  const transport = yield* Transport
  const interests = yield* Interests
  const clock = yield* Clock.Clock
  const told = yield* Supervised.told

  const entries = new Map<PeerId, Entry.Entry>()
  let closed = false

  const infoOf = (entry: Entry.Entry) => Entry.infoOf(entry, interests.of(entry.id))

  const slots = Slots.make({ config, policy, guests, entries, interests, isBusy: Entry.isBusyBesidesKeep })
  const departures = yield* Departure.make(entries)
  const idleness = yield* Idleness.make({
    entries,
    timeout: config.connectionIdleTimeout,
    interestOf: interests.of,
    close: (entry) => departures.beginApart(entry, Departure.byThisNode("idle"))
  })
  const users = Users.make(entries, idleness.begin)
  const arrivals = Arrivals.make()

  const reserve: PeerTable["Service"]["reserve"] = Effect.fnUntraced(function*(connection) {
    const { direction, peer } = connection
    if (closed) return "shutdown"
    if (interests.isBlocked(peer)) return "blocked"
    const now = yield* Elapsed.millis
    if (!arrivals.isAllowed(peer, now, entries.get(peer)?.connections)) return "connections"
    const refusal = yield* slots.reserve(connection)
    if (refusal === undefined) arrivals.begin(peer, now, now + Slots.reservationMillis[direction])
    return refusal
  })

  const remove = Effect.fnUntraced(function*(peer: PeerId, reason: GoodbyeReason) {
    const entry = entries.get(peer)
    if (entry === undefined) return false
    yield* departures.begin(entry, Departure.byThisNode(reason))
    return true
  }, Effect.uninterruptible)

  /** Publishes the path to the peer if it has changed. */
  const tellPath = Effect.fnUntraced(function*(entry: Entry.Entry) {
    yield* entry.announced.await
    const [best] = yield* entry.connections.best
    if (best === undefined) return
    const to = yield* best.path
    const from = entry.path
    entry.path = to
    if (isSamePath(from, to) || entries.get(entry.id) !== entry) return
    yield* events.publish(new PeerPathChanged({ peer: entry.id, from, to }, Entry.unchecked))
  })

  const release = Effect.fnUntraced(function*(connection: Connection): Effect.fn.Return<Released> {
    const loss = yield* Departure.lossOf(connection)
    // One step from here to the next `yield*`.
    const former = departures.closed(connection)
    const entry = entries.get(connection.peer)
    if (entry === undefined || !entry.connections.remove(connection)) {
      // The connection may have closed between the gate and its admission.
      slots.cancel(connection.peer)
      if (former === undefined) arrivals.end(connection.peer)
      return former === undefined ? { kind: "unknown" } : { kind: "removed", departure: former }
    }
    if (entry.connections.size() > 0) {
      entry.networks = entry.connections.networks()
      yield* entry.connections.tell
      yield* tellPath(entry)
      return { kind: "other" }
    }
    const departure = entry.expected ?? loss
    const finish = departures.begin(entry, departure)
    yield* entry.connections.tell
    yield* finish
    return { kind: "last", departure }
  }, Effect.uninterruptible)

  const admit = Effect.fnUntraced(function*(
    connection: Connection
  ): Effect.fn.Return<void, PeerLimitExceeded | PeerNotConnected> {
    const { peer } = connection
    const candidates = slots.hasRoom(connection) ? [] : yield* slots.victims(connection)
    const now = yield* Elapsed.millis
    const path = yield* connection.path
    const isOpen = yield* connection.isOpen
    // One step from here to the next `yield*`. What was looked at before may have changed.
    if (closed || interests.isBlocked(peer) || departures.isGone(connection) || !isOpen) {
      return yield* new PeerNotConnected({ peer }, Entry.unchecked)
    }
    const present = entries.get(peer)
    if (present?.connections.has(connection) === true) return
    if ((present?.connections.size() ?? 0) >= Arrivals.connectionsMax) {
      return yield* new PeerLimitExceeded(
        { peer, limit: Arrivals.connectionsMax, rule: "connections" },
        Entry.unchecked
      )
    }
    const room = slots.makeRoom(connection, candidates)
    if (room.exceeded !== undefined) {
      const { most, name } = room.exceeded
      return yield* new PeerLimitExceeded({ peer, limit: most, rule: name }, Entry.unchecked)
    }
    const evictions = Array.from(room.evicted, (entry) => departures.beginApart(entry, Departure.byThisNode("evicted")))
    const entry = present ?? Entry.make(transport.localPeer, connection, path, clock, now)
    const formerHasLeft = departures.formerOf(peer)
    entry.connections.add(connection, path._tag === "Direct")
    entry.networks = entry.connections.networks()
    entries.set(peer, entry)
    slots.settle(peer)
    arrivals.end(peer)
    yield* entry.connections.tell
    // Apart, so that a slow goodbye to an evicted peer delays nobody.
    for (const eviction of evictions) yield* eviction
    if (present !== undefined) {
      yield* tellPath(present)
      return yield* Effect.asVoid(
        Effect.forkIn(told(Supervised.once("two connections become one", entry.connections.settle)), entry.scope, {
          startImmediately: true
        })
      )
    }
    yield* idleness.begin(entry)
    yield* Scope.addFinalizer(entry.scope, Entry.closeConnections(entry))
    yield* Metric.modify(NetworkMetrics.peers, 1)
    yield* formerHasLeft
    yield* events.publish(
      new PeerConnected({
        peer,
        address: connection.remoteAddress,
        direction: connection.direction,
        interest: interests.of(peer)
      }, Entry.unchecked)
    )
    yield* entry.announced.open
    yield* users.beginTasks(entry)
    // The connection may have closed since it was asked, and its `Closed` may have passed already.
    if (!(yield* connection.isOpen)) {
      yield* release(connection)
      return yield* new PeerNotConnected({ peer }, Entry.unchecked)
    }
  }, Effect.uninterruptible)

  const interestFell = (peer: PeerId) =>
    Effect.suspend(() => {
      const entry = entries.get(peer)
      return entry === undefined ? Effect.void : idleness.begin(entry)
    })

  const update = (peer: PeerId, change: (entry: Entry.Entry) => void) =>
    Effect.sync(() => {
      const entry = entries.get(peer)
      if (entry !== undefined) change(entry)
    })

  const identified = Effect.fnUntraced(function*(peer: PeerId, remote: RemoteIdentity) {
    const entry = entries.get(peer)
    if (entry === undefined || entry.remote !== undefined) return
    entry.remote = remote
    yield* events.publish(new PeerIdentified({ peer, ...remote }, Entry.unchecked))
  })

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closed = true
      const shutdowns = Array.from(
        entries.values(),
        (entry) => departures.begin(entry, Departure.byThisNode("shutdown"))
      )
      // Bounded by `maxPeers`.
      return Effect.all(shutdowns, { concurrency: "unbounded", discard: true })
    }).pipe(Effect.andThen(departures.settled))
  )

  return PeerTable.of({
    accepts: slots.accepts,
    refuses: Effect.fnUntraced(function*(peer) {
      if (closed) return "shutdown"
      if (interests.isBlocked(peer)) return "blocked"
      return yield* slots.refusesDial(peer)
    }),
    reserve,
    admit,
    release,
    hold: users.hold,
    attend: users.attend,
    keptByRemote: users.keptByRemote,
    follow: users.follow,
    retire: (connection) =>
      Effect.suspend(() => entries.get(connection.peer)?.connections.retire(connection) ?? Effect.succeed(false)),
    remove,
    expect: (peer, reason, remoteReason) =>
      update(peer, (entry) => {
        // A goodbye that was heard outranks pings that went unanswered after it.
        if (remoteReason === undefined && entry.expected?.remoteReason !== undefined) return
        entry.expected = { reason, remoteReason, isExpected: true }
      }),
    interestFell,
    measured: (peer, roundTripTime) =>
      update(peer, (entry) => {
        entry.roundTripTime = roundTripTime
      }),
    identified,
    eachPeer: users.eachPeer,
    connections: (peer) =>
      Effect.suspend(() => {
        const entry = entries.get(peer)
        return entry === undefined ? Effect.succeed([]) : entry.connections.best
      }),
    has: (peer) => Effect.sync(() => entries.has(peer)),
    get: (peer) =>
      Effect.suspend(() => {
        const entry = entries.get(peer)
        return entry === undefined ? Effect.succeedNone : Effect.asSome(infoOf(entry))
      }),
    peers: Effect.suspend(() => Effect.forEach([...entries.values()], infoOf)),
    size: Effect.sync(() => entries.size),
    slots: slots.counts
  })
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<PeerTable, never, Interests | NetworkConfig | NetworkEvents | Transport> = Layer.effect(
  PeerTable,
  make
)
