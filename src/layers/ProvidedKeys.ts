/**
 * The keys that this node provides: kept in the `KeyValueStore`, announced through whatever DHT is given.
 *
 * One fiber looks at all keys whenever something has changed, or one is due, and starts an announcement for each that needs one: it never
 * had a copy, its copies are about to expire, this node has other addresses, or peers have come while there are few copies.
 */
import {
  Clock,
  DateTime,
  Deferred,
  Duration,
  Effect,
  FiberMap,
  type Latch,
  Option,
  Pull,
  Schedule,
  Schema,
  type Scope,
  Semaphore
} from "effect"
import { KeyValueStore } from "effect/persistence"
import { ContentKey } from "../schema/Content.ts"
import { DhtError, QueryFailed, TtlInvalid } from "../schema/NetworkError.ts"
import type { PeerId } from "../schema/Peer.ts"
import { type ProvideCycle, ProvideStatus } from "../schema/ProvideStatus.ts"
import type { Dht, ProvideOptions } from "../services/Dht.ts"
import * as ProvideProgress from "./ProvideProgress.ts"

export interface ProvidedKeysOptions {
  /** Sends the record, and tells each peer that it was sent to. Interruption ends it. */
  readonly announce: (key: ContentKey, sent: (peer: PeerId) => void) => Effect.Effect<void, unknown>
  /** Ends this node's own record. */
  readonly withdraw: (key: ContentKey) => Effect.Effect<void, unknown>
  /** The peers that could take a copy. */
  readonly takers: () => ReadonlyArray<PeerId>
  /** Whether there are takers, or about to be. */
  readonly hasTakers: Effect.Effect<boolean>
  /** This node's addresses as they would be announced; nothing is announced while there are none. */
  readonly addresses: () => ReadonlyArray<string>
  /** Opened when there may be somebody new to tell, or something new to tell of this node. */
  readonly changed: Latch.Latch
  /** How many copies there should be. */
  readonly copies: number
  /** The waits after an announcement that reached nobody. */
  readonly retry: Schedule.Schedule<unknown>
  /** The waits between announcements that reached somebody. */
  readonly republish: Schedule.Schedule<unknown>
}

export type ProvidedKeys = Pick<Dht["Service"], "startProviding" | "stopProviding" | "provideStatus">

/**
 * Takes up the keys of the `KeyValueStore`, and announces them and those to come while the scope lives.
 */
