import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as PeerConnections from "../../../src/layers/peers/Connections.ts"
import type { CodioResponse } from "../../../src/schema/CodioMessage.ts"
import type { PeerId } from "../../../src/schema/Peer.ts"
import * as FakeConnection from "../../support/FakeConnection.ts"

const [smaller, larger] = ["alice", "bob"].map(FakeConnection.peerId).sort() as [PeerId, PeerId]
const relay = FakeConnection.peerId("relay")

const ok: CodioResponse = { ok: true }
const inUse: CodioResponse = { ok: false, code: "in-use" }

/** Two connections, the worse one first, of a remote that gives these answers. */
const pair = Effect.fnUntraced(function*(local: PeerId, answer?: () => CodioResponse | "never") {
  const remote = local === smaller ? larger : smaller
  const connections = PeerConnections.make(local, remote)
  const options = answer === undefined ? {} : { answer }
  const worse = FakeConnection.make(remote, { ...options, relay })
  const better = FakeConnection.make(remote, options)
  connections.add(worse, false)
  connections.add(better, true)
  const settling = yield* Effect.forkChild(connections.settle, { startImmediately: true })
  /** Takes closed connections out, as the transport's report does. */
  const passed = Effect.gen(function*() {
    for (const connection of [worse, better]) if (!connection.state.open) connections.remove(connection)
    yield* connections.tell
    yield* TestClock.adjust(0)
  })
  return { connections, worse, better, settling, passed }
})

