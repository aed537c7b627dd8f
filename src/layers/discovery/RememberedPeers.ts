/**
 * Tells Discovery of the peers that the peer store remembers, as the source `remembered`: at start, and again every
 * five minutes, so that a node which has lost everybody tries them again.
 */
import { Effect, Layer, Schedule } from "effect"
import { Discovery } from "../../services/Discovery.ts"
import { PeerStore } from "../../services/PeerStore.ts"

/** The time between two announcements. */
export const interval = "5 minutes"

/**
 * Peers announced each time, those seen last first. Discovery keeps 256 sightings, so more would push out other
 * sources' news.
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
          discovery.announce({ id, addresses: addresses.map(({ address }) => address) }, "remembered"),
        { discard: true }
      )
  )
  yield* announce
  yield* Effect.forkScoped(Effect.schedule(announce, Schedule.spaced(interval)))
}))
