import { assert, describe, it } from "@effect/vitest"
import { encode as encodeCbor } from "cborg"
import { Result, Schema } from "effect"
import { varint } from "multiformats"
import * as CodioMessage from "../../src/schema/CodioMessage.ts"
import type { MessageError } from "../../src/schema/NetworkError.ts"

const { CodioRequest, CodioResponse, decodeRequest, decodeResponse, encodeRequest, encodeResponse, headerBytesMax } =
  CodioMessage

const concat = (...parts: ReadonlyArray<ArrayLike<number>>) =>
  Uint8Array.from(parts.flatMap((part) => Array.from(part)))

/** A header's frame, whatever it holds. */
const frame = (body: Uint8Array) => {
  const prefix = new Uint8Array(varint.encodingLength(body.length))
  varint.encodeTo(body.length, prefix)
  return concat(prefix, body)
}

const reasonOf = (bytes: Uint8Array) => {
  const decoded = decodeRequest(bytes)
  assert.isTrue(Result.isFailure(decoded))
  return Result.isFailure(decoded) ? decoded.failure.reason : {}
}

/** Fails the test unless both decoders end, with a header, with nothing or with a `MessageError`. */
const decodesInEveryCase = (bytes: Uint8Array) => {
  const results: ReadonlyArray<Result.Result<unknown, MessageError>> = [decodeRequest(bytes), decodeResponse(bytes)]
  for (const decoded of results) {
    if (Result.isFailure(decoded)) {
      assert.strictEqual(decoded.failure._tag, "MessageError")
      assert.isAbove(decoded.failure.message.length, 10)
    }
  }
}

/** Half a surrogate pair has no UTF-8. */
const hasUtf8 = (header: object) =>
  Object.values(header).every((value) => typeof value !== "string" || value.isWellFormed())

const sameRequest = Schema.toEquivalence(CodioRequest)
const sameResponse = Schema.toEquivalence(CodioResponse)

