/**
 * The questions that a node asks the DHT: for closest peers, providers, a peer's addresses, values. Each is a lookup,
 * over whatever carries the questions.
 */
import { Effect, Queue, Random, Stream } from "effect"
import { type ContentKey, toBytes } from "../../../schema/Content.ts"
import { DhtError, NoPeers } from "../../../schema/NetworkError.ts"
import type { Multiaddr, Told, ToldAddresses } from "../../../schema/Peer.ts"
import { encodeFrame, type Message, type MessagePeer, MessageType } from "../wire/Message.ts"
import { type Node, keyOf } from "../wire/Nodes.ts"
import { type Position, positionOf } from "../wire/Position.ts"
import type { CrowdWatch } from "./Crowding.ts"
import type { Doubts } from "./Doubts.ts"
import * as Lookup from "./Lookup.ts"

export interface QueriesOptions {
  readonly self: Node
  /** How many of the closest peers a lookup is for: k. */
  readonly count: number
  /**
   * The peers to ask first: the `count` peers of the routing table nearest to a position, and connected peers that
   * serve the DHT. In any order; fewer than `count` when fewer are known.
   */
  readonly seeds: (target: Position, count: number) => ReadonlyArray<Node>
  /** Whether a peer is connected, so that it can be asked without a dial. */
  readonly isAtHand: (peer: Node) => boolean
  /** Waits until there is a peer to ask, or fails with `NoPeers`. */
  readonly ready: (operation: DhtError["operation"], subject: string) => Effect.Effect<void, DhtError>
  /** Asks one peer. `before` goes out in the same write; the answer to the question acknowledges it, too. */
  readonly request: (
    peer: Node,
    question: Uint8Array,
    before?: Uint8Array
  ) => Effect.Effect<{ readonly message: Message; readonly tookBefore: boolean }, unknown>
  /** The nodes for the peers that an answer of `from` names. */
  readonly hear: (peers: ReadonlyArray<MessagePeer>, from: Node) => ReadonlyArray<Node>
  /** The remote addresses of a connected peer, as far as they matter to the address guard. */
  readonly tellersAt: (peer: Node) => ReadonlyArray<Multiaddr>
  /** Remembers which peers did not answer; told of each question of a lookup. */
  readonly doubts: Doubts
  /** Notices crowded keys and looks beyond them. */
  readonly beyond: Pick<CrowdWatch<Node>, "observe" | "peersBeyond">
  /** The readable ones of the addresses, as text. */
  readonly read: (addresses: ReadonlyArray<Uint8Array>) => ReadonlyArray<Multiaddr>
}

export interface LookupTask {
  /** What every peer is asked. */
  readonly question: Uint8Array
  /**
   * What is sent in front of the question, see `QueriesOptions.request`. `rank` is the number of nearer peers known.
   */
  readonly before?: (peer: Node, rank: number) => Uint8Array | undefined
  /** Reads an answer; true ends the lookup. */
  readonly visit?: (peer: Node, message: Message, tookBefore: boolean) => boolean | void
  /** How many disjoint paths; 1 by default. */
  readonly paths?: number | undefined
  /** How many questions are under way at once; 10 by default. */
  readonly parallel?: number | undefined
  /** How many questions are sent before answers are read; all by default. */
  readonly together?: number | undefined
}

/**
 * How many nodes are asked for providers before answers are read. Ten questions take 0.6 ms to write, and the first
 * answer may be there earlier: with 3 the first provider takes 0.9 of the time that it takes with 10 (measured among
 * 20 nodes).
 */
const providersTogether = 3

/** How many random positions a refresh looks up: half of them in the far half of the keyspace, which is one bucket. */
const randomLookups = 8

const randomKey = Effect.map(
  Effect.replicateEffect(Random.nextIntBetween(0, 255), 32),
  (bytes) => Uint8Array.from(bytes)
)

/** How long a peer beyond the closest may take to answer, and how many of them are asked at once. */
const beyondTimeout = "2 seconds"
const beyondParallel = 20

/** What a lookup for a value gives: a record or none from each peer that answers, then the closest peers. */
export type FoundValue =
  | { readonly from: Node; readonly record: Message["record"] }
  | { readonly closest: ReadonlyArray<Node> }

/**
 * How many disjoint paths a lookup for a value takes: a path that meets a liar is outvoted by the others, at little
 * cost.
 */
const valuePaths = 3

