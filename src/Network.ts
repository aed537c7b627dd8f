/**
 * The roof: one service with everything that a program asks of a node.
 */
import type { Duration, Option, Scope } from "effect"
import { Context, Effect, Layer, Schema, Stream } from "effect"
import type * as Host from "./layers/libp2p/Host.ts"
import * as ProviderRanking from "./layers/dht/lookup/ProviderRanking.ts"
import * as Node from "./Node.ts"
import type { ContentKey, Provider } from "./schema/Content.ts"
import type {
  ConnectError,
  DhtError,
  NetworkStartError,
  PeerNotConnected,
  PingError,
  StreamError
} from "./schema/NetworkError.ts"
import { DialError, InvalidAddress, ProtocolError } from "./schema/NetworkError.ts"
import type { NetworkEvent } from "./schema/NetworkEvent.ts"
import type { NodeStatus, PeerExplanation } from "./schema/NodeStatus.ts"
import type { DialTarget, PeerAddresses, PeerInfo } from "./schema/Peer.ts"
import { isMultiaddr, Multiaddr, PeerId, peerOf, ProtocolId } from "./schema/Peer.ts"
import type { ProvideStatus } from "./schema/ProvideStatus.ts"
import { ConnectionManager } from "./services/ConnectionManager.ts"
import { Dht, type FindOptions, type ProvideOptions } from "./services/Dht.ts"
import { Health } from "./services/Health.ts"
import type { NetworkConfig, NetworkConfigInput } from "./services/NetworkConfig.ts"
import { NetworkEvents } from "./services/NetworkEvents.ts"
import { PeerTable } from "./services/PeerTable.ts"
import { Protocols } from "./services/Protocols.ts"
import type { ByteStream } from "./services/Transport.ts"
import { Transport } from "./services/Transport.ts"

/**
 * What a program may dial: an address, a peer id, or a peer with addresses. Plain text is decoded here, once.
 */
export type Target = DialTarget | string

/**
 * One node of the network: everything that a program asks of it. `Network.layer` and `Network.make` build it, and it
 * runs as long as its scope.
 */
