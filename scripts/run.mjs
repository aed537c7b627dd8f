/**
 * Runs a program of this repository, after setting it up: `node scripts/run.mjs src/cli/bin.ts start`. Its exit code,
 * or the signal that ended it, becomes ours. The npm scripts begin with `exec`, since a shell in between would keep
 * signals to itself.
 *
 * The program gets each signal once, because a second one may mean "at once". Ctrl-C goes to it directly, as to every
 * process of the terminal's foreground group, and here twice, since npm passes on what it got itself. A signal sent to
 * npm alone arrives here once and is passed on.
 */
import { spawn } from "node:child_process"
import { setUp } from "./setup.mjs"

const node = setUp()
const child = spawn(node, process.argv.slice(2), { stdio: "inherit" })
const underNpm = process.env.npm_lifecycle_event !== undefined

const handlers = {}
for (const signal of ["SIGINT", "SIGTERM"]) {
  let received = 0
  handlers[signal] = () => {
    received += 1
    if (received > 1) return
    setTimeout(() => {
      const wentToAll = underNpm ? received > 1 : signal === "SIGINT" && process.stdin.isTTY === true
      if (!wentToAll) child.kill(signal)
      received = 0
    }, 800)
  }
}
handlers.SIGHUP = () => child.kill("SIGHUP")
for (const signal in handlers) process.on(signal, handlers[signal])

// An npm that was killed passes nothing on.
const parent = process.ppid
const watch = underNpm && setInterval(() => {
  if (process.ppid === parent) return
  clearInterval(watch)
  child.kill("SIGTERM")
}, 200)

child.on("error", (error) => {
  console.error(`${node}: ${error.message}`)
  process.exit(1)
})
child.on("exit", (code, signal) => {
  for (const each in handlers) process.removeListener(each, handlers[each])
  if (signal === null) process.exit(code ?? 1)
  process.kill(process.pid, signal)
})
