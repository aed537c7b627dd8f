/**
 * Broadcasts what happens in a node to observers. Events inform: no part of the library acts on them.
 */
import { Context, Effect, Layer, Metric, PubSub, Stream } from "effect"
import type { NetworkEvent } from "../schema/NetworkEvent.ts"
import { NetworkConfig } from "./NetworkConfig.ts"
import * as NetworkMetrics from "./NetworkMetrics.ts"

/** Where the parts of a node publish events. */
export class NetworkEvents extends Context.Service<NetworkEvents, {
  /** Never waits. A subscriber that is more than `eventBuffer` events behind loses its oldest ones. */
  readonly publish: (event: NetworkEvent) => Effect.Effect<void>
  /** All events from the moment of subscribing, without end. */
  readonly stream: Stream.Stream<NetworkEvent>
}>()("codio-network/services/NetworkEvents") {
  /** Events with a buffer of `eventBuffer` for each subscriber. */
  static readonly layer = Layer.effect(
    NetworkEvents,
    Effect.gen(function*() {
      const { eventBuffer } = yield* NetworkConfig
      const hub = yield* Effect.acquireRelease(
        PubSub.sliding<{ readonly sequence: number; readonly event: NetworkEvent }>(eventBuffer),
        PubSub.shutdown
      )
      let published = 0
      return NetworkEvents.of({
        publish: (event) => Effect.suspend(() => Effect.asVoid(PubSub.publish(hub, { sequence: published++, event }))),
        stream: Stream.suspend(() => {
          let expected = -1
          return Stream.fromPubSub(hub).pipe(
            // A gap between the numbers means that this subscriber lost events.
            Stream.tap(({ sequence }) => {
              const lost = expected === -1 ? 0 : sequence - expected
              expected = sequence + 1
              return lost === 0 ? Effect.void : Metric.update(NetworkMetrics.eventsDropped, lost)
            }),
            Stream.map(({ event }) => event)
          )
        })
      })
    })
  )
}
