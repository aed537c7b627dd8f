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
import {
  type PeerId as Libp2pPeerId,
  type PeerRouting,
  peerRoutingSymbol,
  type PeerUpdate,
  type StreamHandler
} from "@libp2p/interface"
import { kadDHT, type KadDHTComponents, passthroughMapper } from "@libp2p/kad-dht"
import { peerIdFromMultihash, peerIdFromString } from "@libp2p/peer-id"
import { CODE_P2P, type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import { Clock, Duration, Effect, FiberSet, Latch, Layer, Queue, type Scope, Stream } from "effect"
import type { KeyValueStore } from "effect/persistence"
import * as Digest from "multiformats/hashes/digest"
import * as ContentKeys from "../schema/Content.ts"
import { DhtError, type HostError, NoPeers, NotFound, QueryTimeout } from "../schema/NetworkError.ts"
import { type Multiaddr, type PeerAddresses, type PeerId, withoutPeer } from "../schema/Peer.ts"
import { Dht, type FindOptions } from "../services/Dht.ts"
import { Discovery } from "../services/Discovery.ts"
import { Identity } from "../services/Identity.ts"
import { NetworkConfig } from "../services/NetworkConfig.ts"
import { KadDhtPolicy } from "./KadDhtPolicy.ts"
import { decodePeer, encodeFrame, type KadPeer, MessageType } from "./KadMessage.ts"
import { KadNode, KadNodes, keyOf } from "./KadNode.ts"
import { compareDistance, type Position } from "./KadPosition.ts"
import * as KadHandler from "./KadHandler.ts"
import * as KadProvide from "./KadProvide.ts"
import * as KadQueries from "./KadQueries.ts"
import * as KadServer from "./KadServer.ts"
import * as KadStreams from "./KadStreams.ts"
import * as KadTable from "./KadTable.ts"
import { type Components, Libp2pHost } from "./Libp2pHost.ts"
import * as LookupBudget from "./LookupBudget.ts"
import * as ProvidedKeys from "./ProvidedKeys.ts"
import * as ProviderRecords from "./ProviderRecords.ts"
import * as Pulse from "./Pulse.ts"
import * as SharedLookups from "./SharedLookups.ts"
import * as StockKadDht from "./StockKadDht.ts"
import * as ValueRecords from "./ValueRecords.ts"
import * as Values from "./Values.ts"

export const make: Effect.Effect<
  Dht["Service"],
  HostError,
  Libp2pHost | Identity | NetworkConfig | Discovery | KeyValueStore.KeyValueStore | Scope.Scope
> = Effect.gen(function*() {
  const { kadEngine } = yield* NetworkConfig
  if (kadEngine === "stock") return yield* StockKadDht.make
  const attached = yield* Effect.result(attach)
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

/** What the engine takes of a running kad-dht. */
interface Attached {
  readonly table: KadTable.KadTable
  /** Who answers the streams of the protocol; they are aborted before it is set. */
  serve: StreamHandler
  /** Who answers libp2p's own questions where a peer is. */
  findPeer: (peer: PeerId, signal?: AbortSignal) => Promise<PeerAddresses>
}

const attach = Effect.gen(function*() {
  const host = yield* Libp2pHost
  const { kadProtocol, kadReplicationFactor } = yield* NetworkConfig
  let attached!: Attached
  yield* host.attach("kad-dht", (components) => {
    const kad = kadDHT({
      protocol: kadProtocol,
      // Unset, it stays a client on private networks, and the default mapper leaves every routing table there empty.
      clientMode: false,
      peerInfoMapper: passthroughMapper,
      kBucketSize: kadReplicationFactor,
      allowQueryWithZeroPeers: true,
      // The engine introduces this node as soon as there is a peer.
      initialQuerySelfInterval: Duration.toMillis("1 minute")
      // libp2p keeps its services among the components, which their type does not say; the class that is returned is not exported.
    })(serving(components, kadProtocol, (...args) => attached.serve(...args)) as Components & KadDHTComponents)
    attached = {
      table: KadTable.of(kad as unknown as KadTable.KadTableInternals, components),
      serve: (stream) => stream.abort(new Error("the DHT is not ready")),
      findPeer: () => Promise.reject(new Error("the DHT is not ready"))
    }
    Object.defineProperty(kad, peerRoutingSymbol, { value: routing(() => attached) })
    return kad
  })
  return attached
})

const engine = Effect.fnUntraced(function*(attached: Attached) {
  const host = yield* Libp2pHost
  const { kadProtocol, kadReplicationFactor: copies } = yield* NetworkConfig
  const { announce: tell } = yield* Discovery
  const policy = yield* KadDhtPolicy
  const signer = yield* Identity
  const namespaces = yield* Values.namespaces
  const run = yield* FiberSet.makeRuntime()
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const { table } = attached
  const { addressManager, connectionManager, events, peerId, peerStore, registrar } = host.components

  // ----- the peers

  const idBytes = peerId.toMultihash().bytes
  const self = new KadNode(idBytes, keyOf(idBytes))
  /** Connected peers that serve the DHT, those included that the table has no room for or has not pinged yet. */
  const speakers = new Map<string, KadNode>()
  const nodes = new KadNodes(nodesMax, ({ key }) => table.has(key) || speakers.has(key))
  const nodeOf = (id: PeerId) => nodes.of(peerIdFromString(id).toMultihash().bytes)
  const changed = yield* Latch.make()
  const arrival = Pulse.make()

  const refresh = (
    id: Libp2pPeerId,
    addresses: ReadonlyArray<{ readonly multiaddr: { readonly bytes: Uint8Array } }>
  ) => {
    const node = nodes.known(id.toMultihash().bytes)
    if (node !== undefined) nodes.identify(node, addresses.map((address) => address.multiaddr.bytes))
  }
  const onPeerUpdate = ({ detail }: CustomEvent<PeerUpdate>) => refresh(detail.peer.id, detail.peer.addresses)

  const onConnect = (id: Libp2pPeerId) => {
    const node = nodes.of(id.toMultihash().bytes)
    const isFirst = speakers.size === 0
    speakers.set(node.key, node)
    peerStore.get(id).then(({ addresses }) => refresh(id, addresses), () => {})
    if (isFirst) run(introduce)
    arrived()
  }
  const onDisconnect = (id: Libp2pPeerId) => {
    const node = nodes.known(id.toMultihash().bytes)
    if (node === undefined) return
    speakers.delete(node.key)
    // It may move now.
    node.isIdentified = false
  }

  const seeds = (target: Position): ReadonlyArray<KadNode> => {
    const found = new Set(table.closest(target, copies).map(({ bytes }) => nodes.of(bytes)))
    // With no place left for another connection, these are all who can be asked.
    for (const node of nearest([...speakers.values()], target, copies)) found.add(node)
    return [...found]
  }

  const hear = (peers: ReadonlyArray<KadPeer>): ReadonlyArray<KadNode> => {
    const heard: Array<KadNode> = []
    for (const { addresses, id } of peers) {
      const node = nodes.of(id)
      if (node.key === self.key) continue
      heard.push(node)
      if (addresses.length === 0) continue
      const isNews = nodes.hear(node, addresses)
      if (!isNews && now() < node.toldAt + tellMillis) continue
      node.toldAt = now()
      run(tell({ id: node.id, addresses: read(addresses) }, "dht"))
    }
    return heard
  }

  /** This node with its addresses, as the body of a Peer in a message. */
  const ownBody = (): Uint8Array => {
    self.addresses = addressManager.getAddresses().map((address) => address.decapsulateCode(CODE_P2P).bytes)
    return self.encoded
  }

  // ----- asking

  const streams = yield* KadStreams.make({ protocol: kadProtocol })

  const request: KadQueries.KadQueriesOptions["request"] = (node, question, before) =>
    streams.request(node, question, before).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          if (!table.has(node.key)) table.add(libp2pId(node))
        })
      ),
      Effect.tapError(({ reason }) =>
        Effect.sync(() => {
          // What this node's own gate refused says nothing of the peer; one that is slow may still be there.
          const isGone = reason === "Unsupported" || (reason === "Unreachable" && !speakers.has(node.key))
          if (isGone && table.has(node.key)) table.remove(libp2pId(node))
        })
      )
    )

  /** Waits until there is somebody to ask: 2 s at most, while a connected peer has not yet said what it speaks. */
  const ready = Effect.fnUntraced(function*(operation: DhtError["operation"], subject: string) {
    if (table.size() > 0 || speakers.size > 0) return
    const deadline = now() + readyMillis
    while (table.size() === 0 && speakers.size === 0) {
      const next = arrival.next()
      if (now() >= deadline || !(yield* StockKadDht.someoneSpeaks(host.components, kadProtocol))) {
        return yield* new DhtError({ operation, subject, reason: new NoPeers({}) })
      }
      yield* Effect.raceFirst(next, Effect.sleep("50 millis"))
    }
  })

  const queries = KadQueries.make({ self, count: copies, seeds, ready, request, hear, read })

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
      return [{ id: nodes.of(peer.id).id, addresses: read(peer.addresses) }]
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
      const seen = new Set<PeerId>()
      return Stream.concat(Stream.suspend(() => Stream.fromIterable(providersHere(key))), providers.find(key)).pipe(
        Stream.filter(({ id }) => !seen.has(id) && Boolean(seen.add(id)))
      )
    }).pipe(LookupBudget.within(key, policy, options))

  // ----- peers

  const places = yield* SharedLookups.make({
    lookup: (id: PeerId, found: (some: ReadonlyArray<PeerAddresses>) => void) => queries.peer(nodeOf(id), found),
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

  const addressesOf = (id: Libp2pPeerId) =>
    Effect.promise(async (): Promise<PeerAddresses> => {
      const peer = await peerStore.get(id).catch(() => undefined)
      const dialled = connectionManager.getConnections(id).filter(({ direction }) => direction === "outbound")
      const all = [
        ...dialled.map(({ remoteAddr }) => remoteAddr),
        ...(peer?.addresses ?? []).map((one) => one.multiaddr)
      ]
      return { id: id.toString() as PeerId, addresses: show(all) }
    })

  const findPeer = Effect.fn("Dht.findPeer")(function*(id: PeerId) {
    const libp2pId = peerIdFromString(id)
    if (libp2pId.equals(peerId)) return { id, addresses: show(addressManager.getAddresses()) }
    const local = yield* addressesOf(libp2pId)
    if (local.addresses.length === 0) return yield* askForPeer(id)
    if (connectionManager.getConnections(libp2pId).length > 0) return local
    // It may have moved since it was connected, so what is known of it comes second.
    return yield* Effect.catch(askForPeer(id), () => Effect.succeed(local))
  })
  attached.findPeer = (id, signal) => Effect.runPromise(askForPeer(id), signal === undefined ? {} : { signal })

  // ----- values

  const valueRecords = ValueRecords.make(namespaces)
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
        Stream.map((record) => record === undefined ? undefined : ValueRecords.fromRecord(record)?.value),
        Stream.interruptWhen(Effect.sleep(policy.findTimeout))
      )
  })

  // ----- what this node provides

  // New peers come in groups; only the first is not made to wait.
  const growth = yield* Queue.sliding<void>(1)
  yield* Effect.forkScoped(Effect.forever(
    Queue.take(growth).pipe(Effect.andThen(Effect.sleep("250 millis")), Effect.andThen(changed.open))
  ))
  const arrived = () => {
    arrival.beatUnsafe()
    // Somebody new may know what nobody knew.
    run(Effect.andThen(providers.forgetEmpty, places.forgetEmpty))
    if (table.size() + speakers.size <= 1) changed.openUnsafe()
    else Queue.offerUnsafe(growth, void 0)
  }
  const onSelfUpdate = () => {
    changed.openUnsafe()
  }

  const { isProvided, ...providing } = yield* ProvidedKeys.make({
    announce: KadProvide.make({
      self,
      count: copies,
      seeds,
      request: (node, question, before) =>
        Effect.map(request(node, question, before), ({ message, tookBefore }) => ({
          closer: hear(message.closer),
          tookBefore
        })),
      send: streams.send,
      provider: ownBody
    }),
    withdraw: () => Effect.void,
    takers: () =>
      [...new Set([...table.peers.map(({ bytes }) => nodes.of(bytes)), ...speakers.values()])].map(({ id }) => id),
    hasTakers: Effect.suspend(() =>
      table.size() + speakers.size > 0
        ? Effect.succeed(true)
        : StockKadDht.someoneSpeaks(host.components, kadProtocol)
    ),
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
    closest: table.closest,
    encodedOf: (id) => {
      if (keyOf(id) === self.key) return ownBody()
      const node = nodes.known(id)
      return node === undefined || node.addresses.length === 0 ? undefined : node.encoded
    },
    addressesOf: (id) => nodes.known(id)?.addresses ?? [],
    isProvided: (key) => isProvided(ContentKeys.fromRustRecordKey(key)),
    providers: records,
    values: valueRecords
  })

  attached.serve = yield* KadHandler.make(server, host.components)

  yield* table.onChange(({ type }) => {
    if (type === "added") arrived()
  })
  yield* Effect.acquireRelease(
    Effect.promise(async () => {
      events.addEventListener("peer:update", onPeerUpdate)
      events.addEventListener("self:peer:update", onSelfUpdate)
      events.addEventListener("transport:listening", onSelfUpdate)
      return registrar.register(kadProtocol, { onConnect, onDisconnect })
    }),
    (topology) =>
      Effect.sync(() => {
        registrar.unregister(topology)
        events.removeEventListener("peer:update", onPeerUpdate)
        events.removeEventListener("self:peer:update", onSelfUpdate)
        events.removeEventListener("transport:listening", onSelfUpdate)
      })
  )

  return Dht.of({ ...providing, ...values, findProviders, findPeer, closestPeers: queries.closestPeers })
})

