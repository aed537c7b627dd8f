/**
 * The peer store in effect's `KeyValueStore`.
 *
 * The peers are kept in memory, and written within a second of a change, so that a killed process loses at most the
 * last second. What has changed since the last snapshot goes to the entry `peers.changes`, in one small write for all
 * changes of a second; after 512 changes, and when the scope closes, a snapshot of all peers goes to the entry `peers`.
 *
 * A list that does not decode is set aside as `<entry>.damaged`, with a warning. A list that cannot be read fails the
 * start, since writing over it could lose a good one.
 */
import { Clock, DateTime, Effect, Latch, Layer, Option, Schema } from "effect"
import { KeyValueStore } from "effect/persistence"
import { PeerStoreError } from "../../schema/NetworkError.ts"
import { Multiaddr, PeerId, withoutPeer } from "../../schema/Peer.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { BoundedMap } from "../BoundedMap.ts"
import * as Damaged from "../Damaged.ts"
import { PeerStore, type RememberedAddress, type RememberedPeer } from "../../services/PeerStore.ts"
import * as Supervised from "../Supervised.ts"

/** Addresses remembered of each peer. The address unused for longest is dropped first. */
export const addressesMax = 8

/** How long a change waits for others to share its write. */
export const saveDelay = "1 second"

/** How long a disk that refused a write is left alone. */
const retryDelay = "30 seconds"

/** After so many changed peers a snapshot is due. Their changes take 90 KB. */
const changesMax = 512

/**
 * Reads what was saved, and keeps it written while the scope lives.
 */
export const make = Effect.gen(function*() {
  const { maxKnownPeers } = yield* NetworkConfig
  const store = yield* KeyValueStore.KeyValueStore
  // The oldest entry is the peer that has not been seen for longest.
  const peers = new BoundedMap<PeerId, RememberedPeer>(maxKnownPeers)
  for (const peer of yield* load(store)) peers.set(peer.id, peer)
  /** The peers that have changed since the last snapshot. */
  const changed = new Set<PeerId>()
  const hasUnsaved = yield* Latch.make()

  const saveSnapshot = Effect.suspend(() => {
    // Peers that change during the write stay changed.
    const saved = [...changed]
    changed.clear()
    return store.set(snapshotKey, encode(peers.values())).pipe(
      Effect.andThen(store.remove(changesKey)),
      Effect.onError(() => Effect.sync(() => saved.forEach((id) => changed.add(id))))
    )
  })

  const saveChanges = Effect.suspend(() =>
    store.set(changesKey, encode([...changed].flatMap((id) => peers.get(id) ?? [])))
  )

  const save = Effect.gen(function*() {
    hasUnsaved.closeUnsafe()
    for (const id of changed) if (peers.get(id) === undefined) changed.delete(id)
    // The snapshot is missing at first, and after the directory was removed.
    const isDue = changed.size >= changesMax || !(yield* store.has(snapshotKey))
    yield* isDue ? saveSnapshot : saveChanges
  })
  const notSaved = (error: KeyValueStore.KeyValueStoreError) =>
    Effect.logWarning(`remembered peers not saved: ${error.message}`).pipe(Effect.annotateLogs({ component }))

  yield* Effect.addFinalizer(() =>
    store.has(snapshotKey).pipe(
      Effect.flatMap((isThere) => peers.size === 0 || (isThere && changed.size === 0) ? Effect.void : saveSnapshot),
      Effect.catch(notSaved)
    )
  )
  yield* Supervised.forever(
    "the saving of peers",
    hasUnsaved.await.pipe(
      Effect.andThen(Effect.sleep(saveDelay)),
      Effect.andThen(save),
      Effect.catch((error) => {
        hasUnsaved.openUnsafe()
        return Effect.andThen(notSaved(error), Effect.sleep(retryDelay))
      })
    )
  )

  return PeerStore.of({
    remember: (peer, address) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        // A test clock may stand between two milliseconds; times on disk are whole.
        const lastSeen = DateTime.makeUnsafe(Math.floor(now))
        const newest: RememberedAddress = { address: withoutPeer(address), lastSuccess: lastSeen }
        const others = (peers.get(peer)?.addresses ?? []).filter(({ address }) => address !== newest.address)
        peers.set(peer, { id: peer, addresses: [newest, ...others].slice(0, addressesMax), lastSeen })
        changed.delete(peer)
        changed.add(peer)
        hasUnsaved.openUnsafe()
      }),
    get: (peer) => Effect.sync(() => Option.fromNullishOr(peers.get(peer))),
    peers: Effect.sync(() => [...peers.values()].reverse())
  })
})

