/**
 * The package as it is published: built and packed once, then judged by publint and attw, and used in an empty project.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, dirname, join } from "node:path"
import { publint } from "publint"
import { formatMessage } from "publint/utils"

const root = join(import.meta.dirname, "../..")
const work = mkdtempSync(join(tmpdir(), "codio-network-package-"))
const project = join(work, "project")
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))

let tarball: string
let files: ReadonlyArray<string>

beforeAll(async () => {
  const packed = await run("npm", ["pack", "--json", "--pack-destination", work], root)
  assert.strictEqual(packed.code, 0, packed.output)
  // The build's own output stands before the JSON.
  const [entry] = JSON.parse(packed.stdout.slice(packed.stdout.indexOf("[\n")))
  tarball = join(work, entry.filename)
  files = entry.files.map((file: { readonly path: string }) => file.path)
})

afterAll(() => rmSync(work, { recursive: true, force: true }))

describe("the tarball", () => {
  it("holds the compiled library, its source, documents, examples and licence, and nothing else", () => {
    const named = [
      "package.json",
      "README.md",
      "LICENSE",
      "CHANGELOG.md",
      "CONTRIBUTING.md",
      "SECURITY.md",
      "docs/README.md",
      "examples/01-start.ts",
      "dist/index.js",
      "dist/index.d.ts",
      "dist/cli/bin.js",
      "dist/cli/THIRD-PARTY.txt",
      "src/index.ts"
    ]
    assert.deepStrictEqual(named.filter((file) => !files.includes(file)), [])
    assert.deepStrictEqual(
      files.filter((file) =>
        !named.includes(file) &&
        !/^dist\/.+\.(js|d\.ts)(\.map)?$|^(src|examples)\/.+\.ts$|^docs\/.+\.(md|schema\.json)$/.test(file)
      ),
      []
    )
  })

  it("is clean for publint", async () => {
    const bytes = readFileSync(tarball)
    const { messages, pkg } = await publint({ strict: true, pack: { tarball: new Uint8Array(bytes).buffer } })
    assert.deepStrictEqual(messages.map((message) => formatMessage(message, pkg, { color: false })), [])
  })

  it("is clean for attw", async () => {
    const attw = join(root, "node_modules/@arethetypeswrong/cli/dist/index.js")
    const { code, output } = await run(process.execPath, [
      attw,
      tarball,
      "--profile",
      "esm-only",
      "--no-color",
      "--no-emoji"
    ], work)
    assert.strictEqual(code, 0, output)
  })
})

describe("the program alone, without any package beside it", () => {
  const directory = join(work, "alone")

  beforeAll(async () => {
    mkdirSync(directory)
    const unpacked = await run("tar", ["-xzf", tarball, "-C", directory], work)
    assert.strictEqual(unpacked.code, 0, unpacked.output)
  })

  it("asks for the version of Node before it loads anything else", () => {
    const [needed] = /\d+\.\d+/.exec(manifest.engines.node)!
    const bin = readFileSync(join(directory, "package/dist/cli/bin.js"), "utf8")
    assert.include(bin, `Node ${needed} or newer is needed`)
    assert.notMatch(bin, /^(import\b(?!\()|export\b.* from )/m)
  })

  it("runs a node until it is stopped", async () => {
    const args = [join(directory, "package/dist/cli/bin.js"), "start", "--json"]
    const { code, output, stdout } = await run(process.execPath, args, directory, "SIGINT")
    assert.strictEqual(code, 0, output)
    assert.match(stdout, /"started".*\n(.*\n)*.*"stopped"/)
  })

  it("names whom it is made of, with their licences", () => {
    const notices = readFileSync(join(directory, "package/dist/cli/THIRD-PARTY.txt"), "utf8")
    const named = ["effect", "libp2p", "@libp2p/kad-dht", "multiformats", "cborg"]
    assert.deepStrictEqual(named.filter((name) => !new RegExp(`^${name} \\d`, "m").test(notices)), [])
    assert.include(notices, "Permission is hereby granted")
    assert.include(notices, "Apache License")
  })
})

describe("an empty project", () => {
  beforeAll(async () => {
    writeFileSync(join(work, "package.json"), "{}")
    const peers = Object.keys(manifest.peerDependencies).map((name) => `${name}@${manifest.devDependencies[name]}`)
    const installed = await run("npm", [
      "install",
      "--prefix",
      project,
      "--prefer-offline",
      "--no-audit",
      "--no-fund",
      tarball,
      ...peers
    ], work)
    assert.strictEqual(installed.code, 0, installed.output)
    writeFileSync(join(project, "program.ts"), firstProgram())
    writeFileSync(
      join(project, "package.json"),
      JSON.stringify({ ...JSON.parse(readFileSync(join(project, "package.json"), "utf8")), type: "module" })
    )
  })

  it("type-checks the README's first program", async () => {
    const compilerOptions = {
      target: "es2024",
      lib: ["es2024", "esnext.disposable", "dom"],
      module: "nodenext",
      strict: true,
      noEmit: true,
      skipLibCheck: true,
      types: ["node"],
      typeRoots: [join(root, "node_modules/@types")]
    }
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["program.ts"] }))
    const { code, output } = await run(
      process.execPath,
      [join(root, "node_modules/typescript/bin/tsc"), "-p", "."],
      project
    )
    assert.strictEqual(code, 0, output)
  })

  it("runs the README's first program to its end", async () => {
    const { code, output, stdout } = await run(process.execPath, ["program.ts"], project)
    assert.strictEqual(code, 0, output)
    assert.notStrictEqual(stdout, "", output)
  })

  it("has the command codio, which knows its version", async () => {
    const { code, output, stdout } = await run(join(project, "node_modules/.bin/codio"), ["--version"], project)
    assert.strictEqual(code, 0, output)
    assert.include(stdout, manifest.version)
  })

  it("imports each entry point, and only those", async () => {
    const names = Object.keys(manifest.exports).filter((name) => name !== "./package.json").map((name) =>
      join("codio-network", name)
    )
    const all = await run(process.execPath, [
      "-e",
      `await Promise.all(${JSON.stringify(names)}.map((name) => import(name)))`
    ], project)
    assert.strictEqual(all.code, 0, all.output)
    const inside = await run(process.execPath, ["-e", `await import("codio-network/dist/index.js")`], project)
    assert.include(inside.output, "ERR_PACKAGE_PATH_NOT_EXPORTED")
  })
})

// internal ------------------------------------------------------------------------------------------------------------

/** The first block of code after its marker in the README, as a reader copies it. */
function firstProgram(): string {
  const program = /<!-- first-program -->\s*```ts\n([\s\S]*?)```/.exec(readFileSync(join(root, "README.md"), "utf8"))
    ?.[1]
  if (program === undefined) throw new Error("README.md has no program after <!-- first-program -->")
  return program
}

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly output: string
}

/** Runs a command to its end, which `signal`, if given, asks for once the command has printed something. */
function run(
  command: string,
  args: ReadonlyArray<string>,
  cwd: string,
  signal?: NodeJS.Signals
): Promise<Ended> {
  // The node that runs the specs comes first, as a user's own would; npm's settings of the outer run stay outside.
  const inherited = Object.entries(process.env).filter(([name]) => !/^(npm_|CODIO_)/i.test(name))
  const env = {
    ...Object.fromEntries(inherited),
    PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}`,
    NO_COLOR: "1",
    FORCE_COLOR: "0"
  }
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] })
    let stdout = ""
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text
      output += text
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => (output += text))
    if (signal !== undefined) child.stdout.once("data", () => child.kill(signal))
    const late = setTimeout(() => child.kill("SIGKILL"), 170_000)
    child.on("error", reject)
    child.on("close", (code, signal) => {
      clearTimeout(late)
      resolve({ code: code ?? -1, stdout, output: `${output}\n${command}: ${signal ?? `exit code ${code}`}` })
    })
  })
}
