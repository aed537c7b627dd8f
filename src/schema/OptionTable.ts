/**
 * Describes each option once. An entry of a table gives the option's schema, flag, environment variable, help, JSON
 * Schema and documentation. `NetworkOptions.options` is the table of a node, `cli/options.ts` has the program's.
 */
import { Duration, Effect, Option as Maybe, Predicate, Result, Schema, SchemaIssue, SchemaTransformation } from "effect"
import * as Canonical from "./Canonical.ts"
import { ConfigError } from "./NetworkError.ts"
import { type Multiaddr, MultiaddrFromText, ProtocolId, readMultiaddr, withoutPeer } from "./Peer.ts"

/**
 * What options of one kind have in common: a port, a number in a range, a duration.
 */
export interface Kind<S extends Schema.Top, Input> {
  /** From JSON to the value that a node uses. */
  readonly schema: S
  /** Names a right value in the message about a wrong one: `a whole number from 1 to 100`. */
  readonly expected: string
  /** Whether a refused text is answered with the schema's own message instead of `expected`. */
  readonly explains?: boolean
  /** Whether the option's flag takes one text, may be repeated, or is a switch with a `--no-` form. */
  readonly flag: "text" | "texts" | "switch"
  /** Stands for the value in help: `--listen-port port`. */
  readonly metavar: string
  /**
   * From a word of a command line or of the environment to JSON. A text that cannot be read stays a text, and the
   * message shows it.
   */
  readonly fromText: (text: string) => unknown
  /** From what a program may give to the value. What cannot be read stays as it is, and the message shows it. */
  readonly fromInput: (input: Input) => unknown
}

/**
 * An option: its kind and what is its own.
 */
export interface Option<S extends Schema.Top, Input, Default> extends Kind<S, Input> {
  /** One line, for help and JSON Schema. */
  readonly description: string
  /** As JSON, or derived from other options. `undefined`: the option has no value unless it is given. */
  readonly default: Default
  /** The program's default, where it differs from the library's. */
  readonly programDefault?: S["Encoded"]
  /** The flag's name, where it is not the option's name in lower case with dashes. */
  readonly flagName?: string
  /** A value above the value of this option is an error. */
  readonly within?: keyof Earlier
}

/**
 * A default that follows from options earlier in the table.
 */
export interface Derived<A> {
  /** What the default is, for help and documentation. Names of options stand between backticks. */
  readonly text: string
  readonly of: (earlier: Earlier) => A
}

/** The options from which the defaults of others are derived. They come first in their table. */
export interface Earlier {
  readonly listenPort: number
  readonly maxPeers: number
}

/** Any option. */
export type AnyOption = Option<Schema.Codec<unknown, unknown>, never, unknown>

/** Options by name. */
export type OptionTable = { readonly [name: string]: AnyOption }

/** The values of a table in which every option may be absent. */
export type Given<T extends OptionTable> = { readonly [Name in keyof T]?: T[Name]["schema"]["Type"] }

/** The values of a table with all defaults filled in. */
export type Values<T extends OptionTable> = {
  readonly [Name in keyof T]: T[Name]["schema"]["Type"] | Extract<T[Name]["default"], undefined>
}

/** What a program may give for the options of a table. */
export type Inputs<T extends OptionTable> = {
  readonly [Name in keyof T]?: Parameters<T[Name]["fromInput"]>[0] | undefined
}

/** The schema of a table: a struct in which every key may be absent. */
export type Fields<T extends OptionTable> = { readonly [Name in keyof T]: Schema.optionalKey<T[Name]["schema"]> }

/** An entry of a table. */
export const option = <
  S extends Schema.Top,
  Input,
  const Default extends S["Encoded"] | Derived<S["Encoded"]> | undefined
>(
  kind: Kind<S, Input>,
  own: Omit<Option<S, Input, Default>, keyof Kind<S, Input>>
): Option<S, Input, Default> => ({ ...kind, ...own })

/** The schema of a table. */
export const schemaOf = <T extends OptionTable>(table: T): Schema.Struct<Fields<T>> => {
  const fields: Record<string, Schema.Top> = {}
  for (const [name, { schema }] of Object.entries(table)) fields[name] = Schema.optionalKey(schema)
  // The loop keeps the names of the table, which the type of a record does not know.
  return Schema.Struct(fields) as unknown as Schema.Struct<Fields<T>>
}

