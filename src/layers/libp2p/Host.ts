/**
 * One libp2p node as a scoped resource, to which every libp2p module is attached as a scoped resource of its own.
 * [libp2p]
 */
import { privateKeyFromProtobuf } from "@libp2p/crypto/keys"
import { identify, identifyPush } from "@libp2p/identify"
import type {
  ComponentLogger,
  Connection,
  ConnectionGater,
  IdentifyResult,
  Libp2p,
  PeerRouting,
  StreamMuxerFactory,
  Transport as Libp2pTransport
} from "@libp2p/interface"
import type { Multiaddr as Libp2pMultiaddr } from "@multiformats/multiaddr"
import { Context, Effect, Layer, Redacted, type Scope, Semaphore } from "effect"
import { createLibp2p } from "libp2p"
import { packageName, version } from "../../schema/Agent.ts"
import type { HostError } from "../../schema/NetworkError.ts"
import { type Multiaddr, withPeer } from "../../schema/Peer.ts"
import { Identity } from "../../services/Identity.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import type { StreamAccount } from "../../services/Transport.ts"
import * as StreamBudget from "../StreamBudget.ts"
import * as Supervised from "../Supervised.ts"
import * as BoundedPeerStore from "./BoundedPeerStore.ts"
import type { Components } from "./wire/Components.ts"
import { boundedDnsaddr } from "./Dnsaddr.ts"
import { eager } from "./wire/EagerStreams.ts"
import {
  addressMembers,
  assertConnection,
  closeInTime,
  guardNode,
  pushUpdates,
  rememberProtocols,
  within
} from "./Faults.ts"
import * as Announced from "./Announced.ts"
import * as Gater from "./Gater.ts"
import * as GoAway from "./wire/GoAway.ts"
import { assertMembers, once } from "./wire/LeanedOn.ts"
import * as Listening from "./Listening.ts"
import { Libp2pLogger } from "./Logger.ts"
import * as Modules from "./Modules.ts"
import { hostError } from "./Modules.ts"
import * as PingAnswers from "./PingAnswers.ts"
import { assertSecured, fastNoise, withKeptKey } from "./wire/Noise.ts"
import * as Yamux from "./wire/Yamux.ts"

/** The libp2p node that the layers of `libp2p/` share. */
export class Libp2pHost extends Context.Service<Libp2pHost, {
  /** The node itself. */
  readonly node: Libp2p
  /** The parts that libp2p hands to its modules. */
  readonly components: Components
  /** What waits in the streams of all connections. */
  readonly streams: StreamAccount
  /**
   * Builds a module with the running node's components, starts it, and registers its routing and discovery; undone when
   * the scope closes.
   */
  readonly attach: <A>(
    module: string,
    factory: (components: Components) => A
  ) => Effect.Effect<A, HostError, Scope.Scope>
  /** Installs the rule that decides which connections may stand. */
  readonly gate: Gater.Gater["gate"]
  /** Tells the gate where the addresses of a dial come from while it lasts. */
  readonly dialing: Gater.Gater["dialing"]
  /** Which IP addresses a socket may connect to for an address. */
  readonly judgeOf: Gater.Gater["judgeOf"]
  /** Behind `Transport.retain`. */
  readonly retain: BoundedPeerStore.BoundedPeerStore["retain"]
  /**
   * Attaches a transport module and listens on the addresses, all of which it must understand. Release only ends
   * acceptance: closing a TCP listener destroys its inbound connections, before any goodbye, so the socket itself
   * closes with the node.
   */
  readonly listen: (
    module: string,
    factory: (components: Components) => Libp2pTransport,
    addresses: ReadonlyArray<Multiaddr>
  ) => Effect.Effect<void, HostError, Scope.Scope>
  /** Tells others the address while the scope lives; see `Transport.announce`. */
  readonly announce: (address: Multiaddr) => Effect.Effect<void, never, Scope.Scope>
  /** Listens on one more address with the transports that are attached; see `Transport.listen`. */
  readonly listenAlso: (address: Multiaddr) => Effect.Effect<ReadonlyArray<Multiaddr>, HostError, Scope.Scope>
  /**
   * What the remote told by identify, as soon as it has; undefined as soon as identify has failed. The host runs
   * identify once on every connection. Never rejects.
   */
  readonly identified: (connection: Connection) => Promise<IdentifyResult | undefined>
}>()("codio-network/layers/Libp2pHost") {}

