import { assert, describe, it } from "@effect/vitest"
import { positionOf } from "../../../src/layers/dht/wire/Position.ts"
import { bucketSize, deepened, SimKadTable } from "../../../src/testing/ports/SimKadTable.ts"

const nodeOf = (name: string, subnet?: string) => ({
  key: name,
  position: positionOf(Buffer.from(name)),
  isAlive: true,
  subnet
})

describe("SimKadTable", () => {
  it("gives one subnet a quarter of a bucket, and who has none all of it", () => {
    const owner = nodeOf("owner")
    const prefix = (name: string) => nodeOf(name).position.h0 >>> 26
    // One bucket, and not the owner's, which splits.
    const wanted = prefix("another") === prefix("owner") ? prefix("a third") : prefix("another")
    const names = Array.from({ length: 4000 }, (_, index) => `node ${index}`).filter((name) => prefix(name) === wanted)
    assert.isAbove(names.length, 2 * bucketSize)
    const count = (subnetOf: (index: number) => string | undefined) => {
      const table = new SimKadTable<ReturnType<typeof nodeOf>>(owner.position, deepened)
      names.forEach((name, index) => table.add(nodeOf(name, subnetOf(index)), 0))
      return table.nodes.length
    }
    assert.strictEqual(count(() => "192.0.2"), 5)
    assert.strictEqual(count((index) => index % 2 === 0 ? "192.0.2" : "198.51.100"), 10)
    assert.strictEqual(count(() => undefined), bucketSize)
  })
})
