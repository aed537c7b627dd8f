/**
 * The rules of tidiness: each finds the problems in the files of the repository, one line a problem. `tidy.test.ts`
 * holds the house to them, and `npm run tidy` prints what they find.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join, posix } from "node:path"
import { parseSync } from "rolldown/utils"

/** Texts by their path in the repository. */
export type Files = ReadonlyMap<string, string>

export interface Rule {
  readonly name: string
  /** How many problems there may be, until all areas are clean. It only falls. */
  readonly allowed: number
  readonly problems: (files: Files) => ReadonlyArray<string>
}

export const rules: ReadonlyArray<Rule> = [
  {
    name: "a function has at most 120 lines, make at most 250",
    allowed: 0,
    problems: (files) => longFunctions(files)
  },
  { name: "a line of a comment has at most 120 columns", allowed: 0, problems: (files) => wideComments(files) },
  { name: "what a file exports is used elsewhere", allowed: 0, problems: (files) => unusedExports(files) },
  { name: "words say what they mean", allowed: 0, problems: (files) => bannedWords(files) },
  {
    name: "a spec has a name of its own, in a folder that mirrors src",
    allowed: 0,
    problems: (files) => lostSpecs(files)
  }
]

/** The files that the rules read: code and documents. */
export const readFiles = (): Files => {
  const root = join(import.meta.dirname, "../..")
  const files = new Map<string, string>()
  const visit = (folder: string): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = posix.join(folder, entry.name)
      if (entry.isDirectory()) {
        if (!/^(target|node_modules|\..*)$/.test(entry.name)) visit(path)
      } else if (/\.(ts|mjs|md)$/.test(entry.name)) files.set(path, readFileSync(join(root, path), "utf8"))
    }
  }
  for (const folder of ["src", "test", "bench", "scripts", "examples", "docs"]) visit(folder)
  for (const entry of readdirSync(root)) {
    if (entry.endsWith(".md")) files.set(entry, readFileSync(join(root, entry), "utf8"))
  }
  return files
}

/**
 * A function that registers specs is a table of contents and may be of any length; its specs are functions of their
 * own.
 */
export const longFunctions = (files: Files): ReadonlyArray<string> =>
  [...files].filter(([path]) => isCode(path)).flatMap(([path, text]) => {
    const found: Array<string> = []
    const lineAt = linesOf(text)
    const visit = (node: Node, name: string | undefined): void => {
      const own = nameOf(node) ?? name
      if (isFunction(node)) {
        const [first, last] = [lineAt(node.start), lineAt(node.end)]
        const [lines, limit] = [last - first + 1, own === "make" ? 250 : 120]
        const isContents = path.startsWith("test/") && registersSpecs(node)
        if (lines > limit && !isContents) {
          found.push(`${path}:${first}: ${own ?? "a function"} has ${lines} lines, at most ${limit} are allowed`)
        }
      }
      for (const child of childrenOf(node)) visit(child, isFunction(node) ? undefined : own)
    }
    visit(parse(path, text).program, undefined)
    return found
  })

export const wideComments = (files: Files): ReadonlyArray<string> =>
  [...files].filter(([path]) => isCode(path)).flatMap(([path, text]) =>
    commentLines(path, text).filter(({ line }) => line.length > 120)
      .map(({ line, number }) => `${path}:${number}: ${line.length} columns`)
  )

/**
 * An export is used when an entry point exports it, or when another file of src, test, bench or examples imports it; so
 * one that only specs use counts as used. A type is used, too, when another export of its file names it: users of that
 * export may have to name the type.
 */
export const unusedExports = (files: Files): ReadonlyArray<string> => {
  const code = [...files].filter(([path]) => isCode(path))
  const used = new Set<string>()
  const entries = ["src/index.ts", "src/layers/index.ts", "src/testing/index.ts"]
  const published = new Set<string>()
  const publish = (path: string): void => {
    if (published.has(path)) return
    published.add(path)
    for (const node of bodyOf(path, files.get(path) ?? "")) {
      if (node.type === "ExportAllDeclaration") publish(posix.join(posix.dirname(path), sourceOf(node) ?? ""))
    }
  }
  entries.forEach(publish)
  for (const [path, text] of code) {
    for (const { file, name } of usesOf(path, text)) used.add(`${file} ${name}`)
  }
  return code.filter(([path]) => /^(src|test|bench)\//.test(path)).flatMap(([path, text]) => {
    if (published.has(path) || used.has(`${path} *`) || used.has(`${posix.dirname(path)}/ *`)) return []
    const exported = exportsOf(path, text)
    return exported.filter(({ isType, name, node }) =>
      !used.has(`${path} ${name}`) &&
      !(isType &&
        exported.some((other) => other.node !== node && mentions(text.slice(other.node.start, other.node.end), name)))
    ).map(({ name, node }) => `${path}:${linesOf(text)(node.start)}: nobody uses ${name}`)
  })
}

