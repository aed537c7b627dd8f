/**
 * What the documents say is so: their links lead somewhere, the names in them exist, and their code compiles, in doc
 * comments too.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import * as effect from "effect"
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import * as codio from "../../src/index.ts"
import * as errors from "../../src/schema/NetworkError.ts"
import * as testing from "../../src/testing/index.ts"
import { compile, makeProject, root, snippets } from "../support/Snippets.ts"

const inside = (directory: string, ending: string): ReadonlyArray<string> =>
  readdirSync(join(root, directory), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(ending))
    .map((file) => join(directory, file))

const documents = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", ...inside("docs", ".md")]
const sources = inside("src", ".ts")
const read = (file: string) => readFileSync(join(root, file), "utf8")
const project = makeProject()
afterAll(() => project.remove())

describe("the documents", () => {
  it("link to files that exist and are packed", () => {
    const packed: ReadonlyArray<string> = [...JSON.parse(read("package.json")).files, "README.md", "LICENSE"]
    const isPacked = (path: string) => packed.some((entry) => path === entry || path.startsWith(`${entry}/`))
    const broken = documents.flatMap((file) =>
      [...read(file).matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)].map(([, target]) => target!)
        .filter((target) => {
          const path = join(dirname(file), target)
          return !existsSync(join(root, path)) || !isPacked(path)
        })
        .map((target) => `${file}: ${target}`)
    )
    assert.deepStrictEqual(broken, [])
  })

  it("are all in the index, and so are the examples", () => {
    const index = read("docs/README.md")
    const named = [...inside("docs", ".md"), ...inside("examples", ".ts")].filter((file) => file !== "docs/README.md")
    assert.deepStrictEqual(named.filter((file) => !index.includes(`(${relative("docs", file)})`)), [])
  })

  it("name files that exist", () => {
    const missing = documents.flatMap((file) =>
      [...read(file).matchAll(/`([^`\n]+)`/g)].flatMap(([, code]) => code!.split(/[\s,]+/))
        .filter((word) => !isThere(word))
        .map((word) => `${file}: ${word}`)
    )
    assert.deepStrictEqual(missing, [])
  })

  it("name parts that exist", () => {
    const known = new Set(
      sources.flatMap((file) => read(file).match(/[A-Za-z][A-Za-z0-9]+/g) ?? []).concat(
        sources.map((file) => /([^/]+)\.ts$/.exec(file)![1]!)
      )
    )
    const about = ["ARCHITECTURE", "GLOSSARY", "RELIABILITY", "SCALING", "SIMULATION"].map((name) => `docs/${name}.md`)
    const missing = about.flatMap((file) =>
      [...read(file).matchAll(/`([A-Z][a-z]+[A-Z][A-Za-z]+)(?=[`.])/g)].map(([, name]) => name!)
        .filter((name) => !known.has(name))
        .map((name) => `${file}: ${name}`)
    )
    assert.deepStrictEqual(missing, [])
  })

  it("have every dependency in docs/DEPENDENCIES.md, and no other", () => {
    const { dependencies, devDependencies, peerDependencies } = JSON.parse(read("package.json"))
    const named = [...read("docs/DEPENDENCIES.md").matchAll(/^\| (`.*?) \|/gm)]
      .flatMap(([, cell]) => [...cell!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!))
    const all = new Set(Object.keys({ ...dependencies, ...devDependencies, ...peerDependencies }))
    assert.deepStrictEqual(named.sort(), [...all].sort())
  })

  it("have every transition of a peer's record in docs/ARCHITECTURE.md", () => {
    const record = read("src/layers/peers/PeerRecord.ts")
    const [, ...sections] = record.split(/^\/\/ (?=transitions|internal)/m)
    const transitions = sections.filter((section) => section.startsWith("transitions"))
      .flatMap((section) => [...section.matchAll(/^export const (\w+) =/gm)].map(([, name]) => name!))
    assert.isAbove(transitions.length, 20)
    const table = read("docs/ARCHITECTURE.md").split("### The record of a peer")[1]!.split("\n## ")[0]!
    const named = [...table.matchAll(/^\| (`.*?) \|/gm)].flatMap(([, cell]) =>
      [...cell!.matchAll(/`(\w+)`/g)].map(([, name]) => name!)
    )
    assert.deepStrictEqual([...new Set(named)].sort(), transitions.sort())
  })

  it("have every metric and every component of the log in docs/README.md", () => {
    const text = read("docs/README.md")
    const metrics = [...read("src/services/NetworkMetrics.ts").matchAll(/"(codio_\w+)"/g)].map(([, name]) => name!)
    assert.isAbove(metrics.length, 5)
    assert.deepStrictEqual(metrics.filter((name) => !text.includes(`\n| \`${name}\` |`)), [])
    const components = codio.LogFilter.components.map((name) => name === "libp2p" ? "libp2p:*" : name)
    assert.deepStrictEqual(components.filter((name) => !text.includes(`\n| \`${name}\` |`)), [])
  })

  it("have every error in docs/ERRORS.md", () => {
    const text = read("docs/ERRORS.md")
    const tags = [...read("src/schema/NetworkError.ts").matchAll(/Schema\.TaggedError<\w+>\(\)\("(\w+)"/g)].map((
      [, tag]
    ) => tag!)
    assert.isAbove(tags.length, 25)
    assert.deepStrictEqual(tags.filter((tag) => !text.includes(`\n| \`${tag}\` |`)), [])
    const rows = [...text.matchAll(/^\| `(\w+)` \|/gm)].map(([, tag]) => tag!)
    assert.deepStrictEqual(rows.filter((tag) => !tags.includes(tag) && !Object.hasOwn(testing, tag)), [])
    const retryable = new Map(
      [...text.matchAll(/^\| `(\w+)` \| .* \| (yes|no) \|$/gm)].map(([, tag, said]) => [tag!, said])
    )
    for (const [tag, error] of Object.entries(errors)) {
      if (typeof error !== "function" || !retryable.has(tag)) continue
      assert.include(error.toString(), `isRetryable = ${retryable.get(tag) === "yes"}`, tag)
    }
  })
})

describe("the code", () => {
  it("of documents and doc comments compiles", async () => {
    const written = [
      ...documents.filter((file) => file !== "README.md").flatMap((file) =>
        snippets(read(file)).map((each) => ({ file, ...each }))
      ),
      ...sources.flatMap((file) => snippets(comments(read(file))).map((each) => ({ file, ...each })))
    ]
    assert.isAbove(written.length, 12)
    for (const { code, file, line } of written) {
      writeFileSync(join(project.directory, `${file.replace(/\W/g, "-")}-${line}.ts`), complete(code, file))
    }
    assert.strictEqual(await compile(project.directory), "")
  })
})

// internal ------------------------------------------------------------------------------------------------------------

/** Whether a word that looks like a path of this repository leads to a file or directory. */
function isThere(word: string): boolean {
  const [path] = word.replace(/[.;:]$/, "").split("#")
  if (/[<>*{}]/.test(path!)) return true
  if (/^(src|test|docs|examples|bench|scripts)\/./.test(path!)) return existsSync(join(root, path!))
  if (/^(schema|services|layers|testing|cli)\/\w+(\/\w+)*\.ts$/.test(path!)) return existsSync(join(root, "src", path!))
  return true
}

