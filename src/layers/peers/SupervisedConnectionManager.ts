/**
 * A `ConnectionManager` that supervises each kept or wanted peer with one fiber.
 *
 * `PeerBook` is the book, `PeerSupervisor` redials whom it wants, `PeerDialer` dials, `IsolationSupervisor` gets a node back that has lost
 * everybody, `PeerExplanations` tells why. Here is what sets them off: the transport's events, discovery, the machine's network, the calls
 * of the program, and the gate.
 */
import { Cause, Clock, Duration, Effect, Exit, FiberSet, Layer, Option, Stream } from "effect"
import type { ConnectError } from "../../schema/NetworkError.ts"
import { Denied, DialedSelf, DialError } from "../../schema/NetworkError.ts"
import type { GoodbyeReason, RefusalReason } from "../../schema/NetworkEvent.ts"
import { PeerDiscovered, PeerRefused } from "../../schema/NetworkEvent.ts"
import { NodeStatus } from "../../schema/NodeStatus.ts"
import type { DialTarget, Multiaddr, PeerId, PeerInfo, RemoteIdentity } from "../../schema/Peer.ts"
import { isMultiaddr, peerOf, showTarget, withPeer } from "../../schema/Peer.ts"
import { AddressGuard, isLoopback } from "../../services/AddressGuard.ts"
import { ConnectionManager } from "../../services/ConnectionManager.ts"
import type { Dht } from "../../services/Dht.ts"
import { Discovery, type Sighting } from "../../services/Discovery.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import { NetworkMonitor } from "../../services/NetworkMonitor.ts"
import { PeerStore } from "../../services/PeerStore.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import type { Connection, GateRequest } from "../../services/Transport.ts"
import { identifyTime, Transport } from "../../services/Transport.ts"
import * as InboundLimits from "./InboundLimits.ts"
import * as IsolationSupervisor from "./Isolation.ts"
import * as Book from "./PeerBook.ts"
import * as PeerDialer from "./Dialer.ts"
import * as PeerExplanations from "./Explanation.ts"
import * as PeerSupervisor from "./Supervisor.ts"
import * as Backoff from "../Backoff.ts"
import * as Pulse from "../Pulse.ts"
import { ReconnectPolicy } from "../../services/ReconnectPolicy.ts"

/** A peer that is seen again and again is dialled for it at most this often. */
const sightingMillis = 10_000

/** The source that tells of peers which nobody has seen since. */
const remembered = "remembered"

/** Unasked, at most so many peers are dialled at a time by a node that has nobody. */
const isolatedDialsMax = 16

