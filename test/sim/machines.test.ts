import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Duration, Effect, Exit, Option, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import { withPeer } from "../../src/schema/Peer.ts"
import { type NetworkChange, NetworkMonitor } from "../../src/services/NetworkMonitor.ts"
import { SimDisk, SimNetwork, TestNetwork } from "../../src/testing/index.ts"

const options = { latency: "10 millis", seed: "machines" } as const

const counts = (...nodes: ReadonlyArray<Network["Service"]>) => Effect.forEach(nodes, (node) => node.peerCount)

const keeps = Effect.fnUntraced(function*(node: Network["Service"], other: Network["Service"]) {
  yield* node.keep((yield* other.addresses)[0]!)
  yield* TestNetwork.until(Effect.map(counts(node, other), ([one, two]) => one === 1 && two === 1))
})

const changesOf = Effect.fnUntraced(function*(node: TestNetwork.TestNode) {
  const log: Array<NetworkChange> = []
  const { changes } = Context.get(node.services, NetworkMonitor)
  yield* Effect.forkScoped(Stream.runForEach(changes, (change) => Effect.sync(() => log.push(change))), {
    startImmediately: true
  })
  return log
})

// With both clocks: effect's `TestClock`, and `SimClock`.
const both = (name: string, body: Effect.Effect<void, unknown, SimNetwork | Scope.Scope>) => {
  it.effect(name, () => Effect.provide(body, SimNetwork.layer(options)))
  it.effect(`${name} (SimClock)`, () => Effect.provide(body, SimNetwork.layerWithClock(options)))
}

describe("a process that stalls", () => {
  both(
    "runs its late timers first, then what was sent to it",
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.start("alice")
      const bob = yield* TestNetwork.start("bob")
      yield* TestNetwork.connected(bob.network, alice.network)
      const log: Array<readonly [string, number]> = []
      const says = (text: string) => Effect.map(Clock.currentTimeMillis, (now) => log.push([text, now - began]))
      yield* alice.network.handle("/sim/hello/1.0.0", () => says("message"))
      yield* network.stall("alice", "5 seconds")
      const began = yield* Clock.currentTimeMillis
      yield* Effect.forkScoped(alice.within(Effect.andThen(Effect.sleep("2 seconds"), says("timer"))))
      yield* Effect.forkScoped(alice.within(Effect.andThen(Effect.sleep("8 seconds"), says("later"))))
      yield* Effect.forkScoped(Effect.ignore(bob.network.open(alice.network.localPeer, "/sim/hello/1.0.0")))
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(log, [["timer", 5_000], ["message", 5_001], ["later", 8_000]])
    })
  )

  both(
    "is given up by its peers within 10 seconds, and comes back to the one that keeps it",
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* keeps(alice, bob)
      yield* TestClock.adjust("1 minute")
      yield* network.stall(bob, "30 seconds")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* counts(alice), [0])
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* counts(alice, bob), [1, 1])
    })
  )
})

describe("a machine that sleeps", () => {
  both(
    "has late timers, and the right time when it wakes",
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.start("alice")
      const changes = yield* changesOf(alice)
      const ended = yield* Effect.forkScoped(
        alice.within(
          Effect.andThen(Effect.sleep("1 minute"), Effect.all([Clock.currentTimeMillis, Clock.monotonicTimeNanos]))
        )
      )
      yield* TestClock.adjust("30 seconds")
      yield* network.sleep("alice", "8 hours")
      yield* TestClock.adjust("8 hours")
      yield* TestClock.adjust("29999 millis")
      assert.isUndefined(ended.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const exit = ended.pollUnsafe()
      assert.deepStrictEqual(exit, Exit.succeed([Duration.toMillis("8 hours") + 60_000, 60_000_000_000n]))
      assert.deepStrictEqual(changes, [{ _tag: "Awoke", after: Duration.hours(8) }])
    })
  )

  both(
    "leaps ahead of the others when it jumps",
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.start("alice")
      const bob = yield* TestNetwork.start("bob")
      const changes = yield* changesOf(alice)
      yield* network.jump("alice", "8 hours")
      yield* network.jump("bob", "9 seconds")
      assert.strictEqual(yield* alice.within(Clock.currentTimeMillis), Duration.toMillis("8 hours"))
      assert.strictEqual(yield* bob.within(Clock.currentTimeMillis), 9_000)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(changes, [{ _tag: "Awoke", after: Duration.hours(8) }])
      assert.strictEqual(yield* alice.within(Clock.monotonicTimeNanos), 2_000_000_000n)
    })
  )
})

