/**
 * The agreement between the heavy suites and `.ci/run`: a suite reports the names of the scenarios that passed and that
 * failed, and runs single scenarios when it is asked to.
 *
 * `SUITE_REPORT` names the file in which the suite writes its report as JSON; `SUITE_ONLY` is a JSON list of the
 * scenarios to run, each by the name that a report gave it. Without them a suite runs everything and writes nothing.
 */
import { writeFileSync } from "node:fs"
import process from "node:process"

export interface SuiteReport {
  /** The names of the scenarios that passed. */
  readonly passed: ReadonlyArray<string>
  /** The names of the scenarios that failed. A failure that is no scenario's, such as a crash, is not among them. */
  readonly failed: ReadonlyArray<string>
  /** What this machine cannot run, a reason for each scenario. */
  readonly leftOut: ReadonlyArray<string>
}

/** The scenarios to run; undefined when all of them are meant. */
export const asked: ReadonlySet<string> | undefined = process.env["SUITE_ONLY"] === undefined
  ? undefined
  : new Set(JSON.parse(process.env["SUITE_ONLY"]))

/** Whether a scenario is to be run. */
export const isAsked = (name: string): boolean => asked === undefined || asked.has(name)

/** Writes the report where the caller wants it. */
export const write = (report: SuiteReport): void => {
  if (process.env["SUITE_REPORT"] !== undefined) writeFileSync(process.env["SUITE_REPORT"], JSON.stringify(report))
}
