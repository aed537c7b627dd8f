/**
 * `findPeer` in the smallest networks, over sockets. Larger ones are in `crowdSuite.ts`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { makeMember, meets, quickest } from "./Crowd.ts"

describe("findPeer", () => {
  for (const size of [2, 3]) {
    it.live(`answers within a second in a network of ${size}: with an address, or with NotFound`, () =>
      Effect.gen(function*() {
        const hub = yield* makeMember()
        const others = yield* Effect.forEach(Array.from({ length: size - 1 }), () => makeMember())
        for (const other of others) yield* other.network.connect(hub.address)
        const asking = others.at(-1)!
        yield* meets(asking, size - 1)
        for (const { id } of [hub, ...others.slice(0, -1)]) {
          const [millis, found] = yield* quickest(asking.dht.findPeer(id))
          assert.strictEqual(found.id, id)
          assert.isAbove(found.addresses.length, 0)
          assert.isBelow(millis, 1_000)
        }
        const nobody = yield* Effect.scoped(Effect.map(makeMember(), ({ id }) => id))
        const [millis, error] = yield* quickest(Effect.flip(asking.dht.findPeer(nobody)))
        assert.strictEqual(error.reason._tag, "NotFound")
        assert.isBelow(millis, 1_000)
      }))
  }

  it.live("answers within a second when a peer that all three have known is gone, and libp2p has forgotten its address", () =>
    Effect.gen(function*() {
      const hub = yield* makeMember()
      const asking = yield* makeMember()
      const scope = yield* Scope.make()
      const gone = yield* Scope.provide(makeMember(), scope)
      for (const other of [asking, gone]) yield* other.network.connect(hub.address)
      yield* asking.network.connect(gone.address)
      yield* meets(asking, 2)
      yield* Scope.close(scope, Exit.void)
      const forget = Effect.andThen(asking.forget(gone.id), hub.forget(gone.id))
      const [millis, answer] = yield* quickest(
        Effect.andThen(forget, Effect.result(asking.dht.findPeer(gone.id)))
      )
      // An answer from memory counts as well.
      if (answer._tag === "Failure") assert.strictEqual(answer.failure.reason._tag, "NotFound")
      else assert.isAbove(answer.success.addresses.length, 0)
      assert.isBelow(millis, 1_000)
    }))
})
