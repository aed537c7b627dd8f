/**
 * The port to the distributed hash table: who provides a key, where a peer is, and small values.
 */
import type { Duration, Effect, Scope, Stream } from "effect"
import { Context } from "effect"
import type { ContentKey, Provider } from "../schema/Content.ts"
import type { DhtError } from "../schema/NetworkError.ts"
import type { PeerAddresses, PeerId } from "../schema/Peer.ts"
import type { ProvideStatus } from "../schema/ProvideStatus.ts"
import type { ValueNamespace } from "../schema/ValueNamespace.ts"

/** How many nodes must have stored a value, or given one. This node itself does not count. */
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
   * How long a copy on another Codio node lives without being renewed: 1 minute to 24 hours, 24 hours by default. It is renewed ahead of
   * that for as long as the key is provided, so what a cache announces is gone soon after the cache has crashed.
   *
   * Gotchas
   * - Other implementations do not know it, and keep a record for 24 (Rust, JavaScript) or 48 hours (Go).
   */
  readonly ttl?: Duration.Input | undefined
  /**
   * Succeeds as soon as the record has been written to the closest peers that are known, while the lookup that confirms it goes on. Only
   * the first announcement is hastened, and only when enough peers are known. False by default.
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

/** The distributed hash table: who has what, where a peer is, and small values. */
export class Dht extends Context.Service<Dht, {
  /**
   * Records the wish to provide a key, and succeeds also without peers: the key is announced as soon as there is one, and again until
   * `stopProviding`. With a `dataDirectory` the wish outlives the process. With peers it waits up to 1 s for the first copies.
   *
   * Safe to call twice. Of all calls for a key, those of `provide` included, the options of the latest count. Fails with `TtlInvalid` for a
   * `ttl` out of bounds, with `QueryFailed` when the wish cannot be saved; what was before then goes on.
   */
  readonly startProviding: (key: ContentKey, options?: ProvideOptions) => Effect.Effect<void, DhtError>
  /**
   * Ends the wish of `startProviding`, also that of an earlier process. A key that a scope of `provide` holds stays announced until that
   * scope closes. Copies of the record on other nodes stay until they expire. Safe to call for a key that is not provided.
   */
  readonly stopProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
  /**
   * Provides the key while the scope lives, and never beyond the process. The key stays announced until the last scope that provides it has
   * closed and `startProviding`, if it was called, has been stopped. Fails as `startProviding` does. Closing the scope interrupts an
   * announcement that nobody else needs.
   */
  readonly provide: (key: ContentKey, options?: ProvideOptions) => Effect.Effect<void, DhtError, Scope.Scope>
  /**
   * How far announcing is: at once as it stands, then whenever it has changed, several changes as one. While something is overdue it comes
   * at least every 5 s, since the lag grows. Without end.
   */
  readonly provideStatus: Stream.Stream<ProvideStatus>
  /**
   * Others who provide the key, each once, the first as soon as it is known: those that this node has a record of, then what others say.
   * Those who ask for a key at the same time share one lookup, and for a few seconds its outcome answers the next. Ending the stream
   * cancels the query, unless others read it. Fails with `NoPeers` at once when nobody can be asked, with `QueryTimeout` when nobody has
   * been found in time. Ends empty when nobody provides it.
   */
  readonly findProviders: (key: ContentKey, options?: FindOptions) => Stream.Stream<Provider, DhtError>
  /** Where a peer is. Fails with `NoPeers` at once when nobody can be asked, with `NotFound` when nobody knows. */
  readonly findPeer: (peer: PeerId) => Effect.Effect<PeerAddresses, DhtError>
  /**
   * The nodes closest to a key among those that answer, nearest first: `kadReplicationFactor` of them at most, this node not among them.
   * They are who keeps its records. Fails with `NoPeers` at once when nobody can be asked.
   */
  readonly closestPeers: (key: ContentKey) => Effect.Effect<ReadonlyArray<PeerAddresses>, DhtError>
  /**
   * Stores a value under `/<namespace>/<path>`, here and on the nodes closest to the key. Fails with `QuorumFailed` when fewer than `quorum`
   * others, by default 1, say that they have stored it; with `RecordInvalid` for a value that its namespace does not take, one over which
   * the stored one wins, and a namespace that this node does not know. Copies expire after a day or two: put it again while it is of use.
   */
  readonly putValue: <A, Input>(
    namespace: ValueNamespace<A, Input>,
    path: string,
    value: Input,
    options?: ValueOptions
  ) => Effect.Effect<ValueStored, DhtError>
  /**
   * The value that wins among those found, this node's own copy included. Without a `quorum` the whole lookup is awaited; with one it ends
   * when as many others have given a value, and fails with `QuorumFailed` when fewer have. Fails with `NotFound` when nobody has one, with
   * `NoPeers` at once when nobody can be asked. After a whole lookup the nodes near the key that have an older value, or none, are given the one
   * that was found, in the background.
   */
  readonly getValue: <A, Input>(
    namespace: ValueNamespace<A, Input>,
    path: string,
    options?: ValueOptions
  ) => Effect.Effect<A, DhtError>
}>()("codio-network/services/Dht") {}
