/**
 * A network of three nodes in virtual time: a peer is kept through a partition of an hour, and an idle one is let go
 * after five minutes.
 *
 *     node scripts/run.mjs examples/11-testing.ts
 *
 * In a test, `it.effect` of `@effect/vitest` brings the test clock; here the program brings it.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Option } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../src/index.ts"
import { SimNetwork, TestNetwork } from "../src/testing/index.ts"

const program = Effect.gen(function*() {
  const network = yield* SimNetwork
  const alice = yield* TestNetwork.makeNode("alice")
  const bob = yield* TestNetwork.makeNode("bob")
  const carol = yield* TestNetwork.makeNode("carol")

  // Alice keeps Bob, and is merely connected to Carol.
  const [address] = yield* bob.addresses
  yield* alice.keep(address!)
  yield* TestNetwork.connected(alice, carol)
  const report = (when: string) =>
    Effect.gen(function*() {
      const has = (node: Network["Service"]) => Effect.map(alice.peer(node.localPeer), Option.isSome)
      yield* Console.log(
        `${when}: bob ${(yield* has(bob)) ? "is" : "is not"} there, carol ${(yield* has(carol)) ? "is" : "is not"}`
      )
    })
  yield* report("at first")

  yield* TestClock.adjust("5 minutes")
  yield* report("after five idle minutes")

  // Neither node hears of it: messages just stop arriving, as when a cable is pulled.
  yield* network.blackhole(alice, bob)
  yield* TestClock.adjust("10 seconds")
  yield* report("ten seconds into the partition")
  yield* TestClock.adjust("1 hour")

  yield* network.heal
  yield* TestClock.adjust("90 seconds")
  yield* report("after an hour, and healed")
})

program.pipe(
  Effect.provide(SimNetwork.layer({ latency: "10 millis", jitter: "5 millis", seed: "example" })),
  Effect.scoped,
  Effect.provide(TestClock.layer()),
  NodeRuntime.runMain
)
