import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Layer, Option, Schedule, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as CodioMessage from "../../../src/schema/CodioMessage.ts"
import type { NetworkConfigInput } from "../../../src/services/NetworkConfig.ts"
import { ReconnectPolicy } from "../../../src/services/ReconnectPolicy.ts"
import { Transport } from "../../../src/services/Transport.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as SimTransport from "../../../src/testing/ports/SimTransport.ts"
import * as CoreNode from "../../support/CoreNode.ts"

const net = SimNetwork.layer({ latency: "5 millis", seed: "manager" })

/** 100 ms in steps, since what a step sets off may have to sleep in turn. */
const settle = Effect.repeat(TestClock.adjust("10 millis"), { times: 9 })

/** Runs the work and moves the clock so far that it ends. */
const within = <A, E, R>(duration: Duration.Input, work: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(work), { startImmediately: true })
    yield* TestClock.adjust(duration)
    const exit = fiber.pollUnsafe()
    assert.isDefined(exit, "the work did not end in time")
    return yield* yield* exit!
  })

/** A node that can be started again under its name. */
const restartable = (name: string, config: NetworkConfigInput = {}) =>
  Effect.gen(function*() {
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const node = yield* Scope.provide(CoreNode.make(name, config), scope)
    return {
      node,
      stop: Effect.forkChild(Scope.close(scope, Exit.void)).pipe(Effect.andThen(TestClock.adjust("2 seconds")))
    }
  })

