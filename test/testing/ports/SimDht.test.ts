import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as PublishedValue from "../../../src/layers/dht/libp2p/PublishedValue.ts"
import * as ContentKey from "../../../src/schema/Content.ts"
import { Transport } from "../../../src/services/Transport.ts"
import * as SimDht from "../../../src/testing/ports/SimDht.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as SimTransport from "../../../src/testing/ports/SimTransport.ts"
import { dhtContract } from "../../contract/DhtContract.ts"

const makeNode = Effect.fnUntraced(function*(name: string) {
  const transport = yield* SimTransport.make(name)
  yield* transport.gate(() => Effect.succeed(true))
  const dht = yield* Effect.provideService(SimDht.make, Transport, transport)
  return { id: transport.localPeer, transport, dht }
})
type Node = Effect.Success<ReturnType<typeof makeNode>>

const connect = (node: Node, other: Node) =>
  Effect.flatMap(other.transport.addresses, ([address]) => node.transport.dial(address!)).pipe(Effect.asVoid)

for (
  const [name, layer] of [["", SimNetwork.layer()], [
    " with latency",
    SimNetwork.layer({ latency: "1 millis" })
  ]] as const
) {
  dhtContract(`SimDht${name}`, { makeNode, connect, layer, timeLimit: "1 minute" })
}

const key = ContentKey.fromText("a key")

describe("SimDht", () => {
  it.effect("yields each provider as soon as its distance allows", () =>
    Effect.gen(function*() {
      const nodes = yield* Effect.forEach(["alice", "bob", "carol"], makeNode)
      const [alice, bob, carol] = nodes as [Node, Node, Node]
      const dials = yield* Effect.forkChild(Effect.andThen(connect(alice, bob), connect(bob, carol)), {
        startImmediately: true
      })
      yield* TestClock.adjust("80 millis")
      yield* Fiber.join(dials)
      yield* carol.dht.startProviding(key)
      // Nothing is announced before a message could arrive.
      yield* TestClock.adjust("9 millis")
      const early = yield* Effect.forkChild(Stream.runCollect(alice.dht.findProviders(key)), { startImmediately: true })
      yield* TestClock.adjust("1 millis")
      const late = yield* Effect.forkChild(Stream.runHead(alice.dht.findProviders(key)), { startImmediately: true })
      yield* TestClock.adjust("0 millis")
      // Every node of the line keeps the record, and so does the one that asks.
      assert.strictEqual((yield* Fiber.join(late))._tag, "Some")
      yield* TestClock.adjust("40 millis")
      assert.deepStrictEqual((yield* Fiber.join(early)).map(({ id }) => id), [carol.id])
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "10 millis" }))))

  it.effect("sees no node behind a partition, and learns again after it heals", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* makeNode("alice")
      const bob = yield* makeNode("bob")
      yield* connect(alice, bob)
      yield* network.partition([["alice"], ["bob"]])
      yield* bob.dht.startProviding(key)
      yield* TestClock.adjust("1 minute")
      const error = yield* Effect.flip(Stream.runCollect(alice.dht.findProviders(key)))
      assert.strictEqual(error.reason._tag, "NoPeers")
      yield* network.heal
      yield* TestClock.adjust("0 millis")
      assert.deepStrictEqual((yield* Stream.runCollect(alice.dht.findProviders(key))).map(({ id }) => id), [bob.id])
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("forgets a record 24 hours after its provider stopped, and republishes one that goes on", () =>
    Effect.gen(function*() {
      const alice = yield* makeNode("alice")
      const bob = yield* makeNode("bob")
      yield* connect(alice, bob)
      const finds = Effect.map(Stream.runCollect(alice.dht.findProviders(key)), (providers) => providers.length)
      yield* bob.dht.startProviding(key)
      yield* TestClock.adjust("72 hours")
      assert.strictEqual(yield* finds, 1)
      yield* bob.dht.stopProviding(key)
      yield* TestClock.adjust("24 hours")
      assert.strictEqual(yield* finds, 0)
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("renews a record with a ttl, which ends that long after its provider", () =>
    Effect.gen(function*() {
      const alice = yield* makeNode("alice")
      const scope = yield* Scope.make()
      const bob = yield* Scope.provide(makeNode("bob"), scope)
      yield* connect(alice, bob)
      const finds = Effect.map(Stream.runCollect(alice.dht.findProviders(key)), (providers) => providers.length)
      yield* bob.dht.startProviding(key, { ttl: "5 minutes" })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* finds, 1)
      // The last renewal may be half a ttl old.
      yield* Scope.close(scope, Exit.void)
      yield* connect(yield* makeNode("carol"), alice)
      yield* TestClock.adjust("149 seconds")
      assert.strictEqual(yield* finds, 1)
      yield* TestClock.adjust("151 seconds")
      assert.strictEqual(yield* finds, 0)
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("is late while there is no peer to announce to", () =>
    Effect.gen(function*() {
      const alice = yield* makeNode("alice")
      const bob = yield* makeNode("bob")
      const told: Array<readonly [lag: number, paused: string | undefined]> = []
      yield* Effect.forkChild(
        Stream.runForEach(bob.dht.provideStatus, ({ lag, paused }) =>
          Effect.sync(() => told.push([Duration.toSeconds(lag), paused])))
      )
      yield* bob.dht.startProviding(key)
      yield* TestClock.adjust("11 seconds")
      assert.deepStrictEqual(told, [[0, "NoPeers"], [5.1, "NoPeers"], [10.2, "NoPeers"]])
      yield* connect(alice, bob)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(told.at(-1), [0, undefined])
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("forgets a value 48 hours after it was put last", () =>
    Effect.gen(function*() {
      const alice = yield* makeNode("alice")
      const bob = yield* makeNode("bob")
      yield* connect(alice, bob)
      const path = PublishedValue.path(bob.id, "profile")
      const put = bob.dht.putValue(PublishedValue.namespace, path, { value: new Uint8Array() })
      const reason = Effect.map(Effect.flip(alice.dht.getValue(PublishedValue.namespace, path)), ({ reason }) => reason)
      yield* put
      yield* TestClock.adjust("47 hours")
      yield* put
      yield* TestClock.adjust("47 hours")
      const found = yield* alice.dht.getValue(PublishedValue.namespace, path)
      assert.strictEqual(found.sequence, Duration.toMillis("47 hours"))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* reason)._tag, "NotFound")
    }).pipe(Effect.provide(SimNetwork.layer())))
})
