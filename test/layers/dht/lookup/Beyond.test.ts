import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as KadBeyond from "../../../../src/layers/dht/lookup/Beyond.ts"
import { compareDistance, ofDigest, type Position, positionOf } from "../../../../src/layers/dht/wire/Position.ts"
import * as LogLines from "../../../support/LogLines.ts"

const honest = Array.from({ length: 1_000 }, (_, i) => ({ key: `${i}`, position: positionOf(Buffer.from(`${i}`)) }))

const closestTo = (target: Position, peers: ReadonlyArray<{ readonly key: string; readonly position: Position }>) =>
  peers.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(0, 20)

/** Twenty ids that share 60 bits with the target. */
const crowdAt = (target: Position) =>
  Array.from({ length: 20 }, (_, i) => {
    const bytes = Uint8Array.from(target.bytes)
    bytes[8] = bytes[8]! ^ (i + 1)
    return { key: `false ${i}`, position: ofDigest(bytes) }
  })

const target = positionOf(Buffer.from("some content"))

const make = (peers: ReadonlyArray<{ readonly key: string; readonly position: Position }>) => {
  const beyond = KadBeyond.make({
    count: 20,
    lookup: (bytes) =>
      Effect.sync(() => ({ closest: closestTo(positionOf(bytes), peers), asked: 20, answered: 20, hops: 1 }))
  })
  for (let i = 0; i < 32; i++) {
    const place = positionOf(Buffer.from(`lookup ${i}`))
    beyond.observe(place, closestTo(place, peers))
  }
  return beyond
}

describe("KadBeyond", () => {
  it.effect("gives nobody for a key that is not crowded, nor before the network is known", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* make(honest).peersBeyond(target, closestTo(target, honest)), [])
      const young = KadBeyond.make({ count: 20, lookup: () => Effect.die("asked") })
      assert.deepStrictEqual(yield* young.peersBeyond(target, crowdAt(target)), [])
    }))

  it.effect("gives honest peers near a crowded key, the same to all, and warns once a minute", () =>
    Effect.gen(function*() {
      const crowd = crowdAt(target)
      const all = [...honest, ...crowd]
      const closest = closestTo(target, all)
      assert.sameMembers(closest, crowd)
      const [provider, finder] = [make(all), make(all)]
      const given = yield* provider.peersBeyond(target, closest)
      assert.isAtLeast(given.length, 10)
      assert.isTrue(given.every(({ key }) => !key.startsWith("false")))
      assert.sameMembers(
        (yield* finder.peersBeyond(target, closest)).map(({ key }) => key),
        given.map(({ key }) => key)
      )
      yield* provider.peersBeyond(target, closest)
      assert.strictEqual((yield* LogLines.lines).filter((line) => line.startsWith("Warn")).length, 2)
    }).pipe(LogLines.capture))
})
