/**
 * `npm test`: types, Effect diagnostics, lint, format, the API reference, specs (the law of the rooms and the package
 * among them), examples. Every check runs, whatever failed before it; the last line counts them all.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import process from "node:process"

const root = join(import.meta.dirname, "..")
const began = Date.now()
const total = { passed: 0, failed: 0, leftOut: [] }
const work = mkdtempSync(join(tmpdir(), "codio-network-test-"))
const running = new Set()
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    for (const child of running) child.kill(signal)
    rmSync(work, { recursive: true, force: true })
    process.exit(130)
  })
}

const bin = (name) => join(root, "node_modules", ".bin", name)
const env = { ...process.env, DPRINT_CACHE_DIR: join(root, "node_modules", ".cache", "dprint"), NO_COLOR: "1" }
// The checks must not see the settings of npm, or the node options of the caller.
for (const name of Object.keys(env)) if (/^npm_|^CODIO_|^SUITE_/.test(name)) delete env[name]

await Promise.all([
  // By path: node_modules/.bin/tsc may belong to the TypeScript that draws the API reference.
  check("types", process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"], 300_000),
  check("effects", bin("effect-tsgo"), [
    "diagnostics",
    "--project",
    "tsconfig.json",
    "--strict",
    "--severity",
    "error,warning"
  ], 300_000),
  check(
    "lint",
    bin("oxlint"),
    ["--deny-warnings", "src", "test", "examples", "bench", "scripts", "vitest.config.ts"],
    300_000
  ),
  check("format", bin("dprint"), ["check"], 300_000),
  check("API reference", process.execPath, ["scripts/api.mjs", "--check"], 300_000)
])
await specs()
const examples = existsSync(join(root, "examples"))
  ? readdirSync(join(root, "examples")).filter((file) => file.endsWith(".ts")).sort()
  : []
// Two at a time. They do not meet, since only one example looks for peers on the local network.
await Promise.all([0, 1].map(async (lane) => {
  for (const example of examples.filter((_, index) => index % 2 === lane)) {
    await check(`examples/${example}`, process.execPath, [join("examples", example)], 90_000)
  }
}))

rmSync(work, { recursive: true, force: true })
if (total.leftOut.length > 0) {
  console.log(
    `\nleft out ${total.leftOut.length}, which this machine cannot run: ${[...new Set(total.leftOut)].join("; ")}`
  )
}
console.log(`\nall checks took ${seconds(began)}`)
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exit(total.failed === 0 ? 0 : 1)

// internal ------------------------------------------------------------------------------------------------------------

/** One check: passed if the command ends by itself with exit code 0. Its output is shown only when it does not. */
async function check(name, command, args, limitMillis) {
  const started = Date.now()
  const { problem, output } = await run(command, args, limitMillis, "pipe", env)
  if (problem === undefined) {
    total.passed += 1
    console.log(`ok      ${name} (${seconds(started)})`)
  } else {
    total.failed += 1
    console.log(`FAILED  ${name} (${seconds(started)}): ${problem}\n${output.trimEnd()}\n`)
  }
}

/** The specs say themselves what passed. A run that ends badly without a failed spec is a failure of its own. */
async function specs() {
  const report = join(work, "specs.json")
  const args = ["node_modules/vitest/vitest.mjs", "run", "--reporter=default", "--reporter=./scripts/CountReporter.mjs"]
  const { problem } = await run(process.execPath, args, 1_200_000, "inherit", { ...env, SPEC_REPORT: report })
  const counts = existsSync(report) ? JSON.parse(readFileSync(report, "utf8")) : { passed: 0, failed: 0, leftOut: [] }
  total.passed += counts.passed
  total.failed += counts.failed
  total.leftOut.push(...counts.leftOut)
  if (problem !== undefined && counts.failed === 0) {
    total.failed += 1
    console.log(`FAILED  specs: ${problem}`)
  }
}

function run(command, args, limitMillis, stdio, env) {
  return new Promise((resolve) => {
    let output = ""
    let problem
    const child = spawn(command, args, {
      cwd: root,
      env,
      stdio: ["ignore", stdio, stdio],
      shell: process.platform === "win32"
    })
    running.add(child)
    const timer = setTimeout(() => {
      problem = `did not end within ${limitMillis / 1000} s`
      child.kill("SIGKILL")
    }, limitMillis)
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (text) => (output += text))
    const end = (reason) => {
      running.delete(child)
      clearTimeout(timer)
      resolve({ problem: problem ?? reason, output })
    }
    child.on("error", (error) => end(error.message))
    child.on("close", (code, signal) => end(code === 0 ? undefined : signal === null ? `exit code ${code}` : signal))
  })
}

function seconds(since) {
  return `${((Date.now() - since) / 1000).toFixed(1)} s`
}