/**
 * The peer store in the `KeyValueStore` of `DataDirectory`.
 */
export const layer: Layer.Layer<PeerStore, PeerStoreError, KeyValueStore.KeyValueStore | NetworkConfig> = Layer.effect(
  PeerStore,
  make
)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const snapshotKey = "peers"
const changesKey = "peers.changes"
const component = "peer-store"

// Peers in the order in which they were last seen, the oldest first; a peer's addresses with the last that worked
// first. Version 1 had no times of addresses.
const peerFields = { id: PeerId, lastSeen: Schema.DateTimeUtcFromMillis }
const Snapshot2 = Schema.Struct({
  version: Schema.Literal(2),
  peers: Schema.Array(Schema.Struct({
    ...peerFields,
    addresses: Schema.Array(Schema.Struct({ address: Multiaddr, lastSuccess: Schema.DateTimeUtcFromMillis }))
  }))
})
const Snapshot1 = Schema.Struct({
  version: Schema.Literal(1),
  peers: Schema.Array(Schema.Struct({ ...peerFields, addresses: Schema.Array(Multiaddr) }))
})
const decodeSnapshot = Schema.decodeEffect(Schema.fromJsonString(Schema.Union([Snapshot2, Snapshot1])))

/** A `Snapshot2`. By hand, since each id and address was checked when it came in, and checking decodes it. */
const encode = (peers: Iterable<RememberedPeer>): string =>
  JSON.stringify({
    version: 2,
    peers: Array.from(peers, ({ addresses, id, lastSeen }) => ({
      id,
      lastSeen: lastSeen.epochMilliseconds,
      addresses: addresses.map(({ address, lastSuccess }) => ({ address, lastSuccess: lastSuccess.epochMilliseconds }))
    }))
  })

const peersOf = (snapshot: typeof Snapshot1.Type | typeof Snapshot2.Type): ReadonlyArray<RememberedPeer> =>
  snapshot.version === 2 ? snapshot.peers : snapshot.peers.map(({ addresses, id, lastSeen }) => ({
    id,
    lastSeen,
    addresses: addresses.map((address) => ({ address, lastSuccess: lastSeen }))
  }))

/** The saved peers, those seen last at the end. Of the snapshot and the changes the later record of a peer counts. */
const load = Effect.fnUntraced(function*(store: KeyValueStore.KeyValueStore) {
  const found = new Map<PeerId, RememberedPeer>()
  const damaged: Array<string> = []
  for (const key of [snapshotKey, changesKey]) {
    const text = yield* Effect.mapError(store.get(key), (cause) => new PeerStoreError({ operation: "read", cause }))
    if (text === undefined) continue
    const snapshot = yield* Effect.option(decodeSnapshot(text))
    if (Option.isNone(snapshot)) damaged.push(key)
    else {for (const peer of peersOf(snapshot.value)) {
        const earlier = found.get(peer.id)
        // A kill between the two writes of a snapshot leaves changes that are older than it.
        if (earlier !== undefined && earlier.lastSeen.epochMilliseconds > peer.lastSeen.epochMilliseconds) continue
        found.delete(peer.id)
        found.set(peer.id, { ...peer, addresses: peer.addresses.slice(0, addressesMax) })
      }}
  }
  yield* Damaged.setAside(store, "remembered peers", damaged).pipe(Effect.annotateLogs({ component }))
  return [...found.values()].sort((a, b) => a.lastSeen.epochMilliseconds - b.lastSeen.epochMilliseconds)
})
