/**
 * Makes this node a relay: a meeting point for peers that cannot be dialled. [libp2p]
 */
import type { PeerId as Libp2pPeerId } from "@libp2p/interface"
import { circuitRelayServer, type CircuitRelayService, type RelayReservation } from "@libp2p/circuit-relay-v2"
import { Duration, Effect, Layer, type Scope } from "effect"
import type { HostError } from "../../schema/NetworkError.ts"
import { Libp2pHost } from "../libp2p/Host.ts"
import { assertMembers } from "../libp2p/wire/LeanedOn.ts"

/** What a relay gives to others. */
export interface RelayServerOptions {
  /** Peers that may hold a reservation at a time. Defaults to 128. */
  readonly maxReservations?: number
  /**
   * How long a reservation lasts unless the client renews it, which clients do in time. At least 1 second. Defaults to
   * 2 hours.
   */
  readonly reservationDuration?: Duration.Input
  /** How long a relayed connection may last. Defaults to 2 minutes. */
  readonly durationLimit?: Duration.Input
  /** Bytes that a relayed connection may carry, both directions together. Defaults to 128 KiB. */
  readonly dataLimit?: number
  /** Relays without limits of time and bytes. Defaults to false. */
  readonly unlimited?: boolean
}

/**
 * A circuit relay v2 server while the scope lives. A reservation ends with the connection of the peer that holds it.
 */
export const make = (
  options: RelayServerOptions = {}
): Effect.Effect<CircuitRelayService, HostError, Libp2pHost | Scope.Scope> =>
  Effect.gen(function*() {
    const { attach, components: { events } } = yield* Libp2pHost
    const reservationTtl = Duration.toMillis(Duration.fromInputUnsafe(options.reservationDuration ?? "2 hours"))
    let release = (_: Libp2pPeerId) => {}
    let releaseAll = () => {}
    const service = yield* attach("relay-server", (components) => {
      const service = circuitRelayServer({
        reservations: {
          maxReservations: options.maxReservations ?? 128,
          reservationTtl,
          applyDefaultLimit: options.unlimited !== true,
          defaultDurationLimit: Duration.toMillis(Duration.fromInputUnsafe(options.durationLimit ?? "2 minutes")),
          defaultDataLimit: BigInt(options.dataLimit ?? 128 * 1024)
        }
      })(components) as AttachedServer
      assertMembers("@libp2p/circuit-relay-v2", service, serverMembers)
      const kept = keepReservations(service.reservationStore, reservationTtl)
      release = kept.release
      releaseAll = kept.releaseAll
      return service
    })
    const onDisconnect = ({ detail }: CustomEvent<Libp2pPeerId>) => release(detail)
    yield* Effect.acquireRelease(
      Effect.sync(() => events.addEventListener("peer:disconnect", onDisconnect)),
      () =>
        Effect.sync(() => {
          events.removeEventListener("peer:disconnect", onDisconnect)
          releaseAll()
        })
    )
    return service
  })

/**
 * {@link make} as a Layer that provides nothing.
 */
export const layer = (options: RelayServerOptions = {}): Layer.Layer<never, HostError, Libp2pHost> =>
  Layer.effectDiscard(make(options))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface AttachedServer extends CircuitRelayService {
  readonly reservationStore: ReservationStore
}

interface ReservationStore {
  readonly reservations: {
    readonly keys: () => Iterable<Libp2pPeerId>
    readonly get: (peer: Libp2pPeerId) => RelayReservation | undefined
    readonly delete: (peer: Libp2pPeerId) => void
  }
  reserve: (peer: Libp2pPeerId, ...rest: ReadonlyArray<never>) => unknown
}

/** Private members of libp2p's relay server. */
export const serverMembers = {
  "reservationStore.reserve": "function",
  "reservationStore.reservations.keys": "function",
  "reservationStore.reservations.get": "function",
  "reservationStore.reservations.delete": "function"
} as const

/**
 * Gives each reservation one timer, which ends with the peer's connection or with the server.
 *
 * Faults: a renewed reservation ends one lifetime after its first renewal, since each further `reset` of its signal
 * adds a timer and removes none; the reservations of peers that left count until they expire; and the timers outlive
 * the server, and keep it in memory.
 */
function keepReservations(store: ReservationStore, ttlMillis: number) {
  const timers = new Map<string, ReturnType<typeof setTimeout>>()
  const reserve = store.reserve.bind(store)
  store.reserve = (peer, ...rest) => {
    const before = store.reservations.get(peer)
    const result = reserve(peer, ...rest)
    const reservation = store.reservations.get(peer)
    if (reservation === undefined || reservation === before) return result
    const { signal } = reservation
    const fire = signal.reset.bind(signal)
    signal.clear()
    const id = peer.toString()
    signal.reset = (millis) => {
      clearTimeout(timers.get(id))
      const timer = setTimeout(() => fire(1), millis)
      timer.unref()
      timers.set(id, timer)
    }
    signal.reset(ttlMillis)
    return result
  }
  const release = (peer: Libp2pPeerId) => {
    clearTimeout(timers.get(peer.toString()))
    timers.delete(peer.toString())
    store.reservations.get(peer)?.signal.clear()
    store.reservations.delete(peer)
  }
  return {
    release,
    releaseAll: () => {
      for (const peer of [...store.reservations.keys()]) release(peer)
      for (const timer of timers.values()) clearTimeout(timer)
    }
  }
}
