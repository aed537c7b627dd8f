/**
 * Random scenarios, one for each seed: the first ten, since ten thousand take an hour (`npm run test:long`).
 * With `CODIO_SIM_SEED` there is one spec, of that seed.
 */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { RandomScenario, Simulation } from "../../src/testing/index.ts"

const given = process.env["CODIO_SIM_SEED"]
const seeds = given === undefined ? Array.from({ length: 10 }, (_, index) => index + 1) : [given]

describe("ten nodes keep their promises through ten minutes of random faults", () => {
  for (const seed of seeds) {
    it.effect(
      `of seed ${seed}`,
      () =>
        Effect.flatMap(
          RandomScenario.make(seed),
          (scenario) => Simulation.run(scenario, { seed })
        )
    )
  }
})
