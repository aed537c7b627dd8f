/**
 * Whether somebody has crowded a key: made ids until enough of them were nearer to it than all others, so that its records are left with
 * him, who keeps none of them (a Sybil attack).
 *
 * Ids of honest nodes are spread evenly over the keyspace, so that among N nodes about N times d are within the distance d of any place,
 * with the scatter of a Poisson distribution. Two things follow:
 * - The distance of the twentieth closest of a lookup tells N; the median of many lookups tells it well ({@link makeNetworkSize}).
 * - Twenty nodes nearer than all honest ones are where less than one is to be expected ({@link crowdingOf}).
 *
 * What helps is to look beyond the crowd ({@link beyond}): in the halves of the region around the key in which the key is not there are no
 * more false ids than elsewhere.
 *
 * It does not tell of a crowd that is too small to take all copies of a record, nor of somebody who has a good part of all nodes, spread
 * evenly. A flagged lookup is no proof: one in about four thousand is flagged by chance (measured), and an estimate of N that is too low flags more.
 */
import { Effect } from "effect"
import type { LookupPeer } from "./Lookup.ts"
import { commonPrefixLength, distanceOf, ofDigest, type Position, positionOf } from "../wire/Position.ts"

/** An estimate of how many nodes a network has. */
export interface NetworkSize {
  /**
   * Learns from a lookup: its target, and the closest that it found, nearest first. Targets are to be spread over the keyspace; a target that
   * comes again replaces what it told before. Fewer than eight peers tell nothing: they may be all there are.
   */
  readonly observe: (target: Position, closest: ReadonlyArray<LookupPeer>) => void
  /** How many nodes there are; undefined before eight targets were seen. Within a fifth of the truth with 32 of them (measured). */
  readonly estimate: () => number | undefined
}

/** What the closest of a lookup look like. */
export interface Crowding {
  /** How many nodes are to be expected within the distance of the farthest of the closest. */
  readonly expected: number
  /** How likely so many, so near, are by chance. */
  readonly probability: number
  /** Whether that is less than 1 in 10,000. */
  readonly isCrowded: boolean
}

/**
 * An estimate that remembers the last 64 targets.
 */
export const makeNetworkSize = (): NetworkSize => {
  const samples = new Map<string, number>()
  let median: number | undefined
  return {
    observe: (target, closest) => {
      const last = closest.at(-1)
      if (last === undefined || closest.length < peersMin) return
      const distance = distanceOf(last.position, target)
      if (distance === 0) return
      median = undefined
      const name = `${target.h0}/${target.h1}`
      samples.delete(name)
      // Half of all targets have their k-th node within (k - 1/3) / N: the median of a gamma distribution.
      samples.set(name, (closest.length - 1 / 3) / distance)
      if (samples.size > samplesMax) { for (const oldest of samples.keys()) return void samples.delete(oldest) }
    },
    estimate: () => {
      if (samples.size < samplesMin || median !== undefined) return median
      // A crowd around some of the targets does not move it.
      const sorted = [...samples.values()].sort((a, b) => a - b)
      const middle = sorted.length >> 1
      return median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
    }
  }
}

/**
 * Whether the closest peers of a lookup, nearest first, are improbably near to its target in a network of that size. The nearest 5, 10, 15
 * and 20 are looked at, whichever are the least probable.
 *
 * A network with fewer than 60 nodes is never crowded: a lookup asks a good part of it anyway.
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
 * Where to look for honest peers around a crowded key: targets, nearest to the key last, each in the next smaller half of the region that
 * holds about twice `count` nodes, on the side where the key is not. A record that is left with what is found there, and asked for there, is
 * out of reach of the crowd; `isInRegion` says whom of the closest of such a lookup that means. With the same `networkSize`, give or take
 * a half, who provides and who looks for it meet.
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

/** A place beyond a crowd: any that shares the first `bits` bits with `position` is as good. */
export interface BeyondTarget {
  readonly position: Position
  readonly bits: number
}

/**
 * Bytes whose position shares the bits of a target, for FIND_NODE, which carries a key and not a position. Found by trying: `2 ** bits` hashes
 * on average, which for a million nodes (17 bits) take 0.3 s; others run in between. The same target gives the same bytes.
 */
export const keyOf = ({ bits, position }: BeyondTarget): Effect.Effect<Uint8Array> =>
  Effect.gen(function*() {
    const bytes = new Uint8Array(34)
    // In the form of a multihash, as keys and ids are.
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

const peersMin = 8
const samplesMin = 8
const samplesMax = 64
const networkSizeMin = 60
const probabilityMin = 1e-4
// Two milliseconds.
const attemptsPerTurn = 1_024

/** How likely at least `count` are where `mean` are to be expected: the upper tail of a Poisson distribution. */
function atLeast(count: number, mean: number): number {
  if (mean >= count) return 1
  if (mean === 0) return 0
  // The first term by logarithms, since its parts are too large; each further one is smaller by mean / n.
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
