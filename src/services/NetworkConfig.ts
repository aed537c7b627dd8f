/**
 * The numbers and flags of a node. Behaviours, which cannot be written in a file, are References: `ReconnectPolicy`, `HealthPolicy`,
 * `DialPolicy`, `EvictionPolicy`, `AddressGuard`.
 */
import { Context, Duration, Effect, Layer, Pipeable } from "effect"
import type { ConfigError } from "../schema/NetworkError.ts"
import * as NetworkOptions from "../schema/NetworkOptions.ts"
import type { Multiaddr, ProtocolId } from "../schema/Peer.ts"

/** The options of a node, complete and checked. */
export interface NetworkConfigValues {
  /** The TCP port to listen on, on all IPv4 interfaces. Defaults to 0: any free port. */
  readonly listenPort: number
  /** Where to listen. Defaults to `/ip4/0.0.0.0/tcp/<listenPort>`; where given, `listenPort` has no effect. */
  readonly listenAddresses: ReadonlyArray<Multiaddr>
  /** Addresses to tell others besides those that the node finds itself, such as a forwarded port. Defaults to none. */
  readonly announceAddresses: ReadonlyArray<Multiaddr>
  /** How many peers may be connected, in both directions together: never exceeded. Defaults to 50. */
  readonly maxPeers: number
  /** How many of them may be peers that dialled this node: never exceeded. Defaults to `maxPeers`, which is no limit of its own. */
  readonly maxInboundPeers: number
  /**
   * How many of them may have their address in one subnet, /24 of IPv4 or /56 of IPv6: never exceeded, so that whoever owns a network cannot
   * surround this node. Loopback, link-local and private addresses are not counted, since a local network is one subnet; nor are relayed
   * connections, which have the address of the relay. Defaults to `maxPeers`, which is no limit of its own.
   */
  readonly maxPeersPerSubnet: number
  /** Discovered peers are dialled while fewer than this are connected. Defaults to a quarter of `maxPeers`. */
  readonly minPeers: number
  /** Inbound handshakes in flight, of which one host may have half. Defaults to 64. */
  readonly maxPendingInbound: number
  /** Inbound connections a second that one host (an IPv4 address, or a /64 of IPv6) may open for long. Defaults to 50. */
  readonly inboundRate: number
  /** Inbound connections that one host may open at once after a pause. Defaults to 400. */
  readonly inboundBurst: number
  /** Dials in flight. Defaults to 16. */
  readonly maxParallelDials: number
  /** Whether peers on the local network are found by multicast. Defaults to true. */
  readonly enableMdns: boolean
  /** Whether relays are used: places reserved on them, peers dialled through them. Defaults to true. */
  readonly enableRelay: boolean
  /** Relays to reserve a place on. Relays among the connected peers are used too. Defaults to none. */
  readonly relayPeers: ReadonlyArray<Multiaddr>
  /** The Kademlia protocol, which separates networks. Defaults to `/codio/kad/1.0.0`. */
  readonly kadProtocol: ProtocolId
  /** On how many nodes a record is stored, which is also the size of a bucket. Defaults to 20. */
  readonly kadReplicationFactor: number
  /**
   * How long a connected peer may go without an application stream before it is disconnected, counted from the end of the last one. Closing
   * for idleness never starts a reconnect. Defaults to 5 minutes.
   */
  readonly connectionIdleTimeout: Duration.Duration
  /** How long discovery leaves a peer alone after it was idle, evicted, refused us or said goodbye. Defaults to 5 minutes. */
  readonly rediscoveryCooldown: Duration.Duration
  /** How long a dial may take, all addresses together. Defaults to 10 seconds. */
  readonly dialTimeout: Duration.Duration
  /**
   * How long the node may take to end when its scope closes: peers told goodbye, written streams flushed, all else aborted. What held it
   * for more than a second is logged as a warning. Defaults to 5 seconds.
   */
  readonly stopTimeout: Duration.Duration
  /** Peers to keep a connection to, as the way into the network. Defaults to none. */
  readonly bootstrapPeers: ReadonlyArray<Multiaddr>
  /** Where the identity, remembered peers and provided keys are kept. Defaults to none: all in memory. */
  readonly dataDirectory: string | undefined
  /** Peers that are remembered, across restarts too; of more, the longest unseen go first. Defaults to 4,096. */
  readonly maxKnownPeers: number
  /** How many events a slow subscriber of `events` may be behind before it loses the oldest. Defaults to 1024. */
  readonly eventBuffer: number
}

/**
 * The options a program may give: any of the values, with durations as texts or numbers of milliseconds and addresses as plain text.
 */
export interface NetworkConfigInput {
  readonly listenPort?: number | undefined
  readonly listenAddresses?: ReadonlyArray<string> | undefined
  readonly announceAddresses?: ReadonlyArray<string> | undefined
  readonly maxPeers?: number | undefined
  readonly maxInboundPeers?: number | undefined
  readonly maxPeersPerSubnet?: number | undefined
  readonly minPeers?: number | undefined
  readonly maxPendingInbound?: number | undefined
  readonly inboundRate?: number | undefined
  readonly inboundBurst?: number | undefined
  readonly maxParallelDials?: number | undefined
  readonly enableMdns?: boolean | undefined
  readonly enableRelay?: boolean | undefined
  readonly relayPeers?: ReadonlyArray<string> | undefined
  readonly kadProtocol?: string | undefined
  readonly kadReplicationFactor?: number | undefined
  readonly connectionIdleTimeout?: Duration.Input | undefined
  readonly rediscoveryCooldown?: Duration.Input | undefined
  readonly dialTimeout?: Duration.Input | undefined
  readonly stopTimeout?: Duration.Input | undefined
  readonly bootstrapPeers?: ReadonlyArray<string> | undefined
  readonly dataDirectory?: string | undefined
  readonly maxKnownPeers?: number | undefined
  readonly eventBuffer?: number | undefined
}

