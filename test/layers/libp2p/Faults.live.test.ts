/**
 * The faults of libp2p 3.3 that this library works around, each shown on plain libp2p. A test that fails here after an
 * update of libp2p shows that a fault is mended, and that its workaround can go.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { assert, describe, it } from "@effect/vitest"
import { identify } from "@libp2p/identify"
import type { Connection, Libp2p, Stream, StreamMuxerFactory } from "@libp2p/interface"
import { AbortError, stop } from "@libp2p/interface"
import { kadDHT } from "@libp2p/kad-dht"
import { ping, PING_PROTOCOL } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, type Scope } from "effect"
import { createLibp2p, type ServiceFactoryMap } from "libp2p"
import type { Socket } from "node:net"
import { closeConnection, dialUnjoined, textOf } from "../../../src/layers/libp2p/Faults.ts"
import { changed, endedByRemote, safe, watched } from "../../../src/layers/libp2p/wire/Yamux.ts"
import { eventually } from "../../contract/eventually.ts"
import { unprintable } from "../../support/unprintable.ts"

const protocol = "/test/1.0.0"
const run = <A>(body: () => Promise<A> | A) => Effect.promise(async () => body())

type Muxer = () => StreamMuxerFactory

const makeNode = (
  muxer: Muxer = yamux(),
  services: ServiceFactoryMap = {}
): Effect.Effect<Libp2p, never, Scope.Scope> =>
  Effect.acquireRelease(
    run(() =>
      createLibp2p({
        addresses: { listen: ["/ip4/127.0.0.1/tcp/0"] },
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [muxer],
        connectionMonitor: { enabled: false },
        services
      })
    ),
    (node) => run(() => node.stop())
  )

/** Two nodes, a connection, and one stream over it from the first to the second; both ends of both. */
const makeStream = (muxer?: Muxer) =>
  Effect.gen(function*() {
    const [a, b] = [yield* makeNode(muxer), yield* makeNode(muxer)]
    const accepted: Array<Stream> = []
    yield* run(() => b.handle(protocol, (stream) => void accepted.push(stream)))
    const connection = yield* run(() => a.dial(b.getMultiaddrs()))
    const stream = yield* run(() => connection.newStream(protocol))
    yield* eventually("the stream is accepted", Effect.sync(() => accepted.length === 1))
    return { a, b, connection, inbound: b.getConnections()[0]!, stream, remote: accepted[0]! }
  })

/** The microtasks that are queued meanwhile, which do not run. */
const captureMicrotasks = (body: () => void): Array<() => void> => {
  const original = globalThis.queueMicrotask
  const queued: Array<() => void> = []
  globalThis.queueMicrotask = (task) => void queued.push(task)
  try {
    body()
  } finally {
    globalThis.queueMicrotask = original
  }
  return queued
}

const cut = (connection: Connection) =>
  (connection as unknown as { readonly maConn: { readonly socket: Socket } }).maConn.socket.destroy()

