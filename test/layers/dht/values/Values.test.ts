import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import * as SeededIdentity from "../../../../src/layers/machine/SeededIdentity.ts"
import * as Values from "../../../../src/layers/dht/values/Values.ts"
import * as ValueNamespace from "../../../../src/schema/ValueNamespace.ts"

/** The greater number wins. */
const Numbers = ValueNamespace.make({
  name: "numbers",
  schema: ValueNamespace.fromJson(Schema.Int),
  order: (a, b) => a < b ? -1 : a > b ? 1 : 0
})

const copy = (number: number) => new TextEncoder().encode(String(number))

/** Nodes with these copies, nearest first; the last ones are not among the closest. Tells who is given what. */
const makeWorld = (options: {
  readonly copies: ReadonlyArray<Uint8Array | undefined>
  readonly closest: number
  readonly local?: number
  readonly isLate?: boolean
}) => {
  const given: Array<readonly [number, ReadonlyArray<string>]> = []
  const names = options.copies.map((_, index) => `n${index}`)
  const answers = options.copies.map((bytes, index): Values.ValueAnswer<string> => ({ from: names[index]!, bytes }))
  const { getValue } = Values.make<string>({
    namespaces: [Numbers],
    signer: SeededIdentity.make(new Uint8Array(32).fill(1)),
    local: () => Effect.succeed(options.local === undefined ? undefined : copy(options.local)),
    put: () => Effect.die("nobody puts"),
    get: () =>
      Stream.concat(
        Stream.fromIterable(answers),
        options.isLate === true ? Stream.empty : Stream.succeed({ closest: names.slice(0, options.closest) })
      ),
    repair: (_, bytes, nodes) => Effect.sync(() => void given.push([Number(new TextDecoder().decode(bytes)), nodes]))
  })
  return { given, get: (quorum?: number) => getValue(Numbers, "x", { quorum }) }
}

describe("Values", () => {
  it.effect("gives the value that wins to those of the closest that have another, or none", () =>
    Effect.gen(function*() {
      const copies = [copy(3), copy(2), undefined, Uint8Array.of(0), copy(3), copy(1), undefined]
      const { get, given } = makeWorld({ copies, closest: 5 })
      assert.strictEqual(yield* get(), 3)
      assert.deepStrictEqual(given, [[3, ["n1", "n2", "n3"]]])
    }))

  it.effect("passes over copies that the namespace refuses, also as the first, and counts none for a quorum", () =>
    Effect.gen(function*() {
      const copies = [Uint8Array.of(0), copy(3), Uint8Array.of(1), undefined]
      assert.strictEqual(yield* makeWorld({ copies, closest: 0 }).get(), 3)
      const error = yield* Effect.flip(makeWorld({ copies, closest: 0 }).get(2))
      assert.deepInclude(error.reason, { _tag: "QuorumFailed", quorum: 2, asked: 4, acknowledged: 1 })
      const none = yield* Effect.flip(makeWorld({ copies: [Uint8Array.of(0)], closest: 1 }).get())
      assert.strictEqual(none.reason._tag, "NotFound")
    }))

  it.effect("gives this node's own where that wins", () =>
    Effect.gen(function*() {
      const { get, given } = makeWorld({ copies: [copy(3), undefined], closest: 2, local: 4 })
      assert.strictEqual(yield* get(), 4)
      assert.deepStrictEqual(given, [[4, ["n0", "n1"]]])
    }))

  it.effect("gives nobody anything after a lookup that was cut off, or that found nothing", () =>
    Effect.gen(function*() {
      const late = makeWorld({ copies: [copy(3), undefined], closest: 2, isLate: true })
      assert.strictEqual(yield* late.get(), 3)
      const soon = makeWorld({ copies: [undefined, copy(3), copy(4)], closest: 3 })
      assert.strictEqual(yield* soon.get(1), 3)
      const none = makeWorld({ copies: [undefined, undefined], closest: 2 })
      assert.strictEqual((yield* Effect.flip(none.get())).reason._tag, "NotFound")
      const few = makeWorld({ copies: [copy(3), undefined], closest: 2 })
      assert.strictEqual((yield* Effect.flip(few.get(2))).reason._tag, "QuorumFailed")
      assert.deepStrictEqual([late.given, soon.given, none.given, few.given], [[], [], [], []])
    }))
})
