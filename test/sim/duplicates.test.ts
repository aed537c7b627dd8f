/**
 * Two connections with one peer, and how they become one.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Ref, Schedule, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { ProtocolId } from "../../src/schema/Peer.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../src/testing/TestNetwork.ts"
import * as CoreNode from "../support/CoreNode.ts"

type Node = Effect.Success<ReturnType<typeof CoreNode.make>>

const echo = "/echo/1.0.0" as ProtocolId

/** Two nodes with an echo, and the dial of one to the other. */
const pair = Effect.gen(function*() {
  const [alice, bob] = yield* Effect.all([
    CoreNode.make("alice", { minPeers: 0, connectionIdleTimeout: "1 hour" }),
    CoreNode.make("bob", { minPeers: 0, connectionIdleTimeout: "1 hour" })
  ])
  for (const node of [alice, bob]) {
    yield* node.protocols.handle(echo, (stream) => Stream.runForEach(stream.read, stream.write))
  }
  const dial = (from: Node, to: Node) => Effect.flatMap(to.addresses, ([address]) => from.manager.connect(address!))
  return { alice, bob, dial }
})

/** Two nodes that have dialled each other in the same instant. */
const crossed = Effect.gen(function*() {
  const { alice, bob, dial } = yield* pair
  yield* TestNetwork.run(Effect.all([dial(alice, bob), dial(bob, alice)], { concurrency: 2 }))
  yield* TestNetwork.until(Effect.map(bothOf(alice, bob), ([one, other]) => one.length === 2 && other.length === 2))
  return { alice, bob }
})

const bothOf = (alice: Node, bob: Node) =>
  Effect.all([alice.table.connections(bob.id), bob.table.connections(alice.id)])

/** The direction of the best connection, as the node sees it. */
const dialler = Effect.fnUntraced(function*(node: Node, other: Node) {
  const [best] = yield* node.table.connections(other.id)
  return best?.direction === "outbound" ? node.id : other.id
})

const smaller = (alice: Node, bob: Node) => alice.id < bob.id ? alice.id : bob.id

const lost = (...nodes: ReadonlyArray<Node>) => nodes.flatMap((node) => node.happened("PeerDisconnected"))

/** Sends a byte and waits for it to come back. */
const echoed = Effect.fnUntraced(function*(stream: Effect.Success<ReturnType<Node["protocols"]["open"]>>) {
  yield* stream.write(Uint8Array.of(7))
  const [byte] = yield* Effect.map(Stream.runHead(stream.read), (head) => head._tag === "Some" ? head.value : [])
  assert.strictEqual(byte, 7)
})

const net = SimNetwork.layer({ latency: "20 millis", seed: "duplicates" })

