/**
 * The roof: a node, and everything a program needs of it, behind one service.
 */
// Not from its index, which loads everything that it has.
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import type { Duration, Option, Scope } from "effect"
import { Context, Effect, Layer, Schema, Stream } from "effect"
import * as BootstrapDiscovery from "./layers/discovery/BootstrapDiscovery.ts"
import * as BoundedShutdown from "./layers/machine/BoundedShutdown.ts"
import * as CodioProtocol from "./layers/codio/CodioProtocol.ts"
import * as DataDirectory from "./layers/machine/DataDirectory.ts"
import * as FileIdentity from "./layers/machine/FileIdentity.ts"
import * as KadDht from "./layers/dht/KadDht.ts"
import * as KeyValuePeerStore from "./layers/machine/KeyValuePeerStore.ts"
import * as Host from "./layers/libp2p/Host.ts"
import * as Libp2pTransport from "./layers/libp2p/Transport.ts"
import * as MdnsDiscovery from "./layers/discovery/MdnsDiscovery.ts"
import * as NodeNetworkMonitor from "./layers/machine/NodeNetworkMonitor.ts"
import * as OwnAddresses from "./layers/reach/OwnAddresses.ts"
import * as PingHealth from "./layers/peers/PingHealth.ts"
import * as ProviderRanking from "./layers/dht/lookup/ProviderRanking.ts"
import * as RelayClient from "./layers/reach/RelayClient.ts"
import * as RelayReservations from "./layers/reach/RelayReservations.ts"
import * as RememberedPeers from "./layers/discovery/RememberedPeers.ts"
import * as ScopedPeerTable from "./layers/peers/ScopedPeerTable.ts"
import * as SupervisedConnectionManager from "./layers/peers/SupervisedConnectionManager.ts"
import * as TcpListener from "./layers/libp2p/TcpListener.ts"
import * as TransportProtocols from "./layers/peers/TransportProtocols.ts"
import type { ContentKey, Provider } from "./schema/Content.ts"
import type { ConnectError, DhtError, PingError, StreamError } from "./schema/NetworkError.ts"
import { DialError, InvalidAddress, NetworkStartError, ProtocolError } from "./schema/NetworkError.ts"
import type { NetworkEvent } from "./schema/NetworkEvent.ts"
import type { NodeStatus, PeerExplanation } from "./schema/NodeStatus.ts"
import type { DialTarget, PeerAddresses, PeerInfo } from "./schema/Peer.ts"
import { isMultiaddr, Multiaddr, PeerId, peerOf, ProtocolId } from "./schema/Peer.ts"
import type { ProvideStatus } from "./schema/ProvideStatus.ts"
import { ConnectionManager } from "./services/ConnectionManager.ts"
import { Dht, type FindOptions, type ProvideOptions } from "./services/Dht.ts"
import { Discovery } from "./services/Discovery.ts"
import { Health } from "./services/Health.ts"
import { NetworkConfig, type NetworkConfigInput } from "./services/NetworkConfig.ts"
import { NetworkEvents } from "./services/NetworkEvents.ts"
import type { NetworkMonitor } from "./services/NetworkMonitor.ts"
import type { PeerStore } from "./services/PeerStore.ts"
import { PeerTable } from "./services/PeerTable.ts"
import { Protocols } from "./services/Protocols.ts"
import type { ByteStream } from "./services/Transport.ts"
import { Transport } from "./services/Transport.ts"

/**
 * What a program may dial: an address, a peer id, or a peer with addresses. Plain text is decoded here, once.
 */
export type Target = DialTarget | string

/**
 * One node of the network: everything that a program asks of it. `Network.layer` and `Network.make` build it, and it
 * runs as long as its scope.
 */
