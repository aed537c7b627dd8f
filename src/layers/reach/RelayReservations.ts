/**
 * Holds reservations on relays, so that peers which cannot dial this node reach it through them. [libp2p]
 *
 * One fiber for each relay: it waits for a connection, asks for a reservation, reports it, renews it, and starts again
 * when it is lost. libp2p takes part with the addresses that it derives from a reservation; of itself it neither dials
 * a relay again nor notices a relay that forgot the reservation.
 */
import { RELAY_V2_HOP_CODEC } from "@libp2p/circuit-relay-v2"
import type { Connection, IdentifyResult, PeerId as Libp2pPeerId } from "@libp2p/interface"
import { peerIdFromString } from "@libp2p/peer-id"
import { Duration, Effect, Fiber, Latch, Layer, Option, Schedule, Semaphore } from "effect"
import { type DialError, HostError } from "../../schema/NetworkError.ts"
import { RelayLost, RelayReserved } from "../../schema/NetworkEvent.ts"
import { type Multiaddr, type PeerId, peerOf, withoutPeer } from "../../schema/Peer.ts"
import { ConnectionManager } from "../../services/ConnectionManager.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import { Relays } from "../../services/Relays.ts"
import { RelayPolicy } from "../../services/RelayPolicy.ts"
import * as Backoff from "../Backoff.ts"
import { toError } from "../libp2p/Faults.ts"
import { Libp2pHost } from "../libp2p/Host.ts"
import { hostError } from "../libp2p/Modules.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import * as RelayStore from "./RelayStore.ts"

/**
 * Keeps the relays of `relayPeers` and of `Relays.reserve`, and makes reservations on them and on relays that it meets,
 * while the scope lives; nothing without `enableRelay`. Never waits for a relay.
 *
 * Fails without `RelayClient`. A relay of `relayPeers` that cannot be reached is tried again without end.
 */
