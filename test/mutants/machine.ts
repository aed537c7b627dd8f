import type { Mutant } from "./Mutant.ts"

const dataDirectory = ["test/layers/machine/DataDirectory.live.test.ts"] as const
const peerStore = ["test/layers/machine/KeyValuePeerStore.test.ts"] as const

export const machineMutants: ReadonlyArray<Mutant> = [
  {
    name: "a file is renamed before its bytes are on disk",
    file: "src/layers/machine/AtomicFile.ts",
    text: "    yield* handle.sync\n",
    replacement: "",
    specs: dataDirectory
  },
  {
    name: "the directory is not synced after a rename",
    file: "src/layers/machine/AtomicFile.ts",
    text: "  yield* syncDirectory(path.dirname(file))\n",
    replacement: "",
    specs: dataDirectory
  },
  {
    name: "a write that was begun ends with its caller",
    file: "src/layers/machine/DataDirectory.ts",
    text: "      Effect.uninterruptible,\n      writing.withPermits(1)",
    replacement: "      writing.withPermits(1)",
    specs: dataDirectory
  },
  {
    name: "writes to one key overtake each other",
    file: "src/layers/machine/DataDirectory.ts",
    text: "const writing = yield* Semaphore.make(1)",
    replacement: "const writing = yield* Semaphore.make(100)",
    specs: dataDirectory
  },
  {
    name: "the lock needs room on the disk",
    file: "src/layers/machine/DataDirectory.ts",
    text: "PRAGMA journal_mode = MEMORY; ",
    replacement: "",
    specs: dataDirectory
  },
  {
    name: "a directory that others may write to is used",
    file: "src/layers/machine/Directory.ts",
    text: "(mode & 0o002) === 0",
    replacement: "(mode & 0o000) === 0",
    specs: dataDirectory
  },
  {
    name: "a directory that was removed stays away until a write",
    file: "src/layers/machine/DataDirectory.ts",
    text:
      "  yield* Supervised.forever(\"the watch over the data directory\", Effect.delay(held.restore, checkInterval))\n",
    replacement: "",
    specs: dataDirectory
  },
  {
    name: "a write into a removed directory fails",
    file: "src/layers/machine/DataDirectory.ts",
    text: "return Effect.catchReason(once, \"PlatformError\", \"NotFound\", () => Effect.andThen(restore, once))",
    replacement: "return once",
    specs: dataDirectory
  },
  {
    name: "a directory that was made anew is not locked",
    file: "src/layers/machine/DataDirectory.ts",
    text: "    locked = yield* Scope.fork(scope)\n    yield* take\n",
    replacement: "    locked = yield* Scope.fork(scope)\n    yield* Directory.make(store)\n",
    specs: dataDirectory
  },
  {
    name: "a read fails without the system's reason",
    file: "src/layers/machine/DataDirectory.ts",
    text: "get: (key) => Effect.mapError(plain.get(key), withReason(`cannot read ${key}`))",
    replacement: "get: plain.get",
    specs: dataDirectory
  },
  {
    name: "a removed key file stays away",
    file: "src/layers/machine/FileIdentity.ts",
    text: "    yield* write(file, identity)\n    yield* Effect.logWarning",
    replacement: "    yield* Effect.logWarning",
    specs: ["test/layers/machine/FileIdentity.live.test.ts"]
  },
  {
    name: "peers are written half a minute later",
    file: "src/layers/machine/KeyValuePeerStore.ts",
    text: "export const saveDelay = \"1 second\"",
    replacement: "export const saveDelay = \"30 seconds\"",
    specs: peerStore
  },
  {
    name: "every change writes all peers",
    file: "src/layers/machine/KeyValuePeerStore.ts",
    text: "changed.size >= changesMax",
    replacement: "changed.size >= 1",
    specs: peerStore
  },
  {
    name: "changes never become a snapshot",
    file: "src/layers/machine/KeyValuePeerStore.ts",
    text: "changed.size >= changesMax || !",
    replacement: "!",
    specs: peerStore
  },
  {
    name: "changes that could not be written are forgotten",
    file: "src/layers/machine/KeyValuePeerStore.ts",
    text: "        hasUnsaved.openUnsafe()\n        return Effect.andThen(notSaved",
    replacement: "        return Effect.andThen(notSaved",
    specs: peerStore
  },
  {
    name: "a full disk is tried every second",
    file: "src/layers/machine/KeyValuePeerStore.ts",
    text: "Effect.andThen(notSaved(error), Effect.sleep(retryDelay))",
    replacement: "notSaved(error)",
    specs: peerStore
  },
  {
    name: "older changes win over a snapshot",
    file: "src/layers/machine/KeyValuePeerStore.ts",
    text: "earlier.lastSeen.epochMilliseconds > peer.lastSeen.epochMilliseconds",
    replacement: "earlier.lastSeen.epochMilliseconds > Infinity",
    specs: peerStore
  },
  {
    name: "a damaged list is thrown away",
    file: "src/layers/Damaged.ts",
    text: "store.set(`${key}.damaged`, bytes)",
    replacement: "Effect.void",
    specs: peerStore
  },
  {
    name: "damaged lists are not counted",
    file: "src/layers/Damaged.ts",
    text: "NetworkMetrics.damagedLists, keys.length",
    replacement: "NetworkMetrics.damagedLists, 0",
    specs: peerStore
  }
]
