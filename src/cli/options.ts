/**
 * The options of a command, from flags, `CODIO_*` variables and the JSON file, in this order. The first source that has
 * an option decides, lists included: `--bootstrap-peer` replaces the bootstrap peers of the file.
 */
import { Context, Effect, FileSystem, Logger, Option, Result, Schema } from "effect"
import { Flag } from "effect/cli"
import { ConfigError } from "../schema/NetworkError.ts"
import * as LogFilter from "../schema/LogFilter.ts"
import * as NetworkOptions from "../schema/NetworkOptions.ts"
import * as OptionTable from "../schema/OptionTable.ts"
import { option, text, toggle } from "../schema/OptionTable.ts"
import { NetworkConfig, type NetworkConfigInput } from "../services/NetworkConfig.ts"

/** The environment that is read. Tests replace it. */
export const Environment = Context.Reference<Readonly<Record<string, string | undefined>>>(
  "codio-network/cli/Environment",
  {
    defaultValue: () => process.env
  }
)

/** The options of a command that runs a node. */
export interface ProgramOptions {
  readonly network: NetworkOptions.NetworkOptions
  readonly relayServer: boolean
  readonly json: boolean
  readonly log: LogFilter.LogFilter
  /** What is odd and no error, such as a variable of the prefix that belongs to no option. */
  readonly warnings: ReadonlyArray<string>
}

/** The options of the program itself, which a file may hold beside those of the node; `config` names that file. */
export const programOptions = {
  /** Whether the node relays for others. Defaults to false. */
  relayServer: option(toggle, { default: false, description: "Relay for others" }),
  /** The JSON file that holds options. Defaults to none. */
  config: option(text(Schema.NonEmptyString, "file", "the path of a file"), {
    default: undefined,
    description: "JSON file with options: {\"listenPort\": 4001, ...}"
  }),
  /** Whether the output is one JSON object per line, for another program to read. Defaults to false. */
  json: option(toggle, { default: false, description: "Print one JSON object per line" }),
  /**
   * What is logged on stderr: a level for everything, and levels for components, such as
   * `info,dht=debug,libp2p:tcp=trace`. Defaults to info.
   */
  log: option({ ...text(LogFilter.LogFilterText, "filter", "a text such as \"info,dht=debug\""), explains: true }, {
    default: "info",
    description: "What to log on stderr, such as \"info,dht=debug,libp2p:tcp=trace\""
  })
}

/** The program's defaults for options of the node, where they differ from the library's. */
export const programDefaults: NetworkConfigInput = Object.fromEntries(
  Object.entries<OptionTable.AnyOption>(NetworkOptions.options).flatMap(([name, { programDefault }]) =>
    programDefault === undefined ? [] : [[name, programDefault]]
  )
)

/** All options of the program. */
const table: OptionTable.OptionTable = { ...NetworkOptions.options, ...programOptions }

/** What the command line gave for the options, by name. */
type Flags = { readonly [name: string]: Option.Option<string | boolean> | ReadonlyArray<string> }

/** The flags. All are texts, decoded as the environment's are, so that problems read the same whatever their source. */
export const flags: { readonly [name: string]: Flag.Flag<Flags[string]> } = Object.fromEntries(
  Object.entries(table).map(([name, entry]) => [name, flag(name, entry)])
)

/**
 * The JSON Schema of the file that `--config` names: the options of the node and of the program, and `$schema` itself.
 */
export const fileSchema = (): { readonly [key: string]: unknown } => {
  const { config: _, ...ofFile } = programOptions
  const file: OptionTable.OptionTable = Object.fromEntries(
    Object.entries<OptionTable.AnyOption>({ ...NetworkOptions.options, ...ofFile }).map(([name, entry]) => [
      name,
      { ...entry, default: entry.programDefault ?? entry.default }
    ])
  )
  const { properties, ...schema } = OptionTable.jsonSchemaOf(file, OptionTable.schemaOf(file))
  return { ...schema, properties: { $schema: { type: "string" }, ...properties as object } }
}

/**
 * Reads the three sources. Each source is checked as a whole, even where another one has precedence, and all together
 * for contradictions. Warnings are kept, since the log is made of the options.
 */
