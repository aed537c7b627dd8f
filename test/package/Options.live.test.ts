/**
 * An option is named once: in its table. docs/OPTIONS.md and all else are what the table is.
 */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { file, render, renderSchema, schemaFile } from "../../scripts/options.ts"
import { names } from "../../src/schema/NetworkOptions.ts"

const root = join(import.meta.dirname, "../..")

describe("docs/OPTIONS.md", () => {
  it("is written from the tables of options and their comments; `npm run docs:options` writes it", () => {
    assert.strictEqual(readFileSync(file, "utf8"), render())
  })
})

describe("docs/options.schema.json", () => {
  it("is written from the tables of options; `npm run docs:options` writes it", () => {
    assert.strictEqual(readFileSync(schemaFile, "utf8"), renderSchema())
  })
})

describe("the table of options", () => {
  it("is the one list of them in the sources and the documentation", () => {
    const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((path) =>
      path.endsWith(".ts")
    )
    const pages = readdirSync(join(root, "docs")).filter((path) => path.endsWith(".md"))
    const files = [...sources.map((path) => `src/${path}`), ...pages.map((path) => `docs/${path}`), "README.md"]
    const lists = files.filter((path) => {
      const text = readFileSync(join(root, path), "utf8")
      // Who uses some options names them, and some are plain words; who names half of them has a list.
      return names.filter((name) => new RegExp(`\\b${name}\\b`).test(text)).length > names.length / 2
    })
    assert.deepStrictEqual(lists.sort(), ["docs/OPTIONS.md", "src/schema/NetworkOptions.ts"])
  })
})
