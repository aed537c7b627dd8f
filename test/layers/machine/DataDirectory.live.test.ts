import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, FileSystem, Layer, Path, Scope } from "effect"
import { KeyValueStore } from "effect/persistence"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import * as DataDirectory from "../../../src/layers/machine/DataDirectory.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"

const platform = Layer.mergeAll(NodeFileSystem.layer, NodePath.layer)

const temporary = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped({ prefix: "codio-data-" }))

const modeOf = (file: string) =>
  Effect.map(Effect.flatMap(FileSystem.FileSystem, (fs) => fs.stat(file)), (info) => info.mode & 0o777)

// A process that locks the directory, prints so, and holds the lock until it is killed.
const holder = fileURLToPath(new URL("../../support/holdDataDirectory.ts", import.meta.url))
const hold = (directory: string) =>
  Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, [holder, directory], { stdio: ["ignore", "pipe", "inherit"] })),
    (child) => Effect.promise(() => kill(child))
  )
const kill = async (child: ReturnType<typeof spawn>) => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, "exit")
  child.kill("SIGKILL")
  await gone
}

describe("DataDirectory", () => {
  it.live("keeps values across openings, in files that only the user may read", () =>
    Effect.gen(function*() {
      const path = yield* Path.Path
      const directory = path.join(yield* temporary, "deep", "data")
      yield* Effect.scoped(Effect.gen(function*() {
        const store = yield* DataDirectory.make(directory)
        yield* store.set("peers/1", "one")
        yield* store.set("bytes", new Uint8Array([0, 255]))
        assert.deepStrictEqual([...yield* store.keys].sort(), ["bytes", "peers/1"])
      }))
      assert.strictEqual(yield* modeOf(directory), 0o700)
      assert.strictEqual(yield* modeOf(path.join(directory, "store", "peers%2F1")), 0o600)
      yield* Effect.scoped(Effect.gen(function*() {
        const store = yield* DataDirectory.make(directory)
        assert.strictEqual(yield* store.get("peers/1"), "one")
        assert.deepStrictEqual(yield* store.getUint8Array("bytes"), new Uint8Array([0, 255]))
        assert.strictEqual(yield* store.size, 2)
        yield* store.remove("bytes")
        assert.isUndefined(yield* store.get("bytes"))
        assert.isFalse(yield* store.has("bytes"))
      }))
    }).pipe(Effect.provide(platform)))

  it.live("removes what a killed write left, and never takes it for a value", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const directory = yield* temporary
      yield* fs.makeDirectory(path.join(directory, "store"))
      yield* fs.writeFileString(path.join(directory, "store", "peers"), "whole")
      yield* fs.writeFileString(path.join(directory, "store", "peers+"), "ha")
      const store = yield* DataDirectory.make(directory)
      assert.deepStrictEqual(yield* store.keys, ["peers"])
      assert.strictEqual(yield* store.get("peers"), "whole")
      assert.deepStrictEqual(yield* fs.readDirectory(path.join(directory, "store")), ["peers"])
    }).pipe(Effect.provide(platform)))

  it.live("keeps the last of many writes to one key", () =>
    Effect.gen(function*() {
      const store = yield* DataDirectory.make(yield* temporary)
      yield* Effect.forEach(Array.from({ length: 50 }, (_, i) => i), (i) => store.set("n", String(i)), {
        concurrency: 50,
        discard: true
      })
      assert.strictEqual(yield* store.get("n"), "49")
    }).pipe(Effect.provide(platform)))

  it.live("refuses a second node of the same process until the first one ends", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const first = yield* Scope.make()
      yield* Scope.provide(DataDirectory.make(directory), first)
      const error = yield* Effect.flip(Effect.scoped(DataDirectory.make(directory)))
      assert.strictEqual(
        error.message,
        `data directory ${directory}: is used by another node of this process; stop it, or give this node another dataDirectory`
      )
      // The failed attempt has not released the first node's lock.
      yield* Effect.flip(Effect.scoped(DataDirectory.make(directory)))
      yield* Scope.close(first, Exit.void)
      yield* Effect.scoped(DataDirectory.make(directory))
      const fs = yield* FileSystem.FileSystem
      assert.deepStrictEqual((yield* fs.readDirectory(directory)).sort(), ["lock", "store"])
    }).pipe(Effect.provide(platform)))

  it.live("refuses a directory that another process uses, and takes it at once when that one is killed", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const child = yield* hold(directory)
      yield* Effect.promise(() => once(child.stdout!, "data"))
      const error = yield* Effect.flip(Effect.scoped(DataDirectory.make(directory)))
      assert.strictEqual(
        error.message,
        `data directory ${directory}: is used by process ${child.pid}; stop it, or give this node another dataDirectory`
      )
      yield* Effect.promise(() => kill(child))
      yield* Effect.scoped(DataDirectory.make(directory))
    }).pipe(Effect.provide(platform)))

  it.live("lets one of several starters in, over what a killed process left", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const dead = yield* hold(directory)
      yield* Effect.promise(() => once(dead.stdout!, "data"))
      yield* Effect.promise(() => kill(dead))
      const starters = yield* Effect.forEach([1, 2, 3, 4], () => hold(directory))
      const answers = yield* Effect.promise(() =>
        Promise.all(starters.map(async (child) => String((await once(child.stdout!, "data"))[0]).trim()))
      )
      assert.strictEqual(answers.filter((answer) => answer === "taken").length, 1, answers.join(" | "))
      assert.strictEqual(answers.filter((answer) => answer.includes("is used by ")).length, 3, answers.join(" | "))
    }).pipe(Effect.provide(platform)))

  it.live("says why a directory cannot be used", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const directory = yield* temporary
      const file = path.join(directory, "file")
      yield* fs.writeFileString(file, "")
      const notADirectory = yield* Effect.flip(Effect.scoped(DataDirectory.make(path.join(file, "data"))))
      assert.match(
        notADirectory.message,
        /^data directory .*file\/data: cannot be created: ENOTDIR: .*; choose another dataDirectory[^\n]*$/
      )
      const isFile = yield* Effect.flip(Effect.scoped(DataDirectory.make(file)))
      assert.match(isFile.message, /^data directory .*file: cannot be created: EEXIST: [^\n]*$/)
      // No directory can be created below /proc, and Node's own recursive form would never end there.
      const impossible = (yield* fs.exists("/proc/self")) ? "/proc/codio/data" : path.join(file, "codio", "data")
      const nowhere = yield* Effect.flip(Effect.scoped(DataDirectory.make(impossible)))
      assert.match(nowhere.message, /^data directory .*codio\/data: cannot be created: [^\n]*$/)
      yield* fs.writeFileString(
        path.join(directory, "lock"),
        "this is not an empty file, and not one of SQLite's either"
      )
      const damagedLock = yield* Effect.flip(Effect.scoped(DataDirectory.make(directory)))
      assert.match(damagedLock.message, /cannot be locked: file is not a database; check that .*\/lock [^\n]*$/)
    }).pipe(Effect.provide(platform)))

  it.effect("keeps everything in memory without a directory", () =>
    Effect.gen(function*() {
      const store = yield* KeyValueStore.KeyValueStore
      yield* store.set("key", "value")
      assert.strictEqual(yield* store.get("key"), "value")
    }).pipe(
      Effect.provide(DataDirectory.layer),
      Effect.provide([NetworkConfig.layer(), FileSystem.layerNoop({}), Path.layer])
    ))
})
