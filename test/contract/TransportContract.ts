/**
 * What every implementation of the `Transport` port promises, as one suite. It runs in real time and waits for events
 * only, so that it holds for sockets and for the simulator alike.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Latch,
  type Layer,
  Logger,
  Option,
  Queue,
  Scope,
  Stream
} from "effect"
import type { StreamError } from "../../src/schema/NetworkError.ts"
import type { RefusalReason } from "../../src/schema/NetworkEvent.ts"
import { type Multiaddr, type PeerId, peerOf, type ProtocolId, withoutPeer, withPeer } from "../../src/schema/Peer.ts"
import type { ByteStream, Connection, ConnectionEvent, GateRequest, Transport } from "../../src/services/Transport.ts"
import { eventually } from "./eventually.ts"

type Node = Transport["Service"]

export interface TransportFixture<R> {
  /** A new node that listens and has no rule in its gate. The name is unlike those of the test's other nodes. */
  readonly makeTransport: (name: string) => Effect.Effect<Node, unknown, Scope.Scope | R>
  /** What the nodes of one test share. */
  readonly layer: Layer.Layer<R>
  /** An address that could be dialled, but nobody listens there. */
  readonly nobody: Multiaddr
  /** A valid address of a kind that the transport cannot dial. */
  readonly foreign: Multiaddr
  /** How long each test may take. */
  readonly timeLimit: Duration.Input
}