export class Network extends Context.Service<Network, {
  /**
   * The id of this node, made from its public key. With a `dataDirectory` it stays the same across restarts.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.flatMap(Network, ({ localPeer }) => Console.log(`this node is ${localPeer}`))
   * ```
   */
  readonly localPeer: PeerId
  /**
   * The addresses at which other nodes can dial this node now, each ending in `/p2p/<id>`. They change with the network
   * interfaces, and when a relay grants or ends a reservation. Empty while this node does not listen.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   for (const address of yield* network.addresses) yield* Console.log(address)
   * })
   * ```
   */
  readonly addresses: Effect.Effect<ReadonlyArray<Multiaddr>>
  /**
   * Connects to a peer and makes it wanted: when the connection is lost, `ReconnectPolicy` decides when to dial again.
   * `Interest` says until when. Gives the peer's info at once when the peer is connected.
   *
   * Fails with `DialError` when the peer cannot be dialled, with `PeerLimitExceeded` when all `maxPeers` slots are
   * taken by peers of the same or higher interest. Interruption aborts the dial unless another caller waits for it.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   const peer = yield* network.connect("/ip4/192.0.2.1/tcp/4001")
   *   yield* Console.log(`connected to ${peer.id}, which runs ${peer.agentVersion}`)
   * })
   * ```
   */
  readonly connect: (target: Target) => Effect.Effect<PeerInfo, ConnectError>
  /**
   * Keeps a connection to the peer while the scope lives: the peer is dialled again without end, never closed for
   * idleness, never evicted. Returns at once, before the peer is connected.
   *
   * Fails with `DialError` only for a malformed target and for this node itself. An address without `/p2p` is kept once
   * a peer has answered there; an error that no later dial can mend ends it before that, with a warning.
   *
   * Closing the scope leaves the connection open; it then idles like any other.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* network.keep("/dns4/relay.example.com/tcp/4001")
   *   yield* Effect.never
   * }).pipe(Effect.scoped)
   * ```
   */
  readonly keep: (target: Target) => Effect.Effect<void, DialError, Scope.Scope>
  /**
   * Closes the connection and ends reconnection; a `keep` is suspended. The next `connect` or `keep` of the peer ends
   * that. The peer may still dial this node; see `block`. Does nothing for a peer that is not connected.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network, type PeerId } from "codio-network"
   *
   * export const part = (peer: PeerId) => Effect.flatMap(Network, (network) => network.disconnect(peer))
   * ```
   */
  readonly disconnect: (peer: PeerId) => Effect.Effect<void>
  /**
   * Closes the connection and refuses the peer while the scope lives: it is not dialled, and its own dials are refused.
   * When the scope closes, a `keep` of the peer goes on.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network, type PeerId } from "codio-network"
   *
   * export const refuse = (peer: PeerId) =>
   *   Effect.gen(function*() {
   *     const network = yield* Network
   *     yield* network.block(peer)
   *     yield* Effect.sleep("1 hour")
   *   }).pipe(Effect.scoped)
   * ```
   */
  readonly block: (peer: PeerId) => Effect.Effect<void, never, Scope.Scope>
  /**
   * The connected peers, the longest connected first.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   for (const peer of yield* network.peers) yield* Console.log(peer.id, peer.direction, peer.interest)
   * })
   * ```
   */
  readonly peers: Effect.Effect<ReadonlyArray<PeerInfo>>
  /**
   * How many peers are connected: never more than the option `maxPeers`.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const isAlone = Effect.flatMap(Network, (network) => Effect.map(network.peerCount, (count) => count === 0))
   * ```
   */
  readonly peerCount: Effect.Effect<number>
  /**
   * The info of a peer while it is connected, `None` otherwise.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network, type PeerId } from "codio-network"
   *
   * export const isConnected = (peer: PeerId) =>
   *   Effect.flatMap(Network, (network) => Effect.map(network.peer(peer), (info) => info._tag === "Some"))
   * ```
   */
  readonly peer: (peer: PeerId) => Effect.Effect<Option.Option<PeerInfo>>
  /**
   * Why a peer is connected, or is not: its interest, each address with its last result, the last dials and refusals,
   * how the last connection ended and by which rule, and when the peer is dialled next. `summary` says it in one
   * sentence. Answers for a peer that this node has never heard of, too.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network, type PeerId } from "codio-network"
   *
   * export const why = (peer: PeerId) =>
   *   Effect.gen(function*() {
   *     const network = yield* Network
   *     yield* Console.log((yield* network.explain(peer)).summary)
   *   })
   * ```
   */
  readonly explain: (peer: PeerId) => Effect.Effect<PeerExplanation>
  /**
   * How the node stands: whether it is isolated and why, slots taken by interest, dials under way and waiting,
   * refusals.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   const { knownPeers, pendingDials } = yield* network.status
   *   yield* Console.log(`${knownPeers} peers known, ${pendingDials.length} dials under way`)
   * })
   * ```
   */
  readonly status: Effect.Effect<NodeStatus>
  /**
   * The round-trip time to a connected peer, measured now. Fails with `PingError` when the peer does not answer
   * within the timeout of `HealthPolicy`, does not speak the ping protocol, or is not connected.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network, type PeerId } from "codio-network"
   *
   * export const measure = (peer: PeerId) => Effect.flatMap(Network, (network) => network.ping(peer))
   * ```
   */
  readonly ping: (peer: PeerId) => Effect.Effect<Duration.Duration, PingError>
  /**
   * Announces in the DHT that this node has some content, and keeps it announced until `stopProviding`; with the
   * option `dataDirectory` also after a restart. Without peers it succeeds, and announces as soon as there are any.
   * With peers it waits up to 1 s for the first copies.
   *
   * `ttl` is how long a copy on another Codio node outlives this node: 1 minute to 24 hours, 24 hours by default. Of
   * all calls for one key, `provide` included, the options of the latest count. Fails with a `DhtError` whose reason
   * is `TtlInvalid` for a `ttl` out of bounds, `QueryFailed` when the key cannot be saved. Interruption ends the wait
   * alone.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { ContentKey, Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* network.startProviding(ContentKey.fromText("the cat video"), { ttl: "1 hour" })
   * })
   * ```
   */
  readonly startProviding: (key: ContentKey, options?: ProvideOptions) => Effect.Effect<void, DhtError>
  /**
   * Ends `startProviding`, also when an earlier process called it. A key that a scope of `provide` holds stays
   * announced until that scope closes. Copies on other nodes stay until they expire. Does nothing for a key that is
   * not provided. When the end cannot be saved it fails with a `DhtError`, and the key stays announced.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { ContentKey, Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* network.stopProviding(ContentKey.fromText("the cat video"))
   * })
   * ```
   */
  readonly stopProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
  /**
   * Provides a key while the scope lives, and never beyond the process. The key stays announced until the last scope
   * that provides it has closed and `startProviding`, if it was called, has been stopped. Options, waits and failures
   * are those of `startProviding`; interruption of the wait leaves the key to its scope.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { ContentKey, Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* network.provide(ContentKey.fromText("the cat video"))
   *   yield* Effect.sleep("1 hour")
   * }).pipe(Effect.scoped)
   * ```
   */
  readonly provide: (key: ContentKey, options?: ProvideOptions) => Effect.Effect<void, DhtError, Scope.Scope>
  /**
   * How far announcing is: the state now, then each change, without end. Changes within 100 ms are given as one;
   * while keys are overdue the state comes at least every 5 s.
   *
   * @example
   * ```ts
   * import { Console, Effect, Stream } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* Stream.runForEach(network.provideStatus, ({ announced, keys }) => Console.log(`${announced} of ${keys}`))
   * })
   * ```
   */
  readonly provideStatus: Stream.Stream<ProvideStatus>
  /**
   * The other nodes that provide some content, each once, as they are found; of those found together, the best to ask
   * comes first: connected peers by round-trip time, then peers reached before, then unknown ones. Ends after 128
   * providers or 10 s unless `FindOptions` or `KadDhtPolicy` say otherwise; empty when nobody provides the key.
   * Ending the stream ends the lookup.
   *
   * Fails with a `DhtError` whose reason is `NoPeers` when there is no peer to ask, `QueryTimeout` when no provider was
   * found in time.
   *
   * @example
   * ```ts
   * import { Effect, Stream } from "effect"
   * import { ContentKey, Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   const provider = yield* Stream.runHead(network.findProviders(ContentKey.fromText("the cat video")))
   *   if (provider._tag === "Some") yield* network.connect(provider.value)
   * })
   * ```
   */
  readonly findProviders: (key: ContentKey, options?: FindOptions) => Stream.Stream<Provider, DhtError>
  /**
   * The addresses of a peer: those of its connection, or else what the DHT says. Fails with a `DhtError` whose reason
   * is `NoPeers` when there is no peer to ask, `NotFound` when no peer knows it, `QueryTimeout` after 10 s.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network, type PeerId } from "codio-network"
   *
   * export const locate = (peer: PeerId) =>
   *   Effect.gen(function*() {
   *     const network = yield* Network
   *     const { addresses } = yield* network.findPeer(peer)
   *     yield* Console.log(addresses)
   *   })
   * ```
   */
  readonly findPeer: (peer: PeerId) => Effect.Effect<PeerAddresses, DhtError>
  /**
   * Stores a small value under `/<namespace>/<path>`, here and on the nodes closest to the key. Copies expire after a
   * day or two: put the value again while it is of use.
   *
   * Fails with a `DhtError` whose reason is `QuorumFailed` when fewer than `quorum` nodes (1 by default) say that
   * they have stored it, `RecordInvalid` when the namespace refuses the value or a better one is stored, `NoPeers`
   * when there is no peer to ask.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network, PublishedValue } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   const value = new TextEncoder().encode("hello")
   *   const path = PublishedValue.path(network.localPeer, "status")
   *   yield* network.putValue(PublishedValue.namespace, path, { value }, { quorum: 3 })
   * })
   * ```
   */
  readonly putValue: Dht["Service"]["putValue"]
  /**
   * The value under `/<namespace>/<path>` that wins, by the order of its namespace, among all that are found, this
   * node's copy included. Waits for the whole lookup, or with `quorum` until so many nodes have given a value.
   *
   * Fails with a `DhtError` whose reason is `NotFound` when no node has a value, `QuorumFailed` when fewer than
   * `quorum` have one, `RecordInvalid` for a malformed path or a namespace unknown here, `NoPeers` when there is no
   * peer to ask.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network, type PeerId, PublishedValue } from "codio-network"
   *
   * export const read = (publisher: PeerId) =>
   *   Effect.gen(function*() {
   *     const network = yield* Network
   *     const path = PublishedValue.path(publisher, "status")
   *     const { value } = yield* network.getValue(PublishedValue.namespace, path)
   *     yield* Console.log(new TextDecoder().decode(value))
   *   })
   * ```
   */
  readonly getValue: Dht["Service"]["getValue"]
  /**
   * Answers a protocol while the scope lives. The handler runs once for each stream that a peer opens, and the stream
   * lives as long as its handler. A handler that fails or dies resets its own stream and is logged; others go on.
   * Streams open when the scope closes are reset. Fails with `ProtocolError` when the id is malformed or taken.
   *
   * @example
   * ```ts
   * import { Effect, Stream } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* network.handle("/echo/1.0.0", (stream) => Stream.runForEach(stream.read, stream.write))
   *   yield* Effect.never
   * }).pipe(Effect.scoped)
   * ```
   */
  readonly handle: <E, R>(
    protocol: string,
    handler: (stream: ByteStream) => Effect.Effect<void, E, R>
  ) => Effect.Effect<void, ProtocolError, Scope.Scope | Exclude<R, Scope.Scope>>
  /**
   * Opens a stream to a peer for as long as the scope lives, and connects first when the peer is not connected. The
   * peer is neither idle nor evicted meanwhile. Closing the scope ends the stream in both directions.
   *
   * Fails as `connect` does, with `PeerNotConnected` when the peer leaves before the stream is opened, with
   * `StreamError` when the peer does not speak the protocol or the connection breaks, with `ProtocolError` for a
   * malformed id.
   *
   * @example
   * ```ts
   * import { Console, Effect, Stream } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   const stream = yield* network.open("/ip4/192.0.2.1/tcp/4001", "/echo/1.0.0")
   *   yield* stream.write(new TextEncoder().encode("hello"))
   *   yield* stream.closeWrite
   *   yield* Console.log(yield* stream.read.pipe(Stream.decodeText(), Stream.mkString))
   * }).pipe(Effect.scoped)
   * ```
   */
  readonly open: (
    peer: Target,
    protocol: string
  ) => Effect.Effect<ByteStream, ConnectError | PeerNotConnected | StreamError | ProtocolError, Scope.Scope>
  /**
   * What happens from now on, without end: peers that come and go, reconnections, addresses. A reader more than
   * `eventBuffer` events behind loses the oldest.
   *
   * @example
   * ```ts
   * import { Console, Effect, Stream } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* Stream.runForEach(network.events, (event) => Console.log(event._tag))
   * })
   * ```
   */
  readonly events: Stream.Stream<NetworkEvent>
}>()("codio-network/Network") {
  /**
   * Everything above the ports. The simulator and production share this value.
   *
   * @example
   * ```ts
   * import { Layer } from "effect"
   * import { Network, type Ports } from "codio-network"
   *
   * export const nodeOver = (ports: Layer.Layer<Ports>) => Network.layerCore.pipe(Layer.provide(ports))
   * ```
   */
  static readonly layerCore: Layer.Layer<Core, ProtocolError, Ports> = Layer.suspend(() =>
    Layer.provideMerge(networkLayer, Node.layerCore)
  )

  /**
   * A node on libp2p, with all its services. Each call is one node; the value of one call, used twice, is one shared
   * node.
   *
   * The node listens once all handlers stand, and then looks for peers. Closing its scope undoes that in reverse order:
   * peers are told goodbye, and it ends within `stopTimeout` whatever they do. Fails with `NetworkStartError` for wrong
   * options, for a data directory or identity that cannot be used, and for a port that is taken.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.flatMap(Network, (network) => network.peers).pipe(
   *   Effect.provide(Network.layer({ listenPort: 4001 }))
   * )
   * ```
   */
  static readonly layer = (
    options?: NetworkConfigInput
  ): Layer.Layer<Core | Dht | Transport | NetworkConfig | Host.Libp2pHost, NetworkStartError> =>
    Node.layer(networkLayer, options)

  /**
   * A node without a Layer, for several nodes in one program. It runs as long as the scope; fails as `layer` does.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const [first, second] = yield* Effect.all([Network.make(), Network.make()])
   *   yield* second.connect((yield* first.addresses)[0]!)
   * }).pipe(Effect.scoped)
   * ```
   */
  static readonly make = (
    options?: NetworkConfigInput
  ): Effect.Effect<Network["Service"], NetworkStartError, Scope.Scope> =>
    Effect.map(Layer.build(Network.layer(options)), (context) => Context.get(context, Network))
}

