/** A simulated node without `Network`: the services of the core over a simulated transport. */
import { Context, Effect, Layer, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import * as CodioProtocol from "../../src/layers/codio/CodioProtocol.ts"
import * as KeyValuePeerStore from "../../src/layers/machine/KeyValuePeerStore.ts"
import * as PeerBook from "../../src/layers/peers/PeerBook.ts"
import * as PingHealth from "../../src/layers/peers/PingHealth.ts"
import * as ScopedPeerTable from "../../src/layers/peers/ScopedPeerTable.ts"
import * as SupervisedConnectionManager from "../../src/layers/peers/SupervisedConnectionManager.ts"
import * as TransportProtocols from "../../src/layers/peers/TransportProtocols.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import { ConnectionManager } from "../../src/services/ConnectionManager.ts"
import { Discovery } from "../../src/services/Discovery.ts"
import { Health } from "../../src/services/Health.ts"
import { NetworkConfig, type NetworkConfigInput } from "../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../src/services/NetworkEvents.ts"
import { PeerTable } from "../../src/services/PeerTable.ts"
import { Protocols } from "../../src/services/Protocols.ts"
import { Transport } from "../../src/services/Transport.ts"
import * as SimDht from "../../src/testing/ports/SimDht.ts"
import * as SimNetworkMonitor from "../../src/testing/ports/SimNetworkMonitor.ts"
import * as SimTransport from "../../src/testing/ports/SimTransport.ts"

const core = CodioProtocol.layer.pipe(
  Layer.provideMerge(PingHealth.layer),
  Layer.provideMerge(TransportProtocols.layer),
  Layer.provideMerge(SupervisedConnectionManager.layer),
  Layer.provideMerge(ScopedPeerTable.layer),
  Layer.provide(PeerBook.layer),
  Layer.provideMerge(NetworkEvents.layer)
)

export const make = Effect.fnUntraced(function*(
  name: string,
  config: NetworkConfigInput = {},
  /** Changes how the node dials. */
  dialing: (dial: Transport["Service"]["dial"]) => Transport["Service"]["dial"] = (dial) => dial
) {
  const context = yield* Layer.build(Layer.fresh(core.pipe(
    Layer.provide(SimDht.layer),
    Layer.provideMerge(Layer.mergeAll(
      Layer.effect(
        Transport,
        Effect.map(Transport, (transport) => Transport.of({ ...transport, dial: dialing(transport.dial) }))
      ).pipe(Layer.provide(SimTransport.layer(name))),
      Discovery.layer,
      SimNetworkMonitor.layer(name),
      KeyValuePeerStore.layer.pipe(Layer.provide(KeyValueStore.layerMemory))
    )),
    Layer.provide(NetworkConfig.layer(config))
  )))
  const events: Array<NetworkEvent> = []
  const { stream } = Context.get(context, NetworkEvents)
  yield* Effect.forkScoped(Stream.runForEach(stream, (event) => Effect.sync(() => events.push(event))), {
    startImmediately: true
  })
  const transport = Context.get(context, Transport)
  return {
    id: transport.localPeer,
    transport,
    addresses: transport.addresses,
    table: Context.get(context, PeerTable),
    manager: Context.get(context, ConnectionManager),
    discovery: Context.get(context, Discovery),
    protocols: Context.get(context, Protocols),
    health: Context.get(context, Health),
    events,
    /** The tags of what happened, in order. */
    happened: (tag: NetworkEvent["_tag"]) => events.filter((event) => event._tag === tag)
  }
})
