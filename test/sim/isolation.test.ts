/**
 * The end of an isolation: the connection by which a node comes back lives, at both its ends.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"
import { record } from "../support/record.ts"

const net = SimNetwork.layer({ latency: "40 millis", seed: "isolation" })

const count = (events: ReadonlyArray<NetworkEvent>, tag: NetworkEvent["_tag"]) =>
  events.filter(({ _tag }) => _tag === tag).length

describe("the connection that ends an isolation", () => {
  /** Nodes that know each other, of which alice has been out of everybody's reach for a minute. */
  const isolated = (others: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice", { enableMdns: true })
      const rest = yield* Effect.forEach(others, (name) => TestNetwork.makeNode(name, { enableMdns: true }))
      yield* TestNetwork.until(Effect.map(alice.peerCount, (size) => size === others.length))
      yield* network.partition([["alice"]])
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* alice.status).isolation._tag, "Isolated")
      // Nobody else dials, so that alice's own dial ends her isolation.
      yield* network.nat(["alice"])
      yield* network.heal
      return { alice, rest, events: yield* record(alice), network }
    })

  it.effect("lives, though the dial that made it had not returned yet", () =>
    Effect.gen(function*() {
      const { alice, events, rest: [bob] } = yield* isolated(["bob"])
      const atBob = yield* record(bob!)
      yield* TestNetwork.until(Effect.map(alice.peerCount, (size) => size === 1))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        [events, atBob].map((all) => [count(all, "PeerConnected"), count(all, "PeerDisconnected")]),
        [[1, 0], [1, 0]]
      )
      assert.isAbove(count(events, "IsolationChanged"), 0)
    }).pipe(Effect.provide(net)))

  it.effect("leaves those alone that are being made to other peers and have been answered", () =>
    Effect.gen(function*() {
      const { alice, events, network, rest } = yield* isolated(["bob", "carol"])
      // Carol has let alice in when bob's identify arrives, and her own is on its way.
      yield* network.link("alice", "carol", { latency: "50 millis" })
      const atOthers = yield* Effect.forEach(rest, record)
      yield* TestNetwork.until(Effect.map(alice.peerCount, (size) => size > 0))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* alice.peerCount, 2)
      assert.deepStrictEqual([events, ...atOthers].map((all) => count(all, "PeerDisconnected")), [0, 0, 0])
    }).pipe(Effect.provide(net)))
})

describe("a dial that its caller gives up", () => {
  for (
    const [stage, after, connections] of [["is aborted before the remote has answered", 60, 0], [
      "goes on once the remote has answered",
      140,
      1
    ]] as const
  ) {
    for (const byId of [true, false]) {
      it.effect(`${stage}, ${byId ? "by id" : "by an address alone"}`, () =>
        Effect.gen(function*() {
          const alice = yield* TestNetwork.makeNode("alice", { minPeers: 0 })
          const bob = yield* TestNetwork.makeNode("bob", { minPeers: 0 })
          const [events, atBob] = [yield* record(alice), yield* record(bob)]
          const [address] = yield* bob.addresses
          const target = byId ? address! : SimNetwork.address("bob")
          const call = yield* Effect.forkChild(alice.connect(target), { startImmediately: true })
          yield* TestClock.adjust(after)
          yield* Fiber.interrupt(call)
          yield* TestClock.adjust("10 seconds")
          assert.deepStrictEqual(
            [events, atBob].map((all) => [count(all, "PeerConnected"), count(all, "PeerDisconnected")]),
            [[connections, 0], [connections, 0]]
          )
          assert.deepStrictEqual((yield* alice.status).pendingDials, [])
        }).pipe(Effect.provide(net)))
    }
  }
})
