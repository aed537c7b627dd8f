import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as CodioRequests from "../../../src/layers/codio/CodioRequests.ts"
import { agentVersion } from "../../../src/schema/Agent.ts"
import { decodeResponse, headerBytesMax, protocol } from "../../../src/schema/CodioMessage.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../../src/testing/TestNetwork.ts"
import * as CoreNode from "../../support/CoreNode.ts"

/** Two connected nodes without latency, and the connection between them. */
const pair = Effect.gen(function*() {
  const alice = yield* CoreNode.make("alice")
  const bob = yield* CoreNode.make("bob")
  yield* TestNetwork.run(alice.manager.connect((yield* bob.addresses)[0]!))
  const [connection] = yield* alice.table.connections(bob.id)
  return { alice, bob, connection: connection! }
})

/** Sends bytes on a new stream, and reads the answer. */
const answerTo = Effect.fnUntraced(function*(connection: CodioConnection, bytes: Uint8Array) {
  const stream = yield* connection.open(protocol)
  yield* stream.write(bytes)
  yield* stream.closeWrite
  const chunks = yield* Stream.runCollect(stream.read)
  const decoded = decodeResponse(Buffer.concat(chunks))
  return decoded._tag === "Success" ? decoded.success?.header : undefined
}, Effect.scoped)
type CodioConnection = Parameters<typeof CodioRequests.goodbye>[0]

describe("/codio/1.0.0", () => {
  it.effect("answers hello with the agent", () =>
    Effect.gen(function*() {
      const { connection } = yield* pair
      const { response } = yield* TestNetwork.run(
        Effect.scoped(CodioRequests.request(connection, { op: "hello", agent: "spec" }))
      )
      assert.deepStrictEqual(response, { ok: true, agent: agentVersion })
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("answers bytes that are no request with a code, and stays for the next", () =>
    Effect.gen(function*() {
      const { connection } = yield* pair
      const unknown = yield* TestNetwork.run(answerTo(connection, Uint8Array.of(6, 0xa1, 0x62, 0x6f, 0x70, 0x61, 0x78)))
      assert.deepInclude(unknown, { ok: false, code: "malformed" })
      const garbage = yield* TestNetwork.run(answerTo(connection, Uint8Array.of(2, 0xff, 0xff)))
      assert.deepInclude(garbage, { ok: false, code: "malformed" })
      const length = headerBytesMax + 1
      const large = yield* TestNetwork.run(
        answerTo(connection, Uint8Array.of((length & 0x7f) | 0x80, length >> 7))
      )
      assert.deepInclude(large, { ok: false, code: "too-large" })
      const cut = yield* TestNetwork.run(answerTo(connection, Uint8Array.of(9, 0xa1)))
      assert.deepInclude(cut, { ok: false, code: "malformed" })
      assert.isTrue(yield* connection.isOpen)
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("reads a request that comes byte by byte", () =>
    Effect.gen(function*() {
      const { connection } = yield* pair
      const answer = yield* TestNetwork.run(Effect.scoped(Effect.gen(function*() {
        const stream = yield* connection.open(protocol)
        // {"op": "keep"}, as docs/PROTOCOL.md writes it.
        for (const byte of [0x09, 0xa1, 0x62, 0x6f, 0x70, 0x64, 0x6b, 0x65, 0x65, 0x70]) {
          yield* stream.write(Uint8Array.of(byte))
        }
        return decodeResponse(Option.getOrThrow(yield* Stream.runHead(stream.read)))
      })))
      assert.deepStrictEqual(answer._tag === "Success" && answer.success?.header, { ok: true })
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("resets a stream whose request is not complete after five seconds, and one that is is answered", () =>
    Effect.gen(function*() {
      const { bob, connection } = yield* pair
      const reading = yield* Effect.scoped(Effect.gen(function*() {
        const slow = yield* connection.open(protocol)
        yield* slow.write(Uint8Array.of(0x09))
        const answer = yield* Effect.forkScoped(Effect.exit(Stream.runHead(slow.read)), { startImmediately: true })
        yield* TestClock.adjust("4999 millis")
        assert.isUndefined(answer.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        return yield* Fiber.join(answer)
      }))
      assert.isTrue(Exit.isFailure(reading))
      assert.isTrue(yield* connection.isOpen)
      const [inbound] = yield* bob.table.connections(
        connection.peer === bob.id ? (yield* bob.table.peers)[0]!.id : bob.id
      )
      assert.strictEqual(yield* inbound!.activeStreams, 0)
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("a goodbye is the reason that the other side tells", () =>
    Effect.gen(function*() {
      const { bob, connection } = yield* pair
      yield* TestNetwork.run(Effect.andThen(CodioRequests.goodbye(connection, "evicted"), connection.close))
      yield* TestClock.adjust(0)
      const [left] = bob.happened("PeerDisconnected")
      assert.deepStrictEqual(left?._tag === "PeerDisconnected" && [left.reason, left.remoteReason], [
        "remote",
        "evicted"
      ])
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("a goodbye to a peer that does not answer takes a quarter of a second", () =>
    Effect.gen(function*() {
      const { alice, bob, connection } = yield* pair
      const network = yield* SimNetwork
      yield* network.blackhole(alice.id, bob.id)
      const fiber = yield* Effect.forkChild(CodioRequests.goodbye(connection, "idle"), { startImmediately: true })
      yield* TestClock.adjust("249 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isDefined(fiber.pollUnsafe())
    }).pipe(Effect.provide(SimNetwork.layer())))
})
