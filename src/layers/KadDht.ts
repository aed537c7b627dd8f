/**
 * The DHT: this library's engine over the routing table of kad-dht. [libp2p]
 *
 * Questions, lookups, the server and its records are ours (`KadQueries`, `KadStreams`, `KadServer`, `ProviderRecords`, `ValueRecords`).
 * kad-dht stays underneath for what is subtle and not hot: the routing table with its pings and evictions, its refresh, the mode. It is given
 * a registrar that hands the protocol's streams to our server, and its table is read through `KadTable`. A kad-dht that is not made as
 * expected is told of once, and `StockKadDht` takes its place, as `kadEngine: "stock"` asks for.
 *
 * Gotchas
 * - Kademlia opens connections on its own: to the peers that a lookup passes. They count against `maxPeers`, at the lowest interest.
 */
import { Clock, Duration, Effect, FiberSet, Latch, Layer, Queue, type Scope, Stream } from "effect"
import type { KeyValueStore } from "effect/persistence"
import { base58btc } from "multiformats/bases/base58"
import * as ContentKeys from "../schema/Content.ts"
import { DhtError, type HostError, NotFound, QueryTimeout } from "../schema/NetworkError.ts"
import type { PeerAddresses, PeerId } from "../schema/Peer.ts"
import { Dht, type FindOptions } from "../services/Dht.ts"
import type { Discovery } from "../services/Discovery.ts"
import { Identity } from "../services/Identity.ts"
import { NetworkConfig } from "../services/NetworkConfig.ts"
import * as KadAttachment from "./KadAttachment.ts"
import * as KadBeyond from "./KadBeyond.ts"
import { KadDhtPolicy } from "./KadDhtPolicy.ts"
import * as KadHandler from "./KadHandler.ts"
import { decodePeer, encodeFrame, MessageType } from "./KadMessage.ts"
import { type KadNode, keyOf } from "./KadNode.ts"
import * as KadPeers from "./KadPeers.ts"
import { positionOf } from "./KadPosition.ts"
import * as KadProvide from "./KadProvide.ts"
import * as KadQueries from "./KadQueries.ts"
import * as KadServer from "./KadServer.ts"
import * as KadStreams from "./KadStreams.ts"
import { Libp2pHost } from "./Libp2pHost.ts"
import * as ProvidedKeys from "./ProvidedKeys.ts"
import * as ProviderRecords from "./ProviderRecords.ts"
import * as SharedLookups from "./SharedLookups.ts"
import * as StockKadDht from "./StockKadDht.ts"
import * as ValueRecords from "./ValueRecords.ts"
import * as ValueRepair from "./ValueRepair.ts"
import * as Values from "./Values.ts"

export const make: Effect.Effect<
  Dht["Service"],
  HostError,
  Libp2pHost | Identity | NetworkConfig | Discovery | KeyValueStore.KeyValueStore | Scope.Scope
> = Effect.gen(function*() {
  const { kadEngine } = yield* NetworkConfig
  if (kadEngine === "stock") return yield* StockKadDht.make
  const attached = yield* Effect.result(KadAttachment.make)
  if (attached._tag === "Success") return yield* engine(attached.success)
  yield* Effect.logWarning(
    `${attached.failure.detail}; plain kad-dht asks and answers in the DHT meanwhile, which is slower`
  )
  return yield* StockKadDht.make
}).pipe(Effect.annotateLogs({ component: "dht" }))

/**
 * The DHT on the host's node. Provided keys outlive the process when the `KeyValueStore` does.
 */
export const layer: Layer.Layer<
  Dht,
  HostError,
  Libp2pHost | Identity | NetworkConfig | Discovery | KeyValueStore.KeyValueStore
