import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { CID } from "multiformats/cid"
import { ContentKey, fromBytes, fromCid, fromRustRecordKey, fromText, toBytes } from "../../src/schema/Content.ts"
import { InvalidContentKey } from "../../src/schema/NetworkError.ts"

const isKey = Schema.is(ContentKey)
const bytesOf = (text: string) => new TextEncoder().encode(text)
const keyOf = (bytes: Uint8Array) => base58btc.baseEncode(bytes)

describe("ContentKey", () => {
  it.prop(
    "of any bytes is a sha2-256 multihash, which reads as a CID of version 0",
    { bytes: Schema.Uint8Array },
    ({ bytes }) => {
      const key = fromBytes(bytes)
      assert.isTrue(isKey(key))
      assert.isTrue(key.startsWith("Qm"))
      assert.strictEqual(toBytes(key).length, 34)
      assert.strictEqual(keyOf(toBytes(key)), key)
      assert.deepStrictEqual(fromCid(key), Result.succeed(key))
    }
  )

  it.prop("of a text is that of its UTF-8 bytes", { text: Schema.String }, ({ text }) => {
    assert.strictEqual(fromText(text), fromBytes(bytesOf(text)))
  })

  it("is known: sha2-256 of \"hello world\"", () => {
    assert.strictEqual(fromText("hello world"), "QmaozNR7DZHQK1ZcU9p7QdrshMvXqWK6gpu5rmrkPdT3L4")
  })

  it("is the same for all CIDs of one content", () => {
    const key = fromText("content")
    const { multihash } = CID.parse(key)
    for (const cid of [key, CID.createV1(0x70, multihash).toString(), CID.createV1(0x55, multihash).toString()]) {
      assert.deepStrictEqual(fromCid(cid), Result.succeed(key))
    }
    const problem = Result.getOrThrow(Result.flip(fromCid("no\nCID")))
    assert.strictEqual(problem._tag, "InvalidContentKey")
    assert.strictEqual(problem.message, "\"no\\nCID\" is not a CID: expected text such as bafy... or Qm...")
  })

  it("has 1 to 80 bytes", () => {
    for (const length of [1, 34, 80]) assert.isTrue(isKey(keyOf(new Uint8Array(length).fill(1))))
    assert.isFalse(isKey(keyOf(new Uint8Array(81).fill(1))))
    assert.isFalse(isKey(""))
  })

  it.prop("of Rust is its very bytes", { bytes: Schema.Uint8Array }, ({ bytes }) => {
    if (bytes.length >= 1 && bytes.length <= 80) {
      assert.deepStrictEqual(toBytes(fromRustRecordKey(bytes)), bytes)
      assert.isTrue(isKey(fromRustRecordKey(bytes)))
    } else assert.throws(() => fromRustRecordKey(bytes), InvalidContentKey)
  })

  it("of Rust may be written as text, and is no hash of it", () => {
    assert.deepStrictEqual(toBytes(fromRustRecordKey("my-content-key")), bytesOf("my-content-key"))
    assert.notStrictEqual(fromRustRecordKey("my-content-key"), fromText("my-content-key"))
    assert.strictEqual(fromRustRecordKey(toBytes(fromText("text"))), fromText("text"))
    assert.throws(() => fromRustRecordKey(""), /1 to 80 bytes, this one has 0/)
    assert.throws(() => fromRustRecordKey("x".repeat(81)), /1 to 80 bytes, this one has 81/)
  })

  it.prop("takes only base58, and does not throw for any text", {
    text: Schema.String,
    bytes: Schema.Uint8Array,
    at: Schema.Int
  }, (input) => {
    const { at, bytes, text } = input
    const key = fromBytes(bytes)
    const index = Math.abs(at) % key.length
    const broken = `${key.slice(0, index)}0${key.slice(index + 1)}`
    for (const candidate of [text, keyOf(bytes), key.slice(0, index), broken]) {
      if (isKey(candidate)) assert.strictEqual(keyOf(toBytes(candidate as ContentKey)), candidate)
    }
    assert.isFalse(isKey(broken))
  })
})
