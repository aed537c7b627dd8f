import { assert, describe, it } from "@effect/vitest"
import { BoundedMap } from "../../src/layers/BoundedMap.ts"

describe("BoundedMap", () => {
  it("lets the entry go that was set longest ago", () => {
    const map = new BoundedMap<string, number>(2)
    map.set("a", 1)
    map.set("b", 2)
    map.set("a", 3)
    map.set("c", 4)
    assert.deepStrictEqual([...map], [["a", 3], ["c", 4]])
    assert.isFalse(map.has("b"))
    assert.strictEqual(map.size, 2)
  })

  it("grows over its limit by the entries that it keeps, and shrinks once they may leave", () => {
    const kept = new Set(["a", "b"])
    const map = new BoundedMap<string, number>(1, (_, key) => kept.has(key))
    map.set("a", 1)
    map.set("b", 2)
    map.set("c", 3)
    assert.deepStrictEqual([...map.keys()], ["a", "b", "c"])
    kept.clear()
    map.set("d", 4)
    assert.deepStrictEqual([...map.keys()], ["d"])
  })

  it("tells of each entry that leaves by itself, and of no other", () => {
    const left: Array<readonly [string, number]> = []
    const map = new BoundedMap<string, number>(2, () => false, (value, key) => left.push([key, value]))
    map.set("a", 1)
    map.set("b", 2)
    map.delete("b")
    map.set("a", 3)
    map.set("c", 4)
    assert.deepStrictEqual(left, [])
    map.set("d", 5)
    assert.deepStrictEqual(left, [["a", 3]])
  })

  it("never lets the entry go that is just set", () => {
    const map = new BoundedMap<string, number>(0)
    map.set("a", 1)
    assert.strictEqual(map.get("a"), 1)
  })
})
