import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, FileSystem, Layer, Path, Scope } from "effect"
import { KeyValueStore } from "effect/persistence"
import { TestClock } from "effect/testing"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import * as DataDirectory from "../../../src/layers/machine/DataDirectory.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { eventually } from "../../contract/eventually.ts"
import * as LogLines from "../../support/LogLines.ts"

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

  it.live("names the system's reason in every error of a file", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const directory = yield* temporary
      const store = yield* DataDirectory.make(directory)
      yield* fs.makeDirectory(path.join(directory, "store", "key", "full"), { recursive: true })
      const messages = yield* Effect.forEach(
        [store.get("key"), store.getUint8Array("key"), store.set("key", "value")],
        (effect) => Effect.map(Effect.flip<unknown, KeyValueStore.KeyValueStoreError, never>(effect), (e) => e.message)
      )
      assert.match(messages[0]!, /^cannot read key: EISDIR: /)
      assert.match(messages[1]!, /^cannot read key: EISDIR: /)
      assert.match(messages[2]!, /^cannot write key: EISDIR: /)
    }).pipe(Effect.provide(platform)))

  it.live("refuses a directory that other users may write to, and says what to run", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* temporary
      yield* fs.chmod(directory, 0o777)
      const error = yield* Effect.flip(Effect.scoped(DataDirectory.make(directory)))
      assert.strictEqual(
        error.message,
        `data directory ${directory}: others may write to it (mode 0777); run: chmod 700 ${directory}`
      )
      yield* fs.chmod(directory, 0o755)
      yield* Effect.scoped(DataDirectory.make(directory))
    }).pipe(Effect.provide(platform)))

  it.live("syncs the file before the rename, and the directory after it", () =>
    Effect.gen(function*() {
      const path = yield* Path.Path
      const fs = yield* FileSystem.FileSystem
      const directory = yield* temporary
      const done: Array<string> = []
      const note = (what: string) => Effect.sync(() => void done.push(what))
      const watched = FileSystem.make({
        ...fs,
        open: (name, options) =>
          Effect.map(fs.open(name, options), (handle) =>
            Object.create(handle, {
              sync: { value: Effect.andThen(handle.sync, note(`sync ${path.basename(name)}`)) }
            })),
        rename: (from, to) =>
          Effect.andThen(fs.rename(from, to), note(`rename ${path.basename(from)} ${path.basename(to)}`))
      })
      yield* Effect.gen(function*() {
        const store = yield* DataDirectory.make(directory)
        yield* store.set("key", "value")
      }).pipe(Effect.provideService(FileSystem.FileSystem, watched))
      assert.deepStrictEqual(done, ["sync key+", "rename key+ key", "sync store"])
    }).pipe(Effect.provide(platform)))

  it.live("ends a write that was begun, though its caller is interrupted", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const began = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const slow = FileSystem.make({
        ...fs,
        rename: (from, to) =>
          Deferred.succeed(began, undefined).pipe(
            Effect.andThen(Deferred.await(goOn)),
            Effect.andThen(fs.rename(from, to))
          )
      })
      yield* Effect.gen(function*() {
        const store = yield* DataDirectory.make(yield* temporary)
        const writing = yield* Effect.forkChild(store.set("key", "value"))
        yield* Deferred.await(began)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(writing), { startImmediately: true })
        yield* Deferred.succeed(goOn, undefined)
        yield* Fiber.join(interrupting)
        assert.strictEqual(yield* store.get("key"), "value")
      }).pipe(Effect.provideService(FileSystem.FileSystem, slow))
    }).pipe(Effect.provide(platform)))

  it.effect("makes a directory that is removed while in use anew, locked, with a warning", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const directory = path.join(yield* temporary, "data")
      const store = yield* DataDirectory.make(directory)
      yield* store.set("before", "gone")
      const isAnew = Effect.map(
        LogLines.lines,
        (lines) => lines.filter((line) => line.includes("was removed while in use; it is made anew")).length
      )
      const inUse = Effect.map(Effect.flip(Effect.scoped(DataDirectory.make(directory))), ({ message }) => message)

      // By the check.
      yield* fs.remove(directory, { recursive: true })
      yield* TestClock.adjust(DataDirectory.checkInterval)
      yield* TestClock.withLive(eventually("made anew by the check", Effect.map(isAnew, (count) => count === 1)))
      assert.match(yield* inUse, /is used by another node of this process/)
      assert.strictEqual(yield* modeOf(directory), 0o700)

      // By a write, which does not wait for the check.
      yield* fs.remove(directory, { recursive: true })
      yield* store.set("after", "value")
      assert.strictEqual(yield* store.get("after"), "value")
      assert.strictEqual(yield* isAnew, 2)
      assert.match(yield* inUse, /is used by another node of this process/)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* isAnew, 2)
    }).pipe(Effect.provide(platform), LogLines.capture))

  it.live("starts on a full disk as on a read-only one, and says which it is", (context) =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const program = fileURLToPath(new URL("../../support/useDataDirectory.ts", import.meta.url))
      // A disk of 128 KiB, in a mount namespace of its own.
      const script = `mount -t tmpfs -o size=128k tmpfs "$1" || exit 9
        run() { echo "- $1"; "$3" --no-warnings "$2" "$4"; }
        fill() { dd if=/dev/zero of="$1/fill" bs=1k 2>/dev/null; }
        run room "$2" "$3" "$1/data"
        fill "$1"
        run full "$2" "$3" "$1/data"
        run "full at first" "$2" "$3" "$1/other"
        mount -o remount,ro "$1"
        run read-only "$2" "$3" "$1/data"`
      const { status, stdout } = spawnSync("unshare", [
        "-rm",
        "sh",
        "-c",
        script,
        "sh",
        directory,
        program,
        process.execPath
      ], {
        encoding: "utf8"
      })
      if (status !== 0) return context.skip("mount namespaces are not permitted here")
      const id = /started (\S+)/.exec(stdout)?.[1] ?? "no id"
      assert.deepStrictEqual(stdout.replaceAll(id, "ID").replaceAll(directory, "DIR").trim().split("\n"), [
        "- room",
        "started ID",
        "saved",
        "- full",
        "started ID",
        "cannot write key: ENOSPC: no space left on device, write",
        "- full at first",
        "identity DIR/other/identity.key: cannot be written: ENOSPC: no space left on device, write",
        "- read-only",
        "started ID",
        "cannot write key: EROFS: read-only file system, open 'DIR/data/store/key+'"
      ])
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
