/**
 * What only real libp2p nodes can show of the Transport port; the rest is in the contract suite.
 */
import { assert, describe, it } from "@effect/vitest"
import { publicKeyToProtobuf } from "@libp2p/crypto/keys"
import { Deferred, Duration, Effect, Exit, Fiber, Layer, Option, Queue, Scope, Stream } from "effect"
import type { AddressInfo, Server, Socket } from "node:net"
import { createServer } from "node:net"
import type { DialError } from "../../../src/schema/NetworkError.ts"
import { type Multiaddr, type PeerId, type ProtocolId, withoutPeer } from "../../../src/schema/Peer.ts"
import { transportContract } from "../../contract/TransportContract.ts"
import { makeNode, makePair, openPair } from "../../support/Libp2pNode.ts"
import { pingsOn } from "../../support/PlainLibp2p.ts"
import { unprintable } from "../../support/unprintable.ts"

const protocol = "/test/1.0.0" as ProtocolId
const stranger = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5" as PeerId
const text = (value: string) => new TextEncoder().encode(value)

transportContract("Transport over libp2p", {
  makeTransport: () => Effect.map(makeNode({ closed: true }), ({ transport }) => transport),
  layer: Layer.empty,
  nobody: "/ip4/127.0.0.1/tcp/1" as Multiaddr,
  foreign: "/ip4/127.0.0.1/udp/4001/quic-v1" as Multiaddr,
  timeLimit: "1 minute"
})

const reasonOf = (dial: Effect.Effect<unknown, DialError>) => Effect.map(Effect.flip(dial), (error) => error.reason)

/** A plain TCP server, and its sockets. */
const makeServer = (onSocket: (socket: Socket) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly server: Server; readonly sockets: Set<Socket>; readonly address: Multiaddr }>(
      (resume) => {
        const sockets = new Set<Socket>()
        const server = createServer((socket) => {
          sockets.add(socket)
          socket.on("error", () => {})
          onSocket(socket)
        })
        server.listen(0, "127.0.0.1", () => {
          const { port } = server.address() as AddressInfo
          resume(Effect.succeed({ server, sockets, address: `/ip4/127.0.0.1/tcp/${port}` as Multiaddr }))
        })
      }
    ),
    ({ server, sockets }) =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
        server.close()
      })
  )

/** Destroys the TCP sockets under a node's connections; a pulled cable would leave them open. */
const cut = (node: { readonly host: { readonly node: { getConnections: () => ReadonlyArray<object> } } }) =>
  Effect.sync(() => {
    for (const connection of node.host.node.getConnections()) {
      ;(connection as unknown as { readonly maConn: { readonly socket: Socket } }).maConn.socket.destroy()
    }
  })

