/** Records the events of a node. */
import { Effect, Stream } from "effect"
import type { Network } from "../../src/Network.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"

/** The events of a node from here on, as an array that grows. */
export const record = Effect.fnUntraced(function*({ events }: Pick<Network["Service"], "events">) {
  const recorded: Array<NetworkEvent> = []
  yield* Effect.forkScoped(Stream.runForEach(events, (event) => Effect.sync(() => recorded.push(event))), {
    startImmediately: true
  })
  return recorded
})
