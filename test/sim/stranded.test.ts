import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Layer, Schedule } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import type { Multiaddr } from "../../src/schema/Peer.ts"
import { DialPolicy } from "../../src/services/DialPolicy.ts"
import { ReconnectPolicy } from "../../src/services/ReconnectPolicy.ts"
import { SimDisk, SimNetwork, TestNetwork } from "../../src/testing/index.ts"
import { record } from "../support/record.ts"

const net = SimNetwork.layer({ latency: "10 millis", seed: "stranded" })

const isolations = (events: ReadonlyArray<NetworkEvent>) =>
  events.flatMap((event) => event._tag === "IsolationChanged" ? [event.isolated] : [])

const isolationOf = (node: Network["Service"]) => Effect.map(node.status, ({ isolation }) => isolation._tag)

const addressOf = (node: Network["Service"]) => Effect.map(node.addresses, ([address]) => address!)

describe("a node that has lost everybody", () => {
  it.effect(
    "is isolated two seconds later, tries whom it knows without end, and says when it is back",
    () =>
      Effect.gen(function*() {
        const network = yield* SimNetwork
        const alice = yield* TestNetwork.makeNode("alice", { enableMdns: true })
        yield* TestNetwork.makeNode("bob", { enableMdns: true })
        const events = yield* record(alice)
        yield* TestNetwork.until(Effect.map(alice.peerCount, (count) => count === 1))
        assert.strictEqual(yield* isolationOf(alice), "Connected")
        yield* network.partition([["alice"]])
        while ((yield* alice.peerCount) > 0) yield* TestClock.adjust("10 millis")
        yield* TestClock.adjust("1900 millis")
        assert.deepStrictEqual(isolations(events), [])
        yield* TestClock.adjust("200 millis")
        assert.deepStrictEqual(isolations(events), [true])
        // Ten hours, of which each minute has its attempts.
        yield* TestClock.adjust("10 hours")
        const { isolation } = yield* alice.status
        assert.strictEqual(isolation._tag, "Isolated")
        if (isolation._tag === "Isolated") {
          assert.strictEqual(isolation.candidates, 1)
          assert.isAbove(isolation.attempts, 450)
        }
        yield* network.heal
        yield* TestClock.adjust("75 seconds")
        assert.strictEqual(yield* alice.peerCount, 1)
        assert.deepStrictEqual(isolations(events), [true, false])
      }).pipe(Effect.provide(net))
  )

  it.effect("tries those it remembers from before its restart", () =>
    Effect.gen(function*() {
      const disk = SimDisk.make()
      const bob = yield* TestNetwork.makeNode("bob")
      const first = yield* TestNetwork.start("alice", {}, { disk })
      yield* TestNetwork.connected(first.network, bob)
      yield* TestNetwork.run(first.stop)
      const alice = yield* TestNetwork.makeNode("alice", {}, { disk })
      yield* TestNetwork.until(Effect.map(alice.peerCount, (count) => count === 1))
      const { addresses } = yield* alice.explain(bob.localPeer)
      assert.deepStrictEqual(addresses.map(({ source }) => source), ["worked"])
      assert.isDefined(addresses[0]?.lastSuccess)
    }).pipe(Effect.provide(net)))

  it.effect("counts on nobody who left on purpose, and is alone without being isolated", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* TestNetwork.connected(alice, bob)
      const events = yield* record(alice)
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(yield* alice.peerCount, 0)
      yield* TestClock.adjust("3 hours")
      assert.deepStrictEqual(isolations(events), [])
      assert.strictEqual(yield* isolationOf(alice), "Alone")
      assert.strictEqual(yield* bob.peerCount, 0)
    }).pipe(Effect.provide(net)))

  it.effect("is isolated from its start when nobody answers at the addresses that it keeps", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice", { bootstrapPeers: [SimNetwork.address("bob")] })
      const events = yield* record(alice)
      yield* TestClock.adjust("3 seconds")
      const { isolation } = yield* alice.status
      assert.strictEqual(isolation._tag === "Isolated" && isolation.candidates, 1)
      yield* TestClock.adjust("10 minutes")
      yield* TestNetwork.makeNode("bob")
      yield* TestClock.adjust("75 seconds")
      assert.strictEqual(yield* alice.peerCount, 1)
      assert.deepStrictEqual(isolations(events), [true, false])
    }).pipe(Effect.provide(net)))

  it.effect("does not dial unasked when it wants no peers", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice", { minPeers: 0 })
      const bob = yield* TestNetwork.makeNode("bob")
      yield* TestNetwork.connected(alice, bob)
      const events = yield* record(alice)
      yield* network.kill("bob")
      // The peer is wanted, so it is redialled until the policy gives it up.
      yield* TestClock.adjust("10 minutes")
      const dials = events.filter(({ _tag }) => _tag === "DialFailed").length
      yield* TestClock.adjust("10 hours")
      assert.strictEqual(events.filter(({ _tag }) => _tag === "DialFailed").length, dials)
    }).pipe(Effect.provide(net)))
})

