import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { PeerId, ProtocolId } from "../../../src/schema/Peer.ts"
import type { ByteStream } from "../../../src/services/Transport.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../../src/testing/TestNetwork.ts"
import * as CoreNode from "../../support/CoreNode.ts"
import * as LogLines from "../../support/LogLines.ts"

const protocol = "/spec/1.0.0" as ProtocolId
type Node = Effect.Success<ReturnType<typeof CoreNode.make>>

/** Bob answers, Alice opens streams to him. Nothing takes time. */
const pair = Effect.gen(function*() {
  const alice = yield* CoreNode.make("alice")
  const bob = yield* CoreNode.make("bob")
  yield* TestNetwork.run(alice.manager.connect((yield* bob.addresses)[0]!))
  const inbound = Effect.map(bob.table.connections(alice.id), ([connection]) => connection!)
  return { alice, bob, inbound }
})

/** Opens a stream that its scope ends. Resets it with `Exit.interrupt()`. */
const opened = Effect.fnUntraced(function*(from: Node, to: PeerId) {
  const scope = yield* Scope.make()
  const stream = yield* TestNetwork.run(Scope.provide(from.protocols.open(to, protocol), scope))
  return { stream, end: (exit: Exit.Exit<unknown, unknown>) => TestNetwork.run(Scope.close(scope, exit)) }
})

const reset = Exit.die("reset")

/** A handler that waits for something else than its stream, and how many of it run. */
const waiting = (before: (stream: ByteStream) => Effect.Effect<void> = () => Effect.void) => {
  const state = { running: 0, begun: 0 }
  const handler = (stream: ByteStream) =>
    Effect.suspend(() => {
      state.running++
      state.begun++
      return Effect.andThen(before(stream), Effect.never)
    }).pipe(Effect.ensuring(Effect.sync(() => state.running--)))
  return { state, handler }
}

/** Whether the stream is still open at the end that opened it. */
const isReset = (stream: ByteStream) =>
  Effect.map(TestNetwork.run(Effect.exit(Stream.runDrain(stream.read))), Exit.isFailure)

const net = SimNetwork.layer({ latency: 0, seed: "protocols" })

