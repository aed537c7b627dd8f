/** Whoever moves code moves its mutants: each of them still names one spot of a file, and specs that are there. */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { mutants } from "../mutants/index.ts"

const root = join(import.meta.dirname, "../..")

describe("each mutant", () => {
  it("changes text that stands exactly once in its file", () => {
    const wrong = mutants.flatMap(({ file, name, replacement, text }) => {
      const times = existsSync(join(root, file)) ? readFileSync(join(root, file), "utf8").split(text).length - 1 : 0
      return times === 1 && text !== replacement ? [] : [`${name}: ${times} times in ${file}`]
    })
    assert.deepStrictEqual(wrong, [])
  })

  it("names specs that are there", () => {
    const gone = mutants.flatMap(({ name, specs }) =>
      specs.filter((spec) => !spec.endsWith(".test.ts") || !existsSync(join(root, spec))).map((spec) =>
        `${name}: ${spec}`
      )
    )
    assert.deepStrictEqual(gone, [])
  })

  it("runs one spec of them alone only when they have it", () => {
    const contracts = globSync("test/contract/*.ts", { cwd: root })
    const gone = mutants.flatMap(({ name, only, specs }) =>
      only === undefined ||
        [...specs, ...contracts].some((file) => readFileSync(join(root, file), "utf8").includes(only))
        ? [] :
        [name]
    )
    assert.deepStrictEqual(gone, [])
  })

  it("has a name of its own", () => {
    const names = mutants.map(({ name }) => name)
    assert.deepStrictEqual(names.filter((name, at) => names.indexOf(name) !== at), [])
  })
})
