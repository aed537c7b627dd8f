/**
 * What survives of the provided keys: the keys themselves with their `ttl`, and, coarsely, when they were announced last.
 *
 * They lie in up to 256 entries of the `KeyValueStore`, `provided.00` to `provided.ff`, by the first byte of their place in the keyspace. A
 * change writes one of them, so it costs a 256th of the whole, and those who wait while another writes find theirs written as well. An entry
 * is replaced as one, so a process that is killed leaves each as it was or as it should be. The times of announcements are not worth a write
 * each: they are written with the next change of their entry, after five minutes, or when the scope closes.
 *
 *     {"version":1,"keys":[[key, ttl in seconds or 0, minute since the epoch, copies, addresses]]}
 */
import { Effect, Latch, Schema, type Scope, Semaphore } from "effect"
import { KeyValueStore } from "effect/persistence"
import { ContentKey } from "../schema/Content.ts"

/** A key as it is saved. The store reads it whenever it writes its entry. */
export interface StoredKey {
  readonly key: ContentKey
  /** The first 32 bits of its place in the keyspace; not written. */
  readonly place: number
  /** How long a copy lives, where the program has said so. */
  readonly ttlSeconds: number | undefined
  /** When it was announced last so that somebody took it, in whole minutes since the epoch; 0 for never. */
  readonly announcedMinute: number
  /** How many copies that came to. */
  readonly copies: number
  /** Tells the addresses that were announced from others; empty for none. */
  readonly addresses: string
}

export interface ProvidedKeysStore {
  /** What was there at the start. */
  readonly saved: ReadonlyArray<StoredKey>
  /** Done when it is on disk. On failure it is as it was before. */
  readonly set: (stored: StoredKey) => Effect.Effect<void, KeyValueStore.KeyValueStoreError>
  /** Done when it is gone from the disk. On failure it is as it was before. */
  readonly remove: (stored: StoredKey) => Effect.Effect<void, KeyValueStore.KeyValueStoreError>
  /** Says that a key has been announced. */
  readonly touch: (stored: StoredKey) => void
}

/** How long the time of an announcement may wait to be written. */
export const touchInterval = "5 minutes"

/**
 * Reads the keys, `placeOf` telling where they belong, and keeps them written while the scope lives. What cannot be read is left out, with a
 * warning. The list of earlier versions is taken over, and removed when all of it is in its new place.
 */
