import { assert, describe, it } from "@effect/vitest"
import { createHash } from "node:crypto"
import { compareDistance, positionOf } from "../../../../src/layers/dht/wire/Position.ts"
import { inOrder, KnownPrefixes, nearest, prefixOf, siblingOf } from "../../../../src/layers/dht/provide/Subtrees.ts"

const positioned = (name: string) => ({ name, position: positionOf(new TextEncoder().encode(name)) })

describe("Subtrees", () => {
  it("finds the nearest peers as sorting all of them does", () => {
    for (const size of [0, 1, 19, 20, 21, 300]) {
      const peers = Array.from({ length: size }, (_, index) => positioned(`peer ${index}`))
      for (let index = 0; index < 50; index++) {
        const { position } = positioned(`target ${index}`)
        for (const count of [1, 20]) {
          assert.deepStrictEqual(
            nearest(inOrder(peers), position, count),
            peers.toSorted((a, b) => compareDistance(a.position, b.position, position)).slice(0, count)
          )
        }
      }
    }
  })

  it("knows a subtree when it knows its halves, and what is missing", () => {
    // All prefixes of six bits, in random order.
    const leaves = Array.from({ length: 64 }, (_, index) => index)
      .sort((a, b) =>
        createHash("sha256").update(`${a}`).digest().compare(createHash("sha256").update(`${b}`).digest())
      )
    const known = new KnownPrefixes()
    const added = new Set<number>()
    const isKnown = (depth: number, prefix: number) =>
      leaves.every((leaf) => leaf >> (6 - depth) !== prefix || added.has(leaf))
    for (const leaf of leaves) {
      known.add(leaf * 2 ** 26, 6)
      added.add(leaf)
      for (let other = 0; other < 64; other++) {
        const depth = [0, 1, 2, 3, 4, 5, 6].find((depth) => isKnown(depth, other >> (6 - depth)))
        assert.strictEqual(known.depthOf(other * 2 ** 26 + 12345), depth)
      }
      for (const [depth, prefix] of [[0, 0], [2, 1], [5, 17]] as const) {
        const gap = known.gapIn(depth, prefix)
        if (gap === undefined) assert.isTrue(isKnown(depth, prefix))
        else {
          assert.strictEqual(gap.prefix >> (gap.depth - depth), prefix)
          assert.isTrue(leaves.every((leaf) => leaf >> (6 - gap.depth) !== gap.prefix || !added.has(leaf)))
        }
      }
    }
    assert.strictEqual(known.depthOf(0), 0)
  })

  it("replaces what it holds by a larger subtree", () => {
    const known = new KnownPrefixes()
    known.add(0b1010 * 2 ** 28, 4)
    known.add(0b1011 * 2 ** 28, 6)
    known.add(0b1000 * 2 ** 28, 1)
    assert.strictEqual(known.depthOf(0b1111 * 2 ** 28), 1)
    known.add(0b1010 * 2 ** 28, 5)
    known.add(0, 1)
    assert.strictEqual(known.depthOf(0), 0)
    assert.isUndefined(known.gapIn(0, 0))
  })

  it("reads prefixes of every length without a sign", () => {
    assert.strictEqual(prefixOf(0xffffffff, 32), 0xffffffff)
    assert.strictEqual(prefixOf(0xffffffff, 0), 0)
    assert.strictEqual(siblingOf(0xffffffff), 0xfffffffe)
    const known = new KnownPrefixes()
    known.add(0xffffffff, 32)
    assert.strictEqual(known.depthOf(0xffffffff), 32)
    assert.isUndefined(known.depthOf(0xfffffffe))
  })
})
