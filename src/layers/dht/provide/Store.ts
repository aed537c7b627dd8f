/**
 * What is saved of the provided keys: each key with its `ttl` and, coarsely, its last announcement.
 *
 * Keys lie in 32 entries of the `KeyValueStore`, `provided.00` to `provided.1f`, by position in the keyspace. Changes
 * are appended to one more entry, the journal `provided.changes`: changes that are asked for while a write is under
 * way share the next write, so that a key costs a small write, and a thousand at once hardly more. A full journal
 * (512 changes) is folded into the 32 entries and begins anew. On reading, the journal overrides the entries. Every
 * entry is replaced as a whole, so a process killed at any moment leaves what was saved.
 *
 * Times of announcements are not worth a write each. They are written with the next change of their entry, after five
 * minutes, or when the scope closes.
 *
 *     provided.xx       {"version":1,"keys":[[key, ttl in seconds or 0, minute since the epoch, copies, addresses]]}
 *     provided.changes  {"version":1,"keys":[the same, or [key] for a key that is not provided any more]}
 */
import { Effect, Latch, Schema, type Scope, Semaphore } from "effect"
import { KeyValueStore } from "effect/persistence"
import { ContentKey } from "../../../schema/Content.ts"
import * as Damaged from "../../Damaged.ts"
import * as Supervised from "../../Supervised.ts"

/** A key as it is saved. The store reads it whenever it writes its entry. */
export interface StoredKey {
  readonly key: ContentKey
  /** The first 32 bits of the key's position in the keyspace, as `Position.h0`; not written. */
  readonly h0: number
  /** How long a copy lives; undefined when the program has not said. */
  readonly ttlSeconds: number | undefined
  /** When a peer last took a copy, in whole minutes since the epoch; 0 for never. */
  readonly announcedMinute: number
  /** How many copies peers took then. */
  readonly copies: number
  /** A fingerprint of the addresses that were announced; empty for none. */
  readonly addresses: string
}

export interface Store {
  /** What was saved when the store was made. */
  readonly saved: ReadonlyArray<StoredKey>
  /** Done when the key is on disk. After a failure the saved state is as before. */
  readonly set: (stored: StoredKey) => Effect.Effect<void, KeyValueStore.KeyValueStoreError>
  /** Done when the key is gone from the disk. After a failure the saved state is as before. */
  readonly remove: (stored: StoredKey) => Effect.Effect<void, KeyValueStore.KeyValueStoreError>
  /** Notes that a key has been announced. */
  readonly touch: (stored: StoredKey) => void
}

/** How long the time of an announcement may wait to be written. */
const touchInterval = "5 minutes"

/**
 * Reads the keys and keeps them written while the scope lives. `h0Of` gives the first bits of a key's position, which
 * name its entry. A damaged entry is set aside as `<entry>.damaged`, with a warning; one that the disk does not give is
 * left as it is. The list of earlier versions is taken
 * over, and removed once all of it is written. A journal of `changesMax` changes, 35 KB, is folded.
 */
