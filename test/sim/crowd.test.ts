/**
 * An attacker makes ids until enough of them are nearer to a key than all honest nodes: what simulated nodes notice of
 * it, what they do about it, and what they cannot notice. test/heavy/dht/FalseIds.heavy.test.ts has the other lies,
 * docs/SCALING.md a list and the figures of larger networks.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ContentKey from "../../src/schema/Content.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as LogLines from "../support/LogLines.ts"
import { honest, join, makeNode, seen, warnings } from "../support/SimCrowd.ts"

const key = ContentKey.fromText("some content")
/**
 * Of the ids of `false 0`, `false 1` and so on the first 1,271 hold twenty that are nearer to the key than all honest
 * ids.
 */
const crowd = [
  [100, 112, 142, 245, 352, 353, 487, 551, 577, 646],
  [656, 872, 901, 941, 988, 1025, 1236, 1249, 1262, 1270]
].flat().map((attempt) => `false ${attempt}`)

const smallKey = ContentKey.fromText("a film")
const smallCrowd = [9, 12, 15, 32, 62, 65, 130, 135, 156, 161].map((attempt) => `false ${attempt}`)

describe("a crowd of false ids around a key", () => {
  it.effect(
    "is seen, counted and looked beyond by nodes that know the network, and by no others",
    () =>
      Effect.gen(function*() {
        yield* join(honest)
        yield* join([...crowd, ...smallCrowd], { lies: { withholds: true } })
        const [provider, seeker] = [yield* makeNode("provider", 12), yield* makeNode("seeker", 12)]
        const [newcomer, stranger] = [yield* makeNode("newcomer", 3), yield* makeNode("stranger", 3)]
        const before = yield* seen
        const since = Effect.map(seen, (count) => count - before)
        // As many false ids as a record has copies: none of the closest nodes keeps a record.
        const ids = new Set<string>(crowd.map(SimNetwork.peerId))
        assert.isTrue((yield* seeker.closest(key)).every((id) => ids.has(id)))

        // A node that has hardly looked anything up cannot tell how near is too near.
        yield* newcomer.provide(key)
        assert.strictEqual(yield* since, 0)
        yield* provider.provide(key)
        assert.strictEqual(yield* since, 1)
        assert.strictEqual(yield* warnings, 1)
        assert.deepStrictEqual(yield* stranger.find(key), [])
        assert.strictEqual(yield* since, 1)
        assert.include(yield* seeker.find(key), provider.id)
        assert.strictEqual(yield* since, 2)
        assert.strictEqual(yield* warnings, 2)

        // A crowd that is smaller than the number of copies does no harm, whether it is noticed or not.
        yield* newcomer.provide(smallKey)
        assert.deepStrictEqual(yield* stranger.find(smallKey), [newcomer.id])
      }).pipe(Effect.scoped, LogLines.capture, Effect.provide(SimNetwork.layerWithClock({ seed: 1 }))),
    60_000
  )
})
