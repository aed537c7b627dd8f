/**
 * `npm run test:mutants`: puts each fault of `test/mutants` into a copy of the repository, one at a time, and runs its
 * specs there. A fault is caught when one of them fails, or does not end in time. Words after the command choose the
 * faults whose name or file has one of them: `npm run test:mutants -- Limits.ts`.
 *
 * First all the specs run without a fault, since a spec that fails anyway catches nothing. Prints each fault as it is
 * decided, with the spec that caught it and what it said, and at the end those that survive. Fails when one survives
 * without a reason why it is equivalent, or when less than 95 % are caught. Takes about 6 s for a fault on two cores.
 *
 * Specs wait a fifth as long as elsewhere for what has to come. A fault that was caught because something did not come
 * has to be one that keeps it from coming: on a busy machine it may only have been late.
 */
import { spawn } from "node:child_process"
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { mutants } from "../test/mutants/index.ts"
import type { Mutant } from "../test/mutants/Mutant.ts"

/** The share of the faults that has to be caught. */
const caughtMin = 0.95

/** A run of specs that takes longer hangs in the fault. The slowest takes 40 s without one. */
const limitMillis = 180_000

/** A spec of its own that takes longer hangs. */
const specMillis = 60_000

/** Seconds that a spec waits for what has to come. */
const patience = 12

const root = join(import.meta.dirname, "..")
const words = process.argv.slice(2)
const chosen = mutants.filter(({ file, name }) =>
  words.length === 0 || words.some((word) => file.includes(word) || name.includes(word))
)
const work = mkdtempSync(join(tmpdir(), "codio-network-mutants-"))
const running = new Set<number>()
const end = (code: number): never => {
  for (const pid of running) killGroup(pid)
  rmSync(work, { recursive: true, force: true })
  process.exit(code)
}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => end(130))

const caught: Array<Mutant> = []
const survived: Array<Mutant> = []
const lanes = Array.from({ length: Math.min(2, availableParallelism()) }, (_, lane) => copy(join(work, String(lane))))

const specs = [...new Set(chosen.flatMap((mutant) => mutant.specs))].sort()
if (specs.length === 0) {
  console.log(`no fault has one of the words: ${words.join(", ")}`)
  end(1)
}
console.log(`${specs.length} specs without a fault`)
const failure = await failureOf(lanes[0]!, { specs }, 10 * limitMillis)
if (failure !== undefined) {
  console.log(`FAILED  the specs fail without a fault: npx vitest run ${specs.join(" ")}\n        ${failure}`)
  end(1)
}
const queue = [...chosen]
await Promise.all(lanes.map(async (copied) => {
  for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) await judge(copied, mutant)
}))

for (const { equivalent, file, name } of survived) {
  console.log(
    `${equivalent === undefined ? "SURVIVED" : "equivalent"}  ${name} (${file})${equivalent ? `: ${equivalent}` : ""}`
  )
}
const share = caught.length / chosen.length
console.log(`${caught.length} of ${chosen.length} faults caught, ${(100 * share).toFixed(1)} %`)
const unexplained = survived.filter(({ equivalent }) => equivalent === undefined).length
console.log(`${chosen.length - unexplained} passed, ${unexplained} failed`)
end(unexplained > 0 || share < caughtMin ? 1 : 0)

// internal ------------------------------------------------------------------------------------------------------------

/** A copy of what the specs need. The packages are shared, since no fault is in them. */
function copy(to: string): string {
  const skipped = new Set(["node_modules", ".git", "dist"].map((name) => join(root, name)))
  cpSync(root, to, { recursive: true, filter: (source) => !skipped.has(source) })
  symlinkSync(join(root, "node_modules"), join(to, "node_modules"))
  return to
}

async function judge(copied: string, mutant: Mutant): Promise<void> {
  const path = join(copied, mutant.file)
  const text = readFileSync(path, "utf8")
  writeFileSync(path, text.replace(mutant.text, () => mutant.replacement))
  const begun = performance.now()
  const failure = await failureOf(copied, mutant, limitMillis)
  const seconds = ((performance.now() - begun) / 1000).toFixed(0)
  writeFileSync(path, text)
  ;(failure === undefined ? survived : caught).push(mutant)
  console.log(`${failure === undefined ? "survived" : "caught  "}  ${mutant.name} (${mutant.file}, ${seconds} s)`)
  if (failure !== undefined) console.log(`          ${failure}`)
}

/** What failed first in a run of the specs; undefined when they pass within the time. */
function failureOf(
  cwd: string,
  { only, specs }: { readonly specs: ReadonlyArray<string>; readonly only?: string },
  millis: number
): Promise<string | undefined> {
  const report = join(cwd, "report.json")
  rmSync(report, { force: true })
  return new Promise((resolve) => {
    const args = ["run", "--bail=1", `--testTimeout=${specMillis}`, "--reporter=json", `--outputFile=${report}`]
    if (only !== undefined) args.push(`--testNamePattern=${only.replace(/[$()*+.?[\\\]^{|}]/g, "\\$&")}`)
    // A group of its own, so that the workers of a run that hangs end with it.
    const child = spawn(process.execPath, ["node_modules/vitest/vitest.mjs", ...args, ...specs], {
      cwd,
      stdio: "ignore",
      detached: true,
      env: { ...process.env, TEST_PATIENCE_SECONDS: String(patience) }
    })
    if (child.pid !== undefined) running.add(child.pid)
    const timer = setTimeout(() => child.pid === undefined || killGroup(child.pid), millis)
    child.on("close", (code) => {
      clearTimeout(timer)
      if (child.pid !== undefined) running.delete(child.pid)
      if (code === 0) return resolve(undefined)
      resolve(
        existsSync(report) ? firstOf(JSON.parse(readFileSync(report, "utf8"))) : `no end within ${millis / 1000} s`
      )
    })
  })
}

interface Report {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly message: string
    readonly assertionResults: ReadonlyArray<{
      readonly fullName: string
      readonly status: string
      readonly failureMessages?: ReadonlyArray<string>
    }>
  }>
}

/** The first spec that failed and what it said. A file that cannot be loaded has no specs. */
function firstOf({ testResults }: Report): string {
  for (const { assertionResults, message, name } of testResults) {
    const failed = assertionResults.find(({ status }) => status === "failed")
    const [line] = (failed?.failureMessages?.[0] ?? message).trim().split("\n")
    if (failed !== undefined) return `${failed.fullName}: ${line}`
    if (line) return `${name}: ${line}`
  }
  return "an error outside of the specs"
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL")
  } catch {
    // The group has ended.
  }
}