describe("SupervisedConnectionManager", () => {
  it.effect("connects, tells who it is, and gives the same peer when asked again", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const bob = yield* CoreNode.make("bob")
      const [address] = yield* bob.addresses
      const info = yield* within("1 second", alice.manager.connect(address!))
      assert.strictEqual(info.id, bob.id)
      assert.strictEqual(info.interest, "wanted")
      assert.strictEqual(yield* alice.table.size, 1)
      assert.strictEqual(yield* bob.table.size, 1)
      yield* settle
      for (const [node, peer] of [[alice, bob], [bob, alice]] as const) {
        const told = Option.getOrThrow(yield* node.table.get(peer.id))
        assert.include(told.protocols, CodioMessage.protocol)
        assert.deepStrictEqual(node.happened("PeerIdentified").length, 1)
      }
      const again = yield* within("1 second", alice.manager.connect(bob.id))
      assert.strictEqual(again.id, bob.id)
      assert.strictEqual(alice.happened("PeerConnected").length, 1)
    }).pipe(Effect.provide(net)))

  it.effect("fails for itself, for nobody and for a wrong peer id, and forgets the wish", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const bob = yield* CoreNode.make("bob")
      const self = yield* Effect.flip(alice.manager.connect(alice.id))
      assert.strictEqual(self._tag === "DialError" && self.reason._tag, "DialedSelf")
      const { knownPeers } = yield* alice.manager.status
      assert.deepStrictEqual([knownPeers, alice.happened("DialFailed")], [0, []])
      const nobody = yield* within("20 seconds", Effect.flip(alice.manager.connect(SimNetwork.peerId("nobody"))))
      assert.strictEqual(nobody._tag === "DialError" && nobody.reason._tag, "Unreachable")
      const address = SimNetwork.address("bob")
      const wrong = yield* within(
        "20 seconds",
        Effect.flip(alice.manager.connect({ id: SimNetwork.peerId("carol"), addresses: [address] }))
      )
      assert.strictEqual(wrong._tag === "DialError" && wrong.reason._tag, "UnexpectedPeer")
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(alice.happened("ReconnectScheduled").length, 0)
      assert.strictEqual(yield* bob.table.size, 0)
    }).pipe(Effect.provide(net)))

  it.effect("shares one dial among all who ask", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const bob = yield* CoreNode.make("bob")
      const [address] = yield* bob.addresses
      const waiting = yield* Effect.forkChild(
        Effect.all(
          [alice.manager.connect(address!), alice.manager.connect(address!), alice.manager.connect(address!)],
          {
            concurrency: 3
          }
        ),
        { startImmediately: true }
      )
      yield* settle
      assert.isDefined(waiting.pollUnsafe())
      assert.strictEqual((yield* bob.table.connections(alice.id)).length, 1)
    }).pipe(Effect.provide(net)))

  it.effect("tries the caller's addresses when it joined a dial that did not have them", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* CoreNode.make("alice", { minPeers: 0 })
      const bob = yield* CoreNode.make("bob")
      const gone = SimNetwork.address("gone")
      yield* network.link("alice", "gone", { latency: "100 millis" })
      const first = yield* Effect.forkChild(
        Effect.exit(alice.manager.connect({ id: bob.id, addresses: [gone] })),
        { startImmediately: true }
      )
      yield* TestClock.adjust(0)
      assert.deepStrictEqual((yield* alice.manager.status).pendingDials, [bob.id])
      const second = yield* Effect.forkChild(
        Effect.exit(alice.manager.connect({ id: bob.id, addresses: yield* bob.addresses })),
        { startImmediately: true }
      )
      yield* Effect.repeat(TestClock.adjust("100 millis"), { times: 200 })
      assert.deepStrictEqual(
        [first.pollUnsafe(), second.pollUnsafe()].map((exit) => exit?._tag === "Success" && exit.value._tag),
        ["Failure", "Success"]
      )
    }).pipe(Effect.provide(net)))

  it.effect("disconnects a peer that is being dialled: the dial ends", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* CoreNode.make("alice", { minPeers: 0 })
      const bob = yield* CoreNode.make("bob")
      yield* network.link("alice", "bob", { latency: "1 second" })
      const call = yield* Effect.forkChild(
        Effect.exit(alice.manager.connect((yield* bob.addresses)[0]!)),
        { startImmediately: true }
      )
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual((yield* alice.manager.status).pendingDials, [bob.id])
      yield* alice.manager.disconnect(bob.id)
      assert.deepStrictEqual((yield* alice.manager.status).pendingDials, [])
      yield* TestClock.adjust(0)
      const exit = call.pollUnsafe()
      assert.strictEqual(exit?._tag === "Success" && exit.value._tag, "Failure")
    }).pipe(Effect.provide(net)))

  it.effect("dials what it keeps, peers and addresses, at once when the network changes", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* CoreNode.make("alice", { minPeers: 0 })
      yield* alice.manager.keep({ id: SimNetwork.peerId("nobody"), addresses: [SimNetwork.address("nobody")] })
      yield* alice.manager.keep(SimNetwork.address("nobody else"))
      const dialled = () => alice.events.flatMap((event) => event._tag === "DialFailed" ? [event.target] : [])
      yield* TestClock.adjust("1 hour")
      const once = [SimNetwork.peerId("nobody"), SimNetwork.address("nobody else")]
      assert.sameMembers(dialled(), once)
      yield* network.readdress("alice")
      yield* Effect.repeat(TestClock.adjust("100 millis"), { times: 50 })
      assert.sameMembers(dialled(), [...once, ...once])
    }).pipe(Effect.provide(net), Effect.provideService(ReconnectPolicy, () => Schedule.spaced("1 day"))))

  it.effect("redials a lost kept peer at once when the connection had lasted, and by the policy when it had not", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* CoreNode.make("alice")
      const bob = yield* CoreNode.make("bob")
      const [address] = yield* bob.addresses
      yield* alice.manager.keep(address!)
      yield* settle
      assert.strictEqual(yield* alice.table.size, 1)
      yield* TestClock.adjust("15 seconds")
      yield* network.sever(alice.id, bob.id)
      yield* settle
      assert.strictEqual(yield* alice.table.size, 1)
      assert.strictEqual(alice.happened("ReconnectScheduled").length, 0)
      // Lost again after less than 15 s: one second, jittered.
      yield* TestClock.adjust("14 seconds")
      yield* network.sever(alice.id, bob.id)
      yield* TestClock.adjust(0)
      yield* TestClock.adjust("700 millis")
      assert.strictEqual(yield* alice.table.size, 0)
      yield* TestClock.adjust("500 millis")
      yield* settle
      assert.strictEqual(yield* alice.table.size, 1)
      assert.strictEqual(alice.happened("ReconnectScheduled").length, 1)
    }).pipe(Effect.provide(net)))

  it.effect(
    "waits 1, 2, 4 ... 60 seconds between the dials of a kept peer that is away, and never ends",
    () =>
      Effect.gen(function*() {
        const alice = yield* CoreNode.make("alice")
        const { stop } = yield* restartable("bob")
        yield* alice.manager.keep(`${SimNetwork.address("bob")}/p2p/${SimNetwork.peerId("bob")}` as never)
        yield* settle
        assert.strictEqual(yield* alice.table.size, 1)
        yield* stop
        yield* TestClock.adjust("3 hours")
        const delays = alice.events.flatMap((event) =>
          event._tag === "ReconnectScheduled" ? [Duration.toSeconds(event.delay)] : []
        )
        ;[1, 2, 4, 8, 16, 32, 60, 60].forEach((base, index) => {
          const delay = delays[index]!
          assert.isAtLeast(delay, base * 0.8)
          assert.isAtMost(delay, base * 1.2)
        })
        assert.isAbove(delays.length, 150)
        const bob = yield* CoreNode.make("bob")
        yield* TestClock.adjust("72 seconds")
        assert.strictEqual(yield* alice.table.size, 1)
        assert.strictEqual(yield* bob.table.size, 1)
      }).pipe(Effect.provide(net))
  )

  it.effect("gives a wanted peer up after eight dials", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const { node: bob, stop } = yield* restartable("bob")
      const [address] = yield* bob.addresses
      yield* within("1 second", alice.manager.connect(address!))
      yield* stop
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(alice.happened("ReconnectScheduled").length, 8)
      assert.strictEqual(alice.happened("ReconnectFailed").length, 1)
    }).pipe(Effect.provide(net)))

  it.effect("follows the policy that it is given", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice").pipe(
        Effect.provideService(ReconnectPolicy, () => Schedule.spaced("5 seconds").pipe(Schedule.upTo({ times: 3 })))
      )
      yield* alice.manager.keep({ id: SimNetwork.peerId("nobody"), addresses: [SimNetwork.address("nobody")] })
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(alice.happened("DialFailed").length, 1)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(alice.happened("DialFailed").length, 2)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(alice.happened("DialFailed").length, 4)
      assert.strictEqual(alice.happened("ReconnectFailed").length, 1)
    }).pipe(Effect.provide(net)))

  it.effect("keeps a peer as long as the scope lives and lets it idle afterwards", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const bob = yield* CoreNode.make("bob")
      const [address] = yield* bob.addresses
      const keeping = yield* Scope.make()
      yield* Scope.provide(alice.manager.keep(address!), keeping)
      // Neither side closes for idleness: ours is exempt, and our open `keep` request tells theirs.
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(yield* alice.table.size, 1)
      assert.strictEqual(alice.happened("PeerDisconnected").length, 0)
      assert.strictEqual(bob.happened("PeerDisconnected").length, 0)
      yield* Scope.close(keeping, Exit.void)
      yield* TestClock.adjust("6 minutes")
      assert.strictEqual(yield* alice.table.size, 0)
      assert.strictEqual(yield* bob.table.size, 0)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* alice.table.size, 0)
    }).pipe(Effect.provide(net)))

  it.effect("counts the idle time of other software from the end of the keep", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const other = Context.get(yield* Layer.build(SimTransport.layer("other software")), Transport)
      yield* other.gate(() => Effect.succeed(true))
      const [address] = yield* other.addresses
      const keeping = yield* Scope.make()
      yield* Scope.provide(alice.manager.keep(address!), keeping)
      yield* TestClock.adjust("2 hours")
      yield* Scope.close(keeping, Exit.void)
      yield* TestClock.adjust("299 seconds")
      assert.strictEqual(yield* alice.table.size, 1)
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual(yield* alice.table.size, 0)
    }).pipe(Effect.provide(net)))

  it.effect("keeps an address whose peer is not known once somebody answers there", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      yield* alice.manager.keep(SimNetwork.address("bob"))
      yield* TestClock.adjust("5 seconds")
      const { node: bob, stop } = yield* restartable("bob")
      yield* TestClock.adjust("10 seconds")
      const info = yield* alice.table.get(bob.id)
      assert.strictEqual(info._tag === "Some" && info.value.interest, "kept")
      yield* stop
      yield* CoreNode.make("bob")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* alice.table.size, 1)
    }).pipe(Effect.provide(net)))

  it.effect("disconnects for good, says so, and lets the remote come back", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const bob = yield* CoreNode.make("bob")
      const [address] = yield* bob.addresses
      yield* alice.manager.keep(address!)
      yield* settle
      yield* within("1 second", alice.manager.disconnect(bob.id))
      const left = bob.happened("PeerDisconnected")[0]
      assert.deepStrictEqual(
        left?._tag === "PeerDisconnected" && [left.reason, left.remoteReason],
        ["remote", "disconnect"]
      )
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* alice.table.size, 0)
      yield* within("1 second", bob.manager.connect((yield* alice.addresses)[0]!))
      assert.strictEqual(yield* alice.table.size, 1)
      assert.strictEqual((yield* alice.table.peers)[0]?.interest, "transient")
    }).pipe(Effect.provide(net)))

  it.effect("tells when a peer was last reached, when it was not, and whom it has dismissed", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const { node: bob, stop } = yield* restartable("bob")
      const contact = alice.manager.lastContact(bob.id)
      assert.deepStrictEqual(yield* contact, { reachedAt: undefined, failedAt: undefined, isDismissed: false })
      const [address] = yield* bob.addresses
      yield* TestClock.adjust("1 second")
      yield* within("1 second", alice.manager.connect(address!))
      const { failedAt, reachedAt } = yield* contact
      assert.isUndefined(failedAt)
      assert.isAtLeast(reachedAt!, 1000)
      assert.isAtMost(reachedAt!, 2000)
      yield* within("1 second", alice.manager.disconnect(bob.id))
      assert.deepStrictEqual(yield* contact, { reachedAt, failedAt: undefined, isDismissed: true })
      yield* stop
      yield* within("20 seconds", Effect.flip(alice.manager.connect(bob.id)))
      const after = yield* contact
      assert.deepInclude(after, { reachedAt, isDismissed: false })
      assert.isAbove(after.failedAt!, reachedAt!)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* alice.manager.block(bob.id)
        assert.isTrue((yield* contact).isDismissed)
      }))
      assert.isFalse((yield* contact).isDismissed)
    }).pipe(Effect.provide(net)))

  it.effect("refuses a blocked peer both ways while the scope lives, and goes on keeping it afterwards", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const bob = yield* CoreNode.make("bob")
      const [address] = yield* bob.addresses
      yield* alice.manager.keep(address!)
      yield* settle
      const blocking = yield* Scope.make()
      yield* within("1 second", Scope.provide(alice.manager.block(bob.id), blocking))
      assert.strictEqual(yield* alice.table.size, 0)
      const denied = yield* Effect.flip(alice.manager.connect(address!))
      assert.strictEqual(denied._tag === "DialError" && denied.reason._tag, "Denied")
      const refused = yield* within("20 seconds", Effect.flip(bob.manager.connect((yield* alice.addresses)[0]!)))
      assert.strictEqual(refused._tag === "DialError" && refused.reason._tag, "Refused")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* alice.table.size, 0)
      yield* Scope.close(blocking, Exit.void)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* alice.table.size, 1)
    }).pipe(Effect.provide(net)))

  it.effect("is full for strangers at the limit, in both directions", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice", { maxPeers: 2 })
      const [address] = yield* alice.addresses
      for (const name of ["bob", "carol"]) {
        const node = yield* CoreNode.make(name)
        yield* within("1 second", node.manager.connect(address!))
      }
      const dave = yield* CoreNode.make("dave")
      const refused = yield* within("20 seconds", Effect.flip(dave.manager.connect(address!)))
      assert.strictEqual(refused._tag === "DialError" && refused.reason._tag, "Refused")
      assert.strictEqual(dave.happened("PeerConnected").length, 0)
      assert.strictEqual(yield* alice.table.size, 2)
      // An explicit wish evicts a stranger, who is told; a third wish finds two wanted peers.
      yield* within("1 second", alice.manager.connect((yield* dave.addresses)[0]!))
      assert.strictEqual(yield* alice.table.size, 2)
      const erin = yield* CoreNode.make("erin")
      yield* within("1 second", alice.manager.connect((yield* erin.addresses)[0]!))
      const frank = yield* CoreNode.make("frank")
      const full = yield* within("20 seconds", Effect.flip(alice.manager.connect((yield* frank.addresses)[0]!)))
      assert.strictEqual(full._tag, "PeerLimitExceeded")
      assert.strictEqual(yield* alice.table.size, 2)
    }).pipe(Effect.provide(net)))

  it.effect("dials discovered peers while fewer than minPeers are connected, and rests after a goodbye", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice", { minPeers: 2 })
      const nodes = yield* Effect.forEach(["bob", "carol", "dave"], (name) => CoreNode.make(name))
      for (const node of nodes) {
        yield* alice.discovery.announce({ id: node.id, addresses: yield* node.addresses }, "test")
        yield* settle
      }
      assert.sameMembers((yield* alice.table.peers).map((peer) => peer.id), nodes.slice(0, 2).map((node) => node.id))
      const [bob] = nodes
      yield* within("1 second", bob!.manager.disconnect(alice.id))
      assert.strictEqual(yield* alice.table.size, 1)
      const again = { id: bob!.id, addresses: yield* bob!.addresses }
      yield* TestClock.adjust("298 seconds")
      yield* alice.discovery.announce(again, "test")
      yield* settle
      assert.strictEqual((yield* alice.table.get(bob!.id))._tag, "None")
      yield* TestClock.adjust("2 seconds")
      yield* alice.discovery.announce(again, "test")
      yield* settle
      assert.strictEqual((yield* alice.table.get(bob!.id))._tag, "Some")
    }).pipe(Effect.provide(net)))

  it.effect("dials that isolation gives up leave no interest behind", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* CoreNode.make("alice", { minPeers: 4 })
      const bob = yield* CoreNode.make("bob", { minPeers: 0 })
      yield* network.partition([["alice", "bob"]])
      const dead = ["dead 1", "dead 2", "dead 3"].map(SimNetwork.peerId)
      for (const [n, id] of dead.entries()) {
        yield* alice.discovery.announce({ id, addresses: [SimNetwork.address(`dead ${n + 1}`)] }, "test")
      }
      // The dials that the sightings began are over by then.
      yield* TestClock.adjust("20 seconds")
      let steps = 0
      while ((yield* alice.manager.status).pendingDials.length < 2) {
        assert.isBelow(++steps, 300)
        yield* TestClock.adjust("1 second")
      }
      yield* within("1 second", bob.manager.connect((yield* alice.addresses)[0]!))
      assert.deepStrictEqual((yield* alice.manager.status).pendingDials, [])
      for (const id of dead) assert.strictEqual((yield* alice.manager.explain(id)).interest, "transient")
    }).pipe(Effect.provide(net)))

  it.effect("a sighting of a peer that does not answer leaves no interest behind", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const nobody = SimNetwork.peerId("nobody")
      yield* alice.discovery.announce({ id: nobody, addresses: [SimNetwork.address("nobody")] }, "test")
      yield* TestClock.adjust(0)
      assert.strictEqual((yield* alice.manager.explain(nobody)).interest, "discovered")
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual(alice.happened("DialFailed").length, 1)
      assert.strictEqual((yield* alice.manager.explain(nobody)).interest, "transient")
    }).pipe(Effect.provide(net)))

  it.effect("a sighting ends the wait of a kept peer", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      yield* alice.manager.keep({ id: SimNetwork.peerId("bob"), addresses: [] })
      yield* TestClock.adjust("10 minutes")
      const bob = yield* CoreNode.make("bob")
      yield* alice.discovery.announce({ id: bob.id, addresses: yield* bob.addresses }, "test")
      yield* settle
      assert.strictEqual(yield* alice.table.size, 1)
    }).pipe(Effect.provide(net)))

  it.effect("notices a peer that answers nothing within ten seconds", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const alice = yield* CoreNode.make("alice")
      const bob = yield* CoreNode.make("bob")
      yield* within("1 second", alice.manager.connect((yield* bob.addresses)[0]!))
      yield* TestClock.adjust("20 seconds")
      const info = (yield* alice.table.peers)[0]
      assert.strictEqual(info?.roundTripTime === undefined ? 0 : Duration.toMillis(info.roundTripTime), 10)
      yield* network.blackhole(alice.id, bob.id)
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* alice.table.size, 1)
      yield* TestClock.adjust("6 seconds")
      assert.strictEqual(yield* alice.table.size, 0)
      const left = alice.happened("PeerDisconnected")[0]
      assert.strictEqual(left?._tag === "PeerDisconnected" && left.reason, "unhealthy")
    }).pipe(Effect.provide(net)))

  it.effect("says goodbye to its peers when its scope closes", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const { node: bob, stop } = yield* restartable("bob")
      yield* within("1 second", alice.manager.connect((yield* bob.addresses)[0]!))
      yield* stop
      const left = alice.happened("PeerDisconnected")[0]
      assert.deepStrictEqual(left?._tag === "PeerDisconnected" && [left.reason, left.remoteReason], [
        "remote",
        "shutdown"
      ])
    }).pipe(Effect.provide(net)))
})
