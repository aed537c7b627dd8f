#!/usr/bin/env node
/**
 * The program `codio`.
 *
 * Exit codes: 0 when the program was asked to stop (by SIGINT or SIGTERM, or because its output is no longer read) or
 * showed its help; 1 for every failure, told in one line on stderr. A stop ends within 2 s, or within the given
 * `stopTimeout`. After that, or at once on a second signal, the operating system closes what is left.
 */

// Asked before anything else is loaded: an older Node fails somewhere inside a module, with a riddle.
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
if (major > 22 || (major === 22 && minor >= 19)) {
  const { main } = await import("./main.ts")
  main()
} else {
  process.stderr.write(`codio: Node 22.19 or newer is needed, this is ${process.versions.node}\n`)
  process.exitCode = 1
}
