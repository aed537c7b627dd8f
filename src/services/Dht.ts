/**
 * The port to the distributed hash table: who provides a key, where a peer is, and small values.
 */
import type { Duration, Effect, Stream } from "effect"
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
  /**
   * Whether the intent outlives the process, where there is a `dataDirectory`. True by default. False ends no intent that does, and is what
   * `Network.provide` says, since its scopes end with the process.
   */
  readonly lasting?: boolean | undefined
}

/** What a lookup of providers may cost. */
export interface FindOptions {
  /** Ends the lookup after so many providers; see `KadDhtPolicy`, 128 by default. */
  readonly maxProviders?: number | undefined
  /** Ends the lookup after so long; see `KadDhtPolicy`, 10 seconds by default. */
  readonly findTimeout?: Duration.Input | undefined
}

export class Dht extends Context.Service<Dht, {
  /**
   * Records the intent to provide a key, and succeeds also without peers: it is announced as soon as there is one, and again until
   * `stopProviding`. With a `dataDirectory` the intent outlives the process. With peers it waits up to 1 s for the first copies.
   *
   * Safe to call twice; another `ttl` takes the place of the one before. Fails with `TtlInvalid` for one out of bounds.
   */
  readonly startProviding: (key: ContentKey, options?: ProvideOptions) => Effect.Effect<void, DhtError>
  /**
   * Ends the intent; with `lasting: false` only one that does not outlive the process. Copies of the record on other nodes stay until they
   * expire. Safe to call for a key that is not provided.
   */
  readonly stopProviding: (key: ContentKey, options?: Pick<ProvideOptions, "lasting">) => Effect.Effect<void, DhtError>
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