/** The doc comments of a source, without what makes them comments; other lines are empty, so that line numbers stay. */
function comments(source: string): string {
  return source.split("\n").map((line) => /^\s*\* ?(?!\/)(.*)$/.exec(line)?.[1] ?? "").join("\n")
}

/** What a fragment may use without saying where it is from. */
const given = {
  network: `import("codio-network").Network["Service"]`,
  peer: `import("codio-network").PeerId`,
  address: `import("codio-network").Multiaddr`,
  key: `import("codio-network").ContentKey.ContentKey`,
  bytes: "Uint8Array",
  scenario: `import("effect").Effect.Effect<void>`
}

/**
 * A fragment as a program: with the imports that it leaves out, inside a generator if it yields. A program stays as it
 * is.
 */
function complete(code: string, file: string): string {
  if (/^import /m.test(code)) return code
  const uses = (name: string) => new RegExp(`(?<!\\w|(?<!\\.\\.)\\.)${name}\\b`).test(code)
  const types = file.startsWith("src/testing/")
    ? { ...given, network: `import("codio-network/testing").SimNetwork["Service"]` }
    : given
  const parameters = Object.entries(types)
    .filter(([name]) => uses(name) && !new RegExp(`const ${name}\\b`).test(code))
    .map(([name, type]) => `${name}: ${type}`)
  const yields = /yield\*/.test(code) && !code.startsWith("it.")
  const imports = (module: string, names: ReadonlyArray<string>) => {
    const used = names.filter((name) => uses(name) || (yields && name === "Effect"))
    return used.length === 0 ? "" : `import { ${used.join(", ")} } from "${module}"\n`
  }
  const body = yields ? `Effect.gen(function*() {\n${code}})` : `{\n${code}}`
  return [
    imports("effect", Object.keys(effect)),
    imports("effect/testing", ["TestClock"]),
    imports("@effect/platform-node", ["NodeRuntime"]),
    imports("@effect/vitest", ["assert", "it"]),
    imports("codio-network", Object.keys(codio).filter((name) => !Object.hasOwn(effect, name))),
    imports("codio-network/testing", Object.keys(testing)),
    `export const example = (${parameters.join(", ")}) => ${body}\n`
  ].join("")
}