describe("a handler", () => {
  it.effect("ends with its stream when the remote resets it, and the peer becomes idle", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const { handler, state } = waiting()
      yield* bob.protocols.handle(protocol, handler)
      for (let round = 0; round < 20; round++) {
        const { end } = yield* opened(alice, bob.id)
        assert.strictEqual(state.running, 1)
        yield* end(reset)
        assert.strictEqual(state.running, 0)
      }
      assert.strictEqual(state.begun, 20)
      yield* TestClock.adjust("4 minutes")
      assert.strictEqual(yield* bob.table.size, 1)
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual(yield* bob.table.size, 0)
    }).pipe(Effect.provide(net)))

  it.effect("ends at once when the connection is over", () =>
    Effect.gen(function*() {
      const { alice, bob, inbound } = yield* pair
      const { handler, state } = waiting()
      yield* bob.protocols.handle(protocol, handler)
      yield* opened(alice, bob.id)
      yield* TestNetwork.run((yield* inbound).close)
      assert.strictEqual(state.running, 0)
    }).pipe(Effect.provide(net)))

  it.effect("that has ended leaves nothing that waits for the end of its stream", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const mayEnd = yield* Deferred.make<void>()
      const exits: Array<Exit.Exit<unknown>> = []
      yield* bob.protocols.handle(protocol, (stream) => {
        const lost = Effect.onExit(stream.lost, (exit) => Effect.sync(() => void exits.push(exit)))
        Object.assign(stream, { lost })
        return Deferred.await(mayEnd)
      })
      yield* opened(alice, bob.id)
      assert.lengthOf(exits, 0)
      yield* TestNetwork.run(Deferred.succeed(mayEnd, undefined))
      assert.lengthOf(exits, 1)
      assert.isTrue(Exit.hasInterrupts(exits[0]!))
    }).pipe(Effect.provide(net)))

  it.effect("goes on after a clean end of what the remote sends, and answers", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const mayAnswer = yield* Deferred.make<void>()
      yield* bob.protocols.handle(protocol, (stream) =>
        Stream.runDrain(stream.read).pipe(
          Effect.andThen(Deferred.await(mayAnswer)),
          Effect.andThen(stream.write(Uint8Array.of(7)))
        ))
      const { stream } = yield* opened(alice, bob.id)
      yield* TestNetwork.run(Effect.andThen(stream.write(Uint8Array.of(1)), stream.closeWrite))
      yield* TestClock.adjust("1 hour")
      yield* Deferred.succeed(mayAnswer, undefined)
      assert.deepStrictEqual(yield* TestNetwork.run(Stream.runCollect(stream.read)), [Uint8Array.of(7)])
    }).pipe(Effect.provide(net)))

  it.effect("has ten seconds to use what a remote sent that ended its half and left", () =>
    Effect.gen(function*() {
      const { alice, bob, inbound } = yield* pair
      const { handler, state } = waiting((stream) => Effect.ignore(Stream.runDrain(stream.read)))
      yield* bob.protocols.handle(protocol, handler)
      const { stream } = yield* opened(alice, bob.id)
      yield* TestNetwork.run(stream.closeWrite)
      yield* TestNetwork.run((yield* inbound).close)
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(state.running, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(state.running, 0)
    }).pipe(Effect.provide(net)))

  it.effect("has them with 255 others, and no more", () =>
    Effect.gen(function*() {
      const { alice, bob, inbound } = yield* pair
      const { handler, state } = waiting()
      yield* bob.protocols.handle(protocol, handler)
      for (let n = 0; n < 300; n++) {
        const { stream } = yield* opened(alice, bob.id)
        yield* TestNetwork.run(stream.closeWrite)
      }
      assert.strictEqual(state.running, 300)
      yield* TestNetwork.run((yield* inbound).close)
      assert.strictEqual(state.running, 256)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(state.running, 0)
    }).pipe(Effect.provide(net)))

  it.effect("that ignores the end of its stream keeps no peer busy, and counts until it has ended", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const mayEnd = yield* Deferred.make<void>()
      yield* bob.protocols.handle(protocol, () => Effect.uninterruptible(Deferred.await(mayEnd)), {
        maxStreamsPerPeer: 1
      })
      const first = yield* opened(alice, bob.id)
      yield* first.end(reset)
      assert.isDefined((yield* bob.table.peers)[0]!.idleSince)
      assert.isTrue(yield* isReset((yield* opened(alice, bob.id)).stream))
      yield* TestNetwork.run(Deferred.succeed(mayEnd, undefined))
      const third = yield* opened(alice, bob.id)
      assert.deepStrictEqual((yield* bob.manager.status).streams.refused, { streams: 1 })
      yield* third.end(Exit.void)
      yield* TestClock.adjust("301 seconds")
      assert.strictEqual(yield* bob.table.size, 0)
    }).pipe(Effect.provide(net)))

  it.effect("that fails or dies is logged with its protocol and its peer", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob } = yield* pair
      const ends = [Effect.fail("no"), Effect.die(new Error("broken"))]
      yield* bob.protocols.handle(protocol, () => ends.shift() ?? Effect.void)
      for (let n = 0; n < 2; n++) assert.isTrue(yield* isReset((yield* opened(alice, bob.id)).stream))
      const expected = `Error: the handler of ${protocol} failed, and its stream with ${alice.id} is reset`
      assert.deepStrictEqual(lines.map((line) => line.slice(0, expected.length)), [expected, expected])
    }).pipe(Effect.provide(net), LogLines.capture))

  it.effect("whose stream the remote resets is not logged", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob } = yield* pair
      yield* bob.protocols.handle(protocol, (stream) => Stream.runDrain(stream.read))
      yield* (yield* opened(alice, bob.id)).end(reset)
      assert.deepStrictEqual(lines, [])
    }).pipe(Effect.provide(net), LogLines.capture))
})

