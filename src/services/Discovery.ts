/**
 * The hub between the sources that find peers and the connection manager, which dials them.
 *
 * Sources (mDNS, the DHT, remembered peers) are Layers that call `announce` and provide nothing. Each can be left out.
 */
import { Context, Effect, Layer, Queue } from "effect"
import type { PeerAddresses } from "../schema/Peer.ts"

/** A peer as a source saw it. A source may report the same peer again. */
export interface Sighting extends PeerAddresses {
  readonly source: string
}

/** Where each source of peers reports what it sees. */
export class Discovery extends Context.Service<Discovery, {
  /** Reports a peer. Never waits. */
  readonly announce: (found: PeerAddresses, source: string) => Effect.Effect<void>
  /** All sightings, for one consumer. The queue keeps the newest 256. */
  readonly peers: Queue.Dequeue<Sighting>
}>()("codio-network/services/Discovery") {
  /** An empty queue of sightings. */
  static readonly layer = Layer.effect(
    Discovery,
    Effect.gen(function*() {
      const peers = yield* Effect.acquireRelease(Queue.sliding<Sighting>(256), Queue.shutdown)
      return Discovery.of({
        announce: (found, source) =>
          Effect.asVoid(Queue.offer(peers, { id: found.id, addresses: found.addresses, source })),
        peers
      })
    })
  )
}