export const make = (options: QueriesOptions) => {
  const { beyond, count, doubts, hear, isAtHand, read, ready, request, seeds, self, tellersAt } = options

  const show = (node: Node): ToldAddresses => ({ id: node.id, addresses: told(node, node.addresses, read) })

  const lookup = (target: Position, task: LookupTask): Effect.Effect<Lookup.LookupResult<Node>> =>
    Lookup.lookup<Node>({
      target,
      seeds: seeds(target, count),
      count,
      isAtHand,
      self: self.key,
      doubts,
      ...task.paths === undefined ? {} : { paths: task.paths },
      ...task.parallel === undefined ? {} : { parallel: task.parallel },
      ...task.together === undefined ? {} : { together: task.together },
      ask: (peer, rank) =>
        Effect.map(request(peer, task.question, task.before?.(peer, rank)), ({ message, tookBefore }) => {
          // The answer is handed over first: reading which peers it names takes longer.
          const enough = task.visit?.(peer, message, tookBefore) === true
          return { closer: hear(message.closer, peer), enough }
        })
    })

  /** A lookup for a caller: fails with `NoPeers` when no peer has answered. */
  const ask = Effect.fnUntraced(function*(
    operation: DhtError["operation"],
    subject: string,
    bytes: Uint8Array,
    type: number,
    task: Omit<LookupTask, "question"> = {}
  ) {
    yield* ready(operation, subject)
    const target = positionOf(bytes)
    const result = yield* lookup(target, { ...task, question: encodeFrame({ type, key: bytes }) })
    if (result.answered === 0) return yield* new DhtError({ operation, subject, reason: new NoPeers({}) })
    return { ...result, target }
  })

  return {
    lookup,

    closestPeers: Effect.fn("Dht.closestPeers")(function*(key: ContentKey) {
      const { closest, target } = yield* ask("closestPeers", key, toBytes(key), MessageType.FIND_NODE)
      beyond.observe(target, closest)
      return closest.map(show)
    }),

    /**
     * Looks up this node's own position, then random ones: one in 2 lies in the other half of the keyspace, one in 4 in
     * the other quarter of this half, and so on.
     */
    refresh: Effect.gen(function*() {
      yield* ask("refresh", "", self.bytes, MessageType.FIND_NODE)
      const random = Effect.flatMap(randomKey, (key) => ask("refresh", "", key, MessageType.FIND_NODE))
      // Some peer has answered: a position whose peers do not answer is no failure.
      yield* Effect.replicateEffect(Effect.ignore(random), randomLookups, { concurrency: 4, discard: true })
    }),

    /** Hands over the providers that each answer names: each provider once, this node left out. */
    providers: Effect.fnUntraced(function*(
      key: ContentKey,
      found: (some: ReadonlyArray<ToldAddresses>) => void
    ): Effect.fn.Return<void, DhtError> {
      const bytes = toBytes(key)
      const seen = new Set([self.key])
      const visit = (from: Node, message: Message) =>
        found(hear(message.providers, from).filter(({ key }) => !seen.has(key) && Boolean(seen.add(key))).map(show))
      const { closest, target } = yield* ask("findProviders", key, bytes, MessageType.GET_PROVIDERS, {
        visit,
        together: providersTogether
      })
      beyond.observe(target, closest)
      const { peers: others } = yield* beyond.peersBeyond(target, closest)
      const question = encodeFrame({ type: MessageType.GET_PROVIDERS, key: bytes })
      yield* Effect.forEach(others, (peer) =>
        // A peer that does not answer is one peer fewer.
        Effect.ignore(Effect.timeout(
          Effect.map(request(peer, question), ({ message }) => visit(peer, message)),
          beyondTimeout
        )), {
        concurrency: beyondParallel,
        discard: true
      })
    }),

    /** Hands over the peer's addresses as soon as an answer names them. */
    peer: (peer: Node, found: (some: ReadonlyArray<ToldAddresses>) => void): Effect.Effect<void, DhtError> =>
      Effect.asVoid(ask("findPeer", peer.id, peer.bytes, MessageType.FIND_NODE, {
        visit: (from, message) => {
          for (const { addresses, id } of message.closer) {
            // The addresses of this answer: the peer may have moved since this node knew it.
            if (addresses.length === 0 || keyOf(id) !== peer.key) continue
            const tellers = tellersAt(from)
            found([{ id: peer.id, addresses: read(addresses).map((address) => ({ address, tellers })) }])
            return true
          }
          return false
        }
      })),

    /**
     * Puts a record on the peers closest to its key. Reports each peer that is asked and each answer.
     */
    putValue: Effect.fnUntraced(function*(
      key: Uint8Array,
      record: Uint8Array,
      count: {
        readonly asked: (peer: Node) => void
        readonly answered: (peer: Node, message: Message) => void
      }
    ) {
      const { closest } = yield* ask("putValue", textOf(key), key, MessageType.FIND_NODE, { paths: valuePaths })
      const put = encodeFrame({ type: MessageType.PUT_VALUE, key, record })
      yield* Effect.forEach(closest, (peer) => {
        count.asked(peer)
        return request(peer, put).pipe(
          Effect.map(({ message }) => count.answered(peer, message)),
          // A peer that does not take the record is one copy less.
          Effect.ignore
        )
      }, { concurrency: "unbounded", discard: true })
    }),

    /** One element for each peer that answers, with its record if it has one; then the closest peers. */
    values: (key: Uint8Array): Stream.Stream<FoundValue, DhtError> =>
      Stream.callback((queue) =>
        ask("getValue", textOf(key), key, MessageType.GET_VALUE, {
          paths: valuePaths,
          visit: (from, { record }) => void Queue.offerUnsafe(queue, { from, record })
        }).pipe(
          Effect.andThen(({ closest }) => Queue.offer(queue, { closest })),
          Effect.andThen(Queue.end(queue)),
          Effect.catch((error) => Queue.fail(queue, error))
        )
      )
  }
}

/** The readable ones of a node's addresses, with those who told them. */
export const told = (
  node: Node,
  addresses: ReadonlyArray<Uint8Array>,
  read: QueriesOptions["read"]
): ReadonlyArray<Told> => {
  const found = new Map<Multiaddr, ReadonlyArray<Multiaddr>>()
  for (const bytes of addresses) {
    const [address] = read([bytes])
    if (address !== undefined) found.set(address, [...found.get(address) ?? [], ...node.tellersOf(bytes)])
  }
  return Array.from(found, ([address, tellers]) => ({ address, tellers }))
}

/** The key of a value as text. */
export const textOf = (key: Uint8Array): string => new TextDecoder().decode(key)
