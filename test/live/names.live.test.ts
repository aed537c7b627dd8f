import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Exit, Layer, Option, Scope } from "effect"
import { Network } from "../../src/Network.ts"
import type { PeerId } from "../../src/schema/Peer.ts"
import { NetworkConfig } from "../../src/services/NetworkConfig.ts"
import * as Live from "../support/live.ts"

const listen = ["/ip4/127.0.0.1/tcp/0/"]

/** Whether the node of the Layer listens, and what it was given for `maxPeers`. */
const started = <E>(layer: Layer.Layer<Network | NetworkConfig, E>) =>
  Effect.gen(function*() {
    const [address] = yield* (yield* Network).addresses
    assert.match(address ?? "", /^\/ip4\/127\.0\.0\.1\/tcp\/\d+\/p2p\/12D3/)
    return (yield* NetworkConfig).maxPeers
  }).pipe(Effect.provide(layer))

/** A seed with a key of its own at a fixed port, and its end. */
const seedAt = Effect.fnUntraced(function*(port: number) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const node = yield* Scope.provide(Live.makeNode({ listenAddresses: [`/ip4/127.0.0.1/tcp/${port}`] }), scope)
  const [address] = yield* node.addresses
  return {
    id: node.localPeer,
    address: address!.replace(/\/p2p\/.*/, ""),
    port: Number(/tcp\/(\d+)/.exec(address!)![1]),
    stop: Scope.close(scope, Exit.void)
  }
})

describe("an address without a peer id", () => {
  const ways = {
    keep: (address: string) => ({ options: {}, ask: (node: Network["Service"]) => node.keep(address) }),
    bootstrapPeers: (address: string) => ({ options: { bootstrapPeers: [address] }, ask: () => Effect.void }),
    connect: (address: string) => ({
      options: {},
      ask: (node: Network["Service"]) => Effect.orDie(Effect.asVoid(node.connect(address)))
    })
  }
  const comesBack = (way: keyof typeof ways) =>
    Effect.gen(function*() {
      const first = yield* seedAt(0)
      const { ask, options } = ways[way](first.address)
      const node = yield* Live.makeNode(options)
      yield* ask(node)
      const isConnected = (id: PeerId) => Effect.map(node.peer(id), Option.isSome)
      yield* Live.until(isConnected(first.id))
      let before = first
      // The third tells that the wish stands for the second as it did for the first.
      for (let turn = 0; turn < 2; turn++) {
        yield* before.stop
        const next = yield* seedAt(first.port)
        assert.notStrictEqual(next.id, before.id)
        yield* Live.until(isConnected(next.id), "30 seconds")
        const interest = way === "connect" ? "wanted" : "kept"
        assert.strictEqual(Option.getOrThrow(yield* node.peer(next.id)).interest, interest)
        assert.strictEqual((yield* node.explain(before.id)).interest, "transient")
        before = next
      }
    }).pipe(Effect.scoped)

  it.live("of keep stays an address: whoever comes back there is the peer", () => comesBack("keep"))

  it.live("of bootstrapPeers stays an address: whoever comes back there is the peer", () => comesBack("bootstrapPeers"))

  it.live("of connect stays an address: whoever comes back there is the peer", () => comesBack("connect"))
})

describe("a node on real sockets takes its options", () => {
  it.live("from effect's Config, and fails to start with the missing value", () =>
    Effect.gen(function*() {
      const layer = Network.layerConfig({
        listenAddresses: Config.succeed(listen),
        enableMdns: Config.succeed(false),
        maxPeers: Config.Int("PEERS")
      })
      const under = (env: Record<string, string>) => ConfigProvider.layer(ConfigProvider.fromEnv({ env }))
      assert.strictEqual(yield* started(Layer.provide(layer, under({ PEERS: "7" }))), 7)
      const error = yield* Effect.flip(started(Layer.provide(layer, under({}))))
      assert.strictEqual(error._tag, "NetworkStartError")
      assert.match(error.message, /^cannot start: invalid options: .*PEERS/)
    }))

  it.live("from the NetworkConfig below it", () =>
    Effect.gen(function*() {
      const config = NetworkConfig.layer({ listenAddresses: listen, enableMdns: false, maxPeers: 8 })
      const layer = Network.layerWithoutConfig().pipe(Layer.provide(config))
      assert.strictEqual(yield* started(layer), 8)
    }))
})
