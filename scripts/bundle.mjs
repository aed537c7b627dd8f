/**
 * Bundles the program of src/cli into dist/cli, since loading its thousand files takes most of a start. The bundle is
 * not minified, so that the stack of a bug can be read. Beside it are the licences of the packages in it.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { isBuiltin } from "node:module"
import { dirname, join } from "node:path"
import { rolldown } from "rolldown"

const root = join(import.meta.dirname, "..")
const directory = join(root, "dist/cli")

const bundle = await rolldown({
  cwd: root,
  // A dynamic import becomes a file of its own: help does not load libp2p.
  input: { bin: "src/cli/bin.ts" },
  platform: "node",
  onLog: (_, { message }) => fail(message)
})
const { output } = await bundle.write({
  dir: directory,
  chunkFileNames: "[name].js",
  comments: { annotation: false, jsdoc: false, legal: true }
})
const own = new Set(output.map(({ fileName }) => fileName))
const outside = output.flatMap(({ imports }) => imports).filter((name) => !own.has(name) && !isBuiltin(name))
if (outside.length > 0) fail(`the bundle of the program imports ${outside.join(", ")}`)

const packages = new Set(
  output.flatMap(({ moduleIds }) => moduleIds.filter((id) => !id.startsWith("\0")).map(packageOf))
)
packages.delete(root)
writeFileSync(join(directory, "THIRD-PARTY.txt"), notices([...packages].map(licenceOf)))

// internal ------------------------------------------------------------------------------------------------------------

function fail(message) {
  console.error(message)
  process.exit(1)
}

/** The directory of the package that a file belongs to. A package.json deeper inside a package has no version. */
function packageOf(path) {
  const directory = dirname(path)
  const { version } = manifestOf(directory)
  return version === undefined ? packageOf(directory) : directory
}

function manifestOf(directory) {
  try {
    return JSON.parse(readFileSync(join(directory, "package.json"), "utf8"))
  } catch (error) {
    if (error.code === "ENOENT") return {}
    throw error
  }
}

function licenceOf(directory) {
  const { license, name, version } = manifestOf(directory)
  const texts = readdirSync(directory).filter((file) => /^(licen[cs]e|copying|notice)\b/i.test(file)).sort()
    .map((file) => readFileSync(join(directory, file), "utf8").replaceAll("\r\n", "\n").trim())
  if (texts.length === 0 && !/\bMIT\b/.test(license)) fail(`${name}, which the program contains, has no licence text`)
  return { name: `${name} ${version} (${license})`, text: texts.length === 0 ? mit() : texts.join("\n\n") }
}

/** For packages that are published without a text, as all of libp2p's are. */
function mit() {
  const own = readFileSync(join(root, "LICENSE"), "utf8")
  return `Copyright their contributors\n\n${own.slice(own.indexOf("Permission is hereby granted")).trim()}`
}

/** Each text once, below the packages that have it. */
function notices(licences) {
  const byText = Map.groupBy(licences.sort((a, b) => a.name < b.name ? -1 : 1), ({ text }) => text)
  const parts = [...byText].map(([text, packages]) =>
    `${[...new Set(packages.map(({ name }) => name))].join("\n")}\n\n${text}`
  )
  return `The program codio contains these packages.\n\n${parts.join(`\n\n${"-".repeat(80)}\n\n`)}\n`
}
