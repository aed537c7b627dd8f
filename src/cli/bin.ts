#!/usr/bin/env node
/**
 * The program `codio`.
 *
 * Exit codes: 0 when the program was asked to stop (by SIGINT, SIGTERM or SIGHUP, or because its output is no longer
 * read) or showed its help; 1 for every failure, told in one line on stderr. A stop ends within 2 s, or within the
 * `stopTimeout`. After that, or at once on a second signal, the operating system closes what is left.
 */

import { problemOf } from "../layers/NodeVersion.ts"

// Asked before anything else is loaded: an older Node fails somewhere inside a module, with a riddle.
const problem = problemOf(process.versions.node)
if (problem === undefined) {
  const { main } = await import("./main.ts")
  main()
} else {
  process.stderr.write(`codio: ${problem}\n`)
  process.exitCode = 1
}
