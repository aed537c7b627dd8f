import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { KadDhtPolicy } from "../../src/layers/KadDhtPolicy.ts"
import { within } from "../../src/layers/LookupBudget.ts"
import * as ContentKey from "../../src/schema/Content.ts"
import type { Provider } from "../../src/schema/Content.ts"
import type { DhtError } from "../../src/schema/NetworkError.ts"
import type { FindOptions } from "../../src/services/Dht.ts"
import { SimNetwork } from "../../src/testing/SimNetwork.ts"

const key = ContentKey.fromText("some content")

const policy = KadDhtPolicy.defaultValue()

const provider = (name: string): Provider => ({ id: SimNetwork.peerId(name), addresses: [] })

const budgeted = (lookup: Stream.Stream<Provider, DhtError>, options?: FindOptions) =>
  Stream.runCollect(within(key, policy, options)(lookup))

describe("LookupBudget", () => {
  it.effect("ends after the providers that were asked for, by default 128", () =>
    Effect.gen(function*() {
      const many = Stream.fromIterable(Array.from({ length: 200 }, (_, i) => provider(`${i}`)))
      assert.strictEqual((yield* budgeted(many)).length, 128)
      assert.strictEqual((yield* budgeted(many, { maxProviders: 3 })).length, 3)
    }))

  it.effect("ends in time with what has been found, and fails when that is nobody", () =>
    Effect.gen(function*() {
      const ended = { lookups: 0 }
      const endless = (...found: ReadonlyArray<Provider>) =>
        Stream.concat(Stream.fromIterable(found), Stream.never).pipe(
          Stream.ensuring(Effect.sync(() => ended.lookups++))
        )
      const some = yield* Effect.forkChild(budgeted(endless(provider("alice"))))
      const nobody = yield* Effect.forkChild(Effect.flip(budgeted(endless())))
      const hurried = yield* Effect.forkChild(Effect.flip(budgeted(endless(), { findTimeout: "1 second" })))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(hurried)).reason._tag, "QueryTimeout")
      yield* TestClock.adjust("8999 millis")
      assert.strictEqual(ended.lookups, 1)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* Fiber.join(some), [provider("alice")])
      assert.strictEqual((yield* Fiber.join(nobody)).reason._tag, "QueryTimeout")
      assert.strictEqual(ended.lookups, 3)
    }))
})
