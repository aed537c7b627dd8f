/**
 * A program in plain JavaScript may pass anything for any argument: each public function fails typed, in one line that
 * shows what was given, and neither dies, nor starts something, nor passes it over in silence.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Order, Result, Schema, type Scope, Stream } from "effect"
import * as PublishedValue from "../../src/layers/dht/libp2p/PublishedValue.ts"
import * as SeededIdentity from "../../src/layers/machine/SeededIdentity.ts"
import { Network } from "../../src/Network.ts"
import * as ContentKey from "../../src/schema/Content.ts"
import * as LogFilter from "../../src/schema/LogFilter.ts"
import type { InvalidContentKey } from "../../src/schema/NetworkError.ts"
import * as NetworkOptions from "../../src/schema/NetworkOptions.ts"
import * as ValueNamespace from "../../src/schema/ValueNamespace.ts"
import { NetworkConfig } from "../../src/services/NetworkConfig.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../src/testing/TestNetwork.ts"

type Run = Effect.Effect<unknown, unknown, Scope.Scope>

/** What may be passed. An object without a prototype has no text, and a symbol joins no text. */
const values: ReadonlyArray<readonly [shown: string, value: unknown]> = [
  ["undefined", undefined],
  ["null", null],
  ["5", 5],
  ["NaN", Number.NaN],
  ["true", true],
  ["a text", ""],
  ["{}", {}],
  ["[]", []],
  ["a symbol", Symbol("s")],
  ["a function", () => 0],
  ["an object without a prototype", Object.create(null)]
]

/** One argument of a call, and which of the values it takes. The others have to be refused. */
type Case = readonly [name: string, call: (value: never) => Run, takes: ReadonlyArray<string>]

const objects = ["{}", "an object without a prototype"]
const options = ["undefined", ...objects]

const key = ContentKey.fromText("video")

/** A case for each argument of each function. */
const casesOf = (node: Network["Service"], id: string): ReadonlyArray<Case> => {
  const { namespace } = PublishedValue
  const path = PublishedValue.path(node.localPeer, "status")
  const value = { value: new Uint8Array() }
  const handled = (given: object) => node.handle(`/app/${Math.random()}`, () => Effect.void, given)
  const providers = (given: object) => Stream.runCollect(node.findProviders(key, given))
  return [
    ["announce", node.announce, []],
    ["listen", node.listen, []],
    ["reserve", node.reserve, []],
    ["connect", node.connect, []],
    ["connect: id", (id) => node.connect({ id, addresses: [] }), []],
    ["connect: addresses", (addresses) => node.connect({ id, addresses }), ["[]"]],
    ["connect: an address", (address) => node.connect({ id, addresses: [address] }), []],
    ["keep", node.keep, []],
    ["disconnect", node.disconnect, []],
    ["block", node.block, []],
    ["peer", node.peer, []],
    ["explain", node.explain, []],
    ["ping", node.ping, []],
    ["startProviding", node.startProviding, []],
    ["startProviding: options", (given) => node.startProviding(key, given), options],
    ["startProviding: ttl", (ttl) => node.startProviding(key, { ttl }), ["undefined"]],
    ["startProviding: optimistic", (optimistic) => node.startProviding(key, { optimistic }), ["undefined", "true"]],
    ["stopProviding", node.stopProviding, []],
    ["provide", node.provide, []],
    ["provide: options", (given) => node.provide(key, given), options],
    ["findProviders", (given) => Stream.runCollect(node.findProviders(given)), []],
    ["findProviders: options", (given) => providers(given), options],
    ["findProviders: maxProviders", (maxProviders) => providers({ maxProviders }), ["undefined", "5"]],
    ["findProviders: findTimeout", (findTimeout) => providers({ findTimeout }), ["undefined", "5"]],
    ["findProviders: requirePeers", (requirePeers) => providers({ requirePeers }), ["undefined", "true"]],
    ["closestPeers", node.closestPeers, []],
    ["findPeer", node.findPeer, []],
    ["putValue: namespace", (given) => node.putValue(given, path, value), []],
    ["putValue: path", (given) => node.putValue(namespace, given, value), []],
    ["putValue: value", (given) => node.putValue(namespace, path, given), []],
    ["putValue: value of the value", (value) => node.putValue(namespace, path, { value }), []],
    ["putValue: options", (given) => node.putValue(namespace, path, value, given), options],
    ["putValue: quorum", (quorum) => node.putValue(namespace, path, value, { quorum }), ["undefined", "5"]],
    ["getValue: namespace", (given) => node.getValue(given, path), []],
    ["getValue: path", (given) => node.getValue(namespace, given), []],
    ["getValue: options", (given) => node.getValue(namespace, path, given), options],
    ["getValue: quorum", (quorum) => node.getValue(namespace, path, { quorum }), ["undefined", "5"]],
    ["handle: protocol", (protocol) => node.handle(protocol, () => Effect.void), []],
    ["handle: handler", (handler) => node.handle("/app/9", handler), ["a function"]],
    ["handle: options", (given) => handled(given), options],
    ["handle: maxStreamsPerPeer", (maxStreamsPerPeer) => handled({ maxStreamsPerPeer }), ["undefined", "5"]],
    ["handle: authorize", (authorize) => handled({ authorize }), ["undefined", "a function"]],
    ["open", (peer) => node.open(peer, "/app/1"), []],
    ["open: protocol", (protocol) => node.open(id, protocol), []],
    ["write", (bytes) => Effect.flatMap(node.open(id, "/app/1"), (stream) => stream.write(bytes)), []]
  ]
}

