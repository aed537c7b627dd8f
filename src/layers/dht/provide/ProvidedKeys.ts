/**
 * The keys that this node provides: kept in the `KeyValueStore`, announced in batches through whatever DHT is given.
 *
 * A key is announced when it is new, when nobody took it, when its copies are about to expire, when this node has other addresses, when peers
 * have come while there are few copies, and after an hour when less than half of those that should have taken it did. New keys go first; the
 * others go by region of the keyspace, as `ProvideTimes` says.
 *
 * Nothing is announced while nobody could take it, or while there is no address to tell (`ProvideTakers`); it is taken up as soon as somebody
 * comes. While the node is isolated one batch at a time is tried, on the schedule of the retries; all goes on at once with the first that is
 * connected, or with the first copy.
 */
import {
  Clock,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Fiber,
  FiberSet,
  type Latch,
  Option,
  Schedule,
  type Scope
} from "effect"
import type { KeyValueStore } from "effect/persistence"
import { type ContentKey, toBytes } from "../../../schema/Content.ts"
import { DhtError, QueryFailed, TtlInvalid } from "../../../schema/NetworkError.ts"
import { type ProvideCycle, ProvideStatus } from "../../../schema/ProvideStatus.ts"
import type { Dht, ProvideOptions } from "../../../services/Dht.ts"
import { keyOf } from "../wire/Nodes.ts"
import { positionOf } from "../wire/Position.ts"
import * as ProvidedKeysStore from "./Store.ts"
import * as ProvideProgress from "./Progress.ts"
import * as ProvideTakers from "./Takers.ts"
import * as ProvideTimes from "./Times.ts"

/** A key to be announced. */
export interface AnnouncedKey {
  readonly key: ContentKey
  /** How long the copies shall live, where the program has said so. */
  readonly ttlSeconds: number | undefined
  /** Somebody waits for {@link ProvideBatch.written} rather than for the copies. */
  readonly isOptimistic: boolean
}

/** Keys that are announced together. */
export interface ProvideBatch {
  /** At least one, in the order of their places in the keyspace. */
  readonly keys: ReadonlyArray<AnnouncedKey>
  /** Whether the key is still provided: asked before it is written to a peer. */
  readonly isWanted: (key: ContentKey) => boolean
  /** Tells that the key has been written to the closest peers that are known, and is about to be confirmed. */
  readonly written: (key: ContentKey) => void
  /** Tells how many have acknowledged a copy; once for each key. A key that is not told of was not announced. */
  readonly announced: (key: ContentKey, copies: number) => void
}

/** What announcing a batch took. A message is what is written to a peer at a time, together with the answer. */
export interface ProvideCost {
  readonly lookups: number
  readonly messages: number
}

export interface ProvidedKeysOptions extends ProvideTakers.ProvideTakersOptions {
  /** Announces the keys. Interruption ends it. At most eight batches are under way at once, two of which are renewals. */
  readonly announce: (batch: ProvideBatch) => Effect.Effect<ProvideCost, unknown>
  /** Whether there are takers, or about to be. */
  readonly hasTakers: Effect.Effect<boolean>
  /** Opened when there may be somebody new to tell, or something new to tell of this node; when the first taker is connected, or none any more. */
  readonly changed: Latch.Latch
  /** How many copies there should be. */
  readonly copies: number
  /** The waits after an announcement that reached nobody; at most a quarter of the `ttl`. */
  readonly retry: Schedule.Schedule<unknown>
  /** Its first wait, drawn once, is the time between announcements that reached somebody; at most half of the `ttl`. */
  readonly republish: Schedule.Schedule<unknown>
}

