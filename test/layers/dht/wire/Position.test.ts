import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { createHash } from "node:crypto"
import {
  closer,
  commonPrefixLength,
  compareDistance,
  distanceOf,
  ofDigest,
  type Position,
  positionOf
} from "../../../../src/layers/dht/wire/Position.ts"

/** Positions that mostly share a beginning of any length, as close peers do. */
const Parts = Schema.Struct({
  zeros: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 32 })),
  rest: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))
})

describe("Position", () => {
  it("is the sha2-256 of the bytes", () => {
    const bytes = new TextEncoder().encode("codio")
    const position = positionOf(bytes)
    const digest = createHash("sha256").update(bytes).digest()
    assert.deepStrictEqual([...position.bytes], [...digest])
    assert.deepStrictEqual([position.h0, position.h1], [digest.readUInt32BE(0), digest.readUInt32BE(4)])
  })

  it("refuses bytes that are no digest", () => {
    assert.throws(() => ofDigest(new Uint8Array(31)), RangeError)
  })

  it.prop("compares as the XOR of the whole does", { a: Parts, b: Parts, target: Parts }, (parts) => {
    const [one, other, goal] = [positionAt(parts.a), positionAt(parts.b), positionAt(parts.target)]
    const distances = [toNumber(one) ^ toNumber(goal), toNumber(other) ^ toNumber(goal)] as const
    const expected = distances[0] < distances[1] ? -1 : distances[0] > distances[1] ? 1 : 0
    assert.strictEqual(Math.sign(compareDistance(one, other, goal)), expected)
    assert.strictEqual(closer(one, other, goal), expected < 0)
  })

  it.prop("counts the leading bits that two share", { a: Parts, b: Parts }, (parts) => {
    const [a, b] = [positionAt(parts.a), positionAt(parts.b)]
    const difference = (toNumber(a) ^ toNumber(b)).toString(2)
    assert.strictEqual(commonPrefixLength(a, b), difference === "0" ? 256 : 256 - difference.length)
  })

  it.prop("measures a distance as a share of the keyspace", { a: Parts, b: Parts }, (parts) => {
    const [a, b] = [positionAt(parts.a), positionAt(parts.b)]
    const exact = Number((toNumber(a) ^ toNumber(b)) >> 192n) / 2 ** 64
    assert.closeTo(distanceOf(a, b), exact, 2 ** -62)
  })

  it("tells positions apart that differ in the last bit alone, at either end of the distance", () => {
    const base = new Uint8Array(32).fill(0xff)
    const last = Uint8Array.from(base, (byte, index) => index === 31 ? byte ^ 1 : byte)
    const [a, b] = [ofDigest(base), ofDigest(last)]
    assert.isTrue(closer(a, b, a))
    assert.isFalse(closer(b, a, a))
    assert.isFalse(closer(a, a, b))
    assert.strictEqual(commonPrefixLength(a, b), 255)
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function positionAt({ rest, zeros }: typeof Parts.Type): Position {
  return ofDigest(Uint8Array.from({ length: 32 }, (_, index) => index < zeros ? 0 : (rest[index - zeros] ?? 0)))
}

function toNumber({ bytes }: Position): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString("hex")}`)
}
