/**
 * Whether the connected peers are alive.
 *
 * Each peer is pinged by `HealthPolicy`. A round-trip time goes into its `PeerInfo`; after too many misses in a row its connections are
 * closed, and a kept or wanted peer is dialled again. A peer without ping counts as alive.
 */
import type { Duration, Effect } from "effect"
import { Context } from "effect"
import type { PingError } from "../schema/NetworkError.ts"
import type { PeerId } from "../schema/Peer.ts"

/** Pings the connected peers. */
export class Health extends Context.Service<Health, {
  /** Pings a connected peer now, within the policy's timeout, and stores the result as a probe does. */
  readonly ping: (peer: PeerId) => Effect.Effect<Duration.Duration, PingError>
}>()("codio-network/services/Health") {}
