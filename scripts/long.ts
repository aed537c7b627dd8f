/**
 * `npm run test:long`: what takes an hour and more, as 10,000 random scenarios in the simulator, 200 kills of the
 * program, and the suite of faults.
 *
 *     npm run test:long                    everything, from a seed that is drawn and printed
 *     npm run test:long -- --part 20       a twentieth, as `.ci/run` does (`npm run test:twentieth`)
 *     npm run test:long -- --seed 1000001  from this seed
 *     npm run test:long -- kills           one part; the others are `sweep` and `faults`
 *
 * The sweep has a process for each core. The faults need no chance, so a twentieth leaves them to
 * `npm run test:faults`. The last line counts what passed and what failed.
 */
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { parseArgs } from "node:util"
import * as SuiteReport from "./SuiteReport.ts"

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { part: { type: "string", default: "1" }, seed: { type: "string" } }
})
const part = Number(values.part)
if (!(part >= 1 && part <= 10_000)) {
  console.log(`--part is ${values.part}, where a number from 1 to 10000 is expected`)
  process.exit(1)
}
// Seeds below a million are those of the specs and of sweeps by hand.
const seed = Number(values.seed ?? 1_000_000 + Math.floor(Math.random() * 1e9))

/** What is run, how its scenarios are named in a report, and the commands, which run side by side. */
const parts: ReadonlyArray<readonly [name: string, prefix: RegExp, commands: ReadonlyArray<ReadonlyArray<string>>]> = [
  ["sweep", /^seed /, sweeps(Math.ceil(10_000 / part))],
  ["kills", /^kill /, [["test/faults/kills.ts", "--kills", `${Math.ceil(200 / part)}`, "--from", `${seed}`]]],
  ...part === 1 ? [["faults", /^(?!seed |kill )/, [["test/faults/run.ts"]]] as const] : []
]

const root = join(import.meta.dirname, "..")
const work = mkdtempSync(join(tmpdir(), "codio-network-long-"))
const report: { readonly [list in keyof SuiteReport.SuiteReport]: Array<string> } = {
  passed: [],
  failed: [],
  leftOut: []
}
let problems = 0
const children = new Set<ReturnType<typeof spawn>>()
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(130))
// Whatever ends this process ends what it has started.
process.on("exit", () => {
  for (const child of children) child.kill()
  rmSync(work, { recursive: true, force: true })
})

console.log(`npm run test:long -- --seed ${seed}${part === 1 ? "" : ` --part ${part}`} repeats this run`)
for (const [name, prefix, commands] of parts) {
  const asked = SuiteReport.asked === undefined ? undefined : [...SuiteReport.asked].filter((each) => prefix.test(each))
  if (asked?.length === 0 || (positionals.length > 0 && !positionals.includes(name))) continue
  console.log(`\n${name}`)
  // Scenarios that are asked for by name need no split.
  const chosen = asked === undefined ? commands : commands.slice(0, 1)
  await Promise.all(chosen.map((args, lane) => run(args, asked, join(work, `report-${lane}.json`))))
}
SuiteReport.write(report)
const failures = report.failed.length + problems
console.log(`\n${report.passed.length} passed, ${failures} failed`)
process.exit(failures === 0 ? 0 : 1)

// internal ------------------------------------------------------------------------------------------------------------

/** What a command has reported; nothing when it has not come to its end. */
function reportIn(path: string): SuiteReport.SuiteReport {
  try {
    return JSON.parse(readFileSync(path, "utf8"))
  } catch {
    return { passed: [], failed: [], leftOut: [] }
  }
}

/** The commands that sweep so many seeds, one for each core, since a scenario runs on one. */
function sweeps(seeds: number): ReadonlyArray<ReadonlyArray<string>> {
  const lanes = availableParallelism()
  const size = Math.ceil(seeds / lanes)
  return Array.from({ length: Math.ceil(seeds / size) }, (_, lane) => {
    const count = Math.min(size, seeds - lane * size)
    return ["bench/sim/run.ts", "--seeds", `${count}`, "--from", `${seed + lane * size}`]
  })
}

/** Runs one command, adds what it reports in the file `path`, and counts an end that the report does not explain. */
async function run(
  args: ReadonlyArray<string>,
  asked: ReadonlyArray<string> | undefined,
  path: string
): Promise<void> {
  rmSync(path, { force: true })
  const env: NodeJS.ProcessEnv = { ...process.env, SUITE_REPORT: path }
  // A seed of the caller would make one scenario of the sweep.
  delete env["CODIO_SIM_SEED"]
  if (asked !== undefined) env["SUITE_ONLY"] = JSON.stringify(asked)
  const code = await new Promise<unknown>((resolve) => {
    const child = spawn(process.execPath, args, { cwd: root, env, stdio: ["ignore", "inherit", "inherit"] })
    children.add(child)
    child.on("error", resolve)
    child.on("close", (code, signal) => {
      children.delete(child)
      resolve(code ?? signal)
    })
  })
  const found = reportIn(path)
  for (const list of ["passed", "failed", "leftOut"] as const) report[list].push(...found[list])
  const hasRun = found.passed.length + found.failed.length + found.leftOut.length > 0
  if (hasRun && code === (found.failed.length === 0 ? 0 : 1)) return
  problems++
  console.log(`FAILED  ${args[0]}: ended with ${String(code)}, which its report does not explain`)
}
