import { assert, describe, it } from "@effect/vitest"
import { Clock, DateTime, Effect, Exit, Option, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"
import { record } from "../support/record.ts"

const net = SimNetwork.layer({ latency: "10 millis", seed: "faults" })

const reasons = (events: ReadonlyArray<NetworkEvent>) =>
  events.flatMap((event) => event._tag === "PeerDisconnected" ? [event.reason] : [])

const keeps = Effect.fnUntraced(function*(node: Network["Service"], other: Network["Service"]) {
  yield* node.keep((yield* other.addresses)[0]!)
  yield* TestNetwork.until(
    Effect.map(Effect.all([node.peerCount, other.peerCount]), ([one, two]) => one === 1 && two === 1)
  )
})

describe("a bootstrap peer", () => {
  it.effect("that was down for two minutes is connected within one step of the backoff", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const first = yield* TestNetwork.start("bob")
      const alice = yield* TestNetwork.makeNode("alice", { bootstrapPeers: [(yield* first.network.addresses)[0]!] })
      yield* TestNetwork.until(Effect.map(alice.peerCount, (count) => count === 1))
      yield* TestClock.adjust("1 minute")
      yield* network.kill("bob")
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* alice.peerCount, 0)
      const [retry] = (yield* alice.status).backoffs
      yield* TestNetwork.start("bob")
      // The wait of the backoff ends, and a dial follows.
      const wait = DateTime.toEpochMillis(retry!.at) - (yield* Clock.currentTimeMillis)
      assert.isAtMost(wait, 72_000)
      yield* TestClock.adjust(wait - 10)
      assert.strictEqual(yield* alice.peerCount, 0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* alice.peerCount, 1)
    }).pipe(Effect.provide(net)))
})

describe("a partition", () => {
  it.effect("is noticed within 10 seconds on both sides, and healed by the side that keeps the other", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      const events = yield* record(alice)
      yield* keeps(alice, bob)
      yield* TestClock.adjust("1 minute")
      yield* network.partition([[alice], [bob]])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [0, 0])
      assert.deepStrictEqual(reasons(events), ["unhealthy"])
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [0, 0])
      yield* network.heal
      // A dial in flight gets through; else the next dial begins after at most a minute and a fifth.
      yield* TestClock.adjust("90 seconds")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [1, 1])
    }).pipe(Effect.provide(net)))

  it.effect("leaves those on one side connected", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      const carol = yield* TestNetwork.makeNode("carol")
      yield* TestNetwork.connected(alice, bob)
      yield* TestNetwork.connected(bob, carol)
      yield* network.partition([[alice, bob], [carol]])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Effect.forEach([alice, bob, carol], (node) => node.peerCount), [1, 1, 0])
    }).pipe(Effect.provide(net)))

  it.effect("shorter than the health policy's patience goes unnoticed", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      const events = yield* record(alice)
      yield* TestNetwork.connected(alice, bob)
      yield* TestClock.adjust("30 seconds")
      yield* network.partition([[alice], [bob]])
      yield* TestClock.adjust("2 seconds")
      yield* network.heal
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [1, 1])
      assert.deepStrictEqual(reasons(events), [])
    }).pipe(Effect.provide(net)))
})

describe("a peer that is silent", () => {
  it.effect("is given up within 10 seconds", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      const events = yield* record(alice)
      yield* TestNetwork.connected(alice, bob)
      yield* TestClock.adjust("1 minute")
      yield* network.blackhole(bob)
      yield* TestClock.adjust("9800 millis")
      assert.strictEqual(yield* alice.peerCount, 0)
      assert.deepStrictEqual(reasons(events), ["unhealthy"])
      assert.strictEqual(events.filter(({ _tag }) => _tag === "PeerUnhealthy").length, 2)
    }).pipe(Effect.provide(net)))
})

describe("a severed connection", () => {
  it.effect("is made anew at once when it had lasted, and on the other side too", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      const events = yield* record(alice)
      yield* TestNetwork.connected(alice, bob)
      yield* TestClock.adjust("1 minute")
      yield* network.sever(alice, bob)
      yield* TestClock.adjust("0 millis")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [0, 0])
      assert.deepStrictEqual(reasons(events), ["lost"])
      yield* TestClock.adjust("40 millis")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [1, 1])
    }).pipe(Effect.provide(net)))

  it.effect("fails the streams it carried", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* TestNetwork.connected(alice, bob)
      yield* bob.handle("/sim/wait/1.0.0", (stream) => Stream.runDrain(stream.read))
      const stream = yield* TestNetwork.run(alice.open(bob.localPeer, "/sim/wait/1.0.0"))
      yield* network.sever(alice, bob)
      const error = yield* TestNetwork.run(Effect.flip(Stream.runDrain(stream.read)))
      assert.strictEqual(error.reason._tag, "StreamReset")
    }).pipe(Effect.provide(net)))
})

describe("a killed peer", () => {
  it.effect("is lost at once, and found again within the backoff after it has restarted", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      const events = yield* record(alice)
      yield* keeps(alice, bob)
      yield* TestClock.adjust("1 minute")
      yield* network.kill("bob")
      yield* TestClock.adjust("10 millis")
      assert.strictEqual(yield* alice.peerCount, 0)
      assert.deepStrictEqual(reasons(events), ["lost"])
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* alice.peerCount, 0)
      assert.isAbove(events.filter(({ _tag }) => _tag === "DialFailed").length, 2)
      const again = yield* TestNetwork.makeNode("bob")
      assert.strictEqual(again.localPeer, bob.localPeer)
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(Option.isSome(yield* alice.peer(bob.localPeer)))
      assert.strictEqual(yield* again.peerCount, 1)
      assert.strictEqual(yield* bob.peerCount, 0)
    }).pipe(Effect.provide(net)))

  it.effect("leaves no fiber of the network waiting when everything ends at once", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const network = yield* SimNetwork
      const make = Effect.all([TestNetwork.makeNode("alice"), TestNetwork.makeNode("bob")])
      const [alice, bob] = yield* Scope.provide(make, scope)
      yield* TestNetwork.connected(alice, bob)
      yield* network.kill(alice)
      yield* TestNetwork.run(Scope.close(scope, Exit.void))
      assert.deepStrictEqual(yield* network.nodes, [])
    }).pipe(Effect.provide(net)))
})
