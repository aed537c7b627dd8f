/**
 * The keys that this node provides: kept in the `KeyValueStore`, announced in batches through whatever DHT is given.
 *
 * A key is announced when it is new, when no peer took it, when its copies are about to expire, when this node has
 * other addresses, when peers have come while copies are missing, and when less than half of the peers that should have
 * taken it did: after a minute, then ever later, up to an hour. New keys go first; the others go by region of the
 * keyspace (`Times`).
 *
 * Nothing is announced while no peer could take a copy, or while this node has no address (`Takers`); announcing goes
 * on as soon as a taker comes. While the node is isolated, one batch at a time is tried, on the schedule of retries;
 * with the first connected peer, or the first copy, all keys go on at once.
 */
import { Clock, Deferred, Duration, Effect, type Latch, type Schedule, type Scope } from "effect"
import type { KeyValueStore } from "effect/persistence"
import * as Elapsed from "../../Elapsed.ts"
import { type ContentKey, toBytes } from "../../../schema/Content.ts"
import { ProvideStatus } from "../../../schema/ProvideStatus.ts"
import type { Dht } from "../../../services/Dht.ts"
import * as Backoff from "../../Backoff.ts"
import { keyOf } from "../wire/Nodes.ts"
import * as Supervised from "../../Supervised.ts"
import * as Batches from "./Batches.ts"
import { batchKeysMax, type Intent, intentOf } from "./Batches.ts"
import * as Progress from "./Progress.ts"
import * as Store from "./Store.ts"
import * as Takers from "./Takers.ts"
import { isShort } from "./Takers.ts"
import * as Times from "./Times.ts"
import * as Wishes from "./Wishes.ts"

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
  const store = yield* Store.make(Wishes.h0Of)
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
      // It is announced as soon as it is saved.
      if (intent.isSaving) continue
      const isElsewhere = hasMoved && intent.until > 0 && intent.addresses !== addresses
      // In another network the waits begin anew.
      if (isElsewhere && intent.few !== undefined) intent.few = { ...intent.few, since: now }
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

  yield* Supervised.forever(
    "announcements",
    Effect.gen(function*() {
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
    })
  )

  // ----- what was saved

  const startedAt = clockNow()
  for (const saved of store.saved) {
    const intent = intentOf(saved)
    // The wall clock may have been set back since.
    const announcedAt = Math.min(saved.announcedMinute * 60_000, startedAt)
    if (saved.announcedMinute > 0) intent.until = announcedAt + intent.lifeMillis
    put(intent)
  }
  for (const intent of intents.values()) times.resume(intent, startedAt, intent.until - intent.lifeMillis)
  yield* changed.open

  const wishes = Wishes.make({
    intents: { get: (key) => intents.get(key), put, remove },
    fresh,
    store,
    times,
    now: clockNow,
    changed,
    leave: batches.leave,
    onProgress: progress.changed
  })

  /** Waits a second at most for the first copies: a peer that is told of the key now should find it. */
  const firstCopies = Effect.fnUntraced(function*(intent: Intent | void) {
    const waiter = intent?.waiter
    if (waiter === undefined || takers.isIsolated() || options.addresses().length === 0) return
    if (yield* options.hasTakers) yield* Effect.timeoutOption(Deferred.await(waiter), "1 second")
  })

  return {
    isProvided: (key) => names.has(keyOf(key)),
    startProviding: Effect.fn("Dht.startProviding")(function*(key, given) {
      yield* firstCopies(yield* wishes.start(key, given))
    }),
    provide: Effect.fn("Dht.provide")(function*(key, given) {
      yield* firstCopies(yield* wishes.hold(key, given))
    }),
    stopProviding: Effect.fn("Dht.stopProviding")((key) => wishes.stop(key)),
    provideStatus: progress.status
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How far the intents are announced. */
const tally = (
  intents: Iterable<Intent>,
  now: number
): Pick<ProvideStatus, "queued" | "announced" | "copies" | "crowded" | "lag"> => {
  let queued = 0
  let announced = 0
  let crowded = 0
  let least = Infinity
  let sum = 0
  let lag = 0
  for (const { batch, copies, dueAt, isCrowded, until } of intents) {
    if (batch !== undefined || dueAt <= now) {
      queued++
      lag = Math.max(lag, now - dueAt)
    }
    if (now >= until) continue
    announced++
    if (isCrowded) crowded++
    sum += copies
    least = Math.min(least, copies)
  }
  return {
    queued,
    announced,
    crowded,
    copies: announced === 0 ? { least: 0, mean: 0 } : { least, mean: sum / announced },
    lag: Duration.millis(lag)
  }
}

const nameOf = (key: ContentKey): string => keyOf(toBytes(key))
