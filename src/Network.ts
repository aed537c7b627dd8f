/**
 * The roof: one service with everything that a program asks of a node.
 */
import { type Config, Context, type Duration, Effect, Layer, type Option, type Scope, Stream } from "effect"
import {
  addressOf,
  announcedOf,
  findOptionsOf,
  handlerOf,
  keyOf,
  peerIdOf,
  protocolOf,
  provideOptionsOf,
  recordInvalid,
  targetOf,
  valueOf
} from "./Arguments.ts"
import type * as Host from "./layers/libp2p/Host.ts"
import * as ProviderRanking from "./layers/dht/lookup/ProviderRanking.ts"
import * as Node from "./Node.ts"
import type { Provider } from "./schema/Content.ts"
import type {
  ConnectError,
  DhtError,
  DialError,
  HostError,
  InvalidAddress,
  InvalidPeerId,
  NetworkStartError,
  PeerNotConnected,
  PingError,
  ProtocolError,
  StreamError
} from "./schema/NetworkError.ts"
import type { NetworkEvent } from "./schema/NetworkEvent.ts"
import type { NodeStatus, PeerExplanation } from "./schema/NodeStatus.ts"
import {
  type DialTarget,
  type FoundPeer,
  type Multiaddr,
  type PeerId,
  type PeerInfo,
  peerOf,
  type TargetText
} from "./schema/Peer.ts"
import type { ProvideStatus } from "./schema/ProvideStatus.ts"
import { ConnectionManager } from "./services/ConnectionManager.ts"
import { Dht, type FindProvidersOptions, type ProvideOptions } from "./services/Dht.ts"
import { Health } from "./services/Health.ts"
import { NetworkConfig, type NetworkConfigInput } from "./services/NetworkConfig.ts"
import { NetworkEvents } from "./services/NetworkEvents.ts"
import { PeerTable } from "./services/PeerTable.ts"
import { Relays } from "./services/Relays.ts"
import { type HandleOptions, Protocols } from "./services/Protocols.ts"
import type { ByteStream } from "./services/Transport.ts"
import { Transport } from "./services/Transport.ts"

/**
 * What a program may dial: an address, a peer id, or a peer with addresses, in text of any form.
 */
export type Target = DialTarget | TargetText

/**
 * An operation on a peer. Of other text than a {@link PeerId} the type says that it may be no peer id.
 */
export interface OfPeer<A, E = never, R = never> {
  (peer: PeerId): Effect.Effect<A, E, R>
  (peer: string): Effect.Effect<A, E | InvalidPeerId, R>
}

