/**
 * What a node keeps on disk, as effect's `KeyValueStore`: files under `NetworkConfig.dataDirectory`, or memory when
 * there is none.
 *
 * | in the directory | |
 * |---|---|
 * | `store/<key>` | a file for each key, its name percent-encoded; 0600, written whole or not at all |
 * | `lock` | an empty file, locked by the process that uses the directory |
 * | `lock.owner` | the process id and host of that process, for messages only |
 *
 * **The lock** is the operating system's lock on a file. The system releases it when the process ends, however it ends:
 * after `kill -9` the next start finds the directory free at once. Two starters cannot both get it, and two nodes of
 * one process cannot either. Node has no call for such locks, but its SQLite has: an exclusive transaction on the empty
 * file `lock` takes one (`fcntl` on Unix, `LockFileEx` on Windows). Nothing is ever written to that file, so it cannot
 * be damaged. The alternatives are weaker: a file that names a process is wrong once the id is used again, or in
 * another container, and two starters that take over a stale file race; a socket in the directory has that race too,
 * and a limit of 107 bytes on its path.
 *
 * Gotchas
 * - Some network file systems grant the lock to everybody.
 * - Closing any other descriptor of `lock` in this process would drop the lock, so nothing else here opens that file.
 */
import {
  Context,
  Effect,
  Equal,
  Exit,
  FileSystem,
  Layer,
  Option,
  Path,
  PlatformError,
  Predicate,
  Schema,
  Scope,
  Semaphore
} from "effect"
import { KeyValueStore } from "effect/persistence"
import { hostname } from "node:os"
import type { DatabaseSync } from "node:sqlite"
import { DataDirectoryError } from "../../schema/NetworkError.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import * as Supervised from "../Supervised.ts"
import * as AtomicFile from "./AtomicFile.ts"
import * as Directory from "./Directory.ts"
import { reasonOf } from "./Reason.ts"

/**
 * Locks the directory for this node while the scope lives, and gives the store in it. Creates the directory (0700)
 * where it is missing, and again when it is removed while the scope lives, with a warning: within 5 s, or by the next
 * write. The lock needs no room, so that a node starts on a full disk as on a read-only one; writes fail there.
 *
 * Fails when the directory cannot be created, when other users may write to it, and when another node of this or
 * another process uses it. Errors carry the system's reason, such as ENOSPC.
 */
export const make = Effect.fnUntraced(function*(
  directory: string
): Effect.fn.Return<KeyValueStore.KeyValueStore, DataDirectoryError, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const path = yield* Path.Path
  const root = path.resolve(directory)
  const store = path.join(root, "store")
  const held = yield* hold(root, store)
  yield* removeTemporary(store)
  const files = yield* Effect.mapError(fileStore(store, held.restore), failed(root, "cannot be written"))
  yield* Supervised.forever("the watch over the data directory", Effect.delay(held.restore, checkInterval))
  return files
})

/** How often a node looks whether its directory is still there. A check costs two calls of `stat`. */
export const checkInterval = "5 seconds"

/**
 * The store under `NetworkConfig.dataDirectory`, locked while the layer lives; in memory without one.
 */
export const layer: Layer.Layer<
  KeyValueStore.KeyValueStore,
  DataDirectoryError,
  NetworkConfig | FileSystem.FileSystem | Path.Path
> = Layer.unwrap(Effect.map(
  NetworkConfig,
  ({ dataDirectory }) =>
    dataDirectory === undefined
      ? KeyValueStore.layerMemory
      : Layer.effect(KeyValueStore.KeyValueStore, make(dataDirectory))
))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const failed = (root: string, what: string) => (error: PlatformError.PlatformError) =>
  new DataDirectoryError({
    path: root,
    detail: `${what}: ${reasonOf(error)}; choose another dataDirectory or mend it`,
    cause: error
  })

