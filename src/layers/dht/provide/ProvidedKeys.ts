/**
 * The keys that this node provides: kept in the `KeyValueStore`, announced in batches through whatever DHT is given.
 *
 * Wishes are counted here. A key is provided while `startProviding` has not been stopped, or a scope of `provide` is
 * open.
 *
 * A key is announced when it is new, when no peer took it, when its copies are about to expire, when this node has
 * other addresses, when peers have come while copies are missing, and after an hour when less than half of the peers
 * that should have taken it did. New keys go first; the others go by region of the keyspace (`Times`).
 *
 * Nothing is announced while no peer could take a copy, or while this node has no address (`Takers`); announcing goes
 * on as soon as a taker comes. While the node is isolated, one batch at a time is tried, on the schedule of retries;
 * with the first connected peer, or the first copy, all keys go on at once.
 */
import { Clock, Deferred, Duration, Effect, type Latch, Option, type Schedule, type Scope, Semaphore } from "effect"
import type { KeyValueStore } from "effect/persistence"
import * as Elapsed from "../../Elapsed.ts"
import { type ContentKey, toBytes } from "../../../schema/Content.ts"
import { DhtError, QueryFailed, TtlInvalid } from "../../../schema/NetworkError.ts"
import { ProvideStatus } from "../../../schema/ProvideStatus.ts"
import type { Dht, ProvideOptions } from "../../../services/Dht.ts"
import * as Backoff from "../../Backoff.ts"
import { keyOf } from "../wire/Nodes.ts"
import { positionOf } from "../wire/Position.ts"
import * as Batches from "./Batches.ts"
import { batchKeysMax, type Intent, release } from "./Batches.ts"
import * as Progress from "./Progress.ts"
import * as Store from "./Store.ts"
import * as Takers from "./Takers.ts"
import { isShort } from "./Takers.ts"
import * as Times from "./Times.ts"

export interface ProvidedKeysOptions
  extends Takers.TakersOptions, Pick<Batches.BatchesOptions, "announce" | "copies" | "retry">
{
  /** Whether there are takers, or about to be. */
  readonly hasTakers: Effect.Effect<boolean>
  /**
   * Opened when there may be another taker, or other addresses of this node; when the first taker is connected, and
   * when none is any more.
   */
  readonly changed: Latch.Latch
  /** Its first wait, drawn once, is the time between announcements that reached a peer; at most half of the `ttl`. */
  readonly republish: Schedule.Schedule<unknown>
}

export interface ProvidedKeys
  extends Pick<Dht["Service"], "startProviding" | "stopProviding" | "provide" | "provideStatus">
{
  /**
   * Whether this node provides the key of these bytes: asked for every question about providers, so that it costs no
   * base58.
   */
  readonly isProvided: (key: Uint8Array) => boolean
}

/**
 * Takes up the keys of the `KeyValueStore`, and announces them and those to come while the scope lives.
 */
