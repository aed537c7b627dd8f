import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Exit, Fiber, Latch, Option, Schedule, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { KeyValueStore } from "effect/persistence"
import { positionOf } from "../../../../src/layers/dht/wire/Position.ts"
import type { Batch, Cost } from "../../../../src/layers/dht/provide/Batches.ts"
import * as ProvidedKeys from "../../../../src/layers/dht/provide/ProvidedKeys.ts"
import * as ContentKey from "../../../../src/schema/Content.ts"
import type { PeerId } from "../../../../src/schema/Peer.ts"
import type { ProvideStatus } from "../../../../src/schema/ProvideStatus.ts"
import type { ProvideOptions } from "../../../../src/services/Dht.ts"
import * as SimDisk from "../../../../src/testing/network/SimDisk.ts"
import { peerId } from "../../../support/FakeConnection.ts"

const key = ContentKey.fromText("a key")
const [bob, carol, dave] = ["bob", "carol", "dave"].map(peerId) as [PeerId, PeerId, PeerId]

/** A DHT whose takers, and whether they take copies, the spec decides. */
const makeDht = Effect.fnUntraced(function*(options: { readonly copies?: number } = {}) {
  const changed = yield* Latch.make()
  const state = {
    takers: [] as Array<PeerId>,
    deaf: false,
    isConnected: true,
    addresses: ["/ip4/192.0.2.1/tcp/4001"],
    announced: 0
  }
  const keys = yield* ProvidedKeys.make({
    announce: (batch) =>
      Effect.sync(() => {
        for (const { key } of batch.keys) {
          state.announced++
          batch.announced(key, state.deaf ? 0 : state.takers.length)
        }
        return { lookups: batch.keys.length, messages: batch.keys.length * state.takers.length }
      }),
    takers: () => state.takers,
    hasTakers: Effect.sync(() => state.takers.length > 0),
    isConnected: () => state.isConnected,
    addresses: () => state.addresses,
    changed,
    copies: options.copies ?? 20,
    retry: Schedule.exponential("1 second", 2),
    republish: Schedule.spaced("11 hours")
  })
  const change = (next: Partial<typeof state>) =>
    Effect.andThen(Effect.sync(() => Object.assign(state, next)), changed.open)
  return { keys, state, change }
})

const at = (
  state: { readonly announced: number },
  duration: Parameters<typeof TestClock.adjust>[0],
  announced: number
) => Effect.andThen(TestClock.adjust(duration), Effect.sync(() => assert.strictEqual(state.announced, announced)))

/** An empty store on a disk that is full while `isFull`. */
const fullStore = (isFull: () => boolean) =>
  KeyValueStore.makeStringOnly({
    get: () => Effect.succeed(undefined),
    set: (key) =>
      Effect.suspend(() =>
        isFull()
          ? Effect.fail(new KeyValueStore.KeyValueStoreError({ method: "set", key, message: "disk full" }))
          : Effect.void
      ),
    remove: () => Effect.void,
    clear: Effect.void,
    size: Effect.succeed(0),
    keys: Effect.succeed([])
  })

