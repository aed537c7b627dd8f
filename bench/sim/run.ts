/**
 * What simulated time costs, and sweeps of random scenarios.
 *
 *     npm run bench:sim                       a table: wakes, and real time for each
 *     npm run bench:sim -- --seeds 1000       random scenarios, ten nodes and ten minutes each; --from 501 begins there
 *     CODIO_SIM_SEED=56 npm run bench:sim     the scenario of one seed, with its steps
 *
 * Options of a sweep: `--nodes 10`, `--minutes 10`. Exit code 1 when a promise was broken.
 */
import { Cause, Clock, Duration, Effect, Exit, Schedule } from "effect"
import { TestClock } from "effect/testing"
import process from "node:process"
import { parseArgs } from "node:util"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import type { Network } from "../../src/index.ts"
import { HealthPolicy } from "../../src/services/HealthPolicy.ts"
import { withPeer } from "../../src/schema/Peer.ts"
import * as SuiteReport from "../../scripts/SuiteReport.ts"
import { RandomScenario, SimClock, SimNetwork, Simulation, TestNetwork } from "../../src/testing/index.ts"

const { values } = parseArgs({
  options: {
    seeds: { type: "string" },
    from: { type: "string", default: "1" },
    nodes: { type: "string", default: "10" },
    minutes: { type: "string", default: "10" },
    only: { type: "string" }
  }
})

const given = process.env["CODIO_SIM_SEED"]
if (given !== undefined) await scenarios([given], true)
else if (values.seeds !== undefined) {
  const from = Number(values.from)
  const all = Array.from({ length: Number(values.seeds) }, (_, index) => from + index)
  await scenarios(SuiteReport.asked === undefined ? all : seedsIn(SuiteReport.asked), false)
} else await table()

// internal ------------------------------------------------------------------------------------------------------------

/** The seeds of the scenarios that were asked for, which need not be among those of this run. */
function seedsIn(names: ReadonlySet<string>): ReadonlyArray<number> {
  return [...names].flatMap((name) => /^seed (\d+)$/.exec(name)?.[1] ?? []).map(Number)
}

