import { assert, describe, it } from "@effect/vitest"
import { Context, Effect } from "effect"
import * as StreamBudget from "../../src/layers/StreamBudget.ts"

const limit = 1_000
const makeBudget = () => StreamBudget.make(limit, Context.empty())

/** A stream of a connection, which holds what the spec says. */
const streamOf = (budget: StreamBudget.StreamBudget, connection: StreamBudget.Group) => {
  const state = { waiting: 0, promised: 0, evicted: "" }
  const share = budget.open(connection, {
    waiting: () => state.waiting,
    promised: () => state.promised,
    evict: (detail) => {
      state.evicted = detail
      state.waiting = 0
    }
  })
  const hold = (waiting: number, promised = 0) => {
    Object.assign(state, { waiting, promised })
    share.update()
  }
  return { state, share, hold }
}
const connectionOf = (budget: StreamBudget.StreamBudget) => {
  const connection = StreamBudget.group()
  return (waiting = 0) => {
    const stream = streamOf(budget, connection)
    stream.hold(waiting)
    return stream
  }
}

describe("the budget of a node's streams", () => {
  it.effect("gives half of it to a stream that is alone, whatever it holds", () =>
    Effect.sync(() => {
      const stream = connectionOf(makeBudget())()
      assert.strictEqual(stream.share.allowance(), 500)
      stream.hold(100)
      assert.strictEqual(stream.share.allowance(), 500)
    }))

  it.effect("narrows the streams of a connection that hold bytes, and none of another connection", () =>
    Effect.sync(() => {
      const budget = makeBudget()
      const slow = connectionOf(budget)
      const streams = Array.from({ length: 10 }, () => slow(30))
      // Half of what the others leave of 500, which is more than a tenth of it.
      assert.strictEqual(streams[0]!.share.allowance(), 115)
      const fast = connectionOf(budget)()
      assert.strictEqual(fast.share.allowance(), 250)
      for (const { hold } of streams) hold(50)
      assert.strictEqual(streams[0]!.share.allowance(), 50)
      for (const { hold } of streams) hold(90)
      // 900 of 1,000 wait: the even share of the half, for its streams and for the other connection.
      assert.strictEqual(streams[0]!.share.allowance(), 50)
      assert.strictEqual(fast.share.allowance(), 250)
    }))

  it.effect("counts what was promised before it comes, and does not evict for it", () =>
    Effect.sync(() => {
      const budget = makeBudget()
      const growing = connectionOf(budget)()
      growing.hold(10, 2_000)
      assert.strictEqual(connectionOf(budget)().share.allowance(), 250)
      assert.strictEqual(growing.state.evicted, "")
    }))

  it.effect("evicts the fullest stream of the fullest connection when more waits than the limit", () =>
    Effect.gen(function*() {
      const budget = makeBudget()
      const honest = connectionOf(budget)(450)
      const greedy = connectionOf(budget)
      const streams = [200, 300, 50].map((bytes) => greedy(bytes))
      assert.deepStrictEqual(streams.map(({ state }) => state.evicted), ["", "", ""])
      assert.strictEqual(yield* budget.buffered, 1_000)
      streams[2]!.hold(51)
      assert.deepStrictEqual(streams.map(({ state }) => state.evicted === ""), [true, false, true])
      assert.strictEqual(honest.state.evicted, "")
      assert.include(streams[1]!.state.evicted, "more than the 1000 bytes")
      assert.strictEqual(yield* budget.buffered, 701)
      assert.deepStrictEqual(yield* budget.refusals, { buffered: 1 })
    }))

  it.effect("looks at a stream again before it evicts it", () =>
    Effect.gen(function*() {
      const budget = makeBudget()
      const connection = connectionOf(budget)
      const read = connection(600)
      // The transport does not say when a protocol of its own has read.
      read.state.waiting = 0
      const other = connection(400)
      other.hold(500)
      assert.deepStrictEqual([read.state.evicted, other.state.evicted], ["", ""])
      assert.strictEqual(yield* budget.buffered, 500)
    }))

  it.effect("forgets a stream that has closed, and what it says afterwards", () =>
    Effect.gen(function*() {
      const budget = makeBudget()
      const stream = connectionOf(budget)(400)
      stream.share.close()
      stream.share.close()
      stream.hold(300)
      assert.strictEqual(yield* budget.buffered, 0)
    }))

  it.effect("keeps the limit of a group as well, by its own fullest stream", () =>
    Effect.gen(function*() {
      const budget = makeBudget()
      const connection = connectionOf(budget)
      const groupOf = StreamBudget.perPeer(100)
      const outside = connection(300)
      const [small, large] = [connection(30), connection(60)] as const
      for (const { share } of [small, large]) share.join(groupOf("peer"))
      assert.strictEqual(small.share.allowance(), 40)
      small.hold(41)
      assert.deepStrictEqual([small, large, outside].map(({ state }) => state.evicted === ""), [true, false, true])
      assert.notStrictEqual(groupOf("another"), groupOf("peer"))
      assert.strictEqual(groupOf("peer"), groupOf("peer"))
      const before = groupOf("peer")
      small.share.close()
      // Nothing is kept of a peer without streams.
      assert.notStrictEqual(groupOf("peer"), before)
    }))

  it.effect("refuses a stream that joins a full group", () =>
    Effect.sync(() => {
      const connection = connectionOf(makeBudget())
      const group = StreamBudget.group(100)
      const stream = connection(101)
      stream.share.join(group)
      assert.notStrictEqual(stream.state.evicted, "")
    }))
})
