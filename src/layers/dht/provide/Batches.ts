/**
 * Batches of keys under way: each is announced together, and reports key by key how many copies were taken.
 *
 * A key that a batch does not report was not announced. It is tried again on the schedule of retries, in step with the
 * keys that failed with it.
 */
import {
  Clock,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Fiber,
  type Latch,
  Option,
  type Schedule,
  type Scope
} from "effect"
import type { ContentKey } from "../../../schema/Content.ts"
import type { ProvideCycle } from "../../../schema/ProvideStatus.ts"
import * as Backoff from "../../Backoff.ts"
import * as Supervised from "../../Supervised.ts"
import type { StoredKey } from "./Store.ts"
import { isShort, type Moment, type Takers } from "./Takers.ts"
import type { Timed, Times } from "./Times.ts"

/** A key to be announced. */
export interface AnnouncedKey {
  readonly key: ContentKey
  /** How long the copies shall live; undefined when the program has not said. */
  readonly ttlSeconds: number | undefined
  /** A caller waits for {@link Batch.written} rather than for the copies. */
  readonly isOptimistic: boolean
}

/** Keys that are announced together. */
export interface Batch {
  /** At least one, in the order of their positions in the keyspace. */
  readonly keys: ReadonlyArray<AnnouncedKey>
  /** Whether the key is still provided. Asked before each write of its record. */
  readonly isWanted: (key: ContentKey) => boolean
  /** Reports that the record has been written to the closest peers known; they have not acknowledged it yet. */
  readonly written: (key: ContentKey) => void
  /**
   * Reports how many peers have acknowledged a copy, once for each key, and whether the closest peers are improbably
   * near to it.
   */
  readonly announced: (key: ContentKey, copies: number, isCrowded?: boolean) => void
}

/** What announcing a batch took. A message is one write to a peer with its answer. */
export interface Cost {
  readonly lookups: number
  readonly messages: number
}

/** A key that this node provides, and how far it is announced. Times are milliseconds since the epoch. */
export interface Intent extends StoredKey, Timed {
  announcedMinute: number
  copies: number
  addresses: string
  /** Since when it has had few copies, and how many peers could have taken one at most; undefined when it has not. */
  few: { readonly since: number; readonly takers: number } | undefined
  /** Whether improbably many peers were near the key at the last announcement. */
  isCrowded: boolean
  /** When the copies of the last announcement expire; 0 before the first. */
  until: number
  /** The waits before the next retries; keys that failed together share it. */
  retry: Retry | undefined
  /** The batch that announces the key now. */
  batch: Running | undefined
  isOptimistic: boolean
  /** It is being saved, and not to be announced before. */
  isSaving: boolean
  /** Wished for by `startProviding`, so that it outlives the process. Scopes are counted apart. */
  isLasting: boolean
  /** Done with the first copies; for an optimistic caller with the first writes. */
  waiter: Deferred.Deferred<void> | undefined
}

export interface BatchesOptions {
  /** The time by which intents are due and their copies expire, as `Elapsed.withSleep` gives it. */
  readonly clockNow: () => number
  /**
   * Announces the keys. Interruption ends it. At most eight batches are under way at once, two of which are renewals.
   */
  readonly announce: (batch: Batch) => Effect.Effect<Cost, unknown>
  /** How many copies there should be. */
  readonly copies: number
  /** The waits after an announcement that reached nobody; at most a quarter of the `ttl`. */
  readonly retry: Schedule.Schedule<unknown>
  readonly takers: Takers
  readonly times: Times<Intent>
  /** Whether the intent is still the one of its key: neither stopped, nor replaced by one with another `ttl`. */
  readonly isCurrent: (intent: Intent) => boolean
  /** Peers have taken copies of the key. */
  readonly onAnnounced: (intent: Intent) => void
  /** The state that `provideStatus` shows has changed. */
  readonly onProgress: () => void
  /** Opened when more may be started. */
  readonly changed: Latch.Latch
}

export interface Batches {
  /** Starts a batch of the intents, none of which is in another. */
  readonly start: (intents: ReadonlyArray<Intent>, isRenewal: boolean) => Effect.Effect<void>
  /** Whether another batch may start. While this node is isolated, only one is under way at a time. */
  readonly mayStart: (isRenewal: boolean) => boolean
  /** Interrupts the intent's batch unless another of its keys is still provided. */
  readonly leave: (intent: Intent) => Effect.Effect<void>
  /** What the last batches took, from the start of the first to the end of the last that were under way together. */
  readonly lastCycle: () => ProvideCycle | undefined
}

/** How many keys a batch has at most: 20 ms of work before the first message. */
export const batchKeysMax = 1024

/**
 * Batches run while the scope lives.
 */
