/**
 * A scenario: a fault, what the library does about it, and how soon.
 */
import { Clock, Effect, type Scope } from "effect"
import type { Machine } from "./Machine.ts"

export interface Scenario {
  /** A sentence about behaviour. */
  readonly name: string
  /** About how long it runs. The longest scenarios begin first, so that none of them runs alone at the end. */
  readonly seconds: number
  /**
   * What the machine lacks for it, in words; undefined when it lacks nothing. Defaults to a check of the needs of every
   * scenario.
   */
  readonly lacks?: Effect.Effect<string | undefined>
  readonly run: (report: Report) => Effect.Effect<void, never, Machine | Scope.Scope>
}

/** Compares measurements with their bounds. A broken bound fails the scenario, which goes on. */
export interface Report {
  /** Checks a number, such as one of bytes. */
  readonly atMost: (what: string, value: number, bound: number, unit?: string) => Effect.Effect<void>
  readonly atLeast: (what: string, value: number, bound: number, unit?: string) => Effect.Effect<void>
  /** Checks that one moment follows another soon enough. Moments are those of events and of `Clock`. */
  readonly within: (what: string, from: number, to: number, seconds: number) => Effect.Effect<void>
  readonly equal: (what: string, value: unknown, expected: unknown) => Effect.Effect<void>
}

export interface Measured {
  readonly text: string
  readonly isGood: boolean
}

/** A report that adds to a list. */
export const reportTo = (list: Array<Measured>): Report => {
  const add = (text: string, isGood: boolean) => Effect.sync(() => void list.push({ text, isGood }))
  const show = (value: number, unit: string) =>
    `${Number.isInteger(value) ? value : value.toFixed(2)}${unit === "" ? "" : ` ${unit}`}`
  const atMost: Report["atMost"] = (what, value, bound, unit = "") =>
    add(`${what}: ${show(value, unit)} (at most ${show(bound, unit)})`, value <= bound)
  return {
    atMost,
    atLeast: (what, value, bound, unit = "") =>
      add(`${what}: ${show(value, unit)} (at least ${show(bound, unit)})`, value >= bound),
    within: (what, from, to, seconds) => atMost(what, (to - from) / 1000, seconds, "s"),
    equal: (what, value, expected) =>
      add(
        value === expected
          ? `${what}: ${JSON.stringify(value)}`
          : `${what}: ${JSON.stringify(value)}, expected ${JSON.stringify(expected)}`,
        value === expected
      )
  }
}

/** Asks until the answer is yes, and gives the moment; a defect when it is not within the limit. */
export const until = (what: string, question: Effect.Effect<boolean>, seconds: number): Effect.Effect<number> =>
  question.pipe(
    Effect.delay("50 millis"),
    Effect.repeat({ until: (answer) => answer }),
    Effect.andThen(Clock.currentTimeMillis),
    Effect.timeoutOrElse({
      duration: `${seconds} seconds`,
      orElse: () => Effect.die(new Error(`not within ${seconds} s: ${what}`))
    })
  )
