/**
 * Crowded keys: somebody has made ids until enough of them are nearer to a key than all honest nodes, so that the key's
 * records end up with the attacker, who keeps none of them (a Sybil attack).
 *
 * Ids of honest nodes are spread evenly over the keyspace: among N nodes about N times d lie within the distance d of
 * any position, with the scatter of a Poisson distribution. Two things follow:
 * - The distance of a lookup's twentieth closest peer tells N; the median of many lookups tells it well
 *   ({@link makeNetworkSize}).
 * - Twenty nodes nearer than all honest nodes lie where less than one is expected ({@link crowdingOf}).
 *
 * The cure is to look beyond the crowd ({@link beyond}): the region around the key is halved again and again, and the
 * halves without the key hold no more false ids than any other part of the keyspace.
 *
 * In a small network, and as long as a node does not know how large its network is, it does not wait for an alarm: each
 * key is left with, and asked of, connected peers and a spread of the routing table, too ({@link spread}). Twenty ids
 * near a key are a few seconds' work there, and any node knows a good part of the network. A newcomer, which does not,
 * looks up the half of the keyspace without the key.
 *
 * Gotchas
 * - Not noticed are a crowd too small to take all copies of a record, and an attacker with a good part of all nodes,
 *   spread evenly.
 * - A flagged lookup is no proof: one in about four thousand is flagged by chance (measured), and more when the
 *   estimate of N is too low.
 */
import { Effect, Metric } from "effect"
import * as NetworkMetrics from "../../../services/NetworkMetrics.ts"
import { BoundedMap } from "../../BoundedMap.ts"
import { commonPrefixLength, distanceOf, ofDigest, type Position, positionOf } from "../wire/Position.ts"
import * as Elapsed from "../../Elapsed.ts"
import type { LookupPeer, LookupResult } from "./Lookup.ts"

export interface CrowdWatchOptions<P extends LookupPeer> {
  /** How many of the closest peers a lookup is for: k. */
  readonly count: number
  /** Looks up the peers closest to the position of these bytes. */
  readonly lookup: (bytes: Uint8Array) => Effect.Effect<LookupResult<P>>
  /** The peers that can be asked, connected or in the routing table. */
  readonly known: () => Iterable<P>
  /** Whether a peer is connected. */
  readonly isAtHand: (peer: P) => boolean
  /** A random number from 0 to 1. */
  readonly chance: () => number
}

/** The peers around a key besides the closest. */
export interface PeersBeyond<P> {
  readonly peers: ReadonlyArray<P>
  /** Whether the closest are improbably near. */
  readonly isCrowded: boolean
}

export interface CrowdWatch<P extends LookupPeer> {
  /** Learns from the outcome of a lookup how large the network is. */
  readonly observe: (target: Position, closest: ReadonlyArray<P>) => void
  /**
   * The peers that keep records of a key besides the closest: beyond the crowd around a crowded key, and a spread of
   * the known peers in a small network. Nodes that provide a key and nodes that look for it have such peers in
   * common. Logs a warning of a crowd at most once a minute.
   */
  readonly peersBeyond: (target: Position, closest: ReadonlyArray<P>) => Effect.Effect<PeersBeyond<P>>
}

/**
 * Notices crowded keys among lookups, and looks beyond them.
 */