/** Words that make a reader stop, each with better ones. Prose is comments and documents. */
const words: ReadonlyArray<{
  readonly pattern: RegExp
  readonly better: string
  readonly within: "everything" | "prose" | "comments"
}> = [
  {
    pattern: /(?<!\b(?:take|takes|took|taken|taking) )(?:(?<![A-Za-z])[Pp]laces?|(?<=[a-z])Places?)(?![a-z])/,
    better: "slot (of the peer table), address, position (in the keyspace), reservation (on a relay), index",
    within: "everything"
  },
  { pattern: /\bIPv6 clothes\b/, better: "IPv4-mapped", within: "prose" },
  { pattern: /\b[Tt]hat of\b/, better: "the noun again", within: "prose" },
  { pattern: /\b[Ww]hat is of\b/, better: "the noun that is meant", within: "prose" },
  { pattern: /\b[Ww]ho has\b/, better: "the peer, the node or the caller that has", within: "comments" }
]

/** The files that list the words are left out, and the changelog, which names what is gone. */
export const bannedWords = (files: Files): ReadonlyArray<string> =>
  [...files].filter(([path]) => !/^(test\/house\/tidy|CHANGELOG)/.test(path)).flatMap(([path, text]) => {
    const everything = text.split("\n").map((line, index) => ({ line, number: index + 1 }))
    const comments = isCode(path) ? commentLines(path, text) : []
    const lines = { everything, comments, prose: isCode(path) ? comments : everything }
    return words.flatMap(({ better, pattern, within }) =>
      lines[within].flatMap(({ line, number }) => {
        const word = pattern.exec(line)
        return word === null ? [] : [`${path}:${number}: "${word[0]}"; better: ${better}`]
      })
    )
  })

/** Folders of test whose specs are stories, or are about something else than a folder of src or bench. */
const stories = ["contract", "faults", "heavy/dht", "house", "interop", "live", "package", "sim", "support"]

export const lostSpecs = (files: Files): ReadonlyArray<string> => {
  const specs = [...files.keys()].filter((path) => /^test\/.*\.test\.ts$/.test(path))
  const folders = new Set([...files.keys()].map((path) => posix.dirname(path)))
  const mirrors = (folder: string) =>
    stories.includes(folder) || folders.has(`src/${folder}`) || (folder.startsWith("bench/") && folders.has(folder))
  return specs.flatMap((path) => {
    const folder = posix.dirname(path).replace(/^test\/?/, "")
    const twin = specs.find((other) => other !== path && posix.basename(other) === posix.basename(path))
    return [
      ...twin === undefined ? [] : [`${path}: has the name of ${twin}`],
      ...mirrors(folder) ? [] : [`${path}: there is no folder src/${folder}`]
    ]
  })
}

// internal ------------------------------------------------------------------------------------------------------------

export interface Node {
  readonly type: string
  readonly start: number
  readonly end: number
  readonly [field: string]: unknown
}

interface Parsed {
  readonly program: Node
  readonly comments: ReadonlyArray<{ readonly start: number; readonly end: number }>
}

/** Kept, since several rules read each file. */
const parsed = new Map<string, Parsed & { readonly text: string }>()

export function parse(path: string, text: string): Parsed {
  const known = parsed.get(path)
  if (known?.text === text) return known
  const { comments, errors, program } = parseSync(path, text)
  if (errors[0] !== undefined) throw new Error(`${path}: ${errors[0].message}`)
  const result = { program: program as unknown as Node, comments, text }
  parsed.set(path, result)
  return result
}

function isCode(path: string): boolean {
  return /\.(ts|mjs)$/.test(path)
}

export function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && "type" in value && "start" in value
}

export function childrenOf(node: Node): ReadonlyArray<Node> {
  return Object.values(node).flatMap((value) =>
    Array.isArray(value) ? value.filter(isNode) : isNode(value) ? [value] : []
  )
}

function isFunction({ type }: Node): boolean {
  return type === "FunctionDeclaration" || type === "FunctionExpression" || type === "ArrowFunctionExpression"
}

/** Whether there is a call of `describe`, `it` and the like in a node, as in `it.effect.each(cases)(name, run)`. */
function registersSpecs(node: Node): boolean {
  const { callee } = node
  if (node.type === "CallExpression" && isNode(callee)) {
    let called: Node = callee
    for (let next = inner(called); next !== undefined; next = inner(called)) called = next
    if (/^(describe|it|check|property)$/.test(String(called["name"]))) return true
  }
  return childrenOf(node).some(registersSpecs)
}

