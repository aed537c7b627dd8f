import { assert, describe, it } from "@effect/vitest"
import { Exit } from "effect"
import { tally } from "./Tally.ts"

describe("the tally of the faults", () => {
  const chosen = ["a", "b"]

  it("counts what passed and what failed", () => {
    assert.deepStrictEqual(tally(chosen, new Map([["a", true], ["b", false]]), Exit.void), {
      passed: ["a"],
      failed: ["b"],
      failures: 1
    })
  })

  it("fails the scenarios that the time limit cut off", () => {
    assert.deepStrictEqual(tally(chosen, new Map([["a", true]]), Exit.fail("timeout")), {
      passed: ["a"],
      failed: ["b"],
      failures: 1
    })
  })

  it("fails for a run that fails after its last scenario, whatever the scenarios did", () => {
    const release = Exit.die(new Error("release"))
    assert.strictEqual(tally(chosen, new Map([["a", true], ["b", true]]), release).failures, 1)
    assert.strictEqual(tally(chosen, new Map([["a", true], ["b", false]]), release).failures, 2)
  })
})