const built = <E>(layer: Layer.Layer<never, E> | Layer.Layer<Network, E> | Layer.Layer<NetworkConfig, E>) =>
  Layer.build(layer as Layer.Layer<never, E>)

/** Of functions that give a value, what is thrown: a typed error, of which this is one. */
const thrown = (call: () => unknown) => Effect.try({ try: call, catch: (error) => error as InvalidContentKey })

const withSchema = { name: "scores", order: Order.Number, schema: ValueNamespace.fromJson(Schema.Number) }

/** What fails before a node starts. */
const cases: ReadonlyArray<Case> = [
  ["Network.make", (given) => Network.make(given), options],
  ["Network.make: parts", (parts) => Network.make({}, parts), options],
  ["Network.make: identity", (identity) => Network.make({}, { identity }), ["undefined"]],
  ["Network.make: dht", (dht) => Network.make({}, { dht }), ["undefined"]],
  ["Network.layer", (given) => built(Network.layer(given)), options],
  ["Network.layerConfig", (given) => built(Network.layerConfig(given)), objects],
  ["Network.layerConfig: an option", (listenPort) => built(Network.layerConfig({ listenPort })), []],
  ["NetworkConfig.resolve", (given) => NetworkConfig.resolve(given), options],
  ["NetworkConfig.layer", (given) => built(NetworkConfig.layer(given)), options],
  ["NetworkConfig.layerConfig", (given) => built(NetworkConfig.layerConfig(given)), objects],
  ["NetworkConfig.layerEnv", (prefix) => built(NetworkConfig.layerEnv(prefix)), ["undefined"]],
  [
    "NetworkConfig.withBootstrapPeer",
    (address) => NetworkConfig.resolve(NetworkConfig.withBootstrapPeer(address)({})),
    []
  ],
  ["NetworkOptions.decodeValues", (given) => NetworkOptions.decodeValues(given), objects],
  ["NetworkOptions.decodeTexts", (given) => NetworkOptions.decodeTexts(given, (name) => name), objects],
  ["NetworkOptions.decodeEnvironment", (given) => NetworkOptions.decodeEnvironment(given), objects],
  ["ContentKey.fromText", (text) => thrown(() => ContentKey.fromText(text)), ["a text"]],
  ["ContentKey.fromBytes", (bytes) => thrown(() => ContentKey.fromBytes(bytes)), []],
  ["ContentKey.fromRustRecordKey", (bytes) => thrown(() => ContentKey.fromRustRecordKey(bytes)), []],
  ["ContentKey.fromCid", (cid) => Effect.fromResult(ContentKey.fromCid(cid)), []],
  ["ContentKey.parse", (text) => Effect.fromResult(ContentKey.parse(text)), []],
  ["ContentKey.toBytes", (given) => thrown(() => ContentKey.toBytes(given)), ["a text"]],
  ["PublishedValue.path", (publisher) => thrown(() => PublishedValue.path(publisher, "status")), ["a text"]],
  ["PublishedValue.path: name", (name) => thrown(() => PublishedValue.path("12D3KooW", name)), ["a text"]],
  ["SeededIdentity.make", (seed) => thrown(() => SeededIdentity.make(seed)), []],
  ["SeededIdentity.layer", (seed) => Layer.build(SeededIdentity.layer(seed)), []],
  ["ValueNamespace.make", (given) => thrown(() => ValueNamespace.make(given)), []],
  ["ValueNamespace.make: name", (name) => thrown(() => ValueNamespace.make({ ...withSchema, name })), []],
  ["ValueNamespace.make: schema", (schema) => thrown(() => ValueNamespace.make({ ...withSchema, schema })), []],
  [
    "ValueNamespace.make: order",
    (order) => thrown(() => ValueNamespace.make({ ...withSchema, order })),
    ["a function"]
  ],
  ["ValueNamespace.fromJson", (schema) => thrown(() => ValueNamespace.fromJson(schema)), []],
  [
    "LogFilter.parse",
    (text) => Effect.fromResult(Result.mapError(LogFilter.parse(text), (message) => ({ _tag: "LogFilter", message }))),
    ["a text"]
  ]
]