export const make = Effect.fnUntraced(function*(
  h0Of: (key: ContentKey) => number,
  changesMax = 512
): Effect.fn.Return<Store, never, KeyValueStore.KeyValueStore | Scope.Scope> {
  const store = yield* KeyValueStore.KeyValueStore
  /** The entries that the disk did not give. They may be whole, so that nothing is written over them. */
  const unreadable = new Map<string, KeyValueStore.KeyValueStoreError>()
  const write = (name: string, text: string) => {
    const error = unreadable.get(name)
    return error === undefined ? store.set(name, text) : Effect.fail(error)
  }
  const keys = new Map<ContentKey, StoredKey>()
  const parts: ReadonlyArray<Map<ContentKey, StoredKey>> = Array.from({ length: partsMax }, () => new Map())
  /** The parts that differ from their entries on disk. */
  const dirty = new Set<number>()
  const hasDirty = yield* Latch.make()
  /** The journal: what has changed since the parts were written, as JSON. */
  const changes = new Map<ContentKey, string>()
  /** For each key whose last change is not saved yet: what is saved. */
  const pending = new Map<ContentKey, { readonly entry: StoredKey | undefined; readonly text: string | undefined }>()
  const stateOf = (key: ContentKey) => ({ entry: keys.get(key), text: changes.get(key) })
  const saving = yield* Semaphore.make(1)
  /** How many changes were asked for, and how many of them are saved. */
  let version = 0
  let written = 0
  /** The list of an earlier version is still on disk. */
  let hasList = false

  const put = (key: ContentKey, h0: number, entry: StoredKey | undefined) => {
    const part = Math.floor(h0 / 2 ** 32 * partsMax)
    dirty.add(part)
    hasDirty.openUnsafe()
    if (entry === undefined) {
      keys.delete(key)
      parts[part]!.delete(key)
    } else {
      keys.set(key, entry)
      parts[part]!.set(key, entry)
    }
  }

  const saveChanges = Effect.suspend(() => {
    const writes = version
    const saves = Array.from(pending.keys(), (key) => [key, stateOf(key)] as const)
    return Effect.map(write(changesName, textOf(changes.values())), () => {
      written = writes
      for (const [key, state] of saves) {
        if (changes.get(key) === state.text) pending.delete(key)
        else pending.set(key, state)
      }
    })
  })

  /** Folds the journal: writes the parts that have changed, then drops the changes that those parts contain. */
  const fold = Effect.suspend(() => {
    hasDirty.closeUnsafe()
    const folded = new Map(changes)
    return Effect.forEach([...dirty], (part) => {
      dirty.delete(part)
      return Effect.onError(
        write(nameOf(part), textOf(Array.from(parts[part]!.values(), encode))),
        () => Effect.sync(() => dirty.add(part))
      )
    }, { discard: true }).pipe(
      Effect.andThen(Effect.suspend(() => {
        // Changes made meanwhile stay.
        for (const [key, text] of folded) if (changes.get(key) === text) changes.delete(key)
        return folded.size === 0 ? Effect.void : saveChanges
      })),
      Effect.andThen(Effect.suspend(() => hasList ? store.remove(listName) : Effect.void)),
      Effect.map(() => {
        hasList = false
      }),
      Effect.catch((error) => {
        hasDirty.openUnsafe()
        return Effect.logWarning(`provided keys are not saved: ${error.message}`)
      })
    )
  })
  /** Entries that are gone, as when the data directory was removed, are written again. */
  const missing = Effect.forEach(
    parts.entries(),
    ([part, entries]) =>
      entries.size === 0 ? Effect.void : Effect.map(store.has(nameOf(part)), (isThere) => {
        if (!isThere) dirty.add(part)
      }),
    { discard: true }
  ).pipe(Effect.ignore)
  const foldAlone = saving.withPermits(1)(
    Effect.andThen(missing, Effect.suspend(() => dirty.size > 0 || hasList ? fold : Effect.void))
  )

  /** Callers that wait for a write under way are all served by the next one. */
  const save = Effect.suspend(() => {
    const mine = ++version
    return saving.withPermits(1)(Effect.suspend(() => {
      if (written >= mine) return Effect.void
      return Effect.andThen(saveChanges, Effect.suspend(() => changes.size < changesMax ? Effect.void : fold))
    }))
  })

  const change = ({ h0, key }: StoredKey, next: StoredKey | undefined) =>
    Effect.suspend(() => {
      if (!pending.has(key)) pending.set(key, stateOf(key))
      const text = next === undefined ? endOf(key) : encode(next)
      put(key, h0, next)
      changes.set(key, text)
      return Effect.onError(save, () =>
        Effect.sync(() => {
          const state = pending.get(key)
          // When a later change of the key follows, that change restores the saved state if it fails as well.
          const latest = changes.get(key)
          if (state === undefined || (latest !== undefined && latest !== text)) return
          pending.delete(key)
          put(key, h0, state.entry)
          if (state.text === undefined) changes.delete(key)
          else changes.set(key, state.text)
        }))
    })

  // ----- what was saved

  const damaged: Array<string> = []
  const read = <A>(name: string, decode: (text: string) => Effect.Effect<A, Schema.SchemaError>) =>
    store.get(name).pipe(
      Effect.flatMap((text) => text === undefined ? Effect.undefined : decode(text)),
      Effect.catch((error) => {
        if (error instanceof Schema.SchemaError) {
          damaged.push(name)
          return Effect.undefined
        }
        unreadable.set(name, error)
        return Effect.as(
          Effect.logWarning(`${error.message}: its provided keys wait for the next start, and it is not written over`),
          undefined
        )
      })
    )
  const take = ([key, ttlSeconds = 0, announcedMinute = 0, copies = 0, addresses = ""]: Written) => {
    const h0 = h0Of(key)
    const ttl = ttlSeconds === 0 ? undefined : ttlSeconds
    put(key, h0, { key, h0, ttlSeconds: ttl, announcedMinute, copies, addresses })
  }

  yield* Effect.forEach(
    parts.keys(),
    (part) => Effect.map(read(nameOf(part), decode), (found) => found?.keys.forEach(take)),
    { concurrency: 8, discard: true }
  )
  dirty.clear()
  hasDirty.closeUnsafe()
  for (const entry of (yield* read(changesName, decode))?.keys ?? []) {
    const [key] = entry
    changes.set(key, JSON.stringify(entry))
    if (entry.length === 1) put(key, h0Of(key), undefined)
    else take(entry)
  }
  const list = yield* read(listName, decodeList)
  hasList = yield* Effect.orElseSucceed(store.has(listName), () => false)
  for (const key of list ?? []) if (!keys.has(key) && changes.get(key) !== endOf(key)) take([key])
  if (hasList) yield* foldAlone
  yield* Damaged.setAside(store, "provided keys", damaged)

  yield* Effect.addFinalizer(() => foldAlone)
  yield* Supervised.forever(
    "the saving of provided keys",
    hasDirty.await.pipe(Effect.andThen(Effect.sleep(touchInterval)), Effect.andThen(foldAlone))
  )

  return {
    saved: [...keys.values()],
    set: (stored) => change(stored, stored),
    remove: (stored) => change(stored, undefined),
    touch(stored) {
      if (keys.has(stored.key)) put(stored.key, stored.h0, stored)
    }
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The one list of earlier versions. */
const listName = "provided"
const changesName = "provided.changes"
const nameOf = (part: number) => `provided.${part.toString(16).padStart(2, "0")}`

const partsMax = 32

const Written = Schema.Union([
  Schema.Tuple([ContentKey, Schema.Int, Schema.Int, Schema.Int, Schema.String]),
  Schema.Tuple([ContentKey])
])
type Written = typeof Written.Type

const decode = Schema.decodeEffect(
  Schema.fromJsonString(Schema.Struct({ version: Schema.Literal(1), keys: Schema.Array(Written) }))
)
const decodeList = Schema.decodeEffect(Schema.fromJsonString(Schema.Array(ContentKey)))

const encode = ({ addresses, announcedMinute, copies, key, ttlSeconds }: StoredKey): string =>
  JSON.stringify([key, ttlSeconds ?? 0, announcedMinute, copies, addresses])

/** The change that says a key is not provided any more. */
const endOf = (key: ContentKey): string => JSON.stringify([key])

const textOf = (keys: Iterable<string>): string => `{"version":1,"keys":[${[...keys].join()}]}`
