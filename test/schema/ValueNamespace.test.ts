import { assert, describe, it } from "@effect/vitest"
import { Effect, Order, Redacted, Schema } from "effect"
import * as ValueNamespace from "../../src/schema/ValueNamespace.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"

const Score = Schema.Struct({ player: Schema.String, points: Schema.Int })
const Scores = ValueNamespace.make({
  name: "scores",
  schema: ValueNamespace.fromJson(Score),
  order: Order.mapInput(Order.Number, ({ points }: typeof Score.Type) => points),
  belongs: (path, { player }) => path === player
})
const context = {
  signer: { peerId: SimNetwork.peerId("alice"), privateKey: Redacted.make(new Uint8Array()) },
  previous: undefined
}
const seal = (player: string, points: number) => Scores.seal(player, { player, points }, context)
const text = (value: string) => new TextEncoder().encode(value)

describe("ValueNamespace", () => {
  it.effect("is a schema of bytes, an order, and where a value may stand", () =>
    Effect.gen(function*() {
      const bytes = yield* seal("alice", 3)
      assert.strictEqual(new TextDecoder().decode(bytes), `{"player":"alice","points":3}`)
      assert.deepStrictEqual(yield* Scores.decode("alice", bytes), { player: "alice", points: 3 })
      yield* Scores.check("alice", bytes)
      assert.isTrue(yield* Scores.replaces("alice", yield* seal("alice", 4), bytes))
      assert.isFalse(yield* Scores.replaces("alice", bytes, bytes))
    }))

  it.effect("refuses what is none of its values, and says why", () =>
    Effect.gen(function*() {
      const why = (path: string, bytes: Uint8Array) =>
        Effect.map(Effect.flip(Scores.check(path, bytes)), ({ message }) => message)
      assert.include(yield* why("bob", yield* seal("alice", 3)), "/scores/bob: the value belongs under another key")
      assert.include(yield* why("alice", text("{")), "/scores/alice: no value of the namespace")
      assert.include(yield* why("alice", Uint8Array.of(0xff)), "expected UTF-8")
      assert.include(
        yield* why("alice", new Uint8Array(ValueNamespace.valueBytesMax + 1)),
        "8193 bytes are over the limit of 8192"
      )
      assert.include((yield* Effect.flip(seal("alice", 0.5))).message, "/scores/alice: no value to store")
    }))

  it("has a name without slashes and spaces", () => {
    for (const name of ["", "a/b", "a b"]) {
      assert.throws(() => ValueNamespace.make({ name, schema: Schema.Uint8Array, order: Order.make(() => 0) }))
    }
  })

  it.effect("makes keys of 255 bytes at most, and finds its path in them", () =>
    Effect.gen(function*() {
      const key = yield* ValueNamespace.keyBytes("scores", "älice/of/wonderland")
      assert.deepStrictEqual(key, text("/scores/älice/of/wonderland"))
      assert.strictEqual(ValueNamespace.pathOf("scores", key), "älice/of/wonderland")
      assert.isUndefined(ValueNamespace.pathOf("score", key))
      assert.isUndefined(ValueNamespace.pathOf("scores", text("/scores/")))
      assert.isUndefined(ValueNamespace.pathOf("scores", text("scores/alice")))
      assert.isUndefined(ValueNamespace.pathOf("scores", Uint8Array.of(...text("/scores/"), 0xff)))
      assert.strictEqual((yield* ValueNamespace.keyBytes("scores", "x".repeat(247))).length, 255)
      yield* Effect.flip(ValueNamespace.keyBytes("scores", "x".repeat(248)))
      yield* Effect.flip(ValueNamespace.keyBytes("scores", ""))
    }))
})
