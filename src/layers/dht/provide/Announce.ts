/**
 * Announcing keys in Kademlia: a record of each on the peers closest to it, each copy acknowledged.
 *
 * **One key** is announced while its peers are looked up: whoever is likely to be among the closest gets the record in front of the question,
 * in the same write, and its answer is the acknowledgement. That takes as many messages as the lookup alone.
 *
 * **Many keys** share their lookups. A lookup finds all peers within a distance, so it makes a part of the keyspace known: the subtree of
 * those with the same prefix as its target, down to the first bit in which the farthest peer that it found differs. Lookups go on until the
 * subtree around a key is known and has as many peers as there should be copies. The closest peers of all keys of that subtree are then
 * computed here, and each peer gets its records in a few writes. Whether it pays is estimated from the density of the peers around this node.
 *
 * The answers to the writes tell of peers that nobody had heard of, and some writes fail: for the keys concerned it goes another round.
 */
import { Clock, Effect } from "effect"
import { toBytes } from "../../../schema/Content.ts"
import * as KadLookup from "../lookup/Lookup.ts"
import { encodeFrame, MessageType } from "../wire/Message.ts"
import { commonPrefixLength, compareDistance, type Position, positionOf } from "../wire/Position.ts"
import { inOrder, KnownPrefixes, nearest, prefixOf, siblingOf } from "./Subtrees.ts"
import type { AnnouncedKey, ProvideBatch, ProvideCost } from "./ProvidedKeys.ts"

/** What announcing has to know of a peer. */
export interface ProvidePeer extends KadLookup.LookupPeer {
  /** The multihash that is its id, of which `position` is the place. */
  readonly bytes: Uint8Array
}

/** What a peer says to a question. */
export interface ProvideAnswer<P> {
  readonly closer: ReadonlyArray<P>
  /** Whether it has read what was sent before the question. */
  readonly tookBefore: boolean
}

export interface KadProvideOptions<P extends ProvidePeer> {
  readonly self: ProvidePeer
  /** How many peers shall have a copy: k. */
  readonly count: number
  /** The peers of the routing table that are nearest to a place, in any order: so many if it has as many, or more. */
  readonly seeds: (target: Position, count: number) => ReadonlyArray<P>
  /** Asks a peer. `before` goes out in the same write. */
  readonly request: (peer: P, question: Uint8Array, before?: Uint8Array) => Effect.Effect<ProvideAnswer<P>, unknown>
  /** Writes to a peer what has no answer. */
  readonly send: (peer: P, frame: Uint8Array) => Effect.Effect<void, unknown>
  /** Learns from a lookup. */
  readonly observe?: (target: Position, closest: ReadonlyArray<P>) => void
  /** Who shall have a copy besides, where the closest are not to be trusted. */
  readonly peersBeyond?: (target: Position, closest: ReadonlyArray<P>) => Effect.Effect<ReadonlyArray<P>>
  /** This node with its addresses, as the body of a Peer. */
  readonly provider: () => Uint8Array
}

/** A write to a peer has no more bytes of records than this, the least that every implementation reads of a message. */
export const writeBytesMax = 16 * 1024

/** As many writes are under way at once, and as many lookups of single keys. */
export const parallelMax = 8

/**
 * `announce` for `ProvidedKeys`.
 */
export const make =
  <P extends ProvidePeer>(options: KadProvideOptions<P>) => (batch: ProvideBatch): Effect.Effect<ProvideCost> =>
    Effect.suspend(() => {
      const run = new Run(options, batch)
      return Effect.as(run.isWorthSweeping() ? sweep(run) : each(run, run.keys), run.cost)
    })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Lookups by region must save more than this part of the messages, since they tell nobody of the keys meanwhile. */
const savingMin = 0.2

/** A lookup makes as much of k peers known on average: the subtree ends at the bit above the farthest. */
const peersPerLookup = 0.6

/**
 * How far beyond what the density says a peer may be one of the closest. The distance of the k-th peer and the density that is taken from k
 * neighbours vary by 1 / sqrt k each, of which this is three deviations; more would give away records in vain.
 */
const reachSlack = 2

/** How near the closest peers of the table are if it most likely has all of the network's. */
const nearSlack = 1.5

/** A node with fewer peers in its table does not know whom it should be optimistic about. */
const optimisticPeersMin = 10

/** So many lookups for the subtree of one key are too many: it is then announced by itself. */
const lookupsMax = 64

/** The closest peers of so many keys are computed at a time, about a millisecond. */
const keysPerTurn = 128

/** Writes that failed, and peers that were heard of meanwhile, are made good for so often. */
const roundsMax = 3