export const make = <P extends LookupPeer>(options: CrowdWatchOptions<P>): CrowdWatch<P> => {
  const { count, lookup } = options
  const size = makeNetworkSize()
  let warnedAt = -Infinity

  return {
    observe: size.observe,
    peersBeyond: Effect.fnUntraced(function*(target, closest) {
      const estimate = size.estimate()
      const found = new Map<string, P>()
      const isSmall = estimate === undefined || estimate < smallMax
      // Fewer peers than asked for are all there are.
      if (isSmall && closest.length >= count) {
        const own = new Set(closest.map(({ key }) => key))
        for (const peer of spread([...options.known()].filter(({ key }) => !own.has(key)), options)) {
          found.set(peer.key, peer)
        }
        // A newcomer knows too few peers to share some with another newcomer, so both look up the other half.
        if (estimate === undefined) {
          const half = yield* Effect.flatMap(keyOf(beyond(target, 2 * count, count).targets[0]!), lookup)
          for (const peer of half.closest) if (!own.has(peer.key)) found.set(peer.key, peer)
        }
      }
      if (estimate === undefined || !crowdingOf(target, closest, estimate).isCrowded) {
        return { peers: [...found.values()], isCrowded: false }
      }
      yield* Metric.update(NetworkMetrics.crowdedLookups, 1)
      const now = yield* Elapsed.millis
      if (now >= warnedAt + warningMillis) {
        warnedAt = now
        yield* Effect.logWarning(
          `the ${closest.length} nodes closest to a key are improbably near to it; its records are kept beyond them, too`
        )
      }
      const { isInRegion, targets } = beyond(target, estimate, count)
      for (const target of targets) {
        const result = yield* Effect.flatMap(keyOf(target), lookup)
        for (const peer of result.closest) if (isInRegion(peer)) found.set(peer.key, peer)
      }
      // `found` includes the crowd; those peers were asked already.
      for (const { key } of closest) found.delete(key)
      return { peers: [...found.values()], isCrowded: true }
    })
  }
}

/**
 * Some of the peers: one of each 32nd part of the keyspace, and some connected ones. A crowd near a key is in one
 * part, so that it is one peer of the spread, and chance decides between the peers of a part, so that no id is made for
 * it. Of 60 nodes two take the same peer in every second part.
 */
export const spread = <P extends LookupPeer>(
  peers: ReadonlyArray<P>,
  { chance, isAtHand }: Pick<CrowdWatchOptions<P>, "chance" | "isAtHand">
): ReadonlyArray<P> => {
  const parts = new Map<number, P>()
  const connected: Array<P> = []
  const shuffled = peers.map((peer) => ({ peer, at: chance() })).sort((a, b) => a.at - b.at)
  for (const { peer } of shuffled) {
    const part = peer.position.h0 >>> (32 - spreadBits)
    if (!parts.has(part)) parts.set(part, peer)
    else if (connected.length < connectedMax && isAtHand(peer)) connected.push(peer)
  }
  return [...parts.values(), ...connected]
}

/** An estimate of how many nodes a network has. */
export interface NetworkSize {
  /**
   * Learns from a lookup: its target, and the closest peers found, nearest first. Targets should be spread over the
   * keyspace; a repeated target replaces what it said before. Fewer than eight peers say nothing: they may be all there
   * are.
   */
  readonly observe: (target: Position, closest: ReadonlyArray<LookupPeer>) => void
  /**
   * How many nodes there are; undefined before eight targets. With 32 targets within a fifth of the truth (measured).
   */
  readonly estimate: () => number | undefined
}

/** How near to the target the closest peers of a lookup are, against what chance gives. */
export interface Crowding {
  /** How many nodes are expected within the distance of the farthest of the closest peers. */
  readonly expected: number
  /** How likely it is that so many peers are so near by chance. */
  readonly probability: number
  /** Whether `probability` is below 1 in 10,000. */
  readonly isCrowded: boolean
}

/**
 * An estimate that remembers the last 64 targets.
 */
export const makeNetworkSize = (): NetworkSize => {
  const samples = new BoundedMap<string, number>(samplesMax)
  let median: number | undefined
  return {
    observe: (target, closest) => {
      const last = closest.at(-1)
      if (last === undefined || closest.length < peersMin) return
      const distance = distanceOf(last.position, target)
      if (distance === 0) return
      median = undefined
      // Half of all targets have their k-th node within (k - 1/3) / N: the median of a gamma distribution.
      samples.set(`${target.h0}/${target.h1}`, (closest.length - 1 / 3) / distance)
    },
    estimate: () => {
      if (samples.size < samplesMin || median !== undefined) return median
      // The median: a crowd around some of the targets does not move it.
      const sorted = [...samples.values()].sort((a, b) => a - b)
      const middle = sorted.length >> 1
      return median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
    }
  }
}

/**
 * Whether the closest peers of a lookup, nearest first, are improbably near to its target in a network of that size.
 * Takes the least probable of the nearest 5, 10, 15 and 20.
 *
 * A network with fewer than 20 nodes is never crowded: a lookup asks all of it anyway.
 */
