/**
 * The hub between the sources that find peers and the connection manager, which dials them.
 *
 * Sources (mDNS, the DHT, remembered peers) are Layers that call `announce` and provide nothing. Each can be left out.
 */
import { Context, Effect, Layer, Predicate, Queue, Result } from "effect"
import {
  addressOf,
  type Multiaddr,
  type PeerId,
  readPeerId,
  readTarget,
  type Told,
  type ToldAddresses
} from "../schema/Peer.ts"

/** The sources of addresses that this library has. A program's own source of peers has any other name. */
export type KnownSource = "given" | "worked" | "remembered" | "mdns" | "dht" | "identify"

/** What an address's source says of the address. */
export interface SourceTraits {
  /** Whether the address is the program's own, and so dialled unguarded. The `AddressGuard` judges all others. */
  readonly isOwn: boolean
  /** Whether a sighting from the source means that the peer was alive a moment ago. */
  readonly isSignOfLife: boolean
}

/** The traits of a source. An address from a source that the library does not know is not the program's own. */
export const sourceTraits = (source: string): SourceTraits => known.get(source) ?? unknownTraits

/** A peer as a source saw it. A source may report the same peer again. */
export interface Sighting extends ToldAddresses {
  /** A {@link KnownSource}, or the name of a program's own source. */
  readonly source: string
}

/** Where each source of peers reports what it sees. */
export class Discovery extends Context.Service<Discovery, {
  /**
   * Reports a peer. Never waits. A program's own source has a name of its own; the `AddressGuard` judges its addresses.
   * It may give the id and the addresses in text of any form; what cannot be read is left out, with a debug line.
   *
   * A source that knows which node told an address says so: a private address is dialled only when its teller lies in
   * the same subnet.
   */
  readonly announce: (
    found: { readonly id: string; readonly addresses: ReadonlyArray<string | Told> },
    source: string
  ) => Effect.Effect<void>
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
          Effect.flatMap(
            known.has(source) ? Effect.succeed(found as Found) : legible(found, source),
            (peer) =>
              peer === undefined
                ? Effect.void
                : Effect.asVoid(Queue.offer(peers, { id: peer.id, addresses: peer.addresses.map(asTold), source }))
          ),
        peers
      })
    })
  )
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const asTold = (address: Multiaddr | Told): Told => typeof address === "string" ? { address, tellers: [] } : address

const traits: Readonly<Record<KnownSource, SourceTraits>> = {
  given: { isOwn: true, isSignOfLife: false },
  worked: { isOwn: false, isSignOfLife: false },
  // Addresses in the peer store have worked, but nobody has seen the peer since.
  remembered: { isOwn: false, isSignOfLife: false },
  mdns: { isOwn: false, isSignOfLife: true },
  dht: { isOwn: false, isSignOfLife: true },
  identify: { isOwn: false, isSignOfLife: true }
}
const known: ReadonlyMap<string, SourceTraits> = new Map(Object.entries(traits))
const unknownTraits: SourceTraits = { isOwn: false, isSignOfLife: true }

interface Found {
  readonly id: PeerId
  readonly addresses: ReadonlyArray<Multiaddr | Told>
}

/**
 * The peer with those of its addresses that can be read; undefined where its id cannot. A program in plain JavaScript
 * may pass anything.
 */
const legible = Effect.fnUntraced(function*(
  found: { readonly id: string; readonly addresses: ReadonlyArray<string | Told> },
  source: string
) {
  const id = readPeerId(Predicate.isReadonlyObject(found) ? found.id : found)
  if (Result.isFailure(id)) {
    yield* Effect.logDebug(`a peer of ${source} is left out: ${id.failure}`)
    return undefined
  }
  const addresses: Array<Told> = []
  const given: ReadonlyArray<string | Told> = Array.isArray(found.addresses) ? found.addresses : []
  for (const one of given) {
    const told = typeof one === "object" && one !== null ? one : undefined
    const text = told === undefined ? one as string : told.address
    const read = readTarget({ id: id.success, addresses: [text] })
    if (Result.isFailure(read)) {
      yield* Effect.logDebug(`an address of ${id.success} of ${source} is left out: ${read.failure}`)
      continue
    }
    for (const address of (read.success as Found).addresses) {
      addresses.push({ address: addressOf(address), tellers: told?.tellers ?? [] })
    }
  }
  return { id: id.success, addresses }
})
