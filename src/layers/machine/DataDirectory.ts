/**
 * What a node keeps on disk, as effect's `KeyValueStore`: files under `NetworkConfig.dataDirectory`, or memory when
 * there is none.
 *
 * | in the directory | |
 * |---|---|
 * | `store/<key>` | one file for each key, its name percent-encoded; 0600, written to a temporary name, synced and renamed |
 * | `lock` | an empty file that the process using the directory holds a lock on |
 * | `lock.owner` | the process id and host of that process, for messages only |
 *
 * **The lock** is the one that the operating system gives on a file and takes back when the process ends, however it
 * ends: after `kill -9` the next start finds the directory free at once. Two starters cannot both get it. Node has no
 * call for such locks, but its SQLite does: an exclusive transaction on the empty file `lock` is one (`fcntl` on Unix,
 * `LockFileEx` on Windows), and it also keeps two nodes of one process apart. Nothing is ever written to that file, so
 * it cannot be damaged. The alternatives lack one of the three: a file that names a process is wrong once the id is
 * used again, or seen from another container, and taking over a stale one races with others who do the same; a socket
 * in the directory has that race too, and a limit of 107 bytes on its path.
 *
 * Gotchas
 * - The lock is as good as the file system's: some network file systems grant it to everybody.
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
 * Takes the directory for this node while the scope lives, and gives the store in it. Creates the directory (0700)
 * where it is missing.
 *
 * Fails when it cannot be created or written, and when another node uses it, whether of this process or of another.
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

// Node's own recursive form never ends where the system says that there is no such place, as below /proc.
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

/** SQLite's code for a lock that somebody else holds. */
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
      // The other process is between its lock and its name.
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

  // Released in reverse: the name goes while the lock still stands.
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
      // A name for messages: without it the lock holds all the same.
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

// Node 22 prints a warning that SQLite is experimental when the module is first loaded, which is no news for whoever
// starts a node.
function loadSqlite(): typeof import("node:sqlite") | undefined {
  const emitWarning = process.emitWarning
  process.emitWarning = () => {}
  try {
    return process.getBuiltinModule("node:sqlite")
  } finally {
    process.emitWarning = emitWarning
  }
}

// "+" is percent-encoded in the name of a key, so a name that ends with it is never one.
const isTemporary = (name: string) => name.endsWith("+")

const removeTemporary = Effect.fnUntraced(function*(store: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = yield* fs.readDirectory(store)
  yield* Effect.forEach(names.filter(isTemporary), (name) => fs.remove(path.join(store, name), { force: true }), {
    discard: true
  })
})

// Reads are those of effect's own file store. Its writes truncate the file first, so a process killed meanwhile would
// lose the value.
const fileStore = Effect.fnUntraced(function*(store: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const plain = Context.get(yield* Layer.build(KeyValueStore.layerFileSystem(store)), KeyValueStore.KeyValueStore)
  // One write at a time: the last one to be asked for is the one that stays.
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