describe("libp2p 3.3", () => {
  it.live("a stream of pings is reset some time after it was opened, though its pings go on", () =>
    Effect.gen(function*() {
      const [a, b] = [yield* makeNode(), yield* makeNode(yamux(), { ping: ping({ timeout: 2000 }) })]
      const connection = yield* run(() => a.dial(b.getMultiaddrs()))
      const stream = yield* run(() => connection.newStream(PING_PROTOCOL))
      let answers = 0
      stream.addEventListener("message", ({ data }) => {
        answers++
        stream.send(data)
      })
      stream.send(new Uint8Array(32))
      // A limit on silence would let it stand: the next ping leaves with each answer.
      yield* eventually("it is reset", Effect.sync(() => stream.status === "reset"))
      assert.isAbove(answers, 0)
    }))

  for (const [name, muxer, throws] of [["plain", yamux(), true], ["safe", changed(yamux(), [safe]), false]] as const) {
    it.live(`a ${name} muxer ${throws ? "throws" : "does not throw"} from a microtask when the connection ends in the turn of newStream`, () =>
      Effect.gen(function*() {
        const { connection } = yield* makeStream(muxer)
        const tasks = captureMicrotasks(() => {
          connection.newStream(protocol).catch(() => {})
          connection.abort(new Error("now"))
        })
        assert.isAbove(tasks.length, 0)
        const thrown = tasks.flatMap((task) => {
          try {
            task()
            return []
          } catch (cause) {
            return [(cause as Error).name]
          }
        })
        assert.deepStrictEqual(thrown, throws ? ["StreamStateError"] : [])
      }))
  }

  it.live("a stream whose connection is cut looks as if the remote had ended it", () =>
    Effect.gen(function*() {
      const muxer = changed(yamux(), [watched])
      const first = yield* makeStream(muxer)
      const closed = new Promise<Error | undefined>((resolve) =>
        first.stream.addEventListener("close", ({ error }) => resolve(error))
      )
      cut(first.inbound)
      assert.isUndefined(yield* run(() => closed))
      assert.strictEqual(first.stream.remoteWriteStatus, "closed")
      assert.isTrue(first.stream.readableEnded)
      assert.isFalse(endedByRemote(first.stream))

      const second = yield* makeStream(muxer)
      yield* run(() => second.remote.close())
      yield* eventually("the end arrives", Effect.sync(() => endedByRemote(second.stream)))
    }))

  it.live("a connection that is closed ends streams in the middle of their data", () =>
    Effect.gen(function*() {
      const muxer = changed(yamux(), [watched])
      const plain = yield* makeStream(muxer)
      plain.stream.send(new Uint8Array(8))
      yield* run(() => plain.connection.close())
      yield* eventually("it is over", Effect.sync(() => plain.inbound.status !== "open"))
      assert.isTrue(endedByRemote(plain.remote))

      const cured = yield* makeStream(muxer)
      cured.stream.send(new Uint8Array(8))
      yield* run(() => closeConnection(cured.connection, 250))
      yield* eventually("it is over", Effect.sync(() => cured.inbound.status !== "open"))
      assert.isFalse(endedByRemote(cured.remote))
      assert.strictEqual(cured.remote.status, "reset")
    }))

  it.live("a stream that is paused while it is being resumed reopens its window", () =>
    Effect.gen(function*() {
      const { remote, stream } = yield* makeStream()
      remote.pause()
      remote.addEventListener("message", () => remote.pause())
      stream.send(new Uint8Array(8))
      yield* eventually("the bytes arrive", Effect.sync(() => remote.readBufferLength === 8))
      remote.resume()
      assert.strictEqual(remote.readStatus, "paused")
      const paused = 5 // StreamState.Paused
      assert.notStrictEqual((remote as Stream & { readonly state?: number }).state, paused)
    }))

  it.live("onDrain waits once only", () =>
    Effect.gen(function*() {
      const { stream } = yield* makeStream()
      for (const _ of [1, 2]) {
        stream.writableNeedsDrain = true
        const drained = stream.onDrain()
        stream.dispatchEvent(new Event("drain"))
        yield* run(() => drained)
      }
      stream.writableNeedsDrain = true
      // Nothing drains, and yet it resolves.
      yield* run(() => stream.onDrain())
    }))

  it.live("a stream's close that waits rejects with an event, not an error, when the remote goes away", () =>
    Effect.gen(function*() {
      const { inbound, remote, stream } = yield* makeStream()
      remote.pause()
      while (stream.writeBufferLength < 1024 * 1024) stream.send(new Uint8Array(64 * 1024))
      const closing = stream.close().then(
        () => "closed",
        (reason: unknown) => reason instanceof Error ? "an error" : "an event"
      )
      cut(inbound)
      assert.strictEqual(yield* run(() => closing), "an event")
    }))

  const plainly = <A>(dial: () => Promise<A>) => dial()
  for (const [name, dialled, result] of [["a", plainly, "AbortError"], ["no", dialUnjoined, "connected"]] as const) {
    it.live(`${name} dial that joins one that was just given up fails with it`, () =>
      Effect.gen(function*() {
        const [a, b] = [yield* makeNode(), yield* makeNode()]
        const [first, second] = [new AbortController(), new AbortController()]
        const dial = ({ signal }: AbortController) => () => a.dial(b.getMultiaddrs(), { signal })
        const nameOf = ({ name }: Error) => name
        const givenUp = dial(first)().catch(nameOf)
        yield* run(() => new Promise((resolve) => setImmediate(resolve)))
        first.abort()
        const joining = dialled<Connection>(dial(second), second.signal).then(() => "connected", nameOf)
        assert.strictEqual(yield* run(() => givenUp), "AbortError")
        assert.strictEqual(yield* run(() => joining), result)
      }))
  }

  it.live("a dial that its own caller has given up is not dialled again", () =>
    Effect.gen(function*() {
      const controller = new AbortController()
      let dials = 0
      const dial = () => {
        dials++
        controller.abort()
        return Promise.reject(new AbortError())
      }
      const failed = yield* run(() => dialUnjoined(dial, controller.signal).catch(({ name }: Error) => name))
      assert.deepStrictEqual([failed, dials], ["AbortError", 1])
    }))

  it.live("a dial that is aborted each time is dialled again a few dozen times, for a second", () =>
    Effect.gen(function*() {
      let dials = 0
      const dial = () => {
        dials++
        return Promise.reject(new AbortError())
      }
      const { signal } = new AbortController()
      assert.strictEqual(yield* run(() => dialUnjoined(dial, signal).catch(({ name }: Error) => name)), "AbortError")
      assert.isAbove(dials, 2)
      assert.isBelow(dials, 100)
    }))

  it.live("every stream is told to the peer store", () =>
    Effect.gen(function*() {
      const { a, connection } = yield* makeStream()
      let merges = 0
      const merge = a.peerStore.merge.bind(a.peerStore)
      a.peerStore.merge = (...given) => {
        merges++
        return merge(...given)
      }
      yield* run(() => connection.newStream(protocol))
      yield* run(() => connection.newStream(protocol))
      assert.strictEqual(merges, 2)
    }))

  it.live("a node stores its addresses once more after it has stopped", () =>
    Effect.gen(function*() {
      const node = yield* makeNode()
      yield* run(() => node.stop())
      let patches = 0
      node.peerStore.patch = () => {
        patches++
        return Promise.reject(new Error("it has stopped"))
      }
      yield* eventually("the addresses are stored", Effect.sync(() => patches > 0))
    }))

  it.effect("an address that is read from bytes cannot always be printed", () =>
    Effect.sync(() => {
      const address = multiaddr(unprintable)
      assert.throws(() => address.toString())
      assert.isUndefined(textOf(address))
      assert.strictEqual<string | undefined>(textOf(multiaddr("/ip4/127.0.0.1/tcp/80")), "/ip4/127.0.0.1/tcp/80")
    }))

  it.live("kad-dht leaves its handler registered when it stops", () =>
    Effect.gen(function*() {
      const node = yield* Effect.acquireRelease(
        run(() =>
          createLibp2p({
            transports: [tcp()],
            connectionEncrypters: [noise()],
            streamMuxers: [yamux()],
            services: {
              identify: identify(),
              ping: ping(),
              dht: kadDHT({ protocol: "/test/kad/1.0.0", clientMode: false })
            }
          })
        ),
        (node) => run(() => node.stop())
      )
      yield* run(() => stop(node.services.dht))
      assert.include(node.getProtocols(), "/test/kad/1.0.0")
    }))
})
