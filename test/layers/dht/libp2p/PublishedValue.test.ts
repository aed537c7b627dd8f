import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { base58btc } from "multiformats/bases/base58"
import * as PublishedValue from "../../../../src/layers/dht/libp2p/PublishedValue.ts"
import * as SeededIdentity from "../../../../src/layers/machine/SeededIdentity.ts"
import { IdentityError } from "../../../../src/schema/NetworkError.ts"

const alice = SeededIdentity.make(new Uint8Array(32).fill(1))
const bob = SeededIdentity.make(new Uint8Array(32).fill(2))
const path = PublishedValue.path(alice.peerId, "profile")
const { check, decode, replaces, seal } = PublishedValue.namespace
const value = new TextEncoder().encode("hello")
const sealed = (sequence?: number, previous?: PublishedValue.PublishedValue) =>
  seal(path, { value, sequence }, { signer: alice, previous })

describe("PublishedValue", () => {
  it.effect("comes back as it was published, with the publisher of its signature", () =>
    Effect.gen(function*() {
      const envelope = yield* sealed(7)
      const found = yield* decode(path, envelope)
      assert.deepStrictEqual({ ...found }, {
        publisher: alice.peerId,
        name: "profile",
        sequence: 7,
        value,
        envelope
      })
    }))

  it.effect("has the bytes that docs/PROTOCOL.md shows", () =>
    Effect.gen(function*() {
      const bytes = Buffer.from(yield* sealed(7))
      // [1: public key][2: payload type][3: payload][5: signature], each a length and its bytes.
      const key = `/codio/${path}`
      const payload = Buffer.concat([
        Buffer.from("0000000000000007", "hex"),
        Buffer.from([0, key.length]),
        Buffer.from(key),
        value
      ])
      const publicKey = Buffer.concat([Buffer.from("0a2408011220", "hex"), Buffer.from(rawKey(alice.peerId))])
      const head = Buffer.concat([
        publicKey,
        Buffer.from([0x12, 12]),
        Buffer.from("/codio/value"),
        Buffer.from([0x1a, payload.length]),
        payload,
        Buffer.from([0x2a, 64])
      ])
      assert.deepStrictEqual(bytes.subarray(0, -64), head)
    }))

  it.effect("is now by the clock where no sequence is given, and always later than the one before", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000)
      const first = yield* decode(path, yield* sealed())
      assert.strictEqual(first.sequence, 1_000)
      const second = yield* decode(path, yield* sealed(undefined, first))
      assert.strictEqual(second.sequence, 1_001)
      yield* TestClock.setTime(5_000)
      assert.strictEqual((yield* decode(path, yield* sealed(undefined, second))).sequence, 5_000)
      for (const sequence of [-1, 0.5, 2 ** 53]) {
        assert.include((yield* Effect.flip(sealed(sequence))).message, "is no sequence")
      }
    }))

  it.effect("wins by its sequence, and of two with one the same everywhere", () =>
    Effect.gen(function*() {
      const [low, high] = yield* Effect.all([sealed(9), sealed(10)])
      assert.isTrue(yield* replaces(path, high, low))
      assert.isFalse(yield* replaces(path, low, high))
      assert.isFalse(yield* replaces(path, low, low))
      const twin = yield* seal(path, { value: Uint8Array.of(1), sequence: 9 }, { signer: alice, previous: undefined })
      assert.notStrictEqual(yield* replaces(path, twin, low), yield* replaces(path, low, twin))
    }))

  it.effect("is none with any byte changed, cut short, or under another key", () =>
    Effect.gen(function*() {
      const envelope = yield* sealed(7)
      yield* check(path, envelope)
      for (let index = 0; index < envelope.length; index++) {
        const changed = envelope.slice()
        changed[index]! ^= 1
        yield* Effect.flip(check(path, changed))
        yield* Effect.flip(check(path, envelope.slice(0, index)))
      }
      yield* Effect.flip(check(PublishedValue.path(alice.peerId, "other"), envelope))
      yield* Effect.flip(check(PublishedValue.path(bob.peerId, "profile"), envelope))
    }))

  it.effect("is none when another signs for the key", () =>
    Effect.gen(function*() {
      const forged = yield* seal(path, { value }, { signer: bob, previous: undefined })
      const error = yield* Effect.flip(check(path, forged))
      assert.include(error.message, `a value of ${bob.peerId} for the key /codio/${path}`)
    }))
})

describe("SeededIdentity", () => {
  it("is the peer that other implementations make of the seed", () => {
    assert.strictEqual(alice.peerId, "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5")
    assert.throws(() => SeededIdentity.make(new Uint8Array(31)), IdentityError)
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The raw Ed25519 key that such a peer id holds. */
function rawKey(peer: string): Uint8Array {
  return base58btc.baseDecode(peer).subarray(6)
}
