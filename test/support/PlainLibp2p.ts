/** Nodes of plain js-libp2p, and how they meet nodes of this library. */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import type { Connection, Libp2p, ServiceMap, Stream } from "@libp2p/interface"
import { PING_PROTOCOL } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, type Scope } from "effect"
import { createLibp2p, type ServiceFactoryMap } from "libp2p"
import type { Libp2pNode } from "./Libp2pNode.ts"

/** A node for as long as the scope lives, on loopback. */
export const makePlain = <T extends ServiceMap = ServiceMap>(
  services: ServiceFactoryMap<T>
): Effect.Effect<Libp2p<T>, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() =>
      createLibp2p({
        addresses: { listen: ["/ip4/127.0.0.1/tcp/0"] },
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()],
        connectionMonitor: { enabled: false },
        services
      })
    ),
    (node) => Effect.promise(async () => node.stop())
  )

/** A connection from the plain node. */
export const reach = (plain: Libp2p, node: Libp2pNode): Effect.Effect<Connection> =>
  Effect.flatMap(node.address, (address) => Effect.promise(() => plain.dial(multiaddr(address))))

/** The streams of ping on a connection. */
export const pingsOn = (connection: Connection): ReadonlyArray<Stream> =>
  connection.streams.filter(({ protocol }) => protocol === PING_PROTOCOL)
