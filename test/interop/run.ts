/**
 * `npm run test:interop`: nodes of this library, of rust-libp2p and of go-libp2p, each with each. Builds the peers,
 * prints the matrix, and counts its cells in the last line.
 *
 *     npm run test:interop -- pairs values     # those parts only
 */
import { NodeRuntime } from "@effect/platform-node"
import { Clock, Console, Effect, Fiber, Layer, References } from "effect"
import * as SuiteReport from "../../scripts/SuiteReport.ts"
import * as Bench from "./Bench.ts"
import { build, missing } from "./build.ts"
import * as Matrix from "./Matrix.ts"
import * as Namespace from "./Namespace.ts"
import { providers, values } from "./rows/dht.ts"
import { idle } from "./rows/idle.ts"
import { mdns } from "./rows/local.ts"
import { bulk, crowds, pairs } from "./rows/pairs.ts"
import { plain } from "./rows/plain.ts"
import { publicRelay, relays, upgrades } from "./rows/relays.ts"

/** Whether this is the part of the suite that runs in a network of its own. */
const isInside = process.argv.includes("--inside")
const words = process.argv.slice(2).filter((word) => word !== "--inside")

const inNamespace = (bench: Bench.Bench) =>
  Effect.gen(function*() {
    if (isInside) {
      const listen = `/ip4/${Namespace.publicAddress}/tcp/0`
      return yield* Effect.andThen(publicRelay(bench, listen), upgrades(bench, listen))
    }
    const problem = Namespace.lacks()
    if (problem !== undefined) {
      return yield* Console.log(`left out 10, relays on public addresses, on this machine: ${problem}`)
    }
    bench.add(yield* Namespace.inside(import.meta.filename, ["upgrades"]))
  })

const parts = { pairs, crowds, bulk, providers, values, mdns, relays, upgrades: inNamespace, plain }

// A cell that failed is checked again with its whole part, since the peers of a part may fail before its cells are
// checked.
const nameOf = (part: string, { pair, row }: Matrix.Cell) => `${part}: ${row}, ${pair}`
const isAsked = (part: string) =>
  isInside || SuiteReport.asked === undefined
    ? words.length === 0 || words.includes(part)
    : [...SuiteReport.asked].some((name) => name.startsWith(`${part}: `))

const program = Effect.gen(function*() {
  const lacking = missing()
  if (lacking.length > 0) {
    yield* Console.log(
      `left out 1, the interop suite, whose peers this machine cannot build: it has no ${lacking.join(" and no ")}`
    )
    SuiteReport.write({ passed: [], failed: [], leftOut: ["the interop suite"] })
    yield* Console.log("0 passed, 0 failed")
    return
  }
  const began = yield* Clock.currentTimeMillis
  const seconds = Effect.map(Clock.currentTimeMillis, (now) => ((now - began) / 1000).toFixed(0))
  if (!isInside) yield* Console.log("building the peers of Rust and Go, unless they are built ...")
  const [rust, go] = yield* Effect.all([build("rust"), build("go")], { concurrency: 2 })
  if (!isInside) yield* Console.log(`built after ${yield* seconds} s`)

  const matrix = Matrix.make()
  const bench = Bench.make(matrix, { rust, go })
  const names = { passed: new Array<string>(), failed: new Array<string>() }
  const note = (part: string, cells: ReadonlyArray<Matrix.Cell>) => {
    for (const cell of cells) names[cell.isGood ? "passed" : "failed"].push(nameOf(part, cell))
  }
  // The idle part waits most of its time, so it runs beside the others; its rows come last.
  const late = Matrix.make()
  const waiting = yield* Effect.forkChild(isAsked("idle") ? idle(Bench.make(late, { rust, go })) : Effect.void)
  for (const [name, part] of Object.entries(parts)) {
    if (!isAsked(name)) continue
    const before = matrix.cells.length
    yield* part(bench)
    note(name, matrix.cells.slice(before))
    if (!isInside) yield* Console.log(`${name}: done after ${yield* seconds} s`)
  }
  yield* Fiber.join(waiting)
  matrix.add(late.cells)
  note("idle", late.cells)
  if (!isInside && isAsked("idle")) yield* Console.log(`idle: done after ${yield* seconds} s`)
  if (isInside) {
    return yield* Effect.forEach(matrix.cells, (cell) => Console.log(JSON.stringify(cell)), { discard: true })
  }
  yield* Console.log(`\n${Matrix.print(matrix)}\n`)
  SuiteReport.write({ ...names, leftOut: [] })
  yield* Console.log(`${names.passed.length} passed, ${names.failed.length} failed`)
  if (names.failed.length > 0) yield* Effect.sync(() => process.exitCode = 1)
})

// The logs of the nodes about peers that come and go would hide the matrix.
NodeRuntime.runMain(Effect.provide(program, Layer.succeed(References.MinimumLogLevel)("Error")))
