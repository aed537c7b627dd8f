import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Stream } from "effect"
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

  it.effect("of 16 KiB that comes byte by byte is decoded a few times, not once for each byte", () =>
    Effect.gen(function*() {
      let decodes = 0
      yield* Header.read(chunked(encodeRequest(request), 1), (bytes) => {
        decodes++
        return decodeRequest(bytes)
      })
      assert.isAtMost(decodes, 5)
    }))

  it.effect("that is cut short fails", () =>
    Effect.gen(function*() {
      const bytes = encodeRequest(request)
      const exit = yield* Effect.exit(Header.read(chunked(bytes.subarray(0, -1), 1_000), decodeRequest))
      assert.isTrue(Exit.isFailure(exit))
    }))
})
