/**
 * A node without a DHT: it asks nobody, stores nothing, and says so.
 */
import { Duration, Effect, Layer, Stream } from "effect"
import { DhtError, DhtOff } from "../../schema/NetworkError.ts"
import { ProvideStatus } from "../../schema/ProvideStatus.ts"
import { Dht } from "../../services/Dht.ts"

/**
 * Every operation fails with `DhtOff`, but for `stopProviding`, which has nothing to end. `provideStatus` says
 * that nothing is provided.
 */
export const layer: Layer.Layer<Dht> = Layer.sync(Dht, () => {
  const off = (operation: string, subject = "") =>
    Effect.fail(new DhtError({ operation, subject, reason: new DhtOff({}) }))
  return Dht.of({
    startProviding: (key) => off("startProviding", key),
    stopProviding: () => Effect.void,
    provide: (key) => off("provide", key),
    provideStatus: Stream.concat(
      Stream.sync(() =>
        new ProvideStatus({
          keys: 0,
          queued: 0,
          announced: 0,
          crowded: 0,
          copies: { least: 0, mean: 0 },
          lag: Duration.zero
        })
      ),
      Stream.never
    ),
    findProviders: (key) => Stream.fromEffect(off("findProviders", key)),
    findPeer: (peer) => off("findPeer", peer),
    closestPeers: (key) => off("closestPeers", key),
    tableSize: Effect.succeed(0),
    refresh: off("refresh"),
    putValue: (_, path) => off("putValue", path),
    getValue: (_, path) => off("getValue", path)
  })
})
