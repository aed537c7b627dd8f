/**
 * How a node is put together: which layer stands on which.
 *
 * Layers are built from the ground up, and each is released before the layers that it stands on. So the order of
 * building is also, in reverse, the order of stopping:
 *
 * 1. Options, and the time limit of the stop with its report.
 * 2. The data directory: its lock is taken before anything reads the directory, and is given back last.
 * 3. The stores: identity, remembered peers, the queue of sightings, the machine's interfaces.
 * 4. The host, which does not listen yet, then the transport and the DHT on it.
 * 5. The core: peer table, connections, protocols with their handlers.
 * 6. The listener. Other nodes can dial this node now, and all handlers stand. At the stop the node ceases to listen
 *    before it says goodbye to its peers.
 * 7. Discovery, relay reservations and the node's own addresses: from here on the node speaks by itself.
 * 8. The roof: `Network`, which only passes calls on.
 */
// Not from the package's index, which loads all of its modules.
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import type { FileSystem, Path } from "effect"
import { Effect, Layer } from "effect"
import type { KeyValueStore } from "effect/persistence"
import { partsProblems } from "./Arguments.ts"
import * as CodioProtocol from "./layers/codio/CodioProtocol.ts"
import * as KadDht from "./layers/dht/libp2p/KadDht.ts"
import * as NoDht from "./layers/dht/NoDht.ts"
import * as BootstrapDiscovery from "./layers/discovery/BootstrapDiscovery.ts"
import * as MdnsDiscovery from "./layers/discovery/MdnsDiscovery.ts"
import * as RememberedPeers from "./layers/discovery/RememberedPeers.ts"
import * as Host from "./layers/libp2p/Host.ts"
import * as TcpListener from "./layers/libp2p/TcpListener.ts"
import * as Libp2pTransport from "./layers/libp2p/Transport.ts"
import * as BoundedShutdown from "./layers/machine/BoundedShutdown.ts"
import * as Supervised from "./layers/Supervised.ts"
import * as DataDirectory from "./layers/machine/DataDirectory.ts"
import * as FileIdentity from "./layers/machine/FileIdentity.ts"
import * as KeyValuePeerStore from "./layers/machine/KeyValuePeerStore.ts"
import * as NodeNetworkMonitor from "./layers/machine/NodeNetworkMonitor.ts"
import * as PeerBook from "./layers/peers/PeerBook.ts"
import * as PingHealth from "./layers/peers/PingHealth.ts"
import * as ScopedPeerTable from "./layers/peers/ScopedPeerTable.ts"
import * as SupervisedConnectionManager from "./layers/peers/SupervisedConnectionManager.ts"
import * as TransportProtocols from "./layers/peers/TransportProtocols.ts"
import * as OwnAddresses from "./layers/reach/OwnAddresses.ts"
import * as RelayClient from "./layers/reach/RelayClient.ts"
import * as RelayReservations from "./layers/reach/RelayReservations.ts"
import { ConfigError, NetworkStartError, type ProtocolError } from "./schema/NetworkError.ts"
import type { ConnectionManager } from "./services/ConnectionManager.ts"
import type { Dht } from "./services/Dht.ts"
import { Discovery } from "./services/Discovery.ts"
import type { Identity } from "./services/Identity.ts"
import type { Health } from "./services/Health.ts"
import { NetworkConfig } from "./services/NetworkConfig.ts"
import { NetworkEvents } from "./services/NetworkEvents.ts"
import type { NetworkMonitor } from "./services/NetworkMonitor.ts"
import type { PeerStore } from "./services/PeerStore.ts"
import type { PeerTable } from "./services/PeerTable.ts"
import type { Protocols } from "./services/Protocols.ts"
import type { Transport } from "./services/Transport.ts"

/** The services above the ports that `Network` joins. */
export type Parts = ConnectionManager | PeerTable | Health | Protocols | NetworkEvents

/** What the services above the ports stand on. */
export type Ports = Transport | Discovery | Dht | PeerStore | NetworkMonitor | NetworkConfig

const { part } = BoundedShutdown