/** The prefix of environment variables. */
export const environmentPrefix = "CODIO"

/** The environment variable of an option: `listenPort` is `CODIO_LISTEN_PORT`. */
export const variableOf = (name: string, prefix: string = environmentPrefix): string =>
  `${prefix}_${name.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()}`

/** The flag of an option: `listenPort` is `--listen-port`. */
export const flagOf = (name: string, { flagName }: AnyOption): string =>
  `--${flagName ?? name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** The default of an option as a reader writes it; `undefined` where there is none. */
export const defaultText = ({ default: value }: AnyOption): string | undefined => {
  if (isDerived(value)) return value.text
  if (value === undefined || Array.isArray(value)) return undefined
  return String(value)
}

/** The values of a table: those given, and the defaults of the others. */
export const withDefaults = <T extends OptionTable>(table: T, given: Given<T>): Values<T> => {
  const values: Record<string, unknown> = {}
  // Filled in the order of the table, in which the options of `Earlier` come first.
  const earlier = values as unknown as Earlier
  for (const [name, { default: standard, schema }] of Object.entries(table)) {
    values[name] = (Object.hasOwn(given, name) ? given[name] : undefined) ?? (
      standard === undefined
        ? undefined
        : Schema.decodeUnknownSync(schema)(isDerived(standard) ? standard.of(earlier) : standard)
    )
  }
  return values as Values<T>
}

/** The problems of options that are greater than the option that bounds them. */
export const withinProblems = <T extends OptionTable>(table: T, values: Values<T>): ReadonlyArray<string> =>
  Object.entries(table).flatMap(([name, { within }]) => {
    if (within === undefined) return []
    const value = values[name] as number
    const most = values[within] as number
    return value > most ? [`${name}: expected at most ${within}, which is ${most}, got ${value}`] : []
  })

/** What a program gave, ready to be decoded by the type side of the table's schema. */
export const fromInputs = <T extends OptionTable>(table: T, inputs: Inputs<T>): Record<string, unknown> =>
  // An assignment to the name `__proto__` would set the prototype instead of an option that decoding refuses.
  Object.fromEntries(
    Object.entries(inputs).filter(([, input]) => input !== undefined).map(([name, input]) => [
      name,
      // The entries have lost which input is of which option; `fromInput` takes any, since programs may pass anything.
      Object.hasOwn(table, name) ? table[name]!.fromInput(input as never) : input
    ])
  )

/** Options as texts, lists also as arrays of texts. */
export type Texts<T extends OptionTable> = { readonly [Name in keyof T]?: string | ReadonlyArray<string> }

/** The texts of an environment. An empty variable counts as absent. */
export const fromEnvironment = <T extends OptionTable>(
  table: T,
  environment: Readonly<Record<string, string | undefined>>,
  prefix: string = environmentPrefix
): Texts<T> => {
  const texts: Record<string, string> = {}
  for (const name of Object.keys(table)) {
    const value = environment[variableOf(name, prefix)]?.trim()
    if (value !== undefined && value !== "") texts[name] = value
  }
  return texts as Texts<T>
}

/** Texts of a command line or an environment, ready to be decoded by the table's schema. */
export const fromTexts = <T extends OptionTable>(table: T, texts: Texts<T>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(texts).map(([name, words]) => [
      name,
      typeof words === "string" && Object.hasOwn(table, name) ? table[name]!.fromText(words) : words
    ])
  )

/**
 * Decodes the options of a table. Fails with one problem for each wrong or unknown field, which shows what was `given`
 * for it.
 */
export const decode = <T extends OptionTable>(
  table: T,
  schema: Schema.Codec<Given<T>, unknown>,
  input: Readonly<Record<string, unknown>>,
  label: (name: string) => string,
  given: Readonly<Record<string, unknown>> = input
): Effect.Effect<Given<T>, ConfigError> =>
  Schema.decodeUnknownEffect(schema, { errors: "all", onExcessProperty: "error" })(input).pipe(
    Effect.mapError((error) => new ConfigError({ problems: problemsOf(table, error.issue, given, label) }))
  )

/** What is to be said of names that are not known. */
export interface Judgement {
  readonly problems: ReadonlyArray<string>
  readonly warnings: ReadonlyArray<string>
}

/**
 * Judges names that are not known: one that is within two edits of a known name is a mistake, and an error; another one
 * may be somebody else's, and is worth a warning. `label` gives a name as the reader writes it.
 */
export const judgeUnknown = (
  known: ReadonlyArray<string>,
  unknown: ReadonlyArray<string>,
  what: string,
  label: (name: string) => string = (name) => name
): Judgement => {
  const problems: Array<string> = []
  const warnings: Array<string> = []
  for (const name of unknown) {
    const near = nearest(known, name)
    const hint = near ?? alike(known, name)
    const meant = hint === undefined ? "" : `; did you mean ${label(hint)}?`
    if (near === undefined) warnings.push(`${label(name)}: unknown ${what}, which has no effect${meant}`)
    else problems.push(`${label(name)}: unknown ${what}${meant}`)
  }
  return { problems: problems.map(Canonical.line), warnings: warnings.map(Canonical.line) }
}

/** Judges the variables of an environment that begin with the prefix and belong to no option of the table. */
export const judgeEnvironment = (
  table: OptionTable,
  environment: Readonly<Record<string, string | undefined>>,
  prefix: string = environmentPrefix
): Judgement => {
  const start = `${prefix}_`
  const known = Object.keys(table).map((name) => variableOf(name, prefix).slice(start.length))
  const unknown = Object.entries(environment).flatMap(([variable, value]) => {
    const name = variable.slice(start.length)
    return variable.startsWith(start) && (value ?? "").trim() !== "" && !known.includes(name) ? [name] : []
  })
  return judgeUnknown(known, unknown, "variable", (name) => `${start}${name}`)
}

/** The JSON Schema of a table, as an editor reads it beside a file of options. */
export const jsonSchemaOf = <T extends OptionTable>(
  table: T,
  schema: Schema.Top
): { readonly [key: string]: unknown } => {
  const document = Schema.toJsonSchemaDocument(schema)
  const properties = document.schema["properties"] as Record<string, object>
  for (const [name, { default: standard, description }] of Object.entries(table)) {
    properties[name] = {
      ...properties[name],
      description: isDerived(standard) ? `${description}. Default: ${standard.text}` : description,
      ...standard === undefined || isDerived(standard) ? {} : { default: standard }
    }
  }
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    ...document.schema,
    // A file with an unknown option is refused.
    additionalProperties: false,
    ...Object.keys(document.definitions).length === 0 ? {} : { $defs: document.definitions }
  }
}

/** A value as a problem shows it: on one line, cut to 80 characters. */
export const show = (value: unknown): string => {
  if (Duration.isDuration(value)) return Duration.format(value)
  if (value === undefined) return "nothing"
  return typeof value === "string" ? Canonical.quoted(value) : Canonical.shortened(value)
}

/** The text on one line. */
export const oneLine = (text: string): string => text.replace(/\s+/g, " ")

// ---------------------------------------------------------------------------------------------------------------------
// kinds
// ---------------------------------------------------------------------------------------------------------------------

const same = <A>(input: A): unknown => input

/** 24 days: a timer of Node takes 24.8 at most, and a longer one fires at once. */
const durationMillisMax = Duration.toMillis("24 days")

const shortUnits = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

const readDuration = (input: unknown): Maybe.Option<Duration.Duration> => {
  const [, amount, unit] = typeof input === "string" ? /^\s*(\d+(?:\.\d+)?)(ms|s|m|h|d)\s*$/.exec(input) ?? [] : []
  return amount === undefined
    ? Duration.fromInput((typeof input === "string" ? input.trim() : input) as Duration.Input)
    : Maybe.some(Duration.millis(Number(amount) * shortUnits[unit as keyof typeof shortUnits]))
}

const DurationFromText = Schema.String.pipe(
  Schema.decodeTo(
    Schema.Duration,
    SchemaTransformation.transformEffect({
      decode: (text: string, options) =>
        Maybe.match(readDuration(text), {
          onNone: () => Effect.fail(new SchemaIssue.InvalidValue({ message: "expected a duration" }, text, options)),
          onSome: Effect.succeed
        }),
      encode: (value: Duration.Duration) => Effect.succeed(`${Duration.toMillis(value)} millis`)
    })
  )
)
const number = (text: string): unknown => /^-?\d+$/.test(text) ? Number(text) : text

/** A TCP port. */
export const port: Kind<typeof Schema.Port, number> = {
  schema: Schema.Port,
  expected: "a port number from 0 to 65535",
  flag: "text",
  metavar: "port",
  fromText: number,
  fromInput: same
}

/** A whole number from `minimum` to `maximum`. */
export const count = (minimum: number, maximum: number): Kind<typeof Schema.Int, number> => ({
  schema: Schema.Int.check(Schema.isBetween({ minimum, maximum })),
  expected: `a whole number from ${minimum} to ${maximum}`,
  flag: "text",
  metavar: "number",
  fromText: number,
  fromInput: same
})

/** On or off. */
export const toggle: Kind<typeof Schema.Boolean, boolean> = {
  schema: Schema.Boolean,
  expected: "true or false",
  flag: "switch",
  metavar: "boolean",
  fromText: (text) => text === "true" ? true : text === "false" ? false : text,
  fromInput: same
}

/** A text, of which the schema says more. */
export const text = <S extends Schema.Codec<string, string>>(
  schema: S,
  metavar: string,
  expected: string
): Kind<S, string> => ({ schema, expected, flag: "text", metavar, fromText: same, fromInput: same })

/** One of a few words. */
export const oneOf = <const Words extends readonly [string, ...Array<string>]>(
  words: Words
): Kind<Schema.Literals<Words>, Words[number]> => ({
  schema: Schema.Literals(words),
  expected: words.length === 1 ? words[0] : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`,
  flag: "text",
  metavar: words.join("|"),
  fromText: same,
  fromInput: same
})

