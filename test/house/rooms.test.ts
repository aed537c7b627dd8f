/**
 * The rooms of the library, read from its import lines, against the table in `rooms.ts`.
 */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join, posix } from "node:path"
import { allowances, type Room, rooms } from "./rooms.ts"
import { circles, importsOf, sourceFiles, withoutTexts } from "./source.ts"

/**
 * A layer in the file of a service would hide which implementation a program has chosen. The layers of these files need
 * no other service.
 */
const servicesWithLayer = new Set(["services/Discovery.ts", "services/NetworkConfig.ts", "services/NetworkEvents.ts"])

const isLibp2p = (name: string) => /^(libp2p|@libp2p\/.+|@chainsafe\/.+)$/.test(name)

/** The rules that a tree of source files, by path below src, breaks: one line each. */
const violations = (files: ReadonlyMap<string, string>, declared: ReadonlySet<string>): ReadonlyArray<string> =>
  [...files].flatMap(([path, text]) => {
    const room = roomOf(path)
    if (room === undefined) return [`${path}: its folder has no row in the table of rooms`]
    const code = withoutTexts(text)
    const imports = [...importsOf(text)]
    return [
      ...imports.flatMap((specifier) =>
        specifier.startsWith(".")
          ? ownImport(path, room, posix.join(posix.dirname(path), specifier), files)
          : packageImport(path, room, packageOf(specifier), declared)
      ),
      ...path.startsWith("services/") && !servicesWithLayer.has(path) && /\b(?:const|readonly) layer\w*\b/.test(code)
        ? [`${path}: carries a layer`]
        : [],
      ...knowsRealTime(path, imports)
        ? []
        : realTime(code).filter((word) => !isAllowed(path, word)).map((word) =>
          `${path}: uses ${word}; time comes from Clock, chance from Random`
        ),
      ...hiddenImports(code).filter((word) => !isAllowed(path, word)).map((word) =>
        `${path}: uses ${word}; modules are imported`
      )
    ]
  })

