import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Layer } from "effect"
import { Network } from "../../src/Network.ts"
import { NetworkConfig } from "../../src/services/NetworkConfig.ts"

const listen = ["/ip4/127.0.0.1/tcp/0/"]

/** Whether the node of the Layer listens, and what it was given for `maxPeers`. */
const started = <E>(layer: Layer.Layer<Network | NetworkConfig, E>) =>
  Effect.gen(function*() {
    const [address] = yield* (yield* Network).addresses
    assert.match(address ?? "", /^\/ip4\/127\.0\.0\.1\/tcp\/\d+\/p2p\/12D3/)
    return (yield* NetworkConfig).maxPeers
  }).pipe(Effect.provide(layer))

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
