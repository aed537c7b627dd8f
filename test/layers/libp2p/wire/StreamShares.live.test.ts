import { assert, describe, it } from "@effect/vitest"
import type { Connection as Libp2pConnection, MessageStream } from "@libp2p/interface"
import { Deferred, Effect, Exit, Fiber, Semaphore, Stream } from "effect"
import type { Socket } from "node:net"
import type { ProtocolId } from "../../../../src/schema/Peer.ts"
import type { ByteStream, Connection } from "../../../../src/services/Transport.ts"
import { eventually } from "../../../contract/eventually.ts"
import { makeNode } from "../../../support/Libp2pNode.ts"

const mebi = 1024 * 1024
const silent = "/silent/1.0.0" as ProtocolId
const slow = "/slow/1.0.0" as ProtocolId
const echo = "/echo/1.0.0" as ProtocolId
const source = "/source/1.0.0" as ProtocolId
const both = "/both/1.0.0" as ProtocolId

/** A node with this budget, and what its handlers saw: `slow` has the bytes that each stream read. */
const victim = Effect.fnUntraced(function*(maxBufferedBytes: number) {
  const node = yield* makeNode({ maxBufferedBytes })
  const state = { silent: 0, slow: Array<number>(), most: 0 }
  yield* node.transport.handle(silent, (stream) =>
    Effect.suspend(() => {
      state.silent++
      return stream.lost
    }).pipe(Effect.ensuring(Effect.sync(() => state.silent--)), Effect.asVoid))
  yield* node.transport.handle(slow, (stream) => {
    const index = state.slow.push(0) - 1
    return Effect.ignore(Stream.runForEach(stream.read, (chunk) => {
      state.slow[index]! += chunk.length
      return Effect.sleep("1 millis")
    }))
  })
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

/** Sends 2,000,000 pings of Yamux, or as many as the remote takes, and reads no answer. */
const pingUnread = (connection: Libp2pConnection) =>
  Effect.promise(async () => {
    const { maConn: { socket }, muxer } = connection as unknown as {
      readonly maConn: { readonly socket: Socket }
      readonly muxer: { readonly maConn: MessageStream }
    }
    socket.pause()
    const pings = Buffer.concat(Array.from({ length: 5000 }, () => Uint8Array.of(0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)))
    for (let round = 0; round < 400 && muxer.maConn.status === "open"; round++) {
      muxer.maConn.send(Uint8Array.from(pings))
      await new Promise((resolve) => {
        if (!socket.writableNeedDrain) return void setImmediate(resolve)
        socket.once("drain", resolve)
        socket.once("close", resolve)
      })
    }
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

  it.live("answers to Yamux's pings count too, and end the connection of a remote that reads none", () =>
    Effect.gen(function*() {
      const { address, transport } = yield* victim(2 * mebi)
      const honest = yield* makeNode()
      const kept = yield* (yield* honest.transport.dial(yield* address)).open(echo)
      const attacker = yield* makeNode()
      yield* attacker.transport.dial(yield* address)
      yield* Effect.forkScoped(pingUnread(attacker.host.node.getConnections()[0]!))
      const refused = Effect.map(transport.streams.refusals, ({ buffered = 0 }) => buffered)
      yield* eventually("the connection is ended", Effect.map(refused, (count) => count === 1), "40 seconds")
      yield* exchange(kept, mebi)
      yield* eventually("nothing waits", Effect.map(transport.streams.buffered, (bytes) => bytes === 0))
    }).pipe(Effect.scoped))

  it.live("what is unread counts after the end of its stream, until it is read or its handler ends", () =>
    Effect.gen(function*() {
      const late = "/late/1.0.0" as ProtocolId
      const { address, state, transport } = yield* victim(mebi)
      const next = yield* Semaphore.make(0)
      const ends: Array<"whole" | "cut" | "unread"> = []
      // Ends its half first, so that the stream is over when the remote has sent all it has.
      yield* transport.handle(late, (stream) =>
        Effect.gen(function*() {
          yield* Effect.ignore(stream.closeWrite)
          yield* next.take(1)
          if (ends.length === 0) return void ends.push("unread")
          const exit = yield* Effect.exit(Stream.runFold(stream.read, () => 0, (sum, chunk) => sum + chunk.length))
          if (Exit.isSuccess(exit)) assert.strictEqual(exit.value, 200_000)
          ends.push(Exit.isSuccess(exit) ? "whole" : "cut")
        }))
      const attacker = yield* makeNode()
      const connection = yield* attacker.transport.dial(yield* address)
      yield* Effect.forEach(
        Array.from({ length: 20 }),
        () =>
          Effect.flatMap(
            connection.open(late),
            (stream) => Effect.ignore(Effect.andThen(stream.write(new Uint8Array(200_000)), stream.closeWrite))
          )
      )
      const refused = Effect.map(transport.streams.refusals, ({ buffered = 0 }) => buffered)
      yield* eventually("the surplus is dropped", Effect.map(refused, (count) => count === 15))
      assert.isAtMost(state.most, mebi + 200_000)
      const left = yield* transport.streams.buffered
      assert.isTrue(left >= 1_000_000 && left <= mebi, `${left}`)
      yield* next.release(20)
      yield* eventually("all handlers end", Effect.sync(() => ends.length === 20))
      assert.strictEqual(yield* transport.streams.buffered, 0)
      assert.isAtLeast(ends.filter((end) => end === "whole").length, 4)
      assert.isAtLeast(ends.filter((end) => end === "cut").length, 14)
    }).pipe(Effect.scoped))

  it.live("slow readers narrow each other's windows, and nobody else's, and none stands still", () =>
    Effect.gen(function*() {
      const node = yield* victim(12 * mebi)
      const crowd = yield* makeNode()
      const honest = yield* makeNode()
      const connection = yield* honest.transport.dial(yield* node.address)
      const fast = yield* connection.open(echo)
      const crowded = yield* crowd.transport.dial(yield* node.address)
      // 25 first windows are more than half of the budget, and the part of each of 26 streams is 236 KiB.
      for (let i = 0; i < 25; i++) {
        const stream = yield* crowded.open(silent)
        for (let j = 0; j < 4; j++) yield* stream.write(new Uint8Array(65_536))
      }
      yield* eventually(
        "the crowd waits",
        Effect.map(node.transport.streams.buffered, (bytes) => bytes >= 25 * mebi / 4)
      )
      yield* flood(crowded, slow, 5)
      yield* exchange(fast, 4 * mebi)
      yield* eventually(
        "slow readers get on",
        Effect.sync(() => node.state.slow.length === 5 && node.state.slow.every((bytes) => bytes > 2 * mebi))
      )
      for (const bytes of windows(node, slow)) assert.isBelow(bytes, mebi / 4)
      for (const bytes of windows(node, echo)) assert.isAtLeast(bytes, mebi / 4)
      assert.isAtMost(node.state.most, 12 * mebi)
      assert.deepStrictEqual(yield* node.transport.streams.refusals, {})
    }).pipe(Effect.scoped))

  it.live("single bytes count with what each costs, and keep nothing else", () =>
    Effect.gen(function*() {
      const node = yield* victim(8 * mebi)
      const wake = yield* Deferred.make<void>()
      const kept: Array<number> = []
      yield* node.transport.handle(both, (stream) =>
        Effect.andThen(
          Deferred.await(wake),
          Stream.runForEach(stream.read, (chunk) => Effect.sync(() => kept.push(chunk.buffer.byteLength)))
        ).pipe(Effect.ignore))
      const remote = yield* makeNode()
      const connection = yield* remote.transport.dial(yield* node.address)
      const stream = yield* connection.open(both)
      for (let i = 0; i < 2000; i++) yield* stream.write(new Uint8Array(1))
      const held = node.transport.streams.buffered
      yield* eventually("each counts", Effect.map(held, (bytes) => bytes === 2000 * 257))
      yield* Deferred.succeed(wake, undefined)
      yield* eventually("all are read", Effect.sync(() => kept.length === 2000))
      assert.deepStrictEqual(kept.filter((bytes) => bytes > 4), [])
      assert.strictEqual(yield* held, 0)
    }).pipe(Effect.scoped))

  it.live("a reader that has taken everything gets more, however much waits elsewhere and is unsent", () =>
    Effect.gen(function*() {
      const node = yield* victim(2 * mebi)
      const wake = yield* Deferred.make<void>()
      let read = 0
      yield* node.transport.handle(both, (stream) =>
        Effect.gen(function*() {
          // Its remote reads nothing, so this never ends, and a piece of it waits to be sent.
          yield* Effect.forkChild(Effect.forever(stream.write(new Uint8Array(65_536))))
          yield* Deferred.await(wake)
          yield* Stream.runForEach(stream.read, (chunk) => Effect.sync(() => read += chunk.length))
        }).pipe(Effect.ignore))
      const crowd = yield* makeNode()
      const connection = yield* crowd.transport.dial(yield* node.address)
      // 1.25 MiB are more than half of the budget, and the part of each of 41 streams is 25 KiB.
      for (let i = 0; i < 40; i++) yield* (yield* connection.open(silent)).write(new Uint8Array(32_768))
      const stream = yield* connection.open(both)
      // A first window.
      for (let i = 0; i < 4; i++) yield* stream.write(new Uint8Array(65_536))
      yield* eventually(
        "everything waits",
        Effect.map(node.transport.streams.buffered, (bytes) => bytes >= 1.5 * mebi + 32_768)
      )
      yield* Deferred.succeed(wake, undefined)
      yield* eventually("the first window is read", Effect.sync(() => read === mebi / 4))
      yield* Effect.forkChild(Effect.forEach(Array.from({ length: 8 }), () => stream.write(new Uint8Array(65_536))))
      yield* eventually("more is read", Effect.sync(() => read === mebi * 3 / 4), "20 seconds")
      assert.deepStrictEqual(yield* node.transport.streams.refusals, {})
    }).pipe(Effect.scoped))
})
