import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { beyond, crowdingOf, keyOf, make, makeNetworkSize, spread } from "../../../../src/layers/dht/lookup/Crowding.ts"
import {
  commonPrefixLength,
  compareDistance,
  ofDigest,
  type Position,
  positionOf
} from "../../../../src/layers/dht/wire/Position.ts"
import * as LogLines from "../../../support/LogLines.ts"

describe("a watch for crowds", () => {
  const target = positionOf(Buffer.from("some content"))

  it.effect("gives no peers for a key that is not crowded in a network that is known to be large", () =>
    Effect.gen(function*() {
      const found = yield* watchOf(honest).peersBeyond(target, closestTo(target, honest))
      assert.deepStrictEqual(found, { peers: [], isCrowded: false })
    }))

  it.effect("gives a spread of the known peers while the network is small, and before its size is known", () =>
    Effect.gen(function*() {
      const crowd = crowdOf(target)
      const known = [...crowd, ...honest.slice(0, 60)]
      const half = honest.slice(900, 920)
      const looked: Array<Position> = []
      const young = make({
        count: 20,
        lookup: (bytes) =>
          Effect.sync(() => {
            looked.push(positionOf(bytes))
            return { closest: [...half, ...crowd], asked: 20, answered: 20, hops: 1 }
          }),
        known: () => known,
        ...aside
      })
      const found = yield* young.peersBeyond(target, crowd)
      assert.isFalse(found.isCrowded)
      assert.isAtLeast(found.peers.length, 25 + half.length)
      // A newcomer looks up the half without the key, too.
      assert.includeMembers([...found.peers], half)
      assert.deepStrictEqual(looked.map((position) => commonPrefixLength(position, target)), [0])
      assert.isTrue(found.peers.every(({ key }) => !key.startsWith("false")))
      // All there are have been asked already.
      assert.deepStrictEqual((yield* young.peersBeyond(target, crowd.slice(1))).peers, [])

      const small = watchOf(known)
      assert.isAtLeast((yield* small.peersBeyond(positionAt("x"), closestTo(positionAt("x"), known))).peers.length, 20)
      assert.isTrue((yield* small.peersBeyond(target, crowd)).isCrowded)
    }))

  it("spreads over the keyspace by chance, with connected peers besides", () => {
    const peers = honest.slice(0, 100)
    const part = ({ position }: { readonly position: Position }) => position.h0 >>> 27
    const runs = [0.3, 0.7].map((seed) => {
      let last = seed
      return spread(peers, { isAtHand: () => false, chance: () => last = (last * 997) % 1 })
    })
    for (const found of runs) {
      assert.strictEqual(found.length, new Set(peers.map(part)).size)
      assert.strictEqual(new Set(found.map(part)).size, found.length)
    }
    assert.isBelow(runs[0]!.filter((peer) => runs[1]!.includes(peer)).length, runs[0]!.length)
    const connected = spread(peers, { ...aside, isAtHand: ({ key }) => Number(key) % 2 === 0 })
    assert.strictEqual(connected.length, runs[0]!.length + 12)
    assert.strictEqual(new Set(connected).size, connected.length)
    assert.isTrue(connected.slice(-12).every(({ key }) => Number(key) % 2 === 0))
    // A crowd takes one part.
    const crowded = spread([...crowdOf(target), ...peers], aside)
    assert.isAtMost(crowded.filter(({ key }) => key.startsWith("false")).length, 1)
  })

  it.effect("gives honest peers near a crowded key, the same to all, and warns once a minute", () =>
    Effect.gen(function*() {
      const crowd = crowdOf(target)
      const all = [...honest, ...crowd]
      const closest = closestTo(target, all)
      assert.sameMembers(closest, crowd)
      const [provider, finder] = [watchOf(all), watchOf(all)]
      const { isCrowded, peers: given } = yield* provider.peersBeyond(target, closest)
      assert.isTrue(isCrowded)
      assert.isAtLeast(given.length, 10)
      assert.isTrue(given.every(({ key }) => !key.startsWith("false")))
      assert.sameMembers(
        (yield* finder.peersBeyond(target, closest)).peers.map(({ key }) => key),
        given.map(({ key }) => key)
      )
      yield* provider.peersBeyond(target, closest)
      assert.strictEqual((yield* LogLines.lines).filter((line) => line.startsWith("Warn")).length, 2)
    }).pipe(LogLines.capture))
})

