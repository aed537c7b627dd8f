/**
 * The options of a node as text: in a JSON file, in the environment, on a command line.
 *
 * Every key may be absent; `services/NetworkConfig.ts` has the defaults. Durations are texts such as `"5 minutes"` or `"250 millis"`.
 *
 * All decoders fail with one problem for each wrong field, which says what was given and what is expected:
 * `CODIO_LISTEN_PORT: expected a port number from 0 to 65535, got "abc"`.
 */
import { Duration, Effect, Predicate, Result, Schema, SchemaIssue } from "effect"
import { ConfigError } from "./NetworkError.ts"
import { Multiaddr, PeerId, peerOf, ProtocolId } from "./Peer.ts"

const positiveDuration = Schema.DurationFromString.check(
  Schema.makeFilter((duration) => Duration.toMillis(duration) > 0 || "expected a duration above zero")
)

const count = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const peerAddress = Multiaddr.check(
  Schema.makeFilter((address) => {
    const peer = peerOf(address)
    return peer === undefined || Schema.is(PeerId)(peer) || `"${address}" ends in /p2p/ without a peer id`
  })
)

/**
 * The schema of the options. The fields are those of `NetworkConfig`, where each is documented.
 */
export const NetworkOptions = Schema.Struct({
  listenPort: Schema.optionalKey(Schema.Port),
  listenAddresses: Schema.optionalKey(Schema.Array(Multiaddr)),
  announceAddresses: Schema.optionalKey(Schema.Array(Multiaddr)),
  maxPeers: Schema.optionalKey(count(1, 10_000)),
  maxInboundPeers: Schema.optionalKey(count(0, 10_000)),
  maxPeersPerSubnet: Schema.optionalKey(count(1, 10_000)),
  minPeers: Schema.optionalKey(count(0, 10_000)),
  maxPendingInbound: Schema.optionalKey(count(1, 10_000)),
  inboundRate: Schema.optionalKey(count(1, 100_000)),
  inboundBurst: Schema.optionalKey(count(1, 100_000)),
  maxParallelDials: Schema.optionalKey(count(1, 1_000)),
  enableMdns: Schema.optionalKey(Schema.Boolean),
  enableRelay: Schema.optionalKey(Schema.Boolean),
  relayPeers: Schema.optionalKey(Schema.Array(peerAddress)),
  kadProtocol: Schema.optionalKey(ProtocolId),
  kadReplicationFactor: Schema.optionalKey(count(1, 100)),
  connectionIdleTimeout: Schema.optionalKey(positiveDuration),
  rediscoveryCooldown: Schema.optionalKey(positiveDuration),
  dialTimeout: Schema.optionalKey(positiveDuration),
  stopTimeout: Schema.optionalKey(positiveDuration),
  bootstrapPeers: Schema.optionalKey(Schema.Array(peerAddress)),
  dataDirectory: Schema.optionalKey(Schema.NonEmptyString),
  maxKnownPeers: Schema.optionalKey(count(1, 1_000_000)),
  eventBuffer: Schema.optionalKey(count(1, 1_000_000))
})
export type NetworkOptions = typeof NetworkOptions.Type

/** The names of all options. */
export const names = Object.keys(NetworkOptions.fields) as ReadonlyArray<keyof NetworkOptions>

/** The environment variable of an option: `listenPort` is `CODIO_LISTEN_PORT`. */
export const variable = (name: keyof NetworkOptions): string =>
  `CODIO_${name.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()}`

/**
 * Reads the text of a JSON file, which must be an object; what its fields hold is not checked yet. Problems begin with `source`.
 */
export const parse = (source: string, text: string): Effect.Effect<Readonly<Record<string, unknown>>, ConfigError> =>
  Effect.fromResult(Result.try(() => JSON.parse(text) as unknown)).pipe(
    Effect.mapError((cause) => `not valid JSON: ${oneLine((cause as Error).message)}`),
    Effect.filterOrFail(Predicate.isReadonlyObject, (input) => `expected an object of options, got ${show(input)}`),
    Effect.mapError((problem) => new ConfigError({ problems: [`${source}: ${problem}`] }))
  )

/**
 * Decodes the fields of a JSON file. Fails for wrong and for unknown fields; problems begin with `source`.
 */
export const decode = (
  source: string,
  input: Readonly<Record<string, unknown>>
): Effect.Effect<NetworkOptions, ConfigError> => decodeNamed(NetworkOptions, input, (field) => `${source}: ${field}`)

/**
 * Decodes the text of a JSON file, as {@link parse} and {@link decode} do.
 */
export const decodeText = (source: string, text: string): Effect.Effect<NetworkOptions, ConfigError> =>
  Effect.flatMap(parse(source, text), (input) => decode(source, input))

/**
 * Decodes the `CODIO_*` variables of an environment. An empty variable counts as absent; lists are separated by commas.
 */
export const decodeEnvironment = (
  environment: Readonly<Record<string, string | undefined>>
): Effect.Effect<NetworkOptions, ConfigError> => {
  const texts: Record<string, string> = {}
  for (const name of names) {
    const text = environment[variable(name)]?.trim()
    if (text !== undefined && text !== "") texts[name] = text
  }
  return decodeTexts(texts, variable)
}

/**
 * Decodes options that are texts, as words of a command line are; a list is an array of texts, or one text with commas. `label` is how an
 * option is called in problems.
 */
