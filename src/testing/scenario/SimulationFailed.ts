/**
 * How a simulation fails.
 */
import { Duration, Schema } from "effect"

/**
 * The promises that `Simulation.run` checks. Those of the program are `application`, that no fiber of the application
 * ends with a defect; `step`, that no own step fails; and `own`, the invariants of `SimulationOptions`.
 */
export const Invariant = Schema.Literals([
  "limit",
  "dead",
  "one-sided",
  "blocked",
  "kept",
  "fibers",
  "provided",
  "stored",
  "echo",
  "application",
  "step",
  "own"
])
export type Invariant = typeof Invariant.Type

/**
 * A promise was broken. The message says which, when, by whom, after which step and what went before, and how to see it
 * again.
 */
export class SimulationFailed extends Schema.TaggedError<SimulationFailed>()("SimulationFailed", {
  invariant: Invariant,
  /** What was seen and should not be. */
  detail: Schema.String,
  at: Schema.Duration,
  /** The last step before: as JSON, or by its name where it is the program's own; empty before the first. */
  step: Schema.String,
  seed: Schema.Union([Schema.String, Schema.Finite]),
  /** The last events of the nodes concerned, and the steps between them, oldest first. */
  trace: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return [
      `${this.invariant}: ${this.detail}, at ${Duration.format(this.at)}` +
      (this.step === "" ? ", before the first step" : `, after ${this.step}`),
      ...this.trace.map((line) => `  ${line}`),
      `CODIO_SIM_SEED=${this.seed} repeats this run`
    ].join("\n")
  }
}
