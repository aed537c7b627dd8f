/**
 * docs/POLICIES.md is what the policies are.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { file, render } from "../../scripts/policies.ts"

const root = join(import.meta.dirname, "../..")

describe("docs/POLICIES.md", () => {
  it.effect("is drawn from the policies as they are; `npm run docs:policies` writes it", () =>
    Effect.gen(function*() {
      assert.strictEqual(readFileSync(file, "utf8"), yield* render)
    }))

  it("names specs that exist", () => {
    const specs = [...readFileSync(file, "utf8").matchAll(/`(test\/[^`]+)`(?:, "([^"]+)")?/g)]
    assert.isAtLeast(specs.length, 5)
    for (const [, path, name] of specs) {
      const text = readFileSync(join(root, path!), "utf8")
      if (name !== undefined) assert.include(text, `"${name}"`, path)
    }
  })
})
