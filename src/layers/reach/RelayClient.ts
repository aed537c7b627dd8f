/**
 * Lets the host dial and be dialled through relays, and replace a relayed path by a direct path where it can. [libp2p]
 *
 * It makes no reservation: `RelayReservations` does that, above the policies.
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
 * - A relay that is down would fail the start of a node that listens on the relay's address, so no `/p2p-circuit`
 *   address is listened on.
 * - An upgrade by DCUtR closes the relayed connection, with the streams on it. It happens within a second of the
 *   connection, and only when one side can be reached from outside.
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