> = Layer.effect(Dht, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const engine = Effect.fnUntraced(function*(attached: KadAttachment.KadAttachment) {
  const host = yield* Libp2pHost
  const { kadProtocol, kadReplicationFactor: copies } = yield* NetworkConfig
  const policy = yield* KadDhtPolicy
  const signer = yield* Identity
  const namespaces = yield* Values.namespaces
  const run = yield* FiberSet.makeRuntime()
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const { addressManager, events } = host.components

  const peers = yield* KadPeers.make(attached.table)
  const { self } = peers

  // ----- asking

  const streams = yield* KadStreams.make({ protocol: kadProtocol })

  const request: KadQueries.KadQueriesOptions["request"] = (node, question, before) =>
    streams.request(node, question, before).pipe(
      Effect.tap(() => Effect.sync(() => peers.answered(node))),
      Effect.tapError(({ reason }) =>
        Effect.sync(() => {
          // What this node's own gate refused says nothing of the peer.
          if (reason === "Unsupported" || reason === "Unreachable") peers.gone(node, reason === "Unreachable")
        })
      )
    )

  const beyond: KadBeyond.KadBeyond<KadNode> = KadBeyond.make({
    count: copies,
    lookup: (bytes) =>
      queries.lookup(positionOf(bytes), { question: encodeFrame({ type: MessageType.FIND_NODE, key: bytes }) })
  })
  const queries = KadQueries.make({ ...peers, count: copies, request, beyond, read: KadPeers.read })

  /** The first peer introduces this node to those around it, who then know it, and are known. */
  const introduce = Effect.suspend(() =>
    queries.lookup(self.position, { question: encodeFrame({ type: MessageType.FIND_NODE, key: self.bytes }) })
  )

  // ----- providers

  const records = ProviderRecords.make()
  const providersHere = (key: ContentKeys.ContentKey): ReadonlyArray<ContentKeys.Provider> =>
    records.get(ContentKeys.toBytes(key), now(), localBytes).flatMap((body) => {
      const peer = decodePeer(body)
      if (peer === undefined || keyOf(peer.id) === self.key) return []
      return [{ id: idOf(peer.id), addresses: KadPeers.read(peer.addresses) }]
    })

  const providers = yield* SharedLookups.make({
    lookup: queries.providers,
    cacheTime: policy.cacheTime,
    isCached: isLasting
  })

  const findProviders = (
    key: ContentKeys.ContentKey,
    options?: FindOptions
  ): Stream.Stream<ContentKeys.Provider, DhtError> =>
    Stream.suspend(() => {
      const after = Duration.fromInputUnsafe(options?.findTimeout ?? policy.findTimeout)
      const here = providersHere(key)
      const late = here.length > 0
        ? Effect.void
        : Effect.fail(new DhtError({ operation: "findProviders", subject: key, reason: new QueryTimeout({ after }) }))
      const others = providers.find(key, { after, late: () => late })
      if (here.length === 0) return others
      const seen = new Set(here.map(({ id }) => id))
      // The network is asked when the reader wants more.
      return Stream.concat(Stream.fromIterable(here), Stream.filter(others, ({ id }) => !seen.has(id)))
    }).pipe(Stream.take(options?.maxProviders ?? policy.maxProviders))

  // ----- peers

  const places = yield* SharedLookups.make({
    lookup: (id: PeerId, found: (some: ReadonlyArray<PeerAddresses>) => void) => queries.peer(peers.nodeOf(id), found),
    cacheTime: policy.cacheTime,
    isCached: isLasting
  })

  const askForPeer = Effect.fnUntraced(function*(id: PeerId) {
    const after = Duration.fromInputUnsafe(policy.findTimeout)
    const failing = (reason: DhtError["reason"]) => new DhtError({ operation: "findPeer", subject: id, reason })
    const found = yield* Stream.runHead(places.find(id)).pipe(
      Effect.timeoutOrElse({ duration: after, orElse: () => Effect.fail(failing(new QueryTimeout({ after }))) })
    )
    return found._tag === "Some" ? found.value : yield* failing(new NotFound({}))
  })

  const findPeer = Effect.fn("Dht.findPeer")(function*(id: PeerId) {
    const { addresses, isCertain } = yield* peers.whereIs(id)
    const known: PeerAddresses = { id, addresses }
    if (isCertain) return known
    // It may have moved since it was connected, so what is known of it comes second.
    const asked = askForPeer(id)
    return yield* addresses.length === 0 ? asked : Effect.catch(asked, () => Effect.succeed(known))
  })
  attached.findPeer = (id, signal) => Effect.runPromise(askForPeer(id), signal === undefined ? {} : { signal })

  // ----- values

  const valueRecords = ValueRecords.make(namespaces)
  const { repair } = yield* ValueRepair.make<KadNode>({
    put: (node, key, bytes) => {
      const record = ValueRecords.toRecord(key, bytes, now())
      return request(node, encodeFrame({ type: MessageType.PUT_VALUE, key, record }))
    }
  })
  const values = Values.make({
    namespaces,
    signer,
    local: (key) =>
      Effect.sync(() => {
        const record = valueRecords.get(key, now())
        return record === undefined ? undefined : ValueRecords.fromRecord(record)?.value
      }),
    put: Effect.fnUntraced(function*(key, bytes, count) {
      const record = ValueRecords.toRecord(key, bytes, now())
      yield* valueRecords.put(key, record, now()).pipe(
        Effect.mapError((reason) => new DhtError({ operation: "putValue", subject: KadQueries.textOf(key), reason }))
      )
      yield* queries.putValue(key, record, {
        asked: ({ id }) => count.asked.add(id),
        answered: ({ id }, message) => {
          // Who has stored a value sends it back.
          const stored = message.record === undefined ? undefined : ValueRecords.fromRecord(message.record)
          if (stored !== undefined && Values.sameBytes(stored.value, bytes)) count.acknowledged.add(id)
        }
        // What has been counted by then is what there is.
      }).pipe(Effect.timeoutOption(policy.findTimeout))
    }),
    get: (key) =>
      queries.values(key).pipe(
        Stream.map((found) => {
          if ("closest" in found) return found
          const { from, record } = found
          return { from, bytes: record === undefined ? undefined : ValueRecords.fromRecord(record)?.value }
        }),
        Stream.interruptWhen(Effect.sleep(policy.findTimeout))
      ),
    repair
  })

  // ----- what this node provides

  const changed = yield* Latch.make()
  const onSelfUpdate = () => {
    changed.openUnsafe()
  }
  // New peers come in groups; only the first is not made to wait.
  const growth = yield* Queue.sliding<void>(1)
  yield* Effect.forkScoped(Effect.forever(
    Queue.take(growth).pipe(Effect.andThen(Effect.sleep("250 millis")), Effect.andThen(changed.open))
  ))
  yield* peers.onArrival((change) => {
    // Somebody new may know what nobody knew.
    run(Effect.andThen(providers.forgetEmpty, places.forgetEmpty))
    if (change === "first") {
      run(introduce)
      changed.openUnsafe()
    } else {
      Queue.offerUnsafe(growth, void 0)
    }
  })
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      events.addEventListener("self:peer:update", onSelfUpdate)
      events.addEventListener("transport:listening", onSelfUpdate)
    }),
    () =>
      Effect.sync(() => {
        events.removeEventListener("self:peer:update", onSelfUpdate)
        events.removeEventListener("transport:listening", onSelfUpdate)
      })
  )

  const { isProvided, ...providing } = yield* ProvidedKeys.make({
    announce: KadProvide.make<KadNode>({
      self,
      count: copies,
      seeds: peers.seeds,
      request: (node, question, before) =>
        Effect.map(request(node, question, before), ({ message, tookBefore }) => ({
          closer: peers.hear(message.closer),
          tookBefore
        })),
      send: streams.send,
      ...beyond,
      // What is announced counts for hours.
      provider: peers.ownBodyNow
    }),
    withdraw: () => Effect.void,
    takers: peers.ids,
    hasTakers: peers.isThere,
    addresses: () => addressManager.getAddresses().map(String),
    changed,
    copies,
    retry: policy.retry,
    republish: policy.republish
  })

  // ----- what others ask

  const server = yield* KadServer.make({
    self: self.bytes,
    closerMax: copies,
    closest: attached.table.closest,
    encodedOf: peers.encodedOf,
    addressesOf: peers.addressesOf,
    isProvided,
    providers: records,
    values: valueRecords
  })

  attached.serve = yield* KadHandler.make(server, host.components)

  return Dht.of({ ...providing, ...values, findProviders, findPeer, closestPeers: queries.closestPeers })
})

/** What this node has of the providers of a key is read up to so many bytes: a thousand of them. */
const localBytes = 256 * 1024

const isLasting = ({ reason }: DhtError): boolean => reason._tag !== "NoPeers"

const idOf = (bytes: Uint8Array): PeerId => base58btc.baseEncode(bytes) as PeerId
