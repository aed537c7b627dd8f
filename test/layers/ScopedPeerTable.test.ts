import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as ScopedPeerTable from "../../src/layers/ScopedPeerTable.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import { NetworkConfig, type NetworkConfigInput } from "../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../src/services/NetworkEvents.ts"
import { PeerTable } from "../../src/services/PeerTable.ts"
import * as FakeConnection from "../support/FakeConnection.ts"

const [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(FakeConnection.peerId) as [
  ReturnType<typeof FakeConnection.peerId>,
  ReturnType<typeof FakeConnection.peerId>,
  ReturnType<typeof FakeConnection.peerId>,
  ReturnType<typeof FakeConnection.peerId>
]

const table = (config: NetworkConfigInput = {}) =>
  ScopedPeerTable.layer.pipe(Layer.provideMerge(NetworkEvents.layer), Layer.provide(NetworkConfig.layer(config)))

/** Everything published from here on, read when the table is done. */
const recorded = Effect.gen(function*() {
  const events: Array<NetworkEvent> = []
  const { stream } = yield* NetworkEvents
  yield* Effect.forkScoped(Stream.runForEach(stream, (event) => Effect.sync(() => events.push(event))), {
    startImmediately: true
  })
  return events
})

describe("ScopedPeerTable", () => {
  it.effect("admits a peer once however often its connection is reported, and releases it once", () =>
    Effect.gen(function*() {
      const events = yield* recorded
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
    }).pipe(Effect.provide(table())))

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
    }).pipe(Effect.provide(table())))

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
    }).pipe(Effect.provide(table())))

  it.effect("gives the last place to the peer at the limit and refuses the next, on both sides of the boundary", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      for (let i = 1; i <= 50; i++) {
        const id = FakeConnection.peerId(`stranger ${i}`)
        assert.isTrue(yield* peers.reserve(id, "inbound"), `${i}`)
        yield* peers.admit(FakeConnection.make(id, { inbound: true }))
      }
      assert.isFalse(yield* peers.reserve(alice, "inbound"))
      const error = yield* Effect.flip(peers.admit(FakeConnection.make(alice, { inbound: true })))
      assert.strictEqual(error._tag, "PeerLimitExceeded")
      assert.strictEqual(yield* peers.size, 50)
    }).pipe(Effect.provide(table())))

  it.effect("holds a reserved place for one second", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      assert.isTrue(yield* peers.reserve(alice, "inbound"))
      assert.isFalse(yield* peers.reserve(bob, "inbound"))
      yield* TestClock.adjust("999 millis")
      assert.isFalse(yield* peers.reserve(bob, "inbound"))
      yield* TestClock.adjust("1 millis")
      assert.isTrue(yield* peers.reserve(bob, "inbound"))
    }).pipe(Effect.provide(table({ maxPeers: 1 }))))

  it.effect("evicts the longest idle peer of the lowest interest for a wanted one", () =>
    Effect.gen(function*() {
      const events = yield* recorded
      const peers = yield* PeerTable
      yield* peers.rank(alice, "discovered")
      yield* peers.admit(FakeConnection.make(alice))
      yield* TestClock.adjust("1 second")
      const oldest = FakeConnection.make(bob)
      yield* peers.admit(oldest)
      yield* TestClock.adjust("1 second")
      yield* peers.admit(FakeConnection.make(carol))
      yield* peers.rank(dave, "wanted")
      assert.isTrue(yield* peers.reserve(dave, "outbound"))
      yield* peers.admit(FakeConnection.make(dave))
      yield* TestClock.adjust(0)
      assert.sameMembers((yield* peers.peers).map((peer) => peer.id), [alice, carol, dave])
      assert.isFalse(oldest.state.open)
      const left = events.find((event) => event._tag === "PeerDisconnected")
      assert.strictEqual(left?.reason, "evicted")
    }).pipe(Effect.provide(table({ maxPeers: 3 }))))

  it.effect("evicts no held peer, but one whose stream the remote opened", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      yield* peers.admit(FakeConnection.make(alice))
      yield* peers.rank(bob, "kept")
      const held = yield* Scope.make()
      yield* Scope.provide(peers.hold(alice), held)
      assert.isFalse(yield* peers.reserve(bob, "outbound"))
      assert.strictEqual((yield* Effect.flip(peers.admit(FakeConnection.make(bob))))._tag, "PeerLimitExceeded")
      yield* Scope.close(held, Exit.void)
      yield* peers.attend(alice)
      assert.isTrue(yield* peers.reserve(bob, "outbound"))
      yield* peers.admit(FakeConnection.make(bob))
      assert.deepStrictEqual((yield* peers.peers).map((peer) => peer.id), [bob])
    }).pipe(Effect.scoped, Effect.provide(table({ maxPeers: 1 }))))

  it.effect("lets a dial of the DHT evict transient peers without streams only", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const busy = FakeConnection.make(alice)
      busy.state.activeStreams = 1
      yield* peers.admit(busy)
      assert.isFalse(yield* peers.reserve(bob, "outbound"))
      busy.state.activeStreams = 0
      assert.isTrue(yield* peers.reserve(bob, "outbound"))
      assert.isFalse(yield* peers.reserve(carol, "inbound"))
    }).pipe(Effect.provide(table({ maxPeers: 1 }))))

  it.effect("closes a peer after the idle timeout and not before", () =>
    Effect.gen(function*() {
      const events = yield* recorded
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
    }).pipe(Effect.provide(table())))

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
    }).pipe(Effect.provide(table())))

  it.effect("never closes a kept peer for idleness, and gives it a full timeout afterwards", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      yield* peers.rank(alice, "kept")
      yield* peers.admit(FakeConnection.make(alice))
      yield* TestClock.adjust("63 minutes")
      yield* peers.rank(alice, "transient")
      yield* TestClock.adjust("299 seconds")
      assert.strictEqual(yield* peers.size, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* peers.size, 0)
    }).pipe(Effect.provide(table())))

  it.effect("starts the idle timer over while a stream is open that it was not told of", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const connection = FakeConnection.make(alice)
      connection.state.activeStreams = 1
      yield* peers.admit(connection)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* peers.size, 1)
      connection.state.activeStreams = 0
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(yield* peers.size, 0)
    }).pipe(Effect.provide(table())))

  it.effect("reports the expected reason when a peer is lost", () =>
    Effect.gen(function*() {
      const events = yield* recorded
      const peers = yield* PeerTable
      const connection = FakeConnection.make(alice)
      yield* peers.admit(connection)
      yield* peers.expect(alice, "remote", "shutdown")
      connection.state.open = false
      yield* peers.release(connection)
      yield* TestClock.adjust(0)
      const left = events.find((event) => event._tag === "PeerDisconnected")
      assert.deepStrictEqual([left?.reason, left?.remoteReason], ["remote", "shutdown"])
    }).pipe(Effect.provide(table())))

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
    }).pipe(Effect.provide(table())))

  it.effect("closes every connection with its own scope and admits nobody afterwards", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const peers = yield* Effect.map(Scope.provide(Layer.build(table()), scope), (context) => context).pipe(
        Effect.flatMap((context) => Effect.provide(PeerTable, context))
      )
      const connections = [alice, bob].map((id) => FakeConnection.make(id))
      for (const connection of connections) yield* peers.admit(connection)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(connections.map((connection) => connection.state.open), [false, false])
      assert.isFalse(yield* peers.reserve(carol, "inbound"))
      assert.strictEqual((yield* Effect.flip(peers.admit(FakeConnection.make(carol))))._tag, "PeerNotConnected")
    }))

  // One step of a random life of the table: who, and what happens to it.
  const Step = Schema.Struct({
    peer: Schema.Literals(["a", "b", "c", "d", "e", "f"]),
    act: Schema.Literals(["connect", "accept", "lose", "remove", "want", "keep", "forget", "hold", "drop", "wait"])
  })

  it.effect.prop(
    "is never over the limit and releases every admitted peer once",
    { steps: Schema.Array(Step) },
    ({ steps }) =>
      Effect.gen(function*() {
        const { stream } = yield* NetworkEvents
        const balance = new Map<string, number>()
        const observer = yield* Stream.runForEach(stream, (event) =>
          Effect.sync(() => {
            if (event._tag === "PeerConnected") balance.set(event.peer, (balance.get(event.peer) ?? 0) + 1)
            if (event._tag === "PeerDisconnected") balance.set(event.peer, (balance.get(event.peer) ?? 0) - 1)
          })).pipe(Effect.forkChild({ startImmediately: true }))
        const peers = yield* PeerTable
        const open = new Map<string, FakeConnection.FakeConnection>()
        const holds = new Map<string, Scope.Closeable>()
        for (const { act, peer: name } of steps) {
          const peer = FakeConnection.peerId(name)
          const connection = open.get(name)
          switch (act) {
            case "connect":
            case "accept": {
              const made = FakeConnection.make(peer, { inbound: act === "accept" })
              if (yield* peers.reserve(peer, made.direction)) {
                if (Exit.isSuccess(yield* Effect.exit(peers.admit(made)))) open.set(name, made)
              }
              break
            }
            case "lose":
              if (connection !== undefined) {
                connection.state.open = false
                yield* peers.release(connection)
              }
              break
            case "remove":
              yield* peers.remove(peer, "disconnect")
              break
            case "want":
              yield* peers.rank(peer, "wanted")
              break
            case "keep":
              yield* peers.rank(peer, "kept")
              break
            case "forget":
              yield* peers.rank(peer, "transient")
              break
            case "hold":
              if (!holds.has(name)) {
                const scope = yield* Scope.make()
                if (Exit.isSuccess(yield* Effect.exit(Scope.provide(peers.hold(peer), scope)))) holds.set(name, scope)
              }
              break
            case "drop": {
              const scope = holds.get(name)
              if (scope !== undefined) yield* Scope.close(scope, Exit.void)
              holds.delete(name)
              break
            }
            case "wait":
              yield* TestClock.adjust("2 minutes")
              break
          }
          yield* TestClock.adjust(0)
          const all = yield* peers.peers
          assert.isAtMost(all.length, 3)
          for (const id of ["a", "b", "c", "d", "e", "f"].map(FakeConnection.peerId)) {
            assert.strictEqual(balance.get(id) ?? 0, all.some((info) => info.id === id) ? 1 : 0)
          }
        }
        yield* Fiber.interrupt(observer)
      }).pipe(Effect.provide(table({ maxPeers: 3 }), { local: true }))
  )
})
