import { assert, describe, it } from "@effect/vitest"
import { readMutants } from "../../../support/KadMutants.ts"

describe("100,000 frames that are mutated, cut, too long or out of order", () => {
  it("end as a message within the limits or with a MessageError", () => {
    const outcomes = readMutants(100_000)
    for (const count of Object.values(outcomes)) assert.isAbove(count, 5000, JSON.stringify(outcomes))
  })
})
