/**
 * The routing table of a node of `DhtModel`: buckets of 20, old ones first, as Kademlia has them.
 */
import type { LookupPeer } from "../../layers/dht/lookup/Lookup.ts"
import { subnetPeersMax } from "../../layers/dht/libp2p/Table.ts"
import { commonPrefixLength, distanceOf, type Position } from "../../layers/dht/wire/Position.ts"

/** What a table knows of a node. */
export interface TableNode extends LookupPeer {
  readonly isAlive: boolean
  /** The subnet by which it is counted; undefined when it is not. */
  readonly subnet?: string | undefined
}

/** How many nodes a bucket holds. */
export const bucketSize = 20

/**
 * How many nodes of a full bucket are pinged for a newcomer, and how long a node that has answered is not pinged again.
 * As in kad-dht 16.4.
 */
const pingsMax = 3
const pingedMillis = 600_000

/** How many nodes of a bucket may be in one subnet. */
const subnetMax = subnetPeersMax(bucketSize)

/** How a table splits its buckets. */
export interface TableShape {
  /** Buckets are the prefixes of so many bits, anywhere in the keyspace. */
  readonly splitBits: number
  /**
   * Whether the bucket of the owner's own prefix splits further, into a bucket for each number of bits that a node
   * shares with the owner.
   */
  readonly splitsOwn: boolean
}

/** The table of the paper: only the bucket that the owner would be in splits. */
export const kademlia: TableShape = { splitBits: 0, splitsOwn: true }

/** The table of kad-dht 16.4: 64 buckets, and none for the owner's neighbours. */
export const kadDht: TableShape = { splitBits: 6, splitsOwn: false }

/** The table of kad-dht with the owner's bucket split, as `dht/libp2p/Table` does it. */
export const deepened: TableShape = { splitBits: 6, splitsOwn: true }

export class SimKadTable<N extends TableNode> {
  private readonly self: Position
  private readonly shape: TableShape
  private readonly prefix: number
  /** By prefix. */
  private readonly buckets: Array<Bucket<N> | undefined> = []
  /** By the number of bits that are shared with the owner. */
  private readonly own: Array<Bucket<N> | undefined> = []

  constructor(self: Position, shape: TableShape) {
    this.self = self
    this.shape = shape
    this.prefix = this.prefixOf(self)
  }

  /** In no order. */
  get nodes(): ReadonlyArray<N> {
    return [...this.buckets, ...this.own].flatMap((bucket) => bucket?.nodes ?? [])
  }

  has(node: N): boolean {
    return this.bucketOf(node.position).nodes.includes(node)
  }

  /**
   * Takes in a node that is alive, if its subnet has less than its share of the bucket, and there is room or one of the
   * oldest nodes is dead. Returns how many pings that took.
   */
  add(node: N, now: number): number {
    const { nodes, seen } = this.bucketOf(node.position)
    const known = nodes.indexOf(node)
    if (known >= 0) {
      seen[known] = now
      return 0
    }
    const { subnet } = node
    if (subnet !== undefined && nodes.filter((other) => other.subnet === subnet).length >= subnetMax) return 0
    let pings = 0
    if (nodes.length >= bucketSize) {
      while (pings < pingsMax) {
        const oldest = oldestOf(seen)
        if (seen[oldest]! > now - pingedMillis) return pings
        pings++
        if (nodes[oldest]!.isAlive) {
          seen[oldest] = now
          continue
        }
        nodes.splice(oldest, 1)
        seen.splice(oldest, 1)
        break
      }
      if (nodes.length >= bucketSize) return pings
    }
    nodes.push(node)
    seen.push(now)
    // kad-dht pings the nodes that it takes in.
    return pings + 1
  }

  remove(node: N): void {
    const { nodes, seen } = this.bucketOf(node.position)
    const index = nodes.indexOf(node)
    if (index < 0) return
    nodes.splice(index, 1)
    seen.splice(index, 1)
  }