/** All services above the ports but `Network` itself. The last line is built first. */
export const layerCore: Layer.Layer<Parts, ProtocolError, Ports> = Layer.suspend(() =>
  part("/codio/1.0.0")(CodioProtocol.layer).pipe(
    Layer.provideMerge(part("health")(PingHealth.layer)),
    Layer.provideMerge(TransportProtocols.layer),
    Layer.provideMerge(part("connections")(SupervisedConnectionManager.layer)),
    Layer.provideMerge(ScopedPeerTable.layer),
    Layer.provide(PeerBook.layer),
    Layer.provideMerge(NetworkEvents.layer)
  )
)

/** What a `Dht` of a program's own may stand on. */
export type DhtGround =
  | Host.Libp2pHost
  | Transport
  | Discovery
  | Identity
  | NetworkConfig
  | NetworkMonitor
  | KeyValueStore.KeyValueStore

/**
 * Parts of a node that a program may replace by its own. Each is a Layer, built once for the node and released with it.
 */
export interface NodeParts {
  /**
   * The key pair of the node: `SeededIdentity.layer(seed)`, a key from a vault. Defaults to `FileIdentity.layer`, the
   * file in `dataDirectory`, or a new key where there is none.
   */
  readonly identity?:
    | Layer.Layer<Identity, NetworkStartError["reason"], NetworkConfig | FileSystem.FileSystem | Path.Path>
    | undefined
  /**
   * The DHT of the node. Defaults to `KadDht.layer`, and to `NoDht.layer` where the option `dht` is off. Its errors may
   * name operations of its own (`DhtError.operation`).
   */
  readonly dht?: Layer.Layer<Dht, NetworkStartError["reason"], DhtGround> | undefined
}

/**
 * A node on libp2p with the options of the given Layer, under the service that programs see. Each call is one node. The
 * last line is built first.
 */
export const layer = <Roof, R = never>(
  roof: Layer.Layer<Roof, never, Parts | Dht | Transport>,
  config: Layer.Layer<NetworkConfig, ConfigError, R>,
  parts?: NodeParts
): Layer.Layer<Roof | Parts | Dht | Transport | NetworkConfig | Host.Libp2pHost, NetworkStartError, R> => {
  const problems = partsProblems(parts)
  return problems.length === 0
    ? isolate(Layer.provideMerge(roof, node(config, parts)))
    : Layer.effectContext(Effect.fail(new NetworkStartError({ reason: new ConfigError({ problems }) })))
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const dhtOfOptions = Layer.unwrap(
  Effect.map(NetworkConfig, ({ dht }): typeof KadDht.layer => dht === "off" ? NoDht.layer : KadDht.layer)
)

const node = <R>(
  config: Layer.Layer<NetworkConfig, ConfigError, R>,
  { dht = dhtOfOptions, identity = FileIdentity.layer }: NodeParts = {}
) =>
  Layer.mergeAll(
    BootstrapDiscovery.layer,
    MdnsDiscovery.layer,
    RememberedPeers.layer,
    RelayReservations.layer,
    OwnAddresses.layer
  ).pipe(
    part("discovery"),
    Layer.provideMerge(part("listener")(TcpListener.layer)),
    Layer.provideMerge(layerCore),
    Layer.provideMerge(part("dht")(dht)),
    Layer.provideMerge(part("transport")(Layer.mergeAll(Libp2pTransport.layer, RelayClient.layer))),
    Layer.provideMerge(part("host")(Host.layer)),
    Layer.provide(
      part("stores")(
        Layer.mergeAll(identity, KeyValuePeerStore.layer, Discovery.layer, NodeNetworkMonitor.layer)
      )
    ),
    Layer.provide(part("data directory")(DataDirectory.layer)),
    Layer.provide(Layer.mergeAll(NodeFileSystem.layer, NodePath.layer)),
    Layer.provideMerge(BoundedShutdown.layer),
    Layer.provideMerge(Supervised.layer),
    Layer.provideMerge(config),
    Layer.catch((reason) => Layer.effectContext(Effect.fail(new NetworkStartError({ reason }))))
  )

/** Layers are memoised by reference, so two nodes built from the same constants would share their table and host. */
const isolate = <A, E, R>(self: Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
  Layer.effectContext(Layer.build(Layer.fresh(self)))