describe("the rooms", () => {
  const manifest: Record<string, unknown> = JSON.parse(
    readFileSync(join(import.meta.dirname, "../../package.json"), "utf8")
  )
  const declared = new Set(["dependencies", "peerDependencies"].flatMap((field) => Object.keys(manifest[field] ?? {})))
  const files = sourceFiles()

  it("keep their law", () => {
    assert.isAbove(files.size, 20)
    assert.deepStrictEqual(violations(files, declared), [])
  })

  it("have no circle, of files or of folders", () => {
    // An index lists a room from outside.
    const inner = [...files].filter(([path]) => !isIndex(path))
    const edges = inner.flatMap(([path, text]) =>
      [...importsOf(text)].filter((specifier) => specifier.startsWith(".")).map((specifier) =>
        [path, posix.join(posix.dirname(path), specifier)] as const
      )
    )
    assert.deepStrictEqual(circles(edges), [])
    assert.deepStrictEqual(circles(edges.map(([from, to]) => [posix.dirname(from), posix.dirname(to)] as const)), [])
  })

  it("use everything that the table allows them", () => {
    const unused = rooms.flatMap((room) => {
      const own = [...files].filter(([path]) => posix.dirname(path) === room.folder)
      const used = new Set(
        own.flatMap(([path, text]) => [...importsOf(text)].map((specifier) => targetOf(path, specifier)))
      )
      const names = [...room.rooms.filter((name) => !shared.has(name)), ...room.libp2p, ...room.packages]
      return [
        ...names.filter((name) => !used.has(name) && !name.endsWith("*")).map((name) => `${room.folder}: ${name}`),
        ...(room.exceptions ?? []).filter((exception) =>
          !own.some(([path, text]) =>
            posix.basename(path) === exception.file &&
            [...importsOf(text)].some((specifier) => targetOf(path, specifier) === exception.imports)
          )
        ).map(({ file, imports }) => `${room.folder}: ${file}, ${imports}`)
      ]
    })
    assert.deepStrictEqual(unused, [])
  })

  it("use every dependency that package.json names", () => {
    const used = new Set([...files.values()].flatMap((text) => [...importsOf(text)].map(packageOf)))
    assert.deepStrictEqual([...declared].filter((name) => !used.has(name)), [])
  })

  it("use every allowance", () => {
    const unused = allowances.filter(({ file, words }) => {
      const code = withoutTexts(files.get(file) ?? "")
      return !words.every((word) => [...realTime(code), ...hiddenImports(code)].includes(word))
    })
    assert.deepStrictEqual(unused, [])
  })

  it("are read as the compiler reads them, texts and comments apart", () => {
    const specifiers = [
      "import a, { b } from 'a'",
      "import 'b'",
      "export * as c from \"c\"",
      "const d = await import(`d`)",
      "const e = import(`e/${b}`)",
      "type F = import(\"f\").F",
      "import g = require(\"g\")",
      "const h = \"/*\"; import \"h\"; const i = \"*/\"",
      "// import \"j\"",
      "const k = `import \"k\"`"
    ]
    assert.deepStrictEqual([...importsOf(specifiers.join("\n"))], ["a", "b", "c", "d", "`e/${b}`", "f", "g", "h"])
    assert.strictEqual(withoutTexts("a(\"b /* c\", d) // e\nf(`g ${h}`)").replace(/\s/g, ""), "a(,d)f(h)")
  })

  it("report each kind of breach", () => {
    const others: ReadonlyArray<readonly [string, string]> = [
      ["layers/peers/Below.ts", ""],
      ["layers/libp2p/Host.ts", ""],
      ["index.ts", ""]
    ]
    const breach = (path: string, text: string) => violations(new Map([[path, text], ...others]), declared)
    assert.deepStrictEqual(breach("services/A.ts", `import { a } from "../layers/peers/Below.ts"`), [
      "services/A.ts: imports layers/peers/Below.ts; services may import schema"
    ])
    assert.deepStrictEqual(breach("layers/codio/A.ts", `import { a } from "../peers/Below.ts"`), [
      "layers/codio/A.ts: imports layers/peers/Below.ts; layers/codio may import schema, services, layers"
    ])
    assert.deepStrictEqual(breach("layers/peers/A.ts", `import { a } from "../libp2p/Host.ts"`), [
      "layers/peers/A.ts: imports layers/libp2p/Host.ts; layers/peers may import schema, services, layers"
    ])
    assert.deepStrictEqual(breach("services/A.ts", `export type { a } from "../layers/Gone.ts"`), [
      "services/A.ts: imports layers/Gone.ts, which does not exist"
    ])
    assert.deepStrictEqual(breach("cli/start.ts", `import {\n  a,\n  b\n} from "../index.ts"`), [
      "cli/start.ts: imports index.ts; own files are imported directly"
    ])
    assert.deepStrictEqual(breach("layers/codio/A.ts", `import type { Libp2p } from "@libp2p/interface"`), [
      "layers/codio/A.ts: imports @libp2p/interface"
    ])
    assert.deepStrictEqual(
      breach("layers/libp2p/wire/Tcp.ts", `import { tcp } from "@libp2p/tcp"\nsetTimeout(f, 1)`),
      []
    )
    assert.deepStrictEqual(breach("schema/A.ts", `const fs = await import("node:fs")`), [
      "schema/A.ts: imports node:fs"
    ])
    assert.deepStrictEqual(breach("layers/libp2p/A.ts", `import "it-length-prefixed"`), [
      "layers/libp2p/A.ts: imports it-length-prefixed, which package.json does not name",
      "layers/libp2p/A.ts: imports it-length-prefixed"
    ])
    assert.deepStrictEqual(breach("services/A.ts", `class A {\n  static readonly layerMemory = 1\n}`), [
      "services/A.ts: carries a layer"
    ])
    assert.deepStrictEqual(breach("layers/libp2p/A.ts", `setTimeout(() => {}, 1) // Date.now()`), [
      "layers/libp2p/A.ts: uses setTimeout; time comes from Clock, chance from Random"
    ])
    for (const word of ["setImmediate", "Date.now", "performance", "Math.random"]) {
      assert.deepStrictEqual(breach("services/A.ts", `const now = [${word}]\nconst text = "${word}"`), [
        `services/A.ts: uses ${word}; time comes from Clock, chance from Random`
      ])
    }
    for (const word of ["createRequire", "getBuiltinModule"]) {
      assert.deepStrictEqual(breach("layers/machine/A.ts", `process.${word}("node:net") // ${word}`), [
        `layers/machine/A.ts: uses ${word}; modules are imported`
      ])
    }
    assert.deepStrictEqual(breach("helpers/A.ts", ""), ["helpers/A.ts: its folder has no row in the table of rooms"])
  })
})

