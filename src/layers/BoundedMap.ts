/**
 * A map of limited size whose entries leave in the order in which they were last set: the oldest goes first.
 *
 * Synchronous, for what is asked in one step with a decision, such as the gate: `Cache` of effect answers with an
 * effect.
 */
export class BoundedMap<K, V> {
  private readonly entries = new Map<K, V>()
  private readonly limit: number
  private readonly isKept: (value: V, key: K) => boolean
  private readonly onLeave: (value: V, key: K) => void

  /**
   * Holds `limit` entries. One for which `isKept` holds never leaves by itself, so that the map may grow over its limit
   * by as many. `onLeave` is called for each entry that leaves by itself.
   */
  constructor(
    limit: number,
    isKept: (value: V, key: K) => boolean = () => false,
    onLeave: (value: V, key: K) => void = () => {}
  ) {
    this.limit = limit
    this.isKept = isKept
    this.onLeave = onLeave
  }

  get size(): number {
    return this.entries.size
  }

  get(key: K): V | undefined {
    return this.entries.get(key)
  }

  has(key: K): boolean {
    return this.entries.has(key)
  }

  /**
   * Sets the entry, which becomes the newest. While there are too many, the oldest other one that is not kept leaves.
   */
  set(key: K, value: V): void {
    this.entries.delete(key)
    this.entries.set(key, value)
    if (this.entries.size <= this.limit) return
    for (const [other, held] of this.entries) {
      if (other === key || this.isKept(held, other)) continue
      this.entries.delete(other)
      this.onLeave(held, other)
      if (this.entries.size <= this.limit) return
    }
  }

  delete(key: K): boolean {
    return this.entries.delete(key)
  }

  clear(): void {
    this.entries.clear()
  }

  /** The oldest first. */
  keys(): IterableIterator<K> {
    return this.entries.keys()
  }

  /** The oldest first. */
  values(): IterableIterator<V> {
    return this.entries.values()
  }

  /** The oldest first. */
  [Symbol.iterator](): IterableIterator<[K, V]> {
    return this.entries.entries()
  }
}