describe("a machine in another network", () => {
  both(
    "has other interfaces, and its connections are dead in silence",
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.start("alice")
      const bob = yield* TestNetwork.start("bob")
      const changes = yield* changesOf(bob)
      const { interfaces } = Context.get(bob.services, NetworkMonitor)
      const before = yield* interfaces
      yield* keeps(alice.network, bob.network)
      yield* TestClock.adjust("1 minute")
      yield* network.readdress("bob")
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(changes, [{ _tag: "AddressesChanged" }])
      assert.notDeepEqual(yield* interfaces, before)
      assert.deepStrictEqual(yield* counts(bob.network), [1])
      yield* TestClock.adjust("8 seconds")
      // A node that keeps it finds it at its former address.
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* counts(alice.network, bob.network), [1, 1])
    })
  )

  both(
    "that moves is found at its new address by whoever hears of it, and nowhere else",
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice", { enableMdns: true, minPeers: 0 })
      const bob = yield* TestNetwork.makeNode("bob")
      const carol = yield* TestNetwork.makeNode("carol", { enableMdns: true, minPeers: 0 })
      yield* keeps(alice, carol)
      yield* bob.keep((yield* carol.addresses)[0]!)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* counts(alice, bob, carol), [1, 1, 2])
      yield* network.readdress(carol, { moves: true })
      assert.deepStrictEqual(yield* carol.addresses, [withPeer(SimNetwork.address("carol~1"), carol.localPeer)])
      yield* TestClock.adjust("3 minutes")
      assert.deepStrictEqual(yield* counts(alice, bob, carol), [1, 0, 1])
    })
  )
})

describe("a node that is killed", () => {
  both(
    "leaves no fiber, and on its disk what it had written before",
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const disk = SimDisk.make()
      const alice = yield* TestNetwork.start("alice", {}, { disk })
      const bob = yield* TestNetwork.makeNode("bob")
      const carol = yield* TestNetwork.makeNode("carol")
      yield* TestNetwork.connected(alice.network, bob)
      yield* TestClock.adjust("1 minute")
      yield* TestNetwork.connected(alice.network, carol)
      assert.isAbove(yield* alice.fibers, 0)
      yield* network.kill("alice")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* alice.fibers, 0)
      const remembered = [...disk.entries.values()].join()
      assert.include(remembered, bob.localPeer)
      assert.notInclude(remembered, carol.localPeer)
    })
  )

  both(
    "finds its peers again if it has its disk, and nobody without",
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const bob = yield* TestNetwork.makeNode("bob")
      const disk = SimDisk.make()
      const alice = yield* TestNetwork.makeNode("alice", {}, { disk })
      yield* TestNetwork.connected(alice, bob)
      yield* TestClock.adjust("1 minute")
      yield* network.kill(alice)
      yield* TestClock.adjust("1 minute")
      const without = yield* TestNetwork.makeNode("alice")
      yield* TestClock.adjust("1 minute")
      assert.isTrue(Option.isNone(yield* without.peer(bob.localPeer)))
      yield* network.kill(without)
      const withDisk = yield* TestNetwork.makeNode("alice", {}, { disk })
      yield* TestClock.adjust("1 minute")
      assert.isTrue(Option.isSome(yield* withDisk.peer(bob.localPeer)))
    })
  )

  both(
    "in order leaves no fiber either",
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const alice = yield* Scope.provide(TestNetwork.start("alice", { enableMdns: true }), scope)
      const bob = yield* TestNetwork.makeNode("bob")
      yield* keeps(alice.network, bob).pipe(Scope.provide(scope))
      yield* TestNetwork.run(Scope.close(scope, Exit.void))
      assert.strictEqual(yield* alice.fibers, 0)
    })
  )
})
