/**
 * `npm run test:mutants`: puts each fault of `test/mutants` into a copy of the repository, one at a time, and runs its
 * specs there. A fault is caught when one of them fails, or does not end in time. Words after the command choose the
 * faults whose name or file has one of them: `npm run test:mutants -- Limits.ts`.
 *
 * First all the specs run without a fault, since a spec that fails anyway catches nothing. Prints each fault as it is
 * decided, and at the end those that survive. Fails when one survives without a reason why it is equivalent, or when
 * less than 95 % are caught. Takes about 6 s for a fault on two cores.
 */
import { spawn } from "node:child_process"
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import process from "node:process"
import { mutants } from "../test/mutants/index.ts"
import type { Mutant } from "../test/mutants/Mutant.ts"

/** The share of the faults that has to be caught. */
const caughtMin = 0.95

/** A run of specs that takes longer hangs in the fault. The slowest takes 40 s without one. */
const limitMillis = 180_000

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
if (!await passes(lanes[0]!, specs, 10 * limitMillis)) {
  console.log(`FAILED  the specs fail without a fault: npx vitest run ${specs.join(" ")}`)
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
  const isCaught = !await passes(copied, mutant.specs, limitMillis)
  writeFileSync(path, text)
  ;(isCaught ? caught : survived).push(mutant)
  console.log(`${isCaught ? "caught  " : "survived"}  ${mutant.name} (${mutant.file})`)
}

/** Whether the specs pass within the time. */
function passes(cwd: string, files: ReadonlyArray<string>, millis: number): Promise<boolean> {
  return new Promise((resolve) => {
    const args = ["node_modules/vitest/vitest.mjs", "run", "--bail=1", ...files]
    // A group of its own, so that the workers of a run that hangs end with it.
    const child = spawn(process.execPath, args, { cwd, stdio: "ignore", detached: true })
    if (child.pid !== undefined) running.add(child.pid)
    const timer = setTimeout(() => child.pid === undefined || killGroup(child.pid), millis)
    child.on("close", (code) => {
      clearTimeout(timer)
      if (child.pid !== undefined) running.delete(child.pid)
      resolve(code === 0)
    })
  })
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL")
  } catch {
    // The group has ended.
  }
}