interface PlacedKey extends AnnouncedKey {
  readonly bytes: Uint8Array
  readonly position: Position
  /** The message that announces it. */
  readonly record: Uint8Array
}

/** What one batch knows. */
class Run<P extends ProvidePeer> {
  readonly options: KadProvideOptions<P>
  readonly batch: ProvideBatch
  readonly keys: ReadonlyArray<PlacedKey>
  readonly cost = { lookups: 0, messages: 0 }
  /** Peers that have answered, or were heard of and not found dead. */
  readonly peers = new Map<string, P>()
  readonly dead = new Set<string>()
  readonly known = new KnownPrefixes()
  /** How many peers the network has, by their density around this node. */
  private readonly size: number

  constructor(options: KadProvideOptions<P>, batch: ProvideBatch) {
    this.options = options
    this.batch = batch
    const providers = [options.provider()]
    this.keys = batch.keys.map((key) => {
      const bytes = toBytes(key.key)
      const { ttlSeconds } = key
      const record = encodeFrame({ type: MessageType.ADD_PROVIDER, key: bytes, providers, ttlSeconds })
      return { ...key, bytes, position: positionOf(bytes), record }
    })
    const near = nearest(
      inOrder(options.seeds(options.self.position, options.count)),
      options.self.position,
      options.count
    )
    this.size = near.length < options.count
      ? near.length
      : Math.max(near.length, near.length / farthest(near, options.self.position))
  }

  /** Whether lookups by region take fewer messages than one for each key. */
  isWorthSweeping(): boolean {
    const { count } = this.options
    const asked = Math.min(this.size, count)
    const span = (this.keys.at(-1)!.position.h0 - this.keys[0]!.position.h0) / 2 ** 32
    const lookups = this.size < count ? 1 : 2 + this.size * span / (count * peersPerLookup)
    const bytes = this.keys.reduce((sum, { record }) => sum + record.length, 0) * asked
    const writes = Math.max(Math.min(this.size, count + this.size * span), bytes / writeBytesMax)
    return lookups * asked + writes < (1 - savingMin) * this.keys.length * asked
  }

  /** How far from a target the last of its closest peers is likely to be. */
  get reach(): number {
    return this.options.count / Math.max(1, this.size)
  }

  request(peer: P, about: Uint8Array, before?: Uint8Array): Effect.Effect<ProvideAnswer<P>, unknown> {
    this.cost.messages++
    return this.options.request(peer, encodeFrame({ type: MessageType.FIND_NODE, key: about }), before)
  }

  hear(peers: ReadonlyArray<P>): void {
    for (const peer of peers) {
      if (peer.key !== this.options.self.key && !this.dead.has(peer.key)) this.peers.set(peer.key, peer)
    }
  }

  bury(peer: P): void {
    this.dead.add(peer.key)
    this.peers.delete(peer.key)
  }
}

const distance = (a: Position, b: Position): number => ((a.h0 ^ b.h0) >>> 0) / 2 ** 32 + ((a.h1 ^ b.h1) >>> 0) / 2 ** 64

const farthest = (peers: ReadonlyArray<ProvidePeer>, target: Position): number =>
  peers.reduce((most, { position }) => Math.max(most, distance(position, target)), 2 ** -53)

// ----- one by one

const each = <P extends ProvidePeer>(run: Run<P>, keys: ReadonlyArray<PlacedKey>): Effect.Effect<void> =>
  Effect.forEach(keys, (key) => announceOne(run, key), { concurrency: parallelMax, discard: true })

