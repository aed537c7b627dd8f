import { assert, describe, it } from "@effect/vitest"
import { Libp2pRecord } from "@libp2p/record"
import { Schema } from "effect"
import { decodeRecord, encodeRecord } from "../../../../src/layers/dht/wire/Record.ts"

const Bytes = Schema.Uint8Array
/** Up to the year 2242. */
const Time = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 43 }))
/** Fields in any order, with one that nobody knows: number 9, of each type. */
const Part = Schema.Union([
  Schema.Struct({ tag: Schema.Literals([0x0a, 0x12, 0x2a, 0x4a]), value: Bytes }),
  Schema.Struct({ tag: Schema.Literal(0x48), value: Schema.Literals([0, 1, 127]) })
])

describe("the record of a value", () => {
  it.prop(
    "is written as @libp2p/record writes it",
    { key: Bytes, value: Bytes, time: Time },
    ({ key, time, value }) => {
      assert.deepStrictEqual(
        hex(encodeRecord({ key, value }, time)),
        hex(new Libp2pRecord(key, value, new Date(time)).serialize())
      )
    }
  )

  it("has all nine digits of its time", () => {
    for (const time of [0, 1, 45, 999, 1_000, 1_800_000_000_007]) {
      const record = encodeRecord({ key: Uint8Array.of(1), value: Uint8Array.of(2) }, time)
      assert.strictEqual(Libp2pRecord.deserialize(record).timeReceived.getTime(), time)
      assert.match(Buffer.from(record).toString("latin1"), /T\d\d:\d\d:\d\d\.\d{3}000000Z$/)
    }
  })

  it.prop("is read as @libp2p/record reads it, whatever the order of its fields and with others between", {
    parts: Schema.Array(Part)
  }, ({ parts }) => {
    const bytes = Buffer.concat(
      parts.map(({ tag, value }) =>
        typeof value === "number" ? Buffer.from([tag, value]) : Buffer.concat([Buffer.from([tag, value.length]), value])
      )
    )
    const ours = decodeRecord(bytes)!
    const theirs = Libp2pRecord.deserialize(bytes)
    assert.deepStrictEqual([hex(ours.key), hex(ours.value)], [hex(theirs.key), hex(theirs.value)])
  })

  it("is none when it ends in a field, as for @libp2p/record", () => {
    const record = encodeRecord({ key: Uint8Array.of(1, 2), value: Uint8Array.of(3, 4) }, 0)
    let refused = 0
    for (let length = 0; length < record.length; length++) {
      const cut = record.subarray(0, length)
      const isNone = decodeRecord(cut) === undefined
      assert.strictEqual(isNone, throws(() => Libp2pRecord.deserialize(cut)), `${length} bytes`)
      if (isNone) refused++
    }
    // Cut between two fields, it is a record that lacks one.
    assert.strictEqual(refused, record.length - 3)
    assert.isUndefined(decodeRecord(Uint8Array.of(0x5b)), "a field of a type that there is not")
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex")
}

function throws(body: () => void): boolean {
  try {
    body()
    return false
  } catch {
    return true
  }
}
