/**
 * The hub between those who find peers and the one who dials them.
 *
 * Sources (mDNS, the DHT, remembered peers) are Layers that call `announce` and provide nothing; each can be left out.
 */
import { Context, Effect, Layer, Queue } from "effect"
import type { PeerAddresses } from "../schema/Peer.ts"

/**
 * A peer as a source saw it. Sources repeat themselves.
 */
export interface Sighting extends PeerAddresses {
  readonly source: string
}

/** Where each source of peers reports what it sees. */
export class Discovery extends Context.Service<Discovery, {
  /** Tells of a peer. Never waits. */
  readonly announce: (found: PeerAddresses, source: string) => Effect.Effect<void>
  /** All sightings, for one consumer. It keeps the newest 256 that are not yet taken. */
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