// internal ------------------------------------------------------------------------------------------------------------

/** The folders that nearly every folder may import. */
const shared = new Set(["schema", "services", "layers"])

function roomOf(path: string): Room | undefined {
  return rooms.find(({ folder }) => folder === posix.dirname(path))
}

function isIndex(path: string): boolean {
  return posix.basename(path) === "index.ts"
}

function ownImport(
  path: string,
  room: Room,
  target: string,
  files: ReadonlyMap<string, string>
): ReadonlyArray<string> {
  if (!files.has(target)) return [`${path}: imports ${target}, which does not exist`]
  // An index lists files of any folder for its importers.
  if (isIndex(path)) return []
  if (isIndex(target)) return [`${path}: imports ${target}; own files are imported directly`]
  const folder = posix.dirname(target)
  if (folder === room.folder || room.rooms.includes(folder) || isException(path, room, folder)) return []
  return [`${path}: imports ${target}; ${room.folder} may import ${room.rooms.join(", ")}`]
}

function packageImport(path: string, room: Room, name: string, declared: ReadonlySet<string>): ReadonlyArray<string> {
  const isNamed = [...room.libp2p, ...room.packages].includes(name) ||
    (name.startsWith("node:") && room.packages.includes("node:*"))
  return [
    ...name.startsWith("node:") || declared.has(name)
      ? []
      : [`${path}: imports ${name}, which package.json does not name`],
    ...name === "effect" || isNamed || isException(path, room, name) ? [] : [`${path}: imports ${name}`]
  ]
}

function isException(path: string, room: Room, imports: string): boolean {
  return room.exceptions?.some((exception) =>
    exception.file === posix.basename(path) && exception.imports === imports
  ) === true
}

function knowsRealTime(path: string, imports: ReadonlyArray<string>): boolean {
  return path.startsWith("cli/") || imports.some((specifier) => isLibp2p(packageOf(specifier)))
}

function realTime(code: string): ReadonlyArray<string> {
  const words = /\b(?:setTimeout|setInterval|setImmediate|Date\.now|new Date|Math\.random|performance|hrtime)\b/g
  return [...code.matchAll(words)].map(([word]) => word)
}

function hiddenImports(code: string): ReadonlyArray<string> {
  return [...code.matchAll(/\b(?:createRequire|getBuiltinModule|require(?=\s*\())\b/g)].map(([word]) => word)
}

function isAllowed(path: string, word: string): boolean {
  return allowances.some(({ file, words }) => file === path && words.includes(word))
}

/** The folder of an own file that is imported, or the package. */
function targetOf(path: string, specifier: string): string {
  return specifier.startsWith(".")
    ? posix.dirname(posix.join(posix.dirname(path), specifier))
    : packageOf(specifier)
}

/** The package of a specifier: `effect/testing` is `effect`, `@libp2p/crypto/keys` is `@libp2p/crypto`. */
function packageOf(specifier: string): string {
  return specifier.startsWith("node:")
    ? specifier
    : specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/")
}