describe("CodioMessage", () => {
  it.prop(
    "reads the request it wrote, and leaves what follows",
    { request: CodioRequest, rest: Schema.Uint8Array },
    ({ request, rest }) => {
      if (!hasUtf8(request)) return
      const decoded = Result.getOrThrow(decodeRequest(concat(encodeRequest(request), rest)))
      assert.isDefined(decoded)
      assert.isTrue(sameRequest(decoded.header, request))
      assert.deepStrictEqual(new Uint8Array(decoded.rest), new Uint8Array(rest))
    }
  )

  it.prop(
    "reads the response it wrote, and leaves what follows",
    { response: CodioResponse, rest: Schema.Uint8Array },
    ({ response, rest }) => {
      if (!hasUtf8(response)) return
      const decoded = Result.getOrThrow(decodeResponse(concat(encodeResponse(response), rest)))
      assert.isDefined(decoded)
      assert.isTrue(sameResponse(decoded.header, response))
      assert.deepStrictEqual(new Uint8Array(decoded.rest), new Uint8Array(rest))
    }
  )

  it.prop(
    "waits for the rest of a header that is cut anywhere",
    { request: CodioRequest, response: CodioResponse },
    ({ request, response }) => {
      const asked = encodeRequest(request)
      for (let length = 0; length < asked.length; length++) {
        assert.isUndefined(Result.getOrThrow(decodeRequest(asked.subarray(0, length))))
      }
      const answered = encodeResponse(response)
      for (let length = 0; length < answered.length; length++) {
        assert.isUndefined(Result.getOrThrow(decodeResponse(answered.subarray(0, length))))
      }
    }
  )

  it.prop("does not throw for any bytes", { bytes: Schema.Uint8Array }, ({ bytes }) => {
    decodesInEveryCase(bytes)
    decodesInEveryCase(frame(bytes))
  })

  it.prop(
    "does not throw for a header with a wrong byte",
    { request: CodioRequest, at: Schema.Int, byte: Schema.Int },
    ({ at, byte, request }) => {
      const bytes = encodeRequest(request)
      bytes[Math.abs(at) % bytes.length] = byte
      decodesInEveryCase(bytes)
    }
  )

  it.prop("does not throw for CBOR of another shape", { value: Schema.Json }, ({ value }) => {
    decodesInEveryCase(frame(encodeCbor(value, { mapSorter: () => 0 })))
  })

  it("takes a header of 1 KiB, and refuses one byte more before it has come", () => {
    const hello = (bytes: number) => {
      const empty = encodeCbor({ op: "hello", agent: "" }).length
      // A text of this size has two more bytes of length than an empty one.
      return encodeRequest({ op: "hello", agent: "a".repeat(bytes - empty - 2) })
    }
    assert.strictEqual(headerBytesMax, 1024)
    assert.isDefined(Result.getOrThrow(decodeRequest(hello(headerBytesMax))))
    const over = hello(headerBytesMax + 1)
    const expected = { _tag: "TooLarge", bytes: headerBytesMax + 1, limit: headerBytesMax }
    assert.deepInclude(reasonOf(over), expected)
    assert.deepInclude(reasonOf(over.subarray(0, 3)), expected)
  })

  it("refuses a length that does not end within three bytes, or has more of them than it needs", () => {
    assert.isUndefined(Result.getOrThrow(decodeRequest(Uint8Array.of(0x80, 0x80))))
    assert.deepInclude(reasonOf(Uint8Array.of(0x80, 0x80, 0x80)), { _tag: "Malformed" })
    assert.deepInclude(reasonOf(Uint8Array.of(0xff, 0xff, 0xff, 0x7f)), { _tag: "Malformed" })
    assert.deepInclude(reasonOf(Uint8Array.of(0x80, 0x00)), { _tag: "Malformed" })
    assert.deepInclude(reasonOf(concat(Uint8Array.of(0x88, 0x80, 0x00), encodeCbor({ op: "keep" }))), {
      _tag: "Malformed"
    })
  })

  it("ignores keys that it does not know, and refuses operations and fields that it does not know", () => {
    const decoded = Result.getOrThrow(decodeRequest(frame(encodeCbor({ op: "keep", since: 1 }))))
    assert.deepStrictEqual(decoded?.header, { op: "keep" })
    for (
      const body of [
        {},
        { op: "jump" },
        { op: "hello" },
        { op: "goodbye", reason: "bored" },
        { ok: true },
        [],
        "keep",
        null,
        1
      ]
    ) {
      assert.deepInclude(reasonOf(frame(encodeCbor(body))), { _tag: "Malformed" })
    }
    for (const body of [{ ok: "yes" }, { ok: false }, { op: "keep" }]) {
      assert.isTrue(Result.isFailure(decodeResponse(frame(encodeCbor(body)))))
    }
  })

  it("takes unknown keys that are nested four deep, the header's own map included, and refuses a fifth level", () => {
    const known = { op: "keep" } as const
    for (
      const [deepest, tooDeep] of [
        [[[[]]], [[[[]]]]],
        [{ a: { b: { c: 1 } } }, { a: { b: { c: { d: 1 } } } }],
        [[{ a: [1, 2] }, 3], [1, [{ a: [[]] }]]]
      ]
    ) {
      assert.deepStrictEqual(
        Result.getOrThrow(decodeRequest(frame(encodeCbor({ ...known, x: deepest }))))?.header,
        known
      )
      assert.deepStrictEqual(reasonOf(frame(encodeCbor({ ...known, x: tooDeep }))), {
        _tag: "Malformed",
        detail: "nested deeper than 4 levels"
      })
    }
    // Neighbours are not nested: a list that has ended, with or without a length, leaves its level free.
    const wide = { ...known, x: Array.from({ length: 40 }, () => [[]]) }
    assert.deepStrictEqual(Result.getOrThrow(decodeRequest(frame(encodeCbor(wide))))?.header, known)
    const indefinite = concat([0xa2, 0x62, 0x6f, 0x70, 0x64], Buffer.from("keep"), [0x61, 0x78, 0x83], [
      ...[0x9f, 0x80, 0xff],
      ...[0x9f, 0x80, 0xff],
      ...[0x81, 0x80]
    ])
    assert.deepStrictEqual(Result.getOrThrow(decodeRequest(frame(indefinite)))?.header, known)
  })

  it("refuses what would be expensive or ambiguous to decode", () => {
    const hostile = {
      "an empty header": new Uint8Array(0),
      "arrays nested a thousand times": new Uint8Array(headerBytesMax).fill(0x81),
      "tags nested a thousand times": new Uint8Array(headerBytesMax).fill(0xc1),
      "maps nested 256 times": concat(...Array.from({ length: 255 }, () => Uint8Array.of(0xa1, 0x61, 0x61)), [0xa0]),
      "arrays without a length nested a thousand times": new Uint8Array(headerBytesMax).fill(0x9f),
      "an array that claims 2^53 - 1 elements": Uint8Array.of(0x9b, 0x00, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
      "a text that claims 4 GiB": Uint8Array.of(0x7a, 0xff, 0xff, 0xff, 0xff),
      "a map of indefinite length without an end": Uint8Array.of(0xbf, 0x62, 0x6f, 0x70),
      "a second value after the header": concat(encodeCbor({ op: "keep" }), encodeCbor(1)),
      "a text that is not UTF-8": Uint8Array.of(0xa1, 0x62, 0x6f, 0x70, 0x64, 0xff, 0xfe, 0xfd, 0xfc)
    }
    for (const [what, body] of Object.entries(hostile)) {
      const started = performance.now()
      assert.deepInclude(reasonOf(frame(body)), { _tag: "Malformed" }, what)
      assert.isBelow(performance.now() - started, 500, what)
    }
  })
})
