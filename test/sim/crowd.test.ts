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

const hiddenKey = ContentKey.fromText("a small network")
/** Of the first 60,000 ids, which take some seconds to make, the twenty nearest to the key. */
const groundCrowd = [
  [46854, 56326, 6643, 18991, 55685, 28899, 28751, 2189, 43498, 48843],
  [32864, 35833, 21987, 40315, 25066, 58405, 34184, 15305, 31361, 43925]
].flat().map((attempt) => `false ${attempt}`)

describe("a crowd of ground ids around a key of a small network", () => {
  for (const size of [22, 40, 59]) {
    it.effect(
      `hides it from none of ${size} honest nodes, newcomers included, and is seen by nodes that know the network`,
      () =>
        Effect.gen(function*() {
          yield* join(honest.slice(0, size))
          yield* join(groundCrowd, { lies: { withholds: true } })
          const provider = yield* makeNode("provider", 12)
          const newcomer = yield* makeNode("newcomer", 0, 7)
          yield* provider.provide(hiddenKey)
          yield* newcomer.provide(hiddenKey)
          const status = yield* provider.status
          assert.deepStrictEqual([status.announced, status.crowded], [1, 1])
          assert.isAbove(status.copies.least, 20)
          const crowd = new Set<string>(groundCrowd.map(SimNetwork.peerId))
          for (let index = 0; index < 5; index++) {
            const seeker = yield* makeNode(`seeker ${index}`, 0, 1 + 3 * index)
            assert.isTrue((yield* seeker.closest(hiddenKey)).every((id) => crowd.has(id)))
            assert.sameMembers(yield* seeker.find(hiddenKey), [provider.id, newcomer.id])
          }
        }).pipe(Effect.scoped, LogLines.capture, Effect.provide(SimNetwork.layerWithClock({ seed: 1 }))),
      60_000
    )
  }
})

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

        // A node that has hardly looked anything up cannot tell how near is too near, and takes its network for small.
        yield* newcomer.provide(key)
        assert.strictEqual(yield* since, 0)
        yield* provider.provide(key)
        assert.strictEqual(yield* since, 1)
        assert.strictEqual(yield* warnings, 1)
        assert.include(yield* stranger.find(key), newcomer.id)
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
