import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Option, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Header from "../../../src/layers/codio/Header.ts"
import { decodeRequest, encodeRequest, headerBytesMax } from "../../../src/schema/CodioMessage.ts"
import type { ByteStream } from "../../../src/services/Transport.ts"

/** A stream that gives the bytes in chunks of this size. */
const chunked = (bytes: Uint8Array, size: number): Pick<ByteStream, "read"> => {
  const chunks: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size))
  return { read: Stream.fromIterable(chunks) }
}

const request = { op: "hello", agent: "a".repeat(headerBytesMax - 64) } as const

describe("a header", () => {
  it.effect("is read from chunks of any size, and what follows it is dropped", () =>
    Effect.gen(function*() {
      const bytes = Buffer.concat([encodeRequest(request), new Uint8Array(10)])
      for (const size of [1, 2, 3, 1_000, bytes.length]) {
        assert.deepStrictEqual(yield* Header.read(chunked(bytes, size), decodeRequest), request)
      }
    }))

  it.effect("that comes byte by byte is looked at twice, and each of its bytes is copied once", () =>
    Effect.gen(function*() {
      const decoded: Array<Uint8Array> = []
      const bytes = encodeRequest(request)
      yield* Header.read(chunked(bytes, 1), (given) => {
        decoded.push(given)
        return decodeRequest(given)
      })
      assert.deepStrictEqual(decoded.map(({ length }) => length), [2, bytes.length])
      // Joining the pieces anew would give another buffer each time.
      assert.strictEqual(decoded[0]!.buffer, decoded[1]!.buffer)
    }))

  it.effect("that comes in one chunk is not copied", () =>
    Effect.gen(function*() {
      const bytes = encodeRequest(request)
      yield* Header.read(chunked(bytes, bytes.length), (given) => {
        assert.strictEqual(given.buffer, bytes.buffer)
        return decodeRequest(given)
      })
    }))

  it.effect("has five seconds to arrive, however its bytes are spread over them", () =>
    Effect.gen(function*() {
      const bytes = encodeRequest({ op: "keep" })
      for (const [millis, isLate] of [[4_999, false], [5_000, true]] as const) {
        const chunks = yield* Queue.unbounded<Uint8Array>()
        const reading = yield* Effect.forkChild(
          Header.read({ read: Stream.fromQueue(chunks) }, decodeRequest),
          { startImmediately: true }
        )
        for (const byte of bytes.subarray(0, -1)) yield* Queue.offer(chunks, Uint8Array.of(byte))
        yield* TestClock.adjust(millis)
        yield* Queue.offer(chunks, bytes.subarray(-1))
        const exit = yield* Fiber.await(reading)
        const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
        assert.deepStrictEqual(
          error?._tag === "MessageError" ? error.reason : undefined,
          isLate ? { _tag: "Late", after: Duration.seconds(5) } : undefined
        )
      }
    }))

  it.effect("over the limit fails as soon as its length has come", () =>
    Effect.gen(function*() {
      // 1,025 bytes are announced, none of them comes.
      const read = Stream.concat(Stream.make(Uint8Array.of(0x81), Uint8Array.of(0x08)), Stream.never)
      const error = yield* Effect.flip(Header.read({ read }, decodeRequest))
      assert.deepStrictEqual(error._tag === "MessageError" && error.reason, {
        _tag: "TooLarge",
        bytes: 1_025,
        limit: 1_024
      })
    }))

  it.effect("that is cut short fails", () =>
    Effect.gen(function*() {
      const bytes = encodeRequest(request)
      const exit = yield* Effect.exit(Header.read(chunked(bytes.subarray(0, -1), 1_000), decodeRequest))
      assert.isTrue(Exit.isFailure(exit))
    }))
})