/**
 * A running node without a transport: it neither dials nor listens before one is attached. Stops within 4 s when the
 * scope closes, whatever the remotes do.
 *
 * Fails when a package whose private members are used is not of the version that this library was written for.
 */
export const make = Effect.gen(function*() {
  const identity = yield* Identity
  const config = yield* NetworkConfig
  const logger = yield* Libp2pLogger
  const context = yield* Effect.context()

  let components!: Components
  const modules = Modules.make(() => components, logger)
  const refusing = GoAway.make({ lingerMillis: 250, most: refusalsMax })
  const gater = Gater.make({ components: () => components, logger, context, refuse: refusing.refuse })
  const announced = Announced.make(() => components)
  // One at a time, so that each knows the listeners that are its own.
  const listening = yield* Semaphore.make(1)
  const budget = StreamBudget.make(config.maxBufferedBytes, context)
  const eagerProtocols = [identifyProtocol, config.kadProtocol]

  const node = yield* Effect.tryPromise({
    try: async () => {
      await assertMuxers()
      const node = await createNode({
        config,
        logger,
        privateKey: Redacted.value(identity.privateKey),
        muxers: Yamux.make({ streamsMax, readBufferBytes, budget }, [eager(eagerProtocols), refusing.watch]),
        gater: gater.gater,
        routing: modules.routing,
        announced: announced.values,
        withComponents: (given) => {
          components = given
        }
      })
      assertMembers("libp2p", components.connectionManager, keepingMembers)
      assertMembers("libp2p", components.addressManager, addressMembers)
      await assertConnections(components)
      return node
    },
    catch: hostError("host")
  })
  rememberProtocols(components, eagerProtocols)
  const { retain } = BoundedPeerStore.make(components, config.maxKnownPeers)
  const guard = guardNode(node, components, { grace: 300, deadline: 3000 })
  const updates = pushUpdates(node, components, () => node.services.identifyPush.push())

  const identifying = new WeakMap<Connection, Promise<IdentifyResult | undefined>>()
  node.addEventListener("connection:open", ({ detail }) => {
    closeInTime(detail, closingMillis)
    identifying.set(
      detail,
      within(identifyTimeoutMillis, (signal) => node.services.identify.identify(detail, { signal })).catch(() =>
        undefined
      )
    )
  })

  yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        await node.start()
        endKeeping(components)
      },
      catch: hostError("host")
    }),
    () => Effect.andThen(Effect.promise(() => guard.stop()), Effect.sync(updates.end))
  )

  // libp2p drops an expired peer only when somebody reads it, so every peer ever heard of would stay in memory.
  yield* Supervised.forever(
    "the sweep of libp2p's peer store",
    Effect.delay(Effect.promise(() => node.peerStore.all()), "1 hour")
  )

  return Libp2pHost.of({
    node,
    components,
    streams: budget,
    attach: modules.attach,
    gate: gater.gate,
    dialing: gater.dialing,
    judgeOf: gater.judgeOf,
    retain,
    listen: (module, factory, addresses) =>
      Effect.gen(function*() {
        const transport = yield* modules.attach(module, factory)
        yield* Effect.acquireRelease(
          Listening.listenOn(components, module, transport, addresses),
          () => Effect.sync(() => gater.endAcceptance(transport))
        )
      }),
    announce: announced.announce,
    listenAlso: (address) =>
      Effect.map(
        Effect.acquireRelease(
          listening.withPermit(Listening.listenAlso(components, address)),
          (listeners) => Effect.promise(() => Listening.closeAll(listeners))
        ),
        (listeners) =>
          listeners.flatMap((listener) =>
            listener.getAddrs().map((own) => withPeer(own.toString() as Multiaddr, identity.peerId))
          )
      ),
    identified: (connection) => identifying.get(connection) ?? Promise.resolve(undefined)
  })
})

