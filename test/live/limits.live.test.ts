/**
 * The limits on real sockets.
 */
import { assert, describe, it } from "@effect/vitest"
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, Option, Stream } from "effect"
import { createLibp2p } from "libp2p"
import { once } from "node:events"
import { connect } from "node:net"
import type { Network } from "../../src/Network.ts"
import * as Live from "../support/live.ts"

const portOf = (node: Network["Service"]) =>
  Effect.map(node.addresses, ([address]) => Number(/tcp\/(\d+)/.exec(address!)![1]))

/** A socket that says nothing, and its state. */
const silentSocket = (port: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const socket = connect(port, "127.0.0.1")
      const state = { bytes: 0, closed: false }
      socket.on("data", (chunk) => {
        state.bytes += chunk.length
      })
      socket.on("error", () => {})
      socket.on("close", () => {
        state.closed = true
      })
      // A socket that is reset at once may never emit `connect`.
      await Promise.race([once(socket, "connect"), once(socket, "close")]).catch(() => {})
      return { socket, state }
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

/** Plain libp2p. `dial` opens a further connection, and tells whether it stands. */
const plainNode = Effect.map(
  Effect.acquireRelease(
    Effect.promise(() =>
      createLibp2p({
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()],
        connectionManager: { reconnectRetries: 0 },
        connectionMonitor: { enabled: false }
      })
    ),
    (node) => Effect.promise(async () => void await node.stop())
  ),
  (node) => ({
    dial: (address: string) =>
      Effect.gen(function*() {
        const connection = yield* Effect.promise(() => node.dial(multiaddr(address), { force: true }).catch(() => {}))
        if (connection === undefined) return false
        // A connection that is refused closes within a round trip, since its muxer says why.
        return yield* Effect.promise(() => connection.newStream("/echo/1.0.0").then(() => true, () => false))
      })
  })
)