const announceOne = Effect.fnUntraced(function*<P extends ProvidePeer>(run: Run<P>, key: PlacedKey) {
  const { batch, options: { count, observe, peersBeyond, self, send, seeds } } = run
  const isWanted = () => batch.isWanted(key.key)
  if (!isWanted()) return
  const { position, record } = key
  const known = seeds(position, 2 * count).toSorted((a, b) => compareDistance(a.position, b.position, position))
  const first = known.slice(0, count)

  const hurry = Effect.gen(function*() {
    let written = 0
    yield* Effect.forEach(first, (peer) =>
      Effect.suspend(() => {
        run.cost.messages++
        return send(peer, record)
      }).pipe(
        Effect.tap(() =>
          Effect.sync(() => {
            if (++written >= Math.min(count, optimisticPeersMin)) batch.written(key.key)
          })
        ),
        // The lookup finds out who does not answer.
        Effect.ignore
      ), { concurrency: count, discard: true })
  })
  const isHurried = key.isOptimistic && first.length >= Math.min(count, optimisticPeersMin)

  const given = new Map<string, boolean>()
  const give = (peer: P) =>
    Effect.tap(
      run.request(peer, key.bytes, record),
      ({ tookBefore }) => Effect.sync(() => given.set(peer.key, tookBefore))
    )
  const lookup = Effect.suspend(() => {
    run.cost.lookups++
    // Peers that are as near as the closest are likely to be: all at once, since nearer ones will hardly turn up.
    const isNear = first.length >= count && farthest(first, position) <= nearSlack * run.reach
    return KadLookup.lookup<P>({
      target: position,
      // More than the closest, since everybody names the same ones, and some of those may be dead.
      seeds: known,
      count,
      self: self.key,
      parallel: isNear || first.length < count ? Math.max(10, count) : 10,
      ask: (peer, rank) =>
        rank < count && isWanted() && distance(peer.position, position) <= reachSlack * run.reach
          ? give(peer)
          : run.request(peer, key.bytes)
    })
  })
  const [, { answered, closest }] = yield* Effect.all([isHurried ? hurry : Effect.void, lookup], {
    concurrency: 2
  })
  if (answered === 0 || !isWanted()) return
  observe?.(position, closest)
  const beyond = peersBeyond === undefined ? [] : yield* peersBeyond(position, closest)
  yield* Effect.forEach([...closest, ...beyond].filter((peer) => !given.has(peer.key)), (peer) =>
    // One that does not take it is one copy less.
    Effect.suspend(() => isWanted() ? Effect.ignore(give(peer)) : Effect.void), { concurrency: count, discard: true })
  batch.announced(key.key, [...closest, ...beyond].filter((peer) => given.get(peer.key) === true).length)
})

// ----- by region

const sweep = Effect.fnUntraced(function*<P extends ProvidePeer>(run: Run<P>) {
  const waiting = [...run.keys]
  while (waiting.length > 0) {
    const [first] = waiting as [PlacedKey]
    if (!run.batch.isWanted(first.key)) {
      waiting.shift()
      continue
    }
    const depth = yield* learn(run, first)
    // Nobody answers: they stay untold, and are tried again.
    if (depth === "nobody") return
    if (depth === "unknown") {
      yield* announceOne(run, first)
      waiting.shift()
      continue
    }
    const end = waiting.findIndex(({ position }) => prefixOf(position.h0, depth) !== prefixOf(first.position.h0, depth))
    yield* announceRegion(run, waiting.splice(0, end === -1 ? waiting.length : end))
  }
})

/** Looks around a key until a subtree is known that has the closest peers of each of its keys; gives how many bits it shares. */
const learn = Effect.fnUntraced(function*<P extends ProvidePeer>(run: Run<P>, { bytes, position }: PlacedKey) {
  const { known, options: { count } } = run
  for (let lookups = 0; lookups < lookupsMax; lookups++) {
    const depth = known.depthOf(position.h0)
    if (depth === 0) return 0
    if (depth === undefined) {
      if (!(yield* explore(run, bytes, position))) return "nobody"
      continue
    }
    let peers = 0
    for (const peer of run.peers.values()) {
      if (prefixOf(peer.position.h0, depth) === prefixOf(position.h0, depth)) peers++
    }
    if (peers >= count) return depth
    // The other half of the subtree above, as far as it is not known.
    const unknown = known.gapIn(depth, siblingOf(prefixOf(position.h0, depth)))
    const target = unknown === undefined ? undefined : targetIn(run, unknown.depth, unknown.prefix)
    if (target === undefined) return "unknown"
    if (!(yield* explore(run, target, positionOf(target)))) return "nobody"
  }
  return "unknown"
})

/** A key or a peer with the prefix: only of those it is known which bytes lead there. */
const targetIn = <P extends ProvidePeer>(run: Run<P>, depth: number, prefix: number): Uint8Array | undefined => {
  for (const key of run.keys) if (prefixOf(key.position.h0, depth) === prefix) return key.bytes
  for (const peer of run.peers.values()) if (prefixOf(peer.position.h0, depth) === prefix) return peer.bytes
  for (let attempt = 0; attempt < Math.min(2 ** (depth + 3), 2 ** 14); attempt++) {
    const bytes = Buffer.from(`codio ${depth} ${prefix} ${attempt}`)
    if (prefixOf(positionOf(bytes).h0, depth) === prefix) return bytes
  }
  return undefined
}

