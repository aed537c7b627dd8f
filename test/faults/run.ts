/**
 * `npm run test:faults`: the promises of the library under faults of real links and real processes. Every scenario has
 * hosts of its own, so three run at a time; each prints what it measured and the bound. The last line counts the
 * scenarios.
 *
 *     npm run test:faults -- kill frozen     # scenarios whose names hold one of the words
 */
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Clock, Console, Effect, Exit } from "effect"
import * as SuiteReport from "../../scripts/SuiteReport.ts"
import { lacks, Machine } from "./Machine.ts"
import { type Measured, reportTo, type Scenario } from "./Scenario.ts"
import { scenarios } from "./scenarios.ts"
import { tally } from "./Tally.ts"

/** The time limit of the whole suite. */
const limitSeconds = 240

/** The time limit of one scenario, most of which is waiting. */
const scenarioSeconds = 150

/** The scenarios that were asked for and that the machine can run, the longest first; prints what it cannot run. */
const choose = Effect.fnUntraced(function*(words: ReadonlyArray<string>) {
  const named = scenarios.filter(({ name }) =>
    SuiteReport.isAsked(name) && (words.length === 0 || words.some((word) => name.includes(word)))
  )
  const problem = yield* lacks
  const leftOut: Array<string> = []
  const chosen = yield* Effect.filter(
    named,
    (scenario) =>
      Effect.map(problem === undefined ? scenario.lacks ?? Effect.undefined : Effect.succeed(problem), (problem) => {
        if (problem !== undefined) leftOut.push(problem)
        return problem === undefined
      })
  )
  if (leftOut.length > 0) {
    yield* Console.log(`left out ${leftOut.length}, which this machine cannot run: ${[...new Set(leftOut)].join("; ")}`)
  }
  return { chosen: chosen.sort((a, b) => b.seconds - a.seconds), leftOut }
})

/** Runs a scenario and prints its outcome; true when it passed. */
const perform = Effect.fnUntraced(function*({ name, run }: Scenario) {
  const measured: Array<Measured> = []
  const began = yield* Clock.currentTimeMillis
  const exit = yield* Effect.exit(
    Effect.scoped(run(reportTo(measured))).pipe(Effect.timeout(`${scenarioSeconds} seconds`))
  )
  if (Exit.hasInterrupts(exit)) return yield* Effect.interrupt
  const seconds = ((yield* Clock.currentTimeMillis) - began) / 1000
  const isGood = Exit.isSuccess(exit) && measured.length > 0 && measured.every(({ isGood }) => isGood)
  const lines = measured.map(({ isGood, text }) => `        ${isGood ? "" : "BROKEN  "}${text}`)
  if (Exit.isFailure(exit)) lines.push(`        ${(Cause.squash(exit.cause) as Error).message}`)
  yield* Console.log([`${isGood ? "ok    " : "FAILED"}  ${name} (${seconds.toFixed(0)} s)`, ...lines].join("\n"))
  return isGood
})

const program = Effect.gen(function*() {
  const { chosen, leftOut } = yield* choose(process.argv.slice(2))
  if (chosen.length === 0) {
    yield* Effect.sync(() => SuiteReport.write({ passed: [], failed: [], leftOut }))
    return yield* Console.log("0 passed, 0 failed")
  }
  const began = yield* Clock.currentTimeMillis
  const ended = new Map<string, boolean>()
  const exit = yield* Effect.forEach(
    chosen,
    (scenario) => Effect.map(perform(scenario), (isGood) => ended.set(scenario.name, isGood)),
    { concurrency: 3, discard: true }
  ).pipe(
    Effect.timeout(`${limitSeconds} seconds`),
    Effect.provide(Machine.layer),
    Effect.exit
  )
  if (Exit.hasInterrupts(exit)) return yield* Effect.interrupt
  if (Exit.isFailure(exit)) yield* Console.log(`\nFAILED  ${(Cause.squash(exit.cause) as Error).message}`)
  yield* Console.log(`\nall scenarios took ${(((yield* Clock.currentTimeMillis) - began) / 1000).toFixed(0)} s`)
  const { failed, failures, passed } = tally(chosen.map(({ name }) => name), ended, exit)
  yield* Effect.sync(() => SuiteReport.write({ passed, failed, leftOut }))
  yield* Console.log(`${passed.length} passed, ${failures} failed`)
  if (failures > 0) process.exitCode = 1
})

NodeRuntime.runMain(program)