/** A duration in short: `10s`, `5m`, `250ms`, `1.5h`, `2d`. */
export type ShortDuration = `${number}${keyof typeof shortUnits}`

/**
 * A duration from 1 ms to 24 days, the longest that every timer takes: a text such as `"10s"`, `"5m"` or
 * `"90 seconds"`; in programs a number of milliseconds or a `Duration`, too.
 */
export const duration: Kind<typeof DurationFromText, Duration.Input | ShortDuration> = {
  schema: DurationFromText.check(
    Schema.makeFilter((value) =>
      (Duration.toMillis(value) >= 1 && Duration.toMillis(value) <= durationMillisMax) ||
      "expected a duration from 1 ms to 24 days"
    )
  ),
  expected: "a duration from 1 ms to 24 days, such as \"10s\", \"5m\" or \"90 seconds\"",
  flag: "text",
  metavar: "duration",
  fromText: same,
  fromInput: (input) => Maybe.getOrElse(readDuration(input), () => input)
}

/** The id of a protocol. */
export const protocol: Kind<typeof ProtocolId, string> = text(
  ProtocolId,
  "protocol",
  "a protocol id: a slash, then 1 to 255 characters without spaces"
)

const list = (problem: (address: Multiaddr) => string | undefined): Kind<
  Schema.$Array<typeof MultiaddrFromText>,
  ReadonlyArray<string>
