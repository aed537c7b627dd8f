/**
 * A `ConnectionManager` that supervises each kept or wanted peer with one fiber.
 *
 * This file has the wishes of the program, and puts the parts together: `PeerBook` notes what is known and wanted of
 * each peer, `Supervisor` redials kept and wanted peers, `Dialer` dials, `Admission` follows the transport's events,
 * `Sightings` follows discovery, `Isolation` gets a node back that has lost all peers, `Gate` lets connections in and
 * out, `Explanation` tells why.
 */
import { Clock, Duration, Effect, Exit, Layer, Option, Stream } from "effect"
import type { ConnectError } from "../../schema/NetworkError.ts"
import { DialedSelf, DialError } from "../../schema/NetworkError.ts"
import type { GoodbyeReason } from "../../schema/NetworkEvent.ts"
import { NodeStatus } from "../../schema/NodeStatus.ts"
import type { DialTarget, Multiaddr, PeerId, PeerInfo } from "../../schema/Peer.ts"
import { addressOf, isMultiaddr, peerOf, showTarget, withPeer } from "../../schema/Peer.ts"
import { Defects } from "../../services/Defects.ts"
import { ConnectionManager } from "../../services/ConnectionManager.ts"
import type { Dht } from "../../services/Dht.ts"
import type { Discovery } from "../../services/Discovery.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import type { NetworkEvents } from "../../services/NetworkEvents.ts"
import { NetworkMonitor } from "../../services/NetworkMonitor.ts"
import type { PeerStore } from "../../services/PeerStore.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { type StreamAccount, Transport } from "../../services/Transport.ts"
import * as Pulse from "../Pulse.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import * as AddressWishes from "./AddressWishes.ts"
import * as Admission from "./Admission.ts"
import * as Answering from "./Answering.ts"
import * as Dialer from "./Dialer.ts"
import * as Explanation from "./Explanation.ts"
import * as Found from "./Found.ts"
import * as Gate from "./Gate.ts"
import * as InboundLimits from "./InboundLimits.ts"
import { PeerBook } from "./PeerBook.ts"
import * as PeerRecord from "./PeerRecord.ts"
import * as Refusals from "./Refusals.ts"
import * as Sightings from "./Sightings.ts"
import * as Supervisor from "./Supervisor.ts"

