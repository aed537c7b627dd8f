/**
 * A libp2p node with the DHT and little else, for specs of the DHT over sockets.
 */
import type { Connection, PeerId as Libp2pPeerId } from "@libp2p/interface"
import { peerIdFromString } from "@libp2p/peer-id"
import { streamPair } from "@libp2p/utils"
import { multiaddr } from "@multiformats/multiaddr"
import { Context, Effect, Exit, Layer, Schedule, Scope, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import * as FileIdentity from "../../src/layers/machine/FileIdentity.ts"
import * as NodeNetworkMonitor from "../../src/layers/machine/NodeNetworkMonitor.ts"
import * as KadDht from "../../src/layers/dht/libp2p/KadDht.ts"
import { read } from "../../src/layers/dht/libp2p/Peers.ts"
import {
  decodeMessage,
  encodeFrame,
  FrameReader,
  type Message,
  MessageType
} from "../../src/layers/dht/wire/Message.ts"
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
import type { NetworkMonitor } from "../../src/services/NetworkMonitor.ts"
import { peerId } from "./FakeConnection.ts"
import { patience } from "./patience.ts"

export const kadProtocol = "/codio/kad/1.0.0"

export interface Node {
  readonly id: PeerId
  readonly dht: Dht["Service"]
  readonly discovery: Discovery["Service"]
  readonly node: Libp2pHost.Libp2pHost["Service"]["node"]
  readonly components: Components
  /** The kad-dht that was attached to the host. */
  readonly kad: unknown
  /** The peers that the gate refuses a connection to or from. */
  readonly refused: Set<PeerId>
  readonly stop: Effect.Effect<void>
}

export interface Options {
  readonly config?: NetworkConfigInput
  readonly policy?: Partial<KadDhtPolicyOptions>
  readonly store?: Layer.Layer<KeyValueStore.KeyValueStore>
  readonly identity?: Layer.Layer<Identity>
  readonly monitor?: Layer.Layer<NetworkMonitor>
  readonly withoutDht?: boolean
  /** Takes something from the kad-dht before it starts. */
  readonly spoil?: (kad: unknown) => void
}

const policy: Partial<KadDhtPolicyOptions> = {
  retry: Schedule.spaced("100 millis"),
  republish: Schedule.spaced("11 hours"),
  cacheTime: 0,
  findTimeout: "5 seconds"
}

const gateAgainst = (refused: ReadonlySet<PeerId>) =>
  Layer.effectDiscard(
    Effect.flatMap(Libp2pHost.Libp2pHost, (host) =>
      host.gate((request) =>
        Effect.sync(() =>
          request.stage === "address" || request.peer === undefined || !refused.has(request.peer)
        )
      ))
  )

export const makeNode = Effect.fnUntraced(function*(options: Options = {}) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
  const refused = new Set<PeerId>()
  let kad: unknown
  const host = Layer.effect(
    Libp2pHost.Libp2pHost,
    Effect.map(Libp2pHost.make, (host) => ({
      ...host,
      attach: (module, factory) =>
        host.attach(module, (components) => {
          const instance = factory(components)
          if (module === "kad-dht") {
            kad = instance
            options.spoil?.(kad)
          }
          return instance
        })
    }))
  )
  const noDht = Layer.mock(Dht)({})
  const layer = Layer.mergeAll(options.withoutDht === true ? noDht : KadDht.layer).pipe(
    Layer.provideMerge(TcpListener.layer),
    Layer.provideMerge(gateAgainst(refused)),
    Layer.provideMerge(host),
    Layer.provideMerge(options.identity ?? FileIdentity.layerEphemeral),
    Layer.provideMerge(Discovery.layer),
    Layer.provide(options.monitor ?? NodeNetworkMonitor.layer),
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
    refused,
    stop: Scope.close(scope, Exit.void)
  }
  return result
})

/**
 * Lets no connection come to be between two nodes. Otherwise they connect by themselves: a node that meets its first
 * peer looks itself up, and asks the peers that this peer names.
 */
