/**
 * Fails when it is loaded by a Node that is too old. The first import of each entry of the package: modules are
 * evaluated in the order of their imports, and further on an older Node fails with a riddle.
 */
import { problemOf } from "./NodeVersion.ts"

const problem = problemOf(process.versions.node)
if (problem !== undefined) {
  const error = new Error(`codio-network: ${problem}`)
  // The one line is all there is to say.
  error.stack = error.message
  throw error
}
