import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Context, Duration, Effect, Exit, Layer, Schedule, Stream } from "effect"
import * as HealthPolicy from "../../../src/services/HealthPolicy.ts"
import { PeerTable } from "../../../src/services/PeerTable.ts"
import * as ReconnectPolicy from "../../../src/services/ReconnectPolicy.ts"
import { RandomScenario, Scenario, Simulation, SimulationFailed, type TestNetwork } from "../../../src/testing/index.ts"

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

  it.effect("tells in its trace the steps between the events, and durations as people read them", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Simulation.run(silence, {
        seed: 42,
        steps: [{ at: "1 minute", name: "bob gives up", run: () => Effect.fail("no more") }]
      }))
      const lines = error.trace.map((line) => line.replace(/^[\d.]+ s /, ""))
      const lost = lines.findIndex((line) => line.startsWith("bob PeerDisconnected"))
      assert.match(
        lines[lost]!,
        /^bob PeerDisconnected {"peer":"(alice|carol)","reason":"unhealthy","connectionDuration":"\d+s \d+ms"}$/
      )
      const [blackhole, heal, own] = ["--- {\"at\":\"30 seconds\"", "--- {\"at\":\"50 seconds\"", "--- bob gives up"]
        .map(
          (start) => lines.findIndex((line) => line.startsWith(start))
        )
      assert.isTrue(0 <= blackhole! && blackhole! < lost && lost < heal! && heal! < own!, error.message)
      assert.strictEqual(error.step, "bob gives up")
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

  it.effect("fails when a peer that was away for a moment comes back as late as after a long time", () =>
    Effect.gen(function*() {
      const scenario: Scenario.ScenarioInput = {
        ...silence,
        steps: [
          { at: "60 seconds", do: "kill", node: "bob" },
          { at: "62 seconds", do: "start", node: "bob" }
        ]
      }
      const lazy = Layer.succeed(ReconnectPolicy.ReconnectPolicy)(() => Schedule.spaced("50 seconds"))
      yield* Simulation.run(scenario, { seed: 42 })
      yield* Effect.provide(Simulation.run(scenario, { seed: 42, reconnectBound: "85 seconds" }), lazy)
      const error = yield* Effect.flip(Effect.provide(Simulation.run(scenario, { seed: 42 }), lazy))
      assert.strictEqual(error.invariant, "kept")
      assert.match(
        error.detail,
        /^alice keeps bob and has not had it for 3\ds, with nothing between them, after [1-3]s/
      )
    }))

  it.effect("fails when a node has a peer that has let go of it, within 2 s on a fast link", () =>
    Effect.gen(function*() {
      const forgets = Effect.fnUntraced(function*({ name, untimed }: TestNetwork.TestNode) {
        if (name !== "bob") return
        yield* Effect.forkScoped(Effect.andThen(
          Effect.sleep("20500 millis"),
          Effect.sync(() => Object.assign(Context.get(untimed, PeerTable), { has: () => Effect.succeed(false) }))
        ))
      })
      const error = yield* Effect.flip(Simulation.run(silence, { seed: 42, application: forgets }))
      assert.strictEqual(error.invariant, "one-sided")
      assert.strictEqual(error.detail, "alice has bob, which has not had it for 2s")
      const slow = { ...silence, link: { latency: "1 second" } } as const
      const { detail } = yield* Effect.flip(Simulation.run(slow, { seed: 42, application: forgets }))
      assert.strictEqual(detail, "alice has bob, which has not had it for 5s")
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

  const spill = Effect.andThen(Effect.sleep("20 seconds"), Effect.die(new Error("the milk is spilled")))
  for (
    const [where, application] of [
      ["that the application forks", () => Effect.asVoid(Effect.forkScoped(spill))],
      [
        "that a fiber of the application forks",
        () => Effect.asVoid(Effect.forkScoped(Effect.andThen(Effect.forkDetach(spill), Effect.never)))
      ],
      [
        "that the application forks in the time of its node",
        (node: TestNetwork.TestNode) => Effect.asVoid(node.within(Effect.forkScoped(spill)))
      ],
      ["of the application itself", () => Effect.die(new Error("the milk is spilled"))]
    ] as const
  ) {
    it.effect(`fails with a defect in a fiber ${where}`, () =>
      Effect.gen(function*() {
        const run = Simulation.run(silence, {
          seed: 42,
          application: (node) => node.name === "bob" ? application(node) : Effect.void
        })
        const error = yield* Effect.flip(run)
        assert.strictEqual(error.invariant, "application")
        assert.match(error.detail, /^a fiber of bob ended with a defect: Error: the milk is spilled/)
      }))
  }

  it.effect("leaves a defect alone that the application handles", () =>
    Effect.gen(function*() {
      const report = yield* Simulation.run(silence, {
        seed: 42,
        application: () => Effect.asVoid(Effect.forkScoped(Effect.catchDefect(spill, () => Effect.void)))
      })
      assert.isAbove(report.events, 0)
    }))

  describe("checks a promise of the program", () => {
    const seconds = (when: Simulation.OwnInvariant["when"], bad: (at: number) => boolean) =>
      Effect.gen(function*() {
        const checked: Array<number> = []
        const invariant: Simulation.OwnInvariant = {
          name: "never",
          when,
          check: (nodes) =>
            Effect.map(Clock.currentTimeMillis, (now) => {
              checked.push(now / 1_000)
              return bad(now / 1_000) ? `${[...nodes.keys()].join(" ")} at ${now / 1_000}` : undefined
            })
        }
        const exit = yield* Effect.exit(Simulation.run(silence, { seed: 42, invariants: [invariant] }))
        return { checked, failure: Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined }
      })

    it.effect("each second and after each step", () =>
      Effect.gen(function*() {
        const { checked, failure } = yield* seconds(undefined, (at) => at === 77)
        assert.deepStrictEqual([checked.slice(0, 3), checked.filter((at) => at === 30).length], [[1, 2, 3], 2])
        assert.strictEqual(
          failure instanceof SimulationFailed && `${failure.invariant} ${failure.detail}`,
          "own never: alice bob carol at 77"
        )
      }))

    it.effect("after healing, which is so long after the last step as a reconnection may take", () =>
      Effect.gen(function*() {
        const { checked, failure } = yield* seconds("after healing", () => false)
        assert.isUndefined(failure)
        assert.strictEqual(checked[0], 50 + 85)
      }))

    it.effect("at the end, while the nodes still run", () =>
      Effect.gen(function*() {
        const { checked, failure } = yield* seconds("at the end", () => true)
        assert.deepStrictEqual(checked, [180])
        assert.include(String(failure), "never: alice bob carol at 180")
      }))

    it.effect("that dies or waits as one that is broken", () =>
      Effect.gen(function*() {
        for (
          const [check, detail] of [
            [Effect.die(new Error("oh")), "never: Error: oh"],
            [Effect.as(Effect.sleep("1 second"), undefined), "never: it waits for something, where it may only read"]
          ] as const
        ) {
          const run = Simulation.run(silence, { seed: 42, invariants: [{ name: "never", check: () => check }] })
          const error = yield* Effect.flip(run)
          assert.strictEqual(error.invariant, "own")
          assert.isTrue(error.detail.startsWith(detail), error.detail)
        }
      }))
  })

  describe("takes a step of the program", () => {
    it.effect("on the nodes that run, beside the other steps, and ends it with the run", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        yield* Simulation.run({ ...silence, steps: [{ at: "30 seconds", do: "stop", node: "bob" }] }, {
          seed: 42,
          steps: [
            {
              at: "10 seconds",
              name: "carol connects",
              run: (nodes) =>
                Effect.gen(function*() {
                  const [carol, alice] = [nodes.get("carol")!.network, nodes.get("alice")!.network]
                  const [address] = yield* alice.addresses
                  const { interest } = yield* carol.connect(address!)
                  log.push(interest)
                })
            },
            {
              at: "40 seconds",
              name: "waits",
              run: (nodes) =>
                Effect.onInterrupt(
                  Effect.never,
                  () =>
                    Effect.map(
                      Clock.currentTimeMillis,
                      (now) => log.push(`${[...nodes.keys()].join(" ")} until ${now / 1_000}`)
                    )
                )
            }
          ]
        })
        assert.deepStrictEqual(log, ["wanted", "alice carol until 180"])
      }))

    it.effect("and fails when it fails or dies, whenever that is", () =>
      Effect.gen(function*() {
        for (const problem of [Effect.fail("too late"), Effect.die("too late")]) {
          const run = Simulation.run(silence, {
            seed: 42,
            steps: [{
              at: "1 minute",
              name: "hurries",
              run: () => Effect.andThen(Effect.sleep("9500 millis"), problem)
            }]
          })
          const error = yield* Effect.flip(run)
          assert.strictEqual(error.invariant, "step")
          assert.include(error.detail, "hurries: ")
          assert.include(error.detail, "too late")
          assert.strictEqual(Duration.toSeconds(error.at), 70)
        }
      }))
  })

  describe("uses the production DHT, streams included, and asks again at the end", () => {
    const content: Scenario.ScenarioInput = {
      ...silence,
      dht: "kad",
      options: { minPeers: 0 },
      steps: [
        { at: "10 seconds", do: "provide", node: "alice", key: "a film" },
        { at: "10 seconds", do: "put", node: "carol", key: "status", value: "here" },
        { at: "10 seconds", do: "echo", node: "alice", other: "bob" },
        ...silence.steps
      ]
    }
    const breaks = (change: (node: TestNetwork.TestNode) => void) =>
      Effect.flip(Simulation.run(content, { seed: 42, application: (node) => Effect.sync(() => change(node)) }))

    it.effect("and all of it works", () => Simulation.run(content, { seed: 42 }))

    it.effect("and fails when a key is not found, a value not read, a stream not answered", () =>
      Effect.gen(function*() {
        const provided = yield* breaks(({ name, network }) => {
          if (name === "carol") Object.assign(network, { findProviders: () => Stream.empty })
        })
        assert.strictEqual(provided.invariant, "provided")
        assert.strictEqual(provided.detail, "carol does not find alice, which provides a film")
        const stored = yield* breaks(({ name, network }) => {
          if (name === "alice") Object.assign(network, { getValue: () => Effect.fail("lost") })
        })
        assert.strictEqual(stored.invariant, "stored")
        assert.strictEqual(stored.detail, "alice does not read here, which carol has put as status")
        const echo = yield* breaks(({ name, network }) => {
          if (name === "alice") Object.assign(network, { open: () => Effect.never })
        })
        assert.strictEqual(echo.invariant, "echo")
        assert.strictEqual(echo.detail, "alice does not get back what it writes to bob")
      }))
  })

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
