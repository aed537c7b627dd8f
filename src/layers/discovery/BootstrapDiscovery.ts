/**
 * The way into the network: keeps a connection to each of `NetworkConfig.bootstrapPeers`.
 */
import { Effect, Layer } from "effect"
import type { DialError } from "../../schema/NetworkError.ts"
import { ConnectionManager } from "../../services/ConnectionManager.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"

/**
 * Keeps the bootstrap peers while the layer lives; provides nothing. Does not wait for them, and keeps trying a peer
 * that is down.
 *
 * The node's own address is skipped, so that all nodes can share one list. An address without `/p2p` is dialled
 * again until a peer answers there; an error that no later dial can mend ends that with a warning.
 */
export const layer: Layer.Layer<never, DialError, ConnectionManager | NetworkConfig> = Layer.effectDiscard(
  Effect.gen(function*() {
    const { keep } = yield* ConnectionManager
    const { bootstrapPeers } = yield* NetworkConfig
    yield* Effect.forEach(bootstrapPeers, (address) =>
      keep(address).pipe(
        Effect.catchReason("DialError", "DialedSelf", () =>
          Effect.logInfo(`bootstrap peer ${address} is this node itself`))
      ), { discard: true })
  }).pipe(Effect.annotateLogs({ component: "bootstrap" }))
)