export const make = Effect.fnUntraced(function*(
  options: ProvidedKeysOptions
): Effect.fn.Return<ProvidedKeys, never, KeyValueStore.KeyValueStore | Scope.Scope> {
  const { changed } = options
  const clock = yield* Clock.Clock
  // Copies expire elsewhere while the machine sleeps, and a renewal that comes early does no harm.
  const clockNow = Elapsed.withSleep(clock)
  const store = yield* Store.make(h0Of)
  const intents = new Map<ContentKey, Intent>()
  /** The keys of the intents by their bytes, as text. */
  const names = new Set<string>()
  const period = yield* Effect.flatMap(Backoff.make<void>(options.republish), (schedule) => schedule.next())
  const times = Times.make<Intent>({
    republishMillis: period === undefined ? Infinity : Duration.toMillis(period),
    size: () => intents.size
  })
  /** Keys never announced, or not since they were given another ttl. They are announced as soon as possible. */
  const fresh = new Set<Intent>()
  const takers = Takers.make(options)

  const progress = Progress.make(Effect.sync(() => {
    const now = clockNow()
    const paused = takers.paused()
    const lastCycle = batches.lastCycle()
    return new ProvideStatus({
      ...tally(intents.values(), now),
      keys: intents.size,
      ...lastCycle === undefined ? {} : { lastCycle },
      ...paused === undefined ? {} : { paused }
    })
  }))

  const put = (intent: Intent) => {
    intents.set(intent.key, intent)
    names.add(nameOf(intent.key))
  }

  const remove = (key: ContentKey) => {
    intents.delete(key)
    names.delete(nameOf(key))
  }

  // ----- what has changed

  const observe = (now: number) => {
    const { count, hasMoved, isBack, isMore } = takers.look()
    if (!hasMoved && !isBack && !isMore) return
    const { addresses } = takers.now()
    for (const intent of intents.values()) {
      const isElsewhere = hasMoved && intent.until > 0 && intent.addresses !== addresses
      const isWorthMore = isMore && !fresh.has(intent) && isShort(intent.copies, options.copies, count)
      if (intent.batch === undefined && (isElsewhere || isWorthMore)) times.settle(intent, now)
      if (isBack && intent.copies === 0) times.dueBy(intent, now)
    }
  }

  // ----- announcing

  const batches = yield* Batches.make({
    ...options,
    clockNow,
    takers,
    times,
    isCurrent: (intent) => intents.get(intent.key) === intent,
    onAnnounced: store.touch,
    onProgress: () => progress.changed()
  })

  const start = (chosen: ReadonlyArray<Intent>, isRenewal: boolean) => {
    for (const intent of chosen) fresh.delete(intent)
    return batches.start(chosen, isRenewal)
  }

  const takeDue = (now: number) =>
    times.takeDue([...intents.values()].filter((intent) => intent.batch === undefined && !fresh.has(intent)), now)

  yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
    yield* changed.close
    const now = clockNow()
    observe(now)
    progress.changed()
    if (takers.isReachable()) {
      while (fresh.size > 0 && batches.mayStart(false)) {
        // Too many for one batch: neighbours go together, since they share lookups.
        const all = fresh.size > batchKeysMax ? [...fresh].sort((a, b) => a.h0 - b.h0) : [...fresh]
        yield* start(all.slice(0, batchKeysMax), false)
      }
      const due = times.nextDueAt() <= now && batches.mayStart(true) ? takeDue(now) : []
      while (due.length > 0 && batches.mayStart(true)) yield* start(due.splice(0, batchKeysMax), true)
      for (const intent of due) times.dueBy(intent, intent.dueAt)
    }
    const next = times.nextDueAt()
    const isWaiting = !takers.isReachable() || next === Infinity || !batches.mayStart(true)
    yield* isWaiting ? changed.await : Effect.timeoutOption(changed.await, Math.max(1, next - now))
  })))

  // ----- what was saved

  const intentOf = (saved: Store.StoredKey, dueAt: number): Intent => ({
    ...saved,
    lifeMillis: saved.ttlSeconds === undefined ? lifeMillisMax : saved.ttlSeconds * 1000,
    dueAt,
    until: 0,
    retry: undefined,
    batch: undefined,
    isOptimistic: false,
    isLasting: true,
    waiter: undefined
  })

  const startedAt = clockNow()
  for (const saved of store.saved) {
    const intent = intentOf(saved, Infinity)
    // The wall clock may have been set back since.
    const announcedAt = Math.min(saved.announcedMinute * 60_000, startedAt)
    if (saved.announcedMinute > 0) intent.until = announcedAt + intent.lifeMillis
    put(intent)
  }
  for (const intent of intents.values()) times.resume(intent, startedAt, intent.until - intent.lifeMillis)
  yield* changed.open

  // ----- wishes

  /** How many scopes of `provide` hold a key. A key is provided while it has a lasting wish, or one of them. */
  const scopes = new Map<ContentKey, number>()
  const isHeld = ({ isLasting, key }: Intent) => isLasting || scopes.has(key)

  const drop = (intent: Intent) =>
    Effect.suspend(() => {
      if (intents.get(intent.key) === intent) remove(intent.key)
      fresh.delete(intent)
      release(intent)
      progress.changed()
      return batches.leave(intent)
    })

  /** Saving the intent failed: what was before goes on, as far as it is still wished for. */
  const undo = (intent: Intent, before: Intent | undefined) =>
    Effect.suspend(() => {
      if (before === undefined || before === intent) intent.isLasting = false
      const kept = before ?? intent
      if (!isHeld(kept)) return Effect.andThen(drop(intent), drop(kept))
      put(kept)
      times.dueBy(kept, before === undefined ? clockNow() : before.dueAt)
      return changed.open
    })

  const save = (intent: Intent, before: Intent | undefined) =>
    store.set(intent).pipe(
      Effect.mapError(failed("startProviding", intent.key)),
      Effect.onError(() => undo(intent, before))
    )

  /** Records a wish. Gives the intent where it is to be announced at once. */
  const record = Effect.fnUntraced(function*({ isLasting, isOptimistic, key, ttlSeconds }: Wish) {
    const before = intents.get(key)
    if (before !== undefined && before.ttlSeconds === ttlSeconds) {
      if (!isLasting || before.isLasting) return
      before.isLasting = true
      return yield* save(before, before)
    }
    const saved = { key, h0: h0Of(key), ttlSeconds, announcedMinute: 0, copies: 0, addresses: "" }
    // Not due before it is saved.
    const intent = intentOf(saved, Infinity)
    intent.isOptimistic = isOptimistic
    intent.isLasting = isLasting || before?.isLasting === true
    put(intent)
    if (before !== undefined) fresh.delete(before)
    if (intent.isLasting) yield* save(intent, before)
    intent.dueAt = clockNow()
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
    const ttl = yield* ttlOf(key, given)
    const ttlSeconds = ttl === undefined ? undefined : Math.ceil(Duration.toSeconds(ttl))
    const wish = { key, ttlSeconds, isOptimistic: given?.optimistic === true, isLasting }
    const before = intents.get(key)
    const isSaved = isLasting || (before?.isLasting === true && before.ttlSeconds !== ttlSeconds)
    return yield* isSaved ? alone(key, record(wish)) : record(wish)
  })

  /** Waits a second at most for the first copies: a peer that is told of the key now should find it. */
  const firstCopies = Effect.fnUntraced(function*(intent: Intent | void) {
    const waiter = intent?.waiter
    if (waiter === undefined || takers.isIsolated() || options.addresses().length === 0) return
    if (yield* options.hasTakers) yield* Effect.timeoutOption(Deferred.await(waiter), "1 second")
  })

  const hold = (key: ContentKey) => scopes.set(key, (scopes.get(key) ?? 0) + 1)
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
    if (!isHeld(intent)) remove(key)
    yield* store.remove(intent).pipe(
      Effect.mapError(failed("stopProviding", key)),
      // A key whose end cannot be saved goes on as before, and a second call tries again.
      Effect.onError(() => {
        const left = intents.get(key) ?? intent
        left.isLasting = true
        put(left)
        times.dueBy(left, left.dueAt)
        return changed.open
      })
    )
    if (!isHeld(intent)) yield* drop(intent)
  })

  return {
    isProvided: (key) => names.has(keyOf(key)),
    startProviding: Effect.fn("Dht.startProviding")(function*(key, given) {
      yield* firstCopies(yield* want(key, given, true))
    }),
    provide: Effect.fn("Dht.provide")(function*(key, given) {
      const intent = yield* Effect.acquireRelease(
        Effect.suspend(() => {
          hold(key)
          return Effect.onError(want(key, given, false), () => letGo(key))
        }),
        () => letGo(key)
      )
      yield* firstCopies(intent)
    }),
    stopProviding: Effect.fn("Dht.stopProviding")((key) => alone(key, stop(key))),
    provideStatus: progress.status
  }
})

