/**
 * Holds places on relays, so that peers which cannot dial this node reach it through them. [libp2p]
 *
 * One fiber for each relay: it waits for a connection, asks for a place, tells of it, renews it, and begins anew when it is lost. libp2p
 * takes part with the addresses it derives from a place; of itself it neither dials a relay again nor notices one that forgot it.
 */
import { RELAY_V2_HOP_CODEC } from "@libp2p/circuit-relay-v2"
import type { Connection, IdentifyResult, Listener, PeerId as Libp2pPeerId, Transport } from "@libp2p/interface"
import { peerIdFromString } from "@libp2p/peer-id"
import { lpStream } from "@libp2p/utils"
import { multiaddr } from "@multiformats/multiaddr"
import {
  Clock,
  Duration,
  Effect,
  Fiber,
  FiberMap,
  FiberSet,
  Latch,
  Layer,
  Option,
  Pull,
  Schedule,
  Semaphore
} from "effect"
import { type DialError, HostError } from "../../schema/NetworkError.ts"
import { RelayLost, RelayReserved } from "../../schema/NetworkEvent.ts"
import { type Multiaddr, type PeerId, peerOf, withoutPeer, withPeer } from "../../schema/Peer.ts"
import { ConnectionManager } from "../../services/ConnectionManager.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import { RelayPolicy } from "../../services/RelayPolicy.ts"
import { toError, within } from "../libp2p/Faults.ts"
import { Libp2pHost } from "../libp2p/Host.ts"

/**
 * Keeps the relays of `relayPeers`, and reserves a place on them and on relays that it meets, while the scope lives; nothing without
 * `enableRelay`. Never waits for a relay.
 *
 * Fails without `RelayClient`. A relay that cannot be reached is tried again without end when it is of `relayPeers`.
 */
