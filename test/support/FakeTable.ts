/** The peer table over fake connections and interests that a spec sets by hand. */
import { Effect, Layer, Stream } from "effect"
import * as ScopedPeerTable from "../../src/layers/peers/ScopedPeerTable.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import { NetworkConfig, type NetworkConfigInput } from "../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../src/services/NetworkEvents.ts"
import * as FakeConnection from "./FakeConnection.ts"
import * as FakeInterests from "./FakeInterests.ts"

export const layer = (config: NetworkConfigInput = {}) =>
  ScopedPeerTable.layer.pipe(
    Layer.provideMerge(NetworkEvents.layer),
    Layer.provide([NetworkConfig.layer(config), FakeConnection.transport]),
    Layer.provideMerge(FakeInterests.layer)
  )

/** The events published from here on. */
export const recorded = Effect.gen(function*() {
  const events: Array<NetworkEvent> = []
  const { stream } = yield* NetworkEvents
  yield* Effect.forkScoped(Stream.runForEach(stream, (event) => Effect.sync(() => events.push(event))), {
    startImmediately: true
  })
  return events
})
