/**
 * Random scenarios as specs, one for each seed. With `CODIO_SIM_SEED` there is one spec, of that seed.
 */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { RandomScenario, Simulation } from "../../src/testing/index.ts"

const given = process.env["CODIO_SIM_SEED"]

export const sweep = (from: number, to: number) =>
  describe("ten nodes keep their promises through ten minutes of random faults", () => {
    const seeds = given === undefined ? Array.from({ length: to - from + 1 }, (_, index) => from + index) : [given]
    for (const seed of seeds) {
      it.effect(
        `of seed ${seed}`,
        () => Effect.flatMap(RandomScenario.make(seed), (scenario) => Simulation.run(scenario, { seed })),
        60_000
      )
    }
  })
