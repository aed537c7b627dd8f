/**
 * A Kademlia network in memory, of any size, each node with the buckets of a real node. Specs of announcing know the
 * true closest peers of every key.
 */
import { assert } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { createHash } from "node:crypto"
import { decodeMessage, encodePeer, FrameReader, MessageType } from "../../src/layers/dht/wire/Message.ts"
import { Node, keyOf } from "../../src/layers/dht/wire/Nodes.ts"
import { commonPrefixLength, compareDistance, type Position, positionOf } from "../../src/layers/dht/wire/Position.ts"
import * as Announce from "../../src/layers/dht/provide/Announce.ts"
import type { AnnouncedKey, Cost } from "../../src/layers/dht/provide/Batches.ts"
import * as ContentKey from "../../src/schema/Content.ts"

const count = 20

/** A provider record as a node receives it. */
export interface Stored {
  readonly ttlSeconds: number | undefined
}

export interface ProvideNetworkOptions {
  readonly seed?: string
  /**
   * How much of its buckets a node knows: 1 all, 0.5 each peer with that chance, the `count` nearest to itself always.
   */
  readonly knowledge?: number
  /**
   * How many peers fit into a bucket. kad-dht splits every bucket, so that in a network of 200 its table holds nearly
   * all of them.
   */
  readonly bucketSize?: number
  /** Milliseconds until an answer. */
  readonly latency?: number
  /** Further peers that are to have a record. */
  readonly peersBeyond?: (target: Position) => ReadonlyArray<Node>
  /** Runs before a question is answered; may fail it. */
  readonly onRequest?: (peer: Node, before: ReadonlyArray<string>) => "answer" | "refuse" | "fail"
}