/** Makes and locks the directory. `restore` does so again if the directory was removed meanwhile, with a warning. */
const hold = Effect.fnUntraced(function*(root: string, store: string) {
  const services = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const scope = yield* Effect.scope
  const file = path.join(root, "lock")
  /** The lock, as a file: it is held as long as the name leads to the same file. */
  let inode: Option.Option<bigint> = Option.none()
  let locked = yield* Scope.fork(scope)

  const take = Effect.gen(function*() {
    yield* Effect.mapError(Directory.make(root), failed(root, "cannot be created"))
    const problem = yield* Effect.mapError(Directory.problemOf(root), failed(root, "cannot be used"))
    if (problem !== undefined) return yield* new DataDirectoryError({ path: root, detail: problem })
    yield* Scope.provide(lock(root), locked)
    const prepared = Effect.andThen(Directory.make(store), fs.stat(file))
    inode = (yield* Effect.mapError(prepared, failed(root, "cannot be written"))).ino
  })
  yield* take

  const isThere = Effect.all([fs.stat(file), fs.exists(store)]).pipe(
    Effect.map(([{ ino }, hasStore]) => hasStore && Equal.equals(ino, inode)),
    // Whatever else fails, such as too many open files, says nothing about the directory.
    Effect.catch((error) => Effect.succeed(error.reason._tag !== "NotFound"))
  )
  let told: string | undefined
  const once = yield* Semaphore.make(1)
  const restore = Effect.gen(function*() {
    if (yield* isThere) return
    yield* Scope.close(locked, Exit.void)
    locked = yield* Scope.fork(scope)
    yield* take
    told = undefined
    yield* Effect.logWarning(`data directory ${root} was removed while in use; it is made anew, for the same identity`)
  }).pipe(
    Effect.catch((error) => {
      const isNew = told !== error.message
      told = error.message
      return isNew ? Effect.logWarning(`${error.message}; nothing is saved before that`) : Effect.void
    }),
    Effect.annotateLogs({ component: "data-directory" }),
    Effect.provideContext(services),
    once.withPermits(1),
    Effect.uninterruptible
  )
  return { restore }
})

const Owner = Schema.fromJsonString(Schema.Struct({ pid: Schema.Int, host: Schema.String }))

/** SQLite's code for a lock that another holder has. */
const busy = 5

const codeOf = (cause: unknown): unknown => Predicate.hasProperty(cause, "errcode") ? cause.errcode : undefined

const lock = Effect.fnUntraced(function*(root: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(root, "lock")
  const ownerFile = path.join(root, "lock.owner")

  const inUse = fs.readFileString(ownerFile).pipe(
    Effect.flatMap(Schema.decodeEffect(Owner)),
    Effect.match({
      // The other process has the lock, and has not yet written its name.
      onFailure: () => "another process",
      onSuccess: ({ host, pid }) =>
        host !== hostname()
          ? `process ${pid} on ${host}`
          : pid === process.pid
          ? "another node of this process"
          : `process ${pid}`
    }),
    Effect.flatMap((owner) =>
      Effect.fail(
        new DataDirectoryError({
          path: root,
          detail: `is used by ${owner}; stop it, or give this node another dataDirectory`
        })
      )
    )
  )
  const notLocked = (cause: unknown) =>
    new DataDirectoryError({
      path: root,
      detail: `cannot be locked: ${
        (cause as Error).message
      }; check that ${file} is a file that can be written, or remove it`,
      cause
    })
  // SQLite has no word for why the system refused. A file beside the lock is refused for the same reason.
  const probe = path.join(root, "lock.probe")
  const probed = fs.writeFile(probe, Uint8Array.of(0), { mode: 0o600 }).pipe(
    Effect.ensuring(Effect.ignore(fs.remove(probe, { force: true }))),
    Effect.mapError(failed(root, "cannot be locked"))
  )

  // Released in reverse order: the name is removed while the lock is held.
  yield* Effect.acquireRelease(
    Effect.try({ try: () => openLocked(file), catch: notLocked }).pipe(
      Effect.catch((error) => codeOf(error.cause) === busy ? inUse : Effect.andThen(probed, Effect.fail(error)))
    ),
    (database) => Effect.sync(() => database.close())
  )
  yield* Effect.acquireRelease(
    Effect.suspend(() =>
      fs.writeFileString(ownerFile, JSON.stringify({ pid: process.pid, host: hostname() }), { mode: 0o600 })
    ).pipe(
      // The name is for messages only.
      Effect.ignore
    ),
    () => Effect.ignore(fs.remove(ownerFile, { force: true }))
  )
})

