import { assert, describe, it } from "@effect/vitest"
import { Effect, Latch, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { KeyValueStore } from "effect/persistence"
import * as ProvidedKeys from "../../src/layers/ProvidedKeys.ts"
import * as ContentKey from "../../src/schema/Content.ts"
import type { PeerId } from "../../src/schema/Peer.ts"
import { peerId } from "../support/FakeConnection.ts"

const key = ContentKey.fromText("a key")
const [bob, carol, dave] = ["bob", "carol", "dave"].map(peerId) as [PeerId, PeerId, PeerId]

/** A DHT of which the test says who is in reach and who takes copies. */
const makeDht = Effect.fnUntraced(function*(options: { readonly copies?: number } = {}) {
  const changed = yield* Latch.make()
  const state = {
    takers: [] as Array<PeerId>,
    deaf: false,
    addresses: ["/ip4/192.0.2.1/tcp/4001"],
    announced: 0,
    withdrawn: 0
  }
  const keys = yield* ProvidedKeys.make({
    announce: (_, sent) =>
      Effect.sync(() => {
        state.announced++
        if (!state.deaf) state.takers.forEach(sent)
      }),
    withdraw: () => Effect.sync(() => void state.withdrawn++),
    takers: () => state.takers,
    hasTakers: Effect.sync(() => state.takers.length > 0),
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

/** An empty store on a disk that is full while it says so. */
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

  it.effect("retries on the schedule while nobody takes a copy, which starts anew after a success", () =>
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
        assert.strictEqual(state.withdrawn, 1)
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
      assert.strictEqual(state.withdrawn, 0)
      yield* at(state, "11 hours", 2)
      isFull = false
      yield* keys.stopProviding(key)
      assert.strictEqual(state.withdrawn, 1)
      yield* at(state, "11 hours", 2)
    }).pipe(Effect.scoped, Effect.provideService(KeyValueStore.KeyValueStore, fullStore(() => isFull)))
  })

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
