/**
 * Lets the host speak TCP, and listen where the configuration says.
 */
import { Effect, Layer } from "effect"
import type { HostError } from "../../schema/NetworkError.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { Libp2pHost } from "./Host.ts"
import { hostError } from "./Modules.ts"
import type { Components } from "./wire/Components.ts"
import { once } from "./wire/LeanedOn.ts"
import { assertTcp, gatheringTcp } from "./wire/Tcp.ts"

/**
 * Dials over TCP, and listens on `listenAddresses` while the scope lives. Fails when an address is not TCP, is taken,
 * or belongs to another machine.
 */
export const layer: Layer.Layer<never, HostError, Libp2pHost | NetworkConfig> = Layer.effectDiscard(
  Effect.gen(function*() {
    const host = yield* Libp2pHost
    const { listenAddresses } = yield* NetworkConfig
    yield* Effect.tryPromise({ try: () => assertOnce(host.components), catch: hostError("tcp") })
    yield* host.listen("tcp", gatheringTcp(host.judgeOf), listenAddresses)
  })
)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const assertOnce = once((components: Components) => assertTcp(components))
