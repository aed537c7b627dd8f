/**
 * Announces keys one by one: each record goes out with the questions of the lookup that finds the key's closest peers.
 *
 * A peer that is likely to be among the closest gets the record in front of the question, in the same write, and its
 * answer is the acknowledgement. That takes as many messages as the lookup alone.
 */
import { Effect } from "effect"
import * as Lookup from "../lookup/Lookup.ts"
import { compareDistance, distanceOf } from "../wire/Position.ts"
import { type Announcement, type AnnouncePeer, farthest, parallelMax, type PositionedKey } from "./Announcement.ts"

/** Announces each key of the batch. */
export const announceAll = <P extends AnnouncePeer>(run: Announcement<P>): Effect.Effect<void> =>
  Effect.forEach(run.keys, (key) => announceOne(run, key), { concurrency: parallelMax, discard: true })

export const announceOne = Effect.fnUntraced(function*<P extends AnnouncePeer>(
  run: Announcement<P>,
  key: PositionedKey
) {
  const { batch, options: { count, doubts, observe, self, send, seeds } } = run
  const isWanted = () => batch.isWanted(key.key)
  if (!isWanted()) return
  const { position, record } = key
  const known = seeds(position, 2 * count).toSorted((a, b) => compareDistance(a.position, b.position, position))
  const first = known.slice(0, count)
  const writtenMin = Math.min(count, optimisticPeersMin)

  // Optimistic: the record goes to the closest peers known, before any lookup.
  const hurry = Effect.gen(function*() {
    let written = 0
    yield* Effect.forEach(first, (peer) =>
      Effect.suspend(() => {
        run.cost.messages++
        return send(peer, record)
      }).pipe(
        Effect.tap(() =>
          Effect.sync(() => {
            if (++written >= writtenMin) batch.written(key.key)
          })
        ),
        // The lookup finds out which peers do not answer.
        Effect.ignore
      ), { concurrency: count, discard: true })
  })
  const isHurried = key.isOptimistic && first.length >= writtenMin

  /** The peers that were sent the record, and whether each took it. */
  const given = new Map<string, boolean>()
  const give = (peer: P) =>
    Effect.tap(
      run.request(peer, key.bytes, record),
      ({ tookBefore }) => Effect.sync(() => given.set(peer.key, tookBefore))
    )
  const lookup = Effect.suspend(() => {
    run.cost.lookups++
    // With peers as near as the closest are likely to be, all are asked at once: nearer peers will hardly turn up.
    const isNear = first.length >= count && farthest(first, position) <= nearSlack * run.reach
    return Lookup.lookup<P>({
      target: position,
      // More than the closest: peers name each other, and some of the closest may be dead.
      seeds: known,
      count,
      self: self.key,
      doubts,
      parallel: isNear || first.length < count ? Math.max(10, count) : 10,
      ask: (peer, rank) =>
        rank < count && isWanted() && distanceOf(peer.position, position) <= reachSlack * run.reach
          ? give(peer)
          : run.request(peer, key.bytes)
    })
  })
  const [, { answered, closest }] = yield* Effect.all([isHurried ? hurry : Effect.void, lookup], { concurrency: 2 })
  if (answered === 0 || !isWanted()) return
  observe?.(position, closest)
  const { isCrowded, peers } = yield* run.beyond(position, closest)
  const holders = [...closest, ...peers]
  yield* Effect.forEach(holders.filter((peer) => !given.has(peer.key)), (peer) =>
    // A peer that does not take the record is one copy less.
    Effect.suspend(() => isWanted() ? Effect.ignore(give(peer)) : Effect.void), { concurrency: count, discard: true })
  batch.announced(key.key, holders.filter((peer) => given.get(peer.key) === true).length, isCrowded)
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How much farther than the density says a peer may be and still be one of the closest. The distance of the k-th peer,
 * and the density measured by k neighbours, each vary by 1 / sqrt(k). This is three deviations; more would send records
 * in vain.
 */
const reachSlack = 2

/** How near the table's closest peers are when they are most likely the network's closest, too. */
const nearSlack = 1.5

/** With fewer peers in its table, a node does not know the closest well enough to be optimistic. */
const optimisticPeersMin = 10
