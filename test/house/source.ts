/**
 * The source of the library as the specs of this folder read it: as text.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

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

/** What a file imports or exports from elsewhere. */
export const importsOf = (text: string): ReadonlySet<string> => {
  const code = withoutComments(text)
  const lines = [
    /^\s*(?:import|export)\s(?:[^"'`;]*?\sfrom\s+)?"([^"]+)"/gm,
    /\bimport\s*\(\s*"([^"]+)"/g
  ]
  return new Set(lines.flatMap((line) => [...code.matchAll(line)].flatMap((match) => match[1] ?? [])))
}

export const withoutComments = (text: string): string =>
  text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1")

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
