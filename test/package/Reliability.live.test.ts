/**
 * docs/RELIABILITY.md names the spec of each promise. A name that nobody bears any more is a promise without proof.
 */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { scenarios } from "../faults/scenarios.ts"

const root = join(import.meta.dirname, "../..")
const text = readFileSync(join(root, "docs/RELIABILITY.md"), "utf8")
const rows = text.split("\n").filter((line) => /^\| (?!fault )/.test(line))

const proofsOf = (line: string) =>
  [...line.matchAll(/`(test\/[^`]+)` "([^"]+)"/g)].map(([, file = "", name = ""]) => ({ file, name }))

/** Why a proof is none; nothing when it is one. */
const problem = ({ file, name }: { readonly file: string; readonly name: string }): string | undefined => {
  if (!existsSync(join(root, file))) return `${file} does not exist`
  return readFileSync(join(root, file), "utf8").includes(`"${name}"`) ? undefined : `${file} has no "${name}"`
}

describe("docs/RELIABILITY.md", () => {
  it("names a spec that exists for each promise", () => {
    assert.isAbove(rows.length, 25)
    for (const row of rows) assert.isNotEmpty(proofsOf(row), row)
    assert.deepStrictEqual(rows.flatMap(proofsOf).flatMap((proof) => problem(proof) ?? []), [])
  })

  it("has every scenario of test/faults", () => {
    const named = new Set(rows.flatMap(proofsOf).map(({ name }) => name))
    assert.deepStrictEqual(scenarios.map(({ name }) => name).filter((name) => !named.has(name)), [])
  })

  it("is checked: a name or file that is not there is told", () => {
    assert.strictEqual(problem({ file: "test/none.test.ts", name: "x" }), "test/none.test.ts does not exist")
    assert.strictEqual(
      problem({ file: "test/house/rooms.test.ts", name: "no" }),
      "test/house/rooms.test.ts has no \"no\""
    )
  })
})