/**
 * Options under construction, in the manner of the Rust crate: `NetworkConfig.make(4001, 100).pipe(NetworkConfig.withoutMdns)`.
 */
export interface NetworkConfigBuilder extends NetworkConfigInput, Pipeable.Pipeable {}

const build = (input: NetworkConfigInput): NetworkConfigBuilder =>
  Object.assign(Object.create(Pipeable.Prototype), input)

/** The options of this node, for the layers that it is made of. */
export class NetworkConfig
  extends Context.Service<NetworkConfig, NetworkConfigValues>()("codio-network/services/NetworkConfig")
{
  /** Checks the options and fills in the defaults. Fails with every wrong field named. */
  static readonly resolve = (input: NetworkConfigInput = {}): Effect.Effect<NetworkConfigValues, ConfigError> =>
    Effect.map(NetworkOptions.decodeValues(values(input)), (options) => {
      const listenPort = options.listenPort ?? 0
      const maxPeers = options.maxPeers ?? 50
      return {
        listenPort,
        listenAddresses: options.listenAddresses ?? [`/ip4/0.0.0.0/tcp/${listenPort}` as Multiaddr],
        announceAddresses: options.announceAddresses ?? [],
        maxPeers,
        maxInboundPeers: Math.min(maxPeers, options.maxInboundPeers ?? maxPeers),
        maxPeersPerSubnet: Math.min(maxPeers, options.maxPeersPerSubnet ?? maxPeers),
        minPeers: Math.min(maxPeers, options.minPeers ?? Math.ceil(maxPeers / 4)),
        maxPendingInbound: options.maxPendingInbound ?? 64,
        inboundRate: options.inboundRate ?? 50,
        inboundBurst: options.inboundBurst ?? 400,
        maxParallelDials: options.maxParallelDials ?? 16,
        enableMdns: options.enableMdns ?? true,
        enableRelay: options.enableRelay ?? true,
        relayPeers: options.relayPeers ?? [],
        kadProtocol: options.kadProtocol ?? "/codio/kad/1.0.0" as ProtocolId,
        kadReplicationFactor: options.kadReplicationFactor ?? 20,
        connectionIdleTimeout: options.connectionIdleTimeout ?? Duration.minutes(5),
        rediscoveryCooldown: options.rediscoveryCooldown ?? Duration.minutes(5),
        dialTimeout: options.dialTimeout ?? Duration.seconds(10),
        stopTimeout: options.stopTimeout ?? Duration.seconds(5),
        bootstrapPeers: options.bootstrapPeers ?? [],
        dataDirectory: options.dataDirectory,
        maxKnownPeers: options.maxKnownPeers ?? 4096,
        eventBuffer: options.eventBuffer ?? 1024
      }
    })

  static readonly layer = (input?: NetworkConfigInput): Layer.Layer<NetworkConfig, ConfigError> =>
    Layer.effect(NetworkConfig, NetworkConfig.resolve(input))

  /** The options of the environment's `CODIO_*` variables. */
  static readonly layerEnv: Layer.Layer<NetworkConfig, ConfigError> = Layer.effect(
    NetworkConfig,
    Effect.suspend(() => NetworkOptions.decodeEnvironment(process.env)).pipe(Effect.flatMap(NetworkConfig.resolve))
  )

  /** The crate's `NetworkConfig::new`. */
  static readonly make = (listenPort = 0, maxPeers = 50): NetworkConfigBuilder => build({ listenPort, maxPeers })

  /** The crate's `with_bootstrap_peer`: adds one. */
  static readonly withBootstrapPeer = (address: string) => (self: NetworkConfigInput): NetworkConfigBuilder =>
    build({ ...self, bootstrapPeers: [...self.bootstrapPeers ?? [], address] })

  /** The crate's `without_mdns`. */
  static readonly withoutMdns = (self: NetworkConfigInput): NetworkConfigBuilder =>
    build({ ...self, enableMdns: false })

  /** The crate's `with_kad_replication_factor`. */
  static readonly withKadReplicationFactor = (factor: number) => (self: NetworkConfigInput): NetworkConfigBuilder =>
    build({ ...self, kadReplicationFactor: factor })

  /** Where identity, peers and keys are kept. */
  static readonly withDataDirectory = (path: string) => (self: NetworkConfigInput): NetworkConfigBuilder =>
    build({ ...self, dataDirectory: path })
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const durations = new Set(["connectionIdleTimeout", "rediscoveryCooldown", "dialTimeout", "stopTimeout"])

function values(input: NetworkConfigInput): Record<string, unknown> {
  const out: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(input)) {
    if (value === undefined) continue
    // What is no duration stays as it is, so that the schema names the field.
    out[name] = durations.has(name)
      ? Duration.fromInput(value as Duration.Input).pipe((o) => o._tag === "Some" ? o.value : value)
      : value
  }
  return out
}
