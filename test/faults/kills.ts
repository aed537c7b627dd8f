/**
 * The program `codio`, killed at any moment: what it had saved is there again. A part of `npm run test:long`.
 *
 *     node scripts/run.mjs test/faults/kills.ts --kills 200 --from 1
 *
 * Each kill has a number, from which the moment is drawn, and a data directory of its own. A program starts there and
 * is killed as by `kill -9`, in the middle of its start or within a few seconds after it. The program that follows has
 * to have the same peer id, without a damaged file, and has to find by itself the peer that the first one had met a
 * while before. The last line counts the kills.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Console, Effect, Exit, Random } from "effect"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { parseArgs } from "node:util"
import * as SuiteReport from "../../scripts/SuiteReport.ts"
import { codio, type Program } from "../support/Codio.ts"

const { values } = parseArgs({
  options: { kills: { type: "string", default: "200" }, from: { type: "string", default: "1" } }
})

/** The moment of a kill is drawn from this time, counted from the process's start, the node's, or the meeting. */
const killWithinMillis = 4_000

/** What was met so long before the kill is saved: the store waits a second for other changes, and a disk takes time. */
const savedAfterMillis = 2_000

/** Beside them runs the peer that they meet. */
const killsAtOnce = 2

const start = ["start", "--json", "--no-mdns", "--listen-address", "/ip4/127.0.0.1/tcp/0"]

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "codio-network-kill-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const started = (program: Program) => program.line("it has started", ({ event }) => event === "started")

const connected = (program: Program, peer: string) =>
  program.line("it has found the peer", (line) => line.event === "peer-connected" && line.peer === peer)

/** Fails when the kill has cost anything; answers with what there was to lose. */
const kill = Effect.fnUntraced(function*(number: number, met: { readonly peer: string; readonly address: string }) {
  const random = yield* Effect.service(Random.Random).pipe(Random.withSeed(`kill ${number}`))
  const own = [...start, "--data-directory", yield* directory]
  const first = yield* codio([...own, "--bootstrap-peer", met.address])
  // However busy the machine is, most kills come when there is something to lose.
  const phase = random.nextDoubleUnsafe()
  if (phase > 0.2) yield* started(first)
  if (phase > 0.5) yield* connected(first, met.peer)
  yield* Effect.sleep(killWithinMillis * random.nextDoubleUnsafe())
  const killedAt = Date.now()
  first.kill("SIGKILL")
  yield* first.ended
  const id = first.lines().find(({ event }) => event === "started")?.peer
  const meeting = first.lines().find(({ event, peer }) => event === "peer-connected" && peer === met.peer)
  const isSaved = meeting !== undefined && killedAt - Date.parse(meeting.time) >= savedAfterMillis

  const second = yield* codio(own)
  const { peer } = yield* started(second)
  if (id !== undefined && peer !== id) return yield* Effect.fail(`the peer id was ${id}, and is ${peer}`)
  const damaged = readdirSync(own.at(-1)!).filter((name) => name.endsWith(".damaged"))
  if (damaged.length > 0) return yield* Effect.fail(`damaged: ${damaged.join(", ")}`)
  if (isSaved) {
    yield* connected(second, met.peer)
  }
  second.kill("SIGTERM")
  const { code, stderr } = yield* second.ended
  if (code !== 0) return yield* Effect.fail(`it ended with ${code}: ${stderr}`)
  return isSaved ? "peer" : id === undefined ? "nothing" : "id"
})

const numbers = SuiteReport.asked === undefined
  ? Array.from({ length: Number(values.kills) }, (_, index) => Number(values.from) + index)
  : [...SuiteReport.asked].flatMap((name) => /^kill (\d+)$/.exec(name)?.[1] ?? []).map(Number)

const program = Effect.gen(function*() {
  const met = yield* codio(start)
  const { addresses, peer } = yield* started(met)
  const lost: Record<string, number> = { nothing: 0, id: 0, peer: 0 }
  const exits = yield* Effect.forEach(
    numbers,
    (number) =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Effect.scoped(kill(number, { peer: peer!, address: addresses![0]! })))
        if (Exit.hasInterrupts(exit)) return yield* Effect.interrupt
        if (Exit.isSuccess(exit)) lost[exit.value] = (lost[exit.value] ?? 0) + 1
        else yield* Console.log(`FAILED  kill ${number}: ${Cause.pretty(exit.cause)}`)
        return { name: `kill ${number}`, isGood: Exit.isSuccess(exit) }
      }),
    { concurrency: killsAtOnce }
  )
  const named = (isGood: boolean) => exits.filter((exit) => exit.isGood === isGood).map(({ name }) => name)
  const [passed, failed] = [named(true), named(false)]
  yield* Console.log(
    `of ${numbers.length} kills ${lost["peer"]} could have lost a peer, ${lost["id"]} a peer id, ${
      lost["nothing"]
    } came before that`
  )
  yield* Effect.sync(() => SuiteReport.write({ passed, failed, leftOut: [] }))
  yield* Console.log(`${passed.length} passed, ${failed.length} failed`)
  if (failed.length > 0) process.exitCode = 1
})

NodeRuntime.runMain(Effect.scoped(program))
