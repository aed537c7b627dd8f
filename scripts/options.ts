/**
 * Writes docs/OPTIONS.md and docs/options.schema.json from the tables of options and the comments on their entries:
 * `npm run docs:options`.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileSchema, programOptions } from "../src/cli/options.ts"
import { options } from "../src/schema/NetworkOptions.ts"
import { type AnyOption, defaultText, flagOf, type OptionTable, variableOf } from "../src/schema/OptionTable.ts"

const root = join(import.meta.dirname, "..")

export const file = join(root, "docs/OPTIONS.md")

export const schemaFile = join(root, "docs/options.schema.json")

/** The text of docs/options.schema.json. */
export const renderSchema = (): string => `${JSON.stringify(fileSchema(), null, 2)}\n`

/** The text of docs/OPTIONS.md. */
export const render = (): string =>
  `# Options

Numbers, switches and addresses of a node. A program gives them to \`Network.layer(options)\` or \`Network.make(options)\`. The command \`codio start\`
takes each from its flag, else from its environment variable, else from the JSON file that \`--config\` names. Behaviour that a file cannot hold is
in [POLICIES.md](POLICIES.md).

- A duration is a text such as \`"10s"\`, \`"5m"\` or \`"90 seconds"\`, from 1 ms to 24 days; in a program also a number of milliseconds or a \`Duration\`.
- A list is an array of texts. Its flag is repeated; in the environment commas separate the items.
- A switch is \`true\` or \`false\`; as a flag \`--mdns\` or \`--no-mdns\`.
- A wrong option fails the start with a \`ConfigError\`, which names each problem in a line, and so do options that contradict each other.
- An unknown field of the file, variable of the prefix or log component fails the start when it is within two edits of a known one ("did you mean"). Another
  one is a warning: an application may have a \`CODIO_HOME\` of its own.
- A program reads the environment by \`NetworkConfig.layerEnv()\`, or \`layerEnv("MY_APP")\` for \`MY_APP_LISTEN_PORT\`, below \`Network.layerWithoutConfig()\`;
  and effect's \`Config\` by \`Network.layerConfig\`.
- [options.schema.json](options.schema.json) is the JSON Schema of the file of \`--config\`, with the options of both tables. An editor uses it when
  the file says \`"$schema": "./node_modules/codio-network/docs/options.schema.json"\`, which the program ignores. \`NetworkOptions.jsonSchema()\`
  is the schema of the options of a node alone.

\`npm run docs:options\` writes this page from the table in [NetworkOptions.ts](../src/schema/NetworkOptions.ts).

## Of a node

${section("src/schema/NetworkOptions.ts", options)}

## Of the program \`codio start\`

${section("src/cli/options.ts", programOptions)}
`

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function section(source: string, table: OptionTable): string {
  const head = ["option", "flag", "environment variable", "default", "meaning"]
  const rows = Object.entries(table).map(([name, entry]) => [
    `\`${name}\``,
    `\`${flagOf(name, entry)}\``,
    `\`${variableOf(name)}\``,
    [
      shown(entry),
      ...entry.programDefault === undefined ? [] : [`of the program \`${String(entry.programDefault)}\``]
    ].join("; "),
    meaning(source, name, entry)
  ])
  const line = (cells: ReadonlyArray<string>) => `| ${cells.join(" | ")} |`
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n")
}

const shown = (entry: AnyOption): string => {
  const text = defaultText(entry)
  return text === undefined ? "none" : text.includes("`") ? text : `\`${text}\``
}

/** The comment on the entry, which must end in the option's default. */
function meaning(source: string, name: string, entry: AnyOption): string {
  const text = readFileSync(join(root, source), "utf8")
  const comment = new RegExp(`/\\*\\*((?:(?!\\*/)[\\s\\S])*)\\*/\\s+${name}: option\\(`).exec(text)?.[1]
  if (comment === undefined) throw new Error(`${source}: ${name} has no comment`)
  const words = comment.replace(/^\s*\* ?/gm, "").replace(/\s+/g, " ").trim()
  const end = ` Defaults to ${defaultText(entry) ?? "none"}.`
  if (!words.endsWith(end)) throw new Error(`${source}: the comment on ${name} must end in "${end.trim()}"`)
  return words.slice(0, -end.length)
}

// At the end, where everything above is defined.
if (import.meta.main) {
  writeFileSync(file, render())
  writeFileSync(schemaFile, renderSchema())
}