describe("dial over libp2p", () => {
  it.live("tells why it failed", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode()
      const { transport } = a
      const address = withoutPeer(yield* b.address)

      const wrong = yield* Effect.flip(transport.dial(`${address}/p2p/${stranger}` as Multiaddr))
      assert.deepInclude(wrong.reason, { _tag: "UnexpectedPeer", expected: stranger })
      assert.include(wrong.message, `dial ${address}/p2p/${stranger}: another peer than ${stranger} answers there`)
      assert.isFalse(wrong.isRetryable)

      assert.strictEqual((yield* reasonOf(transport.dial(yield* a.address)))._tag, "DialedSelf")
      assert.strictEqual((yield* reasonOf(transport.dial(transport.localPeer)))._tag, "DialedSelf")
      assert.strictEqual((yield* reasonOf(transport.dial(withoutPeer(yield* a.address))))._tag, "DialedSelf")

      const free = yield* makeServer(() => {})
      free.server.close()
      yield* Effect.callback<void>((resume) => void free.server.once("close", () => resume(Effect.void)))
      assert.deepInclude(yield* reasonOf(transport.dial(free.address)), {
        _tag: "Unreachable",
        detail: "connection refused"
      })

      assert.deepInclude(yield* reasonOf(transport.dial(stranger)), {
        _tag: "Unreachable",
        detail: "no address is known"
      })
      assert.strictEqual(
        (yield* reasonOf(transport.dial("/ip4/127.0.0.1/udp/4001/quic-v1" as Multiaddr)))._tag,
        "InvalidAddress"
      )
      assert.strictEqual((yield* reasonOf(transport.dial("/nonsense" as Multiaddr)))._tag, "InvalidAddress")
      assert.strictEqual((yield* reasonOf(transport.dial("nonsense" as PeerId)))._tag, "InvalidAddress")

      const mute = yield* makeServer((socket) => socket.end("220 mail.example.org ESMTP\r\n"))
      const handshake = yield* reasonOf(transport.dial(mute.address))
      assert.strictEqual(handshake._tag, "Unreachable")
      assert.include(handshake.message, "the connection broke during the handshake")
      assert.deepStrictEqual(a.host.node.getConnections(), [])
    }))

  it.live("reports a timeout for an address that takes the connection and says nothing", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const silent = yield* makeServer(() => {})
      assert.strictEqual((yield* reasonOf(a.transport.dial(silent.address)))._tag, "DialTimeout")
    }))

  it.live("tries the other addresses of a peer when one is dead", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode()
      const free = yield* makeServer(() => {})
      free.server.close()
      const addresses = [
        free.address,
        `/ip4/127.0.0.1/tcp/1/p2p/${stranger}` as Multiaddr,
        "/ip4/127.0.0.1/udp/1/quic-v1" as Multiaddr,
        withoutPeer(yield* b.address)
      ]
      const connection = yield* a.transport.dial({ id: b.transport.localPeer, addresses })
      assert.strictEqual(connection.peer, b.transport.localPeer)
      assert.strictEqual(connection.remoteAddress, addresses[3])
    }))

  it.live("is refused by a remote whose gate says no to the peer, and denied by an own gate", () =>
    Effect.gen(function*() {
      const a = yield* makeNode({ closed: true })
      const b = yield* makeNode({ closed: true })
      const target = yield* b.address
      assert.strictEqual((yield* reasonOf(a.transport.dial(target)))._tag, "Unreachable")
      yield* Effect.scoped(Effect.gen(function*() {
        yield* b.transport.gate((request) => Effect.succeed(request.stage === "address"))
        assert.strictEqual((yield* reasonOf(a.transport.dial(target)))._tag, "Refused")
      }))
      assert.deepStrictEqual(yield* Queue.clear(b.transport.events), [])
      yield* b.transport.gate(() => Effect.succeed(true))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* a.transport.gate(() => Effect.succeed(false))
        assert.strictEqual((yield* reasonOf(a.transport.dial(target)))._tag, "Denied")
      }))
      yield* a.transport.gate(() => Effect.die("a gate with a fault refuses"))
      assert.strictEqual((yield* reasonOf(a.transport.dial(target)))._tag, "Denied")
    }))

  it.live("ends when its node stops, and leaves nothing", () =>
    Effect.gen(function*() {
      const connected = yield* Deferred.make<void>()
      const silent = yield* makeServer(() => Deferred.doneUnsafe(connected, Effect.void))
      const scope = yield* Scope.make()
      const a = yield* Scope.provide(scope)(makeNode())
      const dial = yield* Effect.forkChild(reasonOf(a.transport.dial(silent.address)))
      yield* Deferred.await(connected)
      const [closing] = yield* Effect.timed(Scope.close(scope, Exit.void))
      // Without interruption the dial would last 3 s.
      assert.isBelow(Duration.toMillis(closing), 2700)
      assert.strictEqual((yield* Fiber.join(dial))._tag, "Denied")
    }))

  it.live("closes the connection of a dial that is interrupted, also while it waits for identify", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode()
      // A remote that does not answer identify.
      yield* Effect.promise(() => Promise.resolve(b.host.node.unhandle("/ipfs/id/1.0.0")))
      yield* Effect.promise(() => Promise.resolve(b.host.node.handle("/ipfs/id/1.0.0", () => {})))
      const dial = yield* Effect.forkChild(a.transport.dial(yield* b.address))
      const opened = yield* Queue.take(a.transport.events)
      assert.strictEqual(opened._tag, "Opened")
      yield* Fiber.interrupt(dial)
      const closed = yield* Queue.take(a.transport.events)
      assert.strictEqual(closed._tag, "Closed")
      assert.strictEqual(closed.connection, opened.connection)
      assert.isFalse(yield* closed.connection.isOpen)
    }))

  it.live("does not wait 2 s for a remote without identify", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode()
      yield* Effect.promise(() => Promise.resolve(b.host.node.unhandle("/ipfs/id/1.0.0")))
      const took: Array<number> = []
      for (let i = 0; i < 3; i++) {
        const [time, connection] = yield* Effect.timed(a.transport.dial(yield* b.address))
        took.push(Duration.toMillis(time))
        assert.deepStrictEqual(yield* connection.remote, Option.none())
        yield* connection.close
      }
      // Another process may delay a run, but not every run.
      assert.isBelow(Math.min(...took), 1500)
    }))
})