describe("the connections of one peer", () => {
  it.effect("are in order: direct, dialled by the peer with the smaller id, newest", () =>
    Effect.gen(function*() {
      for (const [local, remote] of [[smaller, larger], [larger, smaller]] as const) {
        const connections = PeerConnections.make(local, remote)
        const inbound: boolean = local === larger
        const expected = [
          FakeConnection.make(remote, { inbound }),
          FakeConnection.make(remote, { inbound }),
          FakeConnection.make(remote, { inbound: !inbound }),
          FakeConnection.make(remote, { inbound, relay }),
          FakeConnection.make(remote, { inbound: !inbound, relay })
        ]
        for (const [index, connection] of [...expected.entries()].reverse()) connections.add(connection, index < 3)
        assert.deepStrictEqual(yield* connections.best, expected)
        expected[0]!.state.open = false
        assert.deepStrictEqual(yield* connections.best, expected.slice(1))
      }
    }))

  const Made = Schema.Struct({ isDirect: Schema.Boolean, bySmaller: Schema.Boolean })
  it.effect.prop(
    "have the same order on both sides, whichever came first",
    { made: Schema.Array(Made).check(Schema.isMinLength(1)), turned: Schema.Array(Schema.Int) },
    ({ made, turned }) =>
      Effect.gen(function*() {
        // Each kind once: both sides see two of one kind in the same order, since one side dialled them in turn.
        const kinds = new Map(made.map((one) => [`${one.isDirect} ${one.bySmaller}`, one]))
        const bestOf = Effect.fnUntraced(function*(local: PeerId, order: ReadonlyArray<string>) {
          const connections = PeerConnections.make(local, local === smaller ? larger : smaller)
          const names = new Map<string, string>()
          for (const name of order) {
            const { bySmaller, isDirect } = kinds.get(name)!
            const connection = FakeConnection.make(local === smaller ? larger : smaller, {
              inbound: bySmaller !== (local === smaller),
              ...(isDirect ? {} : { relay })
            })
            names.set(connection.id, name)
            connections.add(connection, isDirect)
          }
          return (yield* connections.best).map(({ id }) => names.get(id))
        })
        const order = [...kinds.keys()]
        const other = order.map((name, index) => [turned[index] ?? 0, name] as const).sort((a, b) => a[0] - b[0])
        assert.deepStrictEqual(yield* bestOf(smaller, order), yield* bestOf(larger, other.map(([, name]) => name)))
      })
  )

  it.effect("become one when the remote agrees, asked after 2 s by the smaller id, after 15 s by the larger", () =>
    Effect.gen(function*() {
      const one = Effect.fnUntraced(function*(local: PeerId, seconds: number) {
        const { better, passed, settling, worse } = yield* pair(local, () => ok)
        yield* TestClock.adjust(seconds * 1000 - 1)
        assert.deepStrictEqual([worse.state.requests, worse.state.open], [0, true])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual([worse.state.requests, worse.state.open], [1, false])
        assert.deepStrictEqual([better.state.requests, better.state.open], [0, true])
        yield* passed
        assert.isDefined(settling.pollUnsafe())
      })
      yield* one(smaller, 2)
      yield* one(larger, 15)
    }))

  it.effect("stay as they are while the remote uses one, which is asked again", () =>
    Effect.gen(function*() {
      let answer: CodioResponse = inUse
      const { passed, settling, worse } = yield* pair(smaller, () => answer)
      yield* TestClock.adjust("5 minutes")
      assert.isTrue(worse.state.open)
      assert.isAtMost(worse.state.requests, 16)
      answer = ok
      yield* TestClock.adjust("31 seconds")
      assert.isFalse(worse.state.open)
      yield* passed
      assert.isDefined(settling.pollUnsafe())
    }))

  it.effect("close none that has a stream, whoever opened it, and wait for its end without a wake", () =>
    Effect.gen(function*() {
      for (const use of ["holds", "attends"] as const) {
        const { connections, worse } = yield* pair(smaller, () => ok)
        connections.begin(worse, use)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual([worse.state.requests, worse.state.open], [0, true])
        yield* connections.end(worse, use)
        yield* TestClock.adjust(0)
        assert.deepStrictEqual([worse.state.requests, worse.state.open], [1, false])
      }
      // A stream that is not counted, such as the DHT's.
      const { worse } = yield* pair(smaller, () => ok)
      worse.state.activeStreams = 1
      yield* TestClock.adjust("1 minute")
      assert.isTrue(worse.state.open)
      worse.state.activeStreams = 0
      yield* TestClock.adjust("31 seconds")
      assert.isFalse(worse.state.open)
      assert.strictEqual(worse.state.requests, 1)
    }))

  it.effect("lose one that does not answer for five seconds", () =>
    Effect.gen(function*() {
      const { better, worse } = yield* pair(smaller, () => "never")
      yield* TestClock.adjust("6999 millis")
      assert.isTrue(worse.state.open)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([worse.state.open, better.state.open], [false, true])
    }))

  it.effect("stay all of them with other software, which is asked nothing", () =>
    Effect.gen(function*() {
      const { better, settling, worse } = yield* pair(smaller)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([worse.state.open, better.state.open], [true, true])
      assert.deepStrictEqual(settling.pollUnsafe(), Exit.void)
    }))

  it.effect("keep the worse one when the better one has gone while the remote was asked", () =>
    Effect.gen(function*() {
      const gone: Array<FakeConnection.FakeConnection> = []
      const made = yield* pair(smaller, () => {
        for (const { state } of gone) state.open = false
        return ok
      })
      gone.push(made.better)
      yield* TestClock.adjust("2 seconds")
      yield* made.passed
      yield* TestClock.adjust("1 hour")
      assert.isTrue(made.worse.state.open)
    }))

  it.effect("ask anew when the one for whose sake the remote agreed has gone", () =>
    Effect.gen(function*() {
      const { better, connections, passed, settling, worse } = yield* pair(smaller, () => ok)
      worse.state.activeStreams = 1
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([worse.state.requests, worse.state.open], [1, true])
      better.state.open = false
      yield* passed
      assert.isDefined(settling.pollUnsafe())
      const newer = FakeConnection.make(larger, { answer: () => inUse })
      connections.add(newer, true)
      yield* Effect.forkChild(connections.settle, { startImmediately: true })
      worse.state.activeStreams = 0
      yield* TestClock.adjust("1999 millis")
      assert.isTrue(worse.state.open)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([worse.state.requests, worse.state.open], [2, false])
    }))

  it.effect("are given up by this side only for one that is open, no worse, and not given up itself", () =>
    Effect.gen(function*() {
      const { better, connections, settling, worse } = yield* pair(larger, () => ok)
      yield* Fiber.interrupt(settling)
      assert.isFalse(yield* connections.retire(better), "for a relayed one")
      assert.isFalse(yield* connections.retire(FakeConnection.make(smaller)), "which is none of them")
      connections.begin(worse, "holds")
      assert.isFalse(yield* connections.retire(worse), "with a stream of this side")
      yield* connections.end(worse, "holds")
      connections.begin(worse, "attends")
      assert.isTrue(yield* connections.retire(worse), "with a stream of the remote's, which knows of it")
      assert.isFalse(yield* connections.retire(better), "for one that is given up")
      const newest = FakeConnection.make(smaller, { answer: () => ok })
      connections.add(newest, true)
      assert.strictEqual((yield* connections.best)[0], newest)
      assert.isTrue(yield* connections.retire(newest), "for an older one of its kind")
      assert.isFalse(yield* connections.retire(better), "for the one that is given up for its sake")
      assert.strictEqual((yield* connections.best)[0], better)
      better.state.open = false
      assert.strictEqual((yield* connections.best).length, 2)
    }))
})
