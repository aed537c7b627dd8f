/**
 * Attacks by false ids around a key on simulated nodes, besides keeping no records (test/sim/crowd.test.ts): which of
 * them a node notices. docs/SCALING.md has the list.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Order, Schema } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { compareDistance, positionOf } from "../../../src/layers/dht/wire/Position.ts"
import * as ContentKey from "../../../src/schema/Content.ts"
import * as ValueNamespace from "../../../src/schema/ValueNamespace.ts"
import { ValueNamespaces } from "../../../src/services/ValueNamespaces.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../../src/testing/TestNetwork.ts"
import * as LogLines from "../../support/LogLines.ts"
import { honest, join, makeNode, seen, warnings } from "../../support/SimCrowd.ts"

/** The random ids that an attacker has made. */
const made = Array.from({ length: 4000 }, (_, index) => `false ${index}`)

/** The made ids that are nearest to a key, nearer than all honest ids. */
const crowdAround = (bytes: Uint8Array, count: number): ReadonlyArray<string> => {
  const target = positionOf(bytes)
  const positionOfName = (name: string) => positionOf(base58btc.baseDecode(SimNetwork.peerId(name)))
  const positions = new Map([...made, ...honest].map((name) => [name, positionOfName(name)]))
  const nearest = [...positions].sort((a, b) => compareDistance(a[1], b[1], target)).slice(0, count).map(([name]) =>
    name
  )
  assert.isTrue(nearest.every((name) => name.startsWith("false")))
  return nearest
}

const scores = ValueNamespace.make({
  name: "scores",
  schema: ValueNamespace.fromJson(Schema.Struct({ points: Schema.Int })),
  order: Order.mapInput(Order.Number, ({ points }: { readonly points: number }) => points)
})

describe("a crowd of false ids around a key", () => {
  it.effect("that names only itself hides no provider, and nobody sees which providers it has invented", () =>
    Effect.gen(function*() {
      yield* join(honest)
      const key = ContentKey.fromText("some content")
      const crowd = crowdAround(ContentKey.toBytes(key), 20)
      yield* join(crowd, { lies: { withholds: true, names: crowd, providers: ["nobody", "no one"] } })
      const [provider, seeker] = [yield* makeNode("provider", 12), yield* makeNode("seeker", 12)]
      const before = yield* seen
      yield* provider.provide(key)
      const found = yield* seeker.find(key)
      assert.deepStrictEqual(
        new Set<string>(found),
        new Set<string>([provider.id, SimNetwork.peerId("nobody"), SimNetwork.peerId("no one")])
      )
      assert.strictEqual((yield* seen) - before, 2)
      assert.strictEqual(yield* warnings, 2)
    }).pipe(Effect.scoped, LogLines.capture, Effect.provide(SimNetwork.layerWithClock({ seed: 1 }))))

  it.effect("takes a value with all its copies, and three disjoint paths do not find one; a smaller one does no harm", () =>
    Effect.gen(function*() {
      yield* join(honest)
      const [lost, kept] = ["ada", "erin"] as const
      const bytesOf = (path: string) => ValueNamespace.keyBytes("scores", path)
      yield* join(crowdAround(yield* bytesOf(lost), 20), { lies: { withholds: true } })
      yield* join(crowdAround(yield* bytesOf(kept), 12), { lies: { withholds: true } })
      const [writer, reader] = [yield* makeNode("writer", 12), yield* makeNode("reader", 12)]
      const before = yield* seen
      const put = (path: string) => TestNetwork.run(writer.dht.putValue(scores, path, { points: 7 }, { quorum: 20 }))
      const get = (path: string) => TestNetwork.run(reader.dht.getValue(scores, path))
      // A node that claims to have stored the record is believed.
      yield* put(lost)
      yield* put(kept)
      const error = yield* Effect.flip(get(lost))
      assert.strictEqual(error._tag === "DhtError" ? error.reason._tag : error._tag, "NotFound")
      assert.deepStrictEqual(yield* get(kept), { points: 7 })
      assert.strictEqual((yield* seen) - before, 0)
    }).pipe(
      Effect.scoped,
      Effect.provideService(ValueNamespaces, [scores]),
      Effect.provide(SimNetwork.layerWithClock({ seed: 1 }))
    ))

  it.effect("of one subnet has few slots in a table, and a lookup ends with it all the same", () =>
    Effect.gen(function*() {
      yield* join(honest)
      const key = ContentKey.fromText("some content")
      const crowd = crowdAround(ContentKey.toBytes(key), 20)
      yield* join(crowd, { lies: { withholds: true }, subnet: "192.0.2" })
      const ids = new Set<string>(crowd.map(SimNetwork.peerId))
      const [provider, seeker] = [yield* makeNode("provider", 12), yield* makeNode("seeker", 12)]
      // Each honest node names five false ids, which name the others.
      assert.isTrue((yield* seeker.closest(key)).every((id) => ids.has(id)))
      const before = yield* seen
      yield* provider.provide(key)
      assert.deepStrictEqual(yield* seeker.find(key), [provider.id])
      assert.strictEqual((yield* seen) - before, 2)
    }).pipe(Effect.scoped, LogLines.capture, Effect.provide(SimNetwork.layerWithClock({ seed: 1 }))))
})