export const decodeTexts = (
  texts: Readonly<Partial<Record<keyof NetworkOptions, string | ReadonlyArray<string>>>>,
  label: (name: keyof NetworkOptions) => string
): Effect.Effect<NetworkOptions, ConfigError> => {
  const input: Record<string, unknown> = {}
  for (const [name, text] of Object.entries(texts)) input[name] = typeof text === "string" ? fromText(name, text) : text
  return decodeNamed(NetworkOptions, input, label, texts)
}

/**
 * Decodes values given in code: durations are `Duration`s, the rest is as in a file.
 */
export const decodeValues = (input: Readonly<Record<string, unknown>>): Effect.Effect<NetworkOptions, ConfigError> =>
  decodeNamed(optionValues, input, (field) => field)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const optionValues = Schema.toType(NetworkOptions)

const duration = "a duration above zero such as \"30 seconds\" or \"5 minutes\""
const addresses = "a list of multiaddrs"

const expectations: { readonly [Name in keyof NetworkOptions]-?: string } = {
  listenPort: "a port number from 0 to 65535",
  listenAddresses: addresses,
  announceAddresses: addresses,
  maxPeers: "a whole number from 1 to 10000",
  maxInboundPeers: "a whole number from 0 to 10000",
  maxPeersPerSubnet: "a whole number from 1 to 10000",
  minPeers: "a whole number from 0 to 10000",
  maxPendingInbound: "a whole number from 1 to 10000",
  inboundRate: "a whole number from 1 to 100000",
  inboundBurst: "a whole number from 1 to 100000",
  maxParallelDials: "a whole number from 1 to 1000",
  enableMdns: "true or false",
  enableRelay: "true or false",
  relayPeers: addresses,
  kadProtocol: "a protocol id: a slash, then 1 to 255 characters without spaces",
  kadReplicationFactor: "a whole number from 1 to 100",
  connectionIdleTimeout: duration,
  rediscoveryCooldown: duration,
  dialTimeout: duration,
  stopTimeout: duration,
  bootstrapPeers: addresses,
  dataDirectory: "the path of a directory",
  maxKnownPeers: "a whole number from 1 to 1000000",
  eventBuffer: "a whole number from 1 to 1000000"
}

const isName = (field: string): field is keyof NetworkOptions => Object.hasOwn(expectations, field)

function decodeNamed<S extends Schema.Top & { readonly Type: NetworkOptions; readonly DecodingServices: never }>(
  schema: S,
  input: Readonly<Record<string, unknown>>,
  label: (name: keyof NetworkOptions) => string,
  given: Readonly<Record<string, unknown>> = input
): Effect.Effect<NetworkOptions, ConfigError> {
  return Schema.decodeUnknownEffect(schema, { errors: "all", onExcessProperty: "error" })(input).pipe(
    Effect.mapError((error) => new ConfigError({ problems: problems(error.issue, given, label) }))
  )
}

function problems(
  issue: SchemaIssue.Issue,
  given: Readonly<Record<string, unknown>>,
  label: (name: keyof NetworkOptions) => string
): ReadonlyArray<string> {
  const out = new Map<string, string>()
  for (const { message, path = [] } of SchemaIssue.makeFormatterStandardSchemaV1()(issue).issues) {
    const key = path.map(String).join(".")
    const field = String(path[0])
    // Only the first problem of a value: "abc" is neither a number nor in a range.
    if (out.has(key)) continue
    if (!isName(field)) {
      out.set(key, `${label(field as keyof NetworkOptions)}: unknown option${suggestion(field)}`)
    } else if (path.length === 1) {
      out.set(key, `${label(field)}: expected ${expectations[field]}, got ${show(given[field])}`)
    } else {
      const element = (given[field] as ReadonlyArray<unknown> | undefined)?.[Number(path[1])]
      out.set(
        key,
        `${label(field)}: ${
          element === undefined || typeof element === "string" ? message : `expected a multiaddr, got ${show(element)}`
        }`
      )
    }
  }
  // What was given may hold line breaks, which a name or an address in a JSON text can.
  return [...out.values()].map(oneLine)
}

function show(value: unknown): string {
  if (Duration.isDuration(value)) return Duration.format(value)
  if (value === undefined) return "nothing"
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch {
    // A cycle or a bigint has no JSON.
  }
  const shown = typeof value === "number" || text === undefined ? String(value) : text
  return shown.length > 80 ? `${shown.slice(0, 77)}...` : shown
}

const oneLine = (text: string): string => text.replace(/\s+/g, " ")

// The option that reads the same but for case and dashes, or begins alike.
function suggestion(field: string): string {
  const plain = (text: string) => text.toLowerCase().replace(/[^a-z]/g, "")
  const wanted = plain(field)
  const near = names.find((name) => plain(name) === wanted) ??
    (wanted.length < 4
      ? undefined
      : names.find((name) =>
        plain(name).startsWith(wanted.slice(0, -1)) || wanted.startsWith(plain(name).slice(0, -1))
      ))
  return near === undefined ? "" : `; did you mean ${near}?`
}

const lists = new Set<string>(["listenAddresses", "announceAddresses", "relayPeers", "bootstrapPeers"])
const plainTexts = new Set<string>([
  "kadProtocol",
  "connectionIdleTimeout",
  "rediscoveryCooldown",
  "dialTimeout",
  "stopTimeout",
  "dataDirectory"
])

// What does not read as the field's kind stays text, so that the problem shows it as it was given.
function fromText(name: string, text: string): unknown {
  if (lists.has(name)) return text.split(",").map((part) => part.trim()).filter((part) => part !== "")
  if (plainTexts.has(name)) return text
  if (text === "true") return true
  if (text === "false") return false
  return /^-?\d+$/.test(text) ? Number(text) : text
}