describe("makeNetworkSize", () => {
  it("tells the size of a network within a fifth, by 32 lookups", () => {
    for (const size of [100, 1_000, 3_000]) {
      const closestOf = network(size)
      for (let run = 0; run < 5; run++) {
        const estimate = estimateOf(32, closestOf, `run ${run}`)!
        assert.closeTo(estimate / size, 1, 0.2, `${size} nodes`)
      }
    }
  })

  it("knows nothing before eight targets were seen, each of which counts once", () => {
    const closestOf = network(300)
    assert.isUndefined(estimateOf(7, closestOf))
    assert.isDefined(estimateOf(8, closestOf))
    const size = makeNetworkSize()
    for (let i = 0; i < 100; i++) size.observe(positionAt(`target ${i % 7}`), closestOf(positionAt(`target ${i % 7}`)))
    assert.isUndefined(size.estimate())
  })

  it("learns nothing from seven peers, since they may be all there are", () => {
    assert.isUndefined(estimateOf(32, network(7)))
  })

  it("remembers the last 64 targets", () => {
    const size = makeNetworkSize()
    const [small, large] = [network(100), network(2_000)]
    for (let i = 0; i < 64; i++) size.observe(positionAt(`before ${i}`), small(positionAt(`before ${i}`)))
    assert.closeTo(size.estimate()!, 100, 20)
    for (let i = 0; i < 64; i++) size.observe(positionAt(`after ${i}`), large(positionAt(`after ${i}`)))
    assert.closeTo(size.estimate()!, 2_000, 400)
  })

  it("is not moved far by crowds around a quarter of the targets", () => {
    const closestOf = network(1_000)
    const size = makeNetworkSize()
    for (let i = 0; i < 32; i++) {
      const target = positionAt(`target ${i}`)
      size.observe(target, i % 4 === 0 ? crowdAt(target, 20, 24) : closestOf(target))
    }
    assert.closeTo(size.estimate()! / 1_000, 1, 0.2)
  })
})

describe("crowdingOf", () => {
  it("says how probable so many peers so near are, by the Poisson distribution", () => {
    const target = ofDigest(new Uint8Array(32))
    const at = (leadingZeros: number, count: number) =>
      Array.from({ length: count }, (_, i) => ({
        key: String(i),
        position: ofDigest(
          new Uint8Array(32).fill(0x80 >> (leadingZeros & 7), leadingZeros >> 3, (leadingZeros >> 3) + 1)
        )
      }))
    // A distance of 1/1024, among 1024 and among 10240: one is expected, or ten.
    const five = crowdingOf(target, at(9, 5), 1_024)
    assert.closeTo(five.expected, 1, 1e-9)
    assert.closeTo(five.probability, 0.00365985, 1e-8)
    const twenty = crowdingOf(target, at(9, 20), 10_240)
    assert.closeTo(twenty.expected, 10, 1e-9)
    assert.closeTo(twenty.probability, 0.00345434, 1e-8)
    assert.isFalse(twenty.isCrowded)
    const crowded = crowdingOf(target, at(9, 20), 5_120)
    assert.closeTo(crowded.probability / 3.4524e-7, 1, 1e-3)
    assert.isTrue(crowded.isCrowded)
    assert.deepStrictEqual(crowdingOf(target, [], 1_000), { expected: 0, probability: 1, isCrowded: false })
  })

  it("flags one honest lookup in a thousand at most", () => {
    let flagged = 0
    for (const size of [25, 40, 60, 100, 1_000]) {
      const closestOf = network(size)
      for (let run = 0; run < 5; run++) {
        const estimate = estimateOf(32, closestOf, `run ${run}`)!
        for (let i = 0; i < 200; i++) {
          const target = positionAt(`key ${run} ${i}`)
          if (crowdingOf(target, closestOf(target), estimate).isCrowded) flagged++
        }
      }
    }
    assert.isAtMost(flagged, 5)
  })

  it("flags nearly every crowd that has taken all positions nearer than the nearest honest node", () => {
    const closestOf = network(1_000)
    const estimate = estimateOf(32, closestOf)!
    const flagged = (size: number) => {
      let count = 0
      for (let i = 0; i < 100; i++) {
        const key = positionAt(`key ${i}`)
        const honest = closestOf(key)
        const crowd = crowdAt(key, size, commonPrefixLength(honest[0]!.position, key) + 1)
        if (crowdingOf(key, [...crowd, ...honest].slice(0, 20), estimate).isCrowded) count++
      }
      return count
    }
    assert.isAtLeast(flagged(20), 99)
    // Half a crowd leaves half of the copies alone.
    assert.isAtLeast(flagged(10), 60)
    assert.isAtMost(flagged(2), 5)
  })

  it("never flags a network of fewer than 20", () => {
    const key = positionAt("key")
    assert.isFalse(crowdingOf(key, crowdAt(key, 20, 40), 19).isCrowded)
    assert.isTrue(crowdingOf(key, crowdAt(key, 20, 40), 20).isCrowded)
  })
})

