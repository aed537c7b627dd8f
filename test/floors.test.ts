/**
 * The floors of the library, read from its import lines: a file imports from its own floor or below. docs/ARCHITECTURE.md shows them.
 */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join, posix } from "node:path"

/** The only files that may know libp2p. */
const libp2pFiles = new Set([
  "layers/FileIdentity.ts",
  "layers/KadAttachment.ts",
  "layers/KadPeers.ts",
  "layers/KadDial.ts",
  "layers/KadHandler.ts",
  "layers/KadKeys.ts",
  "layers/KadStream.ts",
  "layers/KadStreams.ts",
  "layers/KadTable.ts",
  "layers/KadValues.ts",
  "layers/Libp2pByteStream.ts",
  "layers/Libp2pConnection.ts",
  "layers/Libp2pDialing.ts",
  "layers/Libp2pFaults.ts",
  "layers/Libp2pHost.ts",
  "layers/Libp2pLogger.ts",
  "layers/Libp2pEagerStream.ts",
  "layers/Libp2pGoAway.ts",
  "layers/Libp2pModules.ts",
  "layers/Libp2pMuxer.ts",
  "layers/Libp2pNoise.ts",
  "layers/Libp2pProgress.ts",
  "layers/Libp2pTcp.ts",
  "layers/Libp2pTransport.ts",
  "layers/MdnsDiscovery.ts",
  "layers/PublishedValue.ts",
  "layers/RelayClient.ts",
  "layers/RelayReservations.ts",
  "layers/RelayServer.ts",
  "layers/StockKadDht.ts",
  "layers/TcpListener.ts",
  "layers/ValueRecords.ts"
])

/** A layer in a service file would hide which implementation a program has chosen; these have one that needs no other service. */
const servicesWithLayer = new Set(["services/Discovery.ts", "services/NetworkConfig.ts", "services/NetworkEvents.ts"])

interface Floor {
  readonly name: string
  readonly height: number
  /** What a file of this floor may import from outside, besides effect. */
  readonly packages: RegExp
}

