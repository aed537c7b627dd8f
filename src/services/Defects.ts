/**
 * Where the background work of a node tells what went wrong in it that nobody foresaw.
 */
import { type Cause, Context, Effect } from "effect"

/** Takes note of defects: bugs of the library, or of a policy, store or port that a program has put in. */
export interface DefectsOf {
  /** Logs the defect with its cause, the first time that it occurs in this work, and counts it. */
  readonly report: (work: string, cause: Cause.Cause<unknown>) => Effect.Effect<void>
  /** Defects since the start. */
  readonly count: Effect.Effect<number>
}

/** Without a layer a defect is logged each time, and not counted. `Network` replaces it. */
export const Defects = Context.Reference<DefectsOf>("codio-network/services/Defects", {
  defaultValue: () => ({
    report: (work, cause) => Effect.logError(`a defect in the work "${work}", which goes on`, cause),
    count: Effect.succeed(0)
  })
})