describe("beyond", () => {
  it("names the halves without the key of the region that holds twice as many nodes", () => {
    const key = positionAt("key")
    // 2^8 regions of 40 nodes.
    const { isInRegion, targets } = beyond(key, 40 * 256)
    assert.deepStrictEqual(targets.map(({ position }) => commonPrefixLength(position, key)), [8, 9, 10])
    assert.deepStrictEqual(targets.map(({ bits }) => bits), [9, 10, 11])
    assert.isTrue(targets.every(({ position }) => isInRegion({ key: "", position })))
    const outside = beyond(key, 40 * 128).targets[0]!
    assert.isFalse(isInRegion({ key: "", position: outside.position }))
    assert.deepStrictEqual(beyond(key, 3).targets.map(({ bits }) => bits), [1, 2, 3])
  })

  it.effect("has bytes for each target that hash to its neighbourhood, the same each time", () =>
    Effect.gen(function*() {
      for (const target of beyond(positionAt("key"), 1_000).targets) {
        const bytes = yield* keyOf(target)
        assert.strictEqual(bytes.length, 34)
        assert.isAtLeast(commonPrefixLength(positionOf(bytes), target.position), target.bits)
        assert.deepStrictEqual(yield* keyOf(target), bytes)
      }
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Peer {
  readonly key: string
  readonly position: Position
}

function positionAt(text: string): Position {
  return positionOf(new TextEncoder().encode(text))
}

/** A network, given as what a lookup in it finds. */
function network(size: number) {
  const peers: ReadonlyArray<Peer> = Array.from({ length: size }, (_, index) => ({
    key: `${index}`,
    position: positionAt(`node ${index} of ${size}`)
  }))
  return (target: Position) => peers.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(0, 20)
}

function estimateOf(
  lookups: number,
  closestOf: (target: Position) => ReadonlyArray<Peer>,
  name = ""
): number | undefined {
  const size = makeNetworkSize()
  for (let i = 0; i < lookups; i++) {
    const target = positionAt(`target ${i} ${name}`)
    size.observe(target, closestOf(target))
  }
  return size.estimate()
}

/** Peers that share so many bits with a position, nearest first. */
function crowdAt(target: Position, size: number, bits: number): ReadonlyArray<Peer> {
  return Array.from({ length: size }, (_, index) => {
    const bytes = Uint8Array.from(target.bytes)
    const rest = positionAt(`false ${index}`).bytes
    for (let bit = bits; bit < 256; bit++) {
      if ((rest[bit >> 3]! & (0x80 >> (bit & 7))) !== 0) bytes[bit >> 3]! ^= 0x80 >> (bit & 7)
    }
    return { key: `false ${index}`, position: ofDigest(bytes) }
  }).sort((a, b) => compareDistance(a.position, b.position, target))
}

const honest = Array.from({ length: 1_000 }, (_, i) => ({ key: `${i}`, position: positionOf(Buffer.from(`${i}`)) }))

/** Nobody is connected, and chance is none. */
const aside = { isAtHand: () => false, chance: () => 0.5 }

const closestTo = (target: Position, peers: ReadonlyArray<{ readonly key: string; readonly position: Position }>) =>
  peers.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(0, 20)

/** Twenty ids that share 60 bits with the target. */
const crowdOf = (target: Position) =>
  Array.from({ length: 20 }, (_, i) => {
    const bytes = Uint8Array.from(target.bytes)
    bytes[8] = bytes[8]! ^ (i + 1)
    return { key: `false ${i}`, position: ofDigest(bytes) }
  })

const watchOf = (peers: ReadonlyArray<{ readonly key: string; readonly position: Position }>) => {
  const watch = make({
    count: 20,
    known: () => peers,
    ...aside,
    lookup: (bytes) =>
      Effect.sync(() => ({ closest: closestTo(positionOf(bytes), peers), asked: 20, answered: 20, hops: 1 }))
  })
  for (let i = 0; i < 32; i++) {
    const position = positionOf(Buffer.from(`lookup ${i}`))
    watch.observe(position, closestTo(position, peers))
  }
  return watch
}
