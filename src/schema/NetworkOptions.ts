/**
 * The options of a node: the table in which each is named once, and their decoders for a JSON file, the environment, a
 * command line and a program.
 *
 * Every option may be absent and then has its default. Durations are texts such as `"10s"` or `"5 minutes"`.
 *
 * All decoders fail with one problem for each wrong field, which says what was given and what is expected:
 * `CODIO_LISTEN_PORT: expected a port number from 0 to 65535, got "abc"`.
 */
import { Effect, Predicate, Result, Schema } from "effect"
import { totalmem } from "node:os"
import * as Agent from "./Agent.ts"
import { ConfigError } from "./NetworkError.ts"
import * as OptionTable from "./OptionTable.ts"
import {
  addresses,
  count,
  dialableAddresses,
  duration,
  oneOf,
  option,
  peerAddresses,
  port,
  protocol,
  text,
  toggle
} from "./OptionTable.ts"
import { peerOf } from "./Peer.ts"

/** What identify has room for: other implementations refuse messages of more than a few kilobytes. */
const shortText = text(
  Schema.String.check(Schema.isPattern(/^[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?$/)),
  "text",
  "1 to 128 printable ASCII characters, without spaces at the ends"
)

/**
 * All options, in the order of the documentation. `npm run docs:options` writes docs/OPTIONS.md from these entries and
 * their comments.
 */
export const options = {
  /**
   * The TCP port to listen on, on all interfaces; 0 is any free port. Another port beside
   * `listenAddresses` that do not have it is an error. Defaults to 0.
   */
  listenPort: option(port, { default: 0, description: "TCP port to listen on; 0 is any free port" }),
  /**
   * Where to listen, as multiaddrs. Replaces `listenPort`. IPv6 listens on the port that IPv4 has, or on another one
   * where that is taken; a machine without IPv6 listens on IPv4 alone. Defaults to `/ip4/0.0.0.0/tcp/<listenPort>`,
   * `/ip6/::/tcp/<listenPort>`.
   */
  listenAddresses: option(addresses, {
    default: {
      text: "`/ip4/0.0.0.0/tcp/<listenPort>`, `/ip6/::/tcp/<listenPort>`",
      of: ({ listenPort }) => [`/ip4/0.0.0.0/tcp/${listenPort}`, `/ip6/::/tcp/${listenPort}`]
    },
    flagName: "listen-address",
    description: "Where to listen, instead of the port on all interfaces"
  }),
  /** Addresses to tell others besides those that the node finds itself, such as a forwarded port. Defaults to none. */
  announceAddresses: option(dialableAddresses, {
    default: [],
    flagName: "announce-address",
    description: "Address to tell others, such as a forwarded port"
  }),
  /** How many peers may be connected, in both directions together. Never exceeded. Defaults to 50. */
  maxPeers: option(count(1, 10_000), { default: 50, description: "Connected peers at most" }),
  /**
   * How many of the connected peers may have dialled this node. Never exceeded. More than `maxPeers` is an error.
   * Defaults to `maxPeers`.
   */
  maxInboundPeers: option(count(0, 10_000), {
    default: { text: "`maxPeers`", of: ({ maxPeers }) => maxPeers },
    within: "maxPeers",
    description: "Peers that dialled this node at most"
  }),
  /**
   * How many of the connected peers may have their address in one subnet, /24 of IPv4 or /56 of IPv6, so that the owner
   * of a network cannot surround this node. Never exceeded. More than `maxPeers` is an error. Loopback, link-local and
   * private addresses do not count, since a local network is one subnet; relayed connections do not count, since their
   * address is the relay's. Defaults to `maxPeers`.
   */
  maxPeersPerSubnet: option(count(1, 10_000), {
    default: { text: "`maxPeers`", of: ({ maxPeers }) => maxPeers },
    within: "maxPeers",
    description: "Peers of one public /24 or IPv6 /56 at most"
  }),
  /**
   * Discovered peers are dialled while fewer than this are connected. More than `maxPeers` is an error.
   * Defaults to a quarter of `maxPeers`.
   */
  minPeers: option(count(0, 10_000), {
    default: { text: "a quarter of `maxPeers`", of: ({ maxPeers }) => Math.ceil(maxPeers / 4) },
    within: "maxPeers",
    description: "Discovered peers are dialled below this number"
  }),
  /** Inbound handshakes at a time, of which one host may have half. Defaults to 64. */
  maxPendingInbound: option(count(1, 10_000), { default: 64, description: "Inbound handshakes at a time" }),
  /**
   * Inbound connections that one host (an IPv4 address, or an IPv6 /64) may open in a second, on average. More are
   * closed before the handshake. Defaults to 50.
   */
  inboundRate: option(count(1, 100_000), {
    default: 50,
    description: "Inbound connections a second from one host"
  }),
  /** Inbound connections that one host may open at once after a pause. Defaults to 400. */
  inboundBurst: option(count(1, 100_000), {
    default: 400,
    description: "Inbound connections at once from one host"
  }),
  /** Dials at a time. Defaults to 16. */
  maxParallelDials: option(count(1, 1_000), { default: 16, description: "Dials at a time" }),
  /** Whether peers on the local network are found by multicast. Defaults to true. */
  enableMdns: option(toggle, { default: true, flagName: "mdns", description: "Find peers on the local network" }),
  /** Whether relays are used: relays give this node reservations, and it dials peers through them. Defaults to true. */
  enableRelay: option(toggle, {
    default: true,
    flagName: "relay",
    description: "Be reached through relays and dial through them"
  }),
  /** Relays to hold a reservation on. Relays among the connected peers are used too. Defaults to none. */
  relayPeers: option(peerAddresses, {
    default: [],
    flagName: "relay-peer",
    description: "Relay to hold a reservation on"
  }),
  /**
   * How the node takes part in the DHT. A `server` answers other nodes and stores their records; a `client` only asks
   * and announces, and is in nobody's routing table; with `off` there is no DHT, and its operations fail. Defaults to
   * server.
   */
  dht: option(oneOf(["server", "client", "off"]), { default: "server", description: "Part in the DHT" }),
  /** The Kademlia protocol. Nodes with different protocols are in different DHTs. Defaults to /codio/kad/1.0.0. */
  kadProtocol: option(protocol, {
    default: "/codio/kad/1.0.0",
    description: "Kademlia protocol, which separates networks"
  }),
  /** On how many nodes a record is stored, which is also the size of a bucket of the routing table. Defaults to 20. */
  kadReplicationFactor: option(count(1, 100), { default: 20, description: "Nodes that store a record" }),
  /**
   * How long a connected peer may go without an application stream before it is disconnected, counted from the end of
   * the last stream. Ping, identify and Kademlia do not count. Closing for idleness never starts a reconnect. Defaults
   * to 5 minutes.
   */
  connectionIdleTimeout: option(duration, {
    default: "5 minutes",
    description: "Peers without a stream are left after this"
  }),
  /**
   * How long discovery leaves a peer alone after the peer was idle, was evicted, refused this node or said goodbye.
   * Defaults to 5 minutes.
   */
  rediscoveryCooldown: option(duration, {
    default: "5 minutes",
    description: "A peer that was left is not sought for this long"
  }),
  /** How long a dial may take, all addresses together. Defaults to 10 seconds. */
  dialTimeout: option(duration, { default: "10 seconds", description: "A dial may take this long" }),
  /**
   * How long the node may take to end when its scope closes: it says goodbye to its peers, flushes written streams and
   * aborts the rest. What held it for more than a second is logged as a warning. Defaults to 5 seconds.
   */
  stopTimeout: option(duration, {
    default: "5 seconds",
    // Shorter than the library's: whoever presses Ctrl-C waits for it.
    programDefault: "1500 millis",
    description: "The end may take this long"
  }),
  /** Peers to keep a connection to, as the way into the network. Defaults to none. */
  bootstrapPeers: option(peerAddresses, {
    default: [],
    flagName: "bootstrap-peer",
    description: "Peer to keep a connection to, as the way into the network"
  }),
  /**
   * Where the identity (mode 0600), remembered peers and provided keys are kept. Without it all of them are in memory.
   * Defaults to none.
   */
  dataDirectory: option(text(Schema.NonEmptyString, "path", "the path of a directory"), {
    default: undefined,
    description: "Where identity and peers are kept; without it in memory"
  }),
  /** Peers that are remembered, across restarts too. Of more, those unseen for longest go first. Defaults to 4096. */
  maxKnownPeers: option(count(1, 1_000_000), { default: 4096, description: "Peers remembered at most" }),
  /**
   * The software that this node tells others that it runs, by identify and `hello`.
   * Defaults to `codio-network/<version>`.
   */
  agentVersion: option(shortText, {
    default: { text: "`codio-network/<version>`", of: () => Agent.agentVersion },
    description: "Software that this node says it runs"
  }),
  /** The protocol version that this node tells others by identify, as the Rust crate does. Defaults to /codio/1.0.0. */
  protocolVersion: option(shortText, {
    default: Agent.protocolVersion,
    description: "Protocol version that this node tells"
  }),
  /**
   * Bytes that may wait in all streams together: received and not read, or written and not sent. Slow readers narrow
   * each other's windows as it fills; when it is full, the fullest stream of the connection that holds the most is
   * reset. Of the machine's memory counts what its container grants.
   * Defaults to 256 MiB, or a quarter of the machine's memory if that is less.
   */
  maxBufferedBytes: option(count(1_048_576, 1_099_511_627_776), {
    default: {
      text: "256 MiB, or a quarter of the machine's memory if that is less",
      of: () => bufferedBytes(process.constrainedMemory(), totalmem())
    },
    description: "Bytes that may wait in streams"
  }),
  /** How many events a slow reader of `events` may be behind before it loses the oldest. Defaults to 1024. */
  eventBuffer: option(count(1, 1_000_000), {
    default: 1024,
    description: "Events that a slow reader may be behind"
  })
}

/** The schema of the options. Each field may be absent. */
export const NetworkOptions = OptionTable.schemaOf(options)
export type NetworkOptions = typeof NetworkOptions.Type

/** The name of an option. */
export type Name = keyof typeof options

/** The names of all options. */
export const names = Object.keys(options) as ReadonlyArray<Name>

/** The environment variable of an option: `listenPort` is `CODIO_LISTEN_PORT`. */
export const variable = (name: Name): string => OptionTable.variableOf(name)

/**
 * The JSON Schema (draft 2020-12) of a file of options, with descriptions and defaults, for editors and for other
 * programs.
 */
export const jsonSchema = (): { readonly [key: string]: unknown } => OptionTable.jsonSchemaOf(options, NetworkOptions)

/**
 * Reads the text of a JSON file, which must be an object; its fields are not checked yet. Problems begin with `source`.
 */
export const parse = (source: string, content: string): Effect.Effect<Readonly<Record<string, unknown>>, ConfigError> =>
  Effect.fromResult(Result.try(() => JSON.parse(content) as unknown)).pipe(
    Effect.mapError((cause) => `not valid JSON: ${OptionTable.oneLine((cause as Error).message)}`),
    Effect.filterOrFail(
      Predicate.isReadonlyObject,
      (input) => `expected an object of options, got ${OptionTable.show(input)}`
    ),
    Effect.mapError((problem) => new ConfigError({ problems: [`${source}: ${problem}`] }))
  )

/**
 * Decodes the fields of a JSON file. Fails for wrong fields; problems begin with `source`. An unknown field within two
 * edits of an option is a mistake and fails, too; another one is left out with a warning, and `$schema` without.
 * `others` are options that the file may have besides those of a node.
 */
export const decode = (
  source: string,
  input: Readonly<Record<string, unknown>>,
  others: OptionTable.OptionTable = {}
): Effect.Effect<NetworkOptions, ConfigError> => {
  const fields = Object.entries(input).filter(([name]) => name !== "$schema" && !Object.hasOwn(others, name))
  const isOption = (name: string) => Object.hasOwn(options, name)
  const unknown = fields.map(([name]) => name).filter((name) => !isOption(name))
  return OptionTable.decode(
    options,
    NetworkOptions,
    Object.fromEntries(fields.filter(([name]) => isOption(name))),
    (name) => `${source}: ${name}`
  ).pipe(judgedBy(
    OptionTable.judgeUnknown(Object.keys({ ...options, ...others }), unknown, "option"),
    (line) => `${source}: ${line}`
  ))
}

/**
 * Decodes the text of a JSON file, as {@link parse} and {@link decode} do.
 */
export const decodeText = (source: string, content: string): Effect.Effect<NetworkOptions, ConfigError> =>
  Effect.flatMap(parse(source, content), (input) => decode(source, input))

/**
 * Decodes the `CODIO_*` variables of an environment, or those of another prefix. An empty variable counts as absent;
 * lists are separated by commas. A variable of the prefix that is unknown, but within two edits of a known one, fails;
 * another one is left out with a warning, since an application may have variables of its own. `others` are options that
 * the environment may have besides those of a node.
 */
export const decodeEnvironment = (
  environment: Readonly<Record<string, string | undefined>>,
  prefix: string = OptionTable.environmentPrefix,
  others: OptionTable.OptionTable = {}
): Effect.Effect<NetworkOptions, ConfigError> =>
  objectProblem("an environment such as process.env", environment) ?? decodeTexts(
    OptionTable.fromEnvironment(options, environment, prefix),
    (name) => OptionTable.variableOf(name, prefix)
  ).pipe(judgedBy(OptionTable.judgeEnvironment({ ...options, ...others }, environment, prefix)))

/**
 * Decodes options that are texts, as words of a command line are; a list is an array of texts, or one text with commas.
 * `label` gives the name of an option in problems.
 */
export const decodeTexts = (
  texts: OptionTable.Texts<typeof options>,
  label: (name: Name) => string
): Effect.Effect<NetworkOptions, ConfigError> =>
  objectProblem("an object of texts", texts) ?? OptionTable.decode(
    options,
    NetworkOptions,
    OptionTable.fromTexts(options, texts),
    (name) => label(name as Name),
    texts
  )

/**
 * Decodes values given in code: durations are `Duration`s, texts or milliseconds, the rest is as in a file.
 */
export const decodeValues = (
  inputs: OptionTable.Inputs<typeof options>
): Effect.Effect<NetworkOptions, ConfigError> =>
  objectProblem("an object of options such as { listenPort: 4001 }", inputs) ??
    OptionTable.decode(options, optionValues, OptionTable.fromInputs(options, inputs), (name) => name)

/**
 * The problems of options that contradict each other, each with what was given and what is possible. `values` are the
 * options with their defaults.
 */
export const contradictions = (values: OptionTable.Values<typeof options>): ReadonlyArray<string> => {
  const { bootstrapPeers, enableRelay, listenAddresses, listenPort, maxPeers, relayPeers } = values
  const problems = [...OptionTable.withinProblems(options, values)]
  if (listenPort !== 0 && !listenAddresses.some((address) => address.includes(`/tcp/${listenPort}`))) {
    problems.push(
      `listenPort: ${listenPort} has no effect beside listenAddresses, which are ${
        OptionTable.show(listenAddresses)
      }; leave one of them out`
    )
  }
  if (!enableRelay) {
    const relayed = (addresses: ReadonlyArray<string>) => addresses.some((address) => address.includes("/p2p-circuit"))
    const without = "has no effect while enableRelay is false; leave it out, or turn enableRelay on"
    if (relayPeers.length > 0) problems.push(`relayPeers: ${OptionTable.show(relayPeers)} ${without}`)
    if (relayed(bootstrapPeers)) problems.push(`bootstrapPeers: an address through a relay ${without}`)
    if (relayed(listenAddresses)) problems.push(`listenAddresses: /p2p-circuit ${without}`)
  }
  const kept = new Set([...bootstrapPeers, ...relayPeers].map((address) => peerOf(address) ?? address)).size
  if (kept > maxPeers) {
    problems.push(
      `maxPeers: bootstrapPeers and relayPeers are ${kept} peers to be kept at once, and maxPeers is ${maxPeers}; ` +
        "give fewer, or raise maxPeers"
    )
  }
  return problems
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** A program in plain JavaScript may pass anything, of which an object without options would be made in silence. */
const objectProblem = (expected: string, given: unknown): Effect.Effect<never, ConfigError> | undefined =>
  Predicate.isReadonlyObject(given)
    ? undefined
    : Effect.fail(new ConfigError({ problems: [`expected ${expected}, got ${OptionTable.show(given)}`] }))

/** Adds what is to be said of unknown names to a decoding. */
const judgedBy =
  ({ problems, warnings }: OptionTable.Judgement, say: (line: string) => string = (line) => line) =>
  <A>(decoding: Effect.Effect<A, ConfigError>): Effect.Effect<A, ConfigError> =>
    decoding.pipe(
      Effect.catch((error) => Effect.fail(new ConfigError({ problems: [...problems.map(say), ...error.problems] }))),
      Effect.filterOrFail(
        () => problems.length === 0,
        () => new ConfigError({ problems: problems.map(say) })
      ),
      Effect.tap(() => Effect.forEach(warnings, (line) => Effect.logWarning(say(line)), { discard: true })),
      Effect.annotateLogs({ component: "options" })
    )

/**
 * The default of `maxBufferedBytes`: a quarter of the memory that the container grants or the machine has, in bytes, at
 * most 256 MiB and at least 1 MiB. Without a limit a container grants nothing, or more than any machine has.
 */
export function bufferedBytes(granted: number, total: number): number {
  const memory = granted > 0 ? Math.min(granted, total) : total
  return Math.max(1_048_576, Math.min(256 * 1024 * 1024, Math.floor(memory / 4)))
}

const optionValues = Schema.toType(NetworkOptions)
