import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Option, Queue, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Multiaddr, PeerId, type ProtocolId, withPeer } from "../../../src/schema/Peer.ts"
import type { ConnectionEvent, Transport } from "../../../src/services/Transport.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as SimTransport from "../../../src/testing/ports/SimTransport.ts"

const echo = "/sim/echo/1.0.0" as ProtocolId

const node = Effect.fnUntraced(function*(name: string) {
  const transport = yield* SimTransport.make(name)
  yield* transport.gate(() => Effect.succeed(true))
  return transport
})

const nodes = Effect.all([node("alice"), node("bob")])

const dialled = Effect.fnUntraced(function*(from: Transport["Service"], to: Transport["Service"]) {
  const fiber = yield* Effect.forkChild(from.dial((yield* to.addresses)[0]!), { startImmediately: true })
  yield* TestClock.adjust("4 seconds")
  return yield* Fiber.join(fiber)
})

const taken = (transport: Transport["Service"]) => Effect.map(Queue.clear(transport.events), tags)
const tags = (events: ReadonlyArray<ConnectionEvent>) => events.map(({ _tag }) => _tag)

const isDone = (fiber: Fiber.Fiber<unknown, unknown>) => fiber.pollUnsafe() !== undefined

describe("SimNetwork", () => {
  it("gives a name one valid peer id and one valid address", () => {
    const id = SimNetwork.peerId("alice")
    assert.strictEqual(id, SimNetwork.peerId("alice"))
    assert.notStrictEqual(id, SimNetwork.peerId("bob"))
    assert.isTrue(id.startsWith("12D3KooW"))
    assert.strictEqual(Schema.decodeSync(PeerId)(id), id)
    assert.strictEqual(SimNetwork.peerId(id), id)
    const address = withPeer(SimNetwork.address("alice"), id)
    assert.strictEqual(Schema.decodeSync(Multiaddr)(address), address)
  })

  it.effect("knows how long messages take over the slower of two links, losses and the window of a stream included", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const slowest = (messages: number) => Duration.toMillis(network.slowest("alice", "bob", messages))
      assert.strictEqual(slowest(3), 3 * 25)
      yield* network.link("bob", "alice", { latency: "50 millis", oneWay: true })
      assert.strictEqual(slowest(3), 3 * 55)
      // One message in a million is lost three times: 200, 400 and 800 ms.
      yield* network.link("bob", "alice", { loss: 0.01, oneWay: true })
      assert.strictEqual(slowest(3), 3 * 55 + 1_400)
      // More than eight losses in a row break the connection.
      yield* network.link("bob", "alice", { loss: 0.9, bandwidth: 256 * 1024, oneWay: true })
      assert.strictEqual(slowest(1), 55 + 51_000 + 1_000)
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "20 millis", jitter: "5 millis" }))))

  it.effect("needs no time without latency", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* nodes
      const connection = yield* alice.dial((yield* bob.addresses)[0]!)
      assert.strictEqual(connection.peer, bob.localPeer)
      assert.deepStrictEqual(yield* taken(alice), ["Opened", "Identified"])
      assert.deepStrictEqual(yield* taken(bob), ["Opened", "Identified"])
      assert.isTrue(Duration.isZero(yield* alice.ping(bob.localPeer)))
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("takes four latencies for a dial and two for a ping", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* nodes
      const dial = yield* Effect.forkChild(alice.dial((yield* bob.addresses)[0]!), { startImmediately: true })
      yield* TestClock.adjust("39 millis")
      assert.isFalse(isDone(dial))
      assert.deepStrictEqual(yield* taken(alice), ["Opened"])
      yield* TestClock.adjust("1 millis")
      assert.isTrue(isDone(dial))
      assert.deepStrictEqual(yield* taken(alice), ["Identified"])
      const ping = yield* Effect.forkChild(alice.ping(bob.localPeer), { startImmediately: true })
      yield* TestClock.adjust("20 millis")
      assert.strictEqual(Duration.toMillis(yield* Fiber.join(ping)), 20)
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "10 millis" }))))

  it.effect("delivers on time when the clock stands at a fraction of a millisecond", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* nodes
      yield* dialled(alice, bob)
      // Sums of such numbers have rounding errors, and a message must not wait for a moment that a sleep never quite
      // reaches.
      for (let round = 0; round < 100; round++) {
        const first = yield* Effect.forkChild(alice.ping(bob.localPeer), { startImmediately: true })
        yield* TestClock.adjust(Duration.millis(Math.sqrt(round + 2)))
        const second = yield* Effect.forkChild(bob.ping(alice.localPeer), { startImmediately: true })
        yield* TestClock.adjust(Duration.millis(20.001))
        assert.deepStrictEqual([isDone(first), isDone(second)], [true, true])
      }
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "10 millis" }))))

  it.effect("repeats jitter and losses with the seed", () => {
    const times = (seed: string) =>
      Effect.gen(function*() {
        const [alice, bob] = yield* nodes
        yield* dialled(alice, bob)
        const pings = yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: 20 }), () => alice.ping(bob.localPeer)),
          { startImmediately: true }
        )
        yield* TestClock.adjust("5 minutes")
        return (yield* Fiber.join(pings)).map(Duration.toMillis)
      }).pipe(
        Effect.scoped,
        Effect.provide(SimNetwork.layer({ latency: "10 millis", jitter: "5 millis", loss: 0.2, seed }), { local: true })
      )
    return Effect.gen(function*() {
      const first = yield* times("one")
      assert.deepStrictEqual(yield* times("one"), first)
      assert.notDeepEqual(yield* times("two"), first)
      assert.isTrue(first.every((millis) => millis >= 20))
      assert.isTrue(first.some((millis) => millis < 30) && first.some((millis) => millis >= 200))
    })
  })

  it.effect("breaks a connection whose transmissions are all lost", () =>
    Effect.gen(function*() {
      const alice = yield* node("alice")
      const bob = yield* node("bob")
      const error = yield* Effect.flip(alice.dial((yield* bob.addresses)[0]!))
      assert.strictEqual(error.reason._tag, "Unreachable")
    }).pipe(Effect.provide(SimNetwork.layer({ loss: 1 }))))

  it.effect("holds messages back in a partition, and delivers them after it heals", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const [alice, bob] = yield* nodes
      const carol = yield* node("carol")
      yield* dialled(alice, bob)
      yield* dialled(carol, bob)
      yield* network.partition([["alice"], [bob, carol]])
      const ping = yield* Effect.forkChild(alice.ping(bob.localPeer), { startImmediately: true })
      const inside = yield* Effect.forkChild(carol.ping(bob.localPeer), { startImmediately: true })
      const dial = yield* Effect.forkChild(alice.dial((yield* carol.addresses)[0]!), { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([isDone(ping), isDone(inside), isDone(dial)], [false, true, false])
      yield* network.heal
      yield* TestClock.adjust("40 millis")
      assert.isTrue(Duration.toMillis(yield* Fiber.join(ping)) > 3_600_000)
      assert.strictEqual((yield* Fiber.join(dial)).peer, carol.localPeer)
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "10 millis" }))))

  it.effect("silences a pair or a node in a blackhole", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const [alice, bob] = yield* nodes
      const carol = yield* node("carol")
      yield* dialled(alice, bob)
      yield* dialled(alice, carol)
      const answers = (peer: PeerId) => Effect.map(Effect.timeoutOption(alice.ping(peer), "1 second"), Option.isSome)
      const asked = Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(
          Effect.all([answers(bob.localPeer), answers(carol.localPeer)], { concurrency: 2 }),
          { startImmediately: true }
        )
        yield* TestClock.adjust("1 second")
        return yield* Fiber.join(fiber)
      })
      assert.deepStrictEqual(yield* asked, [true, true])
      yield* network.blackhole("alice", "bob")
      assert.deepStrictEqual(yield* asked, [false, true])
      yield* network.blackhole("carol")
      assert.deepStrictEqual(yield* asked, [false, false])
      yield* network.heal
      assert.deepStrictEqual(yield* asked, [true, true])
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "10 millis" }))))

  it.effect("knows who hears whom: over a connection alone, which a mute on one side leaves to the other", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const [alice, bob] = yield* nodes
      const [a, b] = [alice.localPeer, bob.localPeer]
      const seen = () => [network.hears(a), network.hears(b), network.neighbours(a), network.neighbours(b)]
      assert.deepStrictEqual(seen(), [[], [], [], []])
      yield* dialled(alice, bob)
      assert.deepStrictEqual(seen(), [[b], [a], [b], [a]])
      yield* network.mute("alice", "bob")
      assert.deepStrictEqual(seen(), [[b], [], [], []])
      yield* network.heal
      assert.deepStrictEqual(seen(), [[b], [a], [b], [a]])
      yield* network.readdress("bob", { moves: false })
      assert.deepStrictEqual(seen(), [[], [], [], []])
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "20 millis" }))))

  it.effect("pings over the connection that the table ranks first, not over the newest", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const names = ["alice", "bob"].toSorted((a, b) => SimNetwork.peerId(a) < SimNetwork.peerId(b) ? -1 : 1)
      const [smaller, larger] = yield* Effect.all([node(names[0]!), node(names[1]!)])
      // The table ranks first what the peer with the smaller id has dialled. It goes dead in silence, and the other
      // peer, which has noticed, dials anew.
      yield* dialled(smaller, larger)
      yield* network.readdress(names[1]!, { moves: false })
      for (const event of yield* Queue.clear(larger.events)) yield* event.connection.close
      yield* TestClock.adjust("1 second")
      yield* dialled(larger, smaller)
      assert.deepStrictEqual(network.neighbours(smaller.localPeer), [larger.localPeer])
      const ping = yield* Effect.forkChild(smaller.ping(larger.localPeer), { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.isFalse(isDone(ping))
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "20 millis" }))))

  it.effect("breaks connections on both sides when severed, and lets them dial again", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const [alice, bob] = yield* nodes
      const connection = yield* dialled(alice, bob)
      yield* taken(alice)
      yield* taken(bob)
      yield* network.sever("alice", "bob")
      assert.isFalse(yield* connection.isOpen)
      assert.deepStrictEqual([yield* taken(alice), yield* taken(bob)], [["Closed"], ["Closed"]])
      assert.isTrue(yield* Effect.flatMap(dialled(alice, bob), (again) => again.isOpen))
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "10 millis" }))))

  it.effect("ends a killed node, and lets a new one take its name", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const [alice, bob] = yield* nodes
      yield* dialled(alice, bob)
      yield* taken(alice)
      yield* taken(bob)
      yield* network.kill("bob")
      assert.deepStrictEqual([yield* taken(alice), yield* taken(bob)], [[], ["Closed"]])
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual([yield* taken(alice), yield* taken(bob)], [["Closed"], []])
      const refused = yield* Effect.forkChild(Effect.flip(alice.dial(bob.localPeer)), { startImmediately: true })
      yield* TestClock.adjust("20 millis")
      assert.strictEqual((yield* Fiber.join(refused)).reason._tag, "Unreachable")
      assert.strictEqual((yield* Effect.flip(bob.dial(alice.localPeer))).reason._tag, "Denied")
      const again = yield* node("bob")
      assert.strictEqual((yield* dialled(alice, again)).peer, bob.localPeer)
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "10 millis" }))))

  it.effect("tells the remotes of a node that stops", () =>
    Effect.gen(function*() {
      const alice = yield* node("alice")
      const scope = yield* Scope.make()
      const bob = yield* Scope.provide(node("bob"), scope)
      yield* alice.dial((yield* bob.addresses)[0]!)
      yield* taken(alice)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* taken(alice), ["Closed"])
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("refuses a second node of a name as a mistake of the program", () =>
    Effect.gen(function*() {
      yield* node("alice")
      assert.isTrue(Exit.hasDies(yield* Effect.exit(node("alice"))))
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("echoes over a line with latency, jitter and losses", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* nodes
      yield* bob.handle(echo, (stream) => Effect.ignore(Stream.runForEach(stream.read, stream.write)))
      const connection = yield* dialled(alice, bob)
      const bytes = Uint8Array.from({ length: 1_000_000 }, (_, index) => index % 251)
      const work = Effect.scoped(Effect.gen(function*() {
        const stream = yield* connection.open(echo)
        yield* Effect.forkChild(Effect.andThen(stream.write(bytes), stream.closeWrite))
        return yield* Stream.runCollect(stream.read)
      }))
      const fiber = yield* Effect.forkChild(work, { startImmediately: true })
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(new Uint8Array(Buffer.concat(yield* Fiber.join(fiber))), bytes)
    }).pipe(Effect.provide(SimNetwork.layer({ latency: "10 millis", jitter: "5 millis", loss: 0.1, seed: 1 }))))

  it.effect("is the same network for all transports of one layer", () => {
    const side = (name: string) => SimTransport.layer(name)
    return Effect.gen(function*() {
      const network = yield* SimNetwork
      yield* Layer.build(side("alice"))
      yield* Layer.build(side("bob"))
      assert.deepStrictEqual(yield* network.nodes, [SimNetwork.peerId("alice"), SimNetwork.peerId("bob")])
    }).pipe(Effect.provide(SimNetwork.layer()))
  })
})