const libp2p = /^(libp2p|@libp2p\/.+|@chainsafe\/.+)$/
const floors: ReadonlyArray<readonly [path: RegExp, floor: Floor]> = [
  [/^schema\//, { name: "schema", height: 0, packages: /^(multiformats|@multiformats\/.+|cborg)$/ }],
  // Node's own knowledge of IP ranges, for the default of a Reference.
  [/^services\//, { name: "services", height: 1, packages: /^node:net$/ }],
  [/^layers\//, { name: "layers", height: 2, packages: /^(node:.+|multiformats|@multiformats\/.+|cborg)$/ }],
  [/^testing\//, { name: "testing", height: 3, packages: /^(multiformats|@multiformats\/.+)$/ }],
  [/^Network\.ts$/, { name: "roof", height: 3, packages: /^@effect\/platform-node$/ }],
  [/^(cli|status)\//, { name: "entry points", height: 4, packages: /^(node:.+|@effect\/platform-node)$/ }],
  [/^index\.ts$/, { name: "public surface", height: 3, packages: /^$/ }]
]

/** The rules that a tree of source files, by path below src, breaks: one line each. */
const violations = (files: ReadonlyMap<string, string>, declared: ReadonlySet<string>): ReadonlyArray<string> => {
  const found: Array<string> = []
  for (const [path, text] of files) {
    const floor = floorOf(path)
    if (floor === undefined) {
      found.push(`${path}: belongs to no floor`)
      continue
    }
    for (const specifier of imports(text)) {
      if (specifier.startsWith(".")) {
        const target = posix.join(posix.dirname(path), specifier)
        const below = floorOf(target)
        if (!files.has(target)) found.push(`${path}: imports ${specifier}, which does not exist`)
        else if (below !== undefined && below.height > floor.height) {
          found.push(`${path}: imports ${target}, which is above it`)
        } else if (/(^|\/)index\.ts$/.test(target)) {
          found.push(`${path}: imports ${target}; own files are imported directly`)
        }
      } else {
        const name = packageOf(specifier)
        if (!specifier.startsWith("node:") && !declared.has(name)) {
          found.push(`${path}: imports ${name}, which package.json does not name`)
        }
        if (libp2p.test(name) ? !libp2pFiles.has(path) : !allowed(path, floor, name)) {
          found.push(`${path}: imports ${name}`)
        }
      }
    }
    const code = withoutComments(text)
    if (floor.name === "services" && !servicesWithLayer.has(path) && /\b(?:const|readonly) layer\w*\b/.test(code)) {
      found.push(`${path}: carries a layer`)
    }
    if (floor.height > 0 && floor.name !== "entry points" && !libp2pFiles.has(path)) {
      for (
        const [word] of code.matchAll(
          /\b(?:setTimeout|setInterval|Date\.now|new Date|Math\.random|performance\.now)\b(?=\s*\()/g
        )
      ) {
        found.push(`${path}: uses ${word}; time comes from Clock, chance from Random`)
      }
    }
  }
  return found
}

describe("import floors", () => {
  const source = join(import.meta.dirname, "../src")
  const manifest: Record<string, unknown> = JSON.parse(
    readFileSync(join(import.meta.dirname, "../package.json"), "utf8")
  )
  const declared = new Set(["dependencies", "peerDependencies"].flatMap((field) => Object.keys(manifest[field] ?? {})))
  const files = new Map(
    readdirSync(source, { recursive: true, encoding: "utf8" })
      .map((path) => path.replaceAll("\\", "/"))
      .filter((path) => path.endsWith(".ts"))
      .map((path) => [path, readFileSync(join(source, path), "utf8")])
  )

  it("hold in src", () => {
    assert.isAbove(files.size, 20)
    assert.deepStrictEqual(violations(files, declared), [])
  })

  it("name only files that exist", () => {
    assert.deepStrictEqual([...libp2pFiles, ...servicesWithLayer].filter((path) => !files.has(path)), [])
  })

  it("use every dependency that package.json names", () => {
    const used = new Set([...files.values()].flatMap((text) => [...imports(text)].map(packageOf)))
    assert.deepStrictEqual([...declared].filter((name) => !used.has(name)), [])
  })

  it("report each kind of breach", () => {
    const breach = (path: string, text: string) =>
      violations(new Map([[path, text], ["layers/Below.ts", ""], ["index.ts", ""]]), declared)
    assert.deepStrictEqual(breach("services/A.ts", `import { a } from "../layers/Below.ts"`), [
      "services/A.ts: imports layers/Below.ts, which is above it"
    ])
    assert.deepStrictEqual(breach("services/A.ts", `export type { a } from "../layers/Gone.ts"`), [
      "services/A.ts: imports ../layers/Gone.ts, which does not exist"
    ])
    assert.deepStrictEqual(breach("cli/start.ts", `import {\n  a,\n  b\n} from "../index.ts"`), [
      "cli/start.ts: imports index.ts; own files are imported directly"
    ])
    assert.deepStrictEqual(breach("layers/A.ts", `import type { Libp2p } from "@libp2p/interface"`), [
      "layers/A.ts: imports @libp2p/interface"
    ])
    assert.deepStrictEqual(breach("layers/TcpListener.ts", `import { tcp } from "@libp2p/tcp"`), [])
    assert.deepStrictEqual(breach("schema/A.ts", `const fs = await import("node:fs")`), [
      "schema/A.ts: imports node:fs"
    ])
    assert.deepStrictEqual(breach("layers/TcpListener.ts", `import "it-length-prefixed"`), [
      "layers/TcpListener.ts: imports it-length-prefixed, which package.json does not name"
    ])
    assert.deepStrictEqual(breach("services/A.ts", `  static readonly layerMemory = 1`), [
      "services/A.ts: carries a layer"
    ])
    assert.deepStrictEqual(breach("layers/A.ts", `setTimeout(() => {}, 1) // Date.now()`), [
      "layers/A.ts: uses setTimeout; time comes from Clock, chance from Random"
    ])
    assert.deepStrictEqual(breach("helpers/A.ts", ""), ["helpers/A.ts: belongs to no floor"])
  })
})

// internal -------------------------------------------------------------------------------------------------------------------------------

function floorOf(path: string): Floor | undefined {
  return floors.find(([pattern]) => pattern.test(path))?.[1]
}

function allowed(path: string, floor: Floor, name: string): boolean {
  return name === "effect" || floor.packages.test(name) || libp2pFiles.has(path)
}

/** The package of a specifier: `effect/testing` is `effect`, `@libp2p/crypto/keys` is `@libp2p/crypto`. */
function packageOf(specifier: string): string {
  return specifier.startsWith("node:")
    ? specifier
    : specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/")
}

function imports(text: string): Set<string> {
  const code = withoutComments(text)
  const lines = [
    /^\s*(?:import|export)\s(?:[^"'`;]*?\sfrom\s+)?"([^"]+)"/gm,
    /\bimport\s*\(\s*"([^"]+)"/g
  ]
  return new Set(lines.flatMap((line) => [...code.matchAll(line)].flatMap((match) => match[1] ?? [])))
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1")
}
