import { assert, describe, it } from "@effect/vitest"
import * as StreamRetry from "../../../../src/layers/dht/libp2p/StreamRetry.ts"

const question = Uint8Array.of(1)
const withRecord = Uint8Array.of(2, 1)
const reset: StreamRetry.Failure = { reason: "Reset", isBlamed: true, isFresh: true, isLost: false }

describe("a question whose stream has failed", () => {
  it("goes on once when the stream had stood before it, then alone, then fails", () => {
    const task = attempts({ bytes: withRecord })
    assert.isUndefined(StreamRetry.failed(task, { ...reset, isFresh: false }))
    assert.strictEqual(task.bytes, withRecord)
    assert.isUndefined(StreamRetry.failed(task, reset))
    assert.strictEqual(task.bytes, question)
    assert.strictEqual(StreamRetry.failed(task, reset), "Reset")
  })

  it("goes on once when the connection was lost, which says nothing of what went before it", () => {
    const task = attempts({ bytes: withRecord })
    assert.isUndefined(StreamRetry.failed(task, { ...reset, isLost: true }))
    assert.strictEqual(StreamRetry.failed(task, { ...reset, isLost: true }), "Reset")
    assert.strictEqual(task.bytes, withRecord)
  })

  it("goes on three times when another one is to blame, whatever ended the stream", () => {
    for (const reason of ["Reset", "Malformed"] as const) {
      const task = attempts({ bytes: withRecord })
      for (let i = 0; i < 3; i++) assert.isUndefined(StreamRetry.failed(task, { ...reset, reason, isBlamed: false }))
      assert.strictEqual(task.bytes, withRecord)
      const then = StreamRetry.failed(task, { ...reset, reason, isBlamed: false })
      assert.strictEqual(then, reason === "Reset" ? undefined : reason)
    }
  })

  it("does not go on when the remote lacks the protocol, is not understood, or nobody waits", () => {
    for (const isBlamed of [true, false]) {
      assert.strictEqual(StreamRetry.failed(attempts(), { ...reset, reason: "Unsupported", isBlamed }), "Unsupported")
      assert.strictEqual(StreamRetry.failed(attempts({ done: undefined }), { ...reset, isBlamed }), "Reset")
      assert.strictEqual(StreamRetry.failed(attempts({ isExpired: true }), { ...reset, isBlamed }), "TimedOut")
    }
    assert.strictEqual(StreamRetry.failed(attempts(), { ...reset, reason: "Malformed" }), "Malformed")
  })

  it("is sent once more when it has no answer and its stream had stood before it, and no more", () => {
    const task = attempts({ question: undefined, bytes: withRecord })
    assert.isUndefined(StreamRetry.failed(task, { ...reset, isFresh: false }))
    assert.strictEqual(StreamRetry.failed(task, reset), "Reset")
    assert.strictEqual(task.bytes, withRecord)
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function attempts(given: Partial<StreamRetry.Attempts> = {}): StreamRetry.Attempts {
  return { question, bytes: question, done: () => {}, ...StreamRetry.none, ...given }
}
