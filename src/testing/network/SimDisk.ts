/**
 * The disk of a simulated node: what it writes survives a kill, and is found by the next node that is given the same
 * disk.
 *
 * ```ts
 * const disk = SimDisk.make()
 * yield* TestNetwork.makeNode("alice", {}, { disk })
 * yield* network.kill("alice")
 * yield* TestNetwork.makeNode("alice", {}, { disk }) // remembers whom the first one met
 * ```
 */
import { Effect } from "effect"
import { KeyValueStore } from "effect/persistence"

export { KeyValueStore } from "effect/persistence/KeyValueStore"

/** The disk of a simulated machine, which outlives its node. */
export interface SimDisk {
  /** The values on the disk, by key. */
  readonly entries: ReadonlyMap<string, string | Uint8Array>
  /** A store over the disk. The store of an earlier `mount` writes no more. */
  readonly mount: () => {
    readonly store: KeyValueStore.KeyValueStore
    /** From now on the store writes nothing: its process is dead. */
    readonly detach: () => void
  }
}

/** An empty disk. */
export const make = (): SimDisk => {
  const entries = new Map<string, string | Uint8Array>()
  let mounted = 0
  return {
    entries,
    mount() {
      const self = ++mounted
      const write = (change: () => unknown) => Effect.sync(() => void (self === mounted && change()))
      return {
        store: KeyValueStore.make({
          get: (key) => Effect.sync(() => asText(entries.get(key))),
          getUint8Array: (key) => Effect.sync(() => asBytes(entries.get(key))),
          set: (key, value) => write(() => entries.set(key, value)),
          remove: (key) => write(() => entries.delete(key)),
          clear: write(() => entries.clear()),
          size: Effect.sync(() => entries.size),
          keys: Effect.sync(() => [...entries.keys()])
        }),
        detach() {
          if (self === mounted) mounted++
        }
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const asText = (value: string | Uint8Array | undefined): string | undefined =>
  value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value

const asBytes = (value: string | Uint8Array | undefined): Uint8Array | undefined =>
  typeof value === "string" ? new TextEncoder().encode(value) : value
