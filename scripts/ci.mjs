/**
 * Runs npm scripts one after the other and counts what passed: `node scripts/ci.mjs test test:heavy`. Plain JavaScript
 * that Node 20 understands, since it runs before anything is installed.
 *
 * A script is a suite. Its output ends with `N passed, N failed`, and so does the output here, with the sums. A missing
 * script is a failure. So is a suite whose end is unexplained: its last line is not that line, its exit code is not 0
 * when nothing failed and 1 otherwise, or it ran nothing and left nothing out.
 *
 * A scenario that fails is run again once, alone, where the suite writes a report (`scripts/SuiteReport.ts`). A
 * scenario that the second report lists as passed counts as passed, and the line `flaky: ...` above the last line names
 * it: a busy machine does not fail the run, and a flake does not hide. More than two such scenarios are a failure of
 * their own. Of a suite with an unexplained end nothing is run again, so that a crash is never a flake. The lines
 * `FAILED  suite: scenario` name what failed, so that the end of a long output tells it.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import process from "node:process"
import { fileURLToPath } from "node:url"

/** How many scenarios of a run may pass only when they are run again. */
const flakyMax = 2

/** A suite with more failures than this is broken, not flaky: none of them is run again. */
const againMax = 10

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const scripts = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).scripts ?? {}
const work = mkdtempSync(join(tmpdir(), "codio-network-ci-"))
const report = join(work, "report.json")
const total = { passed: 0, failed: 0 }
const flaky = []
const broken = []
const summary = []
let child
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    child?.kill(signal)
    rmSync(work, { recursive: true, force: true })
    process.exit(130)
  })
}

for (const suite of process.argv.slice(2)) {
  const began = Date.now()
  const counts = await whole(suite)
  total.passed += counts.passed
  total.failed += counts.failed
  const minutes = ((Date.now() - began) / 60_000).toFixed(1)
  summary.push(`${suite}: ${counts.passed} passed, ${counts.failed} failed, in ${minutes} minutes`)
}
rmSync(work, { recursive: true, force: true })

console.log(`\n${summary.join("\n")}`)
for (const name of broken) console.log(`FAILED  ${name}`)
if (flaky.length > flakyMax) {
  total.failed += 1
  console.log(`FAILED  more than ${flakyMax} scenarios passed only when they were run again`)
}
if (flaky.length > 0) console.log(`flaky: ${flaky.join("; ")}`)
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exit(total.failed === 0 ? 0 : 1)

// internal ------------------------------------------------------------------------------------------------------------

/** One suite, and its failed scenarios again. */
async function whole(suite) {
  if (scripts[suite] === undefined) {
    console.log(`FAILED  ${suite}: package.json has no such script`)
    return { passed: 0, failed: 1 }
  }
  const { failed, isUnexplained, passed, report } = await run(suite)
  const names = report.failed
  if (isUnexplained || names.length > againMax) {
    broken.push(...names.slice(0, againMax).map((name) => `${suite}: ${name}`))
    return { passed, failed }
  }
  const before = flaky.length
  for (const name of names.slice(0, failed)) {
    console.log(`\nonce more, alone: ${suite}: ${name}`)
    const again = await run(suite, name)
    const isMended = again.failed === 0 && again.report.passed.includes(name)
    if (isMended) flaky.push(`${suite}: ${name}`)
    else broken.push(`${suite}: ${name}`)
  }
  const mended = flaky.length - before
  return { passed: passed + mended, failed: failed - mended }
}

/** Runs a script, or one scenario of it, and shows what it prints: how many passed and failed, and its report. */
async function run(suite, only) {
  rmSync(report, { force: true })
  const env = { ...process.env, SUITE_REPORT: report }
  if (only === undefined) delete env.SUITE_ONLY
  else env.SUITE_ONLY = JSON.stringify([only])
  const { code, output } = await show(suite, env)
  const line = /^(\d+) passed, (\d+) failed$/.exec(output.trimEnd().split(/\r?\n/).at(-1))
  const passed = Number(line?.[1] ?? 0)
  const failed = Number(line?.[2] ?? 0)
  const found = read()
  const ranNothing = passed + failed === 0 && found.leftOut.length === 0
  const isUnexplained = line === null || code !== (failed === 0 ? 0 : 1) || ranNothing
  if (isUnexplained) console.log(`FAILED  ${suite}: ended with ${code}, which its last line does not explain`)
  return { passed, failed: failed + (isUnexplained ? 1 : 0), isUnexplained, report: found }
}

/** The report of a suite; an empty one where there is none, or where the suite died while it wrote. */
function read() {
  const empty = { passed: [], failed: [], leftOut: [] }
  if (!existsSync(report)) return empty
  try {
    const found = JSON.parse(readFileSync(report, "utf8"))
    return Object.keys(empty).every((list) => Array.isArray(found?.[list])) ? found : empty
  } catch {
    return empty
  }
}

/** The exit code of a script and what it printed on stdout, where its last line is. */
function show(suite, env) {
  return new Promise((resolve) => {
    let output = ""
    const isWindows = process.platform === "win32"
    child = spawn("npm", ["run", "--silent", suite], {
      cwd: root,
      env,
      shell: isWindows,
      stdio: ["ignore", "pipe", "pipe"]
    })
    child.stdout.on("data", (bytes) => {
      output += bytes
      process.stdout.write(bytes)
    })
    child.stderr.on("data", (bytes) => process.stderr.write(bytes))
    child.on("error", (error) => resolve({ code: error.message, output }))
    child.on("close", (code, signal) => resolve({ code: code ?? signal, output }))
  })
}
