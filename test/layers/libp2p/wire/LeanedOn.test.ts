import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as LeanedOn from "../../../../src/layers/libp2p/wire/LeanedOn.ts"
import { HostError } from "../../../../src/schema/NetworkError.ts"

const read = (name: string) => JSON.parse(readFileSync(join(import.meta.dirname, "../../../..", name), "utf8"))

/** What is thrown. */
const failure = (body: () => void): unknown => {
  try {
    body()
    return undefined
  } catch (cause) {
    return cause
  }
}

describe("the packages of which private members are used", () => {
  it("are those, and only those, that package.json pins exactly", () => {
    const declared = Object.entries<string>(read("package.json").dependencies)
    assert.deepStrictEqual(
      Object.fromEntries(declared.filter(([, range]) => /^\d/.test(range))),
      LeanedOn.versions
    )
  })

  it("are installed in that version", () => {
    const { packages } = read("package-lock.json")
    const names = Object.keys(LeanedOn.versions)
    assert.deepStrictEqual(
      Object.fromEntries(names.map((name) => [name, packages[`node_modules/${name}`].version])),
      LeanedOn.versions
    )
  })
})

describe("a member", () => {
  const object = { table: { size: 20, kb: null, find: () => 1 } }

  it("of the expected kind is let pass, at any depth", () => {
    LeanedOn.assertMembers("@libp2p/kad-dht", object, {
      table: "object",
      "table.size": "number",
      "table.find": "function"
    })
  })

  for (
    const [path, found] of [
      ["table.kb", "null"],
      ["table.gone", "undefined"],
      ["table.kb.size", "undefined"],
      ["gone.size", "undefined"],
      ["table.size", "number"]
    ] as const
  ) {
    it(`that is ${found} at ${path} is named, with its package and version`, () => {
      const thrown = failure(() => LeanedOn.assertMember("@libp2p/kad-dht", object, path, "function"))
      assert.instanceOf(thrown, HostError)
      assert.strictEqual(
        (thrown as HostError).message,
        `@libp2p/kad-dht: this is not version ${
          LeanedOn.versions["@libp2p/kad-dht"]
        }: its private member ${path} is ${found} ` +
          `where function is expected; install exactly @libp2p/kad-dht@${LeanedOn.versions["@libp2p/kad-dht"]}`
      )
    })
  }
})
