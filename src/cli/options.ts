/**
 * The options of a command from its three sources: flags, then `CODIO_*` variables, then the JSON file. The first that has an option
 * decides, lists included: `--bootstrap-peer` replaces the bootstrap peers of the file.
 */
import { Context, Effect, FileSystem, Option, Result } from "effect"
import { Flag } from "effect/cli"
import { ConfigError } from "../schema/NetworkError.ts"
import * as LogFilter from "../schema/LogFilter.ts"
import * as NetworkOptions from "../schema/NetworkOptions.ts"

/** The environment that is read. Replace it in tests. */
export const Environment = Context.Reference<Readonly<Record<string, string | undefined>>>(
  "codio-network/cli/Environment",
  {
    defaultValue: () => process.env
  }
)

/**
 * What a command that runs a node is told.
 */
export interface ProgramOptions {
  readonly network: NetworkOptions.NetworkOptions
  readonly relayServer: boolean
  readonly json: boolean
  readonly log: LogFilter.LogFilter
}

const text = (name: string, value: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(value), Flag.withDescription(description), Flag.optional)

const texts = (name: string, value: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar(value),
    Flag.withDescription(`${description}; may be repeated`),
    Flag.atLeast(0)
  )

const switched = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.optional)

/**
 * The flags, all of them texts: what they say is decoded like the environment's, so that all sources complain alike.
 */
export const flags = {
  listenPort: text("listen-port", "port", "TCP port to listen on; default 0, any free port"),
  listenAddresses: texts("listen-address", "multiaddr", "Where to listen, in place of the port on all interfaces"),
  announceAddresses: texts("announce-address", "multiaddr", "Address to tell others, such as a forwarded port"),
  maxPeers: text("max-peers", "number", "Connected peers at most; default 50"),
  maxInboundPeers: text("max-inbound-peers", "number", "Peers that dialled this node at most; default --max-peers"),
  maxPeersPerSubnet: text(
    "max-peers-per-subnet",
    "number",
    "Peers of one public /24 or IPv6 /56 at most; default --max-peers"
  ),
  minPeers: text(
    "min-peers",
    "number",
    "Discovered peers are dialled below this number; default a quarter of --max-peers"
  ),
  maxPendingInbound: text("max-pending-inbound", "number", "Inbound handshakes at a time; default 64"),
  inboundRate: text("inbound-rate", "number", "Inbound connections a second from one host; default 50"),
  inboundBurst: text("inbound-burst", "number", "Inbound connections at once from one host; default 400"),
  maxParallelDials: text("max-parallel-dials", "number", "Dials at a time; default 16"),
  enableMdns: switched("mdns", "Find peers on the local network; default on, --no-mdns turns it off"),
  enableRelay: switched(
    "relay",
    "Be reached through relays and dial through them; default on, --no-relay turns it off"
  ),
  relayPeers: texts("relay-peer", "multiaddr", "Relay to reserve a place on"),
  kadProtocol: text(
    "kad-protocol",
    "protocol",
    "Kademlia protocol, which separates networks; default /codio/kad/1.0.0"
  ),
  kadReplicationFactor: text("kad-replication-factor", "number", "Nodes that store a record; default 20"),
  connectionIdleTimeout: text(
    "connection-idle-timeout",
    "duration",
    "Peers without a stream are left after this; default \"5 minutes\""
  ),
  rediscoveryCooldown: text(
    "rediscovery-cooldown",
    "duration",
    "A peer that was left is not sought for this long; default \"5 minutes\""
  ),
  dialTimeout: text("dial-timeout", "duration", "A dial may take this long; default \"10 seconds\""),
  stopTimeout: text("stop-timeout", "duration", "The end may take this long; default \"1500 millis\""),
  bootstrapPeers: texts("bootstrap-peer", "multiaddr", "Peer to keep a connection to, as the way into the network"),
  dataDirectory: text("data-directory", "path", "Where identity and peers are kept; default none, all in memory"),
  maxKnownPeers: text("max-known-peers", "number", "Peers remembered at most; default 4096"),
  eventBuffer: text("event-buffer", "number", "Events that a slow reader may be behind; default 1024"),
  relayServer: switched("relay-server", "Relay for others; default off"),
  config: text("config", "file", "JSON file with options: {\"listenPort\": 4001, ...}"),
  json: switched("json", "Print one JSON object per line"),
  log: text("log", "filter", "What to log on stderr, such as \"info,dht=debug,libp2p:tcp=trace\"; default info")
}

/** The values of {@link flags}. */
export type Flags = {
  readonly [Name in keyof typeof flags]: (typeof flags)[Name] extends Flag.Flag<infer A> ? A : never
}

