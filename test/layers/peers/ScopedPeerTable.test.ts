import { assert, describe, it } from "@effect/vitest"
import { Clock, type Duration, Effect, Exit, Fiber, Layer, References, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { GoodbyeReason, NetworkEvent } from "../../../src/schema/NetworkEvent.ts"
import type { Direction, Interest, Multiaddr, PeerId } from "../../../src/schema/Peer.ts"
import { NetworkEvents } from "../../../src/services/NetworkEvents.ts"
import { PeerTable } from "../../../src/services/PeerTable.ts"
import type { Farewell } from "../../../src/services/Transport.ts"
import * as FakeConnection from "../../support/FakeConnection.ts"
import * as FakeInterests from "../../support/FakeInterests.ts"
import * as FakeTable from "../../support/FakeTable.ts"

const [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(FakeConnection.peerId) as [
  ReturnType<typeof FakeConnection.peerId>,
  ReturnType<typeof FakeConnection.peerId>,
  ReturnType<typeof FakeConnection.peerId>,
  ReturnType<typeof FakeConnection.peerId>
]

/** Whether the gate lets the peer in. */
const reserved = (peers: PeerTable["Service"], peer: PeerId, direction: Direction) =>
  Effect.map(
    peers.reserve(FakeConnection.make(peer, { inbound: direction === "inbound" })),
    (reason) => reason === undefined
  )

/** A stream that the remote opened, on one of the peer's connections. */
const attended = (peers: PeerTable["Service"], peer: PeerId) =>
  Effect.flatMap(
    peers.connections(peer),
    ([connection]) => connection === undefined ? Effect.void : peers.attend(connection)
  )

describe("ScopedPeerTable", () => {
  it.effect("admits a peer once however often its connection is reported, and releases it once", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      const connection = FakeConnection.make(alice)
      yield* peers.admit(connection)
      yield* peers.admit(connection)
      assert.strictEqual(yield* peers.size, 1)
      assert.strictEqual((yield* peers.release(connection)).kind, "last")
      assert.strictEqual((yield* peers.release(connection)).kind, "unknown")
      assert.strictEqual(yield* peers.size, 0)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(events.map((event) => event._tag), ["PeerConnected", "PeerDisconnected"])
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("refuses a connection that closed before its admission, also when its end was reported first", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const closed = FakeConnection.make(alice)
      closed.state.open = false
      assert.strictEqual((yield* Effect.flip(peers.admit(closed)))._tag, "PeerNotConnected")
      const early = FakeConnection.make(alice)
      assert.strictEqual((yield* peers.release(early)).kind, "unknown")
      assert.strictEqual((yield* Effect.flip(peers.admit(early)))._tag, "PeerNotConnected")
      assert.strictEqual(yield* peers.size, 0)
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("closes the other connections of a peer that leaves, though its goodbye and a close throw", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      const broken = () => {
        throw new Error("the port is broken")
      }
      const connections = [false, true].map((inbound) => FakeConnection.make(alice, { inbound, answer: broken }))
      Object.assign(connections[0]!, { close: Effect.sync(broken) })
      for (const connection of connections) yield* peers.admit(connection)
      assert.isTrue(yield* peers.remove(alice, "idle"))
      assert.strictEqual(connections[1]!.state.closes, 1)
      assert.strictEqual(yield* peers.size, 0)
      // Whoever comes again waits for the departure.
      yield* peers.admit(FakeConnection.make(alice))
      assert.deepStrictEqual(events.map((event) => event._tag), ["PeerConnected", "PeerDisconnected", "PeerConnected"])
    }).pipe(Effect.provide(FakeTable.layer()), Effect.provideService(References.MinimumLogLevel, "None")))

  it.effect("counts several connections of a peer as one, which leaves with the last", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const first = FakeConnection.make(alice)
      const second = FakeConnection.make(alice, { inbound: true })
      yield* peers.admit(first)
      yield* peers.admit(second)
      assert.strictEqual(yield* peers.size, 1)
      assert.strictEqual((yield* peers.release(first)).kind, "other")
      assert.strictEqual(yield* peers.size, 1)
      assert.strictEqual((yield* peers.release(second)).kind, "last")
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("tells when the path to a peer changes, and only then", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      const [relayed, direct, again, elsewhere] = [
        FakeConnection.make(alice, { relay: bob }),
        FakeConnection.make(alice),
        FakeConnection.make(alice),
        FakeConnection.make(alice, { relay: carol })
      ]
      const gone = (connection: FakeConnection.FakeConnection) =>
        Effect.andThen(connection.close, peers.release(connection))
      yield* peers.admit(relayed)
      yield* peers.admit(direct)
      yield* peers.admit(again)
      yield* gone(again)
      yield* gone(direct)
      yield* peers.admit(elsewhere)
      yield* gone(relayed)
      yield* gone(elsewhere)
      yield* TestClock.adjust(0)
      const through = (relay: PeerId) => ({ _tag: "Relayed", relay, upgrading: false })
      const directly = { _tag: "Direct", holePunched: false }
      assert.deepStrictEqual<unknown>(
        events.flatMap((event) => event._tag === "PeerPathChanged" ? [[event.peer, event.from, event.to]] : []),
        [
          [alice, through(bob), directly],
          [alice, directly, through(bob)],
          // The newest is best.
          [alice, through(bob), through(carol)]
        ]
      )
      assert.strictEqual(events.at(0)?._tag, "PeerConnected")
      assert.strictEqual(events.at(-1)?._tag, "PeerDisconnected")
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("lets a peer have two connections, and a third while they become one", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const make = () => FakeConnection.make(alice, { inbound: true })
      const first = make()
      yield* peers.admit(first)
      yield* peers.admit(make())
      // The second has just come, and may be one of two dials that met; other software is asked for nothing after that.
      const early = make()
      assert.isUndefined(yield* peers.reserve(early))
      yield* peers.release(early)
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(yield* peers.reserve(make()), "connections")
      yield* peers.release(first)
      for (const connection of [make(), make()]) {
        assert.isUndefined(yield* peers.reserve(connection), "two, of which one has just come")
        yield* peers.admit(connection)
      }
      assert.strictEqual(yield* peers.reserve(make()), "connections")
      const error = yield* Effect.flip(peers.admit(make()))
      assert.deepStrictEqual(error._tag === "PeerLimitExceeded" && [error.limit, error.rule], [3, "connections"])
      assert.match(error.message, /^no further connection of \S+: it has 3 already$/)
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("counts the connections of a peer from the gate on, until they are admitted, closed or overdue", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const make = () => FakeConnection.make(alice, { inbound: true })
      const [first, second, third] = [make(), make(), make()]
      for (const connection of [first, second, third]) assert.isUndefined(yield* peers.reserve(connection))
      assert.strictEqual(yield* peers.reserve(make()), "connections")
      yield* peers.release(first)
      assert.isUndefined(yield* peers.reserve(make()), "one has closed before its admission")
      assert.strictEqual(yield* peers.reserve(make()), "connections")
      yield* peers.admit(second)
      assert.strictEqual(yield* peers.reserve(make()), "connections", "one is admitted instead of expected")
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(yield* peers.reserve(make()), "connections")
      yield* TestClock.adjust("1 millis")
      assert.isUndefined(yield* peers.reserve(make()), "the others never came")
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("gives the last slot to the peer at the limit and refuses the next, on both sides of the boundary", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      for (let i = 1; i <= 50; i++) {
        const id = FakeConnection.peerId(`stranger ${i}`)
        assert.isTrue(yield* reserved(peers, id, "inbound"), `${i}`)
        yield* peers.admit(FakeConnection.make(id, { inbound: true }))
      }
      assert.isFalse(yield* reserved(peers, alice, "inbound"))
      const error = yield* Effect.flip(peers.admit(FakeConnection.make(alice, { inbound: true })))
      assert.strictEqual(error._tag, "PeerLimitExceeded")
      assert.strictEqual(yield* peers.size, 50)
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("holds a reserved slot for one second", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      assert.isTrue(yield* reserved(peers, alice, "inbound"))
      assert.isFalse(yield* reserved(peers, bob, "inbound"))
      yield* TestClock.adjust("999 millis")
      assert.isFalse(yield* reserved(peers, bob, "inbound"))
      yield* TestClock.adjust("1 millis")
      assert.isTrue(yield* reserved(peers, bob, "inbound"))
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 1 }))))

  it.effect("lets a wanted peer take a slot that is reserved for a stranger, and no slot that is reserved for a wanted peer", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      assert.isTrue(yield* reserved(peers, alice, "inbound"))
      assert.strictEqual(yield* peers.refuses(bob), "promised")
      yield* FakeInterests.rank(bob, "wanted")
      assert.isUndefined(yield* peers.refuses(bob))
      assert.isTrue(yield* reserved(peers, bob, "outbound"))
      yield* FakeInterests.rank(carol, "wanted")
      assert.isFalse(yield* reserved(peers, carol, "outbound"))
      yield* peers.admit(FakeConnection.make(bob))
      assert.strictEqual(
        (yield* Effect.flip(peers.admit(FakeConnection.make(alice, { inbound: true }))))._tag,
        "PeerLimitExceeded"
      )
      assert.deepStrictEqual((yield* peers.peers).map((peer) => peer.id), [bob])
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 1 }))))

  it.effect("says whether its last slots are taken or only promised", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const stranger = FakeConnection.make(dave, { inbound: true })
      for (const id of [alice, bob]) yield* FakeInterests.rank(id, "discovered")
      yield* peers.admit(FakeConnection.make(alice))
      assert.isTrue(yield* reserved(peers, bob, "outbound"))
      assert.deepStrictEqual([yield* peers.reserve(stranger), yield* peers.refuses(dave)], ["promised", "promised"])
      // The promise is taken up.
      yield* peers.admit(FakeConnection.make(bob))
      assert.deepStrictEqual([yield* peers.reserve(stranger), yield* peers.refuses(dave)], ["full", "full"])
      // A slot that an eviction would free is promised, too.
      for (const id of [carol, dave]) yield* FakeInterests.rank(id, "wanted")
      const held = yield* Scope.make()
      yield* Scope.provide(peers.hold(alice), held)
      assert.isTrue(yield* reserved(peers, carol, "outbound"))
      assert.deepStrictEqual([yield* peers.reserve(stranger), yield* peers.refuses(dave)], ["promised", "promised"])
      // Without the promise there would be no peer to evict either.
      yield* Scope.provide(peers.hold(bob), held)
      assert.deepStrictEqual([yield* peers.reserve(stranger), yield* peers.refuses(dave)], ["full", "full"])
      yield* Scope.close(held, Exit.void)
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 2 }))))

  it.effect("evicts the longest idle peer of the lowest interest for a wanted one", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      yield* FakeInterests.rank(alice, "discovered")
      yield* peers.admit(FakeConnection.make(alice))
      yield* TestClock.adjust("1 second")
      const oldest = FakeConnection.make(bob)
      yield* peers.admit(oldest)
      yield* TestClock.adjust("1 second")
      yield* peers.admit(FakeConnection.make(carol))
      yield* FakeInterests.rank(dave, "wanted")
      assert.isTrue(yield* reserved(peers, dave, "outbound"))
      yield* peers.admit(FakeConnection.make(dave))
      yield* TestClock.adjust(0)
      assert.sameMembers((yield* peers.peers).map((peer) => peer.id), [alice, carol, dave])
      assert.isFalse(oldest.state.open)
      const left = events.find((event) => event._tag === "PeerDisconnected")
      assert.strictEqual(left?.reason, "evicted")
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 3 }))))

  it.effect("evicts no held peer, but one whose stream the remote opened", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      yield* peers.admit(FakeConnection.make(alice))
      yield* FakeInterests.rank(bob, "kept")
      const held = yield* Scope.make()
      yield* Scope.provide(peers.hold(alice), held)
      assert.isFalse(yield* reserved(peers, bob, "outbound"))
      assert.strictEqual((yield* Effect.flip(peers.admit(FakeConnection.make(bob))))._tag, "PeerLimitExceeded")
      yield* Scope.close(held, Exit.void)
      yield* attended(peers, alice)
      assert.isTrue(yield* reserved(peers, bob, "outbound"))
      yield* peers.admit(FakeConnection.make(bob))
      assert.deepStrictEqual((yield* peers.peers).map((peer) => peer.id), [bob])
    }).pipe(Effect.scoped, Effect.provide(FakeTable.layer({ maxPeers: 1 }))))

  it.effect("lets a dial of the DHT evict transient peers without streams only", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const busy = FakeConnection.make(alice)
      busy.state.activeStreams = 1
      yield* peers.admit(busy)
      assert.isFalse(yield* reserved(peers, bob, "outbound"))
      busy.state.activeStreams = 0
      assert.isTrue(yield* reserved(peers, bob, "outbound"))
      assert.isFalse(yield* reserved(peers, carol, "inbound"))
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 1 }))))

  it.effect("closes a peer after the idle timeout and not before", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      const connection = FakeConnection.make(alice)
      yield* peers.admit(connection)
      yield* TestClock.adjust("299 seconds")
      assert.strictEqual(yield* peers.size, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* peers.size, 0)
      assert.isFalse(connection.state.open)
      assert.strictEqual(events.find((event) => event._tag === "PeerDisconnected")?.reason, "idle")
      assert.strictEqual((yield* peers.release(connection)).kind, "removed")
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("counts idleness from the end of the last stream", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      yield* peers.admit(FakeConnection.make(alice))
      const held = yield* Scope.make()
      yield* Scope.provide(peers.hold(alice), held)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* peers.size, 1)
      yield* TestClock.adjust("7 seconds")
      yield* Scope.close(held, Exit.void)
      yield* TestClock.adjust("299 seconds")
      assert.strictEqual(yield* peers.size, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* peers.size, 0)
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("never closes a kept peer for idleness, and gives it a full timeout afterwards", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      yield* FakeInterests.rank(alice, "kept")
      yield* peers.admit(FakeConnection.make(alice))
      yield* TestClock.adjust("63 minutes")
      yield* FakeInterests.rank(alice, "transient")
      yield* TestClock.adjust("299 seconds")
      assert.strictEqual(yield* peers.size, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* peers.size, 0)
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("starts the idle timer over while a stream is open that it was not told of", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const connection = FakeConnection.make(alice)
      connection.state.activeStreams = 1
      yield* peers.admit(connection)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* peers.size, 1)
      yield* TestClock.adjust("1 minute")
      connection.state.activeStreams = 0
      yield* TestClock.adjust("3 minutes")
      assert.strictEqual(yield* peers.size, 1)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* peers.size, 0)
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("reports the expected reason when a peer is lost", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      const connection = FakeConnection.make(alice)
      yield* peers.admit(connection)
      yield* peers.expect(alice, "remote", "shutdown")
      connection.state.open = false
      yield* peers.release(connection)
      yield* TestClock.adjust(0)
      const left = events.find((event) => event._tag === "PeerDisconnected")
      assert.deepStrictEqual([left?.reason, left?.remoteReason], ["remote", "shutdown"])
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("knows why a peer left from the moment it leaves the table, before its goodbye is said", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const evicted = FakeConnection.make(alice, { answer: () => "never" })
      yield* peers.admit(evicted)
      yield* FakeInterests.rank(bob, "wanted")
      yield* peers.admit(FakeConnection.make(bob))
      const released = yield* peers.release(evicted)
      assert.isTrue(evicted.state.open)
      assert.deepStrictEqual(released, {
        kind: "removed",
        departure: { reason: "evicted", remoteReason: undefined, isExpected: true }
      })
      yield* TestClock.adjust("250 millis")
      assert.isFalse(evicted.state.open)
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 1 }))))

  it.effect("reports a goodbye that it heard, though pings went unanswered after it", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const connection = FakeConnection.make(alice)
      yield* peers.admit(connection)
      yield* peers.expect(alice, "unhealthy")
      yield* peers.expect(alice, "remote", "idle")
      yield* peers.expect(alice, "unhealthy")
      assert.deepStrictEqual(yield* peers.release(connection), {
        kind: "last",
        departure: { reason: "remote", remoteReason: "idle", isExpected: true }
      })
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("reports what the remote's host said as it closed, unless more is known", () =>
    Effect.gen(function*() {
      const events = yield* FakeTable.recorded
      const peers = yield* PeerTable
      const lose = Effect.fnUntraced(function*(farewell: Farewell, goodbye?: GoodbyeReason) {
        const connection = FakeConnection.make(alice, { farewell })
        yield* peers.admit(connection)
        if (goodbye !== undefined) yield* peers.expect(alice, "remote", goodbye)
        connection.state.open = false
        const released = yield* peers.release(connection)
        assert(released.kind === "last")
        const { reason, remoteReason } = released.departure
        return [reason, remoteReason]
      })
      assert.deepStrictEqual(yield* lose("full"), ["remote", "evicted"])
      assert.deepStrictEqual(yield* lose("promised"), ["remote", "evicted"])
      assert.deepStrictEqual(yield* lose("shutdown"), ["remote", "shutdown"])
      assert.deepStrictEqual(yield* lose("blocked", "idle"), ["remote", "idle"])
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(
        events.flatMap((event) => event._tag === "PeerDisconnected" ? [event.remoteReason] : []),
        ["evicted", "evicted", "shutdown", "idle"]
      )
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("wakes for those who may be idle, and for nobody else", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let sleeps = 0
      const counting: Clock.Clock = Object.assign(Object.create(clock), {
        sleep: (duration: Duration.Duration) =>
          Effect.suspend(() => {
            sleeps++
            return clock.sleep(duration)
          })
      })
      yield* Effect.gen(function*() {
        const peers = yield* PeerTable
        for (let i = 0; i < 20; i++) {
          const id = FakeConnection.peerId(`kept ${i}`)
          yield* FakeInterests.rank(id, "kept")
          yield* peers.admit(FakeConnection.make(id))
        }
        yield* peers.admit(FakeConnection.make(alice))
        yield* peers.hold(alice)
        yield* TestClock.adjust("24 hours")
        assert.strictEqual(sleeps, 0)
        yield* peers.admit(FakeConnection.make(bob))
        yield* TestClock.adjust("24 hours")
        assert.strictEqual(sleeps, 1)
        assert.strictEqual(yield* peers.size, 21)
      }).pipe(
        Effect.scoped,
        Effect.provide(FakeTable.layer(), { local: true }),
        Effect.provideService(Clock.Clock, counting)
      )
    }))

  it.effect("runs a task in each peer's scope, for peers of now and of later, until the task's owner leaves", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const running = new Set<string>()
      const task = (peer: string) =>
        Effect.acquireUseRelease(
          Effect.sync(() => running.add(peer)),
          () => Effect.never,
          () => Effect.sync(() => running.delete(peer))
        )
      yield* peers.admit(FakeConnection.make(alice))
      const owner = yield* Scope.make()
      yield* Scope.provide(peers.eachPeer(task), owner)
      yield* peers.admit(FakeConnection.make(bob))
      yield* TestClock.adjust(0)
      assert.sameMembers([...running], [alice, bob])
      yield* peers.remove(alice, "disconnect")
      assert.sameMembers([...running], [bob])
      yield* Scope.close(owner, Exit.void)
      assert.strictEqual(running.size, 0)
      yield* peers.admit(FakeConnection.make(carol))
      yield* TestClock.adjust(0)
      assert.strictEqual(running.size, 0)
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("closes every connection with its own scope and admits nobody afterwards", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const peers = yield* Effect.map(Scope.provide(Layer.build(FakeTable.layer()), scope), (context) => context).pipe(
        Effect.flatMap((context) => Effect.provide(PeerTable, context))
      )
      const connections = [alice, bob].map((id) => FakeConnection.make(id))
      for (const connection of connections) yield* peers.admit(connection)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(connections.map((connection) => connection.state.open), [false, false])
      assert.isFalse(yield* reserved(peers, carol, "inbound"))
      assert.strictEqual((yield* Effect.flip(peers.admit(FakeConnection.make(carol))))._tag, "PeerNotConnected")
    }))

  it.effect("ends and closes every connection in the middle of whatever it does: an eviction, a peer that comes again", () =>
    Effect.gen(function*() {
      for (let operations = 4; operations < 120; operations++) {
        const scope = yield* Scope.make()
        const context = yield* Scope.provide(Layer.build(Layer.fresh(FakeTable.layer({ maxPeers: 1 }))), scope)
        const peers = yield* Effect.provide(PeerTable, context)
        const [first, other, again] = [alice, bob, alice].map((id) => FakeConnection.make(id))
        yield* peers.admit(first!)
        yield* Effect.provide(FakeInterests.rank(bob, "wanted"), context)
        const admit = (connection: FakeConnection.FakeConnection) =>
          Effect.catch(peers.admit(connection), () => connection.close).pipe(
            Effect.provideService(References.MaxOpsBeforeYield, operations),
            Effect.forkChild({ startImmediately: true })
          )
        const admissions = [yield* admit(other!)]
        yield* Effect.provide(FakeInterests.rank(alice, "kept"), context)
        admissions.push(yield* admit(again!))
        const end = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        for (let i = 0; i < 50; i++) yield* TestClock.adjust(0)
        for (const fiber of [end, ...admissions]) assert.isDefined(fiber.pollUnsafe(), `${operations}: it does not end`)
        const open = [first, other, again].map((connection) => connection!.state.open)
        assert.deepStrictEqual(open, [false, false, false], `${operations}`)
      }
    }))

  it.effect("has no slot for a peer that is blocked, at the gate or afterwards", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const { blocked } = yield* FakeInterests.FakeInterests
      assert.isTrue(yield* reserved(peers, alice, "inbound"))
      blocked.add(alice)
      assert.strictEqual(yield* peers.refuses(alice), "blocked")
      assert.isFalse(yield* reserved(peers, alice, "outbound"))
      assert.strictEqual((yield* Effect.flip(peers.admit(FakeConnection.make(alice))))._tag, "PeerNotConnected")
      blocked.delete(alice)
      yield* peers.admit(FakeConnection.make(alice))
      assert.strictEqual(yield* peers.size, 1)
    }).pipe(Effect.provide(FakeTable.layer())))

  it.effect("gives inbound peers maxInboundPeers slots, and the rest to peers that it dials", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const inbound = (id: PeerId) => FakeConnection.make(id, { inbound: true })
      yield* peers.admit(inbound(alice))
      yield* peers.admit(inbound(bob))
      assert.strictEqual(yield* peers.reserve(inbound(carol)), "inbound")
      const error = yield* Effect.flip(peers.admit(inbound(carol)))
      assert.deepStrictEqual(error._tag === "PeerLimitExceeded" && [error.limit, error.rule], [2, "inbound"])
      // Another connection of a peer takes no slot, whoever dialled it.
      assert.isUndefined(yield* peers.reserve(inbound(alice)))
      assert.isTrue(yield* reserved(peers, carol, "outbound"))
      yield* peers.admit(FakeConnection.make(carol))
      // A wanted inbound peer evicts an inbound peer, not the idlest peer.
      yield* TestClock.adjust("1 second")
      yield* attended(peers, alice)
      yield* FakeInterests.rank(dave, "wanted")
      assert.isUndefined(yield* peers.reserve(inbound(dave)))
      yield* peers.admit(inbound(dave))
      assert.sameMembers((yield* peers.peers).map((peer) => peer.id), [alice, carol, dave])
      const { inbound: used, inboundLimit, limit, transient, wanted } = yield* peers.slots
      assert.deepStrictEqual([used, inboundLimit, limit, transient, wanted], [2, 2, 50, 2, 1])
    }).pipe(Effect.scoped, Effect.provide(FakeTable.layer({ maxInboundPeers: 2 }))))

  it.effect("gives the peers of one network maxPeersPerSubnet slots, on both sides of the boundary", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const from = (id: PeerId, address: string, inbound = true) => FakeConnection.make(id, { inbound, address })
      yield* peers.admit(from(alice, "/ip4/203.0.113.1/tcp/1"))
      assert.isUndefined(yield* peers.reserve(from(bob, "/ip4/203.0.113.2/tcp/1")))
      // A reserved slot counts.
      assert.strictEqual(yield* peers.reserve(from(carol, "/ip4/203.0.113.3/tcp/1")), "promised")
      yield* peers.admit(from(bob, "/ip4/203.0.113.2/tcp/1"))
      const error = yield* Effect.flip(peers.admit(from(carol, "/ip4/203.0.113.3/tcp/1")))
      assert.deepStrictEqual(error._tag === "PeerLimitExceeded" && [error.limit, error.rule], [2, "subnet"])
      // The next network is another one, and a wanted peer evicts.
      yield* peers.admit(from(carol, "/ip4/203.0.114.3/tcp/1"))
      yield* FakeInterests.rank(dave, "wanted")
      yield* peers.admit(from(dave, "/ip4/203.0.113.4/tcp/1", false))
      assert.sameMembers((yield* peers.peers).map((peer) => peer.id), [bob, carol, dave])
      // Nor may a second connection bring a third peer into the network.
      const second = from(carol, "/ip4/203.0.113.5/tcp/1")
      assert.strictEqual(yield* peers.reserve(second), "subnet")
      assert.strictEqual((yield* Effect.flip(peers.admit(second)))._tag, "PeerLimitExceeded")
    }).pipe(Effect.provide(FakeTable.layer({ maxPeersPerSubnet: 2 }))))

  it.effect("lets a stranger of a full subnet to the handshake once the stay of a guest there is over", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const from = (id: PeerId, host: string) =>
        FakeConnection.make(id, { inbound: true, address: `/ip4/${host}/tcp/1` })
      const [near, far] = ["/ip4/203.0.113.9/tcp/1", "/ip4/198.51.100.9/tcp/1"] as [Multiaddr, Multiaddr]
      yield* peers.admit(from(alice, "203.0.113.1"))
      yield* peers.admit(from(bob, "203.0.113.2"))
      const keeps = yield* Scope.make()
      yield* Scope.provide(peers.keptByRemote(alice), keeps)
      yield* attended(peers, alice)
      assert.strictEqual((yield* Effect.flip(peers.keptByRemote(carol)))._tag, "PeerNotConnected")
      yield* TestClock.adjust("599 seconds")
      assert.deepStrictEqual([yield* peers.accepts(near), yield* peers.accepts(far)], [false, true])
      assert.strictEqual(yield* peers.reserve(from(carol, "203.0.113.3")), "subnet")
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* peers.accepts(near))
      // A wanted peer is no guest, and neither is one whose program keeps this node no more.
      yield* FakeInterests.rank(alice, "wanted")
      assert.isFalse(yield* peers.accepts(near))
      yield* FakeInterests.rank(alice, "transient")
      assert.isUndefined(yield* peers.reserve(from(carol, "203.0.113.3")))
      yield* Scope.close(keeps, Exit.void)
      assert.isFalse(yield* peers.accepts(near))
    }).pipe(Effect.scoped, Effect.provide(FakeTable.layer({ maxPeersPerSubnet: 2, connectionIdleTimeout: "1 hour" }))))

  it.effect("counts no network for private addresses and for relayed connections", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const relayed = `/ip4/203.0.113.1/tcp/1/p2p/${dave}/p2p-circuit`
      for (const address of ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/1", "/ip6/fe80::1/tcp/1", relayed]) {
        for (const name of ["one", "two"]) {
          const connection = FakeConnection.make(FakeConnection.peerId(`${name} at ${address}`), {
            inbound: true,
            address
          })
          assert.isUndefined(yield* peers.reserve(connection))
          yield* peers.admit(connection)
        }
      }
      assert.strictEqual(yield* peers.size, 8)
    }).pipe(Effect.provide(FakeTable.layer({ maxPeersPerSubnet: 1 }))))

  it.effect("keeps the slot of a dial until it is identified, and gives it back when the dial closes", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const dial = FakeConnection.make(alice)
      assert.isUndefined(yield* peers.reserve(dial))
      yield* TestClock.adjust("2999 millis")
      assert.isFalse(yield* reserved(peers, bob, "inbound"))
      yield* TestClock.adjust("1 millis")
      assert.isTrue(yield* reserved(peers, bob, "inbound"))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(yield* peers.reserve(dial))
      assert.strictEqual((yield* peers.slots).reserved, 1)
      // Two addresses are raced: one connection closes, the other goes on.
      const other = FakeConnection.make(alice)
      assert.isUndefined(yield* peers.reserve(other))
      yield* peers.release(other)
      assert.isFalse(yield* reserved(peers, bob, "inbound"))
      yield* peers.release(dial)
      assert.isTrue(yield* reserved(peers, bob, "inbound"))
    }).pipe(Effect.provide(FakeTable.layer({ maxPeers: 1 }))))

  // One step of a random life of the table: a peer, its network, and what happens to the peer.
  const Step = Schema.Struct({
    peer: Schema.Literals(["a", "b", "c", "d", "e", "f"]),
    network: Schema.Literals(["203.0.113", "198.51.100", "192.168.0"]),
    roll: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 29 }))
  })
  const acts = [
    ...["ask", "ask", "ask", "ask in", "ask in", "ask in", "ask in", "admit", "admit", "admit", "admit", "admit"],
    ...["admit all", "admit all", "lose", "lose", "remove", "want", "want", "keep", "forget", "hold", "hold", "hold"],
    ...["drop", "attend", "rest", "wait", "settle", "settle"]
  ]
  const names = ["a", "b", "c", "d", "e", "f"] as const

  /**
   * How often each peer has come more often than gone, by the events from here on, and what is wrong with their order.
   */
  const balances = Effect.gen(function*() {
    const { stream } = yield* NetworkEvents
    const balance = new Map<string, number>()
    // A peer comes before it goes, and goes before it comes again.
    const wrong: Array<string> = []
    const observe = (event: NetworkEvent) =>
      Effect.sync(() => {
        if (event._tag !== "PeerConnected" && event._tag !== "PeerDisconnected") return
        const before = balance.get(event.peer) ?? 0
        const after = before + (event._tag === "PeerConnected" ? 1 : -1)
        balance.set(event.peer, after)
        if (after !== 0 && after !== 1) wrong.push(`${event._tag} at ${before}`)
      })
    yield* Effect.forkScoped(Stream.runForEach(stream, observe), { startImmediately: true })
    return { balance, wrong }
  })

  /** Asserts the limits of the property, and gives the peers of the table. */
  const withinLimits = Effect.gen(function*() {
    const peers = yield* PeerTable
    const all = yield* peers.peers
    const slots = yield* peers.slots
    assert.isAtMost(all.length, 4)
    assert.deepStrictEqual([slots.used, slots.kept + slots.wanted + slots.discovered + slots.transient], [
      all.length,
      all.length
    ])
    assert.isAtMost(slots.inbound, 2)
    for (const network of ["203.0.113", "198.51.100"]) {
      const there = all.filter((info) => info.addresses.some((address) => address.includes(network)))
      assert.isAtMost(there.length, 2)
    }
    return all
  })

  it.effect.prop(
    "is never over a limit and releases every admitted peer once, whatever happens in the middle of what",
    {
      steps: Schema.Array(Step).check(Schema.isMinLength(40)),
      // After this many operations a fiber yields, in the middle of whatever it does.
      operations: Schema.Int.check(Schema.isBetween({ minimum: 4, maximum: 40 }))
    },
    ({ operations, steps }) =>
      Effect.gen(function*() {
        const { balance, wrong } = yield* balances
        const peers = yield* PeerTable
        // How often the scope of a peer is open.
        const scopes = new Map<string, number>()
        const count = (peer: string, change: number) =>
          Effect.sync(() => scopes.set(peer, (scopes.get(peer) ?? 0) + change))
        yield* peers.eachPeer((peer) =>
          Effect.acquireUseRelease(count(peer, 1), () => Effect.never, () => count(peer, -1))
        )

        const works: Array<Fiber.Fiber<unknown>> = []
        const asked: Array<FakeConnection.FakeConnection> = []
        const admitted: Array<FakeConnection.FakeConnection> = []
        const context = yield* Effect.context<FakeInterests.FakeInterests | PeerTable>()
        const rank = (peer: PeerId, interest: Interest) => Effect.provide(FakeInterests.rank(peer, interest), context)
        const users = new Map<string, Scope.Closeable>()
        const use = Effect.fnUntraced(function*(key: string, user: Effect.Effect<unknown, unknown, Scope.Scope>) {
          if (users.has(key)) return
          const scope = yield* Scope.make()
          users.set(key, scope)
          yield* Effect.exit(Scope.provide(user, scope))
        })
        const leave = (key: string) =>
          Effect.suspend(() => {
            const scope = users.get(key)
            users.delete(key)
            return scope === undefined ? Effect.void : Scope.close(scope, Exit.void)
          })
        const admit = (connection: FakeConnection.FakeConnection) =>
          Effect.flatMap(Effect.exit(peers.admit(connection)), (exit) =>
            Exit.isSuccess(exit) ? Effect.sync(() => admitted.push(connection)) : connection.close)

        for (const { network, peer: name, roll } of steps) {
          const act = acts[roll]!
          const peer = FakeConnection.peerId(name)
          const address = `/ip4/${network}.${names.indexOf(name)}/tcp/1`
          const held: Array<PeerId> = []
          const holding = names.filter((one) =>
            users.has(`hold ${one}`)
          )
          for (const one of holding) {
            const id = FakeConnection.peerId(one)
            // A hold ends with its peer, and does not begin again when the peer comes back.
            if (yield* peers.has(id)) held.push(id)
            else yield* leave(`hold ${one}`)
          }
          // Each step runs in a fiber of its own, among the steps before it that have not ended.
          const work: Effect.Effect<unknown> = Effect.gen(function*() {
            switch (act) {
              case "ask":
              case "ask in": {
                const made = FakeConnection.make(peer, { inbound: act === "ask in", address })
                if ((yield* peers.reserve(made)) === undefined) asked.push(made)
                return
              }
              case "admit": {
                const made = asked.shift()
                return made === undefined ? undefined : yield* admit(made)
              }
              case "admit all":
                return yield* Effect.forEach(asked.splice(0), admit, { concurrency: "unbounded", discard: true })
              case "lose": {
                const lost = admitted.shift()
                if (lost === undefined) return
                lost.state.open = false
                return yield* peers.release(lost)
              }
              case "remove":
                return yield* peers.remove(peer, "disconnect")
              case "want":
                return yield* rank(peer, "wanted")
              case "keep":
                return yield* rank(peer, "kept")
              case "forget":
                return yield* rank(peer, "transient")
              case "hold":
                return yield* use(`hold ${name}`, peers.hold(peer))
              case "drop":
                return yield* leave(`hold ${name}`)
              case "attend":
                return yield* use(`attend ${name}`, attended(peers, peer))
              case "rest":
                return yield* leave(`attend ${name}`)
            }
          })
          works.push(
            yield* work.pipe(
              Effect.provideService(References.MaxOpsBeforeYield, operations),
              Effect.provideService(References.PreventSchedulerYield, false),
              Effect.forkChild({ startImmediately: true })
            )
          )
          if (act === "wait") yield* TestClock.adjust("2 minutes")
          if (act === "settle") yield* TestClock.adjust(0)
          yield* withinLimits
          if (!act.startsWith("admit")) continue
          for (const one of held) assert.isTrue(yield* peers.has(one), "a held peer was evicted")
        }
        yield* Fiber.awaitAll(works)
        // The fibers of the table itself yield as often.
        yield* Effect.repeat(TestClock.adjust(0), { times: 50 })
        const all = yield* withinLimits
        assert.deepStrictEqual(wrong, [])
        for (const id of names.map(FakeConnection.peerId)) {
          const expected = all.some((info) => info.id === id) ? 1 : 0
          assert.strictEqual(balance.get(id) ?? 0, expected)
          assert.strictEqual(scopes.get(id) ?? 0, expected)
        }
      }).pipe(
        Effect.scoped,
        // The checks read the table in one step, so this fiber must not yield by itself.
        Effect.provideService(References.PreventSchedulerYield, true),
        Effect.provide(FakeTable.layer({ maxPeers: 4, maxInboundPeers: 2, maxPeersPerSubnet: 2 }), { local: true })
      )
  )
})