describe("a kept peer that is away", () => {
  /** Alice keeps bob, and bob has been away for so long that a minute passes between two dials. */
  const waiting = Effect.gen(function*() {
    const network = yield* SimNetwork
    const alice = yield* TestNetwork.makeNode("alice")
    const bob = yield* TestNetwork.start("bob")
    yield* alice.keep(yield* addressOf(bob.network))
    yield* TestNetwork.until(Effect.map(alice.peerCount, (count) => count === 1))
    yield* TestClock.adjust("1 minute")
    yield* network.blackhole("bob")
    yield* TestNetwork.until(Effect.map(alice.peerCount, (count) => count === 0))
    yield* TestClock.adjust("20 minutes")
    // A dial has just failed, so that almost a minute of backoff is left.
    const events = yield* record(alice)
    yield* TestNetwork.until(Effect.sync(() => events.some(({ _tag }) => _tag === "ReconnectScheduled")))
    yield* network.heal
    assert.isDefined((yield* alice.explain(bob.network.localPeer)).nextRetry)
    return { alice, bob: bob.network, events, network, stop: bob.stop }
  })

  it.effect("is dialled within a minute once it is back, without any sign", () =>
    Effect.gen(function*() {
      const { alice } = yield* waiting
      yield* TestClock.adjust("40 seconds")
      assert.strictEqual(yield* alice.peerCount, 0)
      yield* TestClock.adjust("32 seconds")
      assert.strictEqual(yield* alice.peerCount, 1)
    }).pipe(Effect.provide(net)))

  it.effect("that was back for 15 s and restarts is dialled as after a first loss", () =>
    Effect.gen(function*() {
      const { alice, events, stop } = yield* waiting
      yield* TestClock.adjust("72 seconds")
      assert.strictEqual(yield* alice.peerCount, 1)
      const restarted = events.length
      yield* TestClock.adjust("16 seconds")
      yield* TestNetwork.run(stop)
      yield* TestNetwork.makeNode("bob")
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* alice.peerCount, 1)
      const delays = events.slice(restarted).flatMap((event) =>
        event._tag === "ReconnectScheduled" ? [Duration.toSeconds(event.delay)] : []
      )
      assert.isTrue(delays.length > 0 && delays[0]! <= 1.2, String(delays))
    }).pipe(Effect.provide(net)))

  it.effect("is dialled at once when this machine's addresses change", () =>
    Effect.gen(function*() {
      const { alice, network } = yield* waiting
      yield* network.readdress("alice")
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* alice.peerCount, 1)
    }).pipe(Effect.provide(net)))

  it.effect("is dialled at once when this machine wakes from its sleep", () =>
    Effect.gen(function*() {
      const { alice, network } = yield* waiting
      yield* network.jump("alice", "1 hour")
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* alice.peerCount, 1)
    }).pipe(Effect.provide(net)))

  it.effect("is looked up in the DHT where it is not found, and dialled at once where it has moved to", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const config = { minPeers: 0 }
      const alice = yield* TestNetwork.makeNode("alice", config)
      const bob = yield* TestNetwork.makeNode("bob", config)
      const carol = yield* TestNetwork.makeNode("carol", config)
      yield* alice.keep(yield* addressOf(bob))
      yield* alice.keep(yield* addressOf(carol))
      yield* bob.keep(yield* addressOf(carol))
      yield* TestNetwork.until(Effect.map(alice.peerCount, (count) => count === 2))
      yield* TestClock.adjust("1 minute")
      yield* network.readdress("bob", { moves: true })
      // Noticed within 10 s; then 10 s for a dial of where it was.
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual((yield* alice.peers).map(({ id }) => id).sort(), [bob.localPeer, carol.localPeer].sort())
      const { addresses } = yield* alice.explain(bob.localPeer)
      assert.include(addresses.map(({ address }) => address), yield* addressOf(bob))
    }).pipe(Effect.provide(net)))

  it.effect("begins its backoff anew after a change of the network that did not help", () =>
    Effect.gen(function*() {
      const { events, network } = yield* waiting
      yield* network.blackhole("bob")
      const before = events.length
      yield* network.readdress("alice")
      yield* TestClock.adjust("40 seconds")
      const delays = events.slice(before).flatMap((event) =>
        event._tag === "ReconnectScheduled" ? [Duration.toSeconds(event.delay)] : []
      )
      assert.isAtLeast(delays.length, 2)
      assert.isBelow(delays[0]!, 1.3)
      assert.isBelow(delays[1]!, 2.5)
    }).pipe(Effect.provide(net)))
})

