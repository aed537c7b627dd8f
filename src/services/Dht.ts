/**
 * The port to the distributed hash table: who provides a key, and where a peer is.
 */
import type { Effect, Stream } from "effect"
import { Context } from "effect"
import type { ContentKey, Provider } from "../schema/Content.ts"
import type { DhtError } from "../schema/NetworkError.ts"
import type { PeerAddresses, PeerId } from "../schema/Peer.ts"

export class Dht extends Context.Service<Dht, {
  /**
   * Records the intent to provide a key, and succeeds also without peers: it is announced as soon as there is one, and again until
   * `stopProviding`. With a `dataDirectory` the intent outlives the process. Safe to call twice.
   */
  readonly startProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
  /** Ends the intent. Copies of the record on other nodes stay until they expire. Safe to call for a key that is not provided. */
  readonly stopProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
  /**
   * Others who provide the key, each once, the first as soon as it is known. Ending the stream cancels the query. Fails with `NoPeers` at
   * once when nobody can be asked. Ends empty when nobody provides it.
   */
  readonly findProviders: (key: ContentKey) => Stream.Stream<Provider, DhtError>
  /** Where a peer is. Fails with `NoPeers` at once when nobody can be asked, with `NotFound` when nobody knows. */
  readonly findPeer: (peer: PeerId) => Effect.Effect<PeerAddresses, DhtError>
}>()("codio-network/services/Dht") {}
