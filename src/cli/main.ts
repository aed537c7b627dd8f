/**
 * The process of the program: its signals, its output and its end.
 */
// Not from the package's index, which loads its HTTP server too and takes a third of a second.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Console, Duration, Effect, Exit, Layer, Runtime } from "effect"
import { run } from "./codio.ts"
import { exit } from "./exit.ts"
import { Reader, StopLimit } from "./start.ts"

/** How long the program may run after a signal. Leaves a tenth of the two seconds for the process itself. */
let stopMillisMax = 1800

/** What the program adds to a given `stopTimeout`, so that the node can log what held it. */
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

/** Runs the program with the arguments of the process, and ends the process. */
export const main = (): void => {
  // The reader of the output may leave first; its stream would throw without a listener.
  process.stdout.on("error", () => {})
  process.stderr.on("error", () => {})

  let stopping = false
  const onSignal = () => {
    if (stopping) exit(0)
    stopping = true
    setTimeout(() => exit(0), stopMillisMax).unref()
  }
  process.on("SIGINT", onSignal)
  process.on("SIGTERM", onSignal)
  // The terminal has gone. `runMain` below listens to the other two.
  process.on("SIGHUP", () => process.emit("SIGTERM"))

  run(process.argv.slice(2)).pipe(
    // A defect is a bug: the one case in which a stack helps.
    Effect.tapCause((cause) => Cause.hasDies(cause) ? Console.error(Cause.pretty(cause)) : Effect.void),
    Effect.provide(
      Layer.mergeAll(NodeServices.layer, Layer.succeed(Reader, reader), Layer.succeed(StopLimit, stopLimit))
    ),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      teardown: (ended) => {
        const end = (code: number) => flushed(() => exit(code))
        if (Exit.isFailure(ended) && Cause.hasInterruptsOnly(ended.cause)) end(0)
        else Runtime.defaultTeardown(ended, end)
      }
    })
  )
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Waits until the printed lines are written, unless nobody reads them. */
function flushed(done: () => void): void {
  if (process.stdout.writableLength === 0 || process.stdout.destroyed) return done()
  setTimeout(done, 500).unref()
  process.stdout.write("", done)
}