export class Network extends Context.Service<Network, {
  /** The id of this node. */
  readonly localPeer: PeerId
  /** Where this node can be dialled now, each ending in `/p2p/<id>`. */
  readonly addresses: Effect.Effect<ReadonlyArray<Multiaddr>>
  /**
   * Connects to a peer and makes it wanted: redialled by `ReconnectPolicy` until `disconnect` or an idle close. Gives the peer's info at
   * once when it is connected. Interruption aborts a dial that nobody else waits for.
   */
  readonly connect: (target: Target) => Effect.Effect<PeerInfo, ConnectError>
  /**
   * Keeps a connection to the peer while the scope lives: redialled without end, never idle, never evicted. Returns at once; fails only
   * for an address that is none, and for this node itself.
   */
  readonly keep: (target: Target) => Effect.Effect<void, DialError, Scope.Scope>
  /** Disconnects for good: no reconnection, until somebody calls `connect` or `keep`. The remote may still dial in; see `block`. */
  readonly disconnect: (peer: PeerId) => Effect.Effect<void>
  /** Disconnects the peer and refuses it, both ways, while the scope lives. */
  readonly block: (peer: PeerId) => Effect.Effect<void, never, Scope.Scope>
  /** The connected peers, oldest first. */
  readonly peers: Effect.Effect<ReadonlyArray<PeerInfo>>
  /** How many peers are connected: never more than `maxPeers`. */
  readonly peerCount: Effect.Effect<number>
  /** A connected peer. */
  readonly peer: (peer: PeerId) => Effect.Effect<Option.Option<PeerInfo>>
  /**
   * Why the peer is connected, or is not: its interest, addresses with their last result, last dials and refusals, how its last connection
   * ended and by which rule, and when it is dialled next.
   */
  readonly explain: (peer: PeerId) => Effect.Effect<PeerExplanation>
  /** How the node stands: isolated or not and why, places in use by interest, dials under way and waiting. */
  readonly status: Effect.Effect<NodeStatus>
  /** The round-trip time to a connected peer. */
  readonly ping: (peer: PeerId) => Effect.Effect<Duration.Duration, PingError>
  /**
   * Announces in the DHT that this node has the content, now or once there is a peer, and again until `stopProviding`. With a `ttl` the
   * copies on other Codio nodes end so long after this node does. Of several calls for one key, `provide` included, the last one's `ttl`
   * counts.
   */
  readonly startProviding: (key: ContentKey, options?: ProvideOptions) => Effect.Effect<void, DhtError>
  /** Ends `startProviding`. A key that a scope of `provide` still holds stays announced until that scope closes. */
  readonly stopProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
  /**
   * `startProviding` until the scope closes, or the last of several that provide the key, or the process ends. An own `startProviding`
   * outlasts it, also one of an earlier process.
   */
  readonly provide: (key: ContentKey, options?: ProvideOptions) => Effect.Effect<void, DhtError, Scope.Scope>
  /** How far announcing is: at once as it stands, then its changes, without end. */
  readonly provideStatus: Stream.Stream<ProvideStatus>
  /** Others who have the content, the first as soon as it is known. Ending the stream cancels the query. */
  readonly findProviders: (key: ContentKey, options?: FindOptions) => Stream.Stream<Provider, DhtError>
  /** Where a peer is, from the DHT. */
  readonly findPeer: (peer: PeerId) => Effect.Effect<PeerAddresses, DhtError>
  /**
   * Stores a small value in the DHT under `/<namespace>/<path>`. Fails with `QuorumFailed` when fewer than `quorum` nodes, by default 1, say
   * that they have stored it.
   */
  readonly putValue: Dht["Service"]["putValue"]
  /** The value under `/<namespace>/<path>` that wins among those found. With a `quorum` it ends when as many nodes have given one. */
  readonly getValue: Dht["Service"]["getValue"]
  /** Answers a protocol while the scope lives; the handler runs once for each stream. Fails when the id is taken, or is none. */
  readonly handle: <E, R>(
    protocol: string,
    handler: (stream: ByteStream) => Effect.Effect<void, E, R>
  ) => Effect.Effect<void, ProtocolError, Scope.Scope | Exclude<R, Scope.Scope>>
  /** Opens a stream for as long as the scope lives, and connects first where need be. */
  readonly open: (
    peer: Target,
    protocol: string
  ) => Effect.Effect<ByteStream, ConnectError | StreamError | ProtocolError, Scope.Scope>
  /** What happens from now on, without end. A reader more than `eventBuffer` events behind loses the oldest. */
  readonly events: Stream.Stream<NetworkEvent>
}>()("codio-network/Network") {
  /** Everything above the ports. The simulator and production share this value. */
  static readonly layerCore: Layer.Layer<Core, ProtocolError, Ports> = Layer.suspend(() =>
    networkLayer.pipe(
      Layer.provideMerge(part("/codio/1.0.0")(CodioProtocol.layer)),
      Layer.provideMerge(part("health")(PingHealth.layer)),
      Layer.provideMerge(TransportProtocols.layer),
      Layer.provideMerge(part("connections")(SupervisedConnectionManager.layer)),
      Layer.provideMerge(ScopedPeerTable.layer),
      Layer.provideMerge(NetworkEvents.layer)
    )
  )

  /**
   * A node on libp2p, with all its services. Each call is one node; using the returned value twice shares it.
   *
   * It listens when every handler stands, then looks for peers; its scope undoes that in the reverse order, peers told goodbye, and ends
   * within `stopTimeout` whatever they do. Fails with `NetworkStartError` for options that are wrong, a data directory or identity that cannot be
   * used, and a port that is taken.
   */
  static readonly layer = (
    options?: NetworkConfigInput
  ): Layer.Layer<Core | Dht | Transport | NetworkConfig | Host.Libp2pHost, NetworkStartError> => isolate(node(options))

  /**
   * A scoped node without a Layer, for several nodes in one program.
   */
  static readonly make = (
    options?: NetworkConfigInput
  ): Effect.Effect<Network["Service"], NetworkStartError, Scope.Scope> =>
    Effect.map(Layer.build(Network.layer(options)), (context) => Context.get(context, Network))
}