describe("the addresses of one peer", () => {
  const nobody = "/memory/nobody" as Multiaddr
  const silent = "/memory/silent" as Multiaddr
  const patient = Layer.succeed(DialPolicy)({
    order: (candidates) => candidates,
    stagger: "1 minute",
    timeout: "3 seconds",
    parallelDials: 8
  })

  it.effect("are raced: a silent one delays the next by a quarter of a second, and the one that worked goes first afterwards", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* TestNetwork.makeNode("silent")
      yield* network.blackhole("silent")
      const bobsAddress = SimNetwork.address("bob")
      const begin = yield* DateTime.now
      // The newest address is dialled first: the last one that was given. Time passes in steps that double.
      yield* TestNetwork.run(alice.connect({ id: bob.localPeer, addresses: [bobsAddress, nobody, silent] }))
      const took = Duration.toMillis(DateTime.distance(begin, yield* DateTime.now))
      assert.isAbove(took, 250)
      assert.isBelow(took, 520)
      const { addresses } = yield* alice.explain(bob.localPeer)
      const worked = addresses.find(({ address }) => address.startsWith(bobsAddress))
      assert.isDefined(worked?.lastSuccess)
      assert.isDefined(addresses.find(({ address }) => address.startsWith(nobody))?.problem)
      yield* TestClock.adjust("20 seconds")
      yield* network.sever("alice", "bob")
      const lost = yield* DateTime.now
      yield* TestNetwork.until(Effect.map(alice.peerCount, (count) => count === 1))
      assert.isBelow(Duration.toMillis(DateTime.distance(lost, yield* DateTime.now)), 200)
    }).pipe(Effect.provide(net)))

  it.effect("are dialled as the policy says", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* TestNetwork.makeNode("silent")
      yield* network.blackhole("silent")
      const begin = yield* DateTime.now
      yield* TestNetwork.run(alice.connect({ id: bob.localPeer, addresses: [SimNetwork.address("bob"), silent] }))
      const took = Duration.toMillis(DateTime.distance(begin, yield* DateTime.now))
      assert.isAbove(took, 3_000)
      assert.isBelow(took, 4_100)
    }).pipe(Effect.provide([patient, net])))
})

