/**
 * A vitest reporter that writes what happened to the file named by SPEC_REPORT: the line that ends `npm test` is made
 * of it. It holds counts, and the specs that passed and that failed, each by its file and its titles.
 */
import { writeFileSync } from "node:fs"

export default class CountReporter {
  onTestRunEnd(modules, unhandledErrors) {
    const report = { passed: 0, failed: unhandledErrors.length, names: { passed: [], failed: [] }, leftOut: [] }
    // Where specs were chosen by their titles, vitest reports all others as skipped.
    const isChosen = process.env.SUITE_ONLY !== undefined
    for (const module of modules) {
      report.failed += module.errors().length
      for (const suite of module.children.allSuites()) report.failed += suite.errors().length
      for (const test of module.children.allTests()) {
        const result = test.result()
        const name = `${module.relativeModuleId} > ${test.fullName}`
        if (result.state === "passed") {
          report.passed += 1
          report.names.passed.push(name)
        } else if (result.state === "skipped" && !isBroken(test.parent)) {
          if (!isChosen || result.note !== undefined) report.leftOut.push(result.note ?? test.fullName)
        } else if (result.state !== "skipped" || !isChosen) {
          report.failed += 1
          report.names.failed.push(name)
        }
      }
    }
    if (process.env.SPEC_REPORT !== undefined) writeFileSync(process.env.SPEC_REPORT, JSON.stringify(report))
  }
}

// internal ------------------------------------------------------------------------------------------------------------

/** Whether a hook of the suite, or of one around it, failed: its specs are then reported as skipped. */
function isBroken(suite) {
  return suite.errors().length > 0 || (suite.type === "suite" && isBroken(suite.parent))
}
