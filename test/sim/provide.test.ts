import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as ContentKey from "../../src/schema/Content.ts"
import * as SimKad from "../../src/testing/ports/SimKad.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../src/testing/TestNetwork.ts"

const key = ContentKey.fromText("a film")

describe("the keys of a node in Kademlia", () => {
  it.effect("wait while it is isolated, which it says, and are announced at once when it is back", () =>
    Effect.gen(function*() {
      const start = (name: string) => TestNetwork.start(name, { minPeers: 0 }, { dht: SimKad.layer() })
      const [alice, bob] = [yield* start("alice"), yield* start("bob")]
      yield* TestNetwork.run(alice.network.connect(SimNetwork.address("bob")))
      const status = Effect.map(Stream.runHead(alice.network.provideStatus), Option.getOrThrow)
      const network = yield* SimNetwork
      yield* network.partition([["alice"]])
      // Long enough to notice that bob is gone, who is still in its routing table.
      yield* TestClock.adjust("1 minute")
      yield* TestNetwork.run(alice.network.startProviding(key))
      yield* TestClock.adjust("2 minutes")
      // A peer that does not answer a dial leaves the routing table.
      assert.deepInclude(yield* status, { announced: 0, paused: "NoPeers" })
      yield* network.heal
      yield* TestNetwork.run(alice.network.connect(SimNetwork.address("bob")))
      yield* TestClock.adjust("1 second")
      assert.isUndefined((yield* status).paused)
      assert.strictEqual((yield* status).announced, 1)
      const found = yield* TestNetwork.run(Stream.runCollect(bob.network.findProviders(key)))
      assert.deepStrictEqual(found.map(({ id }) => id), [alice.network.localPeer])
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer({ seed: 1 }))))
})
