/**
 * How much each peer is wanted, and which peers are blocked: what the peer table asks before it gives a slot or takes
 * one back. The book of the connection manager answers, so that no copy can differ from it.
 */
import { Context } from "effect"
import type { Interest, PeerId } from "../schema/Peer.ts"

/** What this node wants of its peers, as of now. The gate asks in one step, so that no answer suspends. */
export class Interests extends Context.Service<Interests, {
  /** How much the peer is wanted, connected or not. An unknown peer is transient. */
  readonly of: (peer: PeerId) => Interest
  /** Whether no connection of the peer may be admitted. */
  readonly isBlocked: (peer: PeerId) => boolean
  /** The peers that are wanted or kept, connected or not. */
  readonly wanted: () => Iterable<PeerId>
}>()("codio-network/services/Interests") {}