export const make = Effect.gen(function*() {
  const { enableRelay, relayPeers } = yield* NetworkConfig
  if (!enableRelay) return
  const { components, identified, node } = yield* Libp2pHost
  const manager = yield* ConnectionManager
  const { publish } = yield* NetworkEvents
  const policy = yield* RelayPolicy
  const { transportManager } = components
  const transport = transportManager.getTransports().find(isRelayTransport)
  if (transport === undefined) {
    return yield* new HostError({ module: "relay-reservations", detail: "there is no RelayClient below this layer" })
  }
  const store = transport.reservationStore
  yield* cureStore(store, () => node.getConnections())

  const run = yield* FiberSet.makeRuntime()
  const loops = yield* FiberMap.make<PeerId>()
  const one = yield* Semaphore.make(1)
  const changed = yield* Latch.make()
  /** Connected peers that are relays. */
  const present = new Map<PeerId, Connection>()
  /** Until when a relay that refused is left alone, in milliseconds since the epoch. */
  const resting = new Map<PeerId, number>()
  const own = node.peerId.toString()
  const isConfigured = (peer: PeerId, connection: Connection) =>
    relayPeers.some((address) =>
      peerOf(address) === undefined
        ? address === withoutPeer(connection.remoteAddr.toString() as Multiaddr)
        : peerOf(address) === peer
    )
  const addressesThrough = (peer: PeerId) =>
    node.getMultiaddrs().map((address) => String(address) as Multiaddr).filter((address) =>
      address.includes(`/p2p/${peer}/p2p-circuit`)
    )

  const connected = (peer: PeerId): Effect.Effect<Connection> =>
    Effect.suspend(() => {
      // The one that identified the relay may have gone while another lives.
      const connection = present.has(peer)
        ? node.getConnections(peerIdFromString(peer)).find(({ direct, status }) => direct && status === "open")
        : undefined
      if (connection !== undefined) return Effect.succeed(connection)
      // The latch only wakes those who wait already, so one look a second makes up for a wake that was missed.
      return Effect.andThen(Effect.raceFirst(changed.await, Effect.sleep("1 second")), connected(peer))
    })

  const lost = (peer: Libp2pPeerId) =>
    Effect.callback<void>((resume) => {
      const onRemoved = (event: CustomEvent<{ readonly relay: Libp2pPeerId }>) => {
        if (event.detail.relay.equals(peer)) finish()
      }
      const off = () => store.removeEventListener("relay:removed", onRemoved)
      const finish = () => {
        off()
        resume(Effect.void)
      }
      store.addEventListener("relay:removed", onRemoved)
      if (!store.hasReservation(peer)) finish()
      return Effect.sync(off)
    })

  /** A relay that no longer grants the place loses the connection, with which libp2p gives the place up as well. A silent one is left to Health. */
  const renewal = (peer: PeerId) =>
    Effect.gen(function*() {
      const connection = yield* connected(peer)
      const granted = yield* Effect.promise(() =>
        renew(connection).catch((cause) => toError(cause).name !== "UnsupportedProtocolError")
      )
      if (!granted) yield* Effect.promise(() => connection.close().catch((cause) => connection.abort(toError(cause))))
    }).pipe(Effect.repeat(Schedule.spaced(policy.renew)))

  const serve = Effect.fnUntraced(function*(peer: PeerId, configured: boolean) {
    const id = peerIdFromString(peer)
    const place = yield* Effect.acquireRelease(
      Effect.sync(() => makePlace(transport, transportManager)),
      (place) => Effect.sync(() => place.end())
    )
    let kept = configured
    let refusals = 0
    let step = yield* Schedule.toStep(policy.retry)
    while (true) {
      // A relay that was met and does not come back makes room for another; its `keep` ends with this scope.
      const reached = yield* configured
        ? Effect.asSome(connected(peer))
        : Effect.timeoutOption(connected(peer), policy.rest)
      if (Option.isNone(reached)) return
      const connection = reached.value
      const refusal = yield* Effect.tryPromise({
        try: () => place.reserve(connection),
        catch: toError
      }).pipe(
        Effect.timeout("15 seconds"),
        // libp2p empties its queue of reservations when one of them is done, and those who wait in it are never told.
        one.withPermits(1),
        Effect.as(undefined),
        Effect.catch((error) => Effect.succeed(error))
      )
      if (refusal === undefined) {
        refusals = 0
        step = yield* Schedule.toStep(policy.retry)
        if (!kept) {
          // Only now: a relay that refuses has no claim to a place in the table for ever.
          yield* Effect.catch(
            manager.keep({ id: peer, addresses: yield* dialAddresses(components, connection) }),
            (error) => Effect.logDebug(`relay ${peer} cannot be kept`, error)
          )
          kept = true
        }
        const addresses = addressesThrough(peer)
        yield* Effect.logInfo(`relay ${peer} holds a place for this node`)
        yield* publish(new RelayReserved({ relay: peer, addresses }))
        yield* Effect.raceFirst(lost(id), renewal(peer))
        yield* Effect.logWarning(`relay ${peer} holds no place for this node any more; it is asked again`)
        yield* publish(new RelayLost({ relay: peer }))
        continue
      }
      refusals++
      yield* Effect.logDebug(`relay ${peer} gave no place`, refusal)
      if (!configured && refusals >= policy.refusals) return
      const now = yield* Clock.currentTimeMillis
      const delay = yield* Pull.catchDone(
        Effect.map(step(now, undefined), ([, delay]) => delay),
        () => Effect.succeed(Duration.fromInputUnsafe(policy.rest))
      )
      yield* Effect.sleep(delay)
    }
  })

  const consider: Effect.Effect<void> = Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    for (const [peer, connection] of present) {
      if (FiberMap.hasUnsafe(loops, peer)) continue
      const configured = isConfigured(peer, connection)
      const size = yield* FiberMap.size(loops)
      if (!configured && (size >= policy.relays || (resting.get(peer) ?? 0) > now)) continue
      const fiber = yield* FiberMap.run(loops, peer, Effect.scoped(serve(peer, configured)))
      run(Effect.andThen(
        Fiber.await(fiber),
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          for (const [id, until] of resting) if (until <= now) resting.delete(id)
          resting.set(peer, now + Duration.toMillis(Duration.fromInputUnsafe(policy.rest)))
          return consider
        })
      ))
    }
  })

  const onIdentify = ({ detail }: { readonly detail: IdentifyResult }) => {
    const peer = detail.peerId.toString() as PeerId
    if (!detail.connection.direct || peer === own) return
    if (!detail.protocols.includes(RELAY_V2_HOP_CODEC)) {
      if (isConfigured(peer, detail.connection)) run(Effect.logWarning(`${peer} is one of relayPeers, and no relay`))
      return
    }
    present.set(peer, detail.connection)
    run(Effect.andThen(changed.release, consider))
  }
  const onDisconnect = ({ detail }: CustomEvent<Libp2pPeerId>) => {
    present.delete(detail.toString() as PeerId)
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      components.events.addEventListener("peer:identify", onIdentify)
      components.events.addEventListener("peer:disconnect", onDisconnect)
      for (const connection of node.getConnections()) {
        void identified(connection).then((detail) => {
          if (detail !== undefined && connection.status === "open") onIdentify({ detail })
        })
      }
    }),
    () =>
      Effect.sync(() => {
        components.events.removeEventListener("peer:identify", onIdentify)
        components.events.removeEventListener("peer:disconnect", onDisconnect)
      })
  )
  // Rest ends, and a peer may have become a relay.
  yield* Effect.forkScoped(Effect.schedule(consider, Schedule.spaced("10 seconds")))

  yield* Effect.forEach(relayPeers, (address) =>
    manager.keep(address).pipe(
      Effect.catchReason("DialError", "DialedSelf", () => Effect.logInfo(`relay ${address} is this node itself`))
    ), { discard: true })
}).pipe(Effect.annotateLogs({ component: "relay" }))

