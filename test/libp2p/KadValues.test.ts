import { assert, describe, it } from "@effect/vitest"
import { type KadInternals, takeAnyKey } from "../../src/layers/KadKeys.ts"
import { keepWinners, type KadValueInternals } from "../../src/layers/KadValues.ts"
import { kadValuesContract } from "../contract/KadValuesContract.ts"

kadValuesContract("codio")

describe("KadValues", () => {
  it("refuses a kad-dht that lacks a member, by the member's name", () => {
    const handle = () => Promise.resolve(undefined)
    const getLocal = () => Promise.reject(new Error("none"))
    const whole: KadValueInternals = { contentFetching: { getLocal }, rpc: { handlers: { PUT_VALUE: { handle } } } }
    keepWinners({ ...whole, rpc: { handlers: { ...whole.rpc.handlers } } }, [])
    assert.throws(() => keepWinners({ ...whole, rpc: { handlers: {} } }, []), /rpc\.handlers\.PUT_VALUE/)
    assert.throws(
      () => keepWinners({ rpc: whole.rpc } as KadValueInternals, []),
      /contentFetching\.getLocal/
    )
    assert.throws(() => takeAnyKey(whole as unknown as KadInternals, {} as never), /providers\.addProvider/)
  })
})
