/**
 * What libp2p keeps of this node's reservations on relays: cured of its faults, and the members that are private in its
 * types. [libp2p]
 */
import { RELAY_V2_HOP_CODEC } from "@libp2p/circuit-relay-v2"
import type { Connection, Listener, PeerId as Libp2pPeerId, Transport } from "@libp2p/interface"
import { lpStream } from "@libp2p/utils"
import { type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import { Effect } from "effect"
import { type Multiaddr, type PeerId, withoutPeer, withPeer } from "../../schema/Peer.ts"
import { toError, within } from "../libp2p/Faults.ts"
import type { Components } from "../libp2p/wire/Components.ts"
import { assertMembers } from "../libp2p/wire/LeanedOn.ts"

export interface ReservationStore {
  readonly hasReservation: (peer: Libp2pPeerId) => boolean
  readonly addRelay: (peer: Libp2pPeerId, type: "configured") => Promise<unknown>
  readonly addEventListener: <A>(type: string, listener: (event: CustomEvent<A>) => void) => void
  readonly removeEventListener: <A>(type: string, listener: (event: CustomEvent<A>) => void) => void
  readonly cancelReservations: () => void
  relayFilter: { readonly has: () => boolean; readonly add: () => void }
}

export interface RelayTransport extends Transport {
  readonly reservationStore: ReservationStore
}

export function isRelayTransport(transport: Transport): transport is RelayTransport {
  return transport[Symbol.toStringTag] === "@libp2p/circuit-relay-v2-transport"
}

/** Throws a `HostError` unless the transport and its listeners have the private members that are used. */
export const assertRelayTransport = (transport: RelayTransport, { upgrader }: Pick<Components, "upgrader">): void => {
  assertMembers("@libp2p/circuit-relay-v2", transport, transportMembers)
  const listener = transport.createListener({ upgrader }) as CircuitListener
  assertMembers("@libp2p/circuit-relay-v2", listener, listenerMembers)
  forget(transport.reservationStore, listener)
}

/** What {@link assertRelayTransport} asserts of the transport. */
export const transportMembers = {
  "reservationStore.hasReservation": "function",
  "reservationStore.addRelay": "function",
  "reservationStore.addEventListener": "function",
  "reservationStore.removeEventListener": "function",
  "reservationStore.cancelReservations": "function",
  "reservationStore.relayFilter.has": "function",
  "reservationStore.relayFilter.add": "function"
} as const

/** What {@link assertRelayTransport} asserts of a listener. */
export const listenerMembers = { _onRemoveRelayPeer: "function", _onAddRelayPeer: "function" } as const

/**
 * Cures the store while the scope lives, and cancels all reservations at its end.
 *
 * Faults: the store never asks a relay again when one dial of it has failed, or when it was no relay at the time; and
 * over a connection that the relay opened, it takes the port that the relay dialled from for a port on which the relay
 * listens.
 */
export const cured = (store: ReservationStore, connections: () => ReadonlyArray<Connection>) =>
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

/** Ends when the store has no reservation on the relay. */
export const lost = (store: ReservationStore, relay: Libp2pPeerId) =>
  Effect.callback<void>((resume) => {
    const onRemoved = (event: CustomEvent<{ readonly relay: Libp2pPeerId }>) => {
      if (event.detail.relay.equals(relay)) finish()
    }
    const off = () => store.removeEventListener("relay:removed", onRemoved)
    const finish = () => {
      off()
      resume(Effect.void)
    }
    store.addEventListener("relay:removed", onRemoved)
    if (!store.hasReservation(relay)) finish()
    return Effect.sync(off)
  })

/** A reservation on one relay. */
export interface Reservation {
  /** Asks the relay for it. Rejects when the relay refuses. */
  readonly ask: (connection: Connection) => Promise<void>
  /** Forgets the listener of the reservation. */
  readonly end: () => void
}

/**
 * A reservation, which libp2p calls a listener on a relay. The listener's `close` would cancel the reservations on all
 * relays, and each failed `listen` of the transport manager leaves a listener behind; so each relay has one listener,
 * which is used again, and is taken out by hand.
 */
export const makeReservation = (transport: RelayTransport, manager: {
  readonly getListeners: () => ReadonlyArray<Listener>
  readonly listen: (addresses: Array<Libp2pMultiaddr>) => Promise<void>
}): Reservation => {
  const store = transport.reservationStore
  let listener: CircuitListener | undefined
  let isListening = false
  return {
    ask: async (connection) => {
      const peer = connection.remotePeer
      const relay = withPeer(connection.remoteAddr.toString() as Multiaddr, peer.toString() as PeerId)
      const address = multiaddr(`${relay}/p2p-circuit`)
      if (listener === undefined) {
        const before = new Set(manager.getListeners())
        const listening = manager.listen([address])
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
      forget(store, listener)
      listener.dispatchEvent(new CustomEvent("close"))
    }
  }
}

/**
 * Asks for the reservation again; whether the relay has granted it. `[1 length][1 tag][1 RESERVE]`, answered by a
 * message whose field 5 is the status, 100 when granted.
 */
export const renew = (connection: Connection): Promise<boolean> =>
  within(10_000, async (signal) => {
    const stream = await connection.newStream(RELAY_V2_HOP_CODEC, { signal })
    try {
      const messages = lpStream(stream, { maxDataLength: 64 * 1024 })
      await messages.write(Uint8Array.of(0x08, 0x00), { signal })
      return statusOf((await messages.read({ signal })).subarray()) === 100
    } finally {
      // A js relay takes the reservation back when the stream is reset before the relay has closed its own side.
      await stream.close({ signal }).catch((cause) => stream.abort(toError(cause)))
    }
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Created {
  readonly details: { readonly connection: string; readonly reservation: { addrs: Array<Uint8Array> } }
}

interface CircuitListener extends Listener {
  readonly _onRemoveRelayPeer: (event: CustomEvent<never>) => void
  readonly _onAddRelayPeer: (event: CustomEvent<never>) => void
}

function forget(store: ReservationStore, listener: CircuitListener): void {
  store.removeEventListener("relay:removed", listener._onRemoveRelayPeer)
  store.removeEventListener("relay:created-reservation", listener._onAddRelayPeer)
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
    // A field before it: a number, or a message whose length this is.
    const value = varint()
    if ((tag & 7) === 2) at += value
    else if ((tag & 7) !== 0) return undefined
  }
  return undefined
}