export const make = Effect.gen(function*() {
  const { enableRelay, relayPeers } = yield* NetworkConfig
  if (!enableRelay) return yield* Relays
  const { components, identified, node } = yield* Libp2pHost
  const manager = yield* ConnectionManager
  const { publish } = yield* NetworkEvents
  const policy = yield* RelayPolicy
  const { transportManager } = components
  const transport = transportManager.getTransports().find(RelayStore.isRelayTransport)
  if (transport === undefined) {
    return yield* new HostError({ module: "relay-reservations", detail: "there is no RelayClient below this layer" })
  }
  yield* Effect.try({
    try: () => RelayStore.assertRelayTransport(transport, components),
    catch: hostError("relay-reservations")
  })
  const store = transport.reservationStore
  yield* RelayStore.cured(store, () => node.getConnections())

  const run = yield* Supervised.makeRun("relays")
  const loops = yield* Supervised.makeMap<PeerId>(loop)
  // libp2p empties its queue of reservations when one of them is done, and never tells the others in it.
  const oneAtATime = (yield* Semaphore.make(1)).withPermits(1)
  const changed = yield* Latch.make()
  /** Connected peers that are relays, each with the address at which it was identified. */
  const present = new Map<PeerId, Multiaddr>()
  /** Until when a relay that refused is left alone, by `Elapsed`. */
  const resting = new Map<PeerId, number>()
  const own = node.peerId.toString()
  /** The relays that the program asks for, each by a number of scopes. */
  const configured = new Set<{ readonly address: Multiaddr }>()
  const isConfigured = (peer: PeerId, at: Multiaddr) => {
    for (const { address } of configured) {
      if (peerOf(address) === undefined ? withoutPeer(address) === at : peerOf(address) === peer) return true
    }
    return false
  }
  const addressesThrough = (peer: PeerId) =>
    node.getMultiaddrs().map((address) => String(address) as Multiaddr).filter((address) =>
      address.includes(`/p2p/${peer}/p2p-circuit`)
    )

  const connected = (peer: PeerId): Effect.Effect<Connection> =>
    Effect.suspend(() => {
      // The connection over which the relay was identified may have closed while another lives.
      const connection = present.has(peer)
        ? node.getConnections(peerIdFromString(peer)).find(({ direct, status }) => direct && status === "open")
        : undefined
      if (connection !== undefined) return Effect.succeed(connection)
      // The latch wakes only fibers that wait already, so a look every second makes up for a missed wake.
      return Effect.andThen(Effect.raceFirst(changed.await, Effect.sleep("1 second")), connected(peer))
    })

  /**
   * Renews the reservation until a relay no longer grants it. That relay's connection is closed, so libp2p gives the
   * reservation up as well. A silent relay is left to Health. The reservation outlives a defect of the policy.
   */
  const renewals = (peer: PeerId) => {
    const renewal = Effect.gen(function*() {
      const connection = yield* connected(peer)
      const granted = yield* Effect.promise(() =>
        RelayStore.renew(connection).catch((cause) => toError(cause).name !== "UnsupportedProtocolError")
      )
      if (!granted) yield* Effect.promise(() => connection.close().catch((cause) => connection.abort(toError(cause))))
    })
    return Supervised.lasting(
      "the renewal of a reservation",
      Effect.suspend(() => Effect.repeat(renewal, Schedule.spaced(policy.renew)))
    )
  }

  /** What the relay answers: undefined when it has made the reservation. */
  const refusalOf = (reservation: RelayStore.Reservation, connection: Connection) =>
    Effect.tryPromise({ try: () => reservation.ask(connection), catch: toError }).pipe(
      Effect.timeout("15 seconds"),
      oneAtATime,
      Effect.as(undefined),
      Effect.catch((error) => Effect.succeed(error))
    )

  /** Reports a reservation, and ends when it is lost. */
  const held = Effect.fnUntraced(function*(peer: PeerId) {
    const addresses = addressesThrough(peer)
    yield* Effect.logInfo(`relay ${peer} holds a reservation for this node`)
    yield* publish(new RelayReserved({ relay: peer, addresses }))
    yield* Effect.raceFirst(RelayStore.lost(store, peerIdFromString(peer)), renewals(peer))
    yield* Effect.logWarning(`relay ${peer} has dropped this node's reservation; it is asked again`)
    yield* publish(new RelayLost({ relay: peer }))
  })

  /**
   * Asks the relay once it is connected. A relay that was met and does not come back is absent, and makes room for
   * another; its `keep` ends with this scope. The connection and the error stay here, since `serve` lives for days.
   */
  const asked = Effect.fnUntraced(function*(reservation: RelayStore.Reservation, peer: PeerId, configured: boolean) {
    const reached = yield* configured
      ? Effect.asSome(connected(peer))
      : Effect.timeoutOption(connected(peer), policy.rest)
    if (Option.isNone(reached)) return "absent"
    const refusal = yield* refusalOf(reservation, reached.value)
    if (refusal === undefined) return "granted"
    yield* Effect.logDebug(`relay ${peer} refused a reservation`, refusal)
    return "refused"
  })

  const serve = Effect.fnUntraced(function*(peer: PeerId, configured: boolean) {
    const reservation = yield* Effect.acquireRelease(
      Effect.sync(() => RelayStore.makeReservation(transport, transportManager)),
      (reservation) => Effect.sync(() => reservation.end())
    )
    let kept = configured
    let refusals = 0
    let backoff = yield* Backoff.make(policy.retry)
    while (true) {
      const answer = yield* asked(reservation, peer, configured)
      if (answer === "absent") return
      if (answer === "granted") {
        refusals = 0
        backoff = yield* Backoff.make(policy.retry)
        if (!kept) {
          // Kept only now: a relay that refuses must not hold a slot of the peer table for ever.
          yield* Effect.catch(
            Effect.flatMap(dialAddresses(components, peer), (addresses) => manager.keep({ id: peer, addresses })),
            (error) => Effect.logDebug(`relay ${peer} cannot be kept`, error)
          )
          kept = true
        }
        yield* held(peer)
        continue
      }
      refusals++
      if (!configured && refusals >= policy.refusals) return
      yield* Effect.sleep((yield* backoff.next(undefined)) ?? policy.rest)
    }
  })

  const consider: Effect.Effect<void> = Effect.gen(function*() {
    const now = yield* Elapsed.millis
    for (const [peer, at] of present) {
      if (loops.has(peer)) continue
      const configured = isConfigured(peer, at)
      const size = yield* loops.size
      if (!configured && (size >= policy.relays || (resting.get(peer) ?? 0) > now)) continue
      const fiber = yield* loops.run(peer, Supervised.lasting(loop, Effect.scoped(serve(peer, configured))))
      run(Effect.andThen(
        Fiber.await(fiber),
        Effect.flatMap(Elapsed.millis, (now) => {
          for (const [id, until] of resting) if (until <= now) resting.delete(id)
          resting.set(peer, now + Duration.toMillis(Duration.fromInputUnsafe(policy.rest)))
          return consider
        })
      ))
    }
  })

  const onIdentify = ({ detail }: { readonly detail: IdentifyResult }) => {
    const peer = detail.peerId.toString() as PeerId
    const { connection } = detail
    if (!connection.direct || connection.status !== "open" || peer === own) return
    const at = withoutPeer(connection.remoteAddr.toString() as Multiaddr)
    if (!detail.protocols.includes(RELAY_V2_HOP_CODEC)) {
      if (isConfigured(peer, at)) run(Effect.logWarning(`${peer} is one of relayPeers, but no relay`))
      return
    }
    present.set(peer, at)
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
  // A relay's rest may have ended, and a peer may have become a relay.
  yield* Supervised.fork("relays", Effect.schedule(Supervised.once("relays", consider), Schedule.spaced("10 seconds")))

  const reserve = Effect.fnUntraced(function*(address: Multiaddr) {
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const relay = { address }
        configured.add(relay)
        return relay
      }),
      (relay) =>
        Effect.suspend(() => {
          const former = [...present].filter(([peer, at]) => isConfigured(peer, at))
          configured.delete(relay)
          // A relay that nobody asks for any more is given up with its reservation.
          return Effect.forEach(former, ([peer, at]) => isConfigured(peer, at) ? Effect.void : loops.remove(peer), {
            discard: true
          })
        })
    )
    yield* manager.keep(address)
    // The relay may be connected already, and have been passed over.
    yield* consider
  })
  yield* Effect.forEach(relayPeers, (address) =>
    reserve(address).pipe(
      Effect.catchReason("DialError", "DialedSelf", () => Effect.logInfo(`relay ${address} is this node itself`))
    ), { discard: true })
  return { reserve: (relay: Multiaddr) => Effect.annotateLogs(reserve(relay), { component: "relay" }) }
}).pipe(Effect.annotateLogs({ component: "relay" }))

/** {@link make} as a Layer. */
export const layer: Layer.Layer<
  never,
  HostError | DialError,
  Libp2pHost | NetworkConfig | ConnectionManager | NetworkEvents
> = Layer.effect(Relays, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const loop = "a reservation on a relay"

const dialAddresses = (components: Libp2pHost["Service"]["components"], relay: PeerId) =>
  Effect.promise(async (): Promise<ReadonlyArray<Multiaddr>> => {
    const id = peerIdFromString(relay)
    const peer = await components.peerStore.get(id).catch(() => undefined)
    const dialled = components.connectionManager.getConnections(id).flatMap(({ direct, direction, remoteAddr }) =>
      direct && direction === "outbound" ? [remoteAddr] : []
    )
    const all = [...dialled, ...(peer?.addresses ?? []).map((address) => address.multiaddr)]
    return [...new Set(all.map((address) => withoutPeer(address.toString() as Multiaddr)))].filter((text) =>
      !text.includes("/p2p-circuit")
    )
  })
