/**
 * Nodes of js-libp2p as its documentation has it, with the modules that a node of ours has.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify, identifyPush } from "@libp2p/identify"
import type { PeerId } from "@libp2p/interface"
import { kadDHT, passthroughMapper } from "@libp2p/kad-dht"
import { ping } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { createLibp2p } from "libp2p"
import { CID } from "multiformats/cid"
import * as raw from "multiformats/codecs/raw"
import * as Digest from "multiformats/hashes/digest"
import { type BenchNode, kadProtocol, type NodesOptions, peersMax } from "./BenchNode.ts"

export const make = async (options: NodesOptions): Promise<BenchNode> => {
  const node = await createLibp2p({
    addresses: { listen: ["/ip4/127.0.0.1/tcp/0"] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // By default only five connections a second are taken from one address.
    connectionManager: {
      maxConnections: 2 * peersMax,
      maxParallelDials: 16,
      maxIncomingPendingConnections: 64,
      inboundConnectionThreshold: 10_000
    },
    connectionMonitor: { enabled: options.isWatchful === true },
    services: {
      identify: identify(),
      identifyPush: identifyPush(),
      ping: ping(),
      // Without the mapper it forgets peers with private addresses. The first lookup of its own neighbours is as early
      // as ours.
      dht: kadDHT({
        protocol: kadProtocol,
        clientMode: false,
        peerInfoMapper: passthroughMapper,
        initialQuerySelfInterval: 100
      })
    }
  })
  const { dht } = node.services
  // A public member of the class, and missing in its interface.
  const { routingTable } = dht as unknown as {
    readonly routingTable: { readonly kb: { readonly toIterable: () => Iterable<{ readonly peerId: PeerId }> } }
  }
  return {
    peer: node.peerId.toString(),
    address: node.getMultiaddrs()[0]!.toString(),
    connect: async (address) => {
      await node.dial(multiaddr(address))
    },
    // The service itself, since `node.contentRouting` takes 4 ms to store each provider before it hands it on.
    provide: async (key) => {
      for await (const _ of dht.provide(toCid(key))) { /* ends when each peer was sent its copy */ }
    },
    // A server of kad-dht takes no key that is not hashed, such as the bytes of an id, in a question for providers.
    explore: async (key) => {
      for await (const _ of dht.getClosestPeers(key)) { /* the peers met enter the table */ }
    },
    find: async (key, found) => {
      for await (const event of dht.findProviders(toCid(key))) {
        if (event.name === "PROVIDER") { for (const { id } of event.providers) found(id.toString()) }
      }
    },
    known: () => Promise.resolve(Array.from(routingTable.kb.toIterable(), ({ peerId }) => peerId.toString()))
  }
}

// internal ------------------------------------------------------------------------------------------------------------

function toCid(key: Uint8Array): CID {
  return CID.createV1(raw.code, Digest.decode(key))
}
