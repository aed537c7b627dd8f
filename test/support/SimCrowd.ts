/** A simulated network of honest nodes, and the ids that an attacker has made around a key. */
import { Context, Effect, Layer, Metric, Option, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import type { ContentKey } from "../../src/schema/Content.ts"
import * as Content from "../../src/schema/Content.ts"
import { Dht } from "../../src/services/Dht.ts"
import { Discovery } from "../../src/services/Discovery.ts"
import { NetworkConfig } from "../../src/services/NetworkConfig.ts"
import * as NetworkMetrics from "../../src/services/NetworkMetrics.ts"
import { Transport } from "../../src/services/Transport.ts"
import * as SimKad from "../../src/testing/ports/SimKad.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as SimTransport from "../../src/testing/ports/SimTransport.ts"
import * as TestNetwork from "../../src/testing/TestNetwork.ts"
import * as LogLines from "./LogLines.ts"

/** The names of the honest nodes, 80 of them. */
export const honest = Array.from({ length: 80 }, (_, index) => `honest ${index}`)

/** A node that consists of its DHT only. */
const makeServer = Effect.fnUntraced(function*(name: string, options?: SimKad.SimKadOptions) {
  const transport = yield* SimTransport.make(name)
  yield* transport.gate(() => Effect.succeed(true))
  yield* SimKad.make(options).pipe(
    Effect.provide(Layer.fresh(Layer.mergeAll(Discovery.layer, NetworkConfig.layer(), KeyValueStore.layerMemory))),
    Effect.provideService(Transport, transport)
  )
  return transport
})

/** Starts nodes. Each connects to two earlier ones, and to one node that all know. */
export const join = Effect.fnUntraced(function*(names: ReadonlyArray<string>, options?: SimKad.SimKadOptions) {
  for (const [index, name] of names.entries()) {
    const transport = yield* makeServer(name, options)
    const others = new Set([honest[0]!, names[index >> 1]!, names[Math.max(0, index - 1)]!])
    others.delete(name)
    for (const other of others) yield* Effect.orDie(transport.dial(SimNetwork.address(other)))
  }
})

/**
 * A whole node, as a program has it, that has three peers and has looked for so many other keys. `first` is the first
 * of its peers.
 */
export const makeNode = Effect.fnUntraced(function*(name: string, keysBefore = 0, first = 1) {
  const { network, services } = yield* TestNetwork.start(name, { minPeers: 0 }, { dht: SimKad.layer() })
  const dht = Context.get(services, Dht)
  const find = (key: ContentKey) =>
    Effect.map(TestNetwork.run(Stream.runCollect(network.findProviders(key))), (found) => found.map(({ id }) => id))
  for (const other of honest.slice(first, first + 3)) yield* TestNetwork.run(network.connect(SimNetwork.address(other)))
  for (let index = 0; index < keysBefore; index++) yield* find(Content.fromText(`${name} ${index}`))
  return {
    id: network.localPeer,
    dht,
    status: Effect.map(TestNetwork.run(Stream.runHead(network.provideStatus)), Option.getOrThrow),
    provide: (key: ContentKey) => TestNetwork.run(network.startProviding(key)),
    find,
    closest: (key: ContentKey) =>
      Effect.map(TestNetwork.run(dht.closestPeers(key)), (found) => found.map(({ id }) => id))
  }
})

/** How many lookups in this process noticed that they ended in a crowd. */
export const seen = Effect.map(Metric.value(NetworkMetrics.crowdedLookups), ({ count }) => Number(count))

/** How many warnings of a crowd were logged; under `LogLines.capture`. */
export const warnings = Effect.map(
  LogLines.lines,
  (lines) => lines.filter((line) => line.includes("improbably near")).length
)
