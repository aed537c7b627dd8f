/**
 * The source of the library as the specs of this folder read it: as text.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { childrenOf, isNode, type Node, parse } from "./tidy.ts"

const root = join(import.meta.dirname, "../..")

/** The TypeScript files below a folder of the repository, by their path in it. */
const filesBelow = (folder: string): ReadonlyMap<string, string> =>
  new Map(
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .map((path) => path.replaceAll("\\", "/"))
      .filter((path) => path.endsWith(".ts"))
      .sort()
      .map((path) => [path, readFileSync(join(root, folder, path), "utf8")])
  )

export const sourceFiles = (): ReadonlyMap<string, string> => filesBelow("src")

/** The nodes of some code, each before those within it. */
export function* nodesOf(text: string): Generator<Node> {
  const open = [parse("a.ts", text).program]
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    yield node
    open.push(...childrenOf(node).toReversed())
  }
}

/** A node as a problem shows it: its line, and its code up to the end of that line. */
export const shown = (text: string, { end, start }: Node): string =>
  `${text.slice(0, start).split("\n").length}: ${text.slice(start, end).split("\n")[0]}`

/** A file that may do what the house forbids elsewhere. */
export interface Allowed {
  readonly file: string
  readonly because: string
}

/**
 * Holds the source against a list of files that may do something: `forbidden` is where other files do it, `idle` are
 * the files of the list that do not. The simulator in `testing` may do everything.
 */
export const judge = (
  allowed: ReadonlyArray<Allowed>,
  find: (text: string) => ReadonlyArray<string>
): { readonly forbidden: ReadonlyArray<string>; readonly idle: ReadonlyArray<string> } => {
  const found = [...sourceFiles()].filter(([path]) => !path.startsWith("testing/")).map(([path, text]) => ({
    path,
    uses: find(text)
  }))
  return {
    forbidden: found.flatMap(({ path, uses }) =>
      allowed.some(({ file }) => file === path) ? [] : uses.map((use) => `src/${path}:${use}`)
    ),
    idle: allowed.map(({ file }) => file).filter((file) =>
      !found.some(({ path, uses }) => path === file && uses.length > 0)
    )
  }
}

/** What a file imports or exports from elsewhere, in types, too. A specifier that is computed stands as its code. */
export const importsOf = (text: string): ReadonlySet<string> => {
  const known = imports.get(text)
  if (known !== undefined) return known
  const found = new Set<string>()
  imports.set(text, found)
  for (const node of nodesOf(text)) {
    const source = isModuleReference(node) ? node["source"] ?? node["expression"] : undefined
    if (isNode(source)) found.add(specifierOf(source, text))
  }
  return found
}

export const withoutComments = (text: string): string => {
  let code = ""
  let from = 0
  for (const { end, start } of parse("a.ts", text).comments) {
    code += text.slice(from, start)
    from = end
  }
  return code + text.slice(from)
}

/** The code without its comments, and without the words in texts and templates; what a template computes stays. */
export const withoutTexts = (text: string): string => {
  const parts: Array<{ readonly start: number; readonly end: number }> = [...parse("a.ts", text).comments]
  for (const node of nodesOf(text)) {
    const isText = node.type === "TemplateElement" || (node.type === "Literal" && typeof node["value"] === "string")
    if (isText) parts.push(node)
  }
  let code = ""
  let from = 0
  for (const { end, start } of parts.sort((a, b) => a.start - b.start)) {
    code += `${text.slice(from, start)} `
    from = end
  }
  return code + text.slice(from)
}

/** The circles of a graph, each as the names that lie on it, in order of their names. */
export const circles = (
  edges: ReadonlyArray<readonly [from: string, to: string]>
): ReadonlyArray<ReadonlyArray<string>> => {
  const next = new Map<string, Set<string>>()
  for (const [from, to] of edges) if (from !== to) next.set(from, (next.get(from) ?? new Set()).add(to))
  const reach = (from: string): ReadonlySet<string> => {
    const seen = new Set<string>()
    const queue = [...next.get(from) ?? []]
    for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
      if (seen.has(name)) continue
      seen.add(name)
      queue.push(...next.get(name) ?? [])
    }
    return seen
  }
  const reached = new Map([...next.keys()].map((name) => [name, reach(name)]))
  const found = [...reached].filter(([name, names]) => names.has(name)).map(([name, names]) =>
    [...names].filter((other) => reached.get(other)?.has(name) === true).sort()
  )
  return [...new Map(found.map((names) => [names.join(), names])).values()]
}

// internal ------------------------------------------------------------------------------------------------------------

/** Kept by text, since every rule asks for them. */
const imports = new Map<string, ReadonlySet<string>>()

function isModuleReference({ type }: Node): boolean {
  return /^(Import(Declaration|Expression)|Export(Named|All)Declaration|TSImportType|TSExternalModuleReference)$/
    .test(type)
}

function specifierOf(source: Node, text: string): string {
  const { quasis, value } = source
  if (typeof value === "string") return value
  const [only, ...others] = Array.isArray(quasis) ? quasis : []
  return only !== undefined && others.length === 0 ? only.value.cooked : text.slice(source.start, source.end)
}