describe("ProvidedKeys", () => {
  it.effect("announces again when its time has come, and not before", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      yield* change({ takers: [bob] })
      yield* keys.startProviding(key)
      assert.strictEqual(state.announced, 1)
      yield* at(state, "10 hours", 1)
      yield* at(state, "3599999 millis", 1)
      yield* at(state, 1, 2)
      yield* at(state, "11 hours", 3)
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("tries again a key that no peer took when another peer comes, and not for peers that were there", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      yield* keys.startProviding(key)
      yield* change({ takers: [bob], deaf: true })
      yield* at(state, 0, 1)
      for (const [delay, announced] of [[1, 2], [2, 3], [4, 4], [8, 5]] as const) {
        yield* at(state, delay * 1000, announced)
      }
      yield* change({})
      yield* at(state, 0, 5)
      yield* change({ takers: [bob, carol], deaf: false })
      yield* at(state, 0, 6)
      yield* at(state, "10 hours", 6)
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("retries on the schedule while no peer takes a copy, and begins the schedule anew after a success", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      yield* keys.startProviding(key)
      yield* change({ takers: [bob], deaf: true })
      yield* at(state, 0, 1)
      for (const [delay, announced] of [[1000, 2], [2000, 3], [4000, 4]] as const) {
        yield* at(state, delay - 1, announced - 1)
        yield* at(state, 1, announced)
      }
      yield* change({ deaf: false })
      yield* at(state, 7999, 4)
      yield* at(state, 1, 5)
      yield* at(state, 11 * 3_600_000 - 1, 5)
      yield* change({ deaf: true })
      yield* at(state, 1, 6)
      yield* at(state, 999, 6)
      yield* at(state, 1, 7)
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("is paused while this node is isolated, and goes on at once with the first connected peer", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      const paused = Effect.map(Stream.runHead(keys.provideStatus), (status) => Option.getOrThrow(status).paused)
      yield* keys.startProviding(key)
      // Both peers are known, and neither answers a dial.
      yield* change({ takers: [bob, carol], deaf: true, isConnected: false })
      yield* at(state, 0, 1)
      assert.strictEqual(yield* paused, "Isolated")
      yield* at(state, 999, 1)
      yield* at(state, 1, 2)
      assert.strictEqual(yield* paused, "Isolated")
      // Another key does not wait for copies, and is tried once as well.
      yield* keys.startProviding(ContentKey.fromText("another"))
      yield* change({ addresses: ["/ip4/192.0.2.2/tcp/4001"] })
      yield* at(state, 0, 3)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* paused, "Isolated")
      const before = state.announced
      yield* change({ deaf: false, isConnected: true })
      assert.isUndefined(yield* paused)
      yield* at(state, 0, before + 2)
      yield* at(state, "10 hours", before + 2)
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("is paused as soon as the last peer is gone, which took nothing, and tells a watcher", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      const told: Array<ProvideStatus["paused"]> = []
      yield* Effect.forkScoped(
        Stream.runForEach(keys.provideStatus, ({ paused }) => Effect.sync(() => void told.push(paused)))
      )
      yield* keys.startProviding(key)
      yield* change({ takers: [bob], deaf: true })
      yield* TestClock.adjust("90 seconds")
      assert.isAbove(state.announced, 1)
      assert.isUndefined(told.at(-1))
      yield* change({ isConnected: false })
      yield* TestClock.adjust(0)
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(told.at(-1), "Isolated")
      yield* change({ isConnected: true })
      yield* TestClock.adjust(0)
      yield* TestClock.adjust("100 millis")
      assert.isUndefined(told.at(-1))
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("does not pause for one key that no peer takes, while others are taken", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      yield* keys.startProviding(key)
      yield* change({ takers: [bob], deaf: true })
      yield* at(state, 0, 1)
      yield* change({ deaf: false })
      yield* keys.startProviding(ContentKey.fromText("another"))
      // The first key waits for its retry, whether or not the other was taken.
      yield* at(state, 999, 2)
      yield* change({ isConnected: false })
      const status = Option.getOrThrow(yield* Stream.runHead(keys.provideStatus))
      assert.deepStrictEqual([status.announced, status.paused], [1, undefined])
      yield* at(state, 1, 3)
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("does not pause with no peer connected as long as dialled peers take copies", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      yield* change({ takers: [bob], isConnected: false })
      yield* keys.startProviding(key)
      yield* at(state, "11 hours", 2)
      const status = Option.getOrThrow(yield* Stream.runHead(keys.provideStatus))
      assert.deepStrictEqual([status.announced, status.paused], [1, undefined])
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("announces to newcomers while there are fewer copies than wanted", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht({ copies: 2 })
      yield* Effect.forkScoped(keys.startProviding(key))
      yield* at(state, "1 hour", 0)
      yield* change({ takers: [bob] })
      yield* at(state, 0, 1)
      yield* change({ takers: [bob, carol] })
      yield* at(state, 0, 2)
      yield* change({ takers: [bob, carol, dave] })
      yield* at(state, 0, 2)
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("announces new addresses, and nothing while there are none", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      yield* change({ takers: [bob], addresses: [] })
      yield* keys.startProviding(key)
      yield* at(state, "1 hour", 0)
      yield* change({ addresses: ["/ip4/192.0.2.1/tcp/4001"] })
      yield* at(state, 0, 1)
      yield* change({ addresses: ["/ip4/192.0.2.2/tcp/4001"] })
      yield* at(state, 0, 2)
      yield* change({})
      yield* at(state, 0, 2)
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("stops, and is stopped after a restart too", () =>
    Effect.gen(function*() {
      const other = ContentKey.fromText("another")
      yield* Effect.scoped(Effect.gen(function*() {
        const { change, keys, state } = yield* makeDht()
        yield* change({ takers: [bob] })
        yield* Effect.forkScoped(Effect.all([keys.startProviding(key), keys.startProviding(other)]))
        yield* at(state, "1 second", 2)
        yield* keys.stopProviding(key)
        yield* keys.stopProviding(key)
        yield* at(state, "11 hours", 3)
      }))
      const { change, state } = yield* makeDht()
      yield* change({ takers: [bob] })
      yield* at(state, 0, 1)
    }).pipe(Effect.scoped, Effect.provide(KeyValueStore.layerMemory)))

  it.effect("goes on when its end cannot be saved, and ends with the next call", () => {
    let isFull = false
    return Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      yield* change({ takers: [bob] })
      yield* keys.startProviding(key)
      isFull = true
      assert.include((yield* Effect.flip(keys.stopProviding(key))).message, "disk full")
      yield* at(state, "11 hours", 2)
      isFull = false
      yield* keys.stopProviding(key)
      yield* at(state, "11 hours", 2)
    }).pipe(Effect.scoped, Effect.provideService(KeyValueStore.KeyValueStore, fullStore(() => isFull)))
  })

  for (const change of ["another ttl", "its end"] as const) {
    it.effect(`goes on with a key when ${change} cannot be saved, also when it was being announced meanwhile`, () =>
      Effect.gen(function*() {
        const [announcing, saving] = yield* Effect.all([Latch.make(), Latch.make(true)])
        const store = fullStore(() => isFull)
        const slow: KeyValueStore.KeyValueStore = {
          ...store,
          set: (...args) => Effect.andThen(saving.await, store.set(...args))
        }
        let isFull = false
        const { batches, keys } = yield* makeBatches({
          store: slow,
          announce: (batch) => Effect.andThen(announcing.await, takeAll(batch))
        })
        yield* Effect.forkScoped(keys.startProviding(key), { startImmediately: true })
        yield* TestClock.adjust(0)
        assert.lengthOf(batches, 1)
        isFull = true
        yield* saving.close
        const failing = yield* Effect.forkScoped(
          Effect.flip(change === "its end" ? keys.stopProviding(key) : keys.startProviding(key, { ttl: "1 hour" })),
          { startImmediately: true }
        )
        yield* announcing.open
        yield* TestClock.adjust(0)
        yield* saving.open
        yield* Fiber.join(failing)
        isFull = false
        yield* TestClock.adjust("1 minute")
        assert.lengthOf(batches, 2)
        yield* TestClock.adjust("8 hours")
        assert.lengthOf(batches, 3)
      }).pipe(Effect.scoped))
  }

  it.effect("fails, and keeps no intent, when it cannot be saved", () =>
    Effect.gen(function*() {
      const { change, keys, state } = yield* makeDht()
      const error = yield* Effect.flip(keys.startProviding(key))
      assert.strictEqual(error.reason._tag, "QueryFailed")
      assert.include(error.message, "disk full")
      yield* change({ takers: [bob] })
      yield* at(state, "1 hour", 0)
    }).pipe(
      Effect.scoped,
      Effect.provideService(KeyValueStore.KeyValueStore, fullStore(() => true))
    ))
})

/** A DHT that takes whole batches, whose outcome the spec decides. */
const makeBatches = Effect.fnUntraced(function*(
  options: {
    readonly disk?: SimDisk.SimDisk
    readonly store?: KeyValueStore.KeyValueStore
    readonly takers?: ReadonlyArray<PeerId>
    /** Announces a batch; by default with three copies of each key. */
    readonly announce?: (batch: Batch) => Effect.Effect<Cost, unknown>
  } = {}
) {
  // Not 0, which means never.
  if ((yield* Clock.currentTimeMillis) === 0) yield* TestClock.setTime(Date.UTC(2030, 0))
  const changed = yield* Latch.make()
  const state = { takers: options.takers ?? [bob], isConnected: true, addresses: ["/ip4/192.0.2.1/tcp/4001"] }
  const batches: Array<ReadonlyArray<ContentKey.ContentKey>> = []
  const disk = (options.disk ?? SimDisk.make()).mount()
  const keys = yield* ProvidedKeys.make({
    announce: (batch) =>
      Effect.suspend(() => {
        batches.push(batch.keys.map(({ key }) => key))
        return (options.announce ?? takeAll)(batch)
      }),
    takers: () => state.takers,
    hasTakers: Effect.sync(() => state.takers.length > 0),
    isConnected: () => state.isConnected,
    addresses: () => state.addresses,
    changed,
    copies: 3,
    retry: Schedule.exponential("1 second", 2),
    republish: Schedule.spaced("8 hours")
  }).pipe(Effect.provideService(KeyValueStore.KeyValueStore, options.store ?? disk.store))
  const change = (next: Partial<typeof state>) =>
    Effect.andThen(Effect.sync(() => Object.assign(state, next)), changed.open)
  /** Starts the keys before there is a taker, so that they are announced together. */
  const startAll = (all: ReadonlyArray<ContentKey.ContentKey>) =>
    Effect.gen(function*() {
      const { takers } = state
      yield* change({ takers: [] })
      yield* Effect.forEach(all, (key) => keys.startProviding(key), { discard: true })
      yield* change({ takers })
      yield* TestClock.adjust(0)
    })
  return { keys, state, batches, change, disk, startAll, status: statusOf(keys) }
})

const takeAll = (batch: Batch) =>
  Effect.sync(() => {
    for (const { key } of batch.keys) batch.announced(key, 3)
    return { lookups: 1, messages: batch.keys.length }
  })

const statusOf = (keys: ProvidedKeys.ProvidedKeys): Effect.Effect<ProvideStatus> =>
  Effect.map(Stream.runCollect(Stream.take(keys.provideStatus, 1)), ([status]) => status!)

const many = (count: number) => Array.from({ length: count }, (_, index) => ContentKey.fromText(`key ${index}`))

const total = (batches: ReadonlyArray<ReadonlyArray<unknown>>) => batches.reduce((sum, { length }) => sum + length, 0)

describe("ProvidedKeys, a ttl", () => {
  it.effect("is renewed when half of it is over, and sent with the key", () =>
    Effect.gen(function*() {
      const sent: Array<number | undefined> = []
      const { batches, keys } = yield* makeBatches({
        announce: (batch) => Effect.andThen(Effect.sync(() => sent.push(batch.keys[0]!.ttlSeconds)), takeAll(batch))
      })
      yield* keys.startProviding(key, { ttl: "90.5 seconds" as "90 seconds" })
      assert.lengthOf(batches, 1)
      yield* TestClock.adjust("45499 millis")
      assert.lengthOf(batches, 1)
      yield* TestClock.adjust("1 millis")
      assert.lengthOf(batches, 2)
      // Another ttl is announced at once, and so is none; the same ttl is not announced.
      yield* keys.startProviding(key, { ttl: "24 hours" })
      yield* keys.startProviding(key, { ttl: "1 day" })
      yield* keys.startProviding(key)
      assert.deepStrictEqual(sent, [91, 91, 86_400, undefined])
      yield* TestClock.adjust("7 hours")
      assert.lengthOf(batches, 4)
    }))

  it.effect("outlives a restart, and so does the time of the last announcement", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      const scope = yield* Scope.make()
      const before = yield* Scope.provide(makeBatches({ disk }), scope)
      yield* before.keys.startProviding(key, { ttl: "1 hour" })
      yield* TestClock.adjust("1 minute")
      yield* Scope.close(scope, Exit.void)
      const { batches, status } = yield* makeBatches({ disk, takers: [] })
      // Copies announced a minute ago live for 59 more; the key is due at once since there are few keys.
      assert.deepInclude(yield* status, { keys: 1, announced: 1, queued: 1, copies: { least: 3, mean: 3 } })
      yield* TestClock.adjust("58 minutes")
      assert.strictEqual((yield* status).announced, 1)
      yield* TestClock.adjust("1 minute")
      assert.deepInclude(yield* status, { announced: 0, paused: "NoPeers" })
      assert.lengthOf(batches, 0)
    }))

  it.effect("is retried soon enough", () =>
    Effect.gen(function*() {
      const { batches, keys } = yield* makeBatches({
        announce: () => Effect.succeed({ lookups: 1, messages: 0 })
      })
      yield* Effect.forkChild(keys.startProviding(key, { ttl: "1 minute" }))
      yield* TestClock.adjust(0)
      // After 1, 2, 4, 8 and then no more than 15 seconds.
      yield* TestClock.adjust("29999 millis")
      assert.lengthOf(batches, 5)
      yield* TestClock.adjust("1 millis")
      assert.lengthOf(batches, 6)
    }))
})

describe("ProvidedKeys, many keys", () => {
  it.effect("are announced to the end when one of them is stopped meanwhile, and no longer when all are", () =>
    Effect.gen(function*() {
      const answered = yield* Latch.make()
      const ended: Array<string> = []
      const { batches, keys, startAll, status } = yield* makeBatches({
        announce: (batch) =>
          Effect.andThen(answered.await, takeAll(batch)).pipe(
            Effect.onExit((exit) => Effect.sync(() => ended.push(exit._tag)))
          )
      })
      const [first, second] = many(2) as [ContentKey.ContentKey, ContentKey.ContentKey]
      yield* startAll([first, second])
      yield* keys.stopProviding(first)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(ended, [])
      yield* answered.open
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(ended, ["Success"])
      assert.strictEqual((yield* status).announced, 1)
      assert.lengthOf(batches, 1)
      yield* answered.close
      yield* startAll([first])
      yield* keys.stopProviding(first)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(ended, ["Success", "Failure"])
    }))

  it.effect("are renewed by region, each region at its own time of the period", () =>
    Effect.gen(function*() {
      const all = many(1024)
      const { batches, startAll, status } = yield* makeBatches()
      yield* startAll(all)
      assert.strictEqual(total(batches), all.length)
      // From here on every key is renewed at its region's time.
      yield* TestClock.adjust("10 hours")
      const first = batches.length
      for (let hour = 0; hour < 8; hour++) {
        yield* TestClock.adjust("1 hour")
        const inHour = total(batches.slice(first))
        assert.isBelow(Math.abs(inHour - Math.floor((hour + 1) / 2) * all.length / 4), 80, `after ${hour + 1} hours`)
      }
      const renewed = batches.slice(first)
      assert.lengthOf(renewed, 4)
      assert.strictEqual(new Set(renewed.flat()).size, all.length)
      for (const batch of renewed) {
        const prefixes = batch.map((key) => positionOf(ContentKey.toBytes(key)).h0)
        assert.deepStrictEqual(prefixes, prefixes.toSorted((a, b) => a - b))
        assert.strictEqual(prefixes[0]! >>> 30, prefixes.at(-1)! >>> 30)
      }
      assert.strictEqual((yield* status).announced, all.length)
    }))

  it.effect("of a node that restarts are spread over half an hour when they were announced lately", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      const all = many(1024)
      const scope = yield* Scope.make()
      const before = yield* Scope.provide(makeBatches({ disk }), scope)
      yield* before.startAll(all)
      // A killed node forgets the announcements of its last five minutes.
      yield* TestClock.adjust("5 minutes")
      before.disk.detach()
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 hour")
      const after = yield* makeBatches({ disk })
      yield* TestClock.adjust("1 second")
      assert.isBelow(Math.abs(total(after.batches) - all.length / 4), 80)
      yield* TestClock.adjust("10 minutes")
      assert.isBelow(Math.abs(total(after.batches) - all.length / 2), 80)
      yield* TestClock.adjust("20 minutes")
      assert.strictEqual(total(after.batches), all.length)

      // A day later all copies have expired, so there is no reason to wait.
      before.disk.detach()
      const later = SimDisk.make()
      for (const [name, value] of disk.entries) later.mount().store.set(name, value).pipe(Effect.runSync)
      yield* TestClock.adjust("25 hours")
      const late = yield* makeBatches({ disk: later })
      yield* TestClock.adjust(0)
      assert.strictEqual(total(late.batches), all.length)
    }))

  it.effect("of a region are renewed together, also those due a little later", () =>
    Effect.gen(function*() {
      const [a, b, c] = many(3) as [ContentKey.ContentKey, ContentKey.ContentKey, ContentKey.ContentKey]
      const { batches, keys } = yield* makeBatches()
      yield* keys.startProviding(a)
      yield* TestClock.adjust("59 minutes")
      yield* keys.startProviding(b)
      yield* TestClock.adjust("2 minutes")
      yield* keys.startProviding(c)
      yield* TestClock.adjust("419 minutes")
      assert.deepStrictEqual(batches.map((batch) => batch.toSorted()), [[a], [b], [c], [a, b].toSorted()])
    }))

  it.effect("wait a little when the addresses change, since more may change", () =>
    Effect.gen(function*() {
      const all = many(1024)
      const { batches, change, startAll } = yield* makeBatches()
      yield* startAll(all)
      const before = total(batches)
      yield* change({ addresses: ["/ip4/192.0.2.2/tcp/4001"] })
      yield* TestClock.adjust("1 second")
      yield* change({ addresses: ["/ip4/192.0.2.2/tcp/4001", "/ip4/192.0.2.3/tcp/4001"] })
      assert.strictEqual(total(batches), before)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(total(batches), before + all.length)
    }))

  it.effect("are tried a batch at a time while this node is isolated, and at once when a peer came during the batch", () =>
    Effect.gen(function*() {
      let underWay = 0
      let most = 0
      const { batches, change, keys } = yield* makeBatches({
        announce: () =>
          Effect.acquireUseRelease(
            Effect.sync(() => most = Math.max(most, ++underWay)),
            () => Effect.as(Effect.sleep("10 seconds"), { lookups: 1, messages: 20 }),
            () => Effect.sync(() => void underWay--)
          )
      })
      const [first, ...others] = many(10)
      yield* change({ takers: [] })
      yield* keys.startProviding(first!)
      yield* change({ takers: [bob], isConnected: false })
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual((yield* statusOf(keys)).paused, "Isolated")
      yield* Effect.forEach(others, (key) => keys.startProviding(key), { discard: true })
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(most, 1)
      assert.strictEqual((yield* statusOf(keys)).paused, "Isolated")
      const isTrying = () => underWay > 0
      for (let second = 0; !isTrying() && second < 3600; second++) yield* TestClock.adjust("1 second")
      const [before, trying] = [batches.length, batches.at(-1)!]
      yield* change({ isConnected: true })
      yield* TestClock.adjust("10 seconds")
      assert.includeMembers(batches.slice(before).flat(), [...trying])
    }).pipe(Effect.scoped))

  it.effect("cost a small write each to start", () =>
    Effect.gen(function*() {
      const all = many(1500)
      const sizes: Array<number> = []
      const disk = SimDisk.make()
      const { store } = disk.mount()
      const changed = yield* Latch.make()
      const keys = yield* ProvidedKeys.make({
        announce: takeAll,
        takers: () => [bob],
        hasTakers: Effect.succeed(true),
        isConnected: () => true,
        addresses: () => ["/ip4/192.0.2.1/tcp/4001"],
        changed,
        copies: 3,
        retry: Schedule.spaced("1 second"),
        republish: Schedule.spaced("8 hours")
      }).pipe(Effect.provideService(KeyValueStore.KeyValueStore, {
        ...store,
        set: (key, value) => Effect.andThen(Effect.sync(() => sizes.push(value.length)), store.set(key, value))
      }))
      for (const key of all) yield* keys.startProviding(key)
      // One list of all 1,500 keys would take 75,000 characters at each write.
      assert.isBelow(Math.max(...sizes), 40_000)
      assert.isBelow(sizes.length / all.length, 1.1)
      assert.isAtMost(disk.entries.size, 33)
      yield* keys.stopProviding(all[0]!)
      assert.strictEqual((yield* statusOf(keys)).announced, all.length - 1)
    }))
})

describe("ProvidedKeys, wishes", () => {
  /** Provides the key in a scope of its own, and gives what closes the scope. */
  const provideIn = Effect.fnUntraced(function*(keys: ProvidedKeys.ProvidedKeys, options?: ProvideOptions) {
    const scope = yield* Scope.make()
    yield* Scope.provide(keys.provide(key, options), scope)
    return { close: Scope.close(scope, Exit.void) }
  })
  const isProvided = (keys: ProvidedKeys.ProvidedKeys) => keys.isProvided(ContentKey.toBytes(key))

  it.effect("of two scopes hold a key until both have closed", () =>
    Effect.gen(function*() {
      const { batches, keys } = yield* makeBatches()
      const first = yield* provideIn(keys)
      const second = yield* provideIn(keys)
      assert.deepStrictEqual(batches, [[key]])
      yield* first.close
      assert.isTrue(isProvided(keys))
      yield* TestClock.adjust("8 hours")
      assert.deepStrictEqual(batches, [[key], [key]])
      yield* second.close
      assert.isFalse(isProvided(keys))
      yield* TestClock.adjust("8 hours")
      assert.lengthOf(batches, 2)
    }))

  it.effect("of two scopes and of startProviding hold a key, in whichever order they end", () =>
    Effect.gen(function*() {
      for (const order of [[0, 1, 2], [0, 2, 1], [2, 0, 1]]) {
        const disk = SimDisk.make()
        const { batches, keys } = yield* makeBatches({ disk })
        const [first, second] = [yield* provideIn(keys), yield* provideIn(keys)]
        const ends = [first.close, second.close, keys.stopProviding(key)]
        yield* keys.startProviding(key)
        for (const [index, end] of order.entries()) {
          assert.isTrue(isProvided(keys), `before end ${index} of ${order}`)
          yield* ends[end]!
        }
        assert.isFalse(isProvided(keys), `after ${order}`)
        assert.deepStrictEqual(batches, [[key]])
        const { batches: after } = yield* makeBatches({ disk })
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(after, [])
      }
    }))

  it.effect("of scopes are not on disk, and end with the process", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      yield* Effect.scoped(Effect.gen(function*() {
        const { keys } = yield* makeBatches({ disk })
        yield* provideIn(keys)
        yield* provideIn(keys, { ttl: "1 hour" })
        assert.deepStrictEqual([...disk.entries], [])
      }))
      const { keys } = yield* makeBatches({ disk })
      assert.isFalse(isProvided(keys))
    }))

  it.effect("of startProviding outlive the process, whatever scopes come and go", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      yield* Effect.scoped(Effect.gen(function*() {
        const { keys } = yield* makeBatches({ disk })
        const { close } = yield* provideIn(keys)
        yield* keys.startProviding(key)
        yield* close
        yield* Effect.scoped(keys.provide(key, { ttl: "1 hour" }))
      }))
      yield* Effect.scoped(Effect.gen(function*() {
        const { keys } = yield* makeBatches({ disk })
        assert.isTrue(isProvided(keys))
        // Scopes of this process end no wish of the one before; stopProviding does, and leaves a scope its key.
        yield* Effect.scoped(keys.provide(key))
        assert.isTrue(isProvided(keys))
        yield* provideIn(keys)
        yield* keys.stopProviding(key)
        assert.isTrue(isProvided(keys))
      }))
      const { keys } = yield* makeBatches({ disk })
      assert.isFalse(isProvided(keys))
    }))

  it.effect("are announced with the options of the latest call, by whichever way", () =>
    Effect.gen(function*() {
      const sent: Array<number | undefined> = []
      const { keys } = yield* makeBatches({
        announce: (batch) => Effect.andThen(Effect.sync(() => sent.push(batch.keys[0]!.ttlSeconds)), takeAll(batch))
      })
      yield* keys.startProviding(key, { ttl: "5 minutes" })
      const { close } = yield* provideIn(keys, { ttl: "1 hour" })
      yield* keys.startProviding(key)
      yield* close
      yield* provideIn(keys, { ttl: "2 hours" })
      yield* keys.stopProviding(key)
      assert.deepStrictEqual(sent, [300, 3600, undefined, 7200])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(sent, [300, 3600, undefined, 7200, 7200])
    }))

  it.effect("that fail are not counted", () =>
    Effect.gen(function*() {
      const { keys } = yield* makeBatches()
      const { close } = yield* provideIn(keys)
      const error = yield* Effect.flip(Effect.scoped(keys.provide(key, { ttl: "1 second" })))
      assert.strictEqual(error.reason._tag, "TtlInvalid")
      assert.isTrue(isProvided(keys))
      yield* close
      assert.isFalse(isProvided(keys))
    }))

  for (const [closes, name] of [[true, "has closed"], [false, "is still open"]] as const) {
    it.effect(`of startProviding that cannot be saved leave a key to its scope, which ${name} by then`, () => {
      let isFull = false
      return Effect.gen(function*() {
        const saving = yield* Latch.make()
        const store = fullStore(() => isFull)
        const { keys } = yield* makeBatches({
          store: { ...store, set: (...args) => Effect.andThen(saving.await, store.set(...args)) }
        })
        for (const ttl of [undefined, "1 hour"] as const) {
          isFull = true
          yield* saving.close
          const { close } = yield* provideIn(keys)
          const failing = yield* Effect.forkScoped(Effect.flip(keys.startProviding(key, { ttl })), {
            startImmediately: true
          })
          if (closes) yield* close
          yield* saving.open
          assert.include((yield* Fiber.join(failing)).message, "disk full")
          assert.strictEqual(isProvided(keys), !closes, `${ttl}`)
          yield* closes ? Effect.void : close
          assert.isFalse(isProvided(keys))
          isFull = false
        }
      }).pipe(Effect.scoped)
    })
  }

  it.effect("that cannot be saved say which call failed", () => {
    let isFull = false
    return Effect.gen(function*() {
      const { keys } = yield* makeBatches({ store: fullStore(() => isFull) })
      yield* keys.startProviding(key, { ttl: "1 hour" })
      isFull = true
      for (const operation of ["startProviding", "provide"] as const) {
        const error = yield* Effect.flip(Effect.scoped(keys[operation](key, { ttl: "2 hours" })))
        assert.strictEqual(error.message, `${operation} ${key}: disk full`)
      }
    }).pipe(Effect.scoped)
  })

  const fork = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkScoped(Effect.exit(effect), { startImmediately: true })

  /** The keys on a disk whose write number `n` waits until `end(n)` opens it, and fails where `fails` says so. */
  const makeSlow = Effect.fnUntraced(function*(fails: ReadonlyArray<boolean>) {
    const ends = fails.map(() => Latch.makeUnsafe())
    let writes = 0
    const full = fullStore(() => true)
    const store: KeyValueStore.KeyValueStore = {
      ...fullStore(() => false),
      set: (...args) =>
        Effect.suspend(() => {
          const write = writes++
          const wait = ends[write]?.await ?? Effect.void
          return Effect.andThen(wait, fails[write] === true ? full.set(...args) : Effect.void)
        })
    }
    const { batches, change, keys } = yield* makeBatches({ store })
    /** Runs in the scope, whose end waits for no write. */
    const begin = <A, E>(effect: Effect.Effect<A, E>) =>
      fork(effect).pipe(
        Effect.tap(Effect.addFinalizer(() => Effect.forEach(ends, (end) => end.open, { discard: true })))
      )
    return { batches, change, keys, begin, end: (write: number) => ends[write]!.open, writes: () => writes }
  })

  for (const isHeld of [true, false]) {
    for (const fails of [false, true]) {
      const outcome = fails ? "fails" : "succeeds"
      const what = isHeld ? "a scope's key" : "a new key"
      it.effect(`of a second startProviding of ${what} wait for the save under way, and stand when their own ${outcome}`, () =>
        Effect.gen(function*() {
          const { begin, end, keys, writes } = yield* makeSlow([true, fails])
          const scope = isHeld ? yield* provideIn(keys) : undefined
          const first = yield* begin(keys.startProviding(key))
          const second = yield* begin(keys.startProviding(key))
          yield* TestClock.adjust(0)
          assert.isUndefined(second.pollUnsafe())
          yield* end(0)
          assert.strictEqual((yield* Fiber.join(first))._tag, "Failure")
          yield* TestClock.adjust(0)
          assert.isUndefined(second.pollUnsafe())
          assert.strictEqual(writes(), 2)
          yield* end(1)
          assert.strictEqual((yield* Fiber.join(second))._tag, fails ? "Failure" : "Success")
          yield* scope?.close ?? Effect.void
          assert.strictEqual(isProvided(keys), !fails)
        }).pipe(Effect.scoped))
    }
  }

  it.effect("of startProviding are announced when they are saved and not before, whatever changes meanwhile", () =>
    Effect.gen(function*() {
      const { batches, begin, change, end, keys } = yield* makeSlow([false])
      const start = yield* begin(keys.startProviding(key))
      yield* TestClock.adjust(0)
      yield* change({ takers: [bob, carol] })
      yield* TestClock.adjust("1 minute")
      yield* change({ takers: [] })
      yield* TestClock.adjust("1 minute")
      yield* change({ takers: [bob, carol, dave], addresses: ["/ip4/192.0.2.2/tcp/4001"] })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(batches, [])
      assert.isUndefined(start.pollUnsafe())
      yield* end(0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(start))._tag, "Success")
      assert.deepStrictEqual(batches, [[key]])
    }).pipe(Effect.scoped))

  it.effect("of two calls of startProviding share a save that succeeds", () =>
    Effect.gen(function*() {
      const { begin, end, keys, writes } = yield* makeSlow([false])
      const calls = [yield* begin(keys.startProviding(key)), yield* begin(keys.startProviding(key))]
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(calls.map((call) => call.pollUnsafe()), [undefined, undefined])
      yield* end(0)
      for (const call of calls) assert.strictEqual((yield* Fiber.join(call))._tag, "Success")
      assert.strictEqual(writes(), 1)
      assert.isTrue(isProvided(keys))
    }).pipe(Effect.scoped))

  it.effect("started, stopped and started again stand, though the first save fails", () =>
    Effect.gen(function*() {
      const { begin, end, keys } = yield* makeSlow([true])
      const { close } = yield* provideIn(keys)
      const first = yield* begin(keys.startProviding(key))
      const stop = yield* begin(keys.stopProviding(key))
      const last = yield* begin(keys.startProviding(key))
      yield* end(0)
      const exits = [yield* Fiber.join(first), yield* Fiber.join(stop), yield* Fiber.join(last)]
      assert.deepStrictEqual(exits.map(({ _tag }) => _tag), ["Failure", "Success", "Success"])
      yield* close
      assert.isTrue(isProvided(keys))
    }).pipe(Effect.scoped))

  it.effect("with two ttls that cannot be saved leave nothing provided, and the key to its scope", () =>
    Effect.gen(function*() {
      for (const isHeld of [true, false]) {
        const { begin, end, keys } = yield* makeSlow([true, true])
        const scope = isHeld ? yield* provideIn(keys) : undefined
        const first = yield* begin(keys.startProviding(key, { ttl: "1 hour" }))
        const second = yield* begin(keys.startProviding(key, { ttl: "2 hours" }))
        yield* end(1)
        yield* end(0)
        assert.strictEqual((yield* Fiber.join(first))._tag, "Failure")
        assert.strictEqual((yield* Fiber.join(second))._tag, "Failure")
        assert.strictEqual(isProvided(keys), isHeld)
        yield* scope?.close ?? Effect.void
        assert.isFalse(isProvided(keys))
      }
    }).pipe(Effect.scoped))

  it.effect("that another ttl replaces are announced no more, and their caller waits no longer", () =>
    Effect.gen(function*() {
      const announced: Array<number | undefined> = []
      const { keys } = yield* makeBatches({
        announce: (batch) =>
          Effect.suspend(() => {
            announced.push(...batch.keys.map(({ ttlSeconds }) => ttlSeconds))
            return batch.keys.some(({ ttlSeconds }) => ttlSeconds === 60) ? Effect.never : takeAll(batch)
          })
      })
      const first = yield* fork(keys.startProviding(key, { ttl: "1 minute" }))
      yield* TestClock.adjust("10 millis")
      assert.isUndefined(first.pollUnsafe())
      yield* keys.startProviding(key, { ttl: "2 minutes" })
      yield* Fiber.join(first)
      assert.deepStrictEqual(announced, [60, 120])
      // In one turn, so that the first is replaced before its batch.
      const both = [
        yield* fork(keys.startProviding(key, { ttl: "3 minutes" })),
        yield* fork(keys.startProviding(key, { ttl: "4 minutes" }))
      ]
      for (const call of both) yield* Fiber.join(call)
      assert.deepStrictEqual(announced, [60, 120, 240])
    }).pipe(Effect.scoped))

  it.effect("end when the scope closes while stopProviding is under way", () =>
    Effect.gen(function*() {
      const saving = yield* Latch.make(true)
      const store = fullStore(() => false)
      const { keys } = yield* makeBatches({
        store: { ...store, set: (...args) => Effect.andThen(saving.await, store.set(...args)) }
      })
      yield* keys.startProviding(key)
      const { close } = yield* provideIn(keys)
      yield* saving.close
      const stop = yield* Effect.forkScoped(keys.stopProviding(key), { startImmediately: true })
      yield* close
      yield* saving.open
      yield* Fiber.join(stop)
      assert.isFalse(isProvided(keys))
    }).pipe(Effect.scoped))

  it.effect("wait a second at most for the first copies", () =>
    Effect.gen(function*() {
      const { keys } = yield* makeBatches({ announce: () => Effect.never })
      for (const wish of [keys.startProviding(key), keys.provide(ContentKey.fromText("another"))]) {
        const fiber = yield* Effect.forkScoped(wish, { startImmediately: true })
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isTrue(fiber.pollUnsafe() !== undefined && Exit.isSuccess(fiber.pollUnsafe()!))
      }
    }).pipe(Effect.scoped))

  it.effect("of a scope are interrupted while they wait for copies, and hold the key all the same", () =>
    Effect.gen(function*() {
      const { batches, keys } = yield* makeBatches({ announce: () => Effect.never })
      const scope = yield* Scope.make()
      const fiber = yield* Effect.forkScoped(Scope.provide(keys.provide(key), scope), { startImmediately: true })
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* Fiber.interrupt(fiber)
      assert.lengthOf(batches, 1)
      assert.isTrue(isProvided(keys))
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(isProvided(keys))
    }).pipe(Effect.scoped))
})

