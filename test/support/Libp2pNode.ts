/** A host with transport and TCP on the loopback interface, for specs of the libp2p room. */
import { Effect, Layer, type Scope } from "effect"
import * as FileIdentity from "../../src/layers/machine/FileIdentity.ts"
import * as Host from "../../src/layers/libp2p/Host.ts"
import * as Libp2pTransport from "../../src/layers/libp2p/Transport.ts"
import * as TcpListener from "../../src/layers/libp2p/TcpListener.ts"
import type { ConfigError, HostError } from "../../src/schema/NetworkError.ts"
import type { Multiaddr, ProtocolId } from "../../src/schema/Peer.ts"
import { NetworkConfig, type NetworkConfigInput } from "../../src/services/NetworkConfig.ts"
import { type ByteStream, type Connection, Transport } from "../../src/services/Transport.ts"

export interface Libp2pNode {
  readonly host: Host.Libp2pHost["Service"]
  readonly transport: Transport["Service"]
  /** The first address, ending in `/p2p/<id>`. */
  readonly address: Effect.Effect<Multiaddr>
}

/** A node for as long as the scope lives. It lets everybody in, unless `closed`. */
export const makeNode = (
  options: NetworkConfigInput & { readonly closed?: boolean } = {}
): Effect.Effect<Libp2pNode, HostError | ConfigError, Scope.Scope> =>
  Effect.gen(function*() {
    const { closed, ...input } = options
    const layer = TcpListener.layer.pipe(
      Layer.provideMerge(Libp2pTransport.layer),
      Layer.provideMerge(Host.layer),
      Layer.provide(FileIdentity.layerEphemeral),
      Layer.provide(NetworkConfig.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], ...input }))
    )
    return yield* Effect.gen(function*() {
      const host = yield* Host.Libp2pHost
      const transport = yield* Transport
      if (closed !== true) yield* transport.gate(() => Effect.succeed(true))
      return { host, transport, address: Effect.map(transport.addresses, (addresses) => addresses[0]!) }
    }).pipe(Effect.provide(yield* Layer.build(Layer.fresh(layer))))
  })

/** Two nodes and a connection from the first to the second. */
export const makePair: Effect.Effect<
  readonly [Libp2pNode, Libp2pNode, Connection],
  HostError | ConfigError,
  Scope.Scope
> = Effect.gen(function*() {
  const a = yield* makeNode()
  const b = yield* makeNode()
  return [a, b, yield* Effect.orDie(a.transport.dial(yield* b.address))] as const
})

/** A stream opened by the first node; `answer` runs on the second. */
export const openPair = (
  answer: (stream: ByteStream) => Effect.Effect<void>,
  protocol = "/test/1.0.0" as ProtocolId
) =>
  Effect.gen(function*() {
    const [a, b, connection] = yield* makePair
    yield* b.transport.handle(protocol, answer)
    return { a, b, connection, stream: yield* connection.open(protocol) }
  })
