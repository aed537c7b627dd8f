/**
 * A process that takes identity and store from the data directory of its first argument, writes a value, and prints
 * what became of each.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import { Console, Effect } from "effect"
import * as DataDirectory from "../../src/layers/machine/DataDirectory.ts"
import * as FileIdentity from "../../src/layers/machine/FileIdentity.ts"

const directory = process.argv[2] ?? ""

Effect.gen(function*() {
  const { peerId } = yield* FileIdentity.make(directory)
  const store = yield* DataDirectory.make(directory)
  yield* Console.log(`started ${peerId}`)
  yield* store.set("key", "x".repeat(8192))
  yield* Console.log("saved")
}).pipe(
  Effect.catch((error: { readonly message: string }) => Console.log(error.message)),
  Effect.scoped,
  Effect.provide([NodeFileSystem.layer, NodePath.layer]),
  Effect.runFork
)
