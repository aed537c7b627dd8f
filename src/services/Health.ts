/**
 * Whether the connected peers are alive.
 *
 * Each peer is pinged by `HealthPolicy`, and the round-trip time goes into its `PeerInfo`. After too many misses in a
 * row the peer's connections are closed, and a kept or wanted peer is dialled again. A peer without the ping protocol
 * counts as alive.
 */
import type { Duration, Effect } from "effect"
import { Context } from "effect"
import type { PingError } from "../schema/NetworkError.ts"
import type { PeerId } from "../schema/Peer.ts"

/** Pings the connected peers. */
export class Health extends Context.Service<Health, {
  /** Pings a connected peer now, within the policy's timeout. The result counts as a regular ping does. */
  readonly ping: (peer: PeerId) => Effect.Effect<Duration.Duration, PingError>
}>()("codio-network/services/Health") {}
