import type { Mutant } from "./Mutant.ts"

const dataDirectory = ["test/layers/machine/DataDirectory.live.test.ts"] as const
const shutdown = ["test/layers/machine/BoundedShutdown.test.ts"] as const
const peerStore = ["test/layers/machine/KeyValuePeerStore.test.ts"] as const

export const machineMutants: ReadonlyArray<Mutant> = [
  {
    name: "each look at the interfaces makes another list",
    file: "src/layers/machine/NodeNetworkMonitor.ts",
    text: "if (hasChanged) current = seen",
    replacement: "current = seen",
    specs: ["test/layers/machine/NodeNetworkMonitor.test.ts"]
  },
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
  },
  {
    name: "an overdue part is not interrupted",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "if (exit === undefined) fiber.interruptUnsafe()",
    replacement: "",
    specs: shutdown
  },
  {
    name: "a part has all the time it likes",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "const left = began + limitMillis *",
    replacement: "const left = began + 1e9 *",
    specs: shutdown
  },
  {
    name: "each part has the whole time of the stop",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "if (running === 0 && start - ended > pauseMillis) {",
    replacement: "if (running === 0) {",
    specs: shutdown
  },
  {
    name: "what a program ends first takes all the time",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "(share === \"all\" ? 1 : most)",
    replacement: "1",
    specs: shutdown
  },
  {
    name: "a pause of the process begins another stop",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "const pauseMillis = 500",
    replacement: "const pauseMillis = 50",
    specs: shutdown
  },
  {
    name: "the parts of a former stop are reported again",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "        held.clear()\n",
    replacement: "",
    specs: shutdown
  },
  {
    name: "a slow part is not reported",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "const longMillis = 1_000",
    replacement: "const longMillis = 10_000",
    specs: shutdown
  },
  {
    name: "quick parts are reported",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "const shownMillis = 100",
    replacement: "const shownMillis = 10",
    specs: shutdown
  },
  {
    name: "a release that died is hidden",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "if (exit !== undefined) yield* exit",
    replacement: "",
    specs: shutdown
  },
  {
    name: "a part that is left is not named",
    file: "src/layers/machine/BoundedShutdown.ts",
    text: "isLeft: former?.isLeft === true || exit === undefined",
    replacement: "isLeft: false",
    specs: shutdown
  },
  {
    name: "a message shows the seed",
    file: "src/layers/machine/SeededIdentity.ts",
    text: "return \"a text; decode it first",
    replacement: "return seed + \"a text; decode it first",
    specs: ["test/sim/arguments.test.ts"]
  }
]