describe("why", () => {
  const summaryOf = (node: Network["Service"], name: string) =>
    Effect.map(node.explain(SimNetwork.peerId(name)), ({ summary }) => summary)

  it.effect("is a peer not there? Each cause has its answer", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice", { maxPeers: 2, connectionIdleTimeout: "1 minute" })
      const [bob, carol, dave] = yield* Effect.forEach(["bob", "carol", "dave"], (name) => TestNetwork.makeNode(name))
      assert.strictEqual(
        yield* summaryOf(alice, "bob"),
        "nothing is known of this peer: it was never given, found or seen"
      )
      yield* TestNetwork.connected(alice, bob!)
      assert.strictEqual(yield* summaryOf(alice, "bob"), "connected, as a wanted peer")
      yield* TestNetwork.connected(alice, carol!)
      // Full for strangers.
      yield* TestNetwork.run(Effect.flip(dave!.connect(yield* addressOf(alice))))
      assert.match(yield* summaryOf(alice, "dave"), /^it came at 1970-01-01T00:00:\d\d\.\d+Z and was refused: full$/)
      const refusals = (yield* alice.explain(dave!.localPeer)).refusals
      assert.deepStrictEqual(refusals.map(({ direction, reason }) => [direction, reason]), [["inbound", "full"]])
      assert.deepStrictEqual((yield* alice.status).refusals, { full: 1 })
      // Idle.
      yield* TestClock.adjust("1 minute")
      assert.match(
        yield* summaryOf(alice, "bob"),
        /^it was idle, so this node closed the connection; discovery leaves it alone until 1970-01-01T00:06:/
      )
      const explained = yield* alice.explain(bob!.localPeer)
      assert.strictEqual(explained.lastDisconnect?.by, "local")
      assert.strictEqual(explained.lastDisconnect?.reason, "idle")
      assert.isFalse(explained.isConnected)
      // The remote's wish.
      yield* TestNetwork.connected(alice, carol!)
      yield* TestNetwork.run(carol!.disconnect(alice.localPeer))
      yield* TestClock.adjust("1 second")
      assert.match(yield* summaryOf(alice, "carol"), /^it said goodbye \(disconnect\); discovery leaves it alone/)
      assert.strictEqual((yield* alice.explain(carol!.localPeer)).lastDisconnect?.by, "remote")
      // Our own.
      yield* TestNetwork.run(alice.disconnect(carol!.localPeer))
      assert.match(yield* summaryOf(alice, "carol"), /^disconnected by this node; it stays so until somebody calls/)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* TestNetwork.run(alice.block(carol!.localPeer))
        assert.match(yield* summaryOf(alice, "carol"), /^blocked by this node/)
        assert.isTrue((yield* alice.explain(carol!.localPeer)).isBlocked)
      }))
      // Kept and dead.
      yield* alice.keep(yield* addressOf(bob!))
      yield* TestNetwork.until(Effect.map(alice.peer(bob!.localPeer), ({ _tag }) => _tag === "Some"))
      yield* TestClock.adjust("20 seconds")
      yield* network.kill("bob")
      yield* TestClock.adjust("2 seconds")
      assert.match(yield* summaryOf(alice, "bob"), /^dial .+; dialled again at .+ \(attempt \d\)$/)
      const status = yield* alice.status
      assert.deepStrictEqual(status.backoffs.map(({ peer }) => peer), [bob!.localPeer])
      assert.strictEqual(status.slots.limit, 2)
      assert.strictEqual(status.slots.used, 0)
      const dead = yield* alice.explain(bob!.localPeer)
      assert.strictEqual(dead.interest, "kept")
      assert.strictEqual(dead.lastDisconnect?.by, "unknown")
      assert.strictEqual(dead.dials[0]?.outcome, "Unreachable")
    }).pipe(Effect.provide(net)))

  it.effect("crosses a wire as JSON", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* TestNetwork.connected(alice, bob)
      const { explanation, status } = yield* Effect.all({
        explanation: alice.explain(bob.localPeer),
        status: alice.status
      })
      const { NodeStatus, PeerExplanation } = yield* Effect.promise(() => import("../../src/schema/NodeStatus.ts"))
      const { Schema } = yield* Effect.promise(() => import("effect"))
      for (const [schema, value] of [[PeerExplanation, explanation], [NodeStatus, status]] as const) {
        const codec = Schema.toCodecJson(schema as never)
        const text = JSON.stringify(Schema.encodeUnknownSync(codec as never)(value))
        const back = Schema.decodeUnknownSync(codec as never)(JSON.parse(text))
        assert.deepStrictEqual(back as unknown, value)
      }
    }).pipe(Effect.provide(net)))
})

describe("a policy for reconnection", () => {
  it.effect("is the one for isolation too", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* TestNetwork.makeNode("alice", { enableMdns: true })
      yield* TestNetwork.makeNode("bob", { enableMdns: true })
      yield* TestNetwork.until(Effect.map(alice.peerCount, (count) => count === 1))
      yield* network.partition([["alice"]])
      yield* TestNetwork.until(Effect.map(alice.peerCount, (count) => count === 0))
      yield* TestClock.adjust("1 minute")
      const { isolation } = yield* alice.status
      // Five dials at most, each of ten seconds and three seconds apart.
      assert.isTrue(isolation._tag === "Isolated" && isolation.attempts >= 4 && isolation.attempts <= 8)
    }).pipe(Effect.provide([Layer.succeed(ReconnectPolicy)(() => Schedule.spaced("3 seconds")), net])))
})
