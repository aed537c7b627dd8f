/**
 * The engine of the DHT, over whatever carries its questions and keeps its table: lookups, what this node provides, its server and the records
 * that it stores. `KadDht` gives it libp2p's streams and kad-dht's table, the simulator those of its own.
 */
import { Bytes, Clock, Duration, Effect, FiberSet, type Latch, Queue, type Scope, Stream } from "effect"
import type { KeyValueStore } from "effect/persistence"
import { base58btc } from "multiformats/bases/base58"
import * as ContentKeys from "../../schema/Content.ts"
import { DhtError, NotFound, QueryTimeout } from "../../schema/NetworkError.ts"
import type { PeerAddresses, PeerId } from "../../schema/Peer.ts"
import type { Signer, ValueRules } from "../../schema/ValueNamespace.ts"
import { Dht, type FindOptions } from "../../services/Dht.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import * as KadBeyond from "./lookup/Beyond.ts"
import { KadDhtPolicy } from "../../services/KadDhtPolicy.ts"
import { decodePeer, encodeFrame, MessageType } from "./wire/Message.ts"
import { type Node, keyOf } from "./wire/Nodes.ts"
import { positionOf } from "./wire/Position.ts"
import { decodeRecord, encodeRecord } from "./wire/Record.ts"
import * as Announce from "./provide/Announce.ts"
import type { AnnounceOptions } from "./provide/Announcement.ts"
import * as KadQueries from "./lookup/Queries.ts"
import * as Server from "./serve/Server.ts"
import * as ProvidedKeys from "./provide/ProvidedKeys.ts"
import * as ProviderRecords from "./serve/ProviderRecords.ts"
import * as SharedLookups from "./lookup/SharedLookups.ts"
import * as ValueRecords from "./serve/ValueRecords.ts"
import * as ValueRepair from "./values/Repair.ts"
import * as Values from "./values/Values.ts"

export interface KadEngineOptions {
  /** The peers of the DHT as this node knows them. */
  readonly peers:
    & Pick<KadQueries.KadQueriesOptions, "self" | "seeds" | "isAtHand" | "ready" | "hear">
    & Pick<Server.ServerOptions, "encodedOf" | "addressesOf">
    & {
      readonly nodeOf: (id: PeerId) => Node
      readonly ids: () => ReadonlyArray<PeerId>
      readonly isConnected: () => boolean
      readonly isThere: Effect.Effect<boolean>
      readonly ownBodyNow: () => Uint8Array
      readonly onChange: (
        listener: (change: "first" | "more" | "none") => void
      ) => Effect.Effect<void, never, Scope.Scope>
      readonly whereIs: (id: PeerId) => Effect.Effect<PeerAddresses & { readonly isCertain: boolean }>
    }
  /** Asks one peer; see {@link KadQueries.KadQueriesOptions}. */
  readonly request: KadQueries.KadQueriesOptions["request"]
  /** Writes to a peer what has no answer. */
  readonly send: AnnounceOptions<Node>["send"]
  /** The peers of the table closest to a position. */
  readonly closest: Server.ServerOptions["closest"]
  /** This node's addresses as they would be announced. */
  readonly addresses: () => ReadonlyArray<string>
  /** Those of the addresses that can be read, as text. */
  readonly read: KadQueries.KadQueriesOptions["read"]
  /** The namespaces of which this node stores and asks for values. */
  readonly namespaces: ReadonlyArray<ValueRules>
  readonly signer: Signer
  /** Opened when this node's addresses may have changed; the engine opens it for its own reasons, too. */
  readonly changed: Latch.Latch
}

export interface KadEngine {
  readonly dht: Dht["Service"]
  /** Asks others where a peer is, whatever this node knows. */
  readonly askForPeer: (id: PeerId) => Effect.Effect<PeerAddresses, DhtError>
  /** Looks up this node's own place: those around it know it then, and are known. Done by itself when the first peer comes. */
  readonly introduce: Effect.Effect<void>
  /** Answers the questions of others. */
  readonly server: Server.Server
}

