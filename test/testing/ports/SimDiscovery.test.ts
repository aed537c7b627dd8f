import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Queue, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Discovery } from "../../../src/services/Discovery.ts"
import * as SimDiscovery from "../../../src/testing/ports/SimDiscovery.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as SimTransport from "../../../src/testing/ports/SimTransport.ts"

const makeNode = Effect.fnUntraced(function*(name: string) {
  const layer = SimDiscovery.layer.pipe(
    Layer.provideMerge(Layer.merge(SimTransport.layer(name), Layer.fresh(Discovery.layer)))
  )
  const { peers } = Context.get(yield* Layer.build(Layer.fresh(layer)), Discovery)
  return {
    /** The peers that it has heard of since the last call. */
    heard: Effect.map(
      Queue.clear(peers),
      (sightings) => sightings.map(({ id, source }) => [names.get(id), source].join(" "))
    )
  }
})
const names = new Map(["alice", "bob", "carol"].map((name) => [SimNetwork.peerId(name), name]))

describe("SimDiscovery", () => {
  it.effect("tells the nodes of each other at once, and again every 3 seconds", () =>
    Effect.gen(function*() {
      const alice = yield* makeNode("alice")
      yield* TestClock.adjust("1 second")
      const bob = yield* makeNode("bob")
      yield* TestClock.adjust("0 millis")
      assert.deepStrictEqual([yield* alice.heard, yield* bob.heard], [["bob mdns"], ["alice mdns"]])
      yield* TestClock.adjust("1999 millis")
      assert.deepStrictEqual([yield* alice.heard, yield* bob.heard], [[], []])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([yield* alice.heard, yield* bob.heard], [["bob mdns"], []])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* alice.heard, yield* bob.heard], [[], ["alice mdns"]])
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("tells of nobody behind a partition, nor of one that stopped", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      yield* network.partition([["alice", "carol"], ["bob"]])
      const scope = yield* Scope.make()
      const alice = yield* makeNode("alice")
      yield* makeNode("bob")
      yield* Scope.provide(makeNode("carol"), scope)
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual([...new Set(yield* alice.heard)], ["carol mdns"])
      yield* Scope.close(scope, Exit.void)
      yield* network.heal
      yield* TestClock.adjust("3005 millis")
      assert.deepStrictEqual([...new Set(yield* alice.heard)], ["bob mdns"])
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "5 millis" }))))
})