describe("ProvidedKeys, the status", () => {
  it.effect("tells of the queue, the cycle and the lag", () =>
    Effect.gen(function*() {
      const { batches, change, keys } = yield* makeBatches({
        takers: [],
        announce: (batch) => Effect.delay(takeAll(batch), "2 seconds")
      })
      const told: Array<ProvideStatus> = []
      yield* Effect.forkChild(Stream.runForEach(keys.provideStatus, (status) => Effect.sync(() => told.push(status))))
      yield* TestClock.adjust(0)
      assert.deepInclude(told.at(-1), { keys: 0, queued: 0, announced: 0, paused: "NoPeers" })
      yield* Effect.forEach(many(3), (key) => keys.startProviding(key))
      yield* TestClock.adjust(0)
      yield* TestClock.adjust("7 seconds")
      assert.deepInclude(told.at(-1), { keys: 3, queued: 3, announced: 0, lag: Duration.millis(5200) })
      assert.lengthOf(told, 3)
      yield* change({ takers: [bob] })
      yield* TestClock.adjust(0)
      yield* TestClock.adjust("2 seconds")
      yield* TestClock.adjust("100 millis")
      assert.lengthOf(batches, 1)
      const last = told.at(-1)!
      assert.deepInclude(last, { queued: 0, announced: 3, lag: Duration.zero, copies: { least: 3, mean: 3 } })
      assert.isUndefined(last.paused)
      assert.deepInclude(last.lastCycle, { keys: 3, lookups: 1, messages: 3, duration: Duration.seconds(2) })
      yield* change({ addresses: [] })
      yield* TestClock.adjust(0)
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(told.at(-1)!.paused, "NoAddresses")
      // Nothing happens, and the keys become due.
      yield* TestClock.adjust("482 minutes")
      assert.deepInclude(told.at(-1), { announced: 3, queued: 3 })
    }))
})