/** The `ConnectionManager` that supervises each peer that is wanted or kept. */
export const make = Effect.gen(function*() {
  const config = yield* NetworkConfig
  const transport = yield* Transport
  const table = yield* PeerTable
  const store = yield* PeerStore
  const discovery = yield* Discovery
  const events = yield* NetworkEvents
  const monitor = yield* NetworkMonitor
  const guard = yield* AddressGuard
  const known = yield* Book.PeerBook
  const dialer = yield* PeerDialer.PeerDialer
  const limits = yield* InboundLimits.make
  const policy = yield* ReconnectPolicy

  const background = yield* FiberSet.make<unknown, unknown>()
  const cooldownMillis = Duration.toMillis(config.rediscoveryCooldown)
  /** Connections with peers on this machine. */
  const localConnections = new Set<string>()
  /** The machine's network changed, or it awoke: waits are over. */
  const networkChanged = Pulse.make()

  const poke: Effect.Effect<void> = Effect.suspend(() => isolation.poke)
  const { changed, nextDelay, wake } = yield* PeerSupervisor.make({ poke })

  let discovering = 0
  /** Places that are kept without knowing yet who is there. */
  let keptPlaces = 0

  const dialDiscovered = (peer: Book.PeerRecord) =>
    Effect.gen(function*() {
      discovering++
      Book.sought(peer)
      yield* table.rank(peer.id, Book.interestOf(peer))
      const exit = yield* Effect.exit(dialer.dialPeer(peer))
      if (Exit.isSuccess(exit)) return Book.found(peer)
      Book.missed(peer)
      yield* table.rank(peer.id, Book.interestOf(peer))
      const failure = Cause.findErrorOption(exit.cause)
      if (failure._tag === "None") return
      const now = yield* Clock.currentTimeMillis
      if (Book.isRefusal(failure.value)) {
        Book.backsOff(peer, undefined)
        return Book.rests(peer, now + cooldownMillis)
      }
      const delay = yield* nextDelay(peer, "discovered", failure.value)
      if (delay === undefined) Book.backsOff(peer, undefined)
      Book.waitsUntil(peer, now + (delay === undefined ? cooldownMillis : Duration.toMillis(delay)))
    }).pipe(Effect.ensuring(Effect.sync(() => discovering--)))

  const isolation = yield* IsolationSupervisor.make({
    peersAtOnce: Math.min(isolatedDialsMax, config.minPeers),
    dial: dialDiscovered,
    places: () => keptPlaces
  })

  // What kept a peer from answering may be gone, so every wait is over.
  yield* monitor.changes.pipe(
    Stream.runForEach(() =>
      Effect.gen(function*() {
        for (const peer of [...known.all()]) {
          if (yield* table.has(peer.id)) continue
          Book.waitEnds(peer)
          if (!Book.isDesired(peer)) continue
          Book.startAnew(peer)
          yield* wake(peer)
        }
        yield* networkChanged.beat
        yield* isolation.hope
      })
    ),
    Effect.forkScoped({ startImmediately: true })
  )

  // -------------------------------------------------------------------------------------------------------------------
  // what the transport tells
  // -------------------------------------------------------------------------------------------------------------------

  const connected = Effect.fnUntraced(function*(connection: Connection) {
    const now = yield* Clock.currentTimeMillis
    const isDialled = connection.direction === "outbound"
    if (isLoopback(connection.remoteAddress)) localConnections.add(connection.id)
    if (isDialled) yield* store.remember(connection.peer, connection.remoteAddress)
    const peer = known.record(connection.peer)
    if (isDialled) peer.addresses.worked(connection.remoteAddress, now)
    Book.connected(peer, now)
    yield* changed(peer)
  })

  const admit = (connection: Connection) =>
    table.admit(connection).pipe(
      Effect.andThen(connected(connection)),
      // Refused by the table after all, or already gone. Closing takes time, which the pump does not have.
      Effect.catch(() => FiberSet.run(background, connection.close))
    )

  /**
   * A remote refuses when the handshake is over, so what this node dialled, or its DHT, is a peer only once identify has answered: it is
   * admitted then, by the dial or by the pump. One that does not identify itself is admitted after the time that a dial waits for it.
   */
  const opened = (connection: Connection) =>
    connection.direction === "inbound"
      ? admit(connection)
      : FiberSet.run(
        background,
        Effect.sleep(identifyTime).pipe(
          Effect.andThen(connection.remote),
          Effect.flatMap((remote) => remote._tag === "Some" ? Effect.void : admit(connection))
        )
      )

  const lost = Effect.fnUntraced(function*(connection: Connection) {
    localConnections.delete(connection.id)
    const released = yield* table.release(connection)
    yield* isolation.poke
    const peer = known.get(connection.peer)
    // Of a connection that was never admitted the dial tells, if there was one.
    if (peer === undefined || released.kind === "unknown") return
    // The supervisor's keep request may have gone with the connection.
    if (released.kind === "other") return yield* wake(peer)
    const at = yield* Clock.currentTimeMillis
    const isOurs = released.kind === "removed"
    const isReplaced = isOurs && (dialer.dialing(peer.id) !== undefined || (yield* table.has(peer.id)))
    const { reason = "lost", remoteReason } = released
    Book.lost(peer, { at, isOurs, isReplaced, reason, remoteReason }, at + cooldownMillis)
    if (!isReplaced) yield* changed(peer)
  })

  const identified = Effect.fnUntraced(function*(connection: Connection, remote: RemoteIdentity) {
    // Not of one that was refused after all.
    const peer = (yield* table.has(connection.peer)) ? known.get(connection.peer) : undefined
    if (peer !== undefined) {
      const isToldLocally = isLoopback(connection.remoteAddress)
      for (const address of remote.listenAddresses) {
        if (!peer.addresses.isOfAnother(address)) peer.addresses.learn(address, "identify", isToldLocally)
      }
    }
    yield* table.identified(connection.peer, remote)
  })

  yield* Stream.fromQueue(transport.events).pipe(
    Stream.runForEach((event) => {
      switch (event._tag) {
        case "Opened":
          return opened(event.connection)
        case "Identified":
          return Effect.andThen(admit(event.connection), identified(event.connection, event.remote))
        case "Closed":
          return lost(event.connection)
      }
    }),
    Effect.forkScoped({ startImmediately: true })
  )

  // -------------------------------------------------------------------------------------------------------------------
  // discovery
  // -------------------------------------------------------------------------------------------------------------------

  const sighted = Effect.fnUntraced(function*(sighting: Sighting) {
    if (sighting.id === transport.localPeer) return
    const isNew = known.get(sighting.id) === undefined
    const peer = known.record(sighting.id)
    // Nobody says who told the DHT; a node among peers on its own machine takes it for one of them.
    const isToldLocally = localConnections.size > 0
    const fresh = sighting.addresses.filter((address) =>
      !peer.addresses.isOfAnother(address) && peer.addresses.learn(address, sighting.source, isToldLocally)
    )
    if (isNew || fresh.length > 0) {
      yield* events.publish(
        new PeerDiscovered({ peer: peer.id, addresses: sighting.addresses, source: sighting.source })
      )
    }
    if (peer.blocks > 0 || (yield* table.has(peer.id))) return
    const now = yield* Clock.currentTimeMillis
    if (Book.isDesired(peer)) {
      // Seen, so the wait is over and the backoff begins anew; but one that flaps or refuses is seen all the time.
      const isNews = sighting.source !== remembered && !peer.flapping && now - peer.hurriedAt >= sightingMillis
      if (fresh.length === 0 && !isNews) return
      Book.hurried(peer, now)
      return yield* wake(peer)
    }
    if (peer.suspended) return
    if (fresh.length > 0) {
      Book.reappeared(peer)
      yield* isolation.hope
    }
    if (dialer.dialing(peer.id) !== undefined || (yield* table.size) + discovering >= config.minPeers) return
    if (now < Math.max(peer.restUntil, peer.retryAt ?? 0) && fresh.length === 0) return
    yield* FiberSet.run(background, dialDiscovered(peer))
  })

  yield* Stream.fromQueue(discovery.peers).pipe(
    Stream.runForEach(sighted),
    Effect.forkScoped({ startImmediately: true })
  )

  // -------------------------------------------------------------------------------------------------------------------
  // the service
  // -------------------------------------------------------------------------------------------------------------------

  const blocked = (target: DialTarget) =>
    new DialError({ target: showTarget(target), reason: new Denied({ detail: "the peer is blocked by this node" }) })

  const self = (target: DialTarget) => new DialError({ target: showTarget(target), reason: new DialedSelf({}) })

  const ask = (peer: Book.PeerRecord, target: DialTarget) => Book.asked(peer, addressesIn(target))

  const connect = Effect.fn("ConnectionManager.connect")(
    function*(target: DialTarget): Effect.fn.Return<PeerInfo, ConnectError> {
      const id = peerOf(target)
      if (id === undefined) return yield* dialPlace(target as Multiaddr)
      if (id === transport.localPeer) return yield* self(target)
      const peer = known.record(id)
      if (peer.blocks > 0) return yield* blocked(target)
      ask(peer, target)
      const present = yield* table.get(id)
      if (present._tag === "Some") {
        Book.wanted(peer)
        yield* changed(peer)
        return yield* Effect.map(table.get(id), Option.getOrElse(() => present.value))
      }
      // Claimed before the dial, since gate and admission rank by it; no supervisor yet, since a failure is the caller's.
      const endCall = Book.calledBy(peer)
      yield* table.rank(id, Book.interestOf(peer))
      const joined = dialer.dialing(id)
      return yield* dialer.dialPeer(peer).pipe(
        // The dial that was joined may not have tried the caller's addresses.
        Effect.catch((error) =>
          joined !== undefined && addressesIn(target).some((address) => !joined.has(withPeer(address, id)))
            ? dialer.dialPeer(peer)
            : Effect.fail(error)
        ),
        Effect.onExit((exit) => {
          endCall()
          if (Exit.isSuccess(exit)) Book.wanted(peer)
          return changed(peer)
        })
      )
    }
  )

  const keepPeer = Effect.fnUntraced(function*(id: PeerId, target: DialTarget) {
    yield* Effect.acquireRelease(
      Effect.suspend(() => {
        const peer = known.record(id)
        ask(peer, target)
        const end = Book.keptBy(peer)
        return Effect.as(changed(peer), { peer, end })
      }),
      ({ end, peer }) => Effect.andThen(Effect.sync(end), Effect.suspend(() => changed(peer)))
    )
  })

  /** Dials a place without knowing whose it is, and notes who answered. */
  const dialPlace = (address: Multiaddr, wish: "wanted" | "kept" = "wanted") =>
    Effect.tap(dialer.dialAddress(address), (info) => {
      const peer = known.record(info.id)
      if (wish === "wanted") Book.wanted(peer)
      ask(peer, address)
      return changed(peer)
    })

  /** Dials the place by the policy until somebody answers, then keeps that peer. */
  const keepAddress = Effect.fnUntraced(function*(address: Multiaddr) {
    let backoff: Backoff.Backoff<ConnectError> | undefined
    while (true) {
      const networkChange = networkChanged.next()
      const exit = yield* Effect.exit(dialPlace(address, "kept"))
      if (Exit.isSuccess(exit)) return yield* keepPeer(exit.value.id, withPeer(address, exit.value.id))
      const failure = Cause.findErrorOption(exit.cause)
      if (failure._tag === "None") return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
      const error = failure.value
      if (error._tag === "DialError" && !error.isRetryable) {
        return yield* Effect.logWarning(`${address} is not kept: ${error.message}`)
      }
      backoff ??= yield* Backoff.make(policy({ interest: "kept" }))
      const delay = yield* backoff.next(error)
      if (delay === undefined) return yield* Effect.logWarning(`${address} is given up: ${error.message}`)
      const isNews = yield* Effect.raceFirst(Effect.as(Effect.sleep(delay), false), Effect.as(networkChange, true))
      if (isNews) backoff = undefined
    }
  })

  const keep = Effect.fn("ConnectionManager.keep")(function*(target: DialTarget) {
    const id = peerOf(target)
    if (id === transport.localPeer) return yield* self(target)
    return yield* id !== undefined
      ? keepPeer(id, target)
      : Effect.acquireUseRelease(
        Effect.suspend(() => {
          keptPlaces++
          return isolation.poke
        }),
        () => keepAddress(target as Multiaddr),
        () =>
          Effect.suspend(() => {
            keptPlaces--
            return isolation.poke
          })
      ).pipe(
        Effect.annotateLogs({ component: "connections" }),
        Effect.forkScoped,
        Effect.asVoid
      )
  })

  const disconnect = Effect.fn("ConnectionManager.disconnect")(function*(id: PeerId) {
    const peer = known.record(id)
    Book.suspended(peer)
    yield* changed(peer)
    yield* dialer.abort(id)
    yield* table.remove(id, "disconnect")
  })

  const block = Effect.fn("ConnectionManager.block")(function*(id: PeerId) {
    yield* Effect.acquireRelease(
      Effect.suspend(() => {
        const peer = known.record(id)
        const end = Book.blockedBy(peer)
        return Effect.as(changed(peer), { peer, end })
      }),
      ({ end, peer }) => Effect.andThen(Effect.sync(end), Effect.suspend(() => changed(peer)))
    )
    // A connection may have passed the gate and not be a peer yet.
    yield* table.bar(id)
    yield* dialer.abort(id)
    yield* table.remove(id, "blocked")
  })

  const goodbye = Effect.fnUntraced(function*(id: PeerId, reason: GoodbyeReason) {
    const peer = known.record(id)
    Book.saidGoodbye(peer, reason, (yield* Clock.currentTimeMillis) + cooldownMillis)
    yield* table.expect(id, "remote", reason)
    yield* changed(peer)
  })

  const refuse = Effect.fnUntraced(function*(request: GateRequest & { readonly stage: "peer" }, reason: RefusalReason) {
    const { direction, peer, remoteAddress: address } = request
    known.noteRefusal(peer, { at: yield* Clock.currentTimeMillis, direction, reason })
    yield* limits.count(reason)
    yield* events.publish(new PeerRefused({ peer, address, direction, reason }, { disableChecks: true }))
    return reason
  })

  // Installed last, when the pump runs.
  yield* transport.gate(Effect.fnUntraced(function*(request: GateRequest) {
    if (request.stage === "address") return yield* limits.arrive(request)
    if (request.stage === "dial") {
      // The DHT's own: it would be refused when the remote has already taken this node for a peer.
      if (request.peer !== undefined && (yield* table.refuses(request.peer)) !== undefined) return false
      // Let go by this side, until somebody asks for it again.
      if (request.peer !== undefined && known.get(request.peer)?.suspended === true) return false
      return guard(request.remoteAddress, {
        interfaces: yield* monitor.interfaces,
        isToldLocally: localConnections.size > 0
      })
    }
    const { direction, peer: id } = request
    const peer = known.get(id)
    if (peer !== undefined && peer.blocks > 0) return yield* refuse(request, "blocked")
    if (direction === "outbound" && dialer.answers(request.remoteAddress, id)) {
      if (peer === undefined || Book.interestOf(peer) !== "kept") yield* table.rank(id, "wanted")
    }
    const refusal = yield* table.reserve(request)
    return refusal === undefined || (yield* refuse(request, refusal))
  }))

  const explain = Effect.fnUntraced(function*(id: PeerId) {
    return yield* PeerExplanations.make({
      id,
      peer: known.get(id),
      now: yield* Clock.currentTimeMillis,
      isConnected: yield* table.has(id),
      isDialing: dialer.dialing(id) !== undefined,
      refusals: known.refusalsOf(id),
      isGuarded: dialer.isGuarded
    })
  })

  const lastContact = (id: PeerId) => Effect.sync(() => PeerExplanations.lastContactOf(known.get(id)))

  const status = Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    const backoffs: Array<{ readonly peer: PeerId; readonly at: number; readonly attempt: number }> = []
    for (const { attempts, id, retryAt } of known.all()) {
      if (retryAt !== undefined && retryAt > now) backoffs.push({ peer: id, at: retryAt, attempt: attempts })
    }
    return new NodeStatus({
      peer: transport.localPeer,
      addresses: yield* transport.addresses,
      isolation: yield* isolation.state,
      slots: yield* table.slots,
      pendingDials: dialer.pending(),
      backoffs: backoffs.sort((a, b) => a.at - b.at).map((one) => ({ ...one, at: Book.dateOf(one.at) })),
      knownPeers: known.size(),
      refusals: yield* limits.refusals
    })
  })

  return ConnectionManager.of({ connect, keep, disconnect, block, goodbye, explain, lastContact, status })
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<
  ConnectionManager,
  never,
  NetworkConfig | Transport | PeerTable | PeerStore | Discovery | Dht | NetworkEvents | NetworkMonitor
> = Layer.effect(ConnectionManager, make).pipe(
  Layer.provide(PeerDialer.layer),
  Layer.provide(Book.layer)
)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The addresses in a target that name them. */
const addressesIn = (target: DialTarget) =>
  typeof target !== "string" ? target.addresses : isMultiaddr(target) ? [target] : []
