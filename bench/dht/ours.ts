/**
 * Nodes of this library, from the compiled package.
 */
import { Context, Effect, Layer, Option, References, Schedule, Scope, Stream } from "effect"
import { type BenchNode, kadProtocol, type NodesOptions, peersMax } from "./BenchNode.ts"

const dist = (file: string) => new URL(`../../dist/${file}`, import.meta.url).href
const { ContentKey, HealthPolicy, KadDhtPolicy, Network }: typeof import("../../src/index.ts") = await import(
  dist("index.js")
)
const { Libp2pHost }: typeof import("../../src/layers/index.ts") = await import(dist("layers/index.js"))

export const make = async (options: NodesOptions): Promise<BenchNode> => {
  const layer = Network.layer({
    listenAddresses: ["/ip4/127.0.0.1/tcp/0"],
    enableMdns: false,
    enableRelay: false,
    maxPeers: peersMax,
    // Only Kademlia dials, as with plain js-libp2p.
    minPeers: 0,
    inboundRate: 1_000,
    inboundBurst: 10_000,
    kadProtocol
  })
  const silent = Layer.succeed(HealthPolicy)({ probe: Schedule.spaced("1 hour"), timeout: "1 minute", maxFailures: 2 })
  const { republishSeconds } = options
  const policies = Layer.mergeAll(
    options.isWatchful === true ? Layer.empty : silent,
    republishSeconds === undefined ? Layer.empty : Layer.effect(
      KadDhtPolicy,
      Effect.map(KadDhtPolicy, (policy) => ({
        ...policy,
        republish: Schedule.spaced(`${republishSeconds} seconds`)
      }))
    )
  )
  const context = await run(Layer.buildWithScope(Layer.fresh(Layer.provide(layer, policies)), scope))
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
    provide: (key, { optimistic }) => run(network.startProviding(ContentKey.fromRustRecordKey(key), { optimistic })),
    provideMany: (count) =>
      run(Effect.gen(function*() {
        const keys = Array.from(
          { length: count },
          () => ContentKey.fromBytes(crypto.getRandomValues(new Uint8Array(32)))
        )
        yield* Effect.forEach(keys, (key) => network.startProviding(key), { concurrency: 500, discard: true })
        const status = yield* Stream.runHead(
          Stream.filter(network.provideStatus, ({ announced, queued }) => announced >= count && queued === 0)
        )
        return Option.getOrThrow(status).copies.mean
      })),
    explore: (key) => find(key, () => {}),
    find,
    // Kademlia tags the peers of its table.
    known: async () => {
      const peers = await components.peerStore.all()
      return peers.filter(({ tags }) => tags.has("kad-peer")).map(({ id }) => id.toString())
    }
  }
}

// internal ------------------------------------------------------------------------------------------------------------

// The scope of all nodes of this process, never closed: the process is killed.
const scope = Scope.makeUnsafe()

function run<A, E>(effect: Effect.Effect<A, E>): Promise<A> {
  return Effect.runPromise(Effect.provideService(effect, References.MinimumLogLevel, "Error"))
}