describe("a protocol", () => {
  it.effect("serves a peer 1,024 streams at a time, and refuses one more", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const { handler, state } = waiting()
      yield* bob.protocols.handle(protocol, handler)
      yield* Effect.replicateEffect(opened(alice, bob.id), 1024)
      assert.strictEqual(state.running, 1024)
      assert.isTrue(yield* isReset((yield* opened(alice, bob.id)).stream))
      assert.strictEqual(state.begun, 1024)
    }).pipe(Effect.provide(net)))

  it.effect("serves each peer as many as maxStreamsPerPeer, and another when one has ended", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const carol = yield* CoreNode.make("carol")
      yield* TestNetwork.run(carol.manager.connect((yield* bob.addresses)[0]!))
      const { handler, state } = waiting()
      yield* bob.protocols.handle(protocol, handler, { maxStreamsPerPeer: 2 })
      const first = yield* opened(alice, bob.id)
      yield* opened(alice, bob.id)
      yield* opened(carol, bob.id)
      assert.strictEqual(state.running, 3)
      assert.isTrue(yield* isReset((yield* opened(alice, bob.id)).stream))
      yield* first.end(reset)
      yield* opened(alice, bob.id)
      assert.strictEqual(state.running, 3)
      assert.deepStrictEqual((yield* bob.manager.status).streams.refused, { streams: 1 })
    }).pipe(Effect.provide(net)))

  it.effect("is for the peers that authorize allows; streams of others are reset, and keep them not busy", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      class Friends extends Context.Service<Friends, ReadonlySet<PeerId>>()("test/Friends") {}
      const friends = new Set<PeerId>()
      const { handler, state } = waiting()
      yield* bob.protocols.handle(protocol, handler, {
        authorize: (peer) => Effect.map(Effect.delay(Friends, "1 second"), (all) => all.has(peer))
      }).pipe(Effect.provideService(Friends, friends))
      const stranger = yield* opened(alice, bob.id)
      assert.strictEqual(state.begun, 0)
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* isReset(stranger.stream))
      assert.deepStrictEqual((yield* bob.manager.status).streams.refused, { unauthorized: 1 })
      yield* TestClock.adjust("297 seconds")
      yield* opened(alice, bob.id)
      yield* TestClock.adjust("3 seconds")
      // Neither the question nor the refusal began the idle time anew.
      assert.deepStrictEqual([state.begun, yield* bob.table.size], [0, 0])

      friends.add(alice.id)
      yield* TestNetwork.run(alice.manager.connect((yield* bob.addresses)[0]!))
      yield* opened(alice, bob.id)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(state.running, 1)
    }).pipe(Effect.provide(net)))

  it.effect("refuses a peer when authorize fails or does not end before the stream does, and logs the failure", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob } = yield* pair
      const { handler, state } = waiting()
      const answers: Array<Effect.Effect<boolean, string>> = [Effect.fail("the list is gone"), Effect.never]
      yield* bob.protocols.handle(protocol, handler, {
        maxStreamsPerPeer: 1,
        authorize: () => answers.shift() ?? Effect.succeed(true)
      })
      assert.isTrue(yield* isReset((yield* opened(alice, bob.id)).stream))
      assert.strictEqual(lines.length, 1)
      assert.deepStrictEqual((yield* bob.manager.status).streams.refused, { unauthorized: 1 })
      yield* (yield* opened(alice, bob.id)).end(reset)
      assert.strictEqual(state.begun, 0)
      yield* opened(alice, bob.id)
      assert.strictEqual(state.running, 1)
    }).pipe(Effect.provide(net), LogLines.capture))

  it.effect("does not call the handler for a peer that authorize has not allowed yet", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const called: Array<PeerId> = []
      const handler = ({ connection }: ByteStream) => {
        called.push(connection.peer)
        return Effect.void
      }
      const answers = [false, true]
      yield* bob.protocols.handle(protocol, handler, {
        authorize: () => Effect.delay(Effect.sync(() => answers.shift()!), "1 second")
      })
      const refused = yield* opened(alice, bob.id)
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* isReset(refused.stream))
      yield* opened(alice, bob.id)
      assert.deepStrictEqual(called, [])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(called, [alice.id])
    }).pipe(Effect.provide(net)))

  it.effect("counts no stream for which authorize or the handler threw", () =>
    Effect.gen(function*() {
      const lines = yield* LogLines.lines
      const { alice, bob } = yield* pair
      const { handler, state } = waiting()
      const thrown = (what: string): never => {
        throw new Error(what)
      }
      const authorized = [() => thrown("no list"), () => true, () => true]
      const handled = [() => thrown("no handler"), handler]
      yield* bob.protocols.handle(protocol, (stream) => handled.shift()!(stream), {
        maxStreamsPerPeer: 1,
        authorize: () => Effect.succeed(authorized.shift()!())
      })
      for (let n = 0; n < 2; n++) assert.isTrue(yield* isReset((yield* opened(alice, bob.id)).stream))
      assert.strictEqual(lines.length, 2)
      assert.deepStrictEqual((yield* bob.manager.status).streams.refused, { unauthorized: 1 })
      yield* opened(alice, bob.id)
      assert.strictEqual(state.running, 1)
    }).pipe(Effect.provide(net), LogLines.capture))

  it.effect("lets maxBufferedBytesPerPeer wait in a peer's streams, then resets the fullest", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const { handler, state } = waiting()
      yield* bob.protocols.handle(protocol, handler, { maxBufferedBytesPerPeer: 100_000 })
      const small = yield* opened(alice, bob.id)
      const large = yield* opened(alice, bob.id)
      yield* TestNetwork.run(small.stream.write(new Uint8Array(40_000)))
      yield* TestNetwork.run(large.stream.write(new Uint8Array(60_000)))
      assert.deepStrictEqual([state.running, (yield* bob.manager.status).streams.buffered], [2, 100_000])
      yield* TestNetwork.run(small.stream.write(new Uint8Array(1)))
      const { buffered, refused } = (yield* bob.manager.status).streams
      assert.deepStrictEqual([state.running, buffered, refused], [1, 40_001, { buffered: 1 }])
      assert.isTrue(yield* isReset(large.stream))
    }).pipe(Effect.provide(net)))
})

