/**
 * The relays that a node asks for reservations.
 */
import { Context, Effect, type Scope } from "effect"
import { type DialError, HostError } from "../schema/NetworkError.ts"
import type { Multiaddr } from "../schema/Peer.ts"

/** Reservations at run time. */
export interface RelaysService {
  /**
   * Keeps the relay and holds a reservation on it while the scope lives, as for an entry of `relayPeers`. Returns at
   * once. Fails with `HostError` where the node uses no relays, and with `DialError` for this node itself.
   */
  readonly reserve: (relay: Multiaddr) => Effect.Effect<void, DialError | HostError, Scope.Scope>
}

/** Relays of this node; none unless a layer provides them. */
export const Relays = Context.Reference<RelaysService>("codio-network/services/Relays", {
  defaultValue: () => ({
    reserve: () =>
      Effect.fail(
        new HostError({
          module: "relay",
          detail: "this node uses no relays; start it with the option enableRelay, over libp2p"
        })
      )
  })
})
