import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import * as HealthPolicy from "../../../src/services/HealthPolicy.ts"
import { RandomScenario, Scenario, Simulation } from "../../../src/testing/index.ts"

const three = [{ name: "alice" }, { name: "bob" }, { name: "carol" }] as const

/** Every kind of step. */
const everything: Scenario.ScenarioInput = {
  nodes: [...three, { name: "dave", nat: "home", options: { maxPeers: 3 } }],
  options: { enableMdns: true, connectionIdleTimeout: "2 minutes" },
  keeps: { shape: "star" },
  link: { latency: "20 millis", jitter: "5 millis" },
  links: [{ between: ["alice", "bob"], latency: "150 millis", bandwidth: 1_000_000 }],
  steps: [
    { at: "10 seconds", do: "partition", groups: [["alice"], ["bob", "carol"]] },
    { at: "40 seconds", do: "heal" },
    { at: "50 seconds", do: "mute", node: "alice", other: "bob" },
    { at: "55 seconds", do: "blackhole", node: "carol" },
    { at: "70 seconds", do: "heal" },
    { at: "80 seconds", do: "sever", node: "alice", other: "bob" },
    { at: "90 seconds", do: "link", node: "alice", other: "carol", link: { loss: 0.05 }, oneWay: true },
    { at: "100 seconds", do: "nat", nodes: ["carol"] },
    { at: "110 seconds", do: "expose", node: "carol" },
    { at: "2 minutes", do: "kill", node: "alice" },
    { at: "130 seconds", do: "start", node: "alice" },
    { at: "140 seconds", do: "stop", node: "bob" },
    { at: "141 seconds", do: "start", node: "bob", disk: false },
    { at: "3 minutes", do: "stall", node: "carol", lasts: "7 seconds" },
    { at: "190 seconds", do: "sleep", node: "bob", lasts: "1 minute" },
    { at: "195 seconds", do: "jump", node: "carol", lasts: "8 hours" },
    { at: "260 seconds", do: "readdress", node: "alice", moves: true },
    { at: "270 seconds", do: "connect", node: "bob", other: "carol" },
    { at: "280 seconds", do: "keep", node: "bob", other: "carol" },
    { at: "290 seconds", do: "disconnect", node: "carol", other: "bob" },
    { at: "5 minutes", do: "block", node: "carol", other: "bob" },
    { at: "330 seconds", do: "unblock", node: "carol", other: "bob" },
    { at: "340 seconds", do: "release", node: "bob", other: "carol" }
  ],
  lasts: "8 minutes"
}

const silence: Scenario.ScenarioInput = {
  nodes: three,
  keeps: { shape: "line" },
  link: { latency: "10 millis" },
  steps: [
    { at: "30 seconds", do: "blackhole", node: "bob" },
    { at: "50 seconds", do: "heal" }
  ],
  lasts: "3 minutes"
}

