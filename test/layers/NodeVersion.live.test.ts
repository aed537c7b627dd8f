import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { problemOf } from "../../src/layers/NodeVersion.ts"

/** Loads an entry of the package in a Node that says it has another version; what it fails with, as it is printed. */
const loading = Effect.fnUntraced(function*(entry: string, version: string) {
  const faked = `Object.defineProperty(process.versions, "node", { value: "${version}" })`
  const url = new URL(`../../src/${entry}`, import.meta.url).href
  const script = `await import("${url}").then(() => console.log("loaded"), (error) => console.log(error.stack))`
  const { stdout } = yield* Effect.promise(() =>
    promisify(execFile)(process.execPath, [
      `--import=data:text/javascript,${encodeURIComponent(faked)}`,
      "--input-type=module",
      "-e",
      script
    ])
  )
  return stdout
})

describe("an older Node", () => {
  it("is one before 22.19", () => {
    const versions = ["18.20.0", "20.20.2", "22.18.0", "22.19.0", "23.0.0", "24.1.0"]
    assert.deepStrictEqual(versions.filter((version) => problemOf(version) === undefined), versions.slice(3))
  })

  it.live("fails in one line, whichever entry of the package it loads", () =>
    Effect.gen(function*() {
      for (const entry of ["index.ts", "layers/index.ts", "testing/index.ts"]) {
        assert.strictEqual(
          yield* loading(entry, "22.18.0"),
          "codio-network: Node 22.19 or newer is needed, this is 22.18.0\n",
          entry
        )
      }
      assert.strictEqual(yield* loading("index.ts", "22.19.0"), "loaded\n")
    }))
})