export const make = Effect.fnUntraced(function*(
  options: BatchesOptions
): Effect.fn.Return<Batches, never, Scope.Scope> {
  const { changed, clockNow, isCurrent, onAnnounced, onProgress, takers, times } = options
  const clock = yield* Clock.Clock
  const underWay = new Set<Running>()
  const inBackground = yield* Supervised.makeSet("an announcement")
  let lastCycle: ProvideCycle | undefined
  let cycle = { from: 0, keys: 0, lookups: 0, messages: 0 }

  const announced = (batch: Running, intent: Intent | undefined, copies: number, isCrowded: boolean) => {
    if (intent === undefined || intent.batch !== batch) return
    intent.copies = copies
    intent.isCrowded = isCrowded
    if (copies === 0) return
    const now = clockNow()
    if (takers.heard()) changed.openUnsafe()
    intent.until = now + intent.lifeMillis
    intent.announcedMinute = Math.floor(clock.currentTimeMillisUnsafe() / 60_000)
    intent.addresses = batch.began.addresses
    intent.retry = undefined
    intent.batch = undefined
    times.renew(intent, now)
    const { addresses, arrivals } = takers.now()
    const isOutdated = batch.began.addresses !== addresses ||
      (batch.began.arrivals !== arrivals && isShort(copies, options.copies, takers.count()))
    if (isOutdated) times.settle(intent, now)
    // Newcomers make a key due again. Peers that come back after a cut are none, and are not even known during the cut.
    const since = intent.few?.since ?? now
    const remembered = now - since > believedMillis ? 0 : intent.few?.takers ?? 0
    const most = Math.max(takers.count(), remembered)
    const isFew = copies < options.copies / 2 && copies < most / 2
    intent.few = isFew ? { since, takers: most } : undefined
    if (isFew) times.fillUp(intent, now, since)
    onAnnounced(intent)
    release(intent)
    onProgress()
  }

  const finish = Effect.fnUntraced(function*(batch: Running) {
    const left = [...batch.intents.values()].filter((intent) => intent.batch === batch)
    const retry = yield* Backoff.make<void>(options.retry)
    const now = clockNow()
    const waits = new Map<Retry, number>()
    // A peer that was connected too late for this batch is asked at once.
    const isOutdated = batch.began.wasAlone && !takers.now().wasAlone
    for (const intent of left) {
      intent.batch = undefined
      intent.copies = 0
      if (intent.few !== undefined) intent.few = { ...intent.few, since: now }
      intent.retry ??= retry
      const wait = isOutdated ? 0 : waits.get(intent.retry) ?? (yield* waitOf(intent.retry))
      waits.set(intent.retry, wait)
      intent.dueAt = Infinity
      // Including keys being stopped: if saving the stop fails, they go on.
      times.dueBy(intent, now + Math.min(wait, intent.lifeMillis / 4))
    }
    if (left.length === batch.intents.size && left.some(isCurrent) && !isOutdated) takers.unheard()
    cycle.keys += batch.intents.size
    underWay.delete(batch)
    if (underWay.size === 0) {
      const { from, ...counts } = cycle
      const at = DateTime.toUtc(DateTime.makeUnsafe(clock.currentTimeMillisUnsafe()))
      lastCycle = { at, duration: Duration.millis(now - from), ...counts }
    }
    if (left.length > 0) {
      yield* Effect.logDebug(`announced ${batch.intents.size} keys, ${left.length} of them to nobody`)
    }
    onProgress()
    yield* changed.open
  })

  const start = (chosen: ReadonlyArray<Intent>, isRenewal: boolean) =>
    Effect.suspend(() => {
      const sorted = chosen.toSorted((a, b) => a.h0 - b.h0)
      const batch: Running = {
        intents: new Map(sorted.map((intent) => [intent.key, intent])),
        began: takers.now(),
        isRenewal,
        fiber: undefined
      }
      for (const intent of sorted) intent.batch = batch
      if (underWay.size === 0) cycle = { from: clockNow(), keys: 0, lookups: 0, messages: 0 }
      underWay.add(batch)
      const currentOf = (key: ContentKey) => {
        const intent = batch.intents.get(key)
        return intent !== undefined && isCurrent(intent) ? intent : undefined
      }
      return options.announce({
        keys: sorted.map(({ isOptimistic, key, ttlSeconds }) => ({ key, ttlSeconds, isOptimistic })),
        isWanted: (key) => currentOf(key) !== undefined,
        written: (key) => release(currentOf(key)),
        announced: (key, copies, isCrowded = false) => announced(batch, currentOf(key), copies, isCrowded)
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
        (run) => inBackground(run),
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

  return {
    start,
    mayStart: (isRenewal) =>
      takers.isIsolated() ? underWay.size === 0 : countOf(isRenewal) < (isRenewal ? renewalsMax : urgentMax),
    leave: ({ batch }) =>
      batch?.fiber === undefined || [...batch.intents.values()].some(isCurrent)
        ? Effect.void
        : Fiber.interrupt(batch.fiber),
    lastCycle: () => lastCycle
  }
})

/** The intent of a key as it is saved, due at no time. */
export const intentOf = (saved: StoredKey): Intent => ({
  ...saved,
  lifeMillis: saved.ttlSeconds === undefined ? lifeMillisMax : saved.ttlSeconds * 1000,
  dueAt: Infinity,
  isCrowded: false,
  few: undefined,
  slackMillis: Infinity,
  until: 0,
  retry: undefined,
  batch: undefined,
  isOptimistic: false,
  isLasting: true,
  isSaving: false,
  waiter: undefined
})

/** Lets the caller go on that waits for the first copies. */
export function release(intent: Intent | undefined): void {
  if (intent?.waiter === undefined) return
  Deferred.doneUnsafe(intent.waiter, Effect.void)
  intent.waiter = undefined
  intent.isOptimistic = false
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How long the servers of every implementation keep a record at least. */
const lifeMillisMax = Duration.toMillis("24 hours")

/** Peers that have not come back for so long are gone, and take no copies. */
const believedMillis = Duration.toMillis("24 hours")

const urgentMax = 6
const renewalsMax = 2

type Retry = Backoff.Backoff<void>

interface Running {
  readonly intents: ReadonlyMap<ContentKey, Intent>
  readonly began: Moment
  readonly isRenewal: boolean
  fiber: Fiber.Fiber<void> | undefined
}

/** In milliseconds; infinite when the schedule has ended, so that only the `ttl` limits the wait. */
const waitOf = (retry: Retry): Effect.Effect<number> =>
  Effect.map(retry.next(), (wait) => wait === undefined ? Infinity : Duration.toMillis(wait))