describe("identify over libp2p", () => {
  it.live("leaves out an address that cannot be printed", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode()
      const { node } = b.host
      const field = (number: number, value: Uint8Array) => [number << 3 | 2, value.length, ...value]
      const told = [
        ...field(1, publicKeyToProtobuf(node.peerId.publicKey!)),
        ...field(4, unprintable),
        ...field(6, text("stranger"))
      ]
      yield* Effect.promise(async () => {
        await node.unhandle("/ipfs/id/1.0.0")
        await node.handle("/ipfs/id/1.0.0", (stream) => {
          stream.send(Uint8Array.from([told.length, ...told]))
          return stream.close()
        })
      })
      const connection = yield* a.transport.dial(yield* b.address)
      assert.deepStrictEqual(
        yield* connection.remote,
        Option.some({ agentVersion: "stranger", listenAddresses: [], protocols: [], protocolVersion: "" })
      )
      assert.deepStrictEqual((yield* Queue.takeN(a.transport.events, 2)).map(({ _tag }) => _tag), [
        "Opened",
        "Identified"
      ])
    }))
})

describe("connections over libp2p", () => {
  it.live("two dials at once give two connections of one peer, each reported once", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode()
      const [toB, toA] = [yield* b.address, yield* a.address]
      const [first, second] = yield* Effect.all([a.transport.dial(toB), b.transport.dial(toA)], { concurrency: 2 })
      assert.notStrictEqual(first.id, second.id)
      yield* first.close
      yield* second.close
      const events = yield* Queue.takeN(a.transport.events, 4).pipe(
        Effect.andThen((some) => Effect.map(Queue.clear(a.transport.events), (more) => [...some, ...more]))
      )
      const opened = events.filter((event) => event._tag === "Opened").map(({ connection }) => connection.id)
      assert.strictEqual(new Set(opened).size, opened.length)
    }))

  it.live("reports connections that are older than the layer", () =>
    Effect.gen(function*() {
      const [, b, connection] = yield* makePair
      assert.strictEqual(connection.peer, b.transport.localPeer)
      const events = yield* Queue.takeN(b.transport.events, 2)
      assert.deepStrictEqual(events.map(({ _tag }) => _tag), ["Opened", "Identified"])
    }))

  it.live("counts application streams only", () =>
    Effect.gen(function*() {
      const { b, connection, stream } = yield* openPair(() => Effect.never)
      assert.strictEqual(yield* connection.activeStreams, 1)
      yield* Effect.promise(async () => {
        const [underlying] = b.host.node.getConnections()
        await underlying!.newStream("/ipfs/ping/1.0.0")
      })
      assert.strictEqual(yield* connection.activeStreams, 1)
      yield* stream.closeWrite
      assert.strictEqual(yield* connection.activeStreams, 1)
    }))

  it.live("pings a peer once at a time, since Rust resets a ping when another begins", () =>
    Effect.gen(function*() {
      const [a, b] = yield* makePair
      yield* a.transport.ping(b.transport.localPeer)
      const [underlying] = a.host.node.getConnections()
      const seen = { sent: 0, asked: 0, most: 0 }
      for (const stream of pingsOn(underlying!)) {
        const send = stream.send.bind(stream)
        stream.send = (data) => {
          seen.sent++
          seen.most = Math.max(seen.most, ++seen.asked)
          return send(data)
        }
        stream.addEventListener("message", () => seen.asked--)
      }
      yield* Effect.forEach(Array.from({ length: 5 }), () => a.transport.ping(b.transport.localPeer), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(seen, { sent: 5, asked: 0, most: 1 })
    }))

  it.live("pings over the open connection, and never dials", () =>
    Effect.gen(function*() {
      const [a, b, connection] = yield* makePair
      assert.isAbove(Duration.toMillis(yield* a.transport.ping(b.transport.localPeer)), 0)
      const many = yield* Effect.forEach(Array.from({ length: 12 }), () => a.transport.ping(b.transport.localPeer), {
        concurrency: 12
      })
      assert.lengthOf(many, 12)

      const [underlying] = b.host.node.getConnections()
      yield* Effect.promise(async () => {
        await b.host.node.unhandle("/ipfs/ping/1.0.0")
        for (const stream of pingsOn(underlying!)) stream.abort(new Error("no more pings"))
      })
      assert.strictEqual((yield* Effect.flip(a.transport.ping(b.transport.localPeer))).reason._tag, "PingUnsupported")
      yield* Effect.promise(() =>
        Promise.resolve(b.host.node.handle("/ipfs/ping/1.0.0", () => {
          throw new Error("no")
        }))
      )
      assert.strictEqual((yield* Effect.flip(a.transport.ping(b.transport.localPeer))).reason._tag, "StreamFailed")

      yield* connection.close
      const gone = yield* Effect.flip(a.transport.ping(b.transport.localPeer))
      assert.deepInclude(gone.reason, { _tag: "StreamFailed", detail: "the peer is not connected" })
      assert.deepStrictEqual(a.host.node.getConnections(), [])
    }))
})

