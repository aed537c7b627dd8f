import { assert, describe, it } from "@effect/vitest"
import { RefusalReason } from "../../src/schema/NetworkEvent.ts"
import { farewellFor, refusedWhy } from "../../src/services/Transport.ts"

describe("the reason of a refusal", () => {
  it("tells a remote whether it may come back, and not which limit it met", () => {
    for (const reason of RefusalReason.literals) {
      const told = reason === "blocked" || reason === "shutdown" || reason === "promised" ? reason : "full"
      assert.strictEqual(farewellFor(reason), told)
      assert.deepStrictEqual(refusedWhy(farewellFor(reason)), { why: told })
    }
  })

  it("is full for a dial whose connection the remote evicts at once, and none where the remote told none", () => {
    assert.deepStrictEqual(refusedWhy("evicted"), { why: "full" })
    assert.deepStrictEqual(refusedWhy(undefined), {})
  })
})