export const make = (size: number, options: ProvideNetworkOptions = {}) => {
  const { bucketSize = Infinity, knowledge = 1, latency = 0, onRequest = () => "answer", seed = "network" } = options
  const random = (text: string) => createHash("sha256").update(`${seed} ${text}`).digest()
  const nodes = Array.from({ length: size }, (_, index) => {
    const bytes = Buffer.concat([Uint8Array.of(0x12, 0x20), random(`node ${index}`)])
    return new Node(bytes, keyOf(bytes))
  })
  const self = nodes[0]!
  const dead = new Set<Node>()
  const records = new Map<Node, Map<string, Stored>>(nodes.map((node) => [node, new Map()]))
  let messages = 0
  let sends = 0
  /** Records in flight. */
  let writes = 0
  let mostWrites = 0

  const tables = new Map(nodes.map((node) => {
    const buckets = new Map<number, Array<Node>>()
    const others = nodes.filter((other) => other !== node)
    const nearest = new Set(closestOf(others, node.position))
    // In a random order, so that full buckets differ.
    const shuffled = others
      .map((other) => ({ other, chance: ((node.position.h0 ^ other.position.h1) >>> 0) / 2 ** 32 }))
      .sort((a, b) => a.chance - b.chance)
    for (const { chance, other } of shuffled) {
      const index = commonPrefixLength(node.position, other.position)
      const bucket = buckets.get(index) ?? []
      buckets.set(index, bucket)
      if (nearest.has(other) || (chance < knowledge && bucket.length < bucketSize)) bucket.push(other)
    }
    return [node, [...buckets.values()].flat()] as const
  }))

  const take = (peer: Node, frames: Uint8Array) => {
    const reader = new FrameReader()
    reader.push(frames, (body) => {
      const { key, ttlSeconds, type } = decodeMessage(body)
      if (type === MessageType.ADD_PROVIDER) records.get(peer)!.set(keyOf(key!), { ttlSeconds })
    })
  }
  const keysIn = (frames: Uint8Array | undefined) => {
    const keys: Array<string> = []
    if (frames !== undefined) new FrameReader().push(frames, (body) => keys.push(keyOf(decodeMessage(body).key!)))
    return keys
  }

  const announceKeys = Announce.make<Node>({
    self,
    count,
    seeds: (target, count) => closestOf(tables.get(self)!, target, count),
    peersBeyond: (target) =>
      Effect.sync(() => ({ peers: options.peersBeyond?.(target) ?? [], isCrowded: options.peersBeyond !== undefined })),
    request: Effect.fnUntraced(function*(peer, question, before) {
      messages++
      if (before !== undefined) mostWrites = Math.max(mostWrites, ++writes)
      yield* latency > 0 ? Effect.sleep(latency) : Effect.yieldNow
      if (before !== undefined) writes--
      const outcome = dead.has(peer) ? "fail" : onRequest(peer, keysIn(before))
      if (outcome === "fail") return yield* Effect.fail("no answer" as const)
      if (outcome === "answer" && before !== undefined) take(peer, before)
      const keys = keysIn(question)
      const target = positionOf(Buffer.from(keys[0]!, "latin1"))
      return { closer: closestOf(tables.get(peer)!, target), tookBefore: outcome === "answer" }
    }),
    send: Effect.fnUntraced(function*(peer, frame) {
      sends++
      if (dead.has(peer)) return yield* Effect.fail("no connection" as const)
      take(peer, frame)
    }),
    provider: () => encodePeer(self.bytes, self.addresses)
  })

  return {
    self,
    nodes,
    dead,
    records,
    messages: () => messages,
    sends: () => sends,
    /** To how many peers records were in flight at most. */
    mostWrites: () => mostWrites,
    /** The peers that should have the record of a key: the closest live ones. */
    closest: (key: ContentKey.ContentKey) =>
      closestOf(nodes.filter((node) => node !== self && !dead.has(node)), positionOf(ContentKey.toBytes(key))),
    has: (node: Node, key: ContentKey.ContentKey) => records.get(node)!.has(keyOf(ContentKey.toBytes(key))),
    /** Announces the keys, and gives the progress that was reported. */
    announce: Effect.fnUntraced(function*(
      keys: ReadonlyArray<ContentKey.ContentKey>,
      given: Partial<AnnouncedKey> & { readonly isWanted?: (key: ContentKey.ContentKey) => boolean } = {}
    ) {
      const told = new Map<ContentKey.ContentKey, number>()
      let writtenAt: number | undefined
      const clock = yield* Clock.Clock
      const before = messages
      const cost: Cost = yield* announceKeys({
        keys: keys
          .map((key) => ({ key, h0: positionOf(ContentKey.toBytes(key)).h0 }))
          .sort((a, b) => a.h0 - b.h0)
          .map(({ key }) => ({ ttlSeconds: undefined, isOptimistic: false, ...given, key })),
        isWanted: given.isWanted ?? (() => true),
        written: () => {
          writtenAt ??= clock.currentTimeMillisUnsafe()
        },
        announced: (key, copies) => {
          if (told.has(key)) throw new Error(`${key} was told twice`)
          told.set(key, copies)
        }
      })
      return { told, cost, messages: messages - before, writtenAt }
    })
  }
}

export type ProvideNetwork = ReturnType<typeof make>

/** Asserts that every closest live peer has the record, and that as many copies were reported. */
export const assertPlaced = (
  network: ProvideNetwork,
  keys: ReadonlyArray<ContentKey.ContentKey>,
  told: ReadonlyMap<string, number>,
  what = ""
) => {
  for (const key of keys) {
    const closest = network.closest(key)
    assert.deepStrictEqual(closest.filter((peer) => !network.has(peer, key)), [], `${what} ${key}`)
    assert.strictEqual(told.get(key), closest.length, `${what} ${key}`)
  }
}

/** Runs an effect, and lets as much time pass as it takes. */
export const inTime = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect)
    while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust("100 millis")
    return yield* Fiber.join(fiber)
  })

/** Announces keys where a fifth of the peers in the tables is dead, and asserts that the live ones have the records. */
export const assertPlacedAmongDead = Effect.fnUntraced(function*(size: number, length: number) {
  const network = make(size)
  network.nodes.forEach((node, index) => index % 5 === 3 && network.dead.add(node))
  const keys = keysOf(length)
  const { told } = yield* inTime(network.announce(keys))
  assertPlaced(network, keys, told, `${size} nodes, ${length} keys:`)
})

export const keysOf = (length: number, name = "key") =>
  Array.from({ length }, (_, index) => ContentKey.fromText(`${name} ${index}`))

const closestOf = (nodes: ReadonlyArray<Node>, target: Position, most = count): ReadonlyArray<Node> =>
  nodes.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(0, most)
