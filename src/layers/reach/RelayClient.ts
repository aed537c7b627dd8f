/**
 * Lets the host dial through relays, be dialled through them, and leave a relayed path for a direct one where it can.
 * [libp2p]
 *
 * Nothing is reserved here: `RelayReservations` does that above the policies.
 */
import { circuitRelayTransport } from "@libp2p/circuit-relay-v2"
import { dcutr } from "@libp2p/dcutr"
import { Effect, Layer } from "effect"
import { HostError } from "../../schema/NetworkError.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { Libp2pHost } from "../libp2p/Host.ts"

/**
 * Circuit relay v2 and DCUtR while the scope lives; nothing without `enableRelay`.
 *
 * Gotchas
 * - A relay that is down fails the start of a node that has its address among those to listen on, so `/p2p-circuit` is
 *   never one of them.
 * - An upgrade by DCUtR closes the relayed connection, and with it the streams on it. It happens within a second of the
 *   connection, and only where one side can be reached from outside.
 */
export const layer: Layer.Layer<never, HostError, Libp2pHost | NetworkConfig> = Layer.effectDiscard(
  Effect.gen(function*() {
    const { enableRelay } = yield* NetworkConfig
    if (!enableRelay) return
    const { attach, components: { transportManager } } = yield* Libp2pHost
    const transport = yield* attach("relay-client", (components) => circuitRelayTransport()(components))
    yield* Effect.acquireRelease(
      Effect.try({
        try: () => transportManager.add(transport),
        catch: (cause) =>
          new HostError({ module: "relay-client", detail: "a relay transport is attached already", cause })
      }),
      () => Effect.promise(() => transportManager.remove(transport[Symbol.toStringTag] ?? ""))
    )
    yield* attach("dcutr", (components) => dcutr()(components))
  })
)