export const make = Effect.fnUntraced(function*(
  options: ProvidedKeysOptions
): Effect.fn.Return<ProvidedKeys, never, KeyValueStore.KeyValueStore | Scope.Scope> {
  const { changed } = options
  const ownAddresses = () => options.addresses().join()
  const store = yield* KeyValueStore.KeyValueStore
  const intents = new Map<ContentKey, Intent>()
  const announcing = yield* FiberMap.make<ContentKey>()
  const announcements = yield* Semaphore.make(8)
  const saving = yield* Semaphore.make(1)

  const newIntent = Effect.fnUntraced(function*(ttl: Duration.Duration | undefined) {
    const intent: Intent = {
      ttlMillis: ttl === undefined ? undefined : Duration.toMillis(ttl),
      copies: 0,
      dueAt: yield* Clock.currentTimeMillis,
      until: 0,
      addresses: "",
      tried: new Set(),
      retry: undefined,
      republish: yield* Schedule.toStep(options.republish),
      announced: yield* Deferred.make<void>()
    }
    return intent
  })

  const saved = yield* store.get(providedKey).pipe(
    Effect.flatMap((text) => text === undefined ? Effect.succeed([]) : decodeKeys(text)),
    Effect.catch((cause) =>
      Effect.as(Effect.logWarning("the saved list of provided keys cannot be read; it starts anew", cause), [])
    )
  )
  for (const entry of saved) {
    if (typeof entry === "string") intents.set(entry, yield* newIntent(undefined))
    else intents.set(entry.key, yield* newIntent(Duration.millis(entry.ttlMillis)))
  }

  let lastCycle: ProvideCycle | undefined
  const progress = ProvideProgress.make((now) => {
    const queued = [...intents.values()].filter(({ dueAt }) => dueAt <= now)
    const alive = [...intents.values()].filter(({ until }) => now < until).map(({ copies }) => copies)
    return new ProvideStatus({
      keys: intents.size,
      queued: queued.length,
      announced: alive.length,
      copies: {
        least: alive.length === 0 ? 0 : Math.min(...alive),
        mean: alive.length === 0 ? 0 : alive.reduce((sum, copies) => sum + copies, 0) / alive.length
      },
      ...lastCycle === undefined ? {} : { lastCycle },
      lag: Duration.millis(queued.reduce((lag, { dueAt }) => Math.max(lag, now - dueAt), 0)),
      ...ownAddresses() === ""
        ? { paused: "NoAddresses" as const }
        : options.takers().length === 0
        ? { paused: "NoPeers" as const }
        : {}
    })
  })

  /** Writes the list. Those who wait while another writes find theirs written as well. */
  let version = 0
  let written = 0
  const save = Effect.suspend(() => {
    const mine = ++version
    return saving.withPermits(1)(Effect.suspend(() => {
      if (written >= mine) return Effect.void
      const writes = version
      return Effect.tap(store.set(providedKey, JSON.stringify(entriesOf(intents))), () =>
        Effect.sync(() => {
          written = writes
        }))
    }))
  })

  const announce = Effect.fnUntraced(function*(key: ContentKey, intent: Intent) {
    const sent = new Set<PeerId>()
    const from = yield* Clock.currentTimeMillis
    intent.addresses = ownAddresses()
    intent.tried = new Set(options.takers())
    yield* options.announce(key, (peer) => sent.add(peer)).pipe(
      Effect.timeoutOption("1 minute"),
      Effect.catch((error) => Effect.logDebug(`announcing ${key} failed`, error))
    )
    intent.copies = sent.size
    intent.tried = new Set([...intent.tried, ...sent])
    if (sent.size > 0) {
      intent.retry = undefined
      yield* Deferred.succeed(intent.announced, void 0)
      yield* Effect.logDebug(`announced ${key} to ${sent.size} peers`)
    } else if (intent.retry === undefined) {
      intent.retry = yield* Schedule.toStep(options.retry)
    }
    const now = yield* Clock.currentTimeMillis
    intent.dueAt = yield* (intent.retry ?? intent.republish)(now, undefined).pipe(
      Effect.map(([, delay]) => now + Duration.toMillis(delay)),
      Pull.catchDone(() => Effect.succeed(Infinity))
    )
    const lifeMillis = intent.ttlMillis ?? lifeMillisMax
    // Halfway, so that one that fails can be tried again.
    intent.dueAt = Math.min(intent.dueAt, now + lifeMillis / 2)
    if (sent.size > 0) intent.until = now + lifeMillis
    lastCycle = {
      at: DateTime.toUtc(DateTime.makeUnsafe(now)),
      duration: Duration.millis(now - from),
      keys: 1,
      lookups: 1,
      messages: sent.size
    }
    progress.changed()
    yield* changed.open
  })

  const isDue = (intent: Intent, now: number, addresses: string, peers: ReadonlyArray<PeerId>) =>
    now >= intent.dueAt || intent.addresses !== addresses ||
    (intent.copies < options.copies && peers.some((id) => !intent.tried.has(id)))

  yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
    yield* changed.close
    progress.changed()
    const now = yield* Clock.currentTimeMillis
    const peers = options.takers()
    const addresses = ownAddresses()
    // Servers drop a record without addresses and do not say so.
    const isReachable = peers.length > 0 && addresses !== ""
    let next = Infinity
    for (const [key, intent] of isReachable ? intents : []) {
      if (FiberMap.hasUnsafe(announcing, key)) {
        next = Math.min(next, now + 1000)
      } else if (isDue(intent, now, addresses, peers)) {
        yield* FiberMap.run(announcing, key, announcements.withPermits(1)(announce(key, intent)))
      } else next = Math.min(next, intent.dueAt)
    }
    yield* next === Infinity ? changed.await : Effect.raceFirst(changed.await, Effect.sleep(Math.max(1, next - now)))
  })))

  return {
    startProviding: Effect.fn("Dht.startProviding")(function*(key, given) {
      const ttl = yield* ttlOf(key, given)
      const before = intents.get(key)
      if (before !== undefined && before.ttlMillis === (ttl === undefined ? undefined : Duration.toMillis(ttl))) return
      const intent = yield* newIntent(ttl)
      intents.set(key, intent)
      yield* save.pipe(
        Effect.mapError(failed("startProviding", key)),
        Effect.onError(() => Effect.sync(() => before === undefined ? intents.delete(key) : intents.set(key, before)))
      )
      yield* changed.open
      // Whoever is told of the key now should find it.
      if (ownAddresses() !== "" && (yield* options.hasTakers)) {
        yield* Effect.timeoutOption(Deferred.await(intent.announced), "1 second")
      }
    }),
    stopProviding: Effect.fn("Dht.stopProviding")(function*(key) {
      const intent = intents.get(key)
      if (intent === undefined) return
      intents.delete(key)
      // First of all, so that a key whose end cannot be saved goes on as before, and a second call tries again.
      yield* save.pipe(
        Effect.mapError(failed("stopProviding", key)),
        Effect.onError(() => {
          if (!intents.has(key)) intents.set(key, intent)
          return changed.open
        })
      )
      // Somebody may have started it anew meanwhile.
      if (intents.has(key)) return
      yield* FiberMap.remove(announcing, key)
      progress.changed()
      yield* Effect.mapError(options.withdraw(key), failed("stopProviding", key))
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

const providedKey = "provided"

const ttlMin = Duration.minutes(1)
const ttlMax = Duration.hours(24)

/** How long the servers of every implementation keep a record at least. */
const lifeMillisMax = Duration.toMillis("24 hours")

/** A key alone, or with its `ttl`. */
const Entry = Schema.Union([ContentKey, Schema.Struct({ key: ContentKey, ttlMillis: Schema.Finite })])

const decodeKeys = Schema.decodeEffect(Schema.fromJsonString(Schema.Array(Entry)))

const entriesOf = (intents: ReadonlyMap<ContentKey, Intent>): ReadonlyArray<typeof Entry.Type> =>
  Array.from(intents, ([key, { ttlMillis }]) => ttlMillis === undefined ? key : { key, ttlMillis })

/** The wish to provide a key, and how far it is fulfilled. */
interface Intent {
  /** How long a copy lives, where the program has said so. */
  readonly ttlMillis: number | undefined
  /** How many peers the last announcement was sent to. */
  copies: number
  /** When it is announced again, in milliseconds since the epoch. */
  dueAt: number
  /** When the copies of the last announcement expire, in milliseconds since the epoch. */
  until: number
  /** This node's addresses as announced last. */
  addresses: string
  /** The peers in reach of the last announcement. */
  tried: ReadonlySet<PeerId>
  retry: Step | undefined
  readonly republish: Step
  /** Done with the first copy. */
  readonly announced: Deferred.Deferred<void>
}

type Step = Effect.Success<ReturnType<typeof Schedule.toStep<unknown, unknown, never, never>>>
