/**
 * docs/INTEROP.md shows code of the interop suite's peers, as they are compiled.
 */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")
const read = (path: string) => readFileSync(join(root, path), "utf8")

/** The lines between `// --8<-- <name>` and the next such mark, without the indentation that all share. */
const region = (path: string, name: string): string => {
  const lines = read(path).split("\n")
  const isMark = (line: string) => line.trim().startsWith("// --8<--")
  const start = lines.findIndex((line) => line.trim() === `// --8<-- ${name}`) + 1
  const length = lines.slice(start).findIndex(isMark)
  if (start === 0 || length < 0) return ""
  const found = lines.slice(start, start + length)
  const indents = found.filter((line) => line.trim() !== "").map((line) => line.length - line.trimStart().length)
  return found.map((line) => line.slice(Math.min(...indents))).join("\n").trim()
}

describe("docs/INTEROP.md", () => {
  const blocks = [
    ...read("docs/INTEROP.md").matchAll(/<!-- (\S+): (\S+) -->\n\n```\w+\n([\s\S]*?)\n```/g)
  ].map(([, path = "", name = "", code = ""]) => ({ path, name, code }))

  it("shows only code that the peers are made of", () => {
    assert.isAbove(blocks.length, 8)
    for (const { code, name, path } of blocks) assert.strictEqual(code.trim(), region(path, name), `${path}: ${name}`)
  })

  it("shows no code of Rust or Go that is not checked", () => {
    const all = [...read("docs/INTEROP.md").matchAll(/```(rust|go)\n/g)]
    assert.strictEqual(all.length, blocks.length)
  })
})
