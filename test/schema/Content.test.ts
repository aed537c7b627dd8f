import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"
import { ContentKey, fromBytes, fromCid, fromText, toBytes } from "../../src/schema/Content.ts"

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
      assert.strictEqual(fromCid(key), key)
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
      assert.strictEqual(fromCid(cid), key)
    }
    assert.throws(() => fromCid("no CID"))
  })

  it("has at most 80 bytes", () => {
    // An identity multihash: its code, its length, its bytes.
    const multihash = (bytes: number) => keyOf(Digest.create(0, new Uint8Array(bytes - 2).fill(1)).bytes)
    assert.isTrue(isKey(multihash(80)))
    assert.isFalse(isKey(multihash(81)))
    assert.isFalse(isKey(""))
  })

  it.prop("takes only multihashes, and does not throw for any text", {
    text: Schema.String,
    bytes: Schema.Uint8Array,
    at: Schema.Int
  }, (input) => {
    const { at, bytes, text } = input
    const key = fromBytes(bytes)
    const index = Math.abs(at) % key.length
    for (
      const candidate of [text, keyOf(bytes), key.slice(0, index), `${key.slice(0, index)}0${key.slice(index + 1)}`]
    ) {
      if (isKey(candidate)) Digest.decode(toBytes(candidate as ContentKey))
    }
    assert.isFalse(isKey(key.slice(0, index)))
    assert.isFalse(isKey(`${key.slice(0, index)}0${key.slice(index + 1)}`))
  })
})
