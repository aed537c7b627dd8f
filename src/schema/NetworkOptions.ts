/**
 * The options of a node as text: in a JSON file, in the environment, on a command line.
 *
 * Every key may be absent; `services/NetworkConfig.ts` has the defaults. Durations are texts such as `"5 minutes"` or `"250 millis"`.
 */
import { Duration, Effect, Result, Schema, SchemaIssue } from "effect"
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
  minPeers: Schema.optionalKey(count(0, 10_000)),
  maxPendingInbound: Schema.optionalKey(count(1, 10_000)),
  maxParallelDials: Schema.optionalKey(count(1, 1_000)),
  enableMdns: Schema.optionalKey(Schema.Boolean),
  enableRelay: Schema.optionalKey(Schema.Boolean),
  relayPeers: Schema.optionalKey(Schema.Array(peerAddress)),
  kadProtocol: Schema.optionalKey(ProtocolId),
  kadReplicationFactor: Schema.optionalKey(count(1, 100)),
  connectionIdleTimeout: Schema.optionalKey(positiveDuration),
  rediscoveryCooldown: Schema.optionalKey(positiveDuration),
  dialTimeout: Schema.optionalKey(positiveDuration),
  bootstrapPeers: Schema.optionalKey(Schema.Array(peerAddress)),
  dataDirectory: Schema.optionalKey(Schema.NonEmptyString),
  eventBuffer: Schema.optionalKey(count(1, 1_000_000))
})
export type NetworkOptions = typeof NetworkOptions.Type

/** The names of all options. */
export const names = Object.keys(NetworkOptions.fields) as ReadonlyArray<keyof NetworkOptions>

/** The environment variable of an option: `listenPort` is `CODIO_LISTEN_PORT`. */
export const variable = (name: keyof NetworkOptions): string => `CODIO_${name.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()}`

/**
 * Decodes what a JSON file or any other structure holds. Fails with one problem for each wrong or unknown field, prefixed by `source`.
 */
export const decode = (source: string, input: unknown): Effect.Effect<NetworkOptions, ConfigError> =>
  Schema.decodeUnknownEffect(NetworkOptions, strict)(input).pipe(
    Effect.mapError((error) => new ConfigError({ problems: problems(source, error.issue) }))
  )

/**
 * Decodes the text of a JSON file.
 */
export const decodeText = (source: string, text: string): Effect.Effect<NetworkOptions, ConfigError> =>
  Effect.fromResult(Result.try(() => JSON.parse(text) as unknown)).pipe(
    Effect.mapError((cause) => new ConfigError({ problems: [`${source}: not valid JSON: ${(cause as Error).message}`] })),
    Effect.flatMap((input) => decode(source, input))
  )

/**
 * Decodes the `CODIO_*` variables of an environment. An empty variable counts as absent; lists are separated by commas. Fails with one
 * problem for each wrong variable.
 */
export const decodeEnvironment = (
  environment: Readonly<Record<string, string | undefined>>
): Effect.Effect<NetworkOptions, ConfigError> => {
  const input: Record<string, unknown> = {}
  for (const name of names) {
    const text = environment[variable(name)]?.trim()
    if (text !== undefined && text !== "") input[name] = fromText(name, text)
  }
  return Schema.decodeUnknownEffect(NetworkOptions, strict)(input).pipe(
    Effect.mapError((error) =>
      new ConfigError({
        problems: SchemaIssue.makeFormatterStandardSchemaV1()(error.issue).issues.map(({ message, path }) =>
          `${variable(String(path?.[0]) as keyof NetworkOptions)}: ${message}`
        )
      })
    )
  )
}

/**
 * Decodes values given in code: durations are `Duration`s, the rest is as in a file.
 */
export const decodeValues = (input: unknown): Effect.Effect<NetworkOptions, ConfigError> =>
  Schema.decodeUnknownEffect(Schema.toType(NetworkOptions), strict)(input).pipe(
    Effect.mapError((error) => new ConfigError({ problems: problems(undefined, error.issue) }))
  )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const strict = { errors: "all", onExcessProperty: "error" } as const

function problems(source: string | undefined, issue: SchemaIssue.Issue): ReadonlyArray<string> {
  const prefix = source === undefined ? "" : `${source}: `
  return SchemaIssue.makeFormatterStandardSchemaV1()(issue).issues.map(({ message, path }) => {
    const field = (path ?? []).map(String).join(".")
    return `${prefix}${field === "" ? "" : `${field}: `}${message}`
  })
}

const lists = new Set<string>(["listenAddresses", "announceAddresses", "relayPeers", "bootstrapPeers"])
const texts = new Set<string>([
  "kadProtocol",
  "connectionIdleTimeout",
  "rediscoveryCooldown",
  "dialTimeout",
  "dataDirectory"
])

// What does not read as the field's kind stays text, so that the schema names it in its message.
function fromText(name: string, text: string): unknown {
  if (lists.has(name)) return text.split(",").map((part) => part.trim()).filter((part) => part !== "")
  if (texts.has(name)) return text
  if (text === "true") return true
  if (text === "false") return false
  return /^-?\d+$/.test(text) ? Number(text) : text
}
