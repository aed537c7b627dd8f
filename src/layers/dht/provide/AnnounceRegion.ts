/**
 * Announces many keys region by region, so that keys near each other share their lookups.
 *
 * A lookup finds all peers within a distance of its target, so it makes a subtree of the keyspace known: the
 * positions that share the target's prefix, down to the first bit in which the farthest peer found differs. Lookups
 * go on until the subtree around a key is known and has at least as many peers as there should be copies. The closest
 * peers of all keys in that subtree are then computed here, and each peer gets its records in a few writes.
 *
 * Answers to the writes name peers not heard of before, and some writes fail: the keys concerned go another round.
 */
import { Effect } from "effect"
import type { PeersBeyond } from "../lookup/Crowding.ts"
import * as Lookup from "../lookup/Lookup.ts"
import { commonPrefixLength, type Position, positionOf } from "../wire/Position.ts"
import * as Elapsed from "../../Elapsed.ts"
import { type Announcement, type AnnouncePeer, parallelMax, type PositionedKey, writeBytesMax } from "./Announcement.ts"
import { announceOne } from "./AnnounceOne.ts"
import { inOrder, nearest, prefixOf, siblingOf } from "./Subtrees.ts"

/** Announces all keys of the batch. Ends early when no peer answers; the batch then tries again what is left. */
export const sweep = Effect.fnUntraced(function*<P extends AnnouncePeer>(run: Announcement<P>) {
  const waiting = [...run.keys]
  while (waiting.length > 0) {
    const [first] = waiting as [PositionedKey]
    if (!run.batch.isWanted(first.key)) {
      waiting.shift()
      continue
    }
    const depth = yield* learn(run, first)
    // The rest of the keys are reported as not announced.
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

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** After so many lookups around one key, the key is announced by itself. */
const lookupsMax = 64

/** The closest peers of so many keys are computed before other fibers run: about a millisecond. */
const keysPerTurn = 128

/** How many rounds make up for failed writes and for peers heard of meanwhile. */
const roundsMax = 3

/**
 * Looks around a key until a subtree is known that holds the closest peers of each of its keys. Gives how many leading
 * bits the subtree shares; "nobody" when no peer answers, "unknown" when the subtree takes too many lookups.
 */
const learn = Effect.fnUntraced(
  function*<P extends AnnouncePeer>(run: Announcement<P>, { bytes, position }: PositionedKey) {
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
      // Too few peers: the parent subtree is next, so look up what is unknown of its other half.
      const unknown = known.gapIn(depth, siblingOf(prefixOf(position.h0, depth)))
      const target = unknown === undefined ? undefined : targetIn(run, unknown.depth, unknown.prefix)
      if (target === undefined) return "unknown"
      if (!(yield* explore(run, target, positionOf(target)))) return "nobody"
    }
    return "unknown"
  }
)

/**
 * Bytes whose position has the prefix, for FIND_NODE, which carries a key: those of a key or peer, or found by
 * trying.
 */
const targetIn = <P extends AnnouncePeer>(
  run: Announcement<P>,
  depth: number,
  prefix: number
): Uint8Array | undefined => {
  for (const key of run.keys) if (prefixOf(key.position.h0, depth) === prefix) return key.bytes
  for (const peer of run.peers.values()) if (prefixOf(peer.position.h0, depth) === prefix) return peer.bytes
  for (let attempt = 0; attempt < Math.min(2 ** (depth + 3), 2 ** 14); attempt++) {
    const bytes = Buffer.from(`codio ${depth} ${prefix} ${attempt}`)
    if (prefixOf(positionOf(bytes).h0, depth) === prefix) return bytes
  }
  return undefined
}

/** One lookup. False when no peer has answered. */
const explore = Effect.fnUntraced(
  function*<P extends AnnouncePeer>(run: Announcement<P>, bytes: Uint8Array, target: Position) {
    const { count, doubts, seeds, self } = run.options
    run.cost.lookups++
    const near = nearest(inOrder(run.peers.values()), target, 2 * count)
    const { answered, closest } = yield* Lookup.lookup<P>({
      target,
      seeds: [
        ...seeds(target, 2 * count).filter((peer) => !run.dead.has(peer.key) && !run.peers.has(peer.key)),
        ...near
      ],
      count,
      self: self.key,
      doubts,
      ask: (peer) =>
        run.request(peer, bytes).pipe(
          Effect.tapError(() => Effect.sync(() => run.bury(peer)))
        )
    })
    if (answered === 0) return false
    run.options.observe?.(target, closest)
    run.hear(closest)
    // Fewer peers than asked for are all there are, so the whole keyspace is known.
    run.known.add(
      target.h0,
      closest.length < count ? 0 : Math.min(32, commonPrefixLength(closest.at(-1)!.position, target) + 1)
    )
    return true
  }
)

const announceRegion = Effect.fnUntraced(
  function*<P extends AnnouncePeer>(run: Announcement<P>, keys: ReadonlyArray<PositionedKey>) {
    const { batch, options: { count } } = run
    /** For each key the peers that were sent its record, and whether each took it. */
    const given: Given = new Map(keys.map((key) => [key, new Map()]))
    for (let round = 0; round < roundsMax; round++) {
      const peers = inOrder(run.peers.values())
      const plan = new Map<P, Array<PositionedKey>>()
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
      yield* writePlan(run, plan, given)
      // Peers may have turned out dead, which leaves the subtree with too few.
      yield* learn(run, keys[0]!)
    }
    const peers = inOrder(run.peers.values())
    const holders = new Map<PositionedKey, PeersBeyond<P>>()
    const plan = new Map<P, Array<PositionedKey>>()
    for (const [index, key] of keys.entries()) {
      if (index % keysPerTurn === 0) yield* Effect.yieldNow
      if (!batch.isWanted(key.key)) continue
      const closest = nearest(peers, key.position, count)
      const { isCrowded, peers: beyond } = yield* run.beyond(key.position, closest)
      holders.set(key, { peers: [...closest, ...beyond], isCrowded })
      for (const peer of beyond) {
        if (given.get(key)!.has(peer.key) || run.dead.has(peer.key)) continue
        const share = plan.get(peer)
        if (share === undefined) plan.set(peer, [key])
        else share.push(key)
      }
    }
    yield* writePlan(run, plan, given)
    for (const [key, { isCrowded, peers }] of holders) {
      const took = given.get(key)!
      batch.announced(key.key, peers.filter((peer) => took.get(peer.key) === true).length, isCrowded)
    }
  }
)

type Given = ReadonlyMap<PositionedKey, Map<string, boolean>>

const writePlan = <P extends AnnouncePeer>(
  run: Announcement<P>,
  plan: ReadonlyMap<P, ReadonlyArray<PositionedKey>>,
  given: Given
): Effect.Effect<void> =>
  Effect.forEach(plan, ([peer, share]) => writeAll(run, peer, share, given), {
    concurrency: parallelMax,
    discard: true
  })

/**
 * Writes a peer its records, one write after the other. After each write comes a pause as long as the write took, so
 * that the peer and this node spend at most half of their time on it.
 */
const writeAll = Effect.fnUntraced(function*<P extends AnnouncePeer>(
  run: Announcement<P>,
  peer: P,
  share: ReadonlyArray<PositionedKey>,
  given: Given
) {
  const waiting = [...share]
  let limit = Infinity
  while (waiting.length > 0 && !run.dead.has(peer.key)) {
    const frames: Array<Uint8Array> = []
    const keys: Array<PositionedKey> = []
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
    const startedAt = yield* Elapsed.millis
    const answer = yield* run.request(peer, keys[0]!.bytes, Buffer.concat(frames)).pipe(
      Effect.catch(() => Effect.sync(() => run.bury(peer)))
    )
    if (answer === undefined) return
    run.hear(answer.closer)
    if (!answer.tookBefore && keys.length > 1) {
      // The peer refuses one of the records and has not read those behind it. Smaller writes find out which.
      limit = Math.ceil(keys.length / 2)
      waiting.unshift(...keys)
    } else {
      for (const key of keys) given.get(key)!.set(peer.key, answer.tookBefore)
      limit = limit === 1 ? Infinity : limit
    }
    const took = (yield* Elapsed.millis) - startedAt
    if (waiting.length > 0 && took > 0) yield* Effect.sleep(took)
  }
})