/**
 * An engine for as long as the scope lives. The keys that it provides are those of the `KeyValueStore`, and of `startProviding`.
 */
export const make = Effect.fnUntraced(function*(
  options: KadEngineOptions
): Effect.fn.Return<KadEngine, never, NetworkConfig | KeyValueStore.KeyValueStore | Scope.Scope> {
  const { changed, namespaces, peers, read, request, signer } = options
  const { self } = peers
  const { kadReplicationFactor: copies } = yield* NetworkConfig
  const policy = yield* KadDhtPolicy
  const run = yield* FiberSet.makeRuntime()
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()

  // ----- asking

  const beyond: KadBeyond.KadBeyond<Node> = KadBeyond.make({
    count: copies,
    lookup: (bytes) =>
      queries.lookup(positionOf(bytes), { question: encodeFrame({ type: MessageType.FIND_NODE, key: bytes }) })
  })
  const queries = KadQueries.make({ ...peers, count: copies, request, beyond, read })

  const introduce = Effect.asVoid(
    Effect.suspend(() =>
      queries.lookup(self.position, { question: encodeFrame({ type: MessageType.FIND_NODE, key: self.bytes }) })
    )
  )

  // ----- providers

  const records = ProviderRecords.make()
  const providersHere = (key: ContentKeys.ContentKey): ReadonlyArray<ContentKeys.Provider> =>
    records.get(ContentKeys.toBytes(key), now(), localBytes).flatMap((body) => {
      const peer = decodePeer(body)
      if (peer === undefined || keyOf(peer.id) === self.key) return []
      return [{ id: idOf(peer.id), addresses: read(peer.addresses) }]
    })

  const providers = yield* SharedLookups.make({
    lookup: queries.providers,
    cacheTime: policy.cacheTime,
    isCached: isLasting
  })

  const findProviders = (
    key: ContentKeys.ContentKey,
    options?: FindOptions
  ): Stream.Stream<ContentKeys.Provider, DhtError> =>
    Stream.suspend(() => {
      const after = Duration.fromInputUnsafe(options?.findTimeout ?? policy.findTimeout)
      const here = providersHere(key)
      const late = here.length > 0
        ? Effect.void
        : Effect.fail(new DhtError({ operation: "findProviders", subject: key, reason: new QueryTimeout({ after }) }))
      const others = providers.find(key, { after, late: () => late })
      if (here.length === 0) return others
      const seen = new Set(here.map(({ id }) => id))
      // The network is asked when the reader wants more.
      return Stream.concat(Stream.fromIterable(here), Stream.filter(others, ({ id }) => !seen.has(id)))
    }).pipe(Stream.take(options?.maxProviders ?? policy.maxProviders))

  // ----- peers

  const places = yield* SharedLookups.make({
    lookup: (id: PeerId, found: (some: ReadonlyArray<PeerAddresses>) => void) => queries.peer(peers.nodeOf(id), found),
    cacheTime: policy.cacheTime,
    isCached: isLasting
  })

  const askForPeer = Effect.fnUntraced(function*(id: PeerId) {
    const after = Duration.fromInputUnsafe(policy.findTimeout)
    const failing = (reason: DhtError["reason"]) => new DhtError({ operation: "findPeer", subject: id, reason })
    const found = yield* Stream.runHead(places.find(id)).pipe(
      Effect.timeoutOrElse({ duration: after, orElse: () => Effect.fail(failing(new QueryTimeout({ after }))) })
    )
    return found._tag === "Some" ? found.value : yield* failing(new NotFound({}))
  })

  const findPeer = Effect.fn("Dht.findPeer")(function*(id: PeerId) {
    const { addresses, isCertain } = yield* peers.whereIs(id)
    const known: PeerAddresses = { id, addresses }
    if (isCertain) return known
    // It may have moved since it was connected, so what is known of it comes second.
    const asked = askForPeer(id)
    return yield* addresses.length === 0 ? asked : Effect.catch(asked, () => Effect.succeed(known))
  })

  // ----- values

  const valueRecords = ValueRecords.make(namespaces)
  const { repair } = yield* ValueRepair.make<Node>({
    put: (node, key, bytes) => {
      const record = encodeRecord({ key, value: bytes }, now())
      return request(node, encodeFrame({ type: MessageType.PUT_VALUE, key, record }))
    }
  })
  const values = Values.make({
    namespaces,
    signer,
    local: (key) =>
      Effect.sync(() => {
        const record = valueRecords.get(key, now())
        return record === undefined ? undefined : decodeRecord(record)?.value
      }),
    put: Effect.fnUntraced(function*(key, bytes, count) {
      const record = encodeRecord({ key, value: bytes }, now())
      yield* valueRecords.put(key, record, now()).pipe(
        Effect.mapError((reason) => new DhtError({ operation: "putValue", subject: KadQueries.textOf(key), reason }))
      )
      yield* queries.putValue(key, record, {
        asked: ({ id }) => count.asked.add(id),
        answered: ({ id }, message) => {
          // Who has stored a value sends it back.
          const stored = message.record === undefined ? undefined : decodeRecord(message.record)
          if (stored !== undefined && Bytes.Equivalence(stored.value, bytes)) count.acknowledged.add(id)
        }
        // What has been counted by then is what there is.
      }).pipe(Effect.timeoutOption(policy.findTimeout))
    }),
    get: (key) =>
      queries.values(key).pipe(
        Stream.map((found) => {
          if ("closest" in found) return found
          const { from, record } = found
          return { from, bytes: record === undefined ? undefined : decodeRecord(record)?.value }
        }),
        Stream.interruptWhen(Effect.sleep(policy.findTimeout))
      ),
    repair
  })

  // ----- what this node provides

  // New peers come in groups; only the first is not made to wait.
  const growth = yield* Queue.sliding<void>(1)
  yield* Effect.forkScoped(Effect.forever(
    Queue.take(growth).pipe(Effect.andThen(Effect.sleep("250 millis")), Effect.andThen(changed.open))
  ))
  yield* peers.onChange((change) => {
    if (change === "none") {
      changed.openUnsafe()
      return
    }
    // Somebody new may know what nobody knew.
    run(Effect.andThen(providers.forgetEmpty, places.forgetEmpty))
    if (change === "first") {
      run(introduce)
      changed.openUnsafe()
    } else {
      Queue.offerUnsafe(growth, void 0)
    }
  })
  const { isProvided, ...providing } = yield* ProvidedKeys.make({
    announce: Announce.make<Node>({
      self,
      count: copies,
      seeds: peers.seeds,
      request: (node, question, before) =>
        Effect.map(request(node, question, before), ({ message, tookBefore }) => ({
          closer: peers.hear(message.closer),
          tookBefore
        })),
      send: options.send,
      ...beyond,
      // What is announced counts for hours.
      provider: peers.ownBodyNow
    }),
    takers: peers.ids,
    hasTakers: peers.isThere,
    isConnected: peers.isConnected,
    addresses: options.addresses,
    changed,
    copies,
    retry: policy.retry,
    republish: policy.republish
  })

  // ----- what others ask

  const server = yield* Server.make({
    self: self.bytes,
    closerMax: copies,
    closest: options.closest,
    encodedOf: peers.encodedOf,
    addressesOf: peers.addressesOf,
    isProvided,
    providers: records,
    values: valueRecords
  })

  return {
    dht: Dht.of({ ...providing, ...values, findProviders, findPeer, closestPeers: queries.closestPeers }),
    askForPeer,
    introduce,
    server
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** What this node has of the providers of a key is read up to so many bytes: a thousand of them. */
const localBytes = 256 * 1024

const isLasting = ({ reason }: DhtError): boolean => reason._tag !== "NoPeers"

const idOf = (bytes: Uint8Array): PeerId => base58btc.baseEncode(bytes) as PeerId
