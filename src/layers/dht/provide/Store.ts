/**
 * What survives of the provided keys: the keys themselves with their `ttl`, and, coarsely, when they were announced last.
 *
 * They lie in 32 entries of the `KeyValueStore`, `provided.00` to `provided.1f`, by their place in the keyspace. A change goes into one more,
 * `provided.changes`, together with all that were asked for while another was being written: as long as its 512 changes, so that a key costs
 * a small write, and a thousand at once hardly more. When it is full the entries that are concerned are written, and it begins anew; until
 * then what it says counts. Every entry is replaced as one, so a process that is killed at any moment leaves what was saved.
 *
 * The times of announcements are not worth a write each. They are written with the next change of their entry, after five minutes, or when the
 * scope closes.
 *
 *     provided.xx       {"version":1,"keys":[[key, ttl in seconds or 0, minute since the epoch, copies, addresses]]}
 *     provided.changes  {"version":1,"keys":[the same, or [key] for one that is not provided any more]}
 */
import { Effect, Latch, Schema, type Scope, Semaphore } from "effect"
import { KeyValueStore } from "effect/persistence"
import { ContentKey } from "../../../schema/Content.ts"

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
 * warning. The list of earlier versions is taken over, and removed when all of it is in its new place. With `changesMax` changes, 35 KB, the
 * entries are written.
 */
export const make = Effect.fnUntraced(function*(
  placeOf: (key: ContentKey) => number,
  changesMax = 512
): Effect.fn.Return<ProvidedKeysStore, never, KeyValueStore.KeyValueStore | Scope.Scope> {
  const store = yield* KeyValueStore.KeyValueStore
  const keys = new Map<ContentKey, StoredKey>()
  const parts: ReadonlyArray<Map<ContentKey, StoredKey>> = Array.from({ length: partsMax }, () => new Map())
  /** The parts that are not on disk as they are here. */
  const dirty = new Set<number>()
  const hasDirty = yield* Latch.make()
  /** What has changed since the parts were written, as it is written. */
  const changes = new Map<ContentKey, string>()
  /** What was saved of the keys whose last change is not. */
  const pending = new Map<ContentKey, { readonly entry: StoredKey | undefined; readonly text: string | undefined }>()
  const stateOf = (key: ContentKey) => ({ entry: keys.get(key), text: changes.get(key) })
  const saving = yield* Semaphore.make(1)
  /** The last change that was asked to be saved, and the last that has been. */
  let version = 0
  let written = 0
  /** The list of an earlier version is still there. */
  let hasList = false

  const put = (key: ContentKey, place: number, entry: StoredKey | undefined) => {
    const part = Math.floor(place / 2 ** 32 * partsMax)
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
    return Effect.map(store.set(changesName, textOf(changes.values())), () => {
      written = writes
      for (const [key, state] of saves) {
        if (changes.get(key) === state.text) pending.delete(key)
        else pending.set(key, state)
      }
    })
  })

  /** Writes the parts that have changed, and then forgets the changes that are in them. */
  const fold = Effect.suspend(() => {
    hasDirty.closeUnsafe()
    const folded = new Map(changes)
    return Effect.forEach([...dirty], (part) => {
      dirty.delete(part)
      return Effect.onError(
        store.set(nameOf(part), textOf(Array.from(parts[part]!.values(), encode))),
        () => Effect.sync(() => dirty.add(part))
      )
    }, { discard: true }).pipe(
      Effect.andThen(Effect.suspend(() => {
        // Others may have come meanwhile.
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
  const foldAlone = saving.withPermits(1)(Effect.suspend(() => dirty.size > 0 || hasList ? fold : Effect.void))

  /** Those who wait while another writes find theirs written as well. */
  const save = Effect.suspend(() => {
    const mine = ++version
    return saving.withPermits(1)(Effect.suspend(() => {
      if (written >= mine) return Effect.void
      return Effect.andThen(saveChanges, Effect.suspend(() => changes.size < changesMax ? Effect.void : fold))
    }))
  })

  const change = ({ key, place }: StoredKey, next: StoredKey | undefined) =>
    Effect.suspend(() => {
      if (!pending.has(key)) pending.set(key, stateOf(key))
      const text = next === undefined ? endOf(key) : encode(next)
      put(key, place, next)
      changes.set(key, text)
      return Effect.onError(save, () =>
        Effect.sync(() => {
          const state = pending.get(key)
          // Another change of the key may follow, and is then the one that takes it back.
          const latest = changes.get(key)
          if (state === undefined || (latest !== undefined && latest !== text)) return
          pending.delete(key)
          put(key, place, state.entry)
          if (state.text === undefined) changes.delete(key)
          else changes.set(key, state.text)
        }))
    })

  // ----- what is there

  const read = <A>(name: string, decode: (text: string) => Effect.Effect<A, Schema.SchemaError>) =>
    store.get(name).pipe(
      Effect.flatMap((text) => text === undefined ? Effect.undefined : decode(text)),
      Effect.catch((cause) =>
        Effect.as(
          Effect.logWarning(`the saved list ${name} of provided keys cannot be read; it starts anew`, cause),
          undefined
        )
      )
    )
  const take = ([key, ttlSeconds = 0, announcedMinute = 0, copies = 0, addresses = ""]: Written) => {
    const place = placeOf(key)
    const ttl = ttlSeconds === 0 ? undefined : ttlSeconds
    put(key, place, { key, place, ttlSeconds: ttl, announcedMinute, copies, addresses })
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
    if (entry.length === 1) put(key, placeOf(key), undefined)
    else take(entry)
  }
  const list = yield* read(listName, decodeList)
  hasList = yield* Effect.orElseSucceed(store.has(listName), () => false)
  for (const key of list ?? []) if (!keys.has(key) && changes.get(key) !== endOf(key)) take([key])
  if (hasList) yield* foldAlone

  yield* Effect.addFinalizer(() => foldAlone)
  yield* Effect.forkScoped(Effect.forever(
    hasDirty.await.pipe(Effect.andThen(Effect.sleep(touchInterval)), Effect.andThen(foldAlone))
  ))

  return {
    saved: [...keys.values()],
    set: (stored) => change(stored, stored),
    remove: (stored) => change(stored, undefined),
    touch(stored) {
      if (keys.has(stored.key)) put(stored.key, stored.place, stored)
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

/** Says of a key that it is not provided any more. */
const endOf = (key: ContentKey): string => JSON.stringify([key])

const textOf = (keys: Iterable<string>): string => `{"version":1,"keys":[${[...keys].join()}]}`
