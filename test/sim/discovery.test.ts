import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as ContentKey from "../../src/schema/Content.ts"
import { Network } from "../../src/Network.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"

const net = SimNetwork.layer({ latency: "10 millis", seed: "discovery" })
const key = ContentKey.fromText("a film")

describe("nodes on one local network", () => {
  it.effect("find each other, and who provides a key", () =>
    Effect.gen(function*() {
      const make = (name: string) => TestNetwork.makeNode(name, { enableMdns: true })
      const nodes = yield* Effect.forEach(["alice", "bob", "carol"], make)
      const [alice, bob, carol] = nodes as [Network["Service"], Network["Service"], Network["Service"]]
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* Effect.forEach(nodes, (node) => node.peerCount), [2, 2, 2])
      yield* carol.startProviding(key)
      yield* TestClock.adjust("1 second")
      for (const node of [alice, bob]) {
        const providers = yield* TestNetwork.run(Stream.runCollect(node.findProviders(key)))
        assert.deepStrictEqual(providers.map(({ id }) => id), [carol.localPeer])
      }
      const where = yield* TestNetwork.run(alice.findPeer(bob.localPeer))
      assert.deepStrictEqual(where.addresses.map(({ address }) => address), [...yield* bob.addresses])
    }).pipe(Effect.provide(net)))

  it.effect("do not look for each other without mDNS", () =>
    Effect.gen(function*() {
      const nodes = yield* Effect.forEach(["alice", "bob"], (name) => TestNetwork.makeNode(name))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* Effect.forEach(nodes, (node) => node.peerCount), [0, 0])
    }).pipe(Effect.provide(net)))
})

describe("a bootstrap peer", () => {
  it.effect("is found as soon as it is there", () =>
    Effect.gen(function*() {
      const bootstrapPeers = [`${SimNetwork.address("home")}/p2p/${SimNetwork.peerId("home")}`]
      const alice = yield* TestNetwork.makeNode("alice", { bootstrapPeers })
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(yield* alice.peerCount, 0)
      const home = yield* TestNetwork.makeNode("home", { bootstrapPeers })
      yield* TestClock.adjust("40 seconds")
      assert.deepStrictEqual([yield* alice.peerCount, yield* home.peerCount], [1, 1])
    }).pipe(Effect.provide(net)))
})

describe("TestNetwork", () => {
  it.effect("names what is wrong with the options", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Effect.scoped(TestNetwork.makeNode("alice", { maxPeers: 0 })))
      assert.strictEqual(error._tag, "NetworkStartError")
      assert.strictEqual(error.reason._tag, "ConfigError")
      assert.include(error.message, "maxPeers")
    }).pipe(Effect.provide(net)))

  it.effect("gives a program its Network as a Layer", () =>
    Effect.gen(function*() {
      const bob = yield* TestNetwork.makeNode("bob")
      yield* bob.handle("/app/1.0.0", (stream) => Stream.runForEach(stream.read, stream.write))
      const program = Effect.gen(function*() {
        const network = yield* Network
        // `open` connects first.
        const [address] = yield* bob.addresses
        const stream = yield* network.open(address!, "/app/1.0.0")
        yield* stream.write(new TextEncoder().encode("hello"))
        yield* stream.closeWrite
        return yield* Stream.runCollect(stream.read.pipe(Stream.map((chunk) => new TextDecoder().decode(chunk))))
      })
      const answer = yield* TestNetwork.run(Effect.scoped(Effect.provide(program, TestNetwork.layer("alice"))))
      assert.strictEqual(answer.join(""), "hello")
    }).pipe(Effect.provide(net)))

  it.effect("repeats a run with its seed, the nodes' own chance included", () => {
    const delays = (seed: string) =>
      Effect.gen(function*() {
        const bob = `${SimNetwork.address("bob")}/p2p/${SimNetwork.peerId("bob")}`
        const alice = yield* TestNetwork.makeNode("alice")
        const found: Array<number> = []
        yield* Effect.forkScoped(
          Stream.runForEach(alice.events, (event) =>
            Effect.sync(() => {
              if (event._tag === "ReconnectScheduled") found.push(Duration.toMillis(event.delay))
            })),
          { startImmediately: true }
        )
        yield* alice.keep(bob)
        yield* TestClock.adjust("1 minute")
        return found
      }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer({ latency: "10 millis", seed }), { local: true }))
    return Effect.gen(function*() {
      const first = yield* delays("one")
      assert.isAbove(first.length, 3)
      assert.deepStrictEqual(yield* delays("one"), first)
      assert.notDeepEqual(yield* delays("two"), first)
    })
  })

  it.live("runs in real time as well", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      const info = yield* TestNetwork.connected(alice, bob)
      assert.strictEqual(info.id, bob.localPeer)
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "1 millis" }))))
})
