/**
 * One libp2p node as a scoped resource, to which every libp2p module is attached as a scoped resource of its own.
 */
import { yamux } from "@chainsafe/libp2p-yamux"
import { privateKeyFromProtobuf } from "@libp2p/crypto/keys"
import { identify, identifyPush } from "@libp2p/identify"
import type {
  Connection,
  ConnectionGater,
  IdentifyResult,
  Libp2p,
  MultiaddrConnection,
  PeerId as Libp2pPeerId,
  Transport as Libp2pTransport
} from "@libp2p/interface"
import { ping } from "@libp2p/ping"
import { type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import { Context, Effect, Layer, Redacted, Schedule, type Scope } from "effect"
import { createLibp2p } from "libp2p"
import { agentVersion, packageName, protocolVersion, version } from "../../schema/Agent.ts"
import { HostError } from "../../schema/NetworkError.ts"
import type { RefusalReason } from "../../schema/NetworkEvent.ts"
import { type Direction, type Multiaddr, type PeerId, peerOf, withoutPeer } from "../../schema/Peer.ts"
import { Identity } from "../../services/Identity.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import type { GateRequest, GateRule } from "../../services/Transport.ts"
import type { Components } from "./wire/Components.ts"
import { eagerMuxer } from "./wire/EagerStreams.ts"
import { guardNode, rememberProtocols, safeMuxer, sparingMuxer, toError, watchedMuxer, within } from "./Faults.ts"
import * as GoAway from "./wire/GoAway.ts"
import { Libp2pLogger } from "./Logger.ts"
import * as Libp2pModules from "./Modules.ts"
import { hostError } from "./Modules.ts"
import { fastNoise, withKeptKey } from "./wire/Noise.ts"
import { countingMuxer } from "./wire/Progress.ts"

/** The libp2p node that the layers of `libp2p/` share. */
export class Libp2pHost extends Context.Service<Libp2pHost, {
  /** The node itself. */
  readonly node: Libp2p
  /** The parts that libp2p hands to its modules. */
  readonly components: Components
  /** Builds a module against the running node, starts it, registers its routing and discovery; reversed when the scope closes. */
  readonly attach: <A>(
    module: string,
    factory: (components: Components) => A
  ) => Effect.Effect<A, HostError, Scope.Scope>
  /** Behind `Transport.gate`; one rule at a time. */
  readonly gate: (rule: GateRule) => Effect.Effect<void, never, Scope.Scope>
  /** Dials addresses that the caller chose, so that the gate is not asked for them (`stage: "dial"`). */
  readonly dialChosen: <A>(addresses: ReadonlyArray<Libp2pMultiaddr>, dial: () => Promise<A>) => Promise<A>
  /**
   * Attaches a transport module and listens on the addresses, none of which may be foreign to it. Release only ends acceptance: closing a
   * TCP listener destroys its inbound connections, before any goodbye, so the socket itself closes with the node.
   */
  readonly listen: (
    module: string,
    factory: (components: Components) => Libp2pTransport,
    addresses: ReadonlyArray<Multiaddr>
  ) => Effect.Effect<void, HostError, Scope.Scope>
  /**
   * What identify told over the connection, as soon as it has; undefined as soon as it has failed. The host runs identify once on every
   * connection. Never rejects.
   */
  readonly identified: (connection: Connection) => Promise<IdentifyResult | undefined>
}>()("codio-network/layers/Libp2pHost") {}

/**
 * A running node without a transport: it neither dials nor listens before one is attached. Stops, within 4 s whatever the remotes do, when
 * the scope closes.
 */
export const make = Effect.gen(function*() {
  const identity = yield* Identity
  const config = yield* NetworkConfig
  const logger = yield* Libp2pLogger
  const context = yield* Effect.context()

  let rule: GateRule | undefined
  // Addresses that are being dialled because somebody chose them; how many dials there are of each.
  const chosen = new Map<string, number>()
  // Transports whose acceptance has ended.
  const ended = new Set<Libp2pTransport>()
  const modules = Libp2pModules.make(() => components, logger)
  const pending = new Map<MultiaddrConnection, Multiaddr>()
  const identifying = new WeakMap<Connection, Promise<IdentifyResult | undefined>>()

  const answer = (request: GateRequest): boolean | RefusalReason => {
    if (rule === undefined) return request.direction === "outbound"
    try {
      return Effect.runSyncWith(context)(rule(request))
    } catch (cause) {
      logger.forComponent("codio:gate").error("the gate's rule failed, refusing - %e", toError(cause))
      return false
    }
  }
  const allows = (request: GateRequest): boolean => answer(request) === true
  const muxers = GoAway.make({ lingerMillis: 250, most: refusalsMax })
  const refuses = (direction: Direction, peer: Libp2pPeerId, connection: MultiaddrConnection) => {
    const answered = answer({
      stage: "peer",
      direction,
      peer: peer.toString() as PeerId,
      remoteAddress: withoutPeer(connection.remoteAddr.toString() as Multiaddr)
    })
    if (typeof answered === "boolean") return !answered
    return muxers.refuse(connection, answered).then(() => true)
  }
  const gater: ConnectionGater = {
    denyDialMultiaddr: (address) => {
      const given = address.toString() as Multiaddr
      const remoteAddress = withoutPeer(given)
      if (chosen.has(remoteAddress) || chosen.has(anyName)) return false
      const peer = peerOf(given)
      return !allows({ stage: "dial", direction: "outbound", remoteAddress, ...(peer === undefined ? {} : { peer }) })
    },
    denyInboundConnection: (connection) => {
      const transport = components.transportManager.dialTransportForMultiaddr(connection.remoteAddr)
      if (transport !== undefined && ended.has(transport)) return true
      const remoteAddress = withoutPeer(connection.remoteAddr.toString() as Multiaddr)
      if (!allows({ stage: "address", direction: "inbound", remoteAddress, pending: [...pending.values()] })) {
        return true
      }
      // Between the two stages until the second, or until the handshake has failed, which closes it.
      pending.set(connection, remoteAddress)
      connection.addEventListener("close", () => pending.delete(connection), { once: true })
      return false
    },
    denyInboundUpgradedConnection: (peer, connection) => {
      pending.delete(connection)
      return refuses("inbound", peer, connection)
    },
    denyOutboundUpgradedConnection: (peer, connection) => refuses("outbound", peer, connection)
  }

  let components!: Components
  const create = async () => {
    const node = await createLibp2p({
      start: false,
      logger,
      privateKey: withKeptKey(privateKeyFromProtobuf(Redacted.value(identity.privateKey))),
      nodeInfo: { name: packageName, version, userAgent: agentVersion },
      addresses: { appendAnnounce: [...config.announceAddresses] },
      connectionEncrypters: [fastNoise],
      streamMuxers: [muxers.watch(
        eagerMuxer([identifyProtocol, config.kadProtocol])(countingMuxer(watchedMuxer(safeMuxer(sparingMuxer(yamux({
          maxInboundStreams: streamsMax,
          maxOutboundStreams: streamsMax,
          // A window above the read buffer lets a sender put more into a paused stream than it may hold, which resets it.
          streamOptions: { maxStreamWindowSize: readBufferBytes, maxReadBufferLength: readBufferBytes }
        }))))))
      )],
      connectionGater: gater,
      connectionManager: {
        // Only PeerTable opens, keeps and closes; libp2p's limits stay above its. Twice, since two nodes may dial each other at once.
        maxConnections: 2 * config.maxPeers + 64,
        maxParallelDials: config.maxParallelDials,
        maxDialQueueLength: 1024,
        maxPeerAddrsToDial: 32,
        addressDialTimeout,
        // The gate counts them, on the simulator too.
        maxIncomingPendingConnections: Number.POSITIVE_INFINITY,
        inboundConnectionThreshold: 10_000,
        reconnectRetries: 0
      },
      connectionMonitor: { enabled: false },
      // A provider without addresses is left out of an answer, and providers announce themselves every 11 h: libp2p's hour is too short.
      peerStore: { maxAddressAge: 24 * hourMillis, maxPeerAge: 48 * hourMillis },
      peerRouters: [() => modules.routing],
      services: {
        identify: identify({ runOnConnectionOpen: false, maxInboundStreams: 8, maxOutboundStreams: 8 }),
        identifyPush: identifyPush(),
        ping: ping({ maxInboundStreams: 16, maxOutboundStreams: 16 }),
        // Returning the components themselves would make start and stop recurse.
        components: (given: Components) => {
          components = given
          return {}
        }
      }
    })
    for (const service of [node.services.identify, node.services.identifyPush]) {
      // `host` is a public field of the class, and missing in its interface. There is no option for the version.
      ;(service as unknown as { readonly host: { protocolVersion: string } }).host.protocolVersion = protocolVersion
    }
    return node
  }
  const node = yield* Effect.tryPromise({ try: create, catch: hostError("host") })
  rememberProtocols(components, [identifyProtocol, config.kadProtocol])
  const guard = guardNode(node, components, { grace: 300, deadline: 3000 })

  node.addEventListener("connection:open", ({ detail }) => {
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
        // Only one policy opens and closes connections. Kademlia and relays tag peers keep-alive, which makes the queue dial them; the pruner
        // closes what it likes least above `maxConnections`. There is no option for either, and the interface has neither.
        const own = components.connectionManager as unknown as Record<
          "reconnectQueue" | "connectionPruner",
          { readonly stop: () => void }
        >
        own.reconnectQueue.stop()
        own.connectionPruner.stop()
      },
      catch: hostError("host")
    }),
    () => Effect.promise(() => guard.stop())
  )

  // libp2p drops a peer whose time is over only when somebody reads it, so each that was ever heard of would stay in memory.
  yield* Effect.promise(() => node.peerStore.all()).pipe(
    // The store is in memory; reading it does not fail.
    Effect.schedule(Schedule.spaced("1 hour")),
    Effect.forkScoped
  )

  return Libp2pHost.of({
    node,
    components,
    attach: modules.attach,
    gate: (next) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          if (rule !== undefined) return Effect.die(new Error("a gate's rule is installed already; only one at a time"))
          rule = next
          return Effect.void
        }),
        () => Effect.sync(() => rule = undefined)
      ),
    dialChosen: async (addresses, dial) => {
      const places = addresses.flatMap(placesOf)
      for (const place of places) chosen.set(place, (chosen.get(place) ?? 0) + 1)
      try {
        return await dial()
      } finally {
        for (const place of places) {
          const left = (chosen.get(place) ?? 1) - 1
          if (left === 0) chosen.delete(place)
          else chosen.set(place, left)
        }
      }
    },
    listen: (module, factory, addresses) =>
      Effect.gen(function*() {
        const transport = yield* modules.attach(module, factory)
        const tag = transport[Symbol.toStringTag]
        const wanted = addresses.map((address) => multiaddr(address))
        const foreign = wanted.find((address) => transport.listenFilter([address]).length === 0)
        if (foreign !== undefined) {
          return yield* new HostError({
            module,
            detail: `cannot listen on ${foreign}: this is no address of the ${module} transport`
          })
        }
        yield* Effect.acquireRelease(
          Effect.tryPromise({
            try: async () => {
              components.transportManager.add(transport)
              try {
                await components.transportManager.listen(wanted)
                confirmOwn(components)
              } catch (cause) {
                await components.transportManager.remove(tag ?? "")
                throw cause
              }
            },
            catch: (cause) => new HostError({ module, detail: listenProblem(addresses, toError(cause)), cause })
          }),
          () => Effect.sync(() => ended.add(transport))
        )
      }),
    identified: (connection) => identifying.get(connection) ?? Promise.resolve(undefined)
  })
})