export const keepApart = (one: Node, other: Node) =>
  Effect.sync(() => {
    one.refused.add(other.id)
    other.refused.add(one.id)
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

/** Waits until identify has told a node what another node speaks, and at which addresses it listens. */
export const knows = (node: Node, other: { readonly node: Pick<Node["node"], "peerId"> }) =>
  until(
    "identified",
    Effect.promise(() => node.components.peerStore.get(other.node.peerId).catch(() => undefined)),
    (peer) => peer?.metadata.has("AgentVersion") === true
  )

/**
 * Waits until a node that serves the DHT names another node, with every address at which it listens, to whoever asks
 * for it.
 *
 * Being identified is not enough: the DHT hears of the peer by a topology notice of its own, and then reads its
 * addresses from the peer store.
 */
const names = (node: Node, other: { readonly node: Pick<Node["node"], "getMultiaddrs" | "peerId"> }) =>
  until(
    "named",
    addressesNamed(node, other.node.peerId),
    (named) => other.node.getMultiaddrs().every((address) => named.has(withoutPeer(String(address) as Multiaddr)))
  )

/** Connects, and waits until each names the other to a third. */
export const introduce = Effect.fnUntraced(function*(from: Node, to: Node) {
  yield* connect(from, to)
  yield* names(from, to)
  yield* names(to, from)
})

/** Nodes in a line, each introduced to the next. Others of them may connect as well, see {@link keepApart}. */
export const line = Effect.fnUntraced(function*(size: number, options?: Options) {
  const nodes: Array<Node> = []
  for (let i = 0; i < size; i++) nodes.push(yield* makeNode(options))
  for (let i = 1; i < size; i++) yield* introduce(nodes[i - 1]!, nodes[i]!)
  return nodes
})

/** Has the node take questions and never answer any. */
export const mute = ({ components: { registrar } }: Node) =>
  Effect.promise(async () => {
    await registrar.unhandle(kadProtocol)
    await registrar.handle(kadProtocol, () => {})
  })

export const providersOf = (node: Node, key: ContentKey) => Stream.runCollect(node.dht.findProviders(key))

export const until = <A, E, R>(label: string, read: Effect.Effect<A, E, R>, holds: (a: A) => boolean) =>
  Effect.repeat(read, { schedule: Schedule.spaced("10 millis"), until: holds }).pipe(
    Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.die(new Error(`never: ${label}`)) })
  )

export const addresses = (node: Node) =>
  node.node.getMultiaddrs().map((address) => withoutPeer(String(address) as Multiaddr))

/**
 * What a node that serves the DHT answers, over a stream in memory to the handler that streams of the network get.
 */
export const ask = (node: Node, question: Parameters<typeof encodeFrame>[0]): Effect.Effect<Message> =>
  Effect.promise(async () => {
    const { handler } = node.components.registrar.getHandler(kadProtocol)
    const [near, far] = await streamPair({ protocol: kadProtocol })
    const remote = { remotePeer: stranger, remoteAddr: multiaddr("/ip4/127.0.0.1/tcp/1"), direction: "inbound" }
    const answer = new Promise<Message>((resolve, reject) => {
      const reader = new FrameReader()
      near.addEventListener(
        "message",
        ({ data }) => reader.push(data.subarray(), (bytes) => resolve(decodeMessage(bytes)))
      )
      near.addEventListener("close", () => reject(new Error("the node has reset the stream")))
    })
    await handler(far, remote as Connection)
    near.send(encodeFrame(question))
    const message = await answer
    near.abort(new Error("asked all"))
    return message
  })

/** The addresses of a peer among those that an answer names. */
export const addressesIn = (named: Message["closer"], peer: Libp2pPeerId): ReadonlySet<string> => {
  const { bytes } = peer.toMultihash()
  return new Set(named.filter(({ id }) => Buffer.compare(id, bytes) === 0).flatMap(({ addresses }) => read(addresses)))
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** A peer that never connects: in its name a node is asked without a trace in its routing table or peer store. */
const stranger = peerIdFromString(peerId("stranger"))

/** The addresses with which a node answers FIND_NODE. */
const addressesNamed = (node: Node, target: Libp2pPeerId): Effect.Effect<ReadonlySet<string>> => {
  const key = target.toMultihash().bytes
  return Effect.map(ask(node, { type: MessageType.FIND_NODE, key }), ({ closer }) => addressesIn(closer, target))
}
