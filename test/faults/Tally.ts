/** What the run of the scenarios comes to. */
import { Exit } from "effect"

export interface Tally {
  readonly passed: ReadonlyArray<string>
  /** The scenarios that failed or that were cut off. */
  readonly failed: ReadonlyArray<string>
  /** How much failed, the run itself included. */
  readonly failures: number
}

/**
 * A run that fails before all scenarios have ended, as at the time limit, fails those that it cut off. A run that fails
 * later, as when the machine cannot be restored, is a failure of its own, which no scenario's second run mends.
 */
export const tally = (
  chosen: ReadonlyArray<string>,
  ended: ReadonlyMap<string, boolean>,
  exit: Exit.Exit<unknown, unknown>
): Tally => {
  const [passed, failed] = [true, false].map((isGood) => chosen.filter((name) => (ended.get(name) ?? false) === isGood))
  const isBroken = Exit.isFailure(exit) && ended.size === chosen.length
  return { passed: passed!, failed: failed!, failures: failed!.length + (isBroken ? 1 : 0) }
}