describe("a simulation", () => {
  it.effect("runs every kind of step, and keeps all promises", () =>
    Effect.gen(function*() {
      const report = yield* Simulation.run(everything, { seed: "everything" })
      assert.isAbove(report.events, 20)
      assert.isAbove(report.wakes, 1_000)
      assert.strictEqual(report.seed, "everything")
    }))

  it.effect("is the same for the same seed, as a number and as the text of a variable, and another for another", () =>
    Effect.gen(function*() {
      const scenario = yield* RandomScenario.make(3, { nodes: 5, lasts: "3 minutes" })
      const digest = (seed: number | string) =>
        Effect.map(Simulation.run(scenario, { seed }), (report) => report.digest)
      const first = yield* digest(3)
      assert.strictEqual(yield* digest("3"), first)
      assert.notStrictEqual(yield* digest(4), first)
    }))

  it.effect("fails with what was broken, when, after what, and how to see it again", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Simulation.run(silence, { seed: 42, healthBound: "5 seconds" }))
      assert.strictEqual(error.invariant, "dead")
      assert.include(error.message, "has been out of its reach for 6s, at 36s, after {\"at\":\"30 seconds\"")
      assert.include(error.message, "CODIO_SIM_SEED=42 repeats this run")
      assert.isAbove(error.trace.length, 0)
    }))

  it.effect("fails when a kept peer comes back too late", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Simulation.run({
        ...silence,
        steps: [
          { at: "30 seconds", do: "kill", node: "bob" },
          { at: "90 seconds", do: "start", node: "bob" }
        ]
      }, { seed: 42, reconnectBound: "2 seconds" }))
      assert.strictEqual(error.invariant, "kept")
      assert.include(error.detail, "alice keeps bob")
    }))

  it.effect("fails when something of a node outlives it", () =>
    Effect.gen(function*() {
      const leaks = Simulation.run({ ...silence, steps: [{ at: "30 seconds", do: "stop", node: "bob" }] }, {
        seed: 42,
        application: (node) => node.name === "bob" ? node.within(Effect.forkDetach(Effect.never)) : Effect.void
      })
      const error = yield* Effect.flip(leaks)
      assert.strictEqual(error.invariant, "fibers")
      assert.include(error.detail, "bob ended 10 s ago, and has 1 fibers")
    }))

  it.effect("uses the policies of the program that runs it", () =>
    Simulation.run(silence, { seed: 42, healthBound: "4 seconds" }).pipe(
      Effect.provideService(HealthPolicy.HealthPolicy, HealthPolicy.fast)
    ))

  it.effect("runs the application on each node, each time it starts, until it ends", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* Simulation.run({
        ...silence,
        steps: [
          { at: "30 seconds", do: "kill", node: "bob" },
          { at: "40 seconds", do: "start", node: "bob" }
        ]
      }, {
        application: ({ name }) =>
          Effect.asVoid(
            Effect.acquireRelease(
              Effect.sync(() => log.push(`${name} on`)),
              () => Effect.sync(() => log.push(`${name} off`))
            )
          )
      })
      assert.deepStrictEqual(log.slice(0, 5), ["alice on", "bob on", "carol on", "bob off", "bob on"])
      assert.deepStrictEqual(log.slice(5).sort(), ["alice off", "bob off", "carol off"])
    }))
})

describe("a scenario", () => {
  it("is plain JSON", () => {
    const parsed = JSON.parse(JSON.stringify(everything)) as Scenario.ScenarioInput
    assert.deepStrictEqual(Scenario.make(parsed), Scenario.make(everything))
    assert.throws(() => Scenario.make({ ...everything, lasts: "soon" }))
  })

  it("names nodes that there are", () => {
    const wrong = (scenario: Partial<Scenario.ScenarioInput>) => () => Scenario.make({ ...silence, ...scenario })
    assert.throws(wrong({ steps: [{ at: "1 second", do: "kill", node: "zoe" }] }), "there is no node zoe")
    assert.throws(
      wrong({ steps: [{ at: "1 second", do: "partition", groups: [["bob"], ["zoe"]] }] }),
      "there is no node zoe"
    )
    assert.throws(wrong({ keeps: [["alice", "zoe"]] }), "there is no node zoe")
    assert.throws(wrong({ nodes: [{ name: "alice" }, { name: "alice" }] }), "expected nodes of different names")
    assert.throws(wrong({ nodes: [{ name: "a/b" }] }), "expected a name")
  })

  it("connects nodes in shapes", () => {
    const pairs = (keeps: Scenario.Keeps) =>
      Scenario.pairsOf(Scenario.make({ nodes: three, keeps, steps: [], lasts: "1 minute" }), () => 0)
        .map(([keeper, other]) => `${keeper[0]}${other[0]}`)
    assert.deepStrictEqual(pairs({ shape: "line" }), ["ab", "bc"])
    assert.deepStrictEqual(pairs({ shape: "ring" }), ["ab", "bc", "ca"])
    assert.deepStrictEqual(pairs({ shape: "star" }), ["ba", "ca"])
    assert.deepStrictEqual(pairs({ shape: "mesh" }), ["ab", "ac", "bc"])
    assert.deepStrictEqual(pairs({ shape: "random", degree: 1 }), ["ab", "ba", "ca"])
    assert.deepStrictEqual(pairs([["carol", "alice"]]), ["ca"])
  })

  it.effect("by chance is valid, the same for its seed, and ends in peace", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < 50; seed++) {
        const scenario = yield* RandomScenario.make(seed)
        const { lasts, steps } = Scenario.make(scenario)
        assert.isAbove(steps.length, 5)
        const times = steps.map(({ at }) => Duration.toMillis(at))
        assert.deepStrictEqual(times, [...times].sort((a, b) => a - b))
        assert.isTrue(times.every((millis) => millis <= Duration.toMillis(lasts) * 0.6))
        assert.deepStrictEqual(yield* RandomScenario.make(seed), scenario)
      }
    }))
})
