/**
 * Nodes of this library, from the compiled package.
 */
import { Context, Effect, Layer, References, Schedule, Scope, Stream } from "effect"
import { type BenchNode, kadProtocol, type NodesOptions, peersMax } from "./BenchNode.ts"

const dist = (file: string) => new URL(`../../dist/${file}`, import.meta.url).href
const { ContentKey, HealthPolicy, Network }: typeof import("../../src/index.ts") = await import(dist("index.js"))
const { Libp2pHost }: typeof import("../../src/layers/index.ts") = await import(dist("layers/index.js"))

export const make = async (options: NodesOptions): Promise<BenchNode> => {
  const layer = Network.layer({
    listenAddresses: ["/ip4/127.0.0.1/tcp/0"],
    enableMdns: false,
    enableRelay: false,
    maxPeers: peersMax,
    // Nobody is dialled but by Kademlia itself, as with plain js-libp2p.
    minPeers: 0,
    inboundRate: 1_000,
    inboundBurst: 10_000,
    kadProtocol
  })
  const silent = Layer.succeed(HealthPolicy)({ probe: Schedule.spaced("1 hour"), timeout: "1 minute", maxFailures: 2 })
  const context = await run(Layer.buildWithScope(
    Layer.fresh(options.isWatchful === true ? layer : Layer.provide(layer, silent)),
    scope
  ))
  const network = Context.get(context, Network)
  const { components } = Context.get(context, Libp2pHost.Libp2pHost)
  const [address] = await run(network.addresses)
  const find: BenchNode["find"] = (key, found) =>
    run(Stream.runForEach(
      network.findProviders(ContentKey.fromRustRecordKey(key)),
      ({ id }) => Effect.sync(() => found(id))
    ))
  return {
    peer: network.localPeer,
    address: address!,
    connect: async (address) => {
      await run(network.connect(address))
    },
    provide: (key, { optimistic }) => run(startProviding(network, ContentKey.fromRustRecordKey(key), { optimistic })),
    explore: (key) => find(key, () => {}),
    find,
    // Kademlia tags whom it has in its table.
    known: async () => {
      const peers = await components.peerStore.all()
      return peers.filter(({ tags }) => tags.has("kad-peer")).map(({ id }) => id.toString())
    }
  }
}

// internal -------------------------------------------------------------------------------------------------------------------------------

// Of all nodes of this process: it ends by being killed.
const scope = Scope.makeUnsafe()

function run<A, E>(effect: Effect.Effect<A, E>): Promise<A> {
  return Effect.runPromise(Effect.provideService(effect, References.MinimumLogLevel, "Error"))
}

function startProviding(
  network: (typeof Network)["Service"],
  key: ReturnType<typeof ContentKey.fromRustRecordKey>,
  _options: { readonly optimistic: boolean }
) {
  return network.startProviding(key)
}
