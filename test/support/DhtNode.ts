/**
 * A libp2p node with the DHT and little else, for specs of the DHT over sockets.
 */
import { Context, Effect, Exit, Layer, Schedule, Scope, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import * as FileIdentity from "../../src/layers/machine/FileIdentity.ts"
import * as KadDht from "../../src/layers/dht/KadDht.ts"
import { KadDhtPolicy, type KadDhtPolicyOptions } from "../../src/services/KadDhtPolicy.ts"
import type { Components } from "../../src/layers/libp2p/wire/Components.ts"
import * as Libp2pHost from "../../src/layers/libp2p/Host.ts"
import * as TcpListener from "../../src/layers/libp2p/TcpListener.ts"
import type { ContentKey } from "../../src/schema/Content.ts"
import { type Multiaddr, type PeerId, withoutPeer } from "../../src/schema/Peer.ts"
import { Dht } from "../../src/services/Dht.ts"
import { Discovery } from "../../src/services/Discovery.ts"
import type { Identity } from "../../src/services/Identity.ts"
import { NetworkConfig, type NetworkConfigInput } from "../../src/services/NetworkConfig.ts"

export const kadProtocol = "/codio/kad/1.0.0"

export interface Node {
  readonly id: PeerId
  readonly dht: Dht["Service"]
  readonly discovery: Discovery["Service"]
  readonly node: Libp2pHost.Libp2pHost["Service"]["node"]
  readonly components: Components
  /** The kad-dht that was attached to the host. */
  readonly kad: unknown
  readonly stop: Effect.Effect<void>
}

export interface Options {
  readonly config?: NetworkConfigInput
  readonly policy?: Partial<KadDhtPolicyOptions>
  readonly store?: Layer.Layer<KeyValueStore.KeyValueStore>
  readonly identity?: Layer.Layer<Identity>
  readonly withoutDht?: boolean
  /** A kad-dht that lacks something is met first. */
  readonly misses?: string
}

const policy: Partial<KadDhtPolicyOptions> = {
  retry: Schedule.spaced("100 millis"),
  republish: Schedule.spaced("11 hours"),
  cacheTime: 0,
  findTimeout: "5 seconds"
}

const openGate = Layer.effectDiscard(
  Effect.flatMap(Libp2pHost.Libp2pHost, (host) => host.gate(() => Effect.succeed(true)))
)

export const makeNode = Effect.fnUntraced(function*(options: Options = {}) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
  let kad: unknown
  let { misses } = options
  const host = Layer.effect(
    Libp2pHost.Libp2pHost,
    Effect.map(Libp2pHost.make, (host) => ({
      ...host,
      attach: (module, factory) =>
        host.attach(module, (components) => {
          const instance = factory(components)
          if (module === "kad-dht" && misses !== undefined) {
            const detail = misses
            misses = undefined
            throw new Error(detail)
          }
          if (module === "kad-dht") kad = instance
          return instance
        })
    }))
  )
  const noDht = Layer.mock(Dht)({})
  const layer = Layer.mergeAll(options.withoutDht === true ? noDht : KadDht.layer).pipe(
    Layer.provideMerge(TcpListener.layer),
    Layer.provideMerge(openGate),
    Layer.provideMerge(host),
    Layer.provideMerge(options.identity ?? FileIdentity.layerEphemeral),
    Layer.provideMerge(Discovery.layer),
    Layer.provide(options.store ?? Layer.fresh(KeyValueStore.layerMemory)),
    Layer.provide(Layer.succeed(KadDhtPolicy)({ ...KadDhtPolicy.defaultValue(), ...policy, ...options.policy })),
    Layer.provide(NetworkConfig.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], ...options.config }))
  )
  const context = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
  const { components, node } = Context.get(context, Libp2pHost.Libp2pHost)
  const result: Node = {
    id: node.peerId.toString() as PeerId,
    dht: Context.get(context, Dht),
    discovery: Context.get(context, Discovery),
    node,
    components,
    kad,
    stop: Scope.close(scope, Exit.void)
  }
  return result
})

/** Connects, and waits until both sides know. */
export const connect = Effect.fnUntraced(function*(from: Node, to: Node) {
  yield* Effect.promise((signal) => from.node.dial(to.node.getMultiaddrs(), { signal }))
  yield* until(
    "the listener has it",
    Effect.sync(() => to.node.getConnections(from.node.peerId).length),
    (count) => count > 0
  )
})

/** Waits until a node has been told what another one is, and where: before that it names it to nobody. */
export const knows = (node: Node, other: { readonly node: Pick<Node["node"], "peerId"> }) =>
  until(
    "identified",
    Effect.promise(() => node.components.peerStore.get(other.node.peerId).catch(() => undefined)),
    (peer) => peer?.metadata.has("AgentVersion") === true
  )

/** Connects, and waits until each has been told what the other is. */
export const introduce = Effect.fnUntraced(function*(from: Node, to: Node) {
  yield* connect(from, to)
  yield* knows(from, to)
  yield* knows(to, from)
})

/** Nodes of which each is introduced to the next. */
export const line = Effect.fnUntraced(function*(size: number, options?: Options) {
  const nodes: Array<Node> = []
  for (let i = 0; i < size; i++) nodes.push(yield* makeNode(options))
  for (let i = 1; i < size; i++) yield* introduce(nodes[i - 1]!, nodes[i]!)
  return nodes
})

/** From here on the node takes questions and never answers one. */
export const mute = ({ components: { registrar } }: Node) =>
  Effect.promise(async () => {
    await registrar.unhandle(kadProtocol)
    await registrar.handle(kadProtocol, () => {})
  })

export const providersOf = (node: Node, key: ContentKey) => Stream.runCollect(node.dht.findProviders(key))

export const until = <A, E, R>(label: string, read: Effect.Effect<A, E, R>, holds: (a: A) => boolean) =>
  Effect.repeat(read, { schedule: Schedule.spaced("10 millis"), until: holds }).pipe(
    Effect.timeoutOrElse({ duration: "1 minute", orElse: () => Effect.die(new Error(`never: ${label}`)) })
  )

export const addresses = (node: Node) =>
  node.node.getMultiaddrs().map((address) => withoutPeer(String(address) as Multiaddr))
