import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import type { ProtocolId } from "../../../../src/schema/Peer.ts"
import type { ByteStream, Connection } from "../../../../src/services/Transport.ts"
import { eventually } from "../../../contract/eventually.ts"
import { makeNode } from "../../../support/Libp2pNode.ts"

const mebi = 1024 * 1024
const silent = "/silent/1.0.0" as ProtocolId
const slow = "/slow/1.0.0" as ProtocolId
const echo = "/echo/1.0.0" as ProtocolId
const source = "/source/1.0.0" as ProtocolId

/** A node with this budget, and what its handlers saw. */
const victim = Effect.fnUntraced(function*(maxBufferedBytes: number) {
  const node = yield* makeNode({ maxBufferedBytes })
  const state = { silent: 0, most: 0 }
  yield* node.transport.handle(silent, (stream) =>
    Effect.suspend(() => {
      state.silent++
      return stream.lost
    }).pipe(Effect.ensuring(Effect.sync(() => state.silent--)), Effect.asVoid))
  yield* node.transport.handle(
    slow,
    (stream) => Effect.ignore(Stream.runForEach(stream.read, () => Effect.sleep("1 millis")))
  )
  yield* node.transport.handle(echo, (stream) => Effect.ignore(Stream.runForEach(stream.read, stream.write)))
  yield* node.transport.handle(source, (stream) => Effect.ignore(Effect.forever(stream.write(new Uint8Array(65_536)))))
  const look = Effect.map(node.transport.streams.buffered, (now) => {
    state.most = Math.max(state.most, now)
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(look, Effect.sleep("1 millis"))))
  return { ...node, state }
})

/** Opens streams and writes to each as much as it takes. */
const flood = (connection: Connection, protocol: ProtocolId, count: number) =>
  Effect.forEach(
    Array.from({ length: count }),
    () =>
      Effect.flatMap(connection.open(protocol), (stream) =>
        Effect.forkScoped(Effect.ignore(Effect.forever(stream.write(new Uint8Array(65_536)))))),
    { concurrency: 16, discard: true }
  )

/** Sends a number of bytes to the echo and reads them back. */
const exchange = Effect.fnUntraced(function*(stream: ByteStream, bytes: number) {
  const reading = yield* Effect.forkChild(
    stream.read.pipe(
      Stream.mapAccum(() => 0, (sum, chunk) => [sum + chunk.length, [sum + chunk.length]] as const),
      Stream.takeUntil((sum) => sum >= bytes),
      Stream.runDrain
    ),
    { startImmediately: true }
  )
  for (let sent = 0; sent < bytes; sent += 65_536) yield* stream.write(new Uint8Array(65_536))
  yield* Fiber.join(reading)
})

/** The windows of the node's streams of a protocol, in bytes. */
const windows = (node: Effect.Success<ReturnType<typeof makeNode>>, protocol: ProtocolId) =>
  node.host.node.getConnections().flatMap(({ streams }) =>
    streams.filter((stream) => stream.protocol === protocol)
      .map((stream) => (stream as unknown as { readonly recvWindow: number }).recvWindow)
  )

describe("streams share the budget of their node", () => {
  it.live("a flood of unread streams stays within it, loses the surplus, and costs no other peer a stream", () =>
    Effect.gen(function*() {
      const limit = 8 * mebi
      const { address, state, transport } = yield* victim(limit)
      const honest = yield* makeNode()
      const connection = yield* honest.transport.dial(yield* address)
      const kept = yield* connection.open(echo)
      const attacker = yield* makeNode()
      yield* flood(yield* attacker.transport.dial(yield* address), silent, 100)
      // A first window has 256 KiB, so 32 of the 100 fit.
      yield* eventually("the surplus is reset", Effect.sync(() => state.silent <= 40))
      yield* exchange(kept, 4 * mebi)
      assert.isAtMost(state.most, limit)
      assert.isAbove(state.most, limit / 2)
      assert.isAtLeast(state.silent, 20)
      assert.strictEqual((yield* transport.streams.refusals).buffered, 100 - state.silent)
    }).pipe(Effect.scoped))

  it.live("unread answers count as well", () =>
    Effect.gen(function*() {
      const limit = 2 * mebi
      const { address, state, transport } = yield* victim(limit)
      const attacker = yield* makeNode()
      const connection = yield* attacker.transport.dial(yield* address)
      // Its remote reads nothing, so what this node writes fills the remote's windows, and then waits here.
      yield* Effect.forEach(Array.from({ length: 40 }), () => connection.open(source), { concurrency: 16 })
      yield* eventually(
        "streams are reset",
        Effect.map(transport.streams.refusals, ({ buffered = 0 }) => buffered > 5)
      )
      assert.isAtMost(state.most, limit)
    }).pipe(Effect.scoped))

  it.live("slow readers narrow each other's windows, and nobody else's", () =>
    Effect.gen(function*() {
      const node = yield* victim(12 * mebi)
      const crowd = yield* makeNode()
      const honest = yield* makeNode()
      const connection = yield* honest.transport.dial(yield* node.address)
      const fast = yield* connection.open(echo)
      yield* flood(yield* crowd.transport.dial(yield* node.address), slow, 30)
      yield* eventually("slow readers are behind", Effect.sync(() => node.state.most > 4 * mebi))
      yield* exchange(fast, 4 * mebi)
      // Half of the budget among 30 streams is 200 KiB each, less than a first window.
      const narrow = () => windows(node, slow).filter((bytes) => bytes < mebi / 4).length
      // The first of them may have read a wide window only in part.
      yield* eventually("their windows are narrow", Effect.sync(() => narrow() >= 15))
      for (const bytes of windows(node, echo)) assert.isAtLeast(bytes, mebi / 4)
      assert.isAtMost(node.state.most, 12 * mebi)
      assert.deepStrictEqual(yield* node.transport.streams.refusals, {})
    }).pipe(Effect.scoped))
})