/** The services above the ports. */
export type Core = Network | ConnectionManager | PeerTable | Health | Protocols | NetworkEvents

/** What the services above the ports stand on. */
export type Ports = Transport | Discovery | Dht | PeerStore | NetworkMonitor | NetworkConfig

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const { part } = BoundedShutdown

const isPeerId = Schema.is(PeerId)
const isAddress = Schema.is(Multiaddr)
const isProtocolId = Schema.is(ProtocolId)

function decodeTarget(target: Target): Effect.Effect<DialTarget, DialError> {
  if (typeof target !== "string") return Effect.succeed(target)
  if (isMultiaddr(target) ? isAddress(target) : isPeerId(target)) return Effect.succeed(target as DialTarget)
  return Effect.fail(
    new DialError({
      target,
      reason: new InvalidAddress({ detail: "expected a multiaddr such as /ip4/192.0.2.1/tcp/4001, or a peer id" })
    })
  )
}

function decodeProtocol(protocol: string): Effect.Effect<ProtocolId, ProtocolError> {
  return isProtocolId(protocol)
    ? Effect.succeed(protocol)
    : Effect.fail(new ProtocolError({ protocol, detail: "expected a slash, then 1 to 255 characters without spaces" }))
}

// Read from the bottom: what stands first.
const node = (options: NetworkConfigInput | undefined) =>
  Layer.mergeAll(
    BootstrapDiscovery.layer,
    MdnsDiscovery.layer,
    RememberedPeers.layer,
    RelayReservations.layer,
    OwnAddresses.layer
  ).pipe( // speaks
    part("discovery"),
    Layer.provideMerge(part("listener")(TcpListener.layer)), // accepts
    Layer.provideMerge(Network.layerCore), // handlers and policies
    Layer.provideMerge(part("dht")(KadDht.layer)),
    Layer.provideMerge(part("transport")(Layer.mergeAll(Libp2pTransport.layer, RelayClient.layer))),
    Layer.provideMerge(part("host")(Host.layer)),
    Layer.provide(
      part("stores")(
        Layer.mergeAll(FileIdentity.layer, KeyValuePeerStore.layer, Discovery.layer, NodeNetworkMonitor.layer)
      )
    ),
    Layer.provide(part("data directory")(DataDirectory.layer)), // the lock
    Layer.provide(Layer.mergeAll(NodeFileSystem.layer, NodePath.layer)),
    Layer.provideMerge(BoundedShutdown.layer), // its time limit, and what held it
    Layer.provideMerge(NetworkConfig.layer(options)),
    Layer.catch((reason) => Layer.effectContext(Effect.fail(new NetworkStartError({ reason }))))
  )

/** Layers are memoised by reference, so two nodes built from the same constants would share their table and host. */
const isolate = <A, E, R>(self: Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
  Layer.effectContext(Layer.build(Layer.fresh(self)))

const networkLayer = Layer.effect(
  Network,
  Effect.gen(function*() {
    const transport = yield* Transport
    const connections = yield* ConnectionManager
    const table = yield* PeerTable
    const health = yield* Health
    const dht = yield* Dht
    const protocols = yield* Protocols
    const events = yield* NetworkEvents

    const open = Effect.fnUntraced(function*(target: Target, protocol: string) {
      const id = yield* decodeProtocol(protocol)
      // Whoever is in the table has an id, so most calls need no decoding.
      const peer = peerOf(target as DialTarget)
      if (peer !== undefined && (yield* table.has(peer))) return yield* protocols.open(peer, id)
      const decoded = yield* decodeTarget(target)
      const info = yield* connections.connect(decoded)
      return yield* protocols.open(info.id, id)
    })

    return Network.of({
      localPeer: transport.localPeer,
      addresses: transport.addresses,
      connect: (target) => Effect.flatMap(decodeTarget(target), connections.connect),
      keep: (target) => Effect.flatMap(decodeTarget(target), connections.keep),
      disconnect: connections.disconnect,
      block: connections.block,
      explain: connections.explain,
      status: connections.status,
      peers: table.peers,
      peerCount: table.size,
      peer: table.get,
      ping: health.ping,
      startProviding: dht.startProviding,
      stopProviding: dht.stopProviding,
      provide: dht.provide,
      provideStatus: dht.provideStatus,
      findProviders: (key, options) =>
        Stream.mapArrayEffect(
          dht.findProviders(key, options),
          (some) => ProviderRanking.rank({ peer: table.get, lastContact: connections.lastContact }, some)
        ),
      findPeer: dht.findPeer,
      putValue: dht.putValue,
      getValue: dht.getValue,
      handle: (protocol, handler) => Effect.flatMap(decodeProtocol(protocol), (id) => protocols.handle(id, handler)),
      open,
      events: events.stream
    })
  })
)
