/**
 * kad-dht under the engine of this library: it keeps the routing table, and the engine answers its streams and libp2p's
 * questions. [libp2p]
 */
import { type PeerRouting, peerRoutingSymbol, type StreamHandler } from "@libp2p/interface"
import { kadDHT, type KadDHTComponents, passthroughMapper } from "@libp2p/kad-dht"
import { multiaddr } from "@multiformats/multiaddr"
import { Duration, Effect } from "effect"
import type { PeerId, ToldAddresses } from "../../../schema/Peer.ts"
import { NetworkConfig } from "../../../services/NetworkConfig.ts"
import * as Handler from "./Handler.ts"
import * as Table from "./Table.ts"
import { Libp2pHost } from "../../libp2p/Host.ts"
import { hostError } from "../../libp2p/Modules.ts"
import { type Components, withRegistrar } from "../../libp2p/wire/Components.ts"
import { assertMembers, mismatch } from "../../libp2p/wire/LeanedOn.ts"

/** What the engine takes from a running kad-dht, and the two functions that it gives it. */
export interface Attachment {
  readonly table: Table.Table
  /** Answers the streams of the protocol. They are aborted until it is set. */
  serve: StreamHandler
  /** Answers libp2p when it asks where a peer is. */
  findPeer: (peer: PeerId, signal?: AbortSignal) => Promise<ToldAddresses>
}

/**
 * Attaches a kad-dht while the scope lives. With the option `dht` set to client it asks and does not answer: the
 * protocol has no handler, so that other nodes leave this one out of their tables.
 *
 * Fails with a `HostError` that names package, version and member when this kad-dht is not the expected one.
 */
export const make = Effect.gen(function*() {
  const host = yield* Libp2pHost
  const { dht, kadProtocol, kadReplicationFactor } = yield* NetworkConfig
  const isClient = dht === "client"
  let attached!: Attachment
  let isServing = false
  const kad = yield* host.attach("kad-dht", (components) => {
    const kad = kadDHT({
      protocol: kadProtocol,
      // By default kad-dht stays a client on private networks, and its mapper leaves every routing table there empty.
      clientMode: isClient,
      peerInfoMapper: passthroughMapper,
      kBucketSize: kadReplicationFactor,
      allowQueryWithZeroPeers: true,
      // The engine looks this node up by itself, as soon as there is a peer.
      initialQuerySelfInterval: Duration.toMillis("1 minute")
    })(
      // The components hold the services that kad-dht needs, too, which their type does not say.
      serving(components, kadProtocol, () => {
        isServing = true
        return (...args) => attached.serve(...args)
      }) as Components & KadDHTComponents
    )
    attached = {
      // The interface of kad-dht lacks these members of its class, which `of` asserts.
      table: Table.of(kad as unknown as Table.KadDhtInternals, components),
      serve: (stream) => stream.abort(new Error("the DHT is not ready")),
      findPeer: () => Promise.reject(new Error("the DHT is not ready"))
    }
    Object.defineProperty(kad, peerRoutingSymbol, { value: routing(() => attached) })
    return kad
  })
  yield* Effect.try({
    try: () => {
      assertMembers("@libp2p/kad-dht", kad, Table.startedMembers)
      if (!isServing && !isClient) {
        throw mismatch("@libp2p/kad-dht", `it has no handler of ${kadProtocol} in components.registrar`)
      }
    },
    catch: hostError("kad-dht")
  })
  return attached
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The components with a registrar that is told of a handler for the protocol, and registers another one instead. */
const serving = (components: Components, protocol: string, handlerInstead: () => StreamHandler): Components => {
  const { registrar } = components
  return withRegistrar(components, {
    handle: (name, handler, options) =>
      name === protocol
        ? registrar.handle(name, handlerInstead(), { ...options, maxInboundStreams: Handler.inboundStreamsMax })
        : registrar.handle(name, handler, options)
  })
}

/** Tells libp2p where a peer is that it is to dial without an address. */
const routing = (attached: () => Attachment): PeerRouting => ({
  findPeer: async (id, options) => {
    const found = await attached().findPeer(id.toString() as PeerId, options?.signal)
    return { id, multiaddrs: found.addresses.map(({ address }) => multiaddr(address)) }
  },
  // Nobody asks libp2p for them.
  getClosestPeers: async function*() {}
})