/** Runs the call with each value that it does not take. */
const refuses = Effect.fnUntraced(function*([name, call, takes]: Case) {
  for (const [shown, value] of values) {
    if (takes.includes(shown)) continue
    const what = `${name} of ${shown}`
    const exit = yield* TestNetwork.run(Effect.exit(Effect.scoped(Effect.suspend(() => call(value as never)))))
    assert.isTrue(Exit.isFailure(exit), `${what} passes`)
    if (Exit.isSuccess(exit)) continue
    assert.isFalse(Cause.hasDies(exit.cause), `${what}: ${Cause.pretty(exit.cause)}`)
    const { _tag, message } = Cause.squash(exit.cause) as { readonly _tag?: string; readonly message: string }
    assert.isString(_tag, what)
    assert.notMatch(message, /\n|\[object|Cannot|is not a function/, what)
    assert.match(
      message,
      /expected|a ttl is|is not a|cannot name|a content key has|it is empty|missing/,
      what
    )
    assert.isBelow(message.length, 400, what)
  }
})

describe("anything for an argument", () => {
  it.effect("fails each function of a node", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* TestNetwork.connected(alice, bob)
      yield* bob.handle("/app/1", () => Effect.void)
      const cases = casesOf(alice, bob.localPeer)
      const functions = Object.entries(alice).flatMap(([name, member]) => typeof member === "function" ? [name] : [])
      const named = new Set(cases.map(([name]) => name.split(":")[0]!))
      assert.deepStrictEqual(functions.filter((name) => !named.has(name)), [])
      for (const each of cases) yield* refuses(each)
      const simulated = yield* SimNetwork
      const started = (...given: Parameters<typeof TestNetwork.makeNode>) =>
        Effect.provideService(TestNetwork.makeNode(...given), SimNetwork, simulated)
      yield* refuses(["TestNetwork.makeNode", (name) => started(name), ["a text"]])
      yield* refuses(["TestNetwork.makeNode: config", (config) => started("carol", config), options])
      yield* refuses(["TestNetwork.makeNode: options", (given) => started("carol", {}, given), options])
      // A misspelled option would be passed over.
      for (
        const call of [
          alice.startProviding(key, { tll: "1 hour" } as {}),
          alice.provide(key, { optimstic: true } as {}),
          Stream.runDrain(alice.findProviders(key, { maxProvider: 1 } as {})),
          alice.getValue(PublishedValue.namespace, PublishedValue.path(bob.localPeer, "a"), { quorom: 1 } as {})
        ]
      ) {
        assert.match((yield* Effect.flip(Effect.scoped(call))).message, /: there is no such option; expected \w+/)
      }
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("fails each function that needs no node", () => Effect.forEach(cases, refuses, { discard: true }))

  it.effect("says what was wrong and what to do", () =>
    Effect.gen(function*() {
      const messageOf = <A, E extends { readonly message: string }>(call: Effect.Effect<A, E, Scope.Scope>) =>
        Effect.map(Effect.flip(Effect.scoped(call)), ({ message }) => message)
      assert.strictEqual(
        yield* messageOf(Network.make(5 as never)),
        "cannot start: invalid options: expected an object of options such as { listenPort: 4001 }, got 5"
      )
      assert.strictEqual(
        yield* messageOf(Network.make({}, { identity: "secret", dth: Layer.empty } as never)),
        "cannot start: invalid options: identity: expected a Layer such as SeededIdentity.layer(seed); "
          + "dth: there is no such part; expected identity, dht"
      )
      assert.strictEqual(
        yield* messageOf(built(Network.layerConfig({ listenPort: 4001 } as never))),
        "cannot start: invalid options: listenPort: expected a Config such as Config.Port(\"PORT\"), got 4001"
      )
      const alice = yield* TestNetwork.makeNode("alice")
      const id = alice.localPeer
      assert.strictEqual(
        yield* messageOf(alice.putValue(undefined as never, "path", 1)),
        "putValue path: expected a namespace such as PublishedValue.namespace, got undefined"
      )
      assert.strictEqual(
        yield* messageOf(alice.connect({ id } as never)),
        `dial ${id}: addresses: expected a list of multiaddrs, got undefined`
      )
      assert.strictEqual(
        yield* messageOf(alice.connect({} as never)),
        "dial {}: expected a peer id, a multiaddr, or an id with addresses, got {}"
      )
      assert.strictEqual(
        yield* messageOf(alice.handle("/app/1", undefined as never)),
        "protocol /app/1: handler: expected a function that makes an Effect of the stream, got undefined"
      )
      // A seed is the key: no message shows it.
      const seed = "0123456789abcdef0123456789abcdef"
      assert.strictEqual(
        yield* messageOf(Layer.build(SeededIdentity.layer(seed as never))),
        "identity of a seed: expected a Uint8Array of 32 bytes, got a text; "
          + "decode it first, such as by Buffer.from(text, \"hex\")"
      )
      assert.throws(() => SeededIdentity.make(new Uint8Array(31)), /expected a Uint8Array of 32 bytes, got 31 bytes/)
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))
})
