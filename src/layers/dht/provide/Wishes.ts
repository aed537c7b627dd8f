/**
 * What this node is to provide: the wishes of the program, counted for each key, and saved where they are to outlive
 * the process.
 *
 * A key is provided while `startProviding` has not been stopped, or a scope of `provide` is open. A wish that cannot be
 * saved fails, and what was wished for before goes on.
 */
import { Deferred, Duration, Effect, type Latch, Option, type Scope, Semaphore } from "effect"
import { quoted, shortened } from "../../../schema/Canonical.ts"
import { type ContentKey, toBytes } from "../../../schema/Content.ts"
import { DhtError, QueryFailed, TtlInvalid } from "../../../schema/NetworkError.ts"
import type { ProvideOptions } from "../../../services/Dht.ts"
import { positionOf } from "../wire/Position.ts"
import { type Batches, type Intent, intentOf, release } from "./Batches.ts"
import type { Store } from "./Store.ts"
import type { Times } from "./Times.ts"

export interface WishesOptions {
  /** What is provided now. */
  readonly intents: {
    readonly get: (key: ContentKey) => Intent | undefined
    readonly put: (intent: Intent) => void
    readonly remove: (key: ContentKey) => void
  }
  /** Intents that are to be announced at once. */
  readonly fresh: Set<Intent>
  readonly store: Pick<Store, "set" | "remove">
  readonly times: Pick<Times<Intent>, "dueBy">
  /** In milliseconds, as `dueAt`. */
  readonly now: () => number
  /** Opened when there is something to announce. */
  readonly changed: Latch.Latch
  readonly leave: Batches["leave"]
  /** The state that `provideStatus` shows has changed. */
  readonly onProgress: () => void
}

export interface Wishes {
  /** The wish of `startProviding`. Gives the intent where it is to be announced at once. */
  readonly start: (key: ContentKey, given: ProvideOptions | undefined) => Effect.Effect<Intent | void, DhtError>
  /** The wish of `provide`, while the scope lives. */
  readonly hold: (
    key: ContentKey,
    given: ProvideOptions | undefined
  ) => Effect.Effect<Intent | void, DhtError, Scope.Scope>
  readonly stop: (key: ContentKey) => Effect.Effect<void, DhtError>
}

export const make = ({ changed, fresh, intents, leave, now, onProgress, store, times }: WishesOptions): Wishes => {
  /** How many scopes of `provide` hold a key. A key is provided while it has a lasting wish, or one of them. */
  const scopes = new Map<ContentKey, number>()
  const isHeld = ({ isLasting, key }: Intent) => isLasting || scopes.has(key)

  const drop = (intent: Intent) =>
    Effect.suspend(() => {
      if (intents.get(intent.key) === intent) intents.remove(intent.key)
      fresh.delete(intent)
      release(intent)
      onProgress()
      return leave(intent)
    })

  /** Saving the intent failed: what was before goes on, as far as it is still wished for. */
  const undo = (intent: Intent, before: Intent | undefined) =>
    Effect.suspend(() => {
      if (before === undefined || before === intent) intent.isLasting = false
      const kept = before ?? intent
      if (!isHeld(kept)) return Effect.andThen(drop(intent), drop(kept))
      intents.put(kept)
      times.dueBy(kept, before === undefined ? now() : before.dueAt)
      return changed.open
    })

  const save = (operation: Operation, intent: Intent, before: Intent | undefined) =>
    store.set(intent).pipe(
      Effect.mapError(failed(operation, intent.key)),
      Effect.onError(() => undo(intent, before))
    )

  /** Records a wish. Gives the intent where it is to be announced at once. */
  const record = Effect.fnUntraced(function*({ isLasting, isOptimistic, key, ttlSeconds }: Wish) {
    const before = intents.get(key)
    if (before !== undefined && before.ttlSeconds === ttlSeconds) {
      if (!isLasting || before.isLasting) return
      before.isLasting = true
      return yield* save(operationOf(isLasting), before, before)
    }
    const saved = { key, h0: h0Of(key), ttlSeconds, announcedMinute: 0, copies: 0, addresses: "" }
    const intent = intentOf(saved)
    intent.isOptimistic = isOptimistic
    intent.isLasting = isLasting || before?.isLasting === true
    intents.put(intent)
    if (before !== undefined) fresh.delete(before)
    if (intent.isLasting) {
      // Not due before it is saved, whatever changes meanwhile.
      intent.isSaving = true
      yield* Effect.ensuring(
        save(operationOf(isLasting), intent, before),
        Effect.sync(() => {
          intent.isSaving = false
        })
      )
    }
    intent.dueAt = now()
    intent.waiter = Deferred.makeUnsafe<void>()
    fresh.add(intent)
    yield* changed.open
    if (before !== undefined) yield* drop(before)
    return intent
  })

  /** One caller at a time changes what is saved of a key, so that a failure takes back that caller's wish alone. */
  const alone = turns<ContentKey>()

  /** Records a wish, with the options of the latest call. A scope waits only when it changes what is saved. */
  const want = Effect.fnUntraced(function*(key: ContentKey, given: ProvideOptions | undefined, isLasting: boolean) {
    const ttl = yield* ttlOf(operationOf(isLasting), key, given)
    const ttlSeconds = ttl === undefined ? undefined : Math.ceil(Duration.toSeconds(ttl))
    const wish = { key, ttlSeconds, isOptimistic: given?.optimistic === true, isLasting }
    const before = intents.get(key)
    const isSaved = isLasting || (before?.isLasting === true && before.ttlSeconds !== ttlSeconds)
    return yield* isSaved ? alone(key, record(wish)) : record(wish)
  })

  const count = (key: ContentKey) => scopes.set(key, (scopes.get(key) ?? 0) + 1)
  const letGo = (key: ContentKey) =>
    Effect.suspend(() => {
      const left = scopes.get(key)! - 1
      if (left > 0) scopes.set(key, left)
      else scopes.delete(key)
      const intent = intents.get(key)
      return intent === undefined || isHeld(intent) ? Effect.void : drop(intent)
    })

  const stop = Effect.fnUntraced(function*(key: ContentKey) {
    const intent = intents.get(key)
    if (intent === undefined || !intent.isLasting) return
    intent.isLasting = false
    // Before it is saved, so that nothing more is written to peers meanwhile.
    if (!isHeld(intent)) intents.remove(key)
    yield* store.remove(intent).pipe(
      Effect.mapError(failed("stopProviding", key)),
      // A key whose end cannot be saved goes on as before, and a second call tries again.
      Effect.onError(() => {
        const left = intents.get(key) ?? intent
        left.isLasting = true
        intents.put(left)
        times.dueBy(left, left.dueAt)
        return changed.open
      })
    )
    if (!isHeld(intent)) yield* drop(intent)
  })

  return {
    start: (key, given) => want(key, given, true),
    hold: (key, given) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          count(key)
          return Effect.onError(want(key, given, false), () => letGo(key))
        }),
        () => letGo(key)
      ),
    stop: (key) => alone(key, stop(key))
  }
}