/** Starts the libp2p node, and stops it when the scope closes. */
export const layer: Layer.Layer<Libp2pHost, HostError, Identity | NetworkConfig> = Layer.effect(Libp2pHost, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const hourMillis = 3_600_000

/**
 * Announces the public addresses of this machine's own interfaces. libp2p holds them back until somebody has confirmed them, which nobody
 * does without AutoNAT, so that a node on a public address would be known by its private ones alone.
 */
export function confirmOwn({ addressManager, transportManager }: Components): void {
  for (const address of transportManager.getAddrs()) addressManager.confirmObservedAddr(address, { type: "transport" })
}

/** How long one address of a peer may take to answer, in milliseconds. */
export const addressDialTimeout = 3000

// A dnsaddr resolves to addresses that nobody can tell from others: while one is dialled, everything may be.
const anyName = "/dnsaddr"

// An address as the gate is asked for it; of a relayed one also the relay's, which is dialled first.
function placesOf(address: Libp2pMultiaddr): ReadonlyArray<string> {
  const place = withoutPeer(address.toString() as Multiaddr)
  if (place.startsWith(`${anyName}/`)) return [anyName]
  const [relay, ...rest] = place.split("/p2p-circuit")
  return rest.length === 0 ? [place] : [place, withoutPeer(relay as Multiaddr)]
}

const identifyProtocol = "/ipfs/id/1.0.0"
const readBufferBytes = 4 * 1024 * 1024
const streamsMax = 2048
const identifyTimeoutMillis = 5000
// Refused connections that wait for their remote to have heard it.
const refusalsMax = 32

// libp2p joins the failures of all addresses into one text, each with its stack.
function listenProblem(addresses: ReadonlyArray<Multiaddr>, error: Error): string {
  const [address, part] = addresses
    .map((address) => [address, error.message.split(`\n  ${address}: `)[1]?.split("\n\n")[0]] as const)
    .find(([, part]) => part !== undefined) ?? [addresses.join(", "), error.message]
  const code = /\bE[A-Z]{4,}\b/.exec(part ?? "")?.[0]
  const known = code === undefined ? undefined : listenProblems[code]
  return `cannot listen on ${address}: ${known ?? (part ?? error.message).split("\n")[0]}`
}

const listenProblems: Record<string, string | undefined> = {
  EADDRINUSE: "the port is in use by another program; choose another one, or 0 for any free port",
  EACCES: "this user may not listen on that port; choose one from 1024 up, or 0 for any free port",
  EADDRNOTAVAIL: "this machine has no such address; listen on /ip4/0.0.0.0 for all of them"
}
