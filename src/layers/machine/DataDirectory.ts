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
  FileSystem,
  Layer,
  Path,
  type PlatformError,
  Predicate,
  Schema,
  type Scope,
  Semaphore
} from "effect"
import { KeyValueStore } from "effect/persistence"
import { hostname } from "node:os"
import type { DatabaseSync } from "node:sqlite"
import { DataDirectoryError } from "../../schema/NetworkError.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import * as AtomicFile from "./AtomicFile.ts"

/**
 * Locks the directory for this node while the scope lives, and gives the store in it. Creates the directory (0700)
 * where it is missing.
 *
 * Fails when the directory cannot be created or written, and when another node of this or another process uses it.
 */
export const make = Effect.fnUntraced(function*(
  directory: string
): Effect.fn.Return<KeyValueStore.KeyValueStore, DataDirectoryError, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const path = yield* Path.Path
  const root = path.resolve(directory)
  const store = path.join(root, "store")
  const failed = (what: string) => (error: PlatformError.PlatformError) =>
    new DataDirectoryError({
      path: root,
      detail: `${what}: ${reasonOf(error)}; choose another dataDirectory or mend it`,
      cause: error
    })

  yield* makeDirectory(root).pipe(Effect.mapError(failed("cannot be created")))
  yield* lock(root)
  return yield* makeDirectory(store).pipe(
    Effect.andThen(removeTemporary(store)),
    Effect.andThen(fileStore(store)),
    Effect.mapError(failed("cannot be written"))
  )
})

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

// Node's own recursive form never ends where the system answers that a parent does not exist, as below /proc.
const makeDirectory = (
  directory: string
): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const parent = (yield* Path.Path).dirname(directory)
    const make = fs.makeDirectory(directory, { mode: 0o700 })
    yield* make.pipe(
      Effect.catchReason("PlatformError", "NotFound", (_, missing) =>
        Effect.flatMap(fs.exists(parent), (exists) =>
          exists || parent === directory ? Effect.fail(missing) : Effect.andThen(makeDirectory(parent), make))),
      Effect.catchReason("PlatformError", "AlreadyExists", (_, taken) =>
        Effect.flatMap(fs.stat(directory), ({ type }) =>
          type === "Directory" ? Effect.void : Effect.fail(taken)))
    )
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

  // Released in reverse order: the name is removed while the lock is held.
  yield* Effect.acquireRelease(
    Effect.try({ try: () => openLocked(file), catch: notLocked }).pipe(
      Effect.catchIf((error) => codeOf(error.cause) === busy, () => inUse)
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
    database.exec("BEGIN EXCLUSIVE")
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

const removeTemporary = Effect.fnUntraced(function*(store: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = yield* fs.readDirectory(store)
  yield* Effect.forEach(names.filter(isTemporary), (name) => fs.remove(path.join(store, name), { force: true }), {
    discard: true
  })
})

// Reads like effect's own file store, whose writes truncate the file first: a process killed meanwhile would lose the
// value.
const fileStore = Effect.fnUntraced(function*(store: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const plain = Context.get(yield* Layer.build(KeyValueStore.layerFileSystem(store)), KeyValueStore.KeyValueStore)
  // One write at a time, so that the last write asked for is the one that stays.
  const writing = yield* Semaphore.make(1)

  const write = (key: string, value: string | Uint8Array) =>
    Effect.suspend(() => {
      const file = path.join(store, encodeURIComponent(key))
      const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value
      return AtomicFile.write(file, bytes, { temporary: `${file}+`, flag: "w" })
    }).pipe(
      Effect.provideService(FileSystem.FileSystem, fs),
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
    new KeyValueStore.KeyValueStoreError({ method: "keys", message: `cannot list ${store}`, cause })
  const keys = fs.readDirectory(store).pipe(
    Effect.mapError(notListed),
    Effect.flatMap((names) =>
      Effect.try({ try: () => names.filter((name) => !isTemporary(name)).map(decodeURIComponent), catch: notListed })
    )
  )
  return KeyValueStore.make({
    get: plain.get,
    getUint8Array: plain.getUint8Array,
    has: plain.has,
    remove: plain.remove,
    clear: plain.clear,
    set: write,
    keys,
    size: Effect.map(keys, (names) => names.length)
  })
})

// The operating system's own words, such as "ENOTDIR: not a directory, mkdir '/etc/hosts/codio'".
function reasonOf(error: PlatformError.PlatformError): string {
  return error.reason.cause instanceof Error ? error.reason.cause.message : error.message
}