async function scenarios(seeds: ReadonlyArray<string | number>, verbose: boolean): Promise<void> {
  const began = performance.now()
  const options = { nodes: Number(values.nodes), lasts: Duration.minutes(Number(values.minutes)) }
  const failed: Array<string> = []
  let wakes = 0
  for (const seed of seeds) {
    const scenario = await Effect.runPromise(RandomScenario.make(seed, options))
    if (verbose) console.log(JSON.stringify(scenario, undefined, 1))
    const exit = await Effect.runPromiseExit(Simulation.run(scenario, { seed }))
    if (Exit.isSuccess(exit)) {
      wakes += exit.value.wakes
      if (verbose) console.log(exit.value)
      continue
    }
    failed.push(`seed ${seed}`)
    const error = Cause.squash(exit.cause)
    console.log(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}\n`)
  }
  const seconds = (performance.now() - began) / 1_000
  console.log(
    `${seeds.length} random scenarios of ${options.nodes} nodes and ${Duration.format(options.lasts)} took ` +
      `${seconds.toFixed(1)} s: ${(seconds / seeds.length).toFixed(2)} s and ${
        Math.round(wakes / seeds.length)
      } wakes each`
  )
  const passed = seeds.map((seed) => `seed ${seed}`).filter((name) => !failed.includes(name))
  SuiteReport.write({ passed, failed, leftOut: [] })
  console.log(`${passed.length} passed, ${failed.length} failed`)
  if (failed.length > 0) process.exitCode = 1
}

async function table(): Promise<void> {
  const probe = { ...HealthPolicy.defaultValue(), probe: Schedule.spaced("60 seconds").pipe(Schedule.jittered) }
  const cases = {
    hour: () => lasting("10 nodes, 1 hour, default policies", 10, Duration.hours(1)),
    busy: () =>
      lasting(
        "10 nodes, 1 hour, never idle",
        10,
        Duration.hours(1),
        () => ({ connectionIdleTimeout: Duration.days(30) })
      ),
    day: () =>
      Effect.provideService(
        lasting("20 nodes that keep each other, 24 hours, 60 s probe", 20, Duration.hours(24), (self) => ({
          enableMdns: false,
          bootstrapPeers: namesOf(20).filter((name) => name !== self).map((name) =>
            withPeer(SimNetwork.address(name), SimNetwork.peerId(name))
          )
        })),
        HealthPolicy,
        probe
      ),
    discovery: () =>
      Effect.provideService(
        lasting("20 nodes that find each other every 3 s, 24 hours, 60 s probe", 20, Duration.hours(24)),
        HealthPolicy,
        probe
      ),
    crowd: () => settling("200 nodes start, discover, settle", 200),
    memory: () => memory("memory of a node among 200", 200)
  }
  console.log("| case | real time | CPU | wakes | per virtual second | CPU per wake | |\n|---|---|---|---|---|---|---|")
  for (const [name, run] of Object.entries(cases)) {
    if (values.only !== undefined && values.only !== name) continue
    await Effect.runPromise(
      // The network ends before its nodes, so that their stop waits for nothing.
      Effect.scoped(
        Effect.provide(run(), SimNetwork.layerWithClock({ latency: "20 millis", jitter: "5 millis", seed: 1 }))
      )
    )
  }
}

function namesOf(count: number): ReadonlyArray<string> {
  return Array.from({ length: count }, (_, index) => `node${index}`)
}

type ConfigOf = (name: string) => Parameters<typeof TestNetwork.makeNode>[1]

function nodesOf(count: number, config: ConfigOf = () => ({})) {
  return Effect.forEach(
    namesOf(count),
    (name) => TestNetwork.makeNode(name, { enableMdns: true, ...config(name) })
  )
}

function measured<A, R>(name: string, effect: Effect.Effect<A, unknown, R>, says: (value: A) => string) {
  return Effect.gen(function*() {
    const clock = yield* Effect.filterOrElse(Clock.Clock, SimClock.isSimClock, () => Effect.die("no SimClock"))
    const [began, cpu] = [performance.now(), process.cpuUsage()]
    const value = yield* effect
    const used = process.cpuUsage(cpu)
    const [real, busy] = [(performance.now() - began) / 1_000, (used.user + used.system) / 1e6]
    const virtual = clock.currentTimeMillisUnsafe() / 1_000
    console.log(
      `| ${name} | ${real.toFixed(1)} s | ${busy.toFixed(1)} s | ${clock.wakes} | ${
        (clock.wakes / virtual).toFixed(1)
      } | ` +
        `${(busy * 1e6 / clock.wakes).toFixed(1)} µs | ${says(value)} |`
    )
  })
}

function peersOf(nodes: ReadonlyArray<Network["Service"]>) {
  return Effect.map(
    Effect.forEach(nodes, (node) => node.peerCount),
    (counts) => `${Math.min(...counts)} to ${Math.max(...counts)} peers each`
  )
}

function lasting(
  name: string,
  count: number,
  duration: Duration.Duration,
  config?: ConfigOf
) {
  const run = Effect.gen(function*() {
    const nodes = yield* nodesOf(count, config)
    yield* TestClock.adjust(duration)
    return yield* peersOf(nodes)
  })
  return measured(name, run, (text) => text)
}

function settling(name: string, count: number) {
  const run = Effect.gen(function*() {
    const nodes = yield* nodesOf(count)
    yield* TestClock.adjust("30 seconds")
    return yield* peersOf(nodes)
  })
  return measured(name, run, (text) => `${text} after 30 s`)
}

// Collects garbage in a Node that was started without `--expose-gc`.
function collect(): void {
  setFlagsFromString("--expose-gc")
  runInNewContext("gc")()
}

function memory(name: string, count: number) {
  const heap = Effect.promise(async () => {
    for (let round = 0; round < 3; round++) {
      collect()
      await new Promise((resolve) => setImmediate(resolve))
    }
    return process.memoryUsage().heapUsed
  })
  const run = Effect.gen(function*() {
    const before = yield* heap
    const nodes = yield* nodesOf(count)
    yield* TestClock.adjust("30 seconds")
    return ((yield* heap) - before) / nodes.length / 1024
  })
  return measured(name, run, (kib) => `${kib.toFixed(0)} KiB each`)
}
