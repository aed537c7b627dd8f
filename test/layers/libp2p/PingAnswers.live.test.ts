/** How this library answers pings, seen from a remote of plain js-libp2p. */
import { assert, describe, it } from "@effect/vitest"
import type { Connection, Stream } from "@libp2p/interface"
import { ping, PING_PROTOCOL } from "@libp2p/ping"
import { Effect } from "effect"
import * as PingAnswers from "../../../src/layers/libp2p/PingAnswers.ts"
import { eventually } from "../../contract/eventually.ts"
import { makeNode } from "../../support/Libp2pNode.ts"
import { makePlain, pingsOn, reach } from "../../support/PlainLibp2p.ts"

const bytes = (length: number, from = 0) => Uint8Array.from({ length }, (_, index) => from + index)

/** A stream of ping, and all that has come back on it. */
const open = (connection: Connection) =>
  Effect.promise(async () => {
    const stream = await connection.newStream(PING_PROTOCOL)
    let received = new Uint8Array(0)
    stream.addEventListener("message", ({ data }) => {
      received = Uint8Array.from([...received, ...data.subarray()])
    })
    return { stream, received: () => received }
  })

const answered = ({ received }: { readonly received: () => Uint8Array }, expected: Uint8Array) =>
  Effect.andThen(
    eventually(`${expected.length} bytes come back`, Effect.sync(() => received().length >= expected.length)),
    Effect.sync(() => assert.deepStrictEqual(received(), expected))
  )

/** Pings as fast as the answers come. */
const askInTurn = async (stream: Stream, pings: number) => {
  for (let i = 0; i < pings; i++) {
    const answer = new Promise((resolve) => stream.addEventListener("message", resolve, { once: true }))
    stream.send(bytes(32))
    await answer
  }
}

const isReset = (stream: Stream) => eventually("the stream is reset", Effect.sync(() => stream.status === "reset"))

const asked = Effect.gen(function*() {
  const node = yield* makeNode()
  return { node, connection: yield* reach(yield* makePlain({}), node) }
})

describe("the answers to pings", () => {
  it.live("serve those who end each stream", () =>
    Effect.gen(function*() {
      const node = yield* makeNode()
      const stranger = yield* makePlain({ ping: ping() })
      const connection = yield* reach(stranger, node)
      for (let i = 0; i < 5; i++) yield* Effect.promise(() => stranger.services.ping.ping(connection.remotePeer))
      const here = node.host.node.getConnections()[0]!
      yield* eventually("no stream is left", Effect.sync(() => pingsOn(here).length + pingsOn(connection).length === 0))
    }))

  it.live("come in any pieces, and all of them before the end", () =>
    Effect.gen(function*() {
      const { connection } = yield* asked
      const line = yield* open(connection)
      for (const [from, to] of [[0, 1], [1, 20], [20, 32]] as const) line.stream.send(bytes(to - from, from))
      yield* answered(line, bytes(32))
      line.stream.send(bytes(32, 32))
      yield* Effect.promise(() => line.stream.close())
      yield* answered(line, bytes(64))
      yield* eventually("the stream has ended", Effect.sync(() => line.stream.status === "closed"))
    }))

  it.live("are given on two streams of a connection, and a third is reset", () =>
    Effect.gen(function*() {
      const { connection } = yield* asked
      const one = yield* open(connection)
      const two = yield* open(connection)
      const third = yield* open(connection)
      yield* isReset(third.stream)
      for (const line of [one, two]) {
        line.stream.send(bytes(32))
        yield* answered(line, bytes(32))
      }
      one.stream.abort(new Error("this one is over"))
      // The reset arrives before the new stream.
      const fourth = yield* open(connection)
      fourth.stream.send(bytes(32))
      yield* answered(fourth, bytes(32))
    }))

  it.live("are a hundred at once for a connection, then a hundred a second", () =>
    Effect.gen(function*() {
      const { connection } = yield* asked
      const lines = [yield* open(connection), yield* open(connection)] as const
      const begun = performance.now()
      yield* Effect.promise(() => Promise.all(lines.map(({ stream }) => askInTurn(stream, 200))))
      // The last of them is the 300th beyond the first hundred.
      assert.isAtLeast(performance.now() - begun, 2990)

      // An answer that has to wait comes before the end.
      const [line] = lines
      line.stream.send(bytes(32))
      yield* Effect.promise(() => line.stream.close())
      yield* eventually("it has ended", Effect.sync(() => line.stream.status !== "open"))
      assert.lengthOf(line.received(), 201 * 32)
    }))

  it.live("wait for nobody: a remote that sends on without its answers is reset, above 32 pings or pieces", () =>
    Effect.gen(function*() {
      const { connection } = yield* asked
      const much = yield* open(connection)
      much.stream.send(bytes(1024))
      yield* answered(much, bytes(1024))
      much.stream.send(bytes(1025))
      yield* isReset(much.stream)

      // Beyond the first hundred, pieces have to wait.
      const often = yield* open(connection)
      for (let i = 0; i < 500 && often.stream.status === "open"; i++) often.stream.send(bytes(1))
      yield* isReset(often.stream)
    }))

  it.live("end with a silence, which counts from the last ping", () =>
    Effect.gen(function*() {
      const handler = PingAnswers.make(2000)
      const node = yield* makePlain({ answers: (given) => PingAnswers.module(given, handler) })
      const stranger = yield* makePlain({})
      const connection = yield* Effect.promise(() => stranger.dial(node.getMultiaddrs()))
      const line = yield* open(connection)
      for (let i = 1; i <= 6; i++) {
        line.stream.send(bytes(32))
        yield* eventually("it is answered", Effect.sync(() => line.received().length === 32 * i))
        yield* Effect.sleep("500 millis")
      }
      assert.strictEqual(line.stream.status, "open")
      const begun = performance.now()
      yield* isReset(line.stream)
      assert.isAbove(performance.now() - begun, 1000)
    }))

  it.live("leave nothing of a stream that ended, or was reset, before they begin", () =>
    Effect.gen(function*() {
      const accepted: Array<readonly [Stream, Connection]> = []
      const node = yield* makePlain({})
      yield* Effect.promise(async () => node.handle(PING_PROTOCOL, (...given) => void accepted.push(given)))
      const stranger = yield* makePlain({})
      const connection = yield* Effect.promise(() => stranger.dial(node.getMultiaddrs()))
      const [ended, reset] = [yield* open(connection), yield* open(connection)]
      yield* Effect.promise(() => ended.stream.close())
      reset.stream.abort(new Error("this one is over"))
      yield* eventually(
        "both are known here",
        Effect.sync(() => accepted.filter(([{ remoteWriteStatus }]) => remoteWriteStatus === "closed").length === 2)
      )
      const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length
      const before = timers()
      for (const [stream, from] of accepted) void PingAnswers.make(60_000)(stream, from)
      yield* eventually("it has ended here too", Effect.sync(() => ended.stream.status === "closed"))
      assert.isAtMost(timers(), before)
    }))
})
