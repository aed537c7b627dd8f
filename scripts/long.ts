/**
 * `npm run test:long`: what takes an hour and more, as 10,000 random scenarios in the simulator, 200 kills of the
 * program, and the suite of faults.
 *
 *     npm run test:long                    everything, from a seed that is drawn and printed
 *     npm run test:long -- --part 20       a twentieth, as `.ci/run` does (`npm run test:twentieth`)
 *     npm run test:long -- --seed 1000001  from this seed
 *     npm run test:long -- kills           one part; the others are `sweep` and `faults`
 *
 * The faults need no chance, so a twentieth leaves them to `npm run test:faults`. The last line counts what passed and
 * what failed.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { parseArgs } from "node:util"
import * as SuiteReport from "./SuiteReport.ts"

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { part: { type: "string", default: "1" }, seed: { type: "string" } }
})
const part = Number(values.part)
// Seeds below a million are those of the specs and of sweeps by hand.
const seed = Number(values.seed ?? 1_000_000 + Math.floor(Math.random() * 1e9))

/** What is run, how its scenarios are named in a report, and the command. */
const parts: ReadonlyArray<readonly [name: string, prefix: RegExp, args: ReadonlyArray<string>]> = [
  ["sweep", /^seed /, ["bench/sim/run.ts", "--seeds", `${Math.ceil(10_000 / part)}`, "--from", `${seed}`]],
  ["kills", /^kill /, ["test/faults/kills.ts", "--kills", `${Math.ceil(200 / part)}`, "--from", `${seed}`]],
  ...part === 1 ? [["faults", /^(?!seed |kill )/, ["test/faults/run.ts"]] as const] : []
]

const root = join(import.meta.dirname, "..")
const work = mkdtempSync(join(tmpdir(), "codio-network-long-"))
const report: { readonly [list in keyof SuiteReport.SuiteReport]: Array<string> } = {
  passed: [],
  failed: [],
  leftOut: []
}
let problems = 0
let child: ReturnType<typeof spawn> | undefined
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    child?.kill(signal)
    rmSync(work, { recursive: true, force: true })
    process.exit(130)
  })
}

console.log(`npm run test:long -- --seed ${seed}${part === 1 ? "" : ` --part ${part}`} repeats this run`)
for (const [name, prefix, args] of parts) {
  const asked = SuiteReport.asked === undefined ? undefined : [...SuiteReport.asked].filter((each) => prefix.test(each))
  if (asked?.length === 0 || (positionals.length > 0 && !positionals.includes(name))) continue
  console.log(`\n${name}`)
  await run(args, asked)
}
rmSync(work, { recursive: true, force: true })
SuiteReport.write(report)
const failures = report.failed.length + problems
console.log(`\n${report.passed.length} passed, ${failures} failed`)
process.exit(failures === 0 ? 0 : 1)

// internal ------------------------------------------------------------------------------------------------------------

/** Runs one part, adds what it reports, and counts an end that the report does not explain. */
async function run(args: ReadonlyArray<string>, asked: ReadonlyArray<string> | undefined): Promise<void> {
  const path = join(work, "report.json")
  rmSync(path, { force: true })
  const env: NodeJS.ProcessEnv = { ...process.env, SUITE_REPORT: path }
  // A seed of the caller would make one scenario of the sweep.
  delete env["CODIO_SIM_SEED"]
  if (asked !== undefined) env["SUITE_ONLY"] = JSON.stringify(asked)
  const code = await new Promise<unknown>((resolve) => {
    child = spawn(process.execPath, args, { cwd: root, env, stdio: ["ignore", "inherit", "inherit"] })
    child.on("error", resolve)
    child.on("close", (code, signal) => resolve(code ?? signal))
  })
  const found: SuiteReport.SuiteReport = existsSync(path)
    ? JSON.parse(readFileSync(path, "utf8"))
    : { passed: [], failed: [], leftOut: [] }
  for (const list of ["passed", "failed", "leftOut"] as const) report[list].push(...found[list])
  if (code === (found.failed.length === 0 ? 0 : 1)) return
  problems++
  console.log(`FAILED  ${args[0]}: ended with ${String(code)}, which its report does not explain`)
}