describe("streams over libp2p", () => {
  it.live("a reader fails when the remote resets, and when the connection is cut, never ends as if all had come", () =>
    Effect.gen(function*() {
      const served = yield* Deferred.make<void>()
      const first = yield* openPair((stream) =>
        stream.write(text("half")).pipe(
          Effect.orDie,
          Effect.andThen(Deferred.await(served)),
          Effect.andThen(Effect.die("a fault of the handler"))
        )
      )
      const fiber = yield* Effect.forkChild(
        Effect.flip(Stream.runForEach(first.stream.read, () => Deferred.succeed(served, undefined)))
      )
      const reset = yield* Fiber.join(fiber)
      assert.deepInclude(reset.reason, { _tag: "StreamReset", detail: "the remote reset the stream" })
      assert.strictEqual(reset.peer, first.b.transport.localPeer)

      const second = yield* openPair((stream) =>
        stream.write(text("half")).pipe(Effect.orDie, Effect.andThen(Effect.never))
      )
      const lost = yield* Effect.flip(Stream.runForEach(second.stream.read, () => cut(second.b)))
      assert.strictEqual(lost.reason._tag, "StreamReset")
      assert.strictEqual((yield* Effect.flip(second.stream.write(text("more")))).reason._tag, "StreamReset")
    }))

  it.live("a reader gets what was sent before a graceful close of the connection", () =>
    Effect.gen(function*() {
      const done = yield* Deferred.make<number>()
      const { connection, stream } = yield* openPair((stream) =>
        Stream.runFold(stream.read, () => 0, (sum, chunk) => sum + chunk.byteLength).pipe(
          Effect.orElseSucceed(() => -1),
          Effect.flatMap((sum) => Deferred.succeed(done, sum))
        )
      )
      yield* stream.write(new Uint8Array(1_000_000))
      yield* stream.closeWrite
      yield* connection.close
      assert.strictEqual(yield* Deferred.await(done), 1_000_000)
    }))

  it.live("a reader does not hang when the remote ended the stream during the negotiation", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode()
      // The handler ends before the opener has read the answer of the negotiation.
      yield* Effect.promise(() =>
        Promise.resolve(b.host.node.handle(protocol, (stream) => {
          stream.send(text("bye"))
          stream.close().catch(() => {})
        }))
      )
      const connection = yield* a.transport.dial(yield* b.address)
      const stream = yield* connection.open(protocol)
      assert.strictEqual(yield* Stream.mkString(Stream.decodeText(stream.read)), "bye")
    }))

  it.live("a remote that speaks no such protocol, and one whose handler throws", () =>
    Effect.gen(function*() {
      const [, b, connection] = yield* makePair
      assert.strictEqual(
        (yield* Effect.flip(Effect.scoped(connection.open(protocol)))).reason._tag,
        "ProtocolNotSupported"
      )
      yield* Effect.promise(() =>
        Promise.resolve(b.host.node.handle(protocol, () => {
          throw new Error("no")
        }))
      )
      const error = yield* Effect.flip(
        Effect.scoped(Effect.flatMap(connection.open(protocol), (stream) => Stream.runDrain(stream.read)))
      )
      assert.strictEqual(error.reason._tag, "StreamReset")
    }))

  it.live("carries more streams at once than libp2p's default", () =>
    Effect.gen(function*() {
      const [, b, connection] = yield* makePair
      yield* b.transport.handle(protocol, (stream) => Effect.ignore(Stream.runForEach(stream.read, stream.write)))
      const echoed = yield* Effect.forEach(Array.from({ length: 200 }, (_, i) => `${i}`), (word) =>
        Effect.scoped(Effect.gen(function*() {
          const stream = yield* connection.open(protocol)
          yield* stream.write(text(word))
          yield* stream.closeWrite
          return yield* Stream.mkString(Stream.decodeText(stream.read))
        })), { concurrency: "unbounded" /* 200 of them */ })
      assert.deepStrictEqual(
        echoed,
        Array.from({ length: 200 }, (_, i) =>
          `${i}`)
      )
    }))

  it.live("a handler's id can be taken once, and again after its scope", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      yield* Effect.scoped(Effect.gen(function*() {
        yield* a.transport.handle(protocol, () => Effect.void)
        const taken = yield* Effect.flip(Effect.scoped(a.transport.handle(protocol, () => Effect.void)))
        assert.strictEqual(taken.detail, "the id is taken: something answers it already")
        assert.include(a.host.node.getProtocols(), protocol)
      }))
      assert.notInclude(a.host.node.getProtocols(), protocol)
      yield* a.transport.handle(protocol, () => Effect.void)
    }))
})