function inner(node: Node): Node | undefined {
  const next = node["object"] ?? node["callee"]
  return isNode(next) ? next : undefined
}

/** The name that a declaration or a property gives to what it holds. */
function nameOf(node: Node): string | undefined {
  const holder = node["id"] ?? node["key"]
  return isNode(holder) && typeof holder["name"] === "string" ? holder["name"] : undefined
}

/** Gives the number of the line at an offset. */
function linesOf(text: string): (offset: number) => number {
  return (offset) => text.slice(0, offset).split("\n").length
}

/** The lines on which there is a comment, each whole. */
function commentLines(path: string, text: string): ReadonlyArray<{ readonly line: string; readonly number: number }> {
  const lineAt = linesOf(text)
  const lines = text.split("\n")
  const numbers = new Set(
    parse(path, text).comments.flatMap(({ end, start }) => {
      const [first, last] = [lineAt(start), lineAt(end)]
      return Array.from({ length: last - first + 1 }, (_, index) => first + index)
    })
  )
  return [...numbers].map((number) => ({ line: lines[number - 1] ?? "", number }))
}

function bodyOf(path: string, text: string): ReadonlyArray<Node> {
  return parse(path, text).program["body"] as ReadonlyArray<Node>
}

function sourceOf(node: Node): string | undefined {
  const { source } = node
  return isNode(source) && typeof source["value"] === "string" && source["value"].startsWith(".")
    ? source["value"]
    : undefined
}

interface Exported {
  readonly name: string
  readonly isType: boolean
  readonly node: Node
}

function exportsOf(path: string, text: string): ReadonlyArray<Exported> {
  return bodyOf(path, text).flatMap((node): ReadonlyArray<Exported> => {
    const { declaration } = node
    // The configuration of a tool is read by the tool.
    if (node.type === "ExportDefaultDeclaration") {
      return path.endsWith(".config.ts") ? [] : [{ name: "default", isType: false, node }]
    }
    if (node.type !== "ExportNamedDeclaration") return []
    if (!isNode(declaration)) {
      return (node["specifiers"] as ReadonlyArray<Node>).flatMap((specifier) => {
        const { exported, exportKind } = specifier
        const name = isNode(exported) ? exported["name"] : undefined
        const isType = node["exportKind"] === "type" || exportKind === "type"
        return typeof name === "string" ? [{ name, isType, node }] : []
      })
    }
    const isType = /^TS(Interface|TypeAlias)Declaration$/.test(declaration.type)
    const declared = declaration["declarations"]
    return (Array.isArray(declared) ? declared.filter(isNode) : [declaration]).flatMap((each) => {
      const name = nameOf(each)
      return name === undefined ? [] : [{ name, isType, node }]
    })
  })
}

function mentions(text: string, name: string): boolean {
  return new RegExp(`\\b${name}\\b`).test(text)
}

/** What a file takes from other files; `*` stands for everything. */
function usesOf(path: string, text: string): ReadonlyArray<{ readonly file: string; readonly name: string }> {
  const found = bodyOf(path, text).flatMap((node) => {
    const source = sourceOf(node)
    if (source === undefined || node.type === "ExportAllDeclaration") return []
    const file = posix.join(posix.dirname(path), source)
    return (node["specifiers"] as ReadonlyArray<Node> | undefined ?? []).flatMap((specifier) => {
      if (specifier.type === "ImportNamespaceSpecifier") {
        return membersOf(text, specifier).map((name) => ({ file, name }))
      }
      if (specifier.type === "ImportDefaultSpecifier") return [{ file, name: "default" }]
      const named = specifier["imported"] ?? specifier["local"]
      return isNode(named) && typeof named["name"] === "string" ? [{ file, name: named["name"] }] : []
    })
  })
  // Of a template the folder is known, so that all of its files count as used.
  const whole = [...text.matchAll(/\bimport\(\s*["`](\.[^"`$]*)/g)].map(([, source]) => ({
    file: posix.join(posix.dirname(path), source!),
    name: "*"
  }))
  return [...found, ...whole]
}

/** The members of a namespace that a file names; all of them where it hands the namespace on. */
function membersOf(text: string, specifier: Node): ReadonlyArray<string> {
  const name = nameOf({ ...specifier, id: specifier["local"] }) ?? ""
  const rest = text.slice(0, specifier.start) + text.slice(specifier.end)
  const isHandedOn = new RegExp(`[(,.{\\[=:]\\s*${name}\\s*[),}\\]]|typeof ${name}\\b(?!\\.)`).test(rest)
  return isHandedOn ? ["*"] : [...rest.matchAll(new RegExp(`\\b${name}\\.(\\w+)`, "g"))].map(([, member]) => member!)
}
