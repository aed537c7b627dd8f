import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as ValueRepair from "../../../../src/layers/dht/values/Repair.ts"

const bytesOf = (text: string) => new TextEncoder().encode(text)

/** Puts that end when the spec says so. */
const makeBench = Effect.fnUntraced(function*(waitingMax?: number) {
  const underWay = new Map<string, Deferred.Deferred<void, string>>()
  const asked: Array<string> = []
  const { repair } = yield* ValueRepair.make<string>({
    waitingMax,
    put: (node, key, bytes) =>
      Effect.suspend(() => {
        const name = `${new TextDecoder().decode(key)}=${new TextDecoder().decode(bytes)} to ${node}`
        const end = Deferred.makeUnsafe<void, string>()
        asked.push(name)
        underWay.set(name, end)
        return Effect.ensuring(Deferred.await(end), Effect.sync(() => underWay.delete(name)))
      })
  })
  const settle = TestClock.adjust(0)
  return {
    asked,
    underWay,
    repair: (key: string, bytes: string, nodes: ReadonlyArray<string>) =>
      Effect.andThen(repair(bytesOf(key), bytesOf(bytes), nodes), settle),
    /** Ends those puts that are under way. */
    end: Effect.suspend(() => {
      for (const [name, end] of [...underWay]) {
        Deferred.doneUnsafe(end, name.endsWith("deaf") ? Exit.fail("") : Exit.void)
      }
      return settle
    })
  }
})

describe("ValueRepair", () => {
  it.effect("gives a value to five nodes at once, without being waited for, and goes on when one refuses", () =>
    Effect.gen(function*() {
      const { asked, end, repair, underWay } = yield* makeBench()
      yield* repair("a", "1", ["deaf", "n1", "n2", "n3", "n4", "n5", "n6"])
      assert.strictEqual(underWay.size, 5)
      yield* end
      assert.deepStrictEqual([...underWay.keys()], ["a=1 to n5", "a=1 to n6"])
      yield* end
      assert.strictEqual(asked.length, 7)
    }))

  it.effect("gives one value after the other, and leaves out a value for which there is no room", () =>
    Effect.gen(function*() {
      const { asked, end, repair } = yield* makeBench(1)
      yield* repair("a", "1", ["n1"])
      yield* repair("b", "1", ["n1"])
      yield* repair("c", "1", ["n1"])
      assert.deepStrictEqual(asked, ["a=1 to n1"])
      yield* end
      yield* end
      assert.deepStrictEqual(asked, ["a=1 to n1", "b=1 to n1"])
      // It was not given, so the next who reads it may.
      yield* repair("c", "1", ["n1"])
      assert.strictEqual(asked.at(-1), "c=1 to n1")
    }))

  it.effect("gives the same value once a minute, and another at once", () =>
    Effect.gen(function*() {
      const { asked, end, repair } = yield* makeBench()
      for (let i = 0; i < 3; i++) {
        yield* repair("a", "1", ["n1"])
        yield* end
      }
      assert.deepStrictEqual(asked, ["a=1 to n1"])
      yield* repair("a", "2", ["n1"])
      yield* end
      assert.deepStrictEqual(asked, ["a=1 to n1", "a=2 to n1"])
      yield* TestClock.adjust("59999 millis")
      yield* repair("a", "2", ["n1"])
      assert.strictEqual(asked.length, 2)
      yield* TestClock.adjust("1 millis")
      yield* repair("a", "2", ["n1"])
      assert.strictEqual(asked.length, 3)
    }))

  it.effect("ends with its scope", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { asked, repair, underWay } = yield* Effect.provideService(makeBench(), Scope.Scope, scope)
      yield* repair("a", "1", ["n1"])
      yield* repair("b", "1", ["n1"])
      assert.strictEqual(underWay.size, 1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(underWay.size, 0)
      assert.deepStrictEqual(asked, ["a=1 to n1"])
    }))
})