/** {@link make} as a Layer. */
export const layer: Layer.Layer<
  never,
  HostError | DialError,
  Libp2pHost | NetworkConfig | ConnectionManager | NetworkEvents
> = Layer.effectDiscard(make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface ReservationStore {
  readonly hasReservation: (peer: Libp2pPeerId) => boolean
  readonly addRelay: (peer: Libp2pPeerId, type: "configured") => Promise<unknown>
  readonly addEventListener: <A>(type: string, listener: (event: CustomEvent<A>) => void) => void
  readonly removeEventListener: <A>(type: string, listener: (event: CustomEvent<A>) => void) => void
  readonly cancelReservations: () => void
  relayFilter: { readonly has: () => boolean; readonly add: () => void }
}

interface RelayTransport extends Transport {
  readonly reservationStore: ReservationStore
}

interface Created {
  readonly details: { readonly connection: string; readonly reservation: { addrs: Array<Uint8Array> } }
}

function isRelayTransport(transport: Transport): transport is RelayTransport {
  return "reservationStore" in transport
}

/**
 * Faults: the store never asks a relay again to which one dial failed, or which was no relay at the time; and over a connection that the
 * relay has opened it takes the port that the relay dialled from for one that listens.
 */
const cureStore = (store: ReservationStore, connections: () => ReadonlyArray<Connection>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const filter = store.relayFilter
      store.relayFilter = { has: () => false, add: () => {} }
      const onCreated = ({ detail: { details } }: CustomEvent<Created>) => {
        const connection = connections().find(({ id }) => id === details.connection)
        if (connection?.direction !== "inbound") return
        const wrong = withoutPeer(connection.remoteAddr.toString() as Multiaddr)
        const { reservation } = details
        reservation.addrs = reservation.addrs.filter((bytes) =>
          withoutPeer(multiaddr(bytes).toString() as Multiaddr) !== wrong
        )
      }
      // Before the listeners, which read the addresses in the same event.
      store.addEventListener("relay:created-reservation", onCreated)
      return () => {
        store.relayFilter = filter
        store.removeEventListener("relay:created-reservation", onCreated)
        store.cancelReservations()
      }
    }),
    (undo) => Effect.sync(undo)
  )

