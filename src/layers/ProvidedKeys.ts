/**
 * The keys that this node provides: kept in the `KeyValueStore`, announced through whatever DHT is given.
 *
 * One fiber looks at all keys whenever something has changed, or one is due, and starts an announcement for each that needs one: it never
 * had a copy, its copies are about to expire, this node has other addresses, or peers have come while there are few copies.
 */
import {
  Clock,
  Deferred,
  Duration,
  Effect,
  FiberMap,
  type Latch,
  Pull,
  Schedule,
  Schema,
  type Scope,
  Semaphore
} from "effect"
import { KeyValueStore } from "effect/persistence"
import { ContentKey } from "../schema/Content.ts"
import { DhtError, QueryFailed } from "../schema/NetworkError.ts"
import type { PeerId } from "../schema/Peer.ts"

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

export interface ProvidedKeys {
  readonly startProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
  readonly stopProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
}

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

  const newIntent = Effect.gen(function*() {
    const intent: Intent = {
      copies: 0,
      dueAt: 0,
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
  for (const key of saved) intents.set(key, yield* newIntent)

  /** Writes the list. Those who wait while another writes find theirs written as well. */
  let version = 0
  let written = 0
  const save = Effect.suspend(() => {
    const mine = ++version
    return saving.withPermits(1)(Effect.suspend(() => {
      if (written >= mine) return Effect.void
      const writes = version
      return Effect.tap(store.set(providedKey, JSON.stringify([...intents.keys()])), () =>
        Effect.sync(() => {
          written = writes
        }))
    }))
  })

  const announce = Effect.fnUntraced(function*(key: ContentKey, intent: Intent) {
    const sent = new Set<PeerId>()
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
    yield* changed.open
  })

  const isDue = (intent: Intent, now: number, addresses: string, peers: ReadonlyArray<PeerId>) =>
    now >= intent.dueAt || intent.addresses !== addresses ||
    (intent.copies < options.copies && peers.some((id) => !intent.tried.has(id)))

  yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
    yield* changed.close
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
    startProviding: Effect.fn("Dht.startProviding")(function*(key) {
      if (intents.has(key)) return
      const intent = yield* newIntent
      intents.set(key, intent)
      yield* save.pipe(
        Effect.mapError(failed("startProviding", key)),
        Effect.onError(() => Effect.sync(() => intents.delete(key)))
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
      yield* Effect.mapError(options.withdraw(key), failed("stopProviding", key))
    })
  }
})

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

const decodeKeys = Schema.decodeEffect(Schema.fromJsonString(Schema.Array(ContentKey)))

/** The wish to provide a key, and how far it is fulfilled. */
interface Intent {
  /** How many peers the last announcement was sent to. */
  copies: number
  /** When it is announced again, in milliseconds since the epoch. */
  dueAt: number
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
