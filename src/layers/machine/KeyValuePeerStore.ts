/**
 * The peer store in effect's `KeyValueStore`, under the key `peers`.
 *
 * The peers are kept in memory. A snapshot is written every 30 s and when the scope closes, if anything has changed, so
 * a killed process loses at most the last 30 s. A snapshot that does not decode is ignored with a warning, and replaced
 * by the next. A snapshot that cannot be read fails the start, since writing over it could lose a good one.
 */
import { Clock, DateTime, Effect, Layer, Option, Schedule, Schema } from "effect"
import { KeyValueStore } from "effect/persistence"
import { PeerStoreError } from "../../schema/NetworkError.ts"
import { Multiaddr, PeerId, withoutPeer } from "../../schema/Peer.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { BoundedMap } from "../BoundedMap.ts"
import { PeerStore, type RememberedAddress, type RememberedPeer } from "../../services/PeerStore.ts"

/** Addresses remembered of each peer. The address unused for longest is dropped first. */
export const addressesMax = 8

/** The time between two snapshots. */
export const snapshotInterval = "30 seconds"

/**
 * Reads the last snapshot, and writes snapshots while the scope lives.
 */
export const make = Effect.gen(function*() {
  const { maxKnownPeers } = yield* NetworkConfig
  const store = yield* KeyValueStore.KeyValueStore
  // The oldest entry is the peer that has not been seen for longest.
  const peers = new BoundedMap<PeerId, RememberedPeer>(maxKnownPeers)
  for (const peer of yield* load(store, maxKnownPeers)) peers.set(peer.id, peer)
  let changed = false

  const save = Effect.suspend(() => {
    if (!changed) return Effect.void
    changed = false
    return encodeSnapshot({ version: 2, peers: [...peers.values()] }).pipe(
      Effect.flatMap((text) => store.set(key, text)),
      Effect.catch((error) => {
        changed = true
        return Effect.logWarning(`remembered peers not saved: ${error.message}`)
      })
    )
  }).pipe(Effect.annotateLogs({ component }))

  yield* Effect.addFinalizer(() => save)
  yield* Effect.forkScoped(Effect.schedule(save, Schedule.spaced(snapshotInterval)))

  return PeerStore.of({
    remember: (peer, address) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        // A test clock may stand between two milliseconds; times on disk are whole.
        const lastSeen = DateTime.makeUnsafe(Math.floor(now))
        const newest: RememberedAddress = { address: withoutPeer(address), lastSuccess: lastSeen }
        const others = (peers.get(peer)?.addresses ?? []).filter(({ address }) => address !== newest.address)
        peers.set(peer, { id: peer, addresses: [newest, ...others].slice(0, addressesMax), lastSeen })
        changed = true
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

const key = "peers"
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
const encodeSnapshot = Schema.encodeEffect(Schema.fromJsonString(Snapshot2))
const decodeSnapshot = Schema.decodeEffect(Schema.fromJsonString(Schema.Union([Snapshot2, Snapshot1])))

const peersOf = (snapshot: typeof Snapshot1.Type | typeof Snapshot2.Type): ReadonlyArray<RememberedPeer> =>
  snapshot.version === 2 ? snapshot.peers : snapshot.peers.map(({ addresses, id, lastSeen }) => ({
    id,
    lastSeen,
    addresses: addresses.map((address) => ({ address, lastSuccess: lastSeen }))
  }))

const load = Effect.fnUntraced(function*(store: KeyValueStore.KeyValueStore, peersMax: number) {
  const text = yield* store.get(key).pipe(Effect.mapError((cause) => new PeerStoreError({ operation: "read", cause })))
  if (text === undefined) return []
  return yield* decodeSnapshot(text).pipe(
    Effect.map((snapshot) =>
      peersOf(snapshot).slice(-peersMax).map((peer) => ({ ...peer, addresses: peer.addresses.slice(0, addressesMax) }))
    ),
    Effect.catch(() =>
      Effect.as(
        Effect.logWarning("remembered peers ignored: the file is damaged, or of another version").pipe(
          Effect.annotateLogs({ component })
        ),
        []
      )
    )
  )
})