describe("ProvidedKeys, asked for a key by its bytes", () => {
  it.effect("know the provided keys, after a restart too", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      const all = [key, ContentKey.fromRustRecordKey(Uint8Array.of(0, 0, 200)), ...many(2)]
      const bytes = all.map(ContentKey.toBytes)
      yield* Effect.scoped(Effect.gen(function*() {
        const { keys } = yield* makeBatches({ disk })
        const provided = () => bytes.map(keys.isProvided)
        assert.deepStrictEqual(provided(), [false, false, false, false])
        for (const key of all.slice(0, 3)) yield* keys.startProviding(key)
        yield* keys.startProviding(key, { ttl: "1 hour" })
        assert.deepStrictEqual(provided(), [true, true, true, false])
        yield* keys.stopProviding(all[2]!)
        assert.deepStrictEqual(provided(), [true, true, false, false])
        assert.isFalse(keys.isProvided(Uint8Array.of(0, 200)))
      }))
      const { keys } = yield* makeBatches({ disk })
      assert.deepStrictEqual(bytes.map(keys.isProvided), [true, true, false, false])
    }))

  it.effect("know the keys that are left when a start or a stop cannot be saved", () => {
    let isFull = false
    return Effect.gen(function*() {
      const { keys } = yield* makeDht()
      const isProvided = () => keys.isProvided(ContentKey.toBytes(key))
      isFull = true
      yield* Effect.flip(keys.startProviding(key))
      assert.isFalse(isProvided())
      isFull = false
      yield* keys.startProviding(key)
      isFull = true
      yield* Effect.flip(keys.startProviding(key, { ttl: "1 hour" }))
      assert.isTrue(isProvided())
      yield* Effect.flip(keys.stopProviding(key))
      assert.isTrue(isProvided())
    }).pipe(Effect.scoped, Effect.provideService(KeyValueStore.KeyValueStore, fullStore(() => isFull)))
  })
})