export const resolve = (given: Flags) =>
  Effect.suspend(() => {
    const warnings: Array<string> = []
    const keeping = Logger.make<unknown, void>(({ message }) =>
      void warnings.push(...(Array.isArray(message) ? message : [message]).map(String))
    )
    return read(given).pipe(
      Effect.provide(Logger.layer([keeping])),
      Effect.map((options): ProgramOptions => ({
        ...options,
        warnings: [...warnings, ...LogFilter.judge(options.log).warnings.map((line) => `log: ${line}`)]
      }))
    )
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const read = Effect.fnUntraced(function*(given: Flags) {
  const environment = yield* Environment
  const fromFlags = yield* NetworkOptions.decodeTexts(textsOf(NetworkOptions.options, given), label)
  const fromEnvironment = yield* NetworkOptions.decodeEnvironment(
    environment,
    OptionTable.environmentPrefix,
    programOptions
  )
  const programEnvironment = yield* decodeProgramTexts(
    OptionTable.fromEnvironment(programOptions, environment),
    OptionTable.variableOf
  )
  const programFlags = yield* decodeProgramTexts(textsOf(programOptions, given), label)
  const file = programFlags.config ?? programEnvironment.config
  const fromFile = file === undefined ? { network: {}, program: {} } : yield* readFile(file)

  const program = OptionTable.withDefaults(programOptions, {
    ...fromFile.program,
    ...programEnvironment,
    ...programFlags
  })
  const network = { ...fromFile.network, ...fromEnvironment, ...fromFlags }
  // Here already, since the node takes a while to load.
  yield* NetworkConfig.resolve({ ...programDefaults, ...network })
  return {
    network,
    relayServer: program.relayServer,
    json: program.json,
    log: Result.getOrThrow(LogFilter.parse(program.log))
  }
})

function flag(name: string, entry: OptionTable.AnyOption): Flag.Flag<Flags[string]> {
  const word = OptionTable.flagOf(name, entry).slice(2)
  switch (entry.flag) {
    case "switch":
      return Flag.Boolean(word).pipe(Flag.withDescription(help(entry, word)), Flag.optional)
    case "texts":
      return Flag.String(word).pipe(
        Flag.withMetavar(entry.metavar),
        Flag.withDescription(help(entry, word)),
        Flag.atLeast(0)
      )
    case "text":
      return Flag.String(word).pipe(
        Flag.withMetavar(entry.metavar),
        Flag.withDescription(help(entry, word)),
        Flag.optional
      )
  }
}

function help(entry: OptionTable.AnyOption, word: string): string {
  return [
    entry.description,
    ...standardOf(entry, word).map((text) => `default ${text}`),
    ...entry.flag === "texts" ? ["may be repeated"] : []
  ].join("; ")
}

function standardOf(entry: OptionTable.AnyOption, word: string): ReadonlyArray<string> {
  if (entry.flag === "switch") return [entry.default === true ? `on, --no-${word} turns it off` : "off"]
  const value = entry.programDefault ?? entry.default
  // As a shell needs it.
  if (typeof value === "string" && value.includes(" ")) return [JSON.stringify(value)]
  // An option in the text of a default is named by its flag.
  const named = OptionTable.defaultText(entry)?.replace(
    /`([^`]+)`/g,
    (_, name: string) => Object.hasOwn(table, name) ? label(name) : name
  )
  return named === undefined ? [] : [named]
}

function label(name: string): string {
  return OptionTable.flagOf(name, table[name]!)
}

function textsOf<T extends OptionTable.OptionTable>(options: T, given: Flags): OptionTable.Texts<T> {
  const out: Record<string, string | ReadonlyArray<string>> = {}
  for (const name of Object.keys(options)) {
    const value = given[name]!
    if (!Option.isOption(value)) {
      if (value.length > 0) out[name] = value
    } else if (Option.isSome(value)) {
      out[name] = String(value.value)
    }
  }
  return out as OptionTable.Texts<T>
}

const Program = OptionTable.schemaOf(programOptions)

const decodeProgram = (input: Readonly<Record<string, unknown>>, nameOf: (name: string) => string, given = input) =>
  OptionTable.decode(programOptions, Program, input, nameOf, given)

const decodeProgramTexts = (texts: OptionTable.Texts<typeof programOptions>, nameOf: (name: string) => string) =>
  decodeProgram(OptionTable.fromTexts(programOptions, texts), nameOf, texts)

const readFile = Effect.fnUntraced(function*(path: string) {
  const fs = yield* FileSystem.FileSystem
  const content = yield* fs.readFileString(path).pipe(
    Effect.mapError((error) => {
      const detail = error.reason.cause instanceof Error ? error.reason.cause.message : error.message
      return new ConfigError({ problems: [`${path}: cannot be read: ${detail}`] })
    })
  )
  const fields = yield* NetworkOptions.parse(path, content)
  if (Object.hasOwn(fields, "config")) {
    return yield* new ConfigError({ problems: [`${path}: config: a file of options does not name another one`] })
  }
  return {
    program: yield* decodeProgram(
      Object.fromEntries(Object.entries(fields).filter(([name]) => Object.hasOwn(programOptions, name))),
      (name) => `${path}: ${name}`
    ),
    network: yield* NetworkOptions.decode(path, fields, programOptions)
  }
})
