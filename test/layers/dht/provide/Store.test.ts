import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import { KeyValueStore } from "effect/persistence"
import * as Store from "../../../../src/layers/dht/provide/Store.ts"
import * as ContentKey from "../../../../src/schema/Content.ts"
import * as SimDisk from "../../../../src/testing/network/SimDisk.ts"
import * as LogLines from "../../../support/LogLines.ts"

const all = Array.from({ length: 1100 }, (_, index) => ContentKey.fromRustRecordKey(`key ${index}`))
/** The first bits of each key's position, spread as hashes are. */
const prefixes = new Map(all.map((key, index) => [key, (index * 0x9e3779b1) >>> 0]))
const h0Of = (key: ContentKey.ContentKey) => prefixes.get(key)!

const entryOf = (key: ContentKey.ContentKey, given: Partial<Store.StoredKey> = {}) => ({
  key,
  h0: h0Of(key),
  ttlSeconds: undefined,
  announcedMinute: 0,
  copies: 0,
  addresses: "",
  ...given
})

/** A store over the disk that reports each write, which may end the process or fail. */
const open = Effect.fnUntraced(function*(
  disk: SimDisk.SimDisk,
  onWrite: (name: string) => "done" | "full" | "killed" = () => "done",
  changesMax = 512
) {
  const { detach, store } = disk.mount()
  const killed = yield* Deferred.make<false>()
  const write = (name: string, effect: Effect.Effect<void, KeyValueStore.KeyValueStoreError>) =>
    // A turn later, so that several callers ask meanwhile.
    Effect.andThen(
      Effect.yieldNow,
      Effect.suspend(() => {
        const outcome = onWrite(name)
        if (outcome === "done") return effect
        if (outcome === "full") {
          return Effect.fail(new KeyValueStore.KeyValueStoreError({ method: "set", key: name, message: "disk full" }))
        }
        detach()
        return Effect.andThen(Deferred.succeed(killed, false), Effect.never)
      })
    )
  const keys = yield* Store.make(h0Of, changesMax).pipe(
    Effect.provideService(KeyValueStore.KeyValueStore, {
      ...store,
      set: (name, value) => write(name, store.set(name, value)),
      remove: (name) => write(name, store.remove(name))
    })
  )
  return { keys, killed: Deferred.await(killed), detach }
})

/** A process that saves the first 64 keys at once, and ends. */
const saveOn = (disk: SimDisk.SimDisk) =>
  Effect.scoped(Effect.flatMap(
    open(disk),
    ({ keys }) => Effect.forEach(all.slice(0, 64), (key) => keys.set(entryOf(key)), { concurrency: 64 })
  ))

const savedOn = (disk: SimDisk.SimDisk) =>
  Effect.scoped(Effect.map(open(disk), ({ keys }) => new Map(keys.saved.map((entry) => [entry.key, entry]))))

