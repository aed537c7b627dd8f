import { assert, describe, it } from "@effect/vitest"
import { Clock, DateTime, Effect, Exit, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"

const net = SimNetwork.layer({ latency: "5 millis", seed: "limit" })

const hubWith = Effect.fnUntraced(function*(count: number) {
  const hub = yield* TestNetwork.makeNode("hub")
  const others = yield* Effect.forEach(
    Array.from({ length: count }),
    (_, index) => TestNetwork.makeNode(`node-${index}`)
  )
  return { hub, others: others as [Network["Service"], ...Array<Network["Service"]>] }
})

/** How a connect ended: the tag of its error, or `connected`. */
const outcome = Effect.fnUntraced(function*(node: Network["Service"], other: Network["Service"]) {
  const addresses = yield* other.addresses
  return yield* TestNetwork.run(node.connect({ id: other.localPeer, addresses })).pipe(
    Effect.as("connected"),
    Effect.catch((error) => Effect.succeed(error._tag === "DialError" ? error.reason._tag : error._tag))
  )
})

describe("the limit of 50 peers", () => {
  it.effect("lets the 50th in and refuses the 51st, until somebody leaves", () =>
    Effect.gen(function*() {
      const { hub, others } = yield* hubWith(51)
      const last = others[50]!
      for (const node of others.slice(0, 49)) assert.strictEqual(yield* outcome(node, hub), "connected")
      assert.strictEqual(yield* hub.peerCount, 49)
      assert.strictEqual(yield* outcome(others[49]!, hub), "connected")
      assert.strictEqual(yield* hub.peerCount, 50)
      const refusals: Array<unknown> = []
      yield* Effect.forkScoped(
        Stream.runForEach(hub.events, (event) =>
          Effect.sync(() =>
            event._tag === "PeerRefused" && refusals.push([event.peer, event.direction, event.reason])
          )),
        { startImmediately: true }
      )
      const refused = yield* TestNetwork.run(
        Effect.flatMap(hub.addresses, ([address]) => Effect.flip(last.connect(address!)))
      )
      assert.strictEqual(
        refused._tag === "DialError" && refused.reason._tag === "Refused" && refused.reason.why,
        "full"
      )
      assert.deepStrictEqual(refusals, [[last.localPeer, "inbound", "full"]])
      assert.strictEqual(yield* hub.peerCount, 50)
      assert.strictEqual(yield* last.peerCount, 0)
      yield* TestNetwork.run(others[0].disconnect(hub.localPeer))
      assert.strictEqual(yield* outcome(last, hub), "connected")
      assert.strictEqual(yield* hub.peerCount, 50)
    }).pipe(Effect.provide(net)))

  it.effect("costs a keeper seconds, not a minute, while the last slot is promised and not taken", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const hub = yield* TestNetwork.makeNode("hub", { maxPeers: 1, minPeers: 0 })
      const full = yield* TestNetwork.makeNode("full", { maxPeers: 1 })
      const dave = yield* TestNetwork.makeNode("dave")
      yield* TestNetwork.connected(dave, full)
      yield* full.keep(dave.localPeer)
      yield* network.link("hub", "full", { latency: "700 millis" })
      // The hub has been away for so long that alice waits for a minute between two dials.
      yield* network.blackhole("alice")
      const alice = yield* TestNetwork.makeNode("alice", { minPeers: 0 })
      yield* alice.keep({ id: hub.localPeer, addresses: yield* hub.addresses })
      yield* TestClock.adjust("20 minutes")
      yield* TestNetwork.until(Effect.map(alice.explain(hub.localPeer), ({ nextRetry }) => nextRetry !== undefined))
      const { nextRetry } = yield* alice.explain(hub.localPeer)
      yield* network.heal
      // A tenth of a second before alice dials, the hub promises its slot to a node that has no slot for the hub.
      yield* TestClock.adjust(DateTime.toEpochMillis(nextRetry!.at) - (yield* Clock.currentTimeMillis) - 1_500)
      const wish = yield* Scope.fork(yield* Effect.scope)
      yield* Scope.provide(hub.keep({ id: full.localPeer, addresses: yield* full.addresses }), wish)
      yield* TestClock.adjust("1600 millis")
      assert.deepStrictEqual((yield* hub.status).refusals, { promised: 1 })
      const [dial] = (yield* alice.explain(hub.localPeer)).dials
      assert.match(dial?.message ?? "", /its last slot is promised to another peer; try again in a few seconds$/)
      yield* TestClock.adjust("1500 millis")
      yield* Effect.forkChild(Scope.close(wish, Exit.void))
      assert.strictEqual(yield* alice.peerCount, 0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* alice.peerCount, 1)
    }).pipe(Effect.provide(net)))

  it.effect("makes room for a peer that is asked for, at the cost of a stranger", () =>
    Effect.gen(function*() {
      const { hub, others } = yield* hubWith(51)
      for (const node of others.slice(0, 50)) yield* outcome(node, hub)
      assert.strictEqual(yield* outcome(hub, others[50]!), "connected")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* hub.peerCount, 50)
      assert.strictEqual(yield* others[50]!.peerCount, 1)
      const counts = yield* Effect.forEach(others.slice(0, 50), (node) => node.peerCount)
      assert.strictEqual(counts.filter((count) => count === 0).length, 1)
    }).pipe(Effect.provide(net)))

  it.effect("holds for own dials when all peers were asked for", () =>
    Effect.gen(function*() {
      const { hub, others } = yield* hubWith(51)
      for (const node of others.slice(0, 50)) assert.strictEqual(yield* outcome(hub, node), "connected")
      assert.strictEqual(yield* outcome(hub, others[50]!), "PeerLimitExceeded")
      assert.strictEqual(yield* hub.peerCount, 50)
      assert.strictEqual(yield* others[50]!.peerCount, 0)
    }).pipe(Effect.provide(net)))

  it.effect("gives strangers maxInboundPeers slots, and the others to those that the node dials", () =>
    Effect.gen(function*() {
      const hub = yield* TestNetwork.makeNode("hub", { maxPeers: 4, maxInboundPeers: 2, minPeers: 0 })
      const [a, b, c, d, e, f] = yield* Effect.forEach(
        ["a", "b", "c", "d", "e", "f"],
        (name) => TestNetwork.makeNode(name, { minPeers: 0 })
      )
      assert.strictEqual(yield* outcome(a!, hub), "connected")
      assert.strictEqual(yield* outcome(b!, hub), "connected")
      assert.strictEqual(yield* outcome(c!, hub), "Refused")
      assert.strictEqual(yield* c!.peerCount, 0)
      for (const node of [d!, e!]) assert.strictEqual(yield* outcome(hub, node), "connected")
      assert.strictEqual(yield* outcome(f!, hub), "Refused")
      assert.strictEqual(yield* hub.peerCount, 4)
    }).pipe(Effect.provide(net)))

  it.effect("counts handshakes that do not end, until their time is over", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const hub = yield* TestNetwork.makeNode("hub", { maxPendingInbound: 2, minPeers: 0 })
      const [a, b, c] = yield* Effect.forEach(["a", "b", "c"], (name) => TestNetwork.makeNode(name, { minPeers: 0 }))
      const [address] = yield* hub.addresses
      yield* Effect.forEach([a!, b!], (node) => Effect.forkScoped(Effect.exit(node.connect(address!))))
      // The first message of the dial has arrived; the others do not.
      yield* TestClock.adjust("5 millis")
      yield* Effect.forEach([a!, b!], (node) => network.blackhole(node))
      assert.strictEqual(yield* outcome(c!, hub), "Unreachable")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* outcome(c!, hub), "connected")
    }).pipe(Effect.provide(net)))

  it.effect("is never passed when many come at once, with jitter and losses", () =>
    Effect.gen(function*() {
      const hub = yield* TestNetwork.makeNode("hub", { maxPeers: 5 })
      const [address] = yield* hub.addresses
      const nodes = yield* Effect.forEach(
        Array.from({ length: 20 }),
        (_, index) => TestNetwork.makeNode(`node-${index}`)
      )
      let most = 0
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(
        Effect.sleep("1 millis"),
        Effect.map(hub.peerCount, (count) => {
          most = Math.max(most, count)
        })
      )))
      yield* Effect.forEach(nodes, (node) => Effect.forkScoped(node.keep(address!)), { discard: true })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* hub.peerCount, 5)
      assert.strictEqual(most, 5)
      assert.strictEqual(
        (yield* Effect.forEach(nodes, (node) => node.peerCount)).filter((count) => count === 1).length,
        5
      )
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "5 millis", jitter: "10 millis", loss: 0.02 }))))
})
