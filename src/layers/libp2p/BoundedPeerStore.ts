/**
 * A bound on libp2p's peer store, which has none: it remembers every peer that somebody names for two days. [libp2p]
 *
 * All writes of the peer store go through the node's datastore, so they are counted there.
 */
import { peerIdFromCID } from "@libp2p/peer-id"
import { Effect, type Scope } from "effect"
import { CID } from "multiformats/cid"
import type { PeerId } from "../../schema/Peer.ts"
import { BoundedMap } from "../BoundedMap.ts"
import type { Components } from "./wire/Components.ts"

export interface BoundedPeerStore {
  /** Behind `Transport.retain`; one rule at a time. */
  readonly retain: (isOfInterest: (peer: PeerId) => boolean) => Effect.Effect<void, never, Scope.Scope>
}

/**
 * Bounds the peer store of a node that is not started yet. Past `peersMax` peers, those go that were written longest
 * ago, of those that are neither connected nor of interest. This node's own record is never forgotten.
 */
export const make = (
  { connectionManager, datastore, peerId }: Pick<Components, "connectionManager" | "datastore" | "peerId">,
  peersMax: number
): BoundedPeerStore => {
  // Keys are made anew from their names, which takes 300 bytes a peer less than to remember them.
  type Key = Parameters<typeof datastore.put>[0]
  let keyOf: ((name: string) => Key) | undefined
  let isOfInterest: ((peer: PeerId) => boolean) | undefined
  const isKept = (name: string): boolean => {
    const id = peerIdFromCID(CID.parse(name.slice(prefix.length)))
    return connectionManager.getConnections(id).length > 0 || isOfInterest?.(id.toString() as PeerId) === true
  }
  const self = `${prefix}${peerId.toCID().toString()}`
  const put = datastore.put.bind(datastore)
  const remove = datastore.delete.bind(datastore)
  const known = new BoundedMap<string, true>(
    peersMax,
    (_, name) => isKept(name),
    (_, name) => keyOf !== undefined && void remove(keyOf(name))
  )
  datastore.put = (key, value, options) => {
    const name = key.toString()
    if (name.startsWith(prefix) && name !== self) {
      const Key = key.constructor as new(name: string) => Key
      keyOf ??= (name) => new Key(name)
      known.set(name, true)
    }
    return put(key, value, options)
  }
  datastore.delete = (key, options) => {
    known.delete(key.toString())
    return remove(key, options)
  }

  return {
    retain: (rule) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          isOfInterest = rule
        }),
        () =>
          Effect.sync(() => {
            isOfInterest = undefined
          })
      )
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Before the CID of each peer. The datastore may hold other things, too. */
const prefix = "/peers/"
