/**
 * Tells Discovery of the peers in the peer store, as the source `remembered`: at the start, and every five minutes, so
 * that a node that has lost every peer tries them again.
 */
import { Effect, Layer, Schedule } from "effect"
import { Discovery } from "../../services/Discovery.ts"
import { PeerStore } from "../../services/PeerStore.ts"
import * as Supervised from "../Supervised.ts"

/** The time between two announcements. */
export const interval = "5 minutes"

/**
 * Peers announced each time, the last seen first. Discovery keeps 256 sightings, so more would push out sightings of
 * other sources.
 */
export const announcedMax = 128

/**
 * Feeds Discovery while the layer lives; provides nothing.
 */
export const layer: Layer.Layer<never, never, Discovery | PeerStore> = Layer.effectDiscard(Effect.gen(function*() {
  const discovery = yield* Discovery
  const store = yield* PeerStore
  const announce = Effect.flatMap(
    store.peers,
    (peers) =>
      Effect.forEach(
        peers.slice(0, announcedMax),
        ({ addresses, id }) =>
          // The peer itself was there, which makes it a teller of that network.
          discovery.announce(
            { id, addresses: addresses.map(({ address }) => ({ address, tellers: [address] })) },
            "remembered"
          ),
        { discard: true }
      )
  )
  yield* announce
  yield* Supervised.fork(
    "remembered peers",
    Effect.schedule(Supervised.once("remembered peers", announce), Schedule.spaced(interval))
  )
}))