/** One lookup. False when nobody has answered. */
const explore = Effect.fnUntraced(function*<P extends ProvidePeer>(run: Run<P>, bytes: Uint8Array, target: Position) {
  const { count, seeds, self } = run.options
  run.cost.lookups++
  const near = nearest(inOrder(run.peers.values()), target, 2 * count)
  const { answered, closest } = yield* KadLookup.lookup<P>({
    target,
    seeds: [...seeds(target, 2 * count).filter((peer) => !run.dead.has(peer.key) && !run.peers.has(peer.key)), ...near],
    count,
    self: self.key,
    ask: (peer) =>
      run.request(peer, bytes).pipe(
        Effect.tapError(() => Effect.sync(() => run.bury(peer)))
      )
  })
  if (answered === 0) return false
  run.options.observe?.(target, closest)
  run.hear(closest)
  // Fewer than were wanted are all that there are.
  run.known.add(
    target.h0,
    closest.length < count ? 0 : Math.min(32, commonPrefixLength(closest.at(-1)!.position, target) + 1)
  )
  return true
})

const announceRegion = Effect.fnUntraced(
  function*<P extends ProvidePeer>(run: Run<P>, keys: ReadonlyArray<PlacedKey>) {
    const { batch, options: { count, peersBeyond } } = run
    const given = new Map<PlacedKey, Map<string, boolean>>(keys.map((key) => [key, new Map()]))
    for (let round = 0; round < roundsMax; round++) {
      const peers = inOrder(run.peers.values())
      const plan = new Map<P, Array<PlacedKey>>()
      for (const [index, key] of keys.entries()) {
        if (index % keysPerTurn === 0) yield* Effect.yieldNow
        if (!batch.isWanted(key.key)) continue
        for (const peer of nearest(peers, key.position, count)) {
          if (given.get(key)!.has(peer.key)) continue
          const share = plan.get(peer)
          if (share === undefined) plan.set(peer, [key])
          else share.push(key)
        }
      }
      if (plan.size === 0) break
      yield* Effect.forEach(plan, ([peer, share]) => writeAll(run, peer, share, given), {
        concurrency: parallelMax,
        discard: true
      })
      // Some may have turned out to be dead, and the subtree to be too small.
      yield* learn(run, keys[0]!)
    }
    const peers = inOrder(run.peers.values())
    for (const [index, key] of keys.entries()) {
      if (index % keysPerTurn === 0) yield* Effect.yieldNow
      if (!batch.isWanted(key.key)) continue
      const took = given.get(key)!
      const closest = nearest(peers, key.position, count)
      const beyond = peersBeyond === undefined ? [] : yield* peersBeyond(key.position, closest)
      yield* Effect.forEach(beyond.filter((peer) => !took.has(peer.key)), (peer) => writeAll(run, peer, [key], given), {
        concurrency: count,
        discard: true
      })
      batch.announced(key.key, [...closest, ...beyond].filter((peer) => took.get(peer.key) === true).length)
    }
  }
)

/** A peer's records, one write after the other. Each write rests as long as it took, which leaves the peer and this node to others. */
const writeAll = Effect.fnUntraced(function*<P extends ProvidePeer>(
  run: Run<P>,
  peer: P,
  share: ReadonlyArray<PlacedKey>,
  given: ReadonlyMap<PlacedKey, Map<string, boolean>>
) {
  const waiting = [...share]
  let limit = Infinity
  while (waiting.length > 0 && !run.dead.has(peer.key)) {
    const frames: Array<Uint8Array> = []
    const keys: Array<PlacedKey> = []
    let length = 0
    while (waiting.length > 0 && keys.length < limit) {
      const key = waiting[0]!
      if (run.batch.isWanted(key.key)) {
        if (length > 0 && length + key.record.length > writeBytesMax) break
        length += key.record.length
        frames.push(key.record)
        keys.push(key)
      }
      waiting.shift()
    }
    if (keys.length === 0) return
    const startedAt = yield* Clock.currentTimeMillis
    const answer = yield* run.request(peer, keys[0]!.bytes, Buffer.concat(frames)).pipe(
      Effect.catch(() => Effect.sync(() => run.bury(peer)))
    )
    if (answer === undefined) return
    run.hear(answer.closer)
    if (!answer.tookBefore && keys.length > 1) {
      // It refuses one of them, and has not read those behind it.
      limit = Math.ceil(keys.length / 2)
      waiting.unshift(...keys)
    } else {
      for (const key of keys) given.get(key)!.set(peer.key, answer.tookBefore)
      limit = limit === 1 ? Infinity : limit
    }
    const took = (yield* Clock.currentTimeMillis) - startedAt
    if (waiting.length > 0 && took > 0) yield* Effect.sleep(took)
  }
})
