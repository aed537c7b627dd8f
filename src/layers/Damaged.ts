/**
 * Saved lists that do not decode.
 */
import { Effect, Metric } from "effect"
import type { KeyValueStore } from "effect/persistence"
import * as NetworkMetrics from "../services/NetworkMetrics.ts"

/**
 * Moves the damaged lists to `<key>.damaged`, over those set aside before, counts them in `codio_damaged_lists_total`,
 * and names them in one warning. A list that cannot be moved stays, and is written over later.
 */
export const setAside = Effect.fnUntraced(function*(
  store: KeyValueStore.KeyValueStore,
  what: string,
  keys: ReadonlyArray<string>
) {
  if (keys.length === 0) return
  yield* Effect.forEach(keys, (key) => Effect.ignore(move(store, key)), { discard: true })
  yield* Metric.update(NetworkMetrics.damagedLists, keys.length)
  const [noun, verb] = keys.length === 1 ? ["list", "is"] : ["lists", "are"]
  yield* Effect.logWarning(
    `${keys.length} ${noun} of ${what} ${verb} damaged or of a newer version, and ${verb} set aside: ${
      keys.map((key) => `${key}.damaged`).join(", ")
    }`
  )
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// As bytes, since what is damaged need not be text.
const move = (store: KeyValueStore.KeyValueStore, key: string) =>
  Effect.flatMap(
    store.getUint8Array(key),
    (bytes) => bytes === undefined ? Effect.void : Effect.andThen(store.set(`${key}.damaged`, bytes), store.remove(key))
  )