function openLocked(file: string): DatabaseSync {
  const sqlite = loadSqlite()
  if (sqlite === undefined) throw new Error("this Node.js was built without node:sqlite")
  const database = new sqlite.DatabaseSync(file, { timeout: 0 })
  try {
    // A journal on disk would need room there, and a full disk refuse the lock.
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE")
    return database
  } catch (cause) {
    database.close()
    throw cause
  }
}

// Node 22 warns that SQLite is experimental when the module is first loaded; a user cannot act on that.
function loadSqlite(): typeof import("node:sqlite") | undefined {
  const emitWarning = process.emitWarning
  process.emitWarning = () => {}
  try {
    return process.getBuiltinModule("node:sqlite")
  } finally {
    process.emitWarning = emitWarning
  }
}

// A key's name has its "+" percent-encoded, so a name that ends with "+" is no key's.
const isTemporary = (name: string) => name.endsWith("+")

// Where they cannot be removed, as on a read-only disk, they are in nobody's way.
const removeTemporary = (store: string) =>
  Effect.ignore(Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const names = yield* fs.readDirectory(store)
    yield* Effect.forEach(names.filter(isTemporary), (name) => fs.remove(path.join(store, name), { force: true }), {
      discard: true
    })
  }))

// Reads like effect's own file store, whose writes truncate the file first: a process killed meanwhile would lose the
// value.
const fileStore = Effect.fnUntraced(function*(store: string, restore: Effect.Effect<void>) {
  const services = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const plain = Context.get(yield* Layer.build(KeyValueStore.layerFileSystem(store)), KeyValueStore.KeyValueStore)
  // One write at a time, so that the last write asked for is the one that stays.
  const writing = yield* Semaphore.make(1)

  const write = (key: string, value: string | Uint8Array) =>
    Effect.suspend(() => {
      const file = path.join(store, encodeURIComponent(key))
      const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value
      const once = AtomicFile.write(file, bytes, { temporary: `${file}+`, flag: "w" })
      return Effect.catchReason(once, "PlatformError", "NotFound", () => Effect.andThen(restore, once))
    }).pipe(
      Effect.provideContext(services),
      Effect.mapError((cause) =>
        new KeyValueStore.KeyValueStoreError({
          method: "set",
          key,
          message: `cannot write ${key}: ${reasonOf(cause)}`,
          cause
        })
      ),
      Effect.uninterruptible,
      writing.withPermits(1)
    )

  const notListed = (cause: unknown) =>
    new KeyValueStore.KeyValueStoreError({
      method: "keys",
      message: `cannot list ${store}: ${
        cause instanceof PlatformError.PlatformError ? reasonOf(cause) : String(cause)
      }`,
      cause
    })
  const keys = fs.readDirectory(store).pipe(
    Effect.mapError(notListed),
    Effect.flatMap((names) =>
      Effect.try({ try: () => names.filter((name) => !isTemporary(name)).map(decodeURIComponent), catch: notListed })
    )
  )
  return KeyValueStore.make({
    get: (key) => Effect.mapError(plain.get(key), withReason(`cannot read ${key}`)),
    getUint8Array: (key) => Effect.mapError(plain.getUint8Array(key), withReason(`cannot read ${key}`)),
    has: (key) => Effect.mapError(plain.has(key), withReason(`cannot look for ${key}`)),
    remove: (key) => Effect.mapError(plain.remove(key), withReason(`cannot remove ${key}`)),
    clear: Effect.mapError(plain.clear, withReason("cannot remove the files")),
    set: write,
    keys,
    size: Effect.map(keys, (names) => names.length)
  })
})

/** The system's reason in the message, as of every error of the directory. */
const withReason = (what: string) => (error: KeyValueStore.KeyValueStoreError) =>
  error.cause instanceof PlatformError.PlatformError
    ? new KeyValueStore.KeyValueStoreError({
      ...error,
      message: `${what}: ${reasonOf(error.cause)}`,
      cause: error.cause
    })
    : error
