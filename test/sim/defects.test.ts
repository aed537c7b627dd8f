/**
 * What a program puts into a node may throw: its policies, its stores, its ports. The node goes on, and says so.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Order, Schema, type Scope } from "effect"
import { TestClock } from "effect/testing"
import type { NetworkStartError } from "../../src/schema/NetworkError.ts"
import { AddressGuard } from "../../src/services/AddressGuard.ts"
import { DialPolicy } from "../../src/services/DialPolicy.ts"
import { EvictionPolicy } from "../../src/services/EvictionPolicy.ts"
import { GuestPolicy } from "../../src/services/GuestPolicy.ts"
import { HealthPolicy } from "../../src/services/HealthPolicy.ts"
import { KadDhtPolicy } from "../../src/services/KadDhtPolicy.ts"
import { ReconnectPolicy } from "../../src/services/ReconnectPolicy.ts"
import { ValueNamespaces } from "../../src/services/ValueNamespaces.ts"
import { Dht } from "../../src/services/Dht.ts"
import * as ValueNamespace from "../../src/schema/ValueNamespace.ts"
import { SimDisk, SimKad, SimNetwork, TestNetwork } from "../../src/testing/index.ts"
import { makeFault, striking, strikingEach, strikingRead } from "../support/Fault.ts"
import * as LogLines from "../support/LogLines.ts"

/** Parts of a node that may be broken: how a node is started with such a part. */
const references = [
  DialPolicy,
  EvictionPolicy,
  AddressGuard,
  ReconnectPolicy,
  HealthPolicy,
  GuestPolicy,
  KadDhtPolicy
] as const
const ports = ["Dht", "Transport", "Discovery", "PeerStore", "NetworkMonitor"] as const
const parts = [...references.map(({ key }) => key.split("/").at(-1)!), ...ports, "KeyValueStore"]

/** The node under test, with a part that strikes. */
const startWith = (
  part: string,
  strike: () => void
): Effect.Effect<TestNetwork.TestNode, NetworkStartError, Scope.Scope | SimNetwork> => {
  const started = TestNetwork.start("alice", { maxPeers: 2, minPeers: 2 }, {
    // The DHT of other nodes, which cost less, has no such policy.
    dht: part === "KadDhtPolicy" ? SimKad.layer() : undefined,
    disk: part !== "KeyValueStore" ? SimDisk.make() : brokenDisk(strike),
    through: (port, service) => port.endsWith(`/${part}`) ? strikingEach(service, strike) : service
  })
  const reference = references.find(({ key }) => key.endsWith(`/${part}`))
  if (reference === undefined) return started
  return Effect.updateContext(started, <R>(context: Context.Context<R>) => {
    const policy: unknown = Context.get(context, reference as Context.Reference<unknown>)
    const broken = typeof policy === "function" ? striking(policy, strike) : strikingRead(policy as object, strike)
    return Context.add(context, reference as Context.Reference<unknown>, broken) as Context.Context<R>
  })
}

const brokenDisk = (strike: () => void): SimDisk.SimDisk => {
  const disk = SimDisk.make()
  return {
    ...disk,
    mount: () => {
      const mounted = disk.mount()
      const set: typeof mounted.store.set = (key, value) =>
        Effect.andThen(Effect.sync(strike), mounted.store.set(key, value))
      return { ...mounted, store: { ...mounted.store, set } }
    }
  }
}

describe("a node goes on", () => {
  for (const part of parts) {
    it.effect(`while its ${part} throws, and works again when that has ended`, () =>
      Effect.gen(function*() {
        const { fault, strike } = makeFault()
        const network = yield* SimNetwork
        const alice = yield* startWith(part, strike)
        const start = (name: string) => TestNetwork.makeNode(name, { minPeers: 0 })
        const [bob, carol, dave] = [yield* start("bob"), yield* start("carol"), yield* start("dave")]
        const [here] = yield* alice.network.addresses
        yield* alice.network.keep((yield* bob.addresses)[0]!)
        yield* TestNetwork.run(carol.connect(here!))
        // Its address is known from identify alone.
        yield* alice.network.keep(carol.localPeer)
        yield* TestClock.adjust("1 minute")
        fault.isOn = true
        for (const other of ["bob", "carol"]) yield* network.sever("alice", other)
        yield* network.readdress("alice")
        yield* TestClock.adjust("30 seconds")
        yield* network.kill("bob")
        yield* Effect.forkScoped(Effect.exit(dave.connect(here!)))
        yield* TestClock.adjust("15 minutes")
        if (part === "ReconnectPolicy") {
          const { nextRetry, summary } = yield* alice.network.explain(bob.localPeer)
          assert.match(summary, /^a defect, which the log tells of: Error: the part is broken; dialled again at /)
          assert.isDefined(nextRetry)
        }
        fault.isOn = false
        yield* start("bob")
        yield* TestClock.adjust("3 minutes")
        const peers = (yield* alice.network.peers).map(({ id }) => id)
        assert.sameMembers(peers, [bob.localPeer, carol.localPeer])
        const { defects } = yield* alice.network.status
        const lines = (yield* LogLines.lines).filter((line) => line.startsWith("Error: a defect in the work"))
        assert.deepStrictEqual([fault.times > 0, defects > 0, lines.length > 0], [true, true, true])
        assert.strictEqual(new Set(lines).size, lines.length)
      }).pipe(Effect.provide(SimNetwork.layerWithClock({ latency: "20 millis", seed: "defects" })), LogLines.capture))
  }

  for (const rule of ["check", "replaces"] as const) {
    it.effect(`while \`${rule}\` of its ValueNamespaces throws for values of others, and stores them again afterwards`, () =>
      Effect.gen(function*() {
        const { fault, strike } = makeFault()
        const start = (name: string, namespace: ValueNamespace.ValueRules) =>
          TestNetwork.start(name, {}, { dht: SimKad.layer() }).pipe(
            Effect.provideService(ValueNamespaces, [namespace])
          )
        const alice = yield* start("alice", { ...scores, [rule]: striking(scores[rule], strike) })
        const bob = yield* start("bob", scores)
        yield* TestNetwork.connected(bob.network, alice.network)
        const dht = Context.get(bob.services, Dht)
        const put = (points: number) => TestNetwork.run(Effect.exit(dht.putValue(scores, "bob", points, { quorum: 0 })))
        const taken = { asked: 1, acknowledged: 1 }
        assert.deepStrictEqual(yield* put(1), Exit.succeed(taken))
        fault.isOn = true
        for (const points of [2, 3]) {
          assert.deepStrictEqual(yield* put(points), Exit.succeed({ ...taken, acknowledged: 0 }))
        }
        fault.isOn = false
        const { defects } = yield* alice.network.status
        const lines = (yield* LogLines.lines).filter((line) => line.startsWith("Error: a defect in the work"))
        assert.deepStrictEqual([fault.times, defects, lines.length], [2, 2, 1])
        assert.strictEqual((yield* bob.network.status).defects, 0)
        assert.deepStrictEqual(yield* put(4), Exit.succeed(taken))
      }).pipe(Effect.provide(SimNetwork.layerWithClock({ latency: "20 millis", seed: "values" })), LogLines.capture))
  }
})

const scores = ValueNamespace.make({
  name: "scores",
  schema: ValueNamespace.fromJson(Schema.Int),
  order: Order.Number
})