interface CircuitListener extends Listener {
  readonly _onRemoveRelayPeer: (event: CustomEvent<never>) => void
  readonly _onAddRelayPeer: (event: CustomEvent<never>) => void
}

/**
 * What libp2p calls a listener on one relay. Its `close` would cancel the reservations on all relays, and each failed `listen` of the
 * transport manager leaves one behind; so there is one for each relay, which is used again and taken out by hand.
 */
function makePlace(transport: RelayTransport, manager: {
  readonly getListeners: () => ReadonlyArray<Listener>
  readonly listen: (addresses: Array<ReturnType<typeof multiaddr>>) => Promise<void>
}) {
  const store = transport.reservationStore
  let listener: CircuitListener | undefined
  let isListening = false
  return {
    reserve: async (connection: Connection): Promise<void> => {
      const peer = connection.remotePeer
      const relay = withPeer(connection.remoteAddr.toString() as Multiaddr, peer.toString() as PeerId)
      const address = multiaddr(`${relay}/p2p-circuit`)
      if (listener === undefined) {
        const before = new Set(manager.getListeners())
        const listening = manager.listen([address])
        // The class has both as public members.
        listener = manager.getListeners().find((listener) => !before.has(listener)) as CircuitListener | undefined
        await listening
        isListening = true
      } else if (!isListening) {
        await listener.listen(address)
        isListening = true
      } else if (!store.hasReservation(peer)) {
        await store.addRelay(peer, "configured")
      }
    },
    end: () => {
      if (listener === undefined) return
      store.removeEventListener("relay:removed", listener._onRemoveRelayPeer)
      store.removeEventListener("relay:created-reservation", listener._onAddRelayPeer)
      listener.dispatchEvent(new CustomEvent("close"))
    }
  }
}

/** Asks for the place again: `[1 length][1 tag][1 RESERVE]`, answered by a message whose field 5 is the status, 100 when granted. */
async function renew(connection: Connection): Promise<boolean> {
  return within(10_000, async (signal) => {
    const stream = await connection.newStream(RELAY_V2_HOP_CODEC, { signal })
    try {
      const messages = lpStream(stream, { maxDataLength: 64 * 1024 })
      await messages.write(Uint8Array.of(0x08, 0x00), { signal })
      return statusOf((await messages.read({ signal })).subarray()) === 100
    } finally {
      // A js relay takes the place back when the stream is reset before it has closed its own side.
      await stream.close({ signal }).catch((cause) => stream.abort(toError(cause)))
    }
  })
}

/** Field 5 of a protobuf message. */
function statusOf(message: Uint8Array): number | undefined {
  let at = 0
  const varint = () => {
    let value = 0
    for (let shift = 0; at < message.length; shift += 7) {
      const byte = message[at++]!
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) break
    }
    return value
  }
  while (at < message.length) {
    const tag = varint()
    if (tag === 0x28) return varint()
    // What precedes it: other numbers, and messages of a length.
    const value = varint()
    if ((tag & 7) === 2) at += value
    else if ((tag & 7) !== 0) return undefined
  }
  return undefined
}

const dialAddresses = (components: Libp2pHost["Service"]["components"], connection: Connection) =>
  Effect.promise(async (): Promise<ReadonlyArray<Multiaddr>> => {
    const peer = await components.peerStore.get(connection.remotePeer).catch(() => undefined)
    const dialled = connection.direction === "outbound" ? [connection.remoteAddr] : []
    const all = [...dialled, ...(peer?.addresses ?? []).map((address) => address.multiaddr)]
    return [...new Set(all.map((address) => withoutPeer(address.toString() as Multiaddr)))].filter((text) =>
      !text.includes("/p2p-circuit")
    )
  })
