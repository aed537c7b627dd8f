/**
 * An application on six nodes that are cut off, killed, put to sleep and moved: a scenario written as data, then one
 * drawn by chance.
 *
 *     node scripts/run.mjs examples/12-scenario.ts
 *     CODIO_SIM_SEED=7 node scripts/run.mjs examples/12-scenario.ts    the same again
 *
 * The application is a counter that each node keeps of the peers that greeted it. Its own promise is checked beside the
 * library's.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect, Schedule } from "effect"
import { RandomScenario, type Scenario, Simulation, type TestNetwork } from "../src/testing/index.ts"

const scenario: Scenario.ScenarioInput = {
  nodes: [{ name: "seed" }, { name: "ann" }, { name: "bob" }, { name: "cem" }, { name: "dan", nat: "home" }, {
    name: "eve"
  }],
  keeps: { shape: "star" },
  link: { latency: "40 millis", jitter: "10 millis", loss: 0.01 },
  steps: [
    { at: "1 minute", do: "partition", groups: [["seed", "ann"], ["bob", "cem", "dan", "eve"]] },
    { at: "2 minutes", do: "heal" },
    { at: "3 minutes", do: "kill", node: "seed" },
    { at: "4 minutes", do: "start", node: "seed" },
    { at: "5 minutes", do: "sleep", node: "bob", lasts: "1 minute" },
    { at: "6 minutes", do: "readdress", node: "cem" }
  ],
  lasts: "10 minutes"
}

const greeted = new Set<string>()

/** What runs on each node, each time it starts. */
const application = ({ name, network }: TestNetwork.TestNode) =>
  Effect.gen(function*() {
    yield* network.handle("/greeting/1.0.0", (stream) => Effect.sync(() => greeted.add(stream.connection.peer)))
    const greetAll = Effect.flatMap(network.peers, (peers) =>
      Effect.forEach(peers, ({ id }) =>
        Effect.ignore(Effect.scoped(network.open(id, "/greeting/1.0.0"))), {
        discard: true
      }))
    yield* Effect.forkScoped(Effect.repeat(greetAll, Schedule.spaced("30 seconds")))
  }).pipe(Effect.catchTag("ProtocolError", (error) =>
    Effect.die(`${name}: ${error.message}`)))

const program = Effect.gen(function*() {
  const written = yield* Simulation.run(scenario, { seed: process.env["CODIO_SIM_SEED"] ?? 6, application })
  yield* Console.log(
    `${
      Duration.toMinutes(written.lasted)
    } minutes of simulated time, ${written.events} events, ${greeted.size} nodes greeted`
  )
  if (greeted.size < 6) return yield* Effect.die("a node was never greeted")

  const drawn = yield* RandomScenario.make(6, { nodes: 6, lasts: "5 minutes" })
  const { events, seed } = yield* Simulation.run(drawn, { seed: 6, application })
  yield* Console.log(
    `seed ${seed}: ${drawn.steps.length} faults and wishes, ${events} events, and every promise was kept`
  )
})

NodeRuntime.runMain(program)
