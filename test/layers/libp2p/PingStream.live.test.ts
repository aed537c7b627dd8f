/** How this library pings, seen from the other end of a socket. */
import { assert, describe, it } from "@effect/vitest"
import type { Stream } from "@libp2p/interface"
import { ping, PING_PROTOCOL } from "@libp2p/ping"
import { Duration, Effect, Exit, Option, Scope } from "effect"
import type { Multiaddr } from "../../../src/schema/Peer.ts"
import { eventually } from "../../contract/eventually.ts"
import { type Libp2pNode, makeNode, makePair } from "../../support/Libp2pNode.ts"
import { makePlain, pingsOn } from "../../support/PlainLibp2p.ts"

/** A message of a stream, and how many the stream has had before. */
type Answer = (stream: Stream, bytes: Uint8Array, before: number) => void

/** A node, a remote of plain libp2p that answers as the spec says, and the streams that the remote was given. */
const pinging = (answer: Answer) =>
  Effect.gen(function*() {
    const streams: Array<Stream> = []
    const remote = yield* makePlain({})
    yield* Effect.promise(async () =>
      remote.handle(PING_PROTOCOL, (stream) => {
        streams.push(stream)
        let count = 0
        stream.addEventListener("message", ({ data }) => answer(stream, data.subarray(), count++))
        stream.addEventListener("remoteCloseWrite", () => void stream.close().catch(() => {}))
      })
    )
    const node = yield* makeNode()
    const connection = yield* node.transport.dial(remote.getMultiaddrs()[0]!.toString() as Multiaddr)
    return { node, connection, streams, ping: node.transport.ping(connection.peer) }
  })

const echo: Answer = (stream, bytes) => void stream.send(bytes)
const underlying = (node: Libp2pNode) => node.host.node.getConnections()[0]!

describe("the pings of a connection", () => {
  it.live("go over one stream, in each direction, which counts as none", () =>
    Effect.gen(function*() {
      const [a, b, connection] = yield* makePair
      const seen = new Set<Stream>()
      for (let i = 0; i < 3; i++) {
        yield* a.transport.ping(b.transport.localPeer)
        yield* b.transport.ping(a.transport.localPeer)
        for (const stream of pingsOn(underlying(b))) seen.add(stream)
      }
      assert.deepStrictEqual([...seen].map(({ direction }) => direction).sort(), ["inbound", "outbound"])
      yield* eventually("no other is open", Effect.map(connection.streams, (streams) => streams === 0))
      assert.lengthOf(pingsOn(underlying(a)), 2)
    }))

  it.live("have a new stream after js-libp2p has reset theirs, and none is lost", () =>
    Effect.gen(function*() {
      const remote = yield* makePlain({ ping: ping({ timeout: 300 }) })
      const node = yield* makeNode()
      const { peer } = yield* node.transport.dial(remote.getMultiaddrs()[0]!.toString() as Multiaddr)
      for (let i = 0; i < 4; i++) {
        yield* node.transport.ping(peer)
        yield* eventually("the stream is reset", Effect.sync(() => pingsOn(underlying(node)).length === 0))
      }
    }))

  for (
    const [how, end] of [
      ["resets", (stream: Stream) => stream.abort(new Error("enough"))],
      ["ends", (stream: Stream) => void stream.close()]
    ] as const
  ) {
    it.live(`are asked again when the remote ${how} the stream meanwhile, and have streams of their own if it always does`, () =>
      Effect.gen(function*() {
        let messages = 0
        const { ping, streams } = yield* pinging((stream, bytes, before) => {
          messages++
          if (before === 0) stream.send(bytes)
          else end(stream)
        })
        for (let i = 0; i < 5; i++) yield* ping
        // The second ping and the third are sent twice.
        assert.deepStrictEqual([streams.length, messages], [5, 7])
        yield* eventually("all have ended", Effect.sync(() => streams.every(({ status }) => status !== "open")))
      }))
  }

  it.live("have streams of their own where the remote answers one ping of each, and no other is lost for it", () =>
    Effect.gen(function*() {
      const { ping, streams } = yield* pinging((stream, bytes, before) => {
        if (before === 0) stream.send(bytes)
      })
      const missed = Effect.map(Effect.timeoutOption(ping, "100 millis"), Option.isNone)
      yield* ping
      assert.isTrue(yield* missed)
      yield* ping
      assert.isTrue(yield* missed)
      for (let i = 0; i < 5; i++) yield* ping
      assert.lengthOf(streams, 7)
      yield* eventually("all have ended", Effect.sync(() => streams.every(({ status }) => status !== "open")))
    }))

  it.live("are not answered by what comes late for a ping that was given up", () =>
    Effect.gen(function*() {
      let late: (() => void) | undefined
      const { ping, streams } = yield* pinging((stream, bytes) => {
        if (late !== undefined) return echo(stream, bytes, 0)
        late = () => {
          if (stream.status === "open") stream.send(bytes)
        }
      })
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(ping, "100 millis")))
      late?.()
      yield* ping
      yield* eventually("the first stream was reset", Effect.sync(() => streams[0]!.status === "reset"))
      assert.lengthOf(streams, 2)
    }))

  it.live("fail for another answer, and leave a stream that tells what nobody asked", () =>
    Effect.gen(function*() {
      const { ping, streams } = yield* pinging((stream, bytes) => {
        stream.send(streams.length === 1 ? bytes.toReversed() : bytes)
      })
      const failed = yield* Effect.flip(ping)
      assert.deepInclude(failed.reason, {
        _tag: "StreamFailed",
        detail: "the remote answered with other bytes than were sent"
      })
      yield* ping
      streams[1]!.send(new Uint8Array(32))
      yield* eventually("the talkative stream was reset", Effect.sync(() => streams[1]!.status === "reset"))
      yield* ping
      assert.lengthOf(streams, 3)
    }))

  it.live("hold up neither the end of their connection nor that of their node", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
      const b = yield* Scope.provide(makeNode(), scope)
      const both = Effect.gen(function*() {
        const connection = yield* a.transport.dial(yield* b.address)
        yield* a.transport.ping(b.transport.localPeer)
        yield* b.transport.ping(a.transport.localPeer)
        return connection
      })
      const took: Array<number> = []
      for (let i = 0; i < 3; i++) {
        const connection = yield* both
        const [time] = yield* Effect.timed(Effect.andThen(connection.flushed, connection.close))
        took.push(Duration.toMillis(time))
        yield* eventually("b has closed it", Effect.sync(() => b.host.node.getConnections().length === 0))
      }
      // A close that waits for a stream takes 250 ms each time; another process may delay one.
      assert.isBelow(Math.min(...took), 200)
      yield* both
      const [time] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(time), 1000)
    }))
})
