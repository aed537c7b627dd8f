/**
 * The hub between the sources that find peers and the connection manager, which dials them.
 *
 * Sources (mDNS, the DHT, remembered peers) are Layers that call `announce` and provide nothing. Each can be left out.
 */
import { Context, Effect, Layer, Queue, Result } from "effect"
import { type Multiaddr, type PeerAddresses, readPeerId, readTarget, type TargetText } from "../schema/Peer.ts"

/** The sources of addresses that this library has. A program's own source of peers has any other name. */
export type KnownSource = "given" | "worked" | "remembered" | "mdns" | "dht" | "identify"

/** What an address's source says of the address. */
export interface SourceTraits {
  /**
   * Whether the address is dialled unguarded: the program or the local network vouches for it, or it worked before. The
   * `AddressGuard` judges all other addresses.
   */
  readonly isTrusted: boolean
  /** Whether a sighting from the source means that the peer was alive a moment ago. */
  readonly isSignOfLife: boolean
}

/** The traits of a source. An address from a source that the library does not know is guarded. */
export const sourceTraits = (source: string): SourceTraits => known.get(source) ?? unknownTraits

/** A peer as a source saw it. A source may report the same peer again. */
export interface Sighting extends PeerAddresses {
  /** A {@link KnownSource}, or the name of a program's own source. */
  readonly source: string
}

/** Where each source of peers reports what it sees. */
export class Discovery extends Context.Service<Discovery, {
  /**
   * Reports a peer. Never waits. A program's own source has a name of its own; the `AddressGuard` judges its addresses.
   * It may give the id and the addresses in text of any form; what cannot be read is left out, with a debug line.
   */
  readonly announce: (found: Exclude<TargetText, string>, source: string) => Effect.Effect<void>
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
          // The library's own sources give what its other parts have read.
          Effect.flatMap(known.has(source) ? Effect.succeed(found as PeerAddresses) : legible(found, source), (peer) =>
            peer === undefined ? Effect.void : Effect.asVoid(Queue.offer(peers, {
              id: peer.id,
              addresses: peer.addresses,
              source
            }))),
        peers
      })
    })
  )
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const traits: Readonly<Record<KnownSource, SourceTraits>> = {
  given: { isTrusted: true, isSignOfLife: false },
  worked: { isTrusted: true, isSignOfLife: false },
  // Addresses in the peer store have worked, but nobody has seen the peer since.
  remembered: { isTrusted: true, isSignOfLife: false },
  mdns: { isTrusted: true, isSignOfLife: true },
  dht: { isTrusted: false, isSignOfLife: true },
  identify: { isTrusted: false, isSignOfLife: true }
}
const known: ReadonlyMap<string, SourceTraits> = new Map(Object.entries(traits))
const unknownTraits: SourceTraits = { isTrusted: false, isSignOfLife: true }

/** The peer with those of its addresses that can be read; undefined where its id cannot. */
const legible = Effect.fnUntraced(function*(found: Exclude<TargetText, string>, source: string) {
  const id = readPeerId(found.id)
  if (Result.isFailure(id)) {
    yield* Effect.logDebug(`a peer of ${source} is left out: ${id.failure}`)
    return undefined
  }
  const addresses: Array<Multiaddr> = []
  for (const address of found.addresses) {
    const read = readTarget({ id: id.success, addresses: [address] })
    if (Result.isSuccess(read)) addresses.push(...(read.success as PeerAddresses).addresses)
    else yield* Effect.logDebug(`an address of ${id.success} of ${source} is left out: ${read.failure}`)
  }
  return { id: id.success, addresses }
})
