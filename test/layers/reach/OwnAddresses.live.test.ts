import { assert, describe, it } from "@effect/vitest"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, Layer, PubSub, Stream } from "effect"
import * as FileIdentity from "../../../src/layers/machine/FileIdentity.ts"
import * as Host from "../../../src/layers/libp2p/Host.ts"
import * as OwnAddresses from "../../../src/layers/reach/OwnAddresses.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { type NetworkChange, NetworkMonitor } from "../../../src/services/NetworkMonitor.ts"
import * as TcpListener from "../../../src/layers/libp2p/TcpListener.ts"
import * as Live from "../../support/live.ts"

describe("OwnAddresses", () => {
  it.live("announces a public address that the machine gets while the node listens", () =>
    Effect.gen(function*() {
      const changes = yield* PubSub.sliding<NetworkChange>(16)
      const layer = OwnAddresses.layer.pipe(
        Layer.provideMerge(TcpListener.layer),
        Layer.provideMerge(Host.layer),
        Layer.provide(FileIdentity.layerEphemeral),
        Layer.provide(NetworkConfig.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"] })),
        Layer.provide(
          Layer.succeed(NetworkMonitor)({
            interfaces: Effect.succeed([]),
            changes: Stream.fromPubSub(changes)
          })
        )
      )
      const { components, node } = yield* Host.Libp2pHost.pipe(Effect.provide(yield* Layer.build(layer)))
      const announced = () => node.getMultiaddrs().map(String).filter((address) => address.includes("/44.0.0.1/"))
      const [listener] = components.transportManager.getListeners()
      const [own] = listener!.getAddrs()
      listener!.getAddrs = () => [own!, multiaddr("/ip4/44.0.0.1/tcp/4001")]
      assert.deepStrictEqual(announced(), [])
      yield* PubSub.publish(changes, { _tag: "AddressesChanged" })
      yield* Live.until(Effect.sync(() => announced().length === 1))
      // Peers get the addresses that the peer store has of this node.
      yield* Live.until(Effect.map(
        Effect.promise(() => node.peerStore.get(node.peerId)),
        ({ addresses }) => addresses.some(({ multiaddr }) => String(multiaddr).includes("/44.0.0.1/"))
      ))
    }))
})
