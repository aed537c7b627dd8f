import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"
import { record } from "../support/record.ts"

const net = SimNetwork.layer({ latency: "10 millis", seed: "wishes" })

const pair = Effect.gen(function*() {
  const alice = yield* TestNetwork.makeNode("alice")
  const bob = yield* TestNetwork.makeNode("bob")
  return [alice, bob, yield* record(bob)] as const
})

const departures = (events: ReadonlyArray<NetworkEvent>) =>
  events.flatMap((event) => event._tag === "PeerDisconnected" ? [[event.reason, event.remoteReason]] : [])

const counts = (...nodes: ReadonlyArray<Network["Service"]>) => Effect.forEach(nodes, (node) => node.peerCount)

const reasonOf = (node: Network["Service"], other: Network["Service"]) =>
  Effect.flatMap(other.addresses, ([address]) =>
    TestNetwork.run(Effect.flip(node.connect(address!))).pipe(
      Effect.map((error) => error._tag === "DialError" ? error.reason._tag : error._tag)
    ))

describe("disconnect", () => {
  it.effect("says goodbye, and nobody dials again", () =>
    Effect.gen(function*() {
      const [alice, bob, atBob] = yield* pair
      yield* TestNetwork.connected(alice, bob)
      yield* TestNetwork.run(alice.disconnect(bob.localPeer))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* counts(alice, bob), [0, 0])
      assert.deepStrictEqual(departures(atBob), [["remote", "disconnect"]])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* counts(alice, bob), [0, 0])
    }).pipe(Effect.provide(net)))

  it.effect("suspends a keep until somebody connects", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* pair
      yield* alice.keep((yield* bob.addresses)[0]!)
      yield* TestClock.adjust("1 minute")
      yield* TestNetwork.run(alice.disconnect(bob.localPeer))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* counts(alice, bob), [0, 0])
      yield* TestNetwork.connected(alice, bob)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    }).pipe(Effect.provide(net)))

  it.effect("lets a remote that keeps this node back in", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* pair
      yield* bob.keep((yield* alice.addresses)[0]!)
      yield* TestClock.adjust("1 minute")
      yield* TestNetwork.run(alice.disconnect(bob.localPeer))
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    }).pipe(Effect.provide(net)))
})

describe("block", () => {
  it.effect("ends the connection and refuses the peer both ways, while its scope lives", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* pair
      yield* TestNetwork.connected(alice, bob)
      const scope = yield* Scope.make()
      yield* TestNetwork.run(Scope.provide(alice.block(bob.localPeer), scope))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* counts(alice, bob), [0, 0])
      assert.strictEqual(yield* reasonOf(bob, alice), "Refused")
      assert.strictEqual(yield* reasonOf(alice, bob), "Denied")
      yield* Scope.close(scope, Exit.void)
      yield* TestNetwork.connected(bob, alice)
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    }).pipe(Effect.provide(net)))

  it.effect("lets nobody else feel it", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* pair
      const carol = yield* TestNetwork.makeNode("carol")
      yield* TestNetwork.connected(alice, carol)
      yield* alice.block(bob.localPeer)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* counts(alice, bob, carol), [1, 0, 1])
    }).pipe(Effect.provide(net)))

  it.effect("interrupts a keep, which goes on afterwards", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* pair
      yield* alice.keep((yield* bob.addresses)[0]!)
      yield* TestClock.adjust("1 minute")
      const scope = yield* Scope.make()
      yield* TestNetwork.run(Scope.provide(alice.block(bob.localPeer), scope))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* counts(alice, bob), [0, 0])
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    }).pipe(Effect.provide(net)))
})

describe("stopping", () => {
  it.effect("tells the peers, who do not take it for a loss", () =>
    Effect.gen(function*() {
      const bob = yield* TestNetwork.makeNode("bob")
      const atBob = yield* record(bob)
      const scope = yield* Scope.make()
      const alice = yield* Scope.provide(TestNetwork.makeNode("alice"), scope)
      yield* TestNetwork.connected(alice, bob)
      yield* TestNetwork.run(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* bob.peerCount, 0)
      assert.deepStrictEqual(departures(atBob), [["remote", "shutdown"]])
    }).pipe(Effect.provide(net)))
})
