import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Latch, Layer, Option, Scope, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import { TestClock } from "effect/testing"
import * as KeyValuePeerStore from "../../src/layers/machine/KeyValuePeerStore.ts"
import { Network } from "../../src/Network.ts"
import * as ContentKey from "../../src/schema/Content.ts"
import { Dht, type ProvideOptions } from "../../src/services/Dht.ts"
import { Discovery } from "../../src/services/Discovery.ts"
import { NetworkConfig } from "../../src/services/NetworkConfig.ts"
import * as SimKad from "../../src/testing/ports/SimKad.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as SimNetworkMonitor from "../../src/testing/ports/SimNetworkMonitor.ts"
import * as SimTransport from "../../src/testing/ports/SimTransport.ts"
import * as TestNetwork from "../../src/testing/TestNetwork.ts"

const key = ContentKey.fromText("a film")

/** A node over a DHT that only writes down what it provides. */
const makeNode = Effect.gen(function*() {
  const stopping = yield* Latch.make(true)
  const stops: Array<Pick<ProvideOptions, "lasting"> | undefined> = []
  const provided = new Map<ContentKey.ContentKey, ProvideOptions | undefined>()
  const layer = Network.layerCore.pipe(
    Layer.provideMerge(Layer.mergeAll(
      SimTransport.layer("alice"),
      Discovery.layer,
      SimNetworkMonitor.layer("alice"),
      KeyValuePeerStore.layer.pipe(Layer.provide(KeyValueStore.layerMemory)),
      Layer.mock(Dht)({
        startProviding: (key, options) => Effect.sync(() => void provided.set(key, options)),
        stopProviding: (key, options) =>
          Effect.suspend(() => {
            stops.push(options)
            return provided.delete(key) ? stopping.await : Effect.void
          })
      })
    )),
    Layer.provide(NetworkConfig.layer())
  )
  const network = Context.get(yield* Layer.build(Layer.fresh(layer)), Network)
  return { network, stopping, stops, isProvided: () => provided.has(key), options: () => provided.get(key) }
})

describe("provide", () => {
  it.effect("holds a key until the last of its scopes closes", () =>
    Effect.gen(function*() {
      const { isProvided, network } = yield* makeNode
      const [first, second] = yield* Effect.all([Scope.make(), Scope.make()])
      yield* Scope.provide(network.provide(key), first)
      yield* Scope.provide(network.provide(key), second)
      yield* Scope.close(first, Exit.void)
      assert.isTrue(isProvided())
      yield* Scope.close(second, Exit.void)
      assert.isFalse(isProvided())
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("ends no more than it began, which may be less than what an earlier process has", () =>
    Effect.gen(function*() {
      const { network, stops } = yield* makeNode
      yield* Effect.scoped(network.provide(key))
      yield* network.stopProviding(key)
      assert.deepStrictEqual(stops, [{ lasting: false }, undefined])
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("leaves a key alone that startProviding has begun, until stopProviding", () =>
    Effect.gen(function*() {
      const { isProvided, network } = yield* makeNode
      yield* network.startProviding(key)
      yield* Effect.scoped(network.provide(key))
      assert.isTrue(isProvided())
      yield* network.stopProviding(key)
      assert.isFalse(isProvided())
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("announces as it was told last, by whichever way", () =>
    Effect.gen(function*() {
      const { network, options } = yield* makeNode
      yield* network.startProviding(key, { ttl: "5 minutes", optimistic: true })
      assert.deepStrictEqual(options(), { ttl: "5 minutes", optimistic: true })
      yield* Effect.scoped(network.provide(key, { ttl: "1 hour" }))
      assert.deepStrictEqual(options(), { ttl: "1 hour" })
      yield* network.startProviding(key)
      assert.isUndefined(options())
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("lasts as long as the process when only scopes provide the key", () =>
    Effect.gen(function*() {
      const { isProvided, network, options } = yield* makeNode
      yield* network.provide(key, { ttl: "1 hour" })
      assert.deepStrictEqual(options(), { ttl: "1 hour", lasting: false })
      yield* network.startProviding(key, { ttl: "2 hours" })
      assert.deepStrictEqual(options(), { ttl: "2 hours" })
      yield* network.stopProviding(key)
      assert.isTrue(isProvided())
      assert.deepStrictEqual(options(), { ttl: "2 hours", lasting: false })
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("outlasts stopProviding while its scope is open", () =>
    Effect.gen(function*() {
      const { isProvided, network } = yield* makeNode
      const scope = yield* Scope.make()
      yield* network.startProviding(key)
      yield* Scope.provide(network.provide(key), scope)
      yield* network.stopProviding(key)
      assert.isTrue(isProvided())
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(isProvided())
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("ends when its scope closes while stopProviding is under way", () =>
    Effect.gen(function*() {
      const { isProvided, network, stopping } = yield* makeNode
      const scope = yield* Scope.make()
      yield* network.startProviding(key)
      yield* Scope.provide(network.provide(key), scope)
      yield* stopping.close
      const stop = yield* Effect.forkChild(network.stopProviding(key), { startImmediately: true })
      const close = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* stopping.open
      yield* Fiber.join(stop)
      yield* Fiber.join(close)
      assert.isFalse(isProvided())
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("is what is left when stopProviding is interrupted", () =>
    Effect.gen(function*() {
      const { isProvided, network, stopping } = yield* makeNode
      yield* network.provide(key)
      yield* network.startProviding(key)
      yield* stopping.close
      const stop = yield* Effect.forkChild(network.stopProviding(key), { startImmediately: true })
      const interrupt = yield* Effect.forkChild(Fiber.interrupt(stop), { startImmediately: true })
      yield* stopping.open
      yield* Fiber.join(interrupt)
      assert.isTrue(isProvided())
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))
})

describe("the keys of a node in Kademlia", () => {
  it.effect("wait while it is isolated, which it says, and are announced at once when it is back", () =>
    Effect.gen(function*() {
      const start = (name: string) => TestNetwork.start(name, { minPeers: 0 }, { dht: SimKad.layer() })
      const [alice, bob] = [yield* start("alice"), yield* start("bob")]
      yield* TestNetwork.run(alice.network.connect(SimNetwork.place("bob")))
      const status = Effect.map(Stream.runHead(alice.network.provideStatus), Option.getOrThrow)
      const network = yield* SimNetwork
      yield* network.partition([["alice"]])
      // Long enough to notice that bob is gone, whom it still has in its table.
      yield* TestClock.adjust("1 minute")
      yield* TestNetwork.run(alice.network.startProviding(key))
      yield* TestClock.adjust("2 minutes")
      // Who does not answer a dial leaves the table.
      assert.deepInclude(yield* status, { announced: 0, paused: "NoPeers" })
      yield* network.heal
      yield* TestNetwork.run(alice.network.connect(SimNetwork.place("bob")))
      yield* TestClock.adjust("1 second")
      assert.isUndefined((yield* status).paused)
      assert.strictEqual((yield* status).announced, 1)
      const found = yield* TestNetwork.run(Stream.runCollect(bob.network.findProviders(key)))
      assert.deepStrictEqual(found.map(({ id }) => id), [alice.network.localPeer])
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer({ seed: 1 }))))
})