/**
 * One node of the network: everything that a program asks of it. `Network.layer` and `Network.make` build it, and it
 * runs as long as its scope.
 *
 * Ids, addresses and keys are plain text, read into one canonical form at the call: a peer id in base58 or as a CID
 * (`bafz...`, `k51...`), a multiaddr with or without a slash at its end, a content key or any CID. White space around a
 * text does not count. A text that cannot be read fails the call with one line; it is never a defect. So does any other
 * argument that makes no sense, such as an option that does not exist.
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
   * Tells others an address of this node while the scope lives, besides those that the node finds itself: a forwarded
   * port, a name. It is among `addresses` then, and connected peers hear of it. Fails
   * with `InvalidAddress` for a text that is no multiaddr, and for an address that nobody can dial.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* network.announce("/dns4/node.example.com/tcp/4001")
   *   yield* Effect.never
   * }).pipe(Effect.scoped)
   * ```
   */
  readonly announce: (address: string) => Effect.Effect<void, InvalidAddress, Scope.Scope>
  /**
   * Listens on one more address while the scope lives, and gives the addresses at which it is reached. Closing the
   * scope closes the port and the connections that came through it. Fails with `InvalidAddress` for a text that is no
   * multiaddr, and with `HostError` when the address is of another transport, is taken, or belongs to another machine.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* Console.log(yield* network.listen("/ip4/127.0.0.1/tcp/0"))
   *   yield* Effect.never
   * }).pipe(Effect.scoped)
   * ```
   */
  readonly listen: (
    address: string
  ) => Effect.Effect<ReadonlyArray<Multiaddr>, InvalidAddress | HostError, Scope.Scope>
  /**
   * Keeps a relay and holds a reservation on it while the scope lives. Returns at once; `RelayReserved` tells of the
   * reservation. Fails with `InvalidAddress` for a text that is no multiaddr, with `HostError` for a node that uses no
   * relays, with `DialError` for this node itself.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* network.reserve("/dns4/relay.example.com/tcp/4001")
   *   yield* Effect.never
   * }).pipe(Effect.scoped)
   * ```
   */
  readonly reserve: (relay: string) => Effect.Effect<void, InvalidAddress | HostError | DialError, Scope.Scope>
  /**
   * Connects to a peer and makes it wanted: when the connection is lost, `ReconnectPolicy` decides when to dial again.
   * `Interest` says until when. Gives the peer's info at once when the peer is connected. Of an address without `/p2p`
   * whoever answers there is the peer, now and after a loss: a seed that comes back with another key is connected.
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
   * Fails with `DialError` only for a malformed target and for this node itself. An address without `/p2p` is kept
   * as an address: whoever answers there is the peer, also another one than before. An error that no later dial can
   * mend ends that before anybody has answered, with a warning.
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
   * that. The peer may still dial this node; see `block`. Does nothing for a peer that is not connected. Fails with
   * `InvalidPeerId` for any other text than a peer id.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network, type PeerId } from "codio-network"
   *
   * export const part = (peer: PeerId) => Effect.flatMap(Network, (network) => network.disconnect(peer))
   * ```
   */
  readonly disconnect: OfPeer<void>
  /**
   * Closes the connection and refuses the peer while the scope lives: it is not dialled, and its own dials are refused.
   * When the scope closes, a `keep` of the peer goes on. Fails with `InvalidPeerId` for any other text than a peer id.
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
  readonly block: OfPeer<void, never, Scope.Scope>
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
   * The info of a peer while it is connected, `None` otherwise. Fails with `InvalidPeerId` for any other text than a
   * peer id.
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
  readonly peer: OfPeer<Option.Option<PeerInfo>>
  /**
   * Why a peer is connected, or is not: its interest, each address with its last result, the last dials and refusals,
   * how the last connection ended and by which rule, and when the peer is dialled next. `summary` says it in one
   * sentence. Answers for a peer that this node has never heard of, too. Fails with `InvalidPeerId` for any other text
   * than a peer id.
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
  readonly explain: OfPeer<PeerExplanation>
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
   * within the timeout of `HealthPolicy`, does not speak the ping protocol, or is not connected; with `InvalidPeerId`
   * for any other text than a peer id.
   *
   * @example
   * ```ts
   * import { Effect } from "effect"
   * import { Network, type PeerId } from "codio-network"
   *
   * export const measure = (peer: PeerId) => Effect.flatMap(Network, (network) => network.ping(peer))
   * ```
   */
  readonly ping: OfPeer<Duration.Duration, PingError>
  /**
   * Announces in the DHT that this node has some content, and keeps it announced until `stopProviding`; with the
   * option `dataDirectory` also after a restart. Without peers it succeeds, and announces as soon as there are any.
   * With peers it waits up to 1 s for the first copies.
   *
   * `ttl` is how long a copy on another Codio node outlives this node: 1 minute to 24 hours, 24 hours by default. Of
   * all calls for one key, `provide` included, the options of the latest count. Fails with a `DhtError` whose reason
   * is `TtlInvalid` for a `ttl` out of bounds, `RecordInvalid` for a text that is no key, `QueryFailed` when the key
   * cannot be saved. Interruption ends the wait alone.
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
  readonly startProviding: (key: string, options?: ProvideOptions) => Effect.Effect<void, DhtError>
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
  readonly stopProviding: (key: string) => Effect.Effect<void, DhtError>
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
  readonly provide: (key: string, options?: ProvideOptions) => Effect.Effect<void, DhtError, Scope.Scope>
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
   * Each address says whether this node would dial it (`isDialable`), for other nodes told it. `connect`, `keep` and
   * `open` of a provider dial what they would dial of its id; see `FoundAddress`.
   *
   * Empty also when there is no peer to ask, unless `requirePeers` is set. Fails with a `DhtError` whose reason is
   * `NoPeers` then, `QueryTimeout` when no provider was found in time, `RecordInvalid` for a text that is no key,
   * `DhtOff` for a node without a DHT.
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
  readonly findProviders: (key: string, options?: FindProvidersOptions) => Stream.Stream<Provider, DhtError>
  /**
   * The nodes closest to a key among those that answer, nearest first, at most `kadReplicationFactor` of them: those
   * that keep the key's records. Fails with a `DhtError` whose reason is `NoPeers` when there is no peer to ask,
   * `RecordInvalid` for a text that is no key, `DhtOff` for a node without a DHT.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { ContentKey, Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   for (const { id } of yield* network.closestPeers(ContentKey.fromText("the cat video"))) yield* Console.log(id)
   * })
   * ```
   */
  readonly closestPeers: (key: string) => Effect.Effect<ReadonlyArray<FoundPeer>, DhtError>
  /**
   * How many peers the routing table of the DHT holds.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.flatMap(Network, (network) => Effect.flatMap(network.routingTableSize, Console.log))
   * ```
   */
  readonly routingTableSize: Effect.Effect<number>
  /**
   * Looks up this node's own position in the DHT and a few random ones, so that the routing table comes to know the
   * peers there. Happens by itself when the first peer comes, and every few minutes; call it when much has changed at
   * once. Fails with a `DhtError` whose reason is `NoPeers` when there is no peer to ask, or none has answered.
   *
   * @example
   * ```ts
   * import { Console, Effect } from "effect"
   * import { Network } from "codio-network"
   *
   * export const program = Effect.gen(function*() {
   *   const network = yield* Network
   *   yield* network.refreshRoutingTable
   *   yield* Console.log(yield* network.routingTableSize)
   * })
   * ```
   */
  readonly refreshRoutingTable: Effect.Effect<void, DhtError>
  /**
   * The addresses of a peer: those of its connection, or else what the DHT says. Fails with a `DhtError` whose reason
   * is `NoPeers` when there is no peer to ask, `NotFound` when no peer knows it, `QueryTimeout` after 10 s,
   * `RecordInvalid` for any other text than a peer id. Each address says whether this node would dial it.
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
  readonly findPeer: (peer: string) => Effect.Effect<FoundPeer, DhtError>
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
   * lives as long as its handler. The handler is interrupted when its stream is reset or the connection is over, 10 s
   * later if the remote had ended its half before. A handler that fails or dies resets its own stream and is logged;
   * others go on. Streams open when the scope closes are reset. Fails with `ProtocolError` when the id is malformed or
   * taken, the handler is no function, or an option makes no sense.
   *
   * The options say who may have how many streams, and how many bytes may wait in them; see `HandleOptions`. A stream
   * beyond them is reset and counted in `status`.
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
  readonly handle: <E, R, E2 = never, R2 = never>(
    protocol: string,
    handler: (stream: ByteStream) => Effect.Effect<void, E, R>,
    options?: HandleOptions<E2, R2>
  ) => Effect.Effect<void, ProtocolError, Scope.Scope | Exclude<R | R2, Scope.Scope>>
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
   * `parts` replaces the node's key pair or its DHT by a Layer of the program's own.
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
    options?: NetworkConfigInput,
    parts?: Node.NodeParts
  ): Layer.Layer<Core | Dht | Transport | NetworkConfig | Host.Libp2pHost, NetworkStartError> =>
    Node.layer(networkLayer, NetworkConfig.layer(options), parts)

  /**
   * A node as `layer` gives one, with options from effect's `Config`: one `Config` of all options, or one for each.
   * What the `ConfigProvider` gives is checked as options in code are. Fails with `NetworkStartError`, also for a value
   * that the provider lacks.
   *
   * @example
   * ```ts
   * import { Config } from "effect"
   * import { Network } from "codio-network"
   *
   * export const node = Network.layerConfig({
   *   listenPort: Config.Port("PORT"),
   *   maxPeers: Config.Int("PEERS").pipe(Config.withDefault(50))
   * })
   * ```
   */
  static readonly layerConfig = (
    options: Config.Wrap<NetworkConfigInput>,
    parts?: Node.NodeParts
  ): Layer.Layer<Core | Dht | Transport | NetworkConfig | Host.Libp2pHost, NetworkStartError> =>
    Node.layer(networkLayer, NetworkConfig.layerConfig(options), parts)

  /**
   * A node as `layer` gives one, with the `NetworkConfig` of the context, which `NetworkConfig.layerEnv` may
   * provide. Each call is one node.
   *
   * @example
   * ```ts
   * import { Layer } from "effect"
   * import { Network, NetworkConfig } from "codio-network"
   *
   * // CODIO_LISTEN_PORT, CODIO_MAX_PEERS and so on.
   * export const node = Network.layerWithoutConfig().pipe(Layer.provide(NetworkConfig.layerEnv()))
   * ```
   */
  static readonly layerWithoutConfig = (parts?: Node.NodeParts): Layer.Layer<
    Core | Dht | Transport | NetworkConfig | Host.Libp2pHost,
    NetworkStartError,
    NetworkConfig
  > => Node.layer(networkLayer, Layer.effect(NetworkConfig, NetworkConfig), parts)

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
    options?: NetworkConfigInput,
    parts?: Node.NodeParts
  ): Effect.Effect<Network["Service"], NetworkStartError, Scope.Scope> =>
    Effect.map(Layer.build(Network.layer(options, parts)), (context) => Context.get(context, Network))
}