export const transportContract = <R>(name: string, fixture: TransportFixture<R>): void => {
  const check = (behaviour: string, body: () => Effect.Effect<void, unknown, Scope.Scope | R>) =>
    it.live(behaviour, () =>
      body().pipe(
        Effect.scoped,
        Effect.timeoutOrElse({
          duration: fixture.timeLimit,
          orElse: () => Effect.die(new Error(`not done within the time limit`))
        }),
        Effect.provide(fixture.layer)
      ))

  const node = Effect.fnUntraced(function*(name: string) {
    const transport = yield* fixture.makeTransport(name)
    yield* transport.gate(() => Effect.succeed(true))
    return transport
  })
  const pair = Effect.all([node("alice"), node("bob")])
  const connected = Effect.gen(function*() {
    const [alice, bob] = yield* pair
    const atBob = yield* observe(bob)
    const connection = yield* alice.dial(yield* addressOf(bob))
    const inbound = yield* opened(atBob)
    return { alice, bob, atBob, connection, inbound }
  })

  describe(name, () => {
    describe("announce", () => {
      check(
        "adds an address to this node's own until the last scope that announces it has closed",
        () =>
          Effect.gen(function*() {
            const alice = yield* node("alice")
            const before = yield* alice.addresses
            const [one, two] = yield* Effect.all([Scope.make(), Scope.make()])
            yield* Scope.provide(alice.announce(fixture.nobody), one)
            yield* Scope.provide(alice.announce(fixture.nobody), two)
            const both = [...before, withPeer(withoutPeer(fixture.nobody), alice.localPeer)]
            assert.deepStrictEqual(yield* alice.addresses, both)
            yield* Scope.close(one, Exit.void)
            assert.deepStrictEqual(yield* alice.addresses, both)
            yield* Scope.close(two, Exit.void)
            assert.deepStrictEqual(yield* alice.addresses, before)
          })
      )
    })

    describe("dial", () => {
      check("connects to an address", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          const atBob = yield* observe(bob)
          const address = yield* addressOf(bob)
          assert.strictEqual(peerOf(address), bob.localPeer)
          const connection = yield* alice.dial(address)
          assert.strictEqual(connection.peer, bob.localPeer)
          assert.strictEqual(connection.direction, "outbound")
          assert.strictEqual(connection.remoteAddress, withoutPeer(address))
          assert.deepStrictEqual(yield* connection.path, { _tag: "Direct", holePunched: false })
          assert.isTrue(yield* connection.isOpen)
          const inbound = yield* opened(atBob)
          assert.strictEqual(inbound.peer, alice.localPeer)
          assert.strictEqual(inbound.direction, "inbound")
          assert.notStrictEqual(inbound.id, connection.id)
        }))

      check("connects to an address without a peer id", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          assert.strictEqual((yield* alice.dial(withoutPeer(yield* addressOf(bob)))).peer, bob.localPeer)
        }))

      check("connects to a peer at given addresses, also when the first of them is dead", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          const addresses = [fixture.nobody, withoutPeer(yield* addressOf(bob))]
          assert.strictEqual((yield* alice.dial({ id: bob.localPeer, addresses })).peer, bob.localPeer)
        }))

      check("gives the open connection of a peer that is connected", () =>
        Effect.gen(function*() {
          const { alice, bob, connection, inbound } = yield* connected
          const address = yield* addressOf(bob)
          assert.strictEqual(yield* alice.dial(address), connection)
          assert.strictEqual(yield* alice.dial(bob.localPeer), connection)
          assert.strictEqual(yield* alice.dial({ id: bob.localPeer, addresses: [address] }), connection)
          assert.strictEqual(yield* bob.dial(alice.localPeer), inbound)
        }))

      check("resolves when identify has told who the remote is", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          yield* bob.handle(echoProtocol, () => Effect.void)
          const atBob = yield* observe(bob)
          const connection = yield* alice.dial(yield* addressOf(bob))
          const remote = Option.getOrThrow(yield* connection.remote)
          assert.strictEqual(remote.protocolVersion, "/codio/1.0.0")
          assert.isTrue(remote.agentVersion.startsWith("codio-network/"))
          assert.include(remote.protocols, echoProtocol)
          assert.isAbove(remote.listenAddresses.length, 0)
          const inbound = yield* opened(atBob)
          yield* eventually("the dialler is identified", Effect.map(inbound.remote, Option.isSome))
        }))

      check("fails with Unreachable where nobody listens", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          assert.strictEqual(yield* dialReason(alice, fixture.nobody), "Unreachable")
          assert.strictEqual(yield* dialReason(alice, withPeer(fixture.nobody, bob.localPeer)), "Unreachable")
        }))

      check("fails with Unreachable for a peer of which no address is known", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          assert.strictEqual(yield* dialReason(alice, bob.localPeer), "Unreachable")
        }))

      check("fails with InvalidAddress for an address of another kind of transport", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          assert.strictEqual(yield* dialReason(alice, withPeer(fixture.foreign, bob.localPeer)), "InvalidAddress")
        }))

      check("fails with DialedSelf for its own id and its own address", () =>
        Effect.gen(function*() {
          const alice = yield* node("alice")
          assert.strictEqual(yield* dialReason(alice, alice.localPeer), "DialedSelf")
          assert.strictEqual(yield* dialReason(alice, yield* addressOf(alice)), "DialedSelf")
        }))

      check("fails with UnexpectedPeer where somebody else answers", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          const carol = yield* node("carol")
          const address = withPeer(withoutPeer(yield* addressOf(bob)), carol.localPeer)
          assert.strictEqual(yield* dialReason(alice, address), "UnexpectedPeer")
        }))

      check(
        "closes no connection when it is interrupted after the events have told who it is",
        () =>
          Effect.gen(function*() {
            const [alice, bob] = yield* pair
            const dial = yield* Effect.forkChild(alice.dial(yield* addressOf(bob)), { startImmediately: true })
            let event = yield* Queue.take(alice.events)
            while (event._tag !== "Identified") event = yield* Queue.take(alice.events)
            yield* Fiber.interrupt(dial)
            const { connection } = event
            assert.isTrue(yield* connection.isOpen)
            assert.strictEqual(yield* alice.dial(bob.localPeer), connection)
          })
      )

      check("leaves no connection behind when it is interrupted", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          const atAlice = yield* observe(alice)
          const atBob = yield* observe(bob)
          const fiber = yield* Effect.forkChild(alice.dial(yield* addressOf(bob)), { startImmediately: true })
          yield* Fiber.interrupt(fiber)
          const exit = yield* Fiber.await(fiber)
          // Without latency the dial was over before it could be interrupted.
          if (Exit.isSuccess(exit)) yield* exit.value.close
          const again = yield* alice.dial(yield* addressOf(bob))
          yield* again.close
          yield* eventually(
            "what opened has closed",
            Effect.sync(() =>
              [atAlice, atBob].every((log) => count(log, "Opened") > 0 && count(log, "Opened") === count(log, "Closed"))
            )
          )
        }))
    })

    describe("gate", () => {
      check("lets nobody in without a rule", () =>
        Effect.gen(function*() {
          const alice = yield* node("alice")
          const bob = yield* fixture.makeTransport("bob")
          const atBob = yield* observe(bob)
          assert.include(["Refused", "Unreachable"], yield* dialReason(alice, yield* addressOf(bob)))
          yield* bob.gate(() => Effect.succeed(true))
          yield* alice.dial(yield* addressOf(bob))
          yield* opened(atBob)
          assert.strictEqual(count(atBob, "Opened"), 1)
        }))

      check("lets a node without a rule dial", () =>
        Effect.gen(function*() {
          const alice = yield* fixture.makeTransport("alice")
          const bob = yield* node("bob")
          assert.strictEqual((yield* alice.dial(yield* addressOf(bob))).peer, bob.localPeer)
        }))

      check("asks for the address of an inbound connection before it knows the peer", () =>
        Effect.gen(function*() {
          const alice = yield* node("alice")
          const bob = yield* fixture.makeTransport("bob")
          const atBob = yield* observe(bob)
          const asked = yield* gated(bob, (request) => request.stage !== "address")
          assert.include(["Refused", "Unreachable"], yield* dialReason(alice, yield* addressOf(bob)))
          yield* eventually("the rule is asked", Effect.sync(() => asked.length > 0))
          assert.deepStrictEqual([...new Set(asked.map(({ direction, stage }) => `${direction} ${stage}`))], [
            "inbound address"
          ])
          assert.strictEqual(atBob.length, 0)
        }))

      check("asks for the peer in the last step, where a no is Refused at the dialler", () =>
        Effect.gen(function*() {
          const alice = yield* node("alice")
          const bob = yield* fixture.makeTransport("bob")
          const atBob = yield* observe(bob)
          const asked = yield* gated(bob, (request) => request.stage !== "peer")
          assert.strictEqual(yield* dialReason(alice, yield* addressOf(bob)), "Refused")
          assert.deepStrictEqual(asked.map(({ direction, stage }) => `${direction} ${stage}`), [
            "inbound address",
            "inbound peer"
          ])
          assert.deepStrictEqual(asked.flatMap((request) => request.stage === "peer" ? [request.peer] : []), [
            alice.localPeer
          ])
          assert.strictEqual(atBob.length, 0)
        }))

      check(
        "tells the dialler why, where the rule says it, and the connection is none of either side's",
        () =>
          Effect.gen(function*() {
            const alice = yield* node("alice")
            const bob = yield* fixture.makeTransport("bob")
            const atBob = yield* observe(bob)
            const words: Record<RefusalReason, string> = {
              full: "full",
              promised: "promised",
              inbound: "full",
              subnet: "full",
              connections: "full",
              pending: "full",
              rate: "full",
              blocked: "blocked",
              shutdown: "shutdown"
            }
            const address = yield* addressOf(bob)
            for (const [reason, expected] of Object.entries(words)) {
              yield* Effect.scoped(Effect.gen(function*() {
                yield* gated(bob, (request) => request.stage !== "peer" || reason as RefusalReason)
                const error = yield* Effect.flip(alice.dial(address))
                assert.deepStrictEqual([error.reason._tag, error.reason._tag === "Refused" && error.reason.why], [
                  "Refused",
                  expected
                ])
              }))
            }
            assert.strictEqual(atBob.length, 0)
          })
      )

      check(
        "says which inbound handshakes are in flight, and forgets them however they end",
        () =>
          Effect.gen(function*() {
            const alice = yield* node("alice")
            const bob = yield* fixture.makeTransport("bob")
            let answer: boolean | RefusalReason = true
            const asked = yield* gated(bob, (request) => request.stage === "address" || answer)
            const address = yield* addressOf(bob)
            const connection = yield* alice.dial(address)
            yield* connection.close
            for (answer of [false, "full"] as const) assert.strictEqual(yield* dialReason(alice, address), "Refused")
            answer = true
            yield* alice.dial(address)
            const pending = asked.flatMap((request) => request.stage === "address" ? [request.pending.length] : [])
            assert.deepStrictEqual(pending, [0, 0, 0, 0])
          })
      )

      check("asks for the peer of an own dial, where a no is Denied", () =>
        Effect.gen(function*() {
          const alice = yield* fixture.makeTransport("alice")
          const bob = yield* node("bob")
          const atAlice = yield* observe(alice)
          const asked = yield* gated(alice, () => false)
          assert.strictEqual(yield* dialReason(alice, yield* addressOf(bob)), "Denied")
          assert.deepStrictEqual(
            asked.map((request) => [request.direction, request.stage, request.stage === "peer" ? request.peer : ""]),
            [["outbound", "peer", bob.localPeer]]
          )
          assert.strictEqual(atAlice.length, 0)
        }))

      check("ends a rule with its scope, and then takes another", () =>
        Effect.gen(function*() {
          const alice = yield* node("alice")
          const bob = yield* fixture.makeTransport("bob")
          const scope = yield* Scope.make()
          yield* Scope.provide(bob.gate(() => Effect.succeed(true)), scope)
          const connection = yield* alice.dial(yield* addressOf(bob))
          yield* Scope.close(scope, Exit.void)
          yield* connection.close
          assert.include(["Refused", "Unreachable"], yield* dialReason(alice, yield* addressOf(bob)))
          yield* bob.gate(() => Effect.succeed(true))
          yield* alice.dial(yield* addressOf(bob))
        }))

      check("takes a second rule for a mistake of the program", () =>
        Effect.gen(function*() {
          const alice = yield* node("alice")
          assert.isTrue(Exit.hasDies(yield* Effect.exit(alice.gate(() => Effect.succeed(true)))))
        }))
    })

    describe("connection", () => {
      check("is one object for dial, events and handlers", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          const atAlice = yield* observe(alice)
          const atBob = yield* observe(bob)
          const seen = yield* Deferred.make<Connection>()
          yield* bob.handle(echoProtocol, (stream) => Effect.asVoid(Deferred.succeed(seen, stream.connection)))
          const connection = yield* alice.dial(yield* addressOf(bob))
          const stream = yield* connection.open(echoProtocol)
          assert.strictEqual(stream.connection, connection)
          assert.strictEqual(yield* opened(atAlice), connection)
          assert.strictEqual(yield* opened(atBob), yield* Deferred.await(seen))
        }))

      check("is reported once when it opens, is identified, and closes", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          const atAlice = yield* observe(alice)
          const atBob = yield* observe(bob)
          const rounds = 5
          for (let round = 0; round < rounds; round++) {
            const connection = yield* alice.dial(yield* addressOf(bob))
            yield* eventually("both are identified", Effect.sync(() => count(atBob, "Identified") === round + 1))
            yield* round % 2 === 0 ? connection.close : (yield* opened(atBob, round)).close
            yield* eventually(
              "both have closed",
              Effect.sync(() => count(atAlice, "Closed") === round + 1 && count(atBob, "Closed") === round + 1)
            )
          }
          for (const log of [atAlice, atBob]) {
            const ids = [...new Set(log.map(({ connection }) => connection.id))]
            assert.strictEqual(ids.length, rounds)
            for (const id of ids) {
              const tags = log.filter(({ connection }) => connection.id === id).map(({ _tag }) => _tag)
              assert.deepStrictEqual(tags, ["Opened", "Identified", "Closed"])
            }
          }
        }))

      check(
        "is flushed when the remote has what was left to it, whatever streams are open, and when it is closed",
        () =>
          Effect.gen(function*() {
            const { bob, connection } = yield* connected
            let received = 0
            yield* bob.handle(echoProtocol, (stream) =>
              Stream.runForEach(stream.read, (chunk) =>
                Effect.sync(() => received += chunk.length)).pipe(
                  Effect.ignore
                ))
            const open = yield* connection.open(echoProtocol)
            yield* open.write(new Uint8Array(10))
            yield* Effect.scoped(
              Effect.flatMap(connection.open(echoProtocol), (stream) =>
                stream.write(new Uint8Array(200_000)))
            )
            yield* connection.flushed
            yield* eventually("the remote has it", Effect.sync(() => received === 200_010))
            yield* connection.close
            yield* connection.flushed
          })
      )

      check("closes on both sides, and fails the streams it carried", () =>
        Effect.gen(function*() {
          const { bob, atBob, connection, inbound } = yield* connected
          yield* bob.handle(echoProtocol, echo)
          const stream = yield* connection.open(echoProtocol)
          yield* stream.write(bytesOf("hello"))
          yield* connection.close
          yield* connection.close
          assert.isFalse(yield* connection.isOpen)
          yield* eventually("the remote has closed", Effect.map(inbound.isOpen, (isOpen) => !isOpen))
          yield* eventually("the remote reports it", Effect.sync(() => count(atBob, "Closed") === 1))
          assert.strictEqual(yield* streamReason(stream.write(bytesOf("again"))), "StreamReset")
          assert.strictEqual(yield* streamReason(Effect.scoped(connection.open(echoProtocol))), "StreamReset")
        }))

      check("closes when both sides close it at once", () =>
        Effect.gen(function*() {
          const { connection, inbound } = yield* connected
          yield* Effect.all([connection.close, inbound.close], { concurrency: 2 })
          assert.deepStrictEqual([yield* connection.isOpen, yield* inbound.isOpen], [false, false])
        }))

      check("counts the streams that applications have open, whoever opened them", () =>
        Effect.gen(function*() {
          const { alice, bob, connection, inbound } = yield* connected
          yield* bob.handle(echoProtocol, echo)
          yield* alice.handle(echoProtocol, echo)
          const counts = Effect.all([connection.activeStreams, inbound.activeStreams])
          const are = (expected: number) =>
            eventually(
              `${expected} streams are open`,
              Effect.map(counts, (now) => now.every((count) => count === expected))
            )
          yield* are(0)
          const scope = yield* Scope.make()
          const one = yield* Scope.provide(connection.open(echoProtocol), scope)
          yield* Scope.provide(inbound.open(echoProtocol), scope)
          yield* are(2)
          yield* alice.ping(bob.localPeer)
          yield* are(2)
          yield* one.closeWrite
          yield* Stream.runDrain(one.read)
          yield* are(1)
          yield* Scope.close(scope, Exit.void)
          yield* are(0)
        }))

      check("counts no stream of pings, whoever pings", () =>
        Effect.gen(function*() {
          const { alice, bob, connection, inbound } = yield* connected
          yield* alice.ping(bob.localPeer)
          yield* bob.ping(alice.localPeer)
          const counts = Effect.all([connection.streams, inbound.streams])
          yield* eventually("no stream is open", Effect.map(counts, ([one, other]) => one + other === 0))
        }))
    })

    describe("progress", () => {
      check("is made by a ping, 32 bytes each way", () =>
        Effect.gen(function*() {
          const { alice, bob, connection, inbound } = yield* connected
          const before = yield* Effect.all([connection.progress, inbound.progress])
          yield* alice.ping(bob.localPeer)
          yield* eventually(
            "both sides have made progress",
            Effect.map(
              Effect.all([connection.progress, inbound.progress]),
              (now) => now.every((bytes, side) => bytes >= before[side]! + 32)
            )
          )
        }))

      const grown = (connection: Connection, bytes: number) =>
        eventually(`${bytes} bytes of progress`, Effect.map(connection.progress, (now) => now >= bytes))

      check("grows by what the remote sends", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          yield* bob.handle(echoProtocol, (stream) => Effect.ignore(stream.write(new Uint8Array(100_000))))
          const before = yield* connection.progress
          const stream = yield* connection.open(echoProtocol)
          yield* Stream.runDrain(stream.read)
          yield* grown(connection, before + 100_000)
        }))

      check("grows by what the remote reads", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          yield* bob.handle(echoProtocol, (stream) => Effect.ignore(Stream.runDrain(stream.read)))
          const before = yield* connection.progress
          const stream = yield* connection.open(echoProtocol)
          yield* Effect.forkChild(Effect.forever(stream.write(new Uint8Array(65_536))))
          yield* grown(connection, before + 1_000_000)
        }))

      check("hardly grows by pings, whoever sends them", () =>
        Effect.gen(function*() {
          const { alice, bob, connection, inbound } = yield* connected
          const sum = Effect.map(Effect.all([connection.progress, inbound.progress]), ([one, other]) => one + other)
          yield* Effect.all([alice.ping(bob.localPeer), bob.ping(alice.localPeer)])
          const before = yield* sum
          for (let i = 0; i < 10; i++) yield* Effect.all([alice.ping(bob.localPeer), bob.ping(alice.localPeer)])
          // Twenty streams, each counted on both sides.
          assert.isBelow((yield* sum) - before, 20 * 512)
        }))
    })

    describe("stream", () => {
      check("carries bytes both ways, whoever opened it", () =>
        Effect.gen(function*() {
          const { alice, bob, connection, inbound } = yield* connected
          yield* alice.handle(echoProtocol, echo)
          yield* bob.handle(echoProtocol, echo)
          for (const side of [connection, inbound]) {
            assert.strictEqual(yield* ask(side, "hello"), "hello")
          }
        }))

      check("carries many bytes in order, in chunks of any size", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          yield* bob.handle(echoProtocol, echo)
          const bytes = Uint8Array.from({ length: 3_000_001 }, (_, index) => (index * 7 + (index >> 8)) % 251)
          const stream = yield* connection.open(echoProtocol)
          const writing = Effect.gen(function*() {
            for (let from = 0, size = 1; from < bytes.length; from += size, size = size * 3 % 700_001) {
              yield* stream.write(bytes.subarray(from, from + size))
            }
            yield* stream.closeWrite
          })
          const [read] = yield* Effect.all([collect(stream), writing], { concurrency: 2 })
          assert.strictEqual(Buffer.compare(read, bytes), 0)
        }))

      check("runs many at once on one connection", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          yield* bob.handle(echoProtocol, echo)
          const texts = Array.from({ length: 40 }, (_, index) => `stream ${index}`)
          assert.deepStrictEqual(
            yield* Effect.forEach(texts, (text) => ask(connection, text), { concurrency: 20 }),
            texts
          )
        }))

      check("goes on from the remote after the opener has closed its half", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          yield* bob.handle(echoProtocol, (stream) =>
            Effect.ignore(Effect.gen(function*() {
              const question = yield* collect(stream)
              yield* stream.write(bytesOf(`${textOf(question)} answered`))
            })))
          assert.strictEqual(yield* ask(connection, "question"), "question answered")
        }))

      check("goes on from the opener after the remote has closed its half", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          const heard = yield* Deferred.make<string>()
          yield* bob.handle(echoProtocol, (stream) =>
            Effect.ignore(Effect.gen(function*() {
              yield* stream.write(bytesOf("first"))
              yield* stream.closeWrite
              yield* Deferred.succeed(heard, textOf(yield* collect(stream)))
            })))
          const stream = yield* connection.open(echoProtocol)
          assert.strictEqual(textOf(yield* collect(stream)), "first")
          yield* stream.write(bytesOf("last"))
          yield* stream.closeWrite
          assert.strictEqual(yield* Deferred.await(heard), "last")
        }))

      check("takes no writes after closeWrite, which may be called twice", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          yield* bob.handle(echoProtocol, echo)
          const stream = yield* connection.open(echoProtocol)
          yield* stream.closeWrite
          yield* stream.closeWrite
          assert.strictEqual(yield* streamReason(stream.write(bytesOf("late"))), "WriteAfterEnd")
        }))

      check("refuses what is no bytes, and goes on", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          yield* bob.handle(echoProtocol, echo)
          const stream = yield* connection.open(echoProtocol)
          for (const chunk of ["text", "", [], undefined, 5]) {
            assert.strictEqual(yield* streamReason(stream.write(chunk as never)), "ChunkInvalid")
          }
          yield* stream.write(bytesOf("hello"))
          yield* stream.closeWrite
          assert.strictEqual(textOf(yield* collect(stream)), "hello")
        }))

      check("suspends the writer while the remote does not read", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          const mayRead = yield* Latch.make()
          const received = yield* Deferred.make<number>()
          yield* bob.handle(echoProtocol, (stream) =>
            Effect.ignore(Effect.gen(function*() {
              yield* mayRead.await
              yield* Deferred.succeed(received, yield* sizeOf(stream))
            })))
          const stream = yield* connection.open(echoProtocol)
          const chunk = new Uint8Array(64 * 1024)
          const total = 24 * 1024 * 1024
          let written = 0
          const writing = Effect.gen(function*() {
            while (written < total) {
              yield* stream.write(chunk)
              written += chunk.length
            }
            yield* stream.closeWrite
          })
          const writer = yield* Effect.forkChild(writing)
          // The only sign of a suspended writer is that it does not end.
          assert.isTrue(Option.isNone(yield* Effect.timeoutOption(Fiber.await(writer), "400 millis")))
          assert.isAbove(written, 0)
          assert.isAtMost(written, 8 * 1024 * 1024)
          yield* mayRead.open
          yield* Fiber.join(writer)
          assert.strictEqual(yield* Deferred.await(received), total)
        }))

      check("loses nothing of what was sent before a clean end to a slow reader", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          const isOver = yield* Deferred.make<void>()
          const bytes = new Uint8Array(100_000).fill(7)
          yield* bob.handle(echoProtocol, (stream) =>
            Effect.ignore(stream.write(bytes)).pipe(Effect.ensuring(Deferred.succeed(isOver, undefined))))
          const stream = yield* connection.open(echoProtocol)
          yield* Deferred.await(isOver)
          assert.strictEqual(yield* sizeOf(stream), bytes.length)
        }))

      for (
        const [how, end] of [
          ["is interrupted", (stopped: Effect.Effect<void>) => Effect.andThen(stopped, Effect.never)],
          ["fails", (stopped: Effect.Effect<void>) => Effect.andThen(stopped, Effect.fail("broken"))]
        ] as const
      ) {
        check(`is reset at the remote when the scope of its opener ${how}`, () =>
          Effect.gen(function*() {
            const { bob, connection } = yield* connected
            const seen = yield* Deferred.make<string>()
            const begun = yield* Latch.make()
            yield* bob.handle(echoProtocol, (stream) =>
              streamReason(Stream.runForEach(stream.read, () =>
                begun.open)).pipe(
                  Effect.flatMap((reason) => Deferred.succeed(seen, reason)),
                  Effect.asVoid
                ))
            const use = Effect.scoped(Effect.gen(function*() {
              const stream = yield* connection.open(echoProtocol)
              yield* stream.write(bytesOf("begin"))
              return yield* end(begun.await)
            }))
            const fiber = yield* Effect.forkChild(use)
            yield* begun.await
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(yield* Deferred.await(seen), "StreamReset")
          }))
      }

      check("is reset when bytes still come after the remote has ended it", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          const seen = yield* Deferred.make<string>()
          yield* bob.handle(echoProtocol, (stream) =>
            streamReason(Effect.forever(stream.write(bytesOf("more")))).pipe(
              Effect.flatMap((reason) => Deferred.succeed(seen, reason)),
              Effect.asVoid
            ))
          yield* Effect.scoped(Effect.gen(function*() {
            const stream = yield* connection.open(echoProtocol)
            yield* Stream.runHead(stream.read)
          }))
          assert.strictEqual(yield* Deferred.await(seen), "StreamReset")
        }))
    })

    describe("the loss of a stream", () => {
      /** A stream whose handler waits for its loss. */
      const watched = Effect.gen(function*() {
        const { bob, connection, inbound } = yield* connected
        const handled = yield* Deferred.make<ByteStream>()
        const losses: Array<string> = []
        yield* bob.handle(echoProtocol, (stream) =>
          Effect.andThen(Deferred.succeed(handled, stream), stream.lost).pipe(
            Effect.flatMap((loss) => Effect.sync(() => void losses.push(loss))),
            Effect.andThen(Effect.never)
          ))
        const scope = yield* Scope.make()
        const stream = yield* Scope.provide(connection.open(echoProtocol), scope)
        yield* stream.write(bytesOf("begin"))
        const remote = yield* Deferred.await(handled)
        const lost = eventually("the loss is told", Effect.sync(() => losses.length > 0))
        return { connection, inbound, losses, lost, remote, scope, stream }
      })

      check("is told when the remote resets it", () =>
        Effect.gen(function*() {
          const { losses, lost, remote, scope } = yield* watched
          assert.deepStrictEqual(losses, [])
          yield* Scope.close(scope, Exit.fail("reset"))
          yield* lost
          assert.deepStrictEqual([losses, yield* remote.lost], [["cut"], "cut"])
        }))

      check("is told when the remote resets it after it had ended its half", () =>
        Effect.gen(function*() {
          const { losses, lost, remote, scope, stream } = yield* watched
          yield* stream.closeWrite
          yield* Stream.runDrain(remote.read)
          yield* Scope.close(scope, Exit.fail("reset"))
          yield* lost
          assert.deepStrictEqual(losses, ["cut"])
        }))

      check("is told when the connection is over, on both sides", () =>
        Effect.gen(function*() {
          const { inbound, losses, lost, stream } = yield* watched
          yield* inbound.close
          yield* lost
          assert.deepStrictEqual([losses, yield* stream.lost], [["cut"], "cut"])
        }))

      check(
        "is told as an end when the connection is over after the remote had ended its half",
        () =>
          Effect.gen(function*() {
            const { connection, losses, lost, remote, stream } = yield* watched
            yield* stream.closeWrite
            yield* Stream.runDrain(remote.read)
            assert.deepStrictEqual(losses, [])
            yield* connection.close
            yield* lost
            assert.deepStrictEqual([losses, yield* remote.lost], [["ended"], "ended"])
          })
      )

      check("is told to each stream of a connection that is over", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          let read = 0
          const losses: Array<string> = []
          yield* bob.handle(echoProtocol, (stream) =>
            Stream.runDrain(stream.read).pipe(
              Effect.andThen(Effect.sync(() => void read++)),
              Effect.andThen(stream.lost),
              Effect.flatMap((loss) => Effect.sync(() => void losses.push(loss))),
              Effect.ignore
            ))
          for (const _ of [1, 2, 3]) {
            const stream = yield* connection.open(echoProtocol)
            yield* stream.closeWrite
          }
          yield* eventually("all are read", Effect.sync(() => read === 3))
          yield* connection.close
          yield* eventually("all losses are told", Effect.sync(() => losses.length === 3))
          assert.deepStrictEqual(losses, ["ended", "ended", "ended"])
        }))

      check(
        "is not told for a stream that both sides have ended, before its connection is over",
        () =>
          Effect.gen(function*() {
            const { connection, losses, lost, remote, stream } = yield* watched
            yield* stream.closeWrite
            yield* Stream.runDrain(remote.read)
            yield* remote.closeWrite
            yield* Stream.runDrain(stream.read)
            yield* eventually("the stream is over", Effect.map(connection.activeStreams, (count) => count === 0))
            assert.deepStrictEqual(losses, [])
            yield* connection.close
            yield* lost
            assert.deepStrictEqual(losses, ["ended"])
          })
      )
    })

    describe("the account of its streams", () => {
      // Each piece in which they came may count a little more.
      const about = (sent: number) => (bytes: number) => bytes >= sent && bytes < sent + 4096
      check(
        "has what waits for a handler that does not read, and nothing when it is over",
        () =>
          Effect.gen(function*() {
            const { bob, connection } = yield* connected
            // What is unread belongs to the handler until it ends.
            yield* bob.handle(echoProtocol, (stream) => Effect.asVoid(stream.lost))
            const scope = yield* Scope.make()
            const stream = yield* Scope.provide(connection.open(echoProtocol), scope)
            yield* stream.write(new Uint8Array(50_000))
            yield* eventually("they wait", Effect.map(bob.streams.buffered, about(50_000)))
            yield* Scope.close(scope, Exit.fail("reset"))
            yield* eventually("nothing waits", Effect.map(bob.streams.buffered, (bytes) => bytes === 0))
          })
      )

      check(
        "resets the fullest of a peer's streams when more waits than its protocol lets",
        () =>
          Effect.gen(function*() {
            const { bob, connection } = yield* connected
            yield* bob.handle(echoProtocol, (stream) => Effect.asVoid(stream.lost), {
              maxBufferedBytesPerPeer: 100_000
            })
            const full = yield* connection.open(echoProtocol)
            yield* full.write(new Uint8Array(70_000))
            yield* eventually("they wait", Effect.map(bob.streams.buffered, about(70_000)))
            const other = yield* connection.open(echoProtocol)
            yield* other.write(new Uint8Array(50_000))
            assert.strictEqual(yield* streamReason(Stream.runDrain(full.read)), "StreamReset")
            assert.deepStrictEqual(yield* bob.streams.refusals, { buffered: 1 })
            yield* eventually("the rest waits", Effect.map(bob.streams.buffered, about(50_000)))
          })
      )
    })

    describe("handle", () => {
      check("answers a protocol without handler with ProtocolNotSupported", () =>
        Effect.gen(function*() {
          const { connection } = yield* connected
          assert.strictEqual(yield* streamReason(Effect.scoped(connection.open(echoProtocol))), "ProtocolNotSupported")
          assert.isTrue(yield* connection.isOpen)
        }))

      check("refuses a protocol that is taken, until the scope of its handler closes", () =>
        Effect.gen(function*() {
          const alice = yield* node("alice")
          const scope = yield* Scope.make()
          yield* Scope.provide(alice.handle(echoProtocol, echo), scope)
          const error = yield* Effect.flip(alice.handle(echoProtocol, echo))
          assert.strictEqual(error._tag, "ProtocolError")
          assert.strictEqual(error.protocol, echoProtocol)
          yield* Scope.close(scope, Exit.void)
          yield* alice.handle(echoProtocol, echo)
        }))

      check("ends with its scope, which resets the open streams", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          const scope = yield* Scope.make()
          yield* Scope.provide(bob.handle(echoProtocol, echo), scope)
          const stream = yield* connection.open(echoProtocol)
          yield* stream.write(bytesOf("hello"))
          assert.strictEqual(textOf(Option.getOrThrow(yield* Stream.runHead(stream.read))), "hello")
          const other = yield* connection.open(echoProtocol)
          yield* other.write(bytesOf("hello"))
          yield* Scope.close(scope, Exit.void)
          assert.strictEqual(yield* streamReason(Stream.runDrain(other.read)), "StreamReset")
          assert.strictEqual(yield* streamReason(Effect.scoped(connection.open(echoProtocol))), "ProtocolNotSupported")
        }))

      check("resets the stream of a handler that dies, and no other", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          yield* bob.handle(echoProtocol, echo)
          yield* bob.handle(brokenProtocol, (stream) =>
            Effect.andThen(Effect.ignore(Stream.runHead(stream.read)), Effect.die(new Error("a handler that dies"))))
          const healthy = yield* connection.open(echoProtocol)
          const broken = yield* connection.open(brokenProtocol)
          yield* broken.write(bytesOf("now"))
          assert.strictEqual(yield* streamReason(Stream.runDrain(broken.read)), "StreamReset")
          yield* healthy.write(bytesOf("still here"))
          yield* healthy.closeWrite
          assert.strictEqual(textOf(yield* collect(healthy)), "still here")
          assert.isTrue(yield* connection.isOpen)
        }).pipe(Effect.provide(Logger.layer([]))))

      check("gives a handler interrupted by its scope the time to end", () =>
        Effect.gen(function*() {
          const { bob, connection } = yield* connected
          const scope = yield* Scope.make()
          const started = yield* Latch.make()
          let isEnded = false
          yield* Scope.provide(
            bob.handle(echoProtocol, () =>
              Effect.andThen(started.open, Effect.never).pipe(
                Effect.onInterrupt(() =>
                  Effect.sync(() => {
                    isEnded = true
                  })
                )
              )),
            scope
          )
          yield* connection.open(echoProtocol)
          yield* started.await
          yield* Scope.close(scope, Exit.void)
          assert.isTrue(isEnded)
        }))
    })

    describe("ping", () => {
      check("measures the way to a connected peer and back, from both sides", () =>
        Effect.gen(function*() {
          const { alice, bob } = yield* connected
          const times = yield* Effect.all([alice.ping(bob.localPeer), bob.ping(alice.localPeer)])
          for (const time of times) {
            assert.isBelow(Duration.toMillis(time), Duration.toMillis(Duration.fromInputUnsafe(fixture.timeLimit)))
          }
        }))

      check(
        "sends one ping at a time, and runs what the caller asks when its turn comes",
        () =>
          Effect.gen(function*() {
            const { alice, bob } = yield* connected
            const seen: Array<string> = []
            const note = (word: string) => Effect.sync(() => void seen.push(word))
            yield* Effect.forEach(
              [1, 2, 3],
              (turn) => Effect.andThen(alice.ping(bob.localPeer, note(`${turn} begun`)), note(`${turn} answered`)),
              { concurrency: 3 }
            )
            assert.deepStrictEqual(seen, [1, 2, 3].flatMap((turn) => [`${turn} begun`, `${turn} answered`]))
          })
      )

      check("that is given up leaves the next one alone", () =>
        Effect.gen(function*() {
          const { alice, bob } = yield* connected
          for (let i = 0; i < 3; i++) {
            const ping = yield* Effect.forkChild(alice.ping(bob.localPeer), { startImmediately: true })
            yield* Fiber.interrupt(ping)
            yield* alice.ping(bob.localPeer)
          }
        }))

      check("fails with StreamFailed for a peer that is not connected", () =>
        Effect.gen(function*() {
          const [alice, bob] = yield* pair
          const atBob = yield* observe(bob)
          assert.strictEqual((yield* Effect.flip(alice.ping(bob.localPeer))).reason._tag, "StreamFailed")
          const connection = yield* alice.dial(yield* addressOf(bob))
          yield* connection.close
          assert.strictEqual((yield* Effect.flip(alice.ping(bob.localPeer))).reason._tag, "StreamFailed")
          yield* eventually("the remote has closed", Effect.sync(() => count(atBob, "Closed") === 1))
          assert.strictEqual(count(atBob, "Opened"), 1)
        }))
    })

    describe("end", () => {
      check("closes its connections, which the remotes see", () =>
        Effect.gen(function*() {
          const bob = yield* node("bob")
          const atBob = yield* observe(bob)
          const scope = yield* Scope.make()
          const alice = yield* Scope.provide(node("alice"), scope)
          const connection = yield* alice.dial(yield* addressOf(bob))
          yield* opened(atBob)
          yield* Scope.close(scope, Exit.void)
          assert.isFalse(yield* connection.isOpen)
          yield* eventually("the remote reports it", Effect.sync(() => count(atBob, "Closed") === 1))
        }))
    })
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const echoProtocol = "/contract/echo/1.0.0" as ProtocolId
const brokenProtocol = "/contract/broken/1.0.0" as ProtocolId

