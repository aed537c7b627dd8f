import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"

interface Report {
  readonly pairs: number
  readonly faults: ReadonlyArray<string>
  readonly handles: ReadonlyArray<string>
  readonly growthBytes: number
}

const run = (pairs: number) =>
  Effect.callback<Report, Error>((resume) => {
    const program = fileURLToPath(new URL("../support/lifecycle.ts", import.meta.url))
    const child = execFile(process.execPath, ["--expose-gc", program, `${pairs}`], (error, stdout, stderr) => {
      resume(
        error === null
          ? Effect.succeed(JSON.parse(stdout) as Report)
          : Effect.fail(new Error(`${error.message}\n${stderr}`))
      )
    })
    return Effect.sync(() => child.kill("SIGKILL"))
  })

describe("the life of a node", () => {
  // Node cannot force a collection in a worker, so the pairs live in a process of their own.
  it.live("a hundred connected pairs leave no rejection, no handle and no heap behind", () =>
    Effect.gen(function*() {
      const report = yield* run(100)
      assert.strictEqual(report.pairs, 100)
      assert.deepStrictEqual(report.faults, [])
      assert.deepStrictEqual(report.handles, [])
      assert.isAtMost(report.growthBytes, 4 * 1024 * 1024)
    }))
})