describe("limits on real sockets", () => {
  it.live("lets maxPendingInbound handshakes be in flight, half of them from one host", () =>
    Effect.gen(function*() {
      const node = yield* Live.makeNode({ maxPendingInbound: 4 })
      const other = yield* Live.makeNode()
      const port = yield* portOf(node)
      const [first, second] = yield* Effect.all([silentSocket(port), silentSocket(port)])
      const third = yield* silentSocket(port)
      yield* Live.until(Effect.sync(() => third.state.closed))
      assert.deepStrictEqual([third.state.bytes, first.state.closed, second.state.closed], [0, false, false])
      const [address] = yield* node.addresses
      const error = yield* Effect.flip(other.connect(address!))
      assert.strictEqual(error._tag === "DialError" && error.reason._tag, "Unreachable")
      first.socket.destroy()
      yield* Live.until(Effect.map(Effect.result(other.connect(address!)), ({ _tag }) => _tag === "Success"))
      assert.strictEqual(yield* node.peerCount, 1)
    }))

  it.live("closes what a host opens above its rate, before a byte of the handshake", () =>
    Effect.gen(function*() {
      const node = yield* Live.makeNode({ inboundRate: 1, inboundBurst: 3 })
      const port = yield* portOf(node)
      const begun = performance.now()
      const sockets = yield* Effect.all(Array.from({ length: 8 }, () => silentSocket(port)), { concurrency: 8 })
      const open = () => sockets.filter(({ state }) => !state.closed).length
      const refused = () => sockets.filter(({ state }) => state.closed)
      // The burst, and one more for each second since.
      yield* Live.until(
        Effect.sync(() => refused().length > 0 && open() <= 3 + Math.floor((performance.now() - begun) / 1000))
      )
      assert.isAtLeast(open(), 3)
      assert.isTrue(refused().every(({ state }) => state.bytes === 0))
      // A second later the bucket has a token again.
      const other = yield* Live.makeNode()
      const [address] = yield* node.addresses
      yield* Live.until(Effect.map(Effect.result(other.connect(address!)), ({ _tag }) => _tag === "Success"))
    }))

  it.live(
    "tells who is refused that it is full, and neither side counts the other as a peer",
    () =>
      Effect.gen(function*() {
        const node = yield* Live.makeNode({ maxPeers: 1 })
        const [address] = yield* node.addresses
        const refusals = yield* Live.record(node)
        const first = yield* Live.makeNode()
        yield* first.connect(address!)
        yield* Live.until(Effect.map(node.peerCount, (count) => count === 1))
        const others = yield* Effect.all(Array.from({ length: 4 }, () => Live.makeNode()))
        const seen = yield* Effect.forEach(others, Live.record)
        const errors = yield* Effect.forEach(
          Array.from({ length: 10 }, () => others).flat(),
          (other) => Effect.flip(other.connect(address!)),
          { concurrency: 4 }
        )
        const reasons = errors.map((error) =>
          error._tag === "DialError" && error.reason._tag === "Refused" && error.reason.why
        )
        assert.deepStrictEqual(reasons, Array.from({ length: 40 }, () => "full"))
        assert.strictEqual(yield* node.peerCount, 1)
        for (const events of seen) assert.isFalse(events.some((event) => event._tag === "PeerConnected"))
        const told = () => refusals.flatMap((event) => event._tag === "PeerRefused" ? [event] : [])
        yield* Live.until(Effect.sync(() => told().length >= 40))
        const refused = told()
        assert.strictEqual(refused.length, 40)
        assert.deepStrictEqual([refused[0]?.direction, refused[0]?.reason], ["inbound", "full"])
        assert.isTrue(others.some((other) => other.localPeer === refused[0]?.peer))
      })
  )

  it.live("lets no peer take the connections of others: 13 ids that want 8 each leave room for 5 newcomers", () =>
    Effect.gen(function*() {
      const node = yield* Live.makeNode({ maxPeers: 20, inboundBurst: 1000 })
      yield* node.handle("/echo/1.0.0", (stream) => Stream.runForEach(stream.read, stream.write))
      const [address] = yield* node.addresses
      const crowd = yield* Effect.all(Array.from({ length: 13 }, () => plainNode), { concurrency: 4 })
      const dialAll = (one: typeof crowd[number]) =>
        Effect.forEach(Array.from({ length: 8 }, () => address!), (to) => one.dial(to))
      const dials = (yield* Effect.forEach(crowd, dialAll, { concurrency: 13 })).flat()
      const opened = dials.filter((stands) => stands).length
      assert.isAtMost(opened, 3 * 13)
      assert.strictEqual((yield* node.status).refusals["connections"], 8 * 13 - opened)
      assert.strictEqual(yield* node.peerCount, 13)
      for (let n = 0; n < 5; n++) {
        const newcomer = yield* Live.makeNode()
        const bytes = yield* Effect.scoped(Effect.gen(function*() {
          const stream = yield* newcomer.open(address!, "/echo/1.0.0")
          yield* stream.write(Uint8Array.of(n))
          return yield* Stream.runHead(stream.read)
        }))
        assert.deepStrictEqual(bytes, Option.some(Uint8Array.of(n)))
      }
    }))

  it.live("tells a blocked peer that it is blocked", () =>
    Effect.gen(function*() {
      const [node, other] = yield* Effect.all([Live.makeNode(), Live.makeNode()])
      yield* node.block(other.localPeer)
      const [address] = yield* node.addresses
      const error = yield* Effect.flip(other.connect(address!))
      assert.strictEqual(error._tag === "DialError" && error.reason._tag === "Refused" && error.reason.why, "blocked")
      assert.match(error.message, /it blocks this peer/)
    }))

  it.live("tells a peer that it was evicted", () =>
    Effect.gen(function*() {
      const [node, stranger, wanted] = yield* Effect.all([
        Live.makeNode({ maxPeers: 1 }),
        Live.makeNode(),
        Live.makeNode()
      ])
      const [here, there] = yield* Effect.all([Live.record(node), Live.record(stranger)])
      yield* Effect.flatMap(node.addresses, ([address]) => stranger.connect(address!))
      yield* Live.until(Effect.map(node.peerCount, (count) => count === 1))
      yield* Effect.flatMap(wanted.addresses, ([address]) => node.connect(address!))
      const left = (events: typeof here) => events.find((event) => event._tag === "PeerDisconnected")
      yield* Live.until(Effect.sync(() => left(here) !== undefined && left(there) !== undefined))
      assert.strictEqual(left(here)?.reason, "evicted")
      assert.deepStrictEqual([left(there)?.reason, left(there)?.remoteReason], ["remote", "evicted"])
      assert.strictEqual(yield* node.peerCount, 1)
    }))

  it.live("dials nobody for whom there is no slot, so that nobody takes it for a peer that leaves", () =>
    Effect.gen(function*() {
      const [node, wanted, other] = yield* Effect.all([
        Live.makeNode({ maxPeers: 1 }),
        Live.makeNode(),
        Live.makeNode()
      ])
      yield* Effect.flatMap(wanted.addresses, ([address]) => node.connect(address!))
      // A dial would wait for its handshake.
      const silent = yield* Live.silentServer
      const error = yield* Effect.flip(node.connect(`/ip4/127.0.0.1/tcp/${silent.port}/p2p/${other.localPeer}`))
      assert.deepStrictEqual(error._tag === "PeerLimitExceeded" && [error.peer, error.limit], [other.localPeer, 1])
      yield* node.disconnect(wanted.localPeer)
      yield* Effect.flatMap(other.addresses, ([address]) => node.connect(address!))
    }))
})
