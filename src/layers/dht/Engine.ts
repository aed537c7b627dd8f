/**
 * The engine of the DHT: lookups, what this node provides, its server and the records that it stores. It works over
 * whatever carries its questions and keeps its routing table: `KadDht` gives it streams of libp2p and the table of
 * kad-dht, the simulator gives it its own.
 */
import { Bytes, Cause, Clock, Duration, Effect, Exit, type Latch, Queue, Random, type Scope, Stream } from "effect"
import type { KeyValueStore } from "effect/persistence"
import { base58btc } from "multiformats/bases/base58"
import * as ContentKeys from "../../schema/Content.ts"
import { DhtError, NotFound, QueryTimeout, RecordInvalid } from "../../schema/NetworkError.ts"
import type { PeerId, ToldAddresses } from "../../schema/Peer.ts"
import type { Signer, ValueRules } from "../../schema/ValueNamespace.ts"
import { Dht, type FindOptions } from "../../services/Dht.ts"
import { KadDhtPolicy } from "../../services/KadDhtPolicy.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import * as Crowding from "./lookup/Crowding.ts"
import * as Doubts from "./lookup/Doubts.ts"
import { slowAfterMillis } from "./lookup/Lookup.ts"
import * as Queries from "./lookup/Queries.ts"
import * as SharedLookups from "./lookup/SharedLookups.ts"
import * as Announce from "./provide/Announce.ts"
import type { AnnounceOptions } from "./provide/Announcement.ts"
import * as ProvidedKeys from "./provide/ProvidedKeys.ts"
import * as ProviderRecords from "./serve/ProviderRecords.ts"
import * as Server from "./serve/Server.ts"
import * as ValueRecords from "./serve/ValueRecords.ts"
import * as ValueRepair from "./values/Repair.ts"
import * as Values from "./values/Values.ts"
import { decodePeer, encodeFrame, MessageType } from "./wire/Message.ts"
import { keyOf, type Node } from "./wire/Nodes.ts"
import { positionOf } from "./wire/Position.ts"
import { decodeRecord, encodeRecord } from "./wire/Record.ts"

/** A change among the peers that can be asked: the first has come, more have come, or none is connected any more. */
export type PeersChange = "first" | "more" | "none"

/** What this node knows of the DHT's peers. */
export interface EnginePeers
  extends
    Pick<Queries.QueriesOptions, "self" | "seeds" | "isAtHand" | "ready" | "hear" | "tellersAt">,
    Pick<Server.ServerOptions, "encodedOf" | "addressesOf" | "isNamed">
{
  /** The node for a peer id, known or not. */
  readonly nodeOf: (id: PeerId) => Node
  /** The peers that serve the DHT, connected or in the routing table. */
  readonly known: () => ReadonlyArray<Node>
  /** How many peers the routing table holds. */
  readonly tableSize: () => number
  /** Whether a peer that serves the DHT is connected. */
  readonly isConnected: () => boolean
  /** Whether there is a peer to ask, or may be in a moment: a connected peer whose protocols are not known yet. */
  readonly isThere: Effect.Effect<boolean>
  /** This node with its addresses of this moment, as the body of a Peer. */
  readonly ownBodyNow: () => Uint8Array
  /** Tells the listener of each change, and which peer has come, synchronously, while the scope lives. */
  readonly onChange: (
    listener: (change: PeersChange, peer?: { readonly key: string }) => void
  ) => Effect.Effect<void, never, Scope.Scope>
  /** What this node knows of the peer's addresses. `isCertain` for this node itself and for connected peers. */
  readonly whereIs: (id: PeerId) => Effect.Effect<ToldAddresses & { readonly isCertain: boolean }>
}

export interface EngineOptions {
  readonly peers: EnginePeers
  /** Asks one peer; see {@link Queries.QueriesOptions}. */
  readonly request: Queries.QueriesOptions["request"]
  /**
   * Whether a failed request means that the peer is silent: not when this node itself did not ask, nor when the peer
   * refused at once. `isSlow` when the request took longer than a lookup waits.
   */
  readonly isSilence: (error: unknown, isSlow: boolean) => boolean
  /** Writes a message that has no answer. */
  readonly send: AnnounceOptions<Node>["send"]
  /** The peers of the table closest to a position. */
  readonly closest: Server.ServerOptions["closest"]
  /** This node's addresses as they would be announced. */
  readonly addresses: () => ReadonlyArray<string>
  /** The readable ones of the addresses, as text. */
  readonly read: Queries.QueriesOptions["read"]
  /** The namespaces of which this node stores and asks for values. */
  readonly namespaces: ReadonlyArray<ValueRules>
  readonly signer: Signer
  /** Opened when this node's addresses may have changed; the engine opens it for reasons of its own, too. */
  readonly changed: Latch.Latch
}

