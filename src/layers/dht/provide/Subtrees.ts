/**
 * Subtrees of the keyspace: which are known, and which peers are nearest within. A subtree is all positions that share
 * their leading bits. Positions are compared by their first 32 bits, `Position.h0`.
 */
import { compareDistance, type Position } from "../wire/Position.ts"

export interface Positioned {
  readonly position: Position
}

/** Peers in the order of their positions. */
export const inOrder = <P extends Positioned>(peers: Iterable<P>): ReadonlyArray<P> =>
  [...peers].sort((a, b) => a.position.h0 - b.position.h0)

/**
 * The nearest of some peers, which are in order; nearest first. They lie in the smallest subtree around the target that
 * has `count` peers.
 */
export function nearest<P extends Positioned>(
  peers: ReadonlyArray<P>,
  target: Position,
  count: number
): ReadonlyArray<P> {
  let [low, high] = [0, peers.length]
  for (let depth = 1; depth <= 32; depth++) {
    const prefix = prefixOf(target.h0, depth)
    const isUpper = prefix % 2 === 1
    const middle = indexOf(peers, low, high, (isUpper ? prefix : prefix + 1) * 2 ** (32 - depth))
    if ((isUpper ? high - middle : middle - low) < count) break
    if (isUpper) low = middle
    else high = middle
  }
  return peers.slice(low, high).sort((a, b) => compareDistance(a.position, b.position, target)).slice(0, count)
}

/** The first bits of a position, as a number. */
export const prefixOf = (h0: number, depth: number): number => depth === 0 ? 0 : h0 >>> (32 - depth)

/** The prefix that differs in its last bit alone. */
export const siblingOf = (prefix: number): number => prefix % 2 === 0 ? prefix + 1 : prefix - 1

/** The subtrees all of whose peers are known, down to 32 bits. Two known halves merge into their whole. */
export class KnownPrefixes {
  private readonly prefixes = new Set<number>()

  /** All peers are known that share the first `depth` bits. */
  add(h0: number, depth: number): void {
    if ((this.depthOf(h0) ?? 33) <= depth) return
    let prefix = prefixOf(h0, depth)
    while (depth > 0 && this.prefixes.has(idOf(depth, siblingOf(prefix)))) {
      depth--
      prefix = Math.floor(prefix / 2)
    }
    for (const id of this.prefixes) if (isWithin(id, depth, prefix)) this.prefixes.delete(id)
    this.prefixes.add(idOf(depth, prefix))
  }

  /** How many bits the largest known subtree around a position shares; undefined when none is known. */
  depthOf(h0: number): number | undefined {
    for (let depth = 0; depth <= 32; depth++) if (this.prefixes.has(idOf(depth, prefixOf(h0, depth)))) return depth
    return undefined
  }

  /** A subtree within this one of which nothing is known; undefined when all of it is known. */
  gapIn(depth: number, prefix: number): { readonly depth: number; readonly prefix: number } | undefined {
    if ((this.depthOf(prefix * 2 ** (32 - depth)) ?? 33) <= depth) return undefined
    for (const id of this.prefixes) {
      if (isWithin(id, depth, prefix)) {
        return this.gapIn(depth + 1, prefix * 2) ?? this.gapIn(depth + 1, prefix * 2 + 1)
      }
    }
    return { depth, prefix }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The index of the first peer whose position is not below `h0`. */
function indexOf(peers: ReadonlyArray<Positioned>, from: number, to: number, h0: number): number {
  while (from < to) {
    const middle = (from + to) >> 1
    if (peers[middle]!.position.h0 < h0) from = middle + 1
    else to = middle
  }
  return from
}

const idOf = (depth: number, prefix: number): number => depth * 2 ** 33 + prefix

const isWithin = (id: number, depth: number, prefix: number): boolean => {
  const inner = Math.floor(id / 2 ** 33)
  return inner >= depth && Math.floor(id % 2 ** 33 / 2 ** (inner - depth)) === prefix
}
