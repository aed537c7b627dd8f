#!/usr/bin/env node
/**
 * The program `codio`.
 *
 * Exit codes: 0 when it was asked to stop (SIGINT, SIGTERM, or its output is no longer read) or showed its help, 1 for everything that is
 * told in a line on stderr. A stop ends within 2 s, or within the given `stopTimeout`: what has not closed by then is left to the operating
 * system, and so it is at once on a second signal.
 */
// Not from the package's index, which loads its HTTP server too and takes a third of a second.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Console, Duration, Effect, Exit, Layer, Runtime } from "effect"
import { run } from "./codio.ts"
import { Reader, StopLimit } from "./start.ts"

/** From a signal to the end, whatever happens. Leaves a tenth of the two seconds for the process itself. */
let stopMillisMax = 1800

/** What a node's stop needs besides its time limit, to tell what held it. */
const stopMillisMore = 300

const stopLimit = (stopTimeout: Duration.Duration) =>
  Effect.sync(() => {
    stopMillisMax = Duration.toMillis(stopTimeout) + stopMillisMore
  })

const reader = {
  gone: Effect.callback<void>((resume) => {
    process.stdout.once("error", () => resume(Effect.void))
  }),
  ready: Effect.callback<void>((resume) => {
    if (!process.stdout.writableNeedDrain) return resume(Effect.void)
    const drained = () => resume(Effect.void)
    process.stdout.once("drain", drained)
    return Effect.sync(() => process.stdout.off("drain", drained))
  })
}

// Whoever read the output may leave first; a stream without a listener would throw.
process.stdout.on("error", () => {})
process.stderr.on("error", () => {})

let stopping = false
const onSignal = () => {
  if (stopping) process.exit(0)
  stopping = true
  setTimeout(() => process.exit(0), stopMillisMax).unref()
}
process.on("SIGINT", onSignal)
process.on("SIGTERM", onSignal)

run(process.argv.slice(2)).pipe(
  // A bug, and the one case in which a stack helps.
  Effect.tapCause((cause) => Cause.hasDies(cause) ? Console.error(Cause.pretty(cause)) : Effect.void),
  Effect.provide(
    Layer.mergeAll(NodeServices.layer, Layer.succeed(Reader, reader), Layer.succeed(StopLimit, stopLimit))
  ),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit) => {
      const end = (code: number) => flushed(() => process.exit(code))
      if (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) end(0)
      else Runtime.defaultTeardown(exit, end)
    }
  })
)

/** Waits for what was printed, unless nobody reads it. */
function flushed(done: () => void): void {
  if (process.stdout.writableLength === 0 || process.stdout.destroyed) return done()
  setTimeout(done, 500).unref()
  process.stdout.write("", done)
}
