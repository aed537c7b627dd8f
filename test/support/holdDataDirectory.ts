/**
 * A process that locks the data directory of its first argument, prints `taken` or the reason why not, and stays until
 * it is killed.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import { Console, Effect } from "effect"
import * as DataDirectory from "../../src/layers/machine/DataDirectory.ts"

DataDirectory.make(process.argv[2] ?? "").pipe(
  Effect.matchEffect({ onFailure: (error) => Console.log(error.message), onSuccess: () => Console.log("taken") }),
  Effect.andThen(Effect.never),
  Effect.scoped,
  Effect.provide([NodeFileSystem.layer, NodePath.layer]),
  Effect.runFork
)
setInterval(() => {}, 1_000_000)