/** Starts the libp2p node, and stops it when the scope closes. */
export const layer: Layer.Layer<Libp2pHost, HostError, Identity | NetworkConfig> = Layer.effect(Libp2pHost, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const hourMillis = 3_600_000

const assertMuxers = once(() => Yamux.assertYamux())

const assertConnections = once(async (components: Components) => {
  assertConnection(components)
  await assertSecured(components)
})

interface NodeOptions {
  readonly config: NetworkConfig["Service"]
  readonly logger: ComponentLogger
  readonly privateKey: Uint8Array
  readonly muxers: () => StreamMuxerFactory
  readonly gater: ConnectionGater
  readonly routing: PeerRouting
  /** Addresses that are told others besides those that libp2p finds. */
  readonly announced: () => ReadonlyArray<Libp2pMultiaddr>
  /** Called with the node's parts before the node is made. */
  readonly withComponents: (components: Components) => void
}

/** A node that is not started. */
async function createNode(
  { announced, config, gater, logger, muxers, privateKey, routing, withComponents }: NodeOptions
) {
  const node = await createLibp2p({
    start: false,
    logger,
    privateKey: withKeptKey(privateKeyFromProtobuf(privateKey)),
    nodeInfo: { name: packageName, version, userAgent: config.agentVersion },
    addresses: {
      appendAnnounce: [...config.announceAddresses],
      announceFilter: (addresses) => [...addresses, ...announced()]
    },
    connectionEncrypters: [fastNoise],
    streamMuxers: [muxers],
    connectionGater: gater,
    connectionManager: {
      // The gate alone refuses, by limits for each peer, for all peers and for handshakes, and counts what it refuses.
      // A limit of libp2p's own would refuse in silence, with slots free in the peer table.
      maxConnections: Number.POSITIVE_INFINITY,
      maxParallelDials: config.maxParallelDials,
      maxDialQueueLength: 1024,
      resolvers: { dnsaddr: boundedDnsaddr },
      maxPeerAddrsToDial: 32,
      addressDialTimeout,
      maxIncomingPendingConnections: Number.POSITIVE_INFINITY,
      inboundConnectionThreshold: Number.POSITIVE_INFINITY,
      reconnectRetries: 0
    },
    connectionMonitor: { enabled: false },
    // A provider without addresses is left out of an answer, and providers announce themselves every 11 h: libp2p's
    // hour is too short.
    peerStore: { maxAddressAge: 24 * hourMillis, maxPeerAge: 48 * hourMillis },
    peerRouters: [() => routing],
    services: {
      identify: identify({ runOnConnectionOpen: false, maxInboundStreams: 8, maxOutboundStreams: 8 }),
      // `pushUpdates` waits, and stops to wait when the node stops.
      identifyPush: identifyPush({ runOnSelfUpdate: false, debounce: 0 }),
      ping: (given: Components) => PingAnswers.module(given),
      // Returning the components themselves would make start and stop recurse.
      components: (given: Components) => {
        withComponents(given)
        return {}
      }
    }
  })
  for (const service of [node.services.identify, node.services.identifyPush]) {
    // `host` is a public field of the class, and missing in its interface. There is no option for the version.
    ;(service as unknown as { readonly host: { protocolVersion: string } }).host.protocolVersion =
      config.protocolVersion
  }
  return node
}

/** Private members of libp2p's connection manager, by which it keeps and closes connections. */
export const keepingMembers = { "reconnectQueue.stop": "function", "connectionPruner.stop": "function" } as const

/**
 * Ends libp2p's own policy, so that one policy opens and closes connections. Kademlia and relays tag peers keep-alive,
 * which makes the queue dial them; the pruner closes the connections it likes least above `maxConnections`. There is no
 * option for either.
 */
function endKeeping({ connectionManager }: Components): void {
  const own = connectionManager as unknown as Record<
    "reconnectQueue" | "connectionPruner",
    { readonly stop: () => void }
  >
  own.reconnectQueue.stop()
  own.connectionPruner.stop()
}

/** How long one address of a peer may take to answer, in milliseconds. */
export const addressDialTimeout = 3000

const identifyProtocol = "/ipfs/id/1.0.0"
const readBufferBytes = 4 * 1024 * 1024
const streamsMax = 2048
const identifyTimeoutMillis = 5000
// A connection that is closing takes no streams, and those it has wait.
const closingMillis = 5000
// Refused connections that wait for their remotes to read the refusal.
const refusalsMax = 32