describe("two nodes that dial each other at once", () => {
  it.effect("agree on the best of two connections, and have one within seconds", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* crossed
      const expected = smaller(alice, bob)
      assert.deepStrictEqual([yield* dialler(alice, bob), yield* dialler(bob, alice)], [expected, expected])
      assert.deepStrictEqual([yield* alice.table.size, yield* bob.table.size], [1, 1])
      yield* TestClock.adjust("3 seconds")
      const [one, other] = yield* bothOf(alice, bob)
      assert.deepStrictEqual([one.length, other.length], [1, 1])
      assert.deepStrictEqual([yield* dialler(alice, bob), yield* dialler(bob, alice)], [expected, expected])
      assert.deepStrictEqual(lost(alice, bob), [])
      yield* TestClock.adjust("30 minutes")
      assert.deepStrictEqual(lost(alice, bob), [])
    }).pipe(Effect.provide(net)))

  it.effect("leave a stream in peace that one has opened on the other connection, until it ends", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* crossed
      // As a program does that opened its stream before there was a second connection.
      for (const [node, other] of [[alice, bob], [bob, alice]] as const) {
        const [, surplus] = yield* node.table.connections(other.id)
        const held = yield* Scope.make()
        const stream = yield* Scope.provide(TestNetwork.run(surplus!.open(echo)), held)
        yield* TestClock.adjust("20 minutes")
        assert.strictEqual((yield* node.table.connections(other.id)).length, 2)
        // A new stream goes over the best connection.
        const [best] = yield* node.table.connections(other.id)
        const fresh = yield* TestNetwork.run(node.protocols.open(other.id, echo))
        assert.strictEqual(fresh.connection, best)
        yield* TestNetwork.run(echoed(fresh))
        yield* TestNetwork.run(echoed(stream))
        yield* TestNetwork.run(stream.closeWrite)
        yield* Scope.close(held, Exit.void)
        if (node === alice) {
          yield* TestClock.adjust("1 minute")
          assert.strictEqual((yield* node.table.connections(other.id)).length, 1)
          const [address] = yield* bob.addresses
          // Once more, for the stream of the other side.
          yield* TestNetwork.run(Effect.andThen(alice.manager.disconnect(bob.id), Effect.sleep("1 second")))
          yield* TestNetwork.run(Effect.all([
            alice.manager.connect(address!),
            Effect.flatMap(alice.addresses, ([there]) => bob.manager.connect(there!))
          ], { concurrency: 2 }))
          yield* TestNetwork.until(
            Effect.map(bothOf(alice, bob), ([one, two]) => one.length === 2 && two.length === 2)
          )
        }
      }
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* bothOf(alice, bob)).map((connections) => connections.length), [1, 1])
    }).pipe(Effect.provide(net)))

  it.effect("cut no stream, from the first moment on, however long it takes", () =>
    Effect.forEach(
      ["one", "two", "three"],
      (seed) =>
        Effect.gen(function*() {
          const { alice, bob, dial } = yield* pair
          const done = yield* Ref.make(0)
          const talk = (node: Node, other: Node, length: `${number} millis`) =>
            Effect.sleep("1 millis").pipe(
              Effect.andThen(node.table.has(other.id)),
              Effect.repeat({ until: (isThere) => isThere }),
              Effect.andThen(
                node.protocols.open(other.id, echo).pipe(
                  Effect.tap((stream) => Effect.andThen(echoed(stream), Effect.sleep(length))),
                  Effect.flatMap((stream) => Effect.andThen(echoed(stream), stream.closeWrite)),
                  Effect.scoped,
                  Effect.andThen(Ref.update(done, (count) => count + 1)),
                  Effect.repeat(Schedule.jittered(Schedule.spaced("20 millis")))
                )
              )
            )
          const lengths = ["1 millis", "700 millis", "2500 millis", "6000 millis"] as const
          const talking = yield* Effect.forkChild(
            Effect.all([
              ...lengths.flatMap((length) => [talk(alice, bob, length), talk(bob, alice, length)]),
              dial(alice, bob),
              dial(bob, alice)
            ], { concurrency: "unbounded" }),
            { startImmediately: true }
          )
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual((yield* bothOf(alice, bob)).map((connections) => connections.length), [2, 2])
          yield* TestClock.adjust("20 seconds")
          assert.isUndefined(talking.pollUnsafe(), "a stream failed")
          assert.isAbove(yield* Ref.get(done), 100)
          assert.deepStrictEqual((yield* bothOf(alice, bob)).map((connections) => connections.length), [1, 1])
          assert.deepStrictEqual(lost(alice, bob), [])
        }).pipe(
          Effect.provide(SimNetwork.layer({ latency: "20 millis", jitter: "10 millis", seed }), { local: true }),
          // The network ends before its nodes, so that none waits for a goodbye.
          Effect.scoped
        ),
      { discard: true }
    ))

  it.effect("move the streams by which they keep each other", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* Effect.all([
        CoreNode.make("alice", { minPeers: 0 }),
        CoreNode.make("bob", { minPeers: 0 })
      ])
      const [here, there] = yield* Effect.all([alice.addresses, bob.addresses])
      yield* alice.manager.keep(there[0]!)
      yield* bob.manager.keep(here[0]!)
      yield* TestNetwork.until(Effect.map(bothOf(alice, bob), ([one, two]) => one.length === 2 && two.length === 2))
      yield* TestClock.adjust("1 minute")
      const [[one], [other]] = yield* bothOf(alice, bob)
      assert.deepStrictEqual((yield* bothOf(alice, bob)).map((connections) => connections.length), [1, 1])
      assert.deepStrictEqual([yield* one!.activeStreams, yield* other!.activeStreams], [2, 2])
      assert.strictEqual(yield* dialler(alice, bob), smaller(alice, bob))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(lost(alice, bob), [])
    }).pipe(Effect.provide(net)))

  it.effect("keep the other connection when the best one breaks before they have one", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* crossed
      yield* TestClock.adjust("1990 millis")
      const [best] = yield* alice.table.connections(bob.id)
      yield* TestNetwork.run(best!.close)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* bothOf(alice, bob)).map((connections) => connections.length), [1, 1])
      assert.deepStrictEqual(lost(alice, bob), [])
      const stream = yield* TestNetwork.run(bob.protocols.open(alice.id, echo))
      yield* TestNetwork.run(echoed(stream))
    }).pipe(Effect.provide(net)))
})