/**
 * Reads the three sources. Every source is checked as a whole, also where another one has precedence.
 */
export const resolve = Effect.fnUntraced(function*(given: Flags) {
  const environment = yield* Environment
  const variable = (name: string) => environment[name]?.trim() || undefined

  const fromFlags = yield* NetworkOptions.decodeTexts(networkTexts(given), flagOf)
  const fromEnvironment = yield* NetworkOptions.decodeEnvironment(environment)
  const programEnvironment = yield* decodeProgram({
    relayServer: truth(variable("CODIO_RELAY_SERVER")),
    json: truth(variable("CODIO_JSON")),
    log: variable("CODIO_LOG")
  }, (name) => `CODIO_${name === "relayServer" ? "RELAY_SERVER" : name.toUpperCase()}`)
  const programFlags = yield* decodeProgram({
    relayServer: Option.getOrUndefined(given.relayServer),
    json: Option.getOrUndefined(given.json),
    log: Option.getOrUndefined(given.log)
  }, (name) => `--${name}`)
  const file = Option.getOrElse(given.config, () => variable("CODIO_CONFIG"))
  const fromFile = file === undefined ? { network: {}, program: {} } : yield* readFile(file)

  const program = { ...fromFile.program, ...programEnvironment, ...programFlags }
  return {
    network: { ...fromFile.network, ...fromEnvironment, ...fromFlags },
    relayServer: program.relayServer ?? false,
    json: program.json ?? false,
    log: program.log ?? defaultFilter
  } satisfies ProgramOptions
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Program {
  readonly relayServer?: boolean
  readonly json?: boolean
  readonly log?: LogFilter.LogFilter
}

const defaultFilter: LogFilter.LogFilter = { fallback: "Info", components: new Map() }

const flagNames: Partial<Record<keyof NetworkOptions.NetworkOptions, string>> = {
  listenAddresses: "--listen-address",
  announceAddresses: "--announce-address",
  enableMdns: "--mdns",
  enableRelay: "--relay",
  relayPeers: "--relay-peer",
  bootstrapPeers: "--bootstrap-peer"
}

const flagOf = (name: keyof NetworkOptions.NetworkOptions): string =>
  flagNames[name] ?? `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

function networkTexts(
  given: Flags
): Partial<Record<keyof NetworkOptions.NetworkOptions, string | ReadonlyArray<string>>> {
  const out: Partial<Record<keyof NetworkOptions.NetworkOptions, string | ReadonlyArray<string>>> = {}
  for (const name of NetworkOptions.names) {
    const value: Option.Option<string | boolean> | ReadonlyArray<string> = given[name]
    if (Option.isOption(value)) {
      if (Option.isSome(value)) out[name] = String(value.value)
    } else if (value.length > 0) {
      out[name] = value
    }
  }
  return out
}

const truth = (value: string | undefined): unknown => value === "true" ? true : value === "false" ? false : value

function decodeProgram(
  input: { readonly [Name in keyof Program]-?: unknown },
  label: (name: keyof Program) => string
): Effect.Effect<Program, ConfigError> {
  const problems: Array<string> = []
  const out: { -readonly [Name in keyof Program]: Program[Name] } = {}
  for (const name of ["relayServer", "json"] as const) {
    const value = input[name]
    if (typeof value === "boolean") out[name] = value
    else if (value !== undefined) problems.push(`${label(name)}: expected true or false, got ${JSON.stringify(value)}`)
  }
  if (input.log !== undefined) {
    const parsed = typeof input.log === "string"
      ? LogFilter.parse(input.log)
      : Result.fail(`expected a text such as "info,dht=debug", got ${JSON.stringify(input.log)}`)
    if (Result.isSuccess(parsed)) out.log = parsed.success
    else problems.push(`${label("log")}: ${parsed.failure}`)
  }
  return problems.length === 0 ? Effect.succeed(out) : Effect.fail(new ConfigError({ problems }))
}

const readFile = Effect.fnUntraced(function*(path: string) {
  const fs = yield* FileSystem.FileSystem
  const content = yield* fs.readFileString(path).pipe(
    Effect.mapError((error) => {
      const detail = error.reason.cause instanceof Error ? error.reason.cause.message : error.message
      return new ConfigError({ problems: [`${path}: cannot be read: ${detail}`] })
    })
  )
  const { json, log, relayServer, ...network } = yield* NetworkOptions.parse(path, content)
  return {
    program: yield* decodeProgram({ json, log, relayServer }, (name) => `${path}: ${name}`),
    network: yield* NetworkOptions.decode(path, network)
  }
})