/** The components of a module whose streams of one protocol are served by another. */
const serving = (components: Components, protocol: string, serve: StreamHandler): Components => {
  const { registrar } = components
  const own: Components["registrar"] = Object.assign(
    Object.create(registrar) as Components["registrar"],
    {
      handle: (name, handler, options) =>
        name === protocol
          ? registrar.handle(name, serve, { ...options, maxInboundStreams: KadHandler.inboundStreamsMax })
          : registrar.handle(name, handler, options)
    } satisfies Pick<Components["registrar"], "handle">
  )
  return new Proxy(components, {
    get: (target, name, receiver) => name === "registrar" ? own : Reflect.get(target, name, receiver) as unknown
  })
}

/** libp2p asks where a peer is that it shall dial without knowing. The engine knows, or asks. */
const routing = (attached: () => Attached): PeerRouting => ({
  findPeer: async (id, options) => {
    const found = await attached().findPeer(id.toString() as PeerId, options?.signal)
    return { id, multiaddrs: found.addresses.map((address) => multiaddr(address)) }
  },
  // Nobody asks libp2p.
  getClosestPeers: async function*() {}
})

/** How many peers of the DHT are kept in mind, those of the table and the connected ones aside. */
const nodesMax = 8192

/** As long is waited for a connected peer to say what it speaks. */
const readyMillis = 2000

/** A peer that is named again and again is told of at most this often. */
const tellMillis = 60_000

/** What this node has of the providers of a key is read up to so many bytes: a thousand of them. */
const localBytes = 256 * 1024

const isLasting = ({ reason }: DhtError): boolean => reason._tag !== "NoPeers"

const nearest = (nodes: ReadonlyArray<KadNode>, target: Position, count: number): ReadonlyArray<KadNode> =>
  nodes.length <= count
    ? nodes
    : nodes.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(0, count)

const libp2pId = (node: KadNode): Libp2pPeerId => peerIdFromMultihash(Digest.decode(node.bytes))

/** Addresses that this node cannot read are left out. */
const read = (addresses: ReadonlyArray<Uint8Array>): ReadonlyArray<Multiaddr> =>
  show(addresses.flatMap((bytes) => {
    try {
      return [multiaddr(bytes)]
    } catch {
      return []
    }
  }))

const show = (addresses: ReadonlyArray<Libp2pMultiaddr>): ReadonlyArray<Multiaddr> => [
  ...new Set(addresses.map((address) => withoutPeer(address.toString() as Multiaddr)))
]