export interface Engine {
  readonly dht: Dht["Service"]
  /** Asks other peers for a peer's addresses, whatever this node knows. */
  readonly askForPeer: (id: PeerId) => Effect.Effect<ToldAddresses, DhtError>
  /**
   * Looks up this node's own position, so that its neighbours in the keyspace and this node come to know each other.
   * Happens by itself when the first peer comes.
   */
  readonly introduce: Effect.Effect<void>
  /** Answers the questions of other peers. */
  readonly server: Server.Server
}

/**
 * An engine that runs while the scope lives. It takes up the provided keys that the `KeyValueStore` holds.
 */
export const make = Effect.fnUntraced(function*(
  options: EngineOptions
): Effect.fn.Return<Engine, never, NetworkConfig | KeyValueStore.KeyValueStore | Scope.Scope> {
  const { changed, isSilence, namespaces, peers, read, signer } = options
  const { self } = peers
  const { kadReplicationFactor: copies } = yield* NetworkConfig
  const policy = yield* KadDhtPolicy
  const run = yield* Supervised.makeRun("lookups of the DHT's own")
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  const now = () => Elapsed.millisUnsafe(clock)
  const timeOfDay = () => clock.currentTimeMillisUnsafe()

  // ----- asking

  const doubts = Doubts.make(now)
  const beyond: Crowding.CrowdWatch<Node> = Crowding.make({
    count: copies,
    chance: random.nextDoubleUnsafe,
    isAtHand: peers.isAtHand,
    known: () => peers.known().filter(({ key }) => !doubts.isDoubtful(key)),
    lookup: (bytes) =>
      queries.lookup(positionOf(bytes), { question: encodeFrame({ type: MessageType.FIND_NODE, key: bytes }) })
  })
  /** Asks a peer, and remembers whether it answers: also when a lookup has waited long enough and interrupts this. */
  const request: Queries.QueriesOptions["request"] = (node, question, before) =>
    Effect.suspend(() => {
      const askedAt = now()
      return Effect.onExit(options.request(node, question, before), (exit) =>
        Effect.sync(() => {
          if (Exit.isSuccess(exit)) return doubts.answered(node.key)
          const failed = Cause.findErrorOption(exit.cause)
          const isSlow = now() - askedAt >= slowAfterMillis
          if (failed._tag === "Some" ? isSilence(failed.value, isSlow) : isSlow) doubts.unanswered(node.key)
        }))
    })
  const queries = Queries.make({ ...peers, count: copies, request, doubts, beyond, read })

  const introduce = Effect.asVoid(
    Effect.suspend(() =>
      queries.lookup(self.position, { question: encodeFrame({ type: MessageType.FIND_NODE, key: self.bytes }) })
    )
  )

  // ----- providers

  const records = ProviderRecords.make()
  const providersHere = (key: ContentKeys.ContentKey): ReadonlyArray<ToldAddresses> =>
    records.get(ContentKeys.toBytes(key), now(), localBytes).flatMap((body) => {
      const peer = decodePeer(body)
      if (peer === undefined || keyOf(peer.id) === self.key) return []
      const id = idOf(peer.id)
      return [{ id, addresses: Queries.told(peers.nodeOf(id), peer.addresses, read) }]
    })

  const providers = yield* SharedLookups.make({
    lookup: queries.providers,
    cacheTime: policy.cacheTime,
    isCached: isLasting
  })

  const findProviders = (
    key: ContentKeys.ContentKey,
    options?: FindOptions
  ): Stream.Stream<ToldAddresses, DhtError> =>
    Stream.suspend(() => {
      const after = Duration.fromInputUnsafe(options?.findTimeout ?? policy.findTimeout)
      const here = providersHere(key)
      const late = here.length > 0
        ? Effect.void
        : Effect.fail(new DhtError({ operation: "findProviders", subject: key, reason: new QueryTimeout({ after }) }))
      const others = providers.find(key, { after, late: () => late })
      if (here.length === 0) return others
      const seen = new Set(here.map(({ id }) => id))
      // The network is asked only when the reader wants more.
      return Stream.concat(Stream.fromIterable(here), Stream.filter(others, ({ id }) => !seen.has(id)))
    }).pipe(Stream.take(options?.maxProviders ?? policy.maxProviders))

  // ----- peers

  const addressLookups = yield* SharedLookups.make({
    lookup: (id: PeerId, found: (some: ReadonlyArray<ToldAddresses>) => void) => queries.peer(peers.nodeOf(id), found),
    cacheTime: policy.cacheTime,
    isCached: isLasting
  })

  const askForPeer = Effect.fnUntraced(function*(id: PeerId) {
    const after = Duration.fromInputUnsafe(policy.findTimeout)
    const failing = (reason: DhtError["reason"]) => new DhtError({ operation: "findPeer", subject: id, reason })
    const found = yield* Stream.runHead(addressLookups.find(id)).pipe(
      Effect.timeoutOrElse({ duration: after, orElse: () => Effect.fail(failing(new QueryTimeout({ after }))) })
    )
    return found._tag === "Some" ? found.value : yield* failing(new NotFound({}))
  })

  const findPeer = Effect.fn("Dht.findPeer")(function*(id: PeerId) {
    const { addresses, isCertain } = yield* peers.whereIs(id)
    const known: ToldAddresses = { id, addresses }
    if (isCertain) return known
    // The peer may have moved since it was connected, so what others say goes first.
    const asked = askForPeer(id)
    return yield* addresses.length === 0 ? asked : Effect.catch(asked, () => Effect.succeed(known))
  })

  // ----- values

  const valueRecords = ValueRecords.make(namespaces.map(supervised(yield* Supervised.told)))
  const { repair } = yield* ValueRepair.make<Node>({
    put: (node, key, bytes) => {
      const record = encodeRecord({ key, value: bytes }, timeOfDay())
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
      const record = encodeRecord({ key, value: bytes }, timeOfDay())
      yield* valueRecords.put(key, record, now()).pipe(
        Effect.mapError((reason) => new DhtError({ operation: "putValue", subject: Queries.textOf(key), reason }))
      )
      yield* queries.putValue(key, record, {
        asked: ({ id }) => count.asked.add(id),
        answered: ({ id }, message) => {
          // A node that has stored the value sends it back.
          const stored = message.record === undefined ? undefined : decodeRecord(message.record)
          if (stored !== undefined && Bytes.Equivalence(stored.value, bytes)) count.acknowledged.add(id)
        }
        // At the time limit, what has been counted so far is the outcome.
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

  // New peers come in groups, so that all but the first wait 250 ms to be one change.
  const growth = yield* Queue.sliding<void>(1)
  yield* Supervised.forever(
    "new peers of the DHT",
    Queue.take(growth).pipe(Effect.andThen(Effect.sleep("250 millis")), Effect.andThen(changed.open))
  )
  yield* peers.onChange((change, peer) => {
    if (peer !== undefined) doubts.spoke(peer.key)
    if (change === "none") {
      changed.openUnsafe()
      return
    }
    // The new peer may know what nobody knew before.
    run(Effect.andThen(providers.forgetEmpty, addressLookups.forgetEmpty))
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
          closer: peers.hear(message.closer, node),
          tookBefore
        })),
      send: options.send,
      ...beyond,
      doubts,
      // Read anew for each batch: announced addresses last for hours.
      provider: peers.ownBodyNow
    }),
    takers: () => peers.known().map(({ id }) => id),
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
    isNamed: peers.isNamed,
    isProvided,
    providers: records,
    values: valueRecords
  })

  return {
    dht: Dht.of({
      ...providing,
      ...values,
      findProviders,
      findPeer,
      closestPeers: queries.closestPeers,
      refresh: queries.refresh,
      tableSize: Effect.sync(peers.tableSize)
    }),
    askForPeer,
    introduce,
    server: {
      answer: (message, from) => {
        doubts.spoke(from.key)
        return server.answer(message, from)
      }
    }
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** At most so many bytes of this node's own provider records are read for a key: about a thousand providers. */
const localBytes = 256 * 1024

/**
 * The rules of a namespace for values that others send. A program's rules may throw: such a value is refused, whoever
 * judges it, and the defect is told as one of this node.
 */
const supervised =
  (told: Effect.Success<typeof Supervised.told>) => ({ check, name, replaces }: ValueRules): ValueRules => {
    const safe = <A>(judge: () => Effect.Effect<A, RecordInvalid>): Effect.Effect<A, RecordInvalid> =>
      Effect.catchCause(Effect.suspend(judge), (cause) =>
        Supervised.isDefect(cause)
          ? Effect.andThen(
            told(Supervised.report("the rules of a namespace", cause)),
            Effect.fail(new RecordInvalid({ detail: `the rules of the namespace ${name} fail at it` }))
          )
          : Effect.failCause(cause))
    return {
      name,
      check: (path, bytes) => safe(() => check(path, bytes)),
      replaces: (path, bytes, other) => safe(() => replaces(path, bytes, other))
    }
  }

const isLasting = ({ reason }: DhtError): boolean => reason._tag !== "NoPeers"

const idOf = (bytes: Uint8Array): PeerId => base58btc.baseEncode(bytes) as PeerId