/**
 * The `ttl` of the options, where they have one. Fails with `TtlInvalid` when it is no duration, or is not between 1
 * minute and 24 hours.
 */
export const ttlOf = (
  key: ContentKey,
  options: ProvideOptions | undefined
): Effect.Effect<Duration.Duration | undefined, DhtError> => {
  const given = options?.ttl
  if (given === undefined) return Effect.succeed(undefined)
  const ttl = Option.getOrUndefined(Duration.fromInput(given))
  if (ttl !== undefined && Duration.between(ttl, { minimum: ttlMin, maximum: ttlMax })) return Effect.succeed(ttl)
  const text = ttl === undefined ? JSON.stringify(given) : Duration.format(ttl)
  return Effect.fail(
    new DhtError({ operation: "startProviding", subject: key, reason: new TtlInvalid({ ttl: text }) })
  )
}

/** An error of the DHT for whatever its implementation fails with. */
export const failed = (operation: DhtError["operation"], subject: string) => (cause: unknown): DhtError =>
  new DhtError({
    operation,
    subject,
    reason: new QueryFailed({ detail: cause instanceof Error ? cause.message : String(cause), cause })
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How far the intents are announced. */
const tally = (
  intents: Iterable<Intent>,
  now: number
): Pick<ProvideStatus, "queued" | "announced" | "copies" | "lag"> => {
  let queued = 0
  let announced = 0
  let least = Infinity
  let sum = 0
  let lag = 0
  for (const { batch, copies, dueAt, until } of intents) {
    if (batch !== undefined || dueAt <= now) {
      queued++
      lag = Math.max(lag, now - dueAt)
    }
    if (now >= until) continue
    announced++
    sum += copies
    least = Math.min(least, copies)
  }
  return {
    queued,
    announced,
    copies: announced === 0 ? { least: 0, mean: 0 } : { least, mean: sum / announced },
    lag: Duration.millis(lag)
  }
}

interface Wish {
  readonly key: ContentKey
  readonly ttlSeconds: number | undefined
  readonly isOptimistic: boolean
  readonly isLasting: boolean
}

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

/** How long the servers of every implementation keep a record at least. */
const lifeMillisMax = Duration.toMillis("24 hours")

const h0Of = (key: ContentKey): number => positionOf(toBytes(key)).h0

const nameOf = (key: ContentKey): string => keyOf(toBytes(key))