/** The services above the ports. */
export type Core = Network | Node.Parts

/** What the services above the ports stand on. */
export type Ports = Node.Ports

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const isPeerId = Schema.is(PeerId)
const isAddress = Schema.is(Multiaddr)
const isProtocolId = Schema.is(ProtocolId)

function decodeTarget(target: Target): Effect.Effect<DialTarget, DialError> {
  if (typeof target !== "string") return Effect.succeed(target)
  if (isMultiaddr(target) ? isAddress(target) : isPeerId(target)) return Effect.succeed(target as DialTarget)
  return Effect.fail(
    new DialError({
      target,
      reason: new InvalidAddress({ detail: "expected a multiaddr such as /ip4/192.0.2.1/tcp/4001, or a peer id" })
    })
  )
}

function decodeProtocol(protocol: string): Effect.Effect<ProtocolId, ProtocolError> {
  return isProtocolId(protocol)
    ? Effect.succeed(protocol)
    : Effect.fail(new ProtocolError({ protocol, detail: "expected a slash, then 1 to 255 characters without spaces" }))
}

const networkLayer = Layer.effect(
  Network,
  Effect.gen(function*() {
    const transport = yield* Transport
    const connections = yield* ConnectionManager
    const table = yield* PeerTable
    const health = yield* Health
    const dht = yield* Dht
    const protocols = yield* Protocols
    const events = yield* NetworkEvents

    const open = Effect.fnUntraced(function*(target: Target, protocol: string) {
      const id = yield* decodeProtocol(protocol)
      // A connected peer is looked up by its id, so most calls need no decoding.
      const peer = peerOf(target as DialTarget)
      if (peer !== undefined && (yield* table.has(peer))) return yield* protocols.open(peer, id)
      const decoded = yield* decodeTarget(target)
      const info = yield* connections.connect(decoded)
      return yield* protocols.open(info.id, id)
    })

    return Network.of({
      localPeer: transport.localPeer,
      addresses: transport.addresses,
      connect: (target) => Effect.flatMap(decodeTarget(target), connections.connect),
      keep: (target) => Effect.flatMap(decodeTarget(target), connections.keep),
      disconnect: connections.disconnect,
      block: connections.block,
      explain: connections.explain,
      status: connections.status,
      peers: table.peers,
      peerCount: table.size,
      peer: table.get,
      ping: health.ping,
      startProviding: dht.startProviding,
      stopProviding: dht.stopProviding,
      provide: dht.provide,
      provideStatus: dht.provideStatus,
      findProviders: (key, options) =>
        Stream.mapArrayEffect(
          dht.findProviders(key, options),
          (some) => ProviderRanking.rank({ peer: table.get, lastContact: connections.lastContact }, some)
        ),
      findPeer: dht.findPeer,
      putValue: dht.putValue,
      getValue: dht.getValue,
      handle: (protocol, handler) => Effect.flatMap(decodeProtocol(protocol), (id) => protocols.handle(id, handler)),
      open,
      events: events.stream
    })
  })
)