export const make = Effect.fnUntraced(function*(
  placeOf: (key: ContentKey) => number
): Effect.fn.Return<ProvidedKeysStore, never, KeyValueStore.KeyValueStore | Scope.Scope> {
  const store = yield* KeyValueStore.KeyValueStore
  const shards = new Map<number, Shard>()
  const dirty = new Set<Shard>()
  const hasDirty = yield* Latch.make()

  const shardOf = (place: number): Shard => {
    const index = place >>> 24
    let shard = shards.get(index)
    if (shard === undefined) {
      shard = {
        name: prefix + index.toString(16).padStart(2, "0"),
        keys: new Map(),
        saving: Semaphore.makeUnsafe(1),
        version: 0,
        written: 0
      }
      shards.set(index, shard)
    }
    return shard
  }

  const save = (shard: Shard) =>
    Effect.suspend(() => {
      const mine = ++shard.version
      return shard.saving.withPermits(1)(Effect.suspend(() => {
        if (shard.written >= mine) return Effect.void
        const writes = shard.version
        dirty.delete(shard)
        return store.set(shard.name, encode(shard.keys.values())).pipe(
          Effect.tap(() =>
            Effect.sync(() => {
              shard.written = writes
            })
          ),
          Effect.onError(() => Effect.sync(() => mark(shard)))
        )
      }))
    })

  const mark = (shard: Shard) => {
    dirty.add(shard)
    hasDirty.openUnsafe()
  }

  const saveDirty = Effect.suspend(() => {
    const all = [...dirty]
    hasDirty.closeUnsafe()
    return Effect.forEach(
      all,
      (shard) =>
        Effect.catch(save(shard), (error) => Effect.logWarning(`provided keys are not saved: ${error.message}`)),
      { discard: true }
    )
  })

  const notRead = <A>(what: string, otherwise: ReadonlyArray<A>) => (cause: unknown): Effect.Effect<ReadonlyArray<A>> =>
    Effect.as(Effect.logWarning(`${what} cannot be read; it starts anew`, cause), otherwise)

  // ----- what is there

  const names = yield* Effect.catch(store.keys, notRead<string>("the list of saved keys", []))
  const saved = new Map<ContentKey, StoredKey>()
  const take = (entry: StoredKey) => {
    saved.set(entry.key, entry)
    shardOf(entry.place).keys.set(entry.key, entry)
  }
  const read = (name: string) =>
    Effect.flatMap(
      store.get(name),
      (text) => text === undefined ? Effect.succeed<Keys>([]) : Effect.map(decode(text), keysOf)
    )
  yield* Effect.forEach(names.filter((name) => isShard.test(name)), (name) =>
    Effect.gen(function*() {
      const keys = yield* Effect.catch(read(name), notRead<Keys[number]>(`the saved list ${name} of provided keys`, []))
      for (const [key, ttlSeconds, announcedMinute, copies, addresses] of keys) {
        const ttl = ttlSeconds === 0 ? undefined : ttlSeconds
        take({ key, place: placeOf(key), ttlSeconds: ttl, announcedMinute, copies, addresses })
      }
    }), { concurrency: 8, discard: true })

  const list = yield* Effect.flatMap(
    store.get(listName),
    (text) => text === undefined ? Effect.succeed(undefined) : decodeList(text)
  ).pipe(Effect.catch(notRead<ContentKey>("the saved list of provided keys", [])))
  if (list !== undefined) {
    const changed = new Set<Shard>()
    for (const key of list) {
      if (saved.has(key)) continue
      const place = placeOf(key)
      take({ key, place, ttlSeconds: undefined, announcedMinute: 0, copies: 0, addresses: "" })
      changed.add(shardOf(place))
    }
    yield* Effect.forEach(changed, save, { concurrency: 8, discard: true }).pipe(
      Effect.andThen(store.remove(listName)),
      Effect.catch((error) => Effect.logWarning(`the old list of provided keys stays: ${error.message}`))
    )
  }

  yield* Effect.addFinalizer(() => saveDirty)
  yield* Effect.forkScoped(Effect.forever(
    hasDirty.await.pipe(Effect.andThen(Effect.sleep(touchInterval)), Effect.andThen(saveDirty))
  ))

  // ----- changes

  const change = (stored: StoredKey, next: StoredKey | undefined) =>
    Effect.suspend(() => {
      const shard = shardOf(stored.place)
      const before = shard.keys.get(stored.key)
      const put = (entry: StoredKey | undefined) =>
        entry === undefined ? shard.keys.delete(stored.key) : shard.keys.set(stored.key, entry)
      put(next)
      return Effect.onError(save(shard), () =>
        Effect.sync(() => {
          if (shard.keys.get(stored.key) === next) put(before)
          mark(shard)
        }))
    })

  return {
    saved: [...saved.values()],
    set: (stored) => change(stored, stored),
    remove: (stored) => change(stored, undefined),
    touch(stored) {
      const shard = shardOf(stored.place)
      if (shard.keys.has(stored.key)) {
        shard.keys.set(stored.key, stored)
        mark(shard)
      }
    }
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The one list of earlier versions. */
const listName = "provided"
const prefix = "provided."
const isShard = /^provided\.[0-9a-f]{2}$/

interface Shard {
  readonly name: string
  readonly keys: Map<ContentKey, StoredKey>
  readonly saving: Semaphore.Semaphore
  /** The last change that was asked to be saved, and the last that has been. */
  version: number
  written: number
}

const Entries = Schema.Struct({
  version: Schema.Literal(1),
  keys: Schema.Array(Schema.Tuple([ContentKey, Schema.Int, Schema.Int, Schema.Int, Schema.String]))
})

type Keys = typeof Entries.Type["keys"]
const keysOf = ({ keys }: typeof Entries.Type): Keys => keys

const decode = Schema.decodeEffect(Schema.fromJsonString(Entries))
const decodeList = Schema.decodeEffect(Schema.fromJsonString(Schema.Array(ContentKey)))

const encode = (keys: Iterable<StoredKey>): string =>
  JSON.stringify({
    version: 1,
    keys: Array.from(
      keys,
      ({ addresses, announcedMinute, copies, key, ttlSeconds }) => [
        key,
        ttlSeconds ?? 0,
        announcedMinute,
        copies,
        addresses
      ]
    )
  })