describe("ProvidedKeys, a batch", () => {
  it.effect("leaves out keys stopped meanwhile, and ends with its last key", () =>
    Effect.gen(function*() {
      const [a, b] = many(2) as [ContentKey.ContentKey, ContentKey.ContentKey]
      const running = yield* Deferred.make<Batch>()
      let isInterrupted = false
      const { batches, change, keys } = yield* makeBatches({
        takers: [],
        announce: (batch) =>
          Effect.andThen(Deferred.succeed(running, batch), Effect.never).pipe(
            Effect.onInterrupt(() => Effect.sync(() => void (isInterrupted = true)))
          )
      })
      yield* keys.startProviding(a)
      yield* keys.startProviding(b)
      yield* change({ takers: [bob] })
      const batch = yield* Deferred.await(running)
      assert.lengthOf(batch.keys, 2)
      yield* keys.stopProviding(a)
      assert.isFalse(batch.isWanted(a))
      assert.isTrue(batch.isWanted(b))
      assert.isFalse(isInterrupted)
      // Started anew, the key belongs to another batch.
      yield* Effect.forkChild(keys.startProviding(a))
      while (batches.length < 2) yield* Effect.yieldNow
      assert.isFalse(batch.isWanted(a))
      batch.announced(a, 3)
      assert.strictEqual((yield* statusOf(keys)).announced, 0)
      yield* keys.stopProviding(b)
      assert.isTrue(isInterrupted)
      assert.deepStrictEqual(batches.map(({ length }) => length), [2, 1])
    }))

  it.effect("that fails is tried again for the keys that it did not report, together", () =>
    Effect.gen(function*() {
      const all = many(10)
      const { batches, change, keys, status } = yield* makeBatches({
        takers: [],
        announce: (batch) =>
          Effect.suspend(() => {
            if (batch.keys.length === 1) return takeAll(batch)
            batch.keys.slice(0, batch.keys.length / 2).forEach(({ key }) => batch.announced(key, 1))
            return Effect.fail(new Error("cut off"))
          })
      })
      yield* Effect.forEach(all, (key) => keys.startProviding(key))
      yield* change({ takers: [bob] })
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(batches.map(({ length }) => length), [10])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(batches.map(({ length }) => length), [10, 5])
      assert.deepInclude(yield* status, { announced: 7, queued: 0 })
      yield* TestClock.adjust("20 seconds")
      assert.deepInclude(yield* status, { announced: 10, queued: 0 })
    }))

  it.effect("that gives less than half of the copies is repeated after a minute, then ever later, up to an hour", () =>
    Effect.gen(function*() {
      let copies = 1
      const { batches, keys } = yield* makeBatches({
        takers: [bob, carol, dave],
        announce: (batch) =>
          Effect.sync(() => {
            for (const { key } of batch.keys) batch.announced(key, copies)
            return { lookups: 1, messages: 3 }
          })
      })
      yield* keys.startProviding(key)
      for (const [index, minutes] of [1, 1, 2, 4, 8, 16, 32, 60, 60].entries()) {
        yield* TestClock.adjust(minutes * 60_000 - 1)
        assert.lengthOf(batches, index + 1)
        yield* TestClock.adjust(1)
        assert.lengthOf(batches, index + 2)
      }
      // However long it goes on.
      yield* TestClock.adjust("48 hours")
      assert.lengthOf(batches, 58)
      copies = 2
      yield* TestClock.adjust("1 hour")
      assert.lengthOf(batches, 59)
      yield* TestClock.adjust("7 hours")
      assert.lengthOf(batches, 59)
      // Few once more at its renewal, it begins anew.
      copies = 1
      for (let steps = 0; batches.length < 60 && steps < 12 * 360; steps++) yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust("49 seconds")
      assert.lengthOf(batches, 60)
      yield* TestClock.adjust("11 seconds")
      assert.lengthOf(batches, 61)
    }))

  it.effect("that gives few copies is repeated until those are back who were there before a cut", () =>
    Effect.gen(function*() {
      const all = [bob, carol, dave]
      const near = [bob]
      let copies = 1
      const { batches, change, keys } = yield* makeBatches({
        takers: all,
        announce: (batch) =>
          Effect.sync(() => {
            for (const { key } of batch.keys) batch.announced(key, copies)
            return { lookups: 1, messages: 3 }
          })
      })
      yield* keys.startProviding(key)
      // The others do not answer, and are forgotten.
      yield* change({ takers: near })
      yield* TestClock.adjust("3 minutes")
      assert.lengthOf(batches, 3)
      yield* change({ takers: all })
      copies = 3
      yield* TestClock.adjust("1 minute")
      assert.lengthOf(batches, 4)
      yield* TestClock.adjust("7 hours")
      assert.lengthOf(batches, 4)
      // Who stays away for a day is gone.
      copies = 1
      while (batches.length < 5) yield* TestClock.adjust("1 minute")
      yield* change({ takers: near })
      yield* TestClock.adjust("26 hours")
      const { length } = batches
      assert.isAbove(length, 20)
      yield* TestClock.adjust("7 hours")
      assert.isAtMost(batches.length, length + 1)
    }))

  it.effect("that never ends is given up, and does not keep a new key from being announced", () =>
    Effect.gen(function*() {
      let isHanging = true
      const { batches, keys } = yield* makeBatches({
        announce: (batch) => isHanging ? Effect.never : takeAll(batch)
      })
      yield* Effect.forkChild(keys.startProviding(key))
      while (batches.length === 0) yield* Effect.yieldNow
      isHanging = false
      yield* keys.startProviding(ContentKey.fromText("another"))
      assert.lengthOf(batches, 2)
      yield* TestClock.adjust("61 seconds")
      assert.lengthOf(batches, 2)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(batches[2], [key])
    }))

  it.effect("releases an optimistic caller with the first writes", () =>
    Effect.gen(function*() {
      const { batches, keys } = yield* makeBatches({
        announce: (batch) =>
          Effect.suspend(() => {
            for (const { isOptimistic, key } of batch.keys) if (isOptimistic) batch.written(key)
            return Effect.delay(takeAll(batch), "500 millis")
          })
      })
      yield* keys.startProviding(key, { optimistic: true })
      const confirmed = yield* Effect.forkChild(keys.startProviding(ContentKey.fromText("another")))
      while (batches.length < 2) yield* Effect.yieldNow
      yield* TestClock.adjust("499 millis")
      assert.isUndefined(confirmed.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isDefined(confirmed.pollUnsafe())
    }))

  it.effect("waits until there is a taker, and does not wait for a retry then", () =>
    Effect.gen(function*() {
      let isDeaf = true
      const { batches, change, keys, status } = yield* makeBatches({
        announce: (batch) => isDeaf ? Effect.fail(new Error("nobody answers")) : takeAll(batch)
      })
      yield* Effect.forkChild(keys.startProviding(key))
      yield* TestClock.adjust(0)
      yield* TestClock.adjust("7 seconds")
      const tried = batches.length
      yield* change({ takers: [] })
      // The next attempt would be in eight seconds.
      yield* TestClock.adjust("1 second")
      assert.lengthOf(batches, tried)
      isDeaf = false
      yield* change({ takers: [bob] })
      yield* TestClock.adjust(0)
      assert.lengthOf(batches, tried + 1)
      assert.strictEqual((yield* status).announced, 1)
    }))
})

describe("ProvidedKeys, on disk", () => {
  it.effect("are what was asked for, whenever the process is killed", () =>
    Effect.gen(function*() {
      const all = many(6)
      for (let writes = 0;; writes++) {
        const disk = SimDisk.make()
        yield* disk.mount().store.set("provided", JSON.stringify(all.slice(0, 2)))
        const { detach, store } = disk.mount()
        let left = writes
        const killed = yield* Deferred.make<void>()
        const write = <E>(effect: Effect.Effect<void, E>) =>
          Effect.suspend(() => {
            if (left-- > 0) return effect
            detach()
            return Effect.andThen(Deferred.succeed(killed, void 0), Effect.never)
          })
        /** The keys whose call has returned, and whether it was a start. */
        const done = new Map(all.map((key, index) => [key, index < 2]))
        let doing: ContentKey.ContentKey | undefined
        const scope = yield* Scope.make()
        const life = Effect.gen(function*() {
          const keys = yield* ProvidedKeys.make({
            announce: takeAll,
            takers: () => [],
            hasTakers: Effect.succeed(false),
            isConnected: () => false,
            addresses: () => [],
            changed: yield* Latch.make(),
            copies: 3,
            retry: Schedule.spaced("1 second"),
            republish: Schedule.spaced("8 hours")
          }).pipe(
            Effect.provideService(KeyValueStore.KeyValueStore, {
              ...store,
              set: (key, value) => write(store.set(key, value)),
              remove: (key) => write(store.remove(key))
            })
          )
          for (const [key, isStart] of [[2, true], [0, false], [3, true], [2, false], [1, false], [4, true]] as const) {
            doing = all[key]!
            yield* isStart ? keys.startProviding(doing) : keys.stopProviding(doing)
            done.set(doing, isStart)
          }
          doing = undefined
          return true
        })
        const isOver = yield* Effect.raceFirst(Scope.provide(life, scope), Effect.as(Deferred.await(killed), false))
        // A dead process does not do what closing its scope would.
        detach()
        left = Infinity
        yield* Scope.close(scope, Exit.void)

        const { batches } = yield* makeBatches({ disk })
        yield* TestClock.adjust(0)
        const found = new Set(batches.flat())
        assert.isFalse(disk.entries.has("provided"))
        for (const [key, isProvided] of done) {
          if (key !== doing) assert.strictEqual(found.has(key), isProvided, `${key} after ${writes} writes`)
        }
        if (isOver) break
      }
    }))

  it.effect("are lost only as far as they are damaged", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      const all = many(100)
      yield* Effect.scoped(Effect.gen(function*() {
        const { startAll } = yield* makeBatches({ disk })
        yield* startAll(all)
      }))
      const { store } = disk.mount()
      const [name, text] = [...disk.entries].find(([name]) => name === "provided.07")!
      const lost = JSON.parse(String(text)).keys.length
      assert.isAbove(lost, 0)
      yield* store.set(name, String(text).slice(0, -3))
      const { keys } = yield* makeBatches({ disk })
      assert.strictEqual((yield* statusOf(keys)).keys, all.length - lost)
    }))
})