  /** The nearest to a target, nearest first. */
  closest(target: Position, count: number, without?: N): ReadonlyArray<N> {
    const nearest = new Nearest<N>(target, count)
    const offer = (bucket: Bucket<N> | undefined) => {
      if (bucket !== undefined) { for (const node of bucket.nodes) if (node !== without) nearest.offer(node) }
    }
    const { buckets, own, prefix, self, shape } = this
    const wanted = this.prefixOf(target)
    // In this order all nodes of a bucket are nearer than all nodes of the next.
    for (let index = 0; index < 2 ** shape.splitBits && !nearest.isFull; index++) {
      const at = wanted ^ index
      if (!shape.splitsOwn || at !== prefix) offer(buckets[at])
      else if (index > 0) own.forEach(offer)
      else {
        const shared = commonPrefixLength(self, target)
        offer(own[shared])
        // As near as the owner itself.
        if (!nearest.isFull) { for (let bits = shared + 1; bits < own.length; bits++) offer(own[bits]) }
        for (let bits = Math.min(shared, own.length) - 1; bits >= 0 && !nearest.isFull; bits--) offer(own[bits])
      }
    }
    return nearest.nodes
  }

  private bucketOf(position: Position): Bucket<N> {
    const prefix = this.prefixOf(position)
    if (!this.shape.splitsOwn || prefix !== this.prefix) return this.buckets[prefix] ??= { nodes: [], seen: [] }
    return this.own[commonPrefixLength(this.self, position)] ??= { nodes: [], seen: [] }
  }

  private prefixOf(position: Position): number {
    return this.shape.splitBits === 0 ? 0 : position.h0 >>> (32 - this.shape.splitBits)
  }
}

/** The `count` nodes nearest to a target among those that are offered, nearest first. */
export class Nearest<N extends LookupPeer> {
  readonly nodes: Array<N> = []
  private readonly target: Position
  private readonly count: number
  private readonly distances: Array<number> = []

  constructor(target: Position, count: number) {
    this.target = target
    this.count = count
  }

  get isFull(): boolean {
    return this.nodes.length >= this.count
  }

  offer(node: N): void {
    const { count, distances, nodes } = this
    const distance = distanceOf(node.position, this.target)
    let index = nodes.length
    if (index >= count && distance >= distances[index - 1]!) return
    while (index > 0 && distances[index - 1]! > distance) index--
    nodes.splice(index, 0, node)
    distances.splice(index, 0, distance)
    if (nodes.length <= count) return
    nodes.pop()
    distances.pop()
  }
}

/**
 * The tables that nodes have after a long time in which no node left: full buckets, of nodes chosen by chance.
 */
export function wholeTables<N extends TableNode>(
  nodes: ReadonlyArray<N>,
  shape: TableShape,
  below: (bound: number) => number
): (node: N) => SimKadTable<N> {
  const sorted = nodes.toSorted((a, b) => a.position.h0 - b.position.h0 || a.position.h1 - b.position.h1)
  const isSet = ({ position }: N, bit: number) => (position.bytes[bit >> 3]! & (0x80 >> (bit & 7))) !== 0
  /** The first node whose bit is set among those from `low` to `high`, which share all bits before it. */
  const split = (low: number, high: number, bit: number) => {
    while (low < high) {
      const middle = (low + high) >> 1
      if (isSet(sorted[middle]!, bit)) high = middle
      else low = middle + 1
    }
    return low
  }
  return (node) => {
    const table = new SimKadTable<N>(node.position, shape)
    const take = (low: number, high: number) => {
      const taken = new Set<number>()
      if (high - low <= bucketSize) { for (let index = low; index < high; index++) taken.add(index) }
      else while (taken.size < bucketSize) taken.add(low + below(high - low))
      for (const index of taken) if (sorted[index] !== node) table.add(sorted[index]!, 0)
    }
    const takePath = (low: number, high: number, first: number) => {
      for (let bit = first; high - low > 1; bit++) {
        const middle = split(low, high, bit)
        if (isSet(node, bit)) {
          take(low, middle)
          low = middle
        } else {
          take(middle, high)
          high = middle
        }
      }
    }
    const takePrefixes = (low: number, high: number, bit: number, isOwn: boolean): void => {
      if (isOwn && bit === shape.splitBits && shape.splitsOwn) return takePath(low, high, bit)
      if (bit === shape.splitBits || high - low <= bucketSize) return take(low, high)
      const middle = split(low, high, bit)
      takePrefixes(low, middle, bit + 1, isOwn && !isSet(node, bit))
      takePrefixes(middle, high, bit + 1, isOwn && isSet(node, bit))
    }
    takePrefixes(0, sorted.length, 0, true)
    return table
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function oldestOf(seen: ReadonlyArray<number>): number {
  let oldest = 0
  for (let index = 1; index < seen.length; index++) if (seen[index]! < seen[oldest]!) oldest = index
  return oldest
}

interface Bucket<N> {
  readonly nodes: Array<N>
  /** When each was last known to be alive. */
  readonly seen: Array<number>
}