const bytesOf = (text: string) => new TextEncoder().encode(text)
const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

const addressOf = (node: Node): Effect.Effect<Multiaddr> => Effect.map(node.addresses, (addresses) => addresses[0]!)

const echo = (stream: ByteStream): Effect.Effect<void> => Effect.ignore(Stream.runForEach(stream.read, stream.write))

const collect = (stream: ByteStream): Effect.Effect<Uint8Array, StreamError> =>
  Effect.map(Stream.runCollect(stream.read), (chunks) => new Uint8Array(Buffer.concat(chunks)))

const sizeOf = (stream: ByteStream): Effect.Effect<number, StreamError> =>
  Stream.runFold(stream.read, () => 0, (size, chunk) => size + chunk.length)

/** Sends a text, ends this half, and gives what comes back until the end. */
const ask = (connection: Connection, text: string): Effect.Effect<string, StreamError> =>
  Effect.scoped(Effect.gen(function*() {
    const stream = yield* connection.open(echoProtocol)
    yield* stream.write(bytesOf(text))
    yield* stream.closeWrite
    return textOf(yield* collect(stream))
  }))

const dialReason = (node: Node, target: PeerId | Multiaddr): Effect.Effect<string> =>
  node.dial(target).pipe(
    Effect.flip,
    Effect.map((error) => {
      assert.strictEqual(error.target, target)
      return error.reason._tag
    }),
    Effect.catch((connection) => Effect.die(new Error(`expected no connection, got one to ${connection.peer}`)))
  )