export interface ProvidedKeys
  extends Pick<Dht["Service"], "startProviding" | "stopProviding" | "provide" | "provideStatus">
{
  /** Whether this node provides the key of these bytes: asked for every question about providers, so that it costs no base58. */
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
  const clockNow = () => clock.currentTimeMillisUnsafe()
  const store = yield* ProvidedKeysStore.make(placeOf)
  const intents = new Map<ContentKey, Intent>()
  /** The bytes of their keys. */
  const names = new Set<string>()
  const times = ProvideTimes.make<Intent>({
    republishMillis: yield* ProvideTimes.nextWait(yield* Schedule.toStep(options.republish), clockNow()),
    size: () => intents.size
  })
  /** Those that were never announced, or have another ttl since. They do not wait for a time. */
  const fresh = new Set<Intent>()
  const underWay = new Set<Running>()
  const fibers = yield* FiberSet.make<void>()
  const takers = ProvideTakers.make(options)
  let lastCycle: ProvideCycle | undefined
  let cycle = { from: 0, keys: 0, lookups: 0, messages: 0 }

  const progress = ProvideProgress.make((now) => {
    let queued = 0
    let announced = 0
    let least = Infinity
    let sum = 0
    let lag = 0
    for (const { batch, copies, dueAt, until } of intents.values()) {
      if (batch !== undefined || dueAt <= now) {
        queued++
        lag = Math.max(lag, now - dueAt)
      }
      if (now >= until) continue
      announced++
      sum += copies
      least = Math.min(least, copies)
    }
    const paused = takers.paused()
    return new ProvideStatus({
      keys: intents.size,
      queued,
      announced,
      copies: { least: announced === 0 ? 0 : least, mean: announced === 0 ? 0 : sum / announced },
      ...lastCycle === undefined ? {} : { lastCycle },
      lag: Duration.millis(lag),
      ...paused === undefined ? {} : { paused }
    })
  })

  const put = (intent: Intent) => {
    intents.set(intent.key, intent)
    names.add(nameOf(intent.key))
  }

  const remove = (key: ContentKey) => {
    intents.delete(key)
    names.delete(nameOf(key))
  }

  // ----- what is new

  /** Whether the peers that have come since could take copies that are missing. */
  const isShort = ({ copies }: Intent, count: number) =>
    copies < count && copies < (count > 2 * options.copies ? options.copies / 2 : options.copies)

  const observe = (now: number) => {
    const { count, hasMoved, isBack, isMore } = takers.look()
    if (!hasMoved && !isBack && !isMore) return
    const { addresses } = takers.now()
    for (const intent of intents.values()) {
      const isElsewhere = hasMoved && intent.until > 0 && intent.addresses !== addresses
      const isWorthMore = isMore && !fresh.has(intent) && isShort(intent, count)
      if (intent.batch === undefined && (isElsewhere || isWorthMore)) times.settle(intent, now)
      if (isBack && intent.copies === 0) times.dueBy(intent, now)
    }
  }

  // ----- batches

  const announced = (batch: Running, intent: Intent | undefined, copies: number) => {
    if (intent === undefined || intent.batch !== batch) return
    intent.copies = copies
    if (copies === 0) return
    const now = clockNow()
    if (takers.heard()) changed.openUnsafe()
    intent.until = now + intent.lifeMillis
    intent.announcedMinute = Math.floor(now / 60_000)
    intent.addresses = batch.began.addresses
    intent.retry = undefined
    intent.batch = undefined
    times.renew(intent, now)
    const { addresses, arrivals } = takers.now()
    const isOutdated = batch.began.addresses !== addresses ||
      (batch.began.arrivals !== arrivals && isShort(intent, takers.count()))
    if (isOutdated) times.settle(intent, now)
    if (copies < options.copies / 2 && copies < takers.count() / 2) times.fillUp(intent, now)
    store.touch(intent)
    release(intent)
    progress.changed()
  }

  /** Whoever was not told of is tried again, those that failed together together. */
  const finish = Effect.fnUntraced(function*(batch: Running) {
    const left = [...batch.intents.values()].filter((intent) => intent.batch === batch)
    const retry = { step: yield* Schedule.toStep(options.retry) }
    const now = clockNow()
    const waits = new Map<Retry, number>()
    // Whoever came too late for this batch is asked at once.
    const isOutdated = batch.began.wasAlone && !takers.now().wasAlone
    for (const intent of left) {
      intent.batch = undefined
      intent.copies = 0
      intent.retry ??= retry
      const wait = isOutdated ? 0 : waits.get(intent.retry) ?? (yield* ProvideTimes.nextWait(intent.retry.step, now))
      waits.set(intent.retry, wait)
      intent.dueAt = Infinity
      // Also one that has been stopped, of which the end may turn out not to be saved.
      times.dueBy(intent, now + Math.min(wait, intent.lifeMillis / 4))
    }
    const isWanted = left.some((intent) => intents.get(intent.key) === intent)
    if (left.length === batch.intents.size && isWanted && !isOutdated) takers.unheard()
    cycle.keys += batch.intents.size
    underWay.delete(batch)
    if (underWay.size === 0) {
      const { from, ...counts } = cycle
      lastCycle = { at: DateTime.toUtc(DateTime.makeUnsafe(now)), duration: Duration.millis(now - from), ...counts }
    }
    if (left.length > 0) {
      yield* Effect.logDebug(`announced ${batch.intents.size} keys, ${left.length} of them to nobody`)
    }
    progress.changed()
    yield* changed.open
  })

  const start = (chosen: ReadonlyArray<Intent>, isRenewal: boolean) =>
    Effect.suspend(() => {
      const sorted = chosen.toSorted((a, b) => a.place - b.place)
      const batch: Running = {
        intents: new Map(sorted.map((intent) => [intent.key, intent])),
        began: takers.now(),
        isRenewal,
        fiber: undefined
      }
      for (const intent of sorted) {
        intent.batch = batch
        fresh.delete(intent)
      }
      if (underWay.size === 0) cycle = { from: clockNow(), keys: 0, lookups: 0, messages: 0 }
      underWay.add(batch)
      const intentOf = (key: ContentKey) => {
        const intent = batch.intents.get(key)
        return intents.get(key) === intent ? intent : undefined
      }
      return options.announce({
        keys: sorted.map(({ isOptimistic, key, ttlSeconds }) => ({ key, ttlSeconds, isOptimistic })),
        isWanted: (key) => intentOf(key) !== undefined,
        written: (key) => release(intentOf(key)),
        announced: (key, copies) => announced(batch, intentOf(key), copies)
      }).pipe(
        Effect.timeoutOption(Duration.millis(60_000 + 250 * sorted.length)),
        Effect.tap((cost) =>
          Effect.sync(() => {
            if (Option.isNone(cost)) return
            cycle.lookups += cost.value.lookups
            cycle.messages += cost.value.messages
          })
        ),
        Effect.catch((error) => Effect.logDebug(`announcing ${sorted.length} keys failed`, error)),
        Effect.ensuring(finish(batch)),
        Effect.asVoid,
        (run) => FiberSet.run(fibers, run),
        Effect.map((fiber) => {
          batch.fiber = fiber
        })
      )
    })

  const countOf = (isRenewal: boolean) => {
    let count = 0
    for (const batch of underWay) if (batch.isRenewal === isRenewal) count++
    return count
  }

  const mayStart = (isRenewal: boolean) =>
    takers.isIsolated() ? underWay.size === 0 : countOf(isRenewal) < (isRenewal ? renewalsMax : urgentMax)

  const takeDue = (now: number) =>
    times.takeDue([...intents.values()].filter((intent) => intent.batch === undefined && !fresh.has(intent)), now)

  yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
    yield* changed.close
    const now = clockNow()
    observe(now)
    progress.changed()
    if (takers.isReachable()) {
      while (fresh.size > 0 && mayStart(false)) {
        // Of many those that are neighbours.
        const all = fresh.size > batchKeysMax ? [...fresh].sort((a, b) => a.place - b.place) : [...fresh]
        yield* start(all.slice(0, batchKeysMax), false)
      }
      const due = times.nextDueAt() <= now && mayStart(true) ? takeDue(now) : []
      while (due.length > 0 && mayStart(true)) yield* start(due.splice(0, batchKeysMax), true)
      for (const intent of due) times.dueBy(intent, intent.dueAt)
    }
    const next = times.nextDueAt()
    const isWaiting = !takers.isReachable() || next === Infinity || !mayStart(true)
    yield* isWaiting ? changed.await : Effect.timeoutOption(changed.await, Math.max(1, next - now))
  })))

  // ----- what was saved

  const intentOf = (saved: ProvidedKeysStore.StoredKey, dueAt: number): Intent => ({
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

  for (const saved of store.saved) {
    const intent = intentOf(saved, Infinity)
    if (saved.announcedMinute > 0) intent.until = saved.announcedMinute * 60_000 + intent.lifeMillis
    put(intent)
  }
  const startedAt = clockNow()
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
      const fiber = intent.batch?.fiber
      // The key may have been started anew meanwhile, and the batch may have other keys.
      if (fiber === undefined || intents.has(intent.key)) return Effect.void
      const isOver = [...intent.batch!.intents.values()].every((other) => intents.get(other.key) !== other)
      return isOver ? Fiber.interrupt(fiber) : Effect.void
    })

  /** Saving the intent failed: what was before goes on, as far as it is still wished for. */
  const undo = (intent: Intent, before: Intent | undefined) =>
    Effect.suspend(() => {
      if (intents.get(intent.key) !== intent) return Effect.void
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

  /** Records a wish, with the options of the latest call. Gives the intent where it is to be announced at once. */
  const want = Effect.fnUntraced(function*(key: ContentKey, given: ProvideOptions | undefined, isLasting: boolean) {
    const ttl = yield* ttlOf(key, given)
    const ttlSeconds = ttl === undefined ? undefined : Math.ceil(Duration.toSeconds(ttl))
    const before = intents.get(key)
    if (before !== undefined && before.ttlSeconds === ttlSeconds) {
      if (!isLasting || before.isLasting) return
      before.isLasting = true
      return yield* save(before, before)
    }
    const saved = { key, place: placeOf(key), ttlSeconds, announcedMinute: 0, copies: 0, addresses: "" }
    // Not due before it is saved.
    const intent = intentOf(saved, Infinity)
    intent.isOptimistic = given?.optimistic === true
    intent.isLasting = isLasting || before?.isLasting === true
    put(intent)
    if (intent.isLasting) yield* save(intent, before)
    if (intents.get(key) !== intent) return
    intent.dueAt = clockNow()
    intent.waiter = Deferred.makeUnsafe<void>()
    fresh.add(intent)
    yield* changed.open
    return intent
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
    stopProviding: Effect.fn("Dht.stopProviding")(function*(key) {
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
    }),
    provideStatus: progress.status
  }
})

/**
 * The `ttl` of the options, where they have one. Fails with `TtlInvalid` when it is no duration, or is not between 1 minute and 24 hours.
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

const ttlMin = Duration.minutes(1)
const ttlMax = Duration.hours(24)

/** How long the servers of every implementation keep a record at least. */
const lifeMillisMax = Duration.toMillis("24 hours")

/** A batch of renewals or of new keys has no more: 20 ms of work before the first message. */
const batchKeysMax = 1024
const urgentMax = 6
const renewalsMax = 2

/** The wish to provide a key, and how far it is fulfilled. Times are milliseconds since the epoch. */
interface Intent extends ProvidedKeysStore.StoredKey, ProvideTimes.Timed {
  announcedMinute: number
  copies: number
  addresses: string
  /** When the copies of the last announcement expire; 0 before the first. */
  until: number
  retry: Retry | undefined
  /** The batch that announces it now. */
  batch: Running | undefined
  isOptimistic: boolean
  /** Wished for by `startProviding`, so that it outlives the process. Scopes are counted apart. */
  isLasting: boolean
  /** Done with the first copies, or with the first writes for who is optimistic. */
  waiter: Deferred.Deferred<void> | undefined
}

interface Running {
  readonly intents: ReadonlyMap<ContentKey, Intent>
  readonly began: ProvideTakers.ProvideMoment
  readonly isRenewal: boolean
  fiber: Fiber.Fiber<void> | undefined
}

/** The retries of keys that failed together. */
interface Retry {
  readonly step: ProvideTimes.Step
}

function release(intent: Intent | undefined): void {
  if (intent?.waiter === undefined) return
  Deferred.doneUnsafe(intent.waiter, Effect.void)
  intent.waiter = undefined
  intent.isOptimistic = false
}

/** The first 32 bits of a key's place in the keyspace. */
const placeOf = (key: ContentKey): number => positionOf(toBytes(key)).h0

const nameOf = (key: ContentKey): string => keyOf(toBytes(key))