> => {
  // What a program gives has been read by `fromInput`, or is left as it was for this message.
  const sensible = Schema.makeFilter((address: Multiaddr) =>
    Result.match(readMultiaddr(address), { onFailure: (text) => text, onSuccess: () => problem(address) ?? true })
  )
  return {
    schema: Schema.Array(MultiaddrFromText.check(sensible)),
    expected: "a list of multiaddrs",
    flag: "texts",
    metavar: "multiaddr",
    fromText: (words) => words.split(",").map((part) => part.trim()).filter((part) => part !== ""),
    // An address that cannot be read stays as it is, and its own message tells what is wrong.
    fromInput: (texts) =>
      Array.isArray(texts) ? texts.map((text) => Result.getOrElse(readMultiaddr(text), () => text)) : texts
  }
}

/** Addresses of peers, with or without their ids. */
export const peerAddresses = list((address) =>
  withoutPeer(address) === ""
    ? `${
      Canonical.quoted(address)
    } has no address before the peer id: expected text such as /ip4/192.0.2.1/tcp/4001${address}`
    : address.endsWith("/p2p-circuit")
    ? `${Canonical.quoted(address)} names a relay and no peer behind it: expected /p2p/<id> at its end`
    : undefined
)

/** Addresses of this node. */
export const addresses = list(() => undefined)