export const crowdingOf = (target: Position, closest: ReadonlyArray<LookupPeer>, networkSize: number): Crowding => {
  const expectedAt = (rank: number) => networkSize * distanceOf(closest[rank - 1]!.position, target)
  const expected = closest.length === 0 ? 0 : expectedAt(closest.length)
  let probability = 1
  if (networkSize >= networkSizeMin) {
    for (let rank = 5; rank <= closest.length; rank += 5) {
      probability = Math.min(probability, atLeast(rank, expectedAt(rank)))
    }
  }
  return { expected, probability, isCrowded: probability < probabilityMin }
}

/**
 * Where to look for honest peers around a crowded key.
 *
 * The region around the key that holds about twice `count` nodes is halved three times, and each target lies in the
 * half without the key, so the last target is nearest to the key. A record left with the peers found there, and asked
 * for there, is out of the crowd's reach. `isInRegion` says which of the closest peers of such a lookup count. Nodes
 * that provide and nodes that look for the key meet as long as their estimates of `networkSize` differ by at most
 * half.
 */
export const beyond = (key: Position, networkSize: number, count = 20) => {
  const shared = Math.max(0, Math.floor(Math.log2(networkSize / (2 * count))))
  return {
    targets: [0, 1, 2].map((deeper): BeyondTarget => ({
      position: flipped(key, shared + deeper),
      bits: shared + deeper + 1
    })),
    isInRegion: ({ position }: LookupPeer): boolean => commonPrefixLength(position, key) >= shared
  }
}

/** A target beyond a crowd: any position that shares the first `bits` bits with `position` is as good. */
export interface BeyondTarget {
  readonly position: Position
  readonly bits: number
}

/**
 * Bytes whose position shares the bits of a target, for FIND_NODE, which carries a key and not a position. Found by
 * trying: `2 ** bits` hashes on average, which for a million nodes (17 bits) take 0.3 s; other fibers run in between.
 * The same target gives the same bytes.
 */
export const keyOf = ({ bits, position }: BeyondTarget): Effect.Effect<Uint8Array> =>
  Effect.gen(function*() {
    const bytes = new Uint8Array(34)
    // A multihash, like keys and ids.
    bytes.set([0x12, 0x20])
    bytes.set(position.bytes.subarray(0, 28), 2)
    const counter = new DataView(bytes.buffer, 30)
    for (let attempt = 0;; attempt++) {
      counter.setUint32(0, attempt)
      if (commonPrefixLength(positionOf(bytes), position) >= bits) return bytes
      if (attempt % attemptsPerTurn === attemptsPerTurn - 1) yield* Effect.yieldNow
    }
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const warningMillis = 60_000
const peersMin = 8
const samplesMin = 8
const samplesMax = 64
const networkSizeMin = 20
/**
 * Below this size keys are left with a spread of the known peers. A network of 60 is taken for one of less than 80 by
 * every node (measured: within a fifth). With 100 nodes two nodes have ten peers of their spreads in common.
 */
const smallMax = 100
const spreadBits = 5
const connectedMax = 12
const probabilityMin = 1e-4
/** How many hashes are tried before other fibers run: two milliseconds. */
const attemptsPerTurn = 1_024

/** How likely at least `count` are where `mean` are expected: the upper tail of a Poisson distribution. */
function atLeast(count: number, mean: number): number {
  if (mean >= count) return 1
  if (mean === 0) return 0
  // The first term by logarithms, since its factors are too large; each further term is the last times mean / n.
  let logarithm = -mean
  for (let n = 1; n <= count; n++) logarithm += Math.log(mean / n)
  let term = Math.exp(logarithm)
  let sum = 0
  for (let n = count + 1; term > sum * 1e-12; n++) {
    sum += term
    term *= mean / n
  }
  return Math.min(1, sum)
}

function flipped({ bytes }: Position, bit: number): Position {
  const other = Uint8Array.from(bytes)
  other[bit >> 3]! ^= 0x80 >> (bit & 7)
  return ofDigest(other)
}
