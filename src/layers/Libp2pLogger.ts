/**
 * Where libp2p's own log lines go.
 */
import type { ComponentLogger, Logger } from "@libp2p/interface"
import { Context } from "effect"

/**
 * The logger of libp2p's components. Silent by default; replace it with `Layer.succeed`.
 *
 * Gotchas
 * - Arguments are in printf style (`%p` a peer, `%a` an address, `%e` an error); a logger that is off must not format them.
 * - `newScope` is called for each connection and each stream: return one shared logger where nothing is written.
 */
export const Libp2pLogger = Context.Reference<ComponentLogger>("codio-network/layers/Libp2pLogger", {
  defaultValue: () => silent
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// One for everything: about twenty scopes are asked for each connection.
const silentLogger: Logger = Object.assign(() => {}, {
  error: () => {},
  trace: () => {},
  enabled: false,
  newScope: () => silentLogger
})

const silent: ComponentLogger = { forComponent: () => silentLogger }