const streamReason = <A>(effect: Effect.Effect<A, StreamError>): Effect.Effect<string> =>
  Effect.exit(effect).pipe(Effect.map((exit) => {
    if (Exit.isSuccess(exit)) return "success"
    const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    return error?.reason._tag ?? "defect"
  }))

const gated = (node: Node, allows: (request: GateRequest) => boolean | RefusalReason) => {
  const asked: Array<GateRequest> = []
  return Effect.as(
    node.gate((request) =>
      Effect.sync(() => {
        asked.push(request)
        return allows(request)
      })
    ),
    asked
  )
}

/** Takes the events of a node as they come. */
const observe = (node: Node) => {
  const log: Array<ConnectionEvent> = []
  const taking = Queue.take(node.events).pipe(
    Effect.map((event) => log.push(event)),
    Effect.forever({ disableYield: true }),
    // The queue ends when its node does.
    Effect.ignoreCause
  )
  return Effect.as(Effect.forkScoped(taking, { startImmediately: true }), log)
}

const count = (log: ReadonlyArray<ConnectionEvent>, tag: ConnectionEvent["_tag"]) =>
  log.filter(({ _tag }) => _tag === tag).length

const opened = (log: ReadonlyArray<ConnectionEvent>, index = 0): Effect.Effect<Connection> =>
  Effect.gen(function*() {
    const found = () => log.filter(({ _tag }) => _tag === "Opened")[index]
    yield* eventually("a connection opens", Effect.sync(() => found() !== undefined))
    return found()!.connection
  })
