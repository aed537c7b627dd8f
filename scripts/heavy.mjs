/**
 * `npm run test:heavy`: the specs of the DHT that are too heavy for `npm test`, such as networks of 200 nodes on real
 * sockets. Arguments are vitest's, as in `npm run test:heavy -- test/heavy/dht/FindPeer.heavy.test.ts`. The last line
 * counts what passed and what failed.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as SuiteReport from "./SuiteReport.ts"

const root = join(import.meta.dirname, "..")
const work = mkdtempSync(join(tmpdir(), "codio-network-dht-"))
const report = join(work, "specs.json")
const env = { ...process.env, NO_COLOR: "1", SPEC_REPORT: report }
// The specs must not see the settings of npm, or the node options of the caller.
for (const name of Object.keys(env)) if (/^npm_|^CODIO_/.test(name)) delete env[name]

const vitest = "node_modules/vitest/vitest.mjs"
const reporters = ["--reporter=default", "--reporter=./scripts/CountReporter.mjs"]
const args = [
  vitest,
  "run",
  "--config=test/heavy/vitest.config.ts",
  ...reporters,
  ...chosen(),
  ...process.argv.slice(2)
]
const child = spawn(process.execPath, args, { cwd: root, env, stdio: ["ignore", "inherit", "inherit"] })
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    child.kill(signal)
    rmSync(work, { recursive: true, force: true })
    process.exit(130)
  })
}
child.on("close", (code) => {
  const { failed, leftOut, names, passed } = existsSync(report)
    ? JSON.parse(readFileSync(report, "utf8"))
    : { passed: 0, failed: 0, names: { passed: [], failed: [] }, leftOut: [] }
  SuiteReport.write({ ...names, leftOut })
  rmSync(work, { recursive: true, force: true })
  if (leftOut.length > 0) {
    console.log(`\nleft out ${leftOut.length}, which this machine cannot run: ${[...new Set(leftOut)].join("; ")}`)
  }
  // An exit code that the failed specs do not explain is a failure of its own.
  const problems = code === (failed === 0 ? 0 : 1) ? failed : failed + 1
  console.log(`\n${passed} passed, ${problems} failed`)
  process.exit(problems === 0 ? 0 : 1)
})

// internal ------------------------------------------------------------------------------------------------------------

/** The arguments with which vitest runs the specs that were asked for, each `file > title > title`. */
function chosen() {
  if (SuiteReport.asked === undefined) return []
  const paths = [...SuiteReport.asked].map((name) => name.split(" > "))
  const titles = paths.map(([, ...titles]) => titles.map((title) => title.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")))
  return [...new Set(paths.map(([file]) => file)), "-t", `^(?:${titles.map((each) => each.join("[ >]+")).join("|")})$`]
}
