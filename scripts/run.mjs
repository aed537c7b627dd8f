/**
 * Runs a program of this repository, after setting it up: `node scripts/run.mjs src/cli/bin.ts start`. Its exit code, or the signal that ended it,
 * becomes ours; signals sent to this process are passed on, and so is the end of the npm that started it. The npm scripts begin with `exec`,
 * since a shell in between would keep signals to itself.
 */
import { spawn } from "node:child_process"
import { setUp } from "./setup.mjs"

const node = setUp()
const child = spawn(node, process.argv.slice(2), { stdio: "inherit" })
const signals = ["SIGINT", "SIGTERM", "SIGHUP"]
const pass = (signal) => child.kill(signal)
for (const signal of signals) process.on(signal, pass)
const parent = process.ppid
if (process.env.npm_lifecycle_event !== undefined) {
  const watch = setInterval(() => {
    if (process.ppid === parent) return
    clearInterval(watch)
    child.kill("SIGTERM")
  }, 200)
}
child.on("error", (error) => {
  console.error(`${node}: ${error.message}`)
  process.exit(1)
})
child.on("exit", (code, signal) => {
  for (const each of signals) process.removeListener(each, pass)
  if (signal === null) process.exit(code ?? 1)
  process.kill(process.pid, signal)
})