/** The `ConnectionManager` that supervises each peer that is wanted or kept. */
export const make = Effect.gen(function*() {
  const config = yield* NetworkConfig
  const transport = yield* Transport
  const table = yield* PeerTable
  const monitor = yield* NetworkMonitor
  const book = yield* PeerBook
  const dialer = yield* Dialer.Dialer
  const clock = yield* Clock.Clock
  const defects = yield* Defects
  const told = yield* Supervised.told

  const cooldownMillis = Duration.toMillis(config.rediscoveryCooldown)
  /** The machine's network changed, or the machine awoke: waits are over. */
  const networkChanged = Pulse.make()
  /** Addresses that are kept and dialled without knowing yet whose they are. */
  let keptAddresses = 0

  /** A peer came or went, or became worth a dial. */
  const peersChanged = Pulse.make()

  const answering = yield* Answering.make
  const supervisor = yield* Supervisor.make({ peersChanged, failed: answering.failed })
  const { changed, wake } = supervisor

  const limits = yield* InboundLimits.make
  const refuse = yield* Refusals.make(limits)
  yield* Admission.make({
    refuse,
    changed,
    wake,
    peersChanged,
    isDialing: (id) => dialer.dialing(id) !== undefined
  })
  const isolation = yield* Sightings.make({
    supervisor,
    peersChanged,
    keptAddresses: () => keptAddresses
  })

  yield* Supervised.fork(
    "changes of the network",
    Stream.runForEach(monitor.changes, () =>
      Effect.gen(function*() {
        // What kept a peer from answering may be gone.
        for (const peer of [...book.all()]) {
          if (yield* table.has(peer.id)) continue
          PeerRecord.waitEnds(peer)
          if (!PeerRecord.isDesired(peer)) continue
          PeerRecord.startAnew(peer)
          yield* wake(peer)
        }
        yield* networkChanged.beat
        yield* isolation.hope
      }))
  )

  const self = (target: DialTarget) => new DialError({ target: showTarget(target), reason: new DialedSelf({}) })

  const ask = (peer: PeerRecord.PeerRecord, target: DialTarget) => PeerRecord.asked(peer, addressesIn(target))

  const connect = Effect.fn("ConnectionManager.connect")(
    function*(target: DialTarget): Effect.fn.Return<PeerInfo, ConnectError> {
      const id = peerOf(target)
      if (id === undefined) return yield* addressWishes.connect(target as Multiaddr)
      if (id === transport.localPeer) return yield* self(target)
      const peer = book.record(id)
      if (PeerRecord.isBlocked(peer)) return yield* Dialer.blockedByThisNode(target)
      answering.ownWish(peer)
      ask(peer, target)
      const present = yield* table.get(id)
      if (present._tag === "Some") {
        PeerRecord.wanted(peer)
        yield* changed(peer)
        return yield* Effect.map(table.get(id), Option.getOrElse(() => present.value))
      }
      return yield* dialFor(peer, target)
    }
  )

  /**
   * Dials the peer for a call of `connect`, which counts as a wish while it lasts: the gate and the table ask for it.
   * A supervisor waits for success, since a failure is the caller's.
   */
  const dialFor = (peer: PeerRecord.PeerRecord, target: DialTarget) =>
    Effect.acquireUseRelease(
      Effect.sync(() => PeerRecord.calledBy(peer)),
      () => {
        const joined = dialer.dialing(peer.id)
        return Effect.catch(dialer.dialPeer(peer), (error) =>
          // A dial that was already under way may not have tried the caller's addresses.
          joined !== undefined &&
            addressesIn(target).some((address) => !joined.has(withPeer(addressOf(address), peer.id)))
            ? dialer.dialPeer(peer)
            : Effect.fail(error))
      },
      (endCall, exit) => {
        endCall()
        if (Exit.isSuccess(exit)) PeerRecord.wanted(peer)
        return changed(peer)
      }
    )

  const keepPeer = Effect.fnUntraced(function*(id: PeerId, target: DialTarget) {
    yield* Effect.acquireRelease(
      Effect.suspend(() => {
        const peer = book.record(id)
        ask(peer, target)
        const end = PeerRecord.keptBy(peer)
        return Effect.as(changed(peer), { peer, end })
      }),
      ({ end, peer }) =>
        Effect.suspend(() => {
          const former = PeerRecord.interestOf(peer)
          end()
          const hasFallen = former === "kept" && PeerRecord.interestOf(peer) !== "kept"
          return Effect.andThen(hasFallen ? table.interestFell(id) : Effect.void, changed(peer))
        })
    )
  })

  const addressWishes = yield* AddressWishes.make({ answering, changed, keepPeer, networkChanged })

  const keep = Effect.fn("ConnectionManager.keep")(function*(target: DialTarget) {
    const id = peerOf(target)
    if (id === transport.localPeer) return yield* self(target)
    return yield* id !== undefined
      ? keepPeer(id, target)
      : Effect.acquireUseRelease(
        Effect.suspend(() => {
          keptAddresses++
          return peersChanged.beat
        }),
        () => addressWishes.keep(target as Multiaddr),
        () =>
          Effect.suspend(() => {
            keptAddresses--
            return peersChanged.beat
          })
      ).pipe(
        Effect.annotateLogs({ component: "connections" }),
        (work) => told(Supervised.fork(`to keep ${showTarget(target)}`, work))
      )
  })

  const disconnect = Effect.fn("ConnectionManager.disconnect")(function*(id: PeerId) {
    const peer = book.record(id)
    PeerRecord.suspended(peer)
    yield* changed(peer)
    yield* dialer.abort(id)
    yield* table.remove(id, "disconnect")
  })

  const block = Effect.fn("ConnectionManager.block")(function*(id: PeerId) {
    yield* Effect.acquireRelease(
      Effect.suspend(() => {
        const peer = book.record(id)
        const end = PeerRecord.blockedBy(peer)
        return Effect.as(changed(peer), { peer, end })
      }),
      ({ end, peer }) => Effect.andThen(Effect.sync(end), Effect.suspend(() => changed(peer)))
    )
    yield* dialer.abort(id)
    yield* table.remove(id, "blocked")
  })

  const goodbye = Effect.fnUntraced(function*(id: PeerId, reason: GoodbyeReason) {
    const peer = book.record(id)
    PeerRecord.saidGoodbye(peer, reason, (yield* Elapsed.millis) + cooldownMillis)
    yield* table.expect(id, "remote", reason)
    yield* changed(peer)
  })

  // Installed last, when all that it asks stands.
  yield* Gate.install({ limits, refuse })

  const explain = Effect.fnUntraced(function*(id: PeerId) {
    return yield* Explanation.make({
      id,
      peer: book.get(id),
      clock,
      path: Option.getOrUndefined(yield* table.get(id))?.path,
      isDialing: dialer.dialing(id) !== undefined,
      refusals: book.refusalsOf(id),
      isGuarded: dialer.isGuarded
    })
  })

  const lastContact = (id: PeerId) => Effect.sync(() => Explanation.lastContactOf(book.get(id)))

  const status = Effect.gen(function*() {
    const now = yield* Elapsed.millis
    const backoffs: Array<{ readonly peer: PeerId; readonly at: number; readonly attempt: number }> = []
    for (const { attempts, id, retryAt } of book.all()) {
      if (retryAt !== undefined && retryAt > now) backoffs.push({ peer: id, at: retryAt, attempt: attempts })
    }
    return new NodeStatus({
      peer: transport.localPeer,
      addresses: yield* transport.addresses,
      isolation: yield* isolation.state,
      slots: yield* table.slots,
      pendingDials: dialer.pending(),
      backoffs: backoffs.sort((a, b) => a.at - b.at).map((wait) => ({ ...wait, at: Elapsed.dateOf(clock, wait.at) })),
      knownPeers: book.size(),
      refusals: yield* limits.refusals,
      streams: yield* streamStatus(transport.streams),
      defects: yield* defects.count
    })
  })

  const judged = yield* Found.make

  return ConnectionManager.of({ connect, keep, disconnect, block, goodbye, explain, lastContact, judged, status })
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<
  ConnectionManager,
  never,
  | NetworkConfig
  | Transport
  | PeerTable
  | PeerStore
  | Discovery
  | Dht
  | NetworkEvents
  | NetworkMonitor
  | PeerBook
> = Layer.provide(Layer.effect(ConnectionManager, make), Dialer.layer)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The addresses in a target that name them. */
const addressesIn = (target: DialTarget) =>
  typeof target !== "string" ? target.addresses : isMultiaddr(target) ? [target] : []

const streamStatus = Effect.fnUntraced(function*({ buffered, limit, refusals }: StreamAccount) {
  return { buffered: yield* buffered, bufferLimit: limit, refused: yield* refusals }
})
