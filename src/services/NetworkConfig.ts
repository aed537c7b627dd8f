/**
 * The options of a node that can be written in a file. Behaviours are References: `ReconnectPolicy`, `HealthPolicy`,
 * `DialPolicy`, `EvictionPolicy`, `GuestPolicy`, `AddressGuard`, `KadDhtPolicy`, `RelayPolicy`.
 */
import { Config, Context, Effect, Layer, Pipeable, Predicate } from "effect"
import { ConfigError } from "../schema/NetworkError.ts"
import * as NetworkOptions from "../schema/NetworkOptions.ts"
import { type Inputs, oneLine, show, type Values, withDefaults } from "../schema/OptionTable.ts"

/**
 * The options of a node, each with its value: the given one or the default. `NetworkOptions.options` documents them.
 */
export interface NetworkConfigValues extends Values<typeof NetworkOptions.options> {}

/** The options that a program may give. Durations may be texts or milliseconds, addresses are plain texts. */
export interface NetworkConfigInput extends Inputs<typeof NetworkOptions.options> {}

/**
 * Options under construction, in the manner of the Rust crate:
 * `NetworkConfig.make(4001, 100).pipe(NetworkConfig.withoutMdns)`.
 */
export interface NetworkConfigBuilder extends NetworkConfigInput, Pipeable.Pipeable {}

const build = (input: NetworkConfigInput): NetworkConfigBuilder =>
  Object.create(Pipeable.Prototype, Object.getOwnPropertyDescriptors({ ...input }))

/** The options of this node, for the layers that it is made of. */
export class NetworkConfig
  extends Context.Service<NetworkConfig, NetworkConfigValues>()("codio-network/services/NetworkConfig")
{
  /**
   * Checks the options and fills in the defaults. Fails with a problem for each wrong option, and for each that
   * contradicts another one.
   */
  static readonly resolve = (input: NetworkConfigInput = {}): Effect.Effect<NetworkConfigValues, ConfigError> =>
    Effect.flatMap(NetworkOptions.decodeValues(input), (given) => {
      const values = withDefaults(NetworkOptions.options, given)
      const problems = NetworkOptions.contradictions(values)
      return problems.length === 0 ? Effect.succeed(values) : Effect.fail(new ConfigError({ problems }))
    })

  /** A layer of the given options and the defaults of the others. */
  static readonly layer = (input?: NetworkConfigInput): Layer.Layer<NetworkConfig, ConfigError> =>
    Layer.effect(NetworkConfig, NetworkConfig.resolve(input))

  /**
   * The options of the environment's `CODIO_*` variables, or of those with another prefix: `layerEnv("MY_APP")` reads
   * `MY_APP_LISTEN_PORT`. A variable of the prefix that is near to a known one is an error, another unknown one a
   * warning. `Network.layerWithoutConfig` is the node that takes these options.
   */
  static readonly layerEnv = (prefix?: string): Layer.Layer<NetworkConfig, ConfigError> =>
    Layer.effect(
      NetworkConfig,
      Effect.suspend(() => {
        const problem = prefixProblem(prefix)
        return problem === undefined
          ? NetworkOptions.decodeEnvironment(process.env, prefix?.replace(/_$/, ""))
          : Effect.fail(new ConfigError({ problems: [problem] }))
      }).pipe(Effect.flatMap(NetworkConfig.resolve))
    )

  /**
   * Options from effect's `Config`, checked as those of `layer`. Fails with `ConfigError`, also for a value that the
   * `ConfigProvider` lacks or that its `Config` cannot read.
   */
  static readonly layerConfig = (options: Config.Wrap<NetworkConfigInput>): Layer.Layer<NetworkConfig, ConfigError> =>
    Layer.effect(
      NetworkConfig,
      Effect.suspend(() => {
        const problems = configProblems(options)
        return problems.length === 0
          ? Effect.mapError(Config.unwrap(options), ({ message }) => new ConfigError({ problems: [oneLine(message)] }))
          : Effect.fail(new ConfigError({ problems }))
      }).pipe(Effect.flatMap(NetworkConfig.resolve))
    )

  /** The crate's `NetworkConfig::new`. */
  static readonly make = (
    listenPort: number = NetworkOptions.options.listenPort.default,
    maxPeers: number = NetworkOptions.options.maxPeers.default
  ): NetworkConfigBuilder => build({ listenPort, maxPeers })

  /** The crate's `with_bootstrap_peer`: adds a bootstrap peer. */
  static readonly withBootstrapPeer = (address: string) => (self: NetworkConfigInput): NetworkConfigBuilder =>
    build({ ...self, bootstrapPeers: [...self.bootstrapPeers ?? [], address] })

  /** The crate's `without_mdns`. */
  static readonly withoutMdns = (self: NetworkConfigInput): NetworkConfigBuilder =>
    build({ ...self, enableMdns: false })

  /** The crate's `with_kad_replication_factor`. */
  static readonly withKadReplicationFactor = (factor: number) => (self: NetworkConfigInput): NetworkConfigBuilder =>
    build({ ...self, kadReplicationFactor: factor })

  /** Keeps the identity, known peers and provided keys in the directory. */
  static readonly withDataDirectory = (path: string) => (self: NetworkConfigInput): NetworkConfigBuilder =>
    build({ ...self, dataDirectory: path })
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const prefixProblem = (prefix: unknown): string | undefined =>
  prefix === undefined || typeof prefix === "string" && prefix.trim() !== ""
    ? undefined
    : `prefix: expected a text such as "MY_APP", got ${show(prefix)}`

/** Each option in a `Config` of its own, or all of them in one. Another value would be taken apart without an end. */
function configProblems(options: unknown): ReadonlyArray<string> {
  if (Config.isConfig(options)) return []
  if (!Predicate.isReadonlyObject(options)) {
    return [`expected an object of options such as { listenPort: Config.Port("PORT") }, got ${show(options)}`]
  }
  return Object.entries(options).filter(([, value]) => !Config.isConfig(value)).map(([name, value]) =>
    `${name}: expected a Config such as Config.Port("PORT"), got ${show(value)}`
  )
}
