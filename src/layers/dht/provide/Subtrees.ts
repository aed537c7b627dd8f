/**
 * Subtrees of the keyspace, each the places that begin with the same bits: which of them are known, and who is nearest within. A place is told
 * by its first 32 bits.
 */
import { compareDistance, type Position } from "../wire/Position.ts"

/** What has a place. */
export interface Placed {
  readonly position: Position
}

/** Peers in the order of the keyspace. */
export const inOrder = <P extends Placed>(peers: Iterable<P>): ReadonlyArray<P> =>
  [...peers].sort((a, b) => a.position.h0 - b.position.h0)

/** The nearest of some peers in order, nearest first: they are in the smallest subtree around the target that has enough. */
export function nearest<P extends Placed>(peers: ReadonlyArray<P>, target: Position, count: number): ReadonlyArray<P> {
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

/** The first bits of a place, as a number. */
export const prefixOf = (h0: number, depth: number): number => depth === 0 ? 0 : h0 >>> (32 - depth)

/** The prefix that differs in its last bit alone. */
export const siblingOf = (prefix: number): number => prefix % 2 === 0 ? prefix + 1 : prefix - 1

/** The subtrees of the keyspace of which all peers are known, down to 32 bits. Two halves make their whole. */
export class KnownPrefixes {
  private readonly prefixes = new Set<number>()

  /** All peers are known that share so many bits with a place. */
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

  /** How many bits the largest known subtree around a place shares. */
  depthOf(h0: number): number | undefined {
    for (let depth = 0; depth <= 32; depth++) if (this.prefixes.has(idOf(depth, prefixOf(h0, depth)))) return depth
    return undefined
  }

  /** A subtree of this one of which nothing is known; undefined when all of it is. */
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

/** Where the first of the peers is that is not below a place. */
function indexOf(peers: ReadonlyArray<Placed>, from: number, to: number, h0: number): number {
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