describe("the streams of a node", () => {
  it.effect("let maxBufferedBytes wait, then the peer that holds the most loses its fullest stream", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const carol = yield* CoreNode.make("carol")
      const bob = yield* CoreNode.make("bob", { maxBufferedBytes: 1_048_576 })
      for (const node of [alice, carol]) yield* TestNetwork.run(node.manager.connect((yield* bob.addresses)[0]!))
      const { handler, state } = waiting()
      yield* bob.protocols.handle(protocol, handler)
      const honest = yield* opened(carol, bob.id)
      yield* TestNetwork.run(honest.stream.write(new Uint8Array(200_000)))
      const before = (yield* bob.manager.status).streams
      assert.deepStrictEqual([before.buffered, before.bufferLimit], [200_000, 1_048_576])
      for (let n = 0; n < 20; n++) {
        const { stream } = yield* opened(alice, bob.id)
        yield* Effect.forkScoped(Effect.exit(stream.write(new Uint8Array(150_000))))
        yield* TestClock.adjust(0)
        assert.isAtMost((yield* bob.manager.status).streams.buffered, 1_048_576)
      }
      // Five of Alice's 20 fit beside Carol's.
      const { refused } = (yield* bob.manager.status).streams
      assert.deepStrictEqual([state.running, refused], [6, { buffered: 15 }])
      const reading = yield* Effect.forkChild(Stream.runDrain(honest.stream.read), { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(reading.pollUnsafe())
      yield* Fiber.interrupt(reading)
    }).pipe(Effect.provide(net)))
})