describe("Store", () => {
  it.effect("has what was saved, whenever the process is killed", () =>
    Effect.gen(function*() {
      // Every twentieth change folds the journal: the parts are written, then an empty journal.
      for (let last = 0; last < 90; last++) {
        const disk = SimDisk.make()
        const scope = yield* Scope.make()
        let writes = 0
        const { detach, keys, killed } = yield* Scope.provide(
          open(disk, () => ++writes > last ? "killed" : "done", 20),
          scope
        )
        const done = new Map<ContentKey.ContentKey, boolean>()
        let doing: ContentKey.ContentKey | undefined
        yield* Effect.raceFirst(
          Effect.gen(function*() {
            for (let index = 0; index < 45; index++) {
              // Every fourth change ends a key that was started before.
              const isEnd = index % 4 === 3
              const entry = entryOf(all[isEnd ? index - 3 : index]!)
              doing = entry.key
              yield* isEnd ? keys.remove(entry) : keys.set(entry)
              done.set(entry.key, !isEnd)
            }
            doing = undefined
          }),
          killed
        )
        detach()
        writes = -Infinity
        yield* Scope.close(scope, Exit.void)
        const saved = yield* savedOn(disk)
        for (const [key, isProvided] of done) {
          if (key !== doing) assert.strictEqual(saved.has(key), isProvided, `${key} after ${last} writes`)
        }
        const extra = [...saved.keys()].filter((key) => !done.has(key) && key !== doing)
        assert.deepStrictEqual(extra, [], `after ${last} writes`)
      }
    }))

  it.effect("writes many changes asked for at once together", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      let writes = 0
      const { keys } = yield* open(disk, () => {
        writes++
        return "done"
      })
      yield* Effect.forEach(all, (key) => keys.set(entryOf(key)), { concurrency: 200, discard: true })
      // The journal several times, and the 32 parts each time that it is full.
      assert.isAtMost(writes, 100)
      assert.strictEqual((yield* savedOn(disk)).size, all.length)
    }))

  it.effect("fails the calls that it cannot save, and no others", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      let isFull = false
      const { keys } = yield* open(disk, () => isFull ? "full" : "done")
      const [a, b, c] = all as [ContentKey.ContentKey, ContentKey.ContentKey, ContentKey.ContentKey]
      yield* keys.set(entryOf(a, { ttlSeconds: 60 }))
      isFull = true
      const exits = yield* Effect.forEach(
        [
          keys.set(entryOf(a, { ttlSeconds: 90 })),
          keys.remove(entryOf(a)),
          keys.set(entryOf(b))
        ],
        Effect.exit,
        { concurrency: 3 }
      )
      for (const exit of exits) assert.isTrue(Exit.isFailure(exit))
      isFull = false
      yield* keys.set(entryOf(c))
      const saved = yield* savedOn(disk)
      assert.deepStrictEqual([...saved.keys()].sort(), [a, c].sort())
      assert.strictEqual(saved.get(a)!.ttlSeconds, 60)
    }))

  it.effect("takes a change back that it cannot save, also in what it writes later", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      let isFull = false
      const scope = yield* Scope.make()
      const { keys } = yield* Scope.provide(open(disk, () => isFull ? "full" : "done"), scope)
      const [a, b, c] = all as [ContentKey.ContentKey, ContentKey.ContentKey, ContentKey.ContentKey]
      yield* keys.set(entryOf(a, { ttlSeconds: 60 }))
      yield* keys.set(entryOf(c))
      isFull = true
      yield* Effect.flip(keys.set(entryOf(a, { ttlSeconds: 90 })))
      yield* Effect.flip(keys.set(entryOf(b)))
      yield* Effect.flip(keys.remove(entryOf(c)))
      isFull = false
      // The parts are written, and what is left of the journal.
      yield* Scope.close(scope, Exit.void)
      assert.isAbove(disk.entries.size, 1)
      const saved = yield* savedOn(disk)
      assert.sameMembers([...saved.keys()], [a, c])
      assert.strictEqual(saved.get(a)!.ttlSeconds, 60)
    }))

  it.effect("goes on with the journal while the parts cannot be written, and writes them later", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      let isFull = true
      const { keys } = yield* open(disk, (name) => isFull && name !== "provided.changes" ? "full" : "done")
      for (const key of all.slice(0, 600)) yield* keys.set(entryOf(key))
      assert.deepStrictEqual([...disk.entries.keys()], ["provided.changes"])
      isFull = false
      yield* TestClock.adjust("5 minutes")
      assert.lengthOf([...disk.entries.keys()], 33)
      assert.strictEqual(disk.entries.get("provided.changes"), `{"version":1,"keys":[]}`)
      assert.strictEqual((yield* savedOn(disk)).size, 600)
    }))

  it.effect("writes the times of announcements after five minutes, and at the end", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      const scope = yield* Scope.make()
      const writes: Array<string> = []
      const { keys } = yield* Scope.provide(
        open(disk, (name) => {
          writes.push(name)
          return "done"
        }),
        scope
      )
      const entries = all.slice(0, 100).map((key) => entryOf(key))
      yield* Effect.forEach(entries, keys.set, { concurrency: 100, discard: true })
      const saved = { announcedMinute: 7, copies: 20, addresses: "abc" }
      for (const entry of entries) keys.touch(Object.assign(entry, saved))
      const before = writes.length
      yield* TestClock.adjust("299 seconds")
      assert.strictEqual(writes.length, before)
      yield* TestClock.adjust("1 second")
      // Each part once, and the journal.
      assert.lengthOf(writes.slice(before), 33)
      keys.touch(Object.assign(entries[0]!, { announcedMinute: 8 }))
      // A key that is not provided any more stays away.
      keys.touch(entryOf(all[200]!))
      yield* Scope.close(scope, Exit.void)
      assert.lengthOf(writes.slice(before), 34)
      const found = yield* savedOn(disk)
      assert.strictEqual(found.size, 100)
      assert.deepInclude(found.get(all[0]!), { ...saved, announcedMinute: 8 })
      assert.deepInclude(found.get(all[1]!), saved)
    }))

  it.effect("takes over the list of an earlier version, and loses nothing when it cannot be written", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      yield* disk.mount().store.set("provided", JSON.stringify(all.slice(0, 50)))
      yield* Effect.scoped(Effect.gen(function*() {
        const { keys } = yield* open(disk, (name) => name === "provided.changes" ? "done" : "full")
        assert.lengthOf(keys.saved, 50)
        yield* keys.remove(entryOf(all[0]!))
      }))
      assert.isTrue(disk.entries.has("provided"))
      const saved = yield* savedOn(disk)
      assert.strictEqual(saved.size, 49)
      assert.isFalse(disk.entries.has("provided"))
      assert.isFalse(saved.has(all[0]!))
    }))

  it.effect("sets damaged entries aside, names them in one line, and keeps the others", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      yield* saveOn(disk)
      const { store } = disk.mount()
      yield* store.set("provided.01", "{\"version\":1,\"keys\":[[")
      yield* store.set("provided.1f", "{\"version\":9}")
      const saved = yield* savedOn(disk)
      assert.strictEqual(saved.size, 60)
      assert.deepStrictEqual(yield* LogLines.lines, [
        "Warn: 2 lists of provided keys are damaged or of a newer version, and are set aside: "
        + "provided.01.damaged, provided.1f.damaged"
      ])
      assert.deepStrictEqual(disk.entries.get("provided.1f.damaged"), new TextEncoder().encode("{\"version\":9}"))
      assert.isFalse(disk.entries.has("provided.1f"))
    }).pipe(LogLines.capture))

  it.effect("never writes over an entry that the disk did not give", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      yield* saveOn(disk)
      const { store } = disk.mount()
      const error = new KeyValueStore.KeyValueStoreError({ method: "get", message: "cannot read provided.01: EIO" })
      yield* Effect.scoped(Effect.gen(function*() {
        const keys = yield* Store.make(h0Of).pipe(Effect.provideService(KeyValueStore.KeyValueStore, {
          ...store,
          get: (name) => name === "provided.01" ? Effect.fail(error) : store.get(name)
        }))
        assert.strictEqual(keys.saved.length, 62)
        yield* Effect.forEach(all.slice(64, 128), (key) => keys.set(entryOf(key)), { concurrency: 64 })
      }))
      assert.deepStrictEqual(
        (yield* LogLines.lines)[0],
        `Warn: ${error.message}: its provided keys wait for the next start, and it is not written over`
      )
      assert.strictEqual((yield* savedOn(disk)).size, 128)
    }).pipe(LogLines.capture))

  it.effect("writes its entries again when they were removed meanwhile", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      yield* saveOn(disk)
      yield* Effect.scoped(Effect.gen(function*() {
        const values = disk.mount().store
        yield* Store.make(h0Of).pipe(Effect.provideService(KeyValueStore.KeyValueStore, values))
        yield* values.clear
      }))
      assert.strictEqual((yield* savedOn(disk)).size, 64)
    }))
})
