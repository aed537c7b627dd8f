/**
 * The port to the distributed hash table: which nodes provide a key, where a peer is, and small values.
 */
import type { Duration, Effect, Scope, Stream } from "effect"
import { Context } from "effect"
import type { ContentKey } from "../schema/Content.ts"
import type { DhtError } from "../schema/NetworkError.ts"
import type { PeerId, ToldAddresses } from "../schema/Peer.ts"
import type { ProvideStatus } from "../schema/ProvideStatus.ts"
import type { ValueNamespace } from "../schema/ValueNamespace.ts"

/** How many other nodes must have stored a value, or given one. */
export interface ValueOptions {
  readonly quorum?: number | undefined
}

/** How many nodes were asked to store a value, and how many of them say that they have. */
export interface ValueStored {
  readonly asked: number
  readonly acknowledged: number
}

/** How a key is announced. */
export interface ProvideOptions {
  /**
   * How long a copy on another Codio node lives without being renewed: 1 minute to 24 hours, 24 hours by default.
   * Copies are renewed in time while the key is provided. With a short `ttl`, what a cache announces is gone soon
   * after the cache has crashed.
   *
   * Gotchas
   * - Other implementations ignore the `ttl` and keep a record for 24 (Rust, JavaScript) or 48 hours (Go).
   */
  readonly ttl?: Duration.Input | undefined
  /**
   * Succeeds as soon as the record has been written to the closest peers known, while the lookup that confirms them
   * goes on. Applies to the first announcement, and only when enough peers are known. False by default.
   */
  readonly optimistic?: boolean | undefined
}

/** What a lookup of providers may cost. */
export interface FindOptions {
  /** Ends the lookup after so many providers; see `KadDhtPolicy`, 128 by default. */
  readonly maxProviders?: number | undefined
  /** Ends the lookup after so long; see `KadDhtPolicy`, 10 seconds by default. */
  readonly findTimeout?: Duration.Input | undefined
}

/** What `findProviders` of `Network` may cost, and what it is to say when there is nobody to ask. */
export interface FindProvidersOptions extends FindOptions {
  /** Fails with `NoPeers` when there is no peer to ask. By default the stream is empty then. */
  readonly requirePeers?: boolean | undefined
}

/** The distributed hash table: which nodes have some content, where a peer is, and small values. */
export class Dht extends Context.Service<Dht, {
  /**
   * Records the wish to provide a key, and succeeds also without peers: the key is announced as soon as there is one,
   * and again until `stopProviding`. With a `dataDirectory` the wish outlives the process. With peers it waits up to
   * 1 s for the first copies.
   *
   * Safe to call twice. Of all calls for a key, those of `provide` included, the options of the latest count. Fails
   * with `TtlInvalid` for a `ttl` out of bounds, with `QueryFailed` when the wish cannot be saved; the wishes before
   * then go on.
   */
  readonly startProviding: (key: ContentKey, options?: ProvideOptions) => Effect.Effect<void, DhtError>
  /**
   * Ends the wish of `startProviding`, also when an earlier process began it. A key that a scope of `provide` holds
   * stays announced until that scope closes. Copies of the record on other nodes stay until they expire. Safe to call
   * for a key that is not provided.
   */
  readonly stopProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
  /**
   * Provides the key while the scope lives, and never beyond the process. The key stays announced until the last
   * scope that provides it has closed and `startProviding`, if it was called, has been stopped. Fails as
   * `startProviding` does. Closing the scope interrupts an announcement that nobody else needs.
   */
  readonly provide: (key: ContentKey, options?: ProvideOptions) => Effect.Effect<void, DhtError, Scope.Scope>
  /**
   * How far announcing is: the state now, then each change, several at once as one. While keys are overdue the state
   * comes at least every 5 s, since the lag grows. Without end.
   */
  readonly provideStatus: Stream.Stream<ProvideStatus>
  /**
   * Other nodes that provide the key, each once, as they are found: those in this node's records first, then those
   * that other nodes name. Callers that ask for a key at the same time share one lookup, whose outcome is cached for
   * a few seconds. Ending the stream cancels the lookup unless another caller reads it. Ends empty when nobody
   * provides the key.
   *
   * Fails with `NoPeers` at once when there is no peer to ask, with `QueryTimeout` when no provider was found in time.
   */
  readonly findProviders: (key: ContentKey, options?: FindOptions) => Stream.Stream<ToldAddresses, DhtError>
  /**
   * The addresses of a peer. Fails with `NoPeers` at once when there is no peer to ask, with `NotFound` when no peer
   * knows it.
   */
  readonly findPeer: (peer: PeerId) => Effect.Effect<ToldAddresses, DhtError>
  /**
   * The nodes closest to a key among those that answer, nearest first: `kadReplicationFactor` of them at most, this
   * node not among them. They keep the key's records. Fails with `NoPeers` at once when there is no peer to ask.
   */
  readonly closestPeers: (key: ContentKey) => Effect.Effect<ReadonlyArray<ToldAddresses>, DhtError>
  /** How many peers the routing table holds. */
  readonly tableSize: Effect.Effect<number>
  /**
   * Looks up this node's own position and a few random ones, so that the routing table comes to know the peers there.
   * Happens by itself when the first peer comes, and every few minutes. Fails with `NoPeers` when there is no peer to
   * ask, or none has answered.
   */
  readonly refresh: Effect.Effect<void, DhtError>
  /**
   * Stores a value under `/<namespace>/<path>`, here and on the nodes closest to the key. Fails with `QuorumFailed`
   * when fewer than `quorum` others, by default 1, say that they have stored it; with `RecordInvalid` when the
   * namespace refuses the value, when a better value is stored, or when this node does not know the namespace. Copies
   * expire after a day or two: put the value again while it is of use.
   */
  readonly putValue: <A, Input>(
    namespace: ValueNamespace<A, Input>,
    path: string,
    value: Input,
    options?: ValueOptions
  ) => Effect.Effect<ValueStored, DhtError>
  /**
   * The value that wins among those found, this node's own copy included. Without a `quorum` it waits for the whole
   * lookup; with one it ends when so many other nodes have given a value, and fails with `QuorumFailed` when fewer
   * have. Fails with `NotFound` when no node has a value, with `NoPeers` at once when there is no peer to ask. After
   * a whole lookup, nodes near the key that have an older value or none are sent the winning one, in the background.
   */
  readonly getValue: <A, Input>(
    namespace: ValueNamespace<A, Input>,
    path: string,
    options?: ValueOptions
  ) => Effect.Effect<A, DhtError>
}>()("codio-network/services/Dht") {}