/** Why nobody can dial the address; undefined when somebody may. */
export const undialable = (address: Multiaddr): string | undefined =>
  /\/tcp\/0(?:\/|$)/.test(address)
    ? `${Canonical.quoted(address)} has port 0, which nobody can dial: expected the port that others dial`
    : /^\/(?:ip4\/0\.0\.0\.0|ip6\/::)(?:\/|$)/.test(address)
    ? `${Canonical.quoted(address)} stands for all addresses of a machine: expected one that others can dial`
    : undefined

/** Addresses at which others dial this node. */
export const dialableAddresses = list(undialable)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const editsMax = 2

const isDerived = (value: unknown): value is Derived<unknown> => Predicate.hasProperty(value, "of")

function problemsOf(
  table: OptionTable,
  issue: SchemaIssue.Issue,
  given: Readonly<Record<string, unknown>>,
  label: (name: string) => string
): ReadonlyArray<string> {
  const out = new Map<string, string>()
  for (const { message, path = [] } of SchemaIssue.makeFormatterStandardSchemaV1()(issue).issues) {
    const key = path.map(String).join(".")
    const field = String(path[0])
    // Only the first problem of a value: "abc" is neither a number nor in a range.
    if (out.has(key)) continue
    const entry = Object.hasOwn(table, field) ? table[field] : undefined
    const problem = entry === undefined
      ? unknownProblem(Object.keys(table), field)
      : path.length === 1
      ? valueProblem(entry, given[field], message)
      : itemProblem((given[field] as ReadonlyArray<unknown> | undefined)?.[Number(path[1])], message)
    out.set(key, `${label(field)}: ${problem}`)
  }
  // What was given may hold line breaks, which a name or an address in a JSON text can.
  return [...out.values()].map(oneLine)
}

const unknownProblem = (known: ReadonlyArray<string>, field: string): string => {
  const hint = nearest(known, field) ?? alike(known, field)
  return `unknown option${hint === undefined ? "" : `; did you mean ${hint}?`}`
}

const valueProblem = ({ expected, explains }: AnyOption, value: unknown, message: string): string =>
  explains === true && typeof value === "string" ? message : `expected ${expected}, got ${show(value)}`

// The schema of an address says by itself what is wrong with a text.
const itemProblem = (item: unknown, message: string): string =>
  typeof item === "string" ? message : `expected a multiaddr, got ${show(item)}`

/** The known name that is meant by another one. */
function nearest(known: ReadonlyArray<string>, name: string): string | undefined {
  return known.find((other) => isNear(plain(other), plain(name)))
}

/** The known name that begins as another one does. */
function alike(known: ReadonlyArray<string>, name: string): string | undefined {
  const wanted = plain(name)
  return wanted.length < 6 ?
    undefined :
    known.find((other) => plain(other).startsWith(wanted.slice(0, -1)) || wanted.startsWith(plain(other).slice(0, -1)))
}

/** A name without case, dashes and underscores, which are no difference. */
function plain(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9:]/g, "")
}

// A short word is near to many others: two edits make any three letters of any others.
function isNear(known: string, name: string): boolean {
  return edits(known, name) <= Math.min(editsMax, Math.floor(known.length / 2))
}

/** How many letters are inserted, deleted, replaced or swapped with their neighbour to make one word of the other. */
function edits(a: string, b: string): number {
  // A name of any length may come from a file.
  if (Math.abs(a.length - b.length) > editsMax) return editsMax + 1
  let before: ReadonlyArray<number> = []
  let row: ReadonlyArray<number> = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? before[j - 2]! + 1 : replaced
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, replaced, swapped)
    }
    before = row
    row = next
  }
  return row[b.length]!
}
