import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as Hosts from "../../../src/testing/scenario/Hosts.ts"
import { Journal } from "../../../src/testing/scenario/Journal.ts"
import * as Scenario from "../../../src/testing/scenario/Scenario.ts"

/** Three hosts that run, alice connected to bob, and who was sent away by whom until now. */
const make = Effect.gen(function*() {
  const scenario = Scenario.make({
    nodes: [{ name: "alice" }, { name: "bob" }, { name: "carol", options: { maxPeers: 1 } }],
    options: { minPeers: 0, connectionIdleTimeout: "1 minute" },
    steps: [],
    lasts: "1 minute"
  })
  const names = new Map(scenario.nodes.map(({ name }): [string, string] => [SimNetwork.peerId(name), name]))
  const sent: Array<string> = []
  const hosts = yield* Hosts.make({
    scenario,
    journal: new Journal(names),
    application: undefined,
    isOver: () => {},
    hasDied: () => {},
    wasSentAway: ({ name }, by) => sent.push(`${name} by ${names.get(by)}`)
  })
  yield* Effect.forEach(hosts.all, hosts.launch, { discard: true })
  yield* Effect.addFinalizer(() => Effect.forEach(hosts.all, hosts.end, { discard: true }))
  const wish = (self: string, other: string, what: Hosts.Wish) =>
    Effect.andThen(hosts.wish(hosts.named(self), hosts.named(other), what), TestClock.adjust("2 seconds"))
  yield* wish("alice", "bob", "connect")
  return { hosts, sent, wish }
})

const network = SimNetwork.layerWithClock({ latency: "10 millis", seed: "hosts" })

describe("a host of a scenario", () => {
  for (const what of ["disconnect", "block"] as const) {
    it.effect(`was sent away by a peer that did ${what} it, which was not sent away itself`, () =>
      Effect.gen(function*() {
        const { sent, wish } = yield* make
        assert.deepStrictEqual(sent, [])
        yield* wish("bob", "alice", what)
        assert.deepStrictEqual(sent, ["alice by bob"])
      }).pipe(Effect.provide(network)))
  }

  it.effect("was sent away by a peer that evicts it for another", () =>
    Effect.gen(function*() {
      const { sent, wish } = yield* make
      yield* wish("alice", "carol", "connect")
      yield* wish("carol", "bob", "connect")
      assert.deepStrictEqual(sent, ["alice by carol"])
    }).pipe(Effect.provide(network)))

  it.effect("was sent away neither by a peer that stops, nor by one that is lost", () =>
    Effect.gen(function*() {
      const { hosts, sent, wish } = yield* make
      yield* wish("alice", "carol", "connect")
      yield* hosts.end(hosts.named("bob"))
      yield* (yield* SimNetwork).kill("carol")
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(sent, [])
    }).pipe(Effect.provide(network)))
})