/** Parts of a node that a program may replace, the second argument of `Network.layer`. */
export type NodeParts = Node.NodeParts

/** The services above the ports. */
export type Core = Network | Node.Parts

/** What the services above the ports stand on. */
export type Ports = Node.Ports

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// The type of a peer id says that reading it cannot fail.
const ofPeer = <A, E, R>(operation: (peer: PeerId) => Effect.Effect<A, E, R>): OfPeer<A, E, R> => (peer: string) =>
  Effect.flatMap(peerIdOf(peer), operation) as Effect.Effect<A, E, R>

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
    const relays = yield* Relays

    const open = Effect.fnUntraced(function*(target: Target, protocol: string) {
      const id = yield* protocolOf(protocol)
      // A connected peer is looked up by its id, so most calls need no decoding.
      if (typeof target === "string" && (yield* table.has(target as PeerId))) {
        return yield* protocols.open(target as PeerId, id)
      }
      const decoded = yield* targetOf(target)
      const peer = peerOf(decoded)
      if (peer !== undefined && (yield* table.has(peer))) return yield* protocols.open(peer, id)
      const info = yield* connections.connect(decoded)
      return yield* protocols.open(info.id, id)
    })

    return Network.of({
      localPeer: transport.localPeer,
      addresses: transport.addresses,
      announce: (address) => Effect.flatMap(announcedOf(address), transport.announce),
      listen: (address) => Effect.flatMap(addressOf(address), transport.listen),
      reserve: (relay) => Effect.flatMap(addressOf(relay), relays.reserve),
      connect: (target) => Effect.flatMap(targetOf(target), connections.connect),
      keep: (target) => Effect.flatMap(targetOf(target), connections.keep),
      disconnect: ofPeer(connections.disconnect),
      block: ofPeer(connections.block),
      explain: ofPeer(connections.explain),
      status: connections.status,
      peers: table.peers,
      peerCount: table.size,
      peer: ofPeer(table.get),
      ping: ofPeer(health.ping),
      startProviding: (key, options) =>
        Effect.flatMap(
          Effect.all([keyOf("startProviding", key), provideOptionsOf("startProviding", key, options)]),
          ([read, checked]) => dht.startProviding(read, checked)
        ),
      stopProviding: (key) => Effect.flatMap(keyOf("stopProviding", key), dht.stopProviding),
      provide: (key, options) =>
        Effect.flatMap(
          Effect.all([keyOf("provide", key), provideOptionsOf("provide", key, options)]),
          ([read, checked]) => dht.provide(read, checked)
        ),
      provideStatus: dht.provideStatus,
      findProviders: (key, options) =>
        Stream.mapArrayEffect(
          Stream.unwrap(
            Effect.map(
              Effect.all([keyOf("findProviders", key), findOptionsOf(key, options)]),
              ([read, checked]) => dht.findProviders(read, checked)
            )
          ).pipe(Stream.catchIf(
            ({ reason }) => reason._tag === "NoPeers" && options?.requirePeers !== true,
            () => Stream.empty
          )),
          (some) =>
            Effect.flatMap(
              ProviderRanking.rank({ peer: table.get, lastContact: connections.lastContact }, some),
              Effect.forEach(connections.judged)
            )
        ),
      findPeer: (peer) =>
        Effect.flatMap(
          Effect.mapError(peerIdOf(peer), ({ detail }) => recordInvalid("findPeer", peer, detail)),
          (id) => Effect.flatMap(dht.findPeer(id), connections.judged)
        ),
      closestPeers: (key) =>
        Effect.flatMap(
          Effect.flatMap(keyOf("closestPeers", key), dht.closestPeers),
          Effect.forEach(connections.judged)
        ),
      routingTableSize: dht.tableSize,
      refreshRoutingTable: dht.refresh,
      putValue: (namespace, path, value, options) =>
        Effect.andThen(
          valueOf("putValue", namespace, path, options),
          () => dht.putValue(namespace, path, value, options)
        ),
      getValue: (namespace, path, options) =>
        Effect.andThen(valueOf("getValue", namespace, path, options), () => dht.getValue(namespace, path, options)),
      handle: (protocol, handler, options) =>
        Effect.flatMap(
          protocolOf(protocol),
          (id) => Effect.andThen(handlerOf(id, handler, options), () => protocols.handle(id, handler, options))
        ),
      open,
      events: events.stream
    })
  })
)