/**
 * The `ttl` of the options, where they have one. Fails with `TtlInvalid` when it is no duration, or is not between 1
 * minute and 24 hours.
 */
export const ttlOf = (
  operation: Operation,
  key: ContentKey,
  options: ProvideOptions | undefined
): Effect.Effect<Duration.Duration | undefined, DhtError> => {
  const given = options?.ttl
  if (given === undefined) return Effect.succeed(undefined)
  const ttl = Option.getOrUndefined(Duration.fromInput(given))
  if (ttl !== undefined && Duration.between(ttl, { minimum: ttlMin, maximum: ttlMax })) return Effect.succeed(ttl)
  // Of an object that is no duration effect makes the duration zero.
  const text = ttl === undefined || Duration.isZero(ttl)
    ? typeof given === "string" ? quoted(given) : shortened(given)
    : Duration.format(ttl)
  return Effect.fail(
    new DhtError({ operation, subject: key, reason: new TtlInvalid({ ttl: text }) })
  )
}

/** The first bits of a key's position, which order the keys. */
export const h0Of = (key: ContentKey): number => positionOf(toBytes(key)).h0

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How a program wishes for a key. */
type Operation = "startProviding" | "provide"

interface Wish {
  readonly key: ContentKey
  readonly ttlSeconds: number | undefined
  readonly isOptimistic: boolean
  readonly isLasting: boolean
}

const operationOf = (isLasting: boolean): Operation => isLasting ? "startProviding" : "provide"

/** Runs effects of one key one after another. */
const turns = <K>() => {
  const waiting = new Map<K, { readonly turn: Semaphore.Semaphore; count: number }>()
  return <A, E>(key: K, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const entry = waiting.get(key) ?? { turn: Semaphore.makeUnsafe(1), count: 0 }
        entry.count++
        waiting.set(key, entry)
        return entry
      }),
      ({ turn }) => turn.withPermits(1)(effect),
      (entry) =>
        Effect.sync(() => {
          if (--entry.count === 0) waiting.delete(key)
        })
    )
}

const ttlMin = Duration.minutes(1)
const ttlMax = Duration.hours(24)

/** An error of the DHT for whatever its implementation fails with. */
const failed = (operation: DhtError["operation"], subject: string) => (cause: unknown): DhtError =>
  new DhtError({
    operation,
    subject,
    reason: new QueryFailed({ detail: cause instanceof Error ? cause.message : String(cause), cause })
  })
