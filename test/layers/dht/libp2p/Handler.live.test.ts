/**
 * Streams of the DHT's server, on a real pair of nodes.
 */
import { assert, describe, it } from "@effect/vitest"
import type { Connection, Stream } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import { Clock, Deferred, Effect, Exit, References, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Handler from "../../../../src/layers/dht/libp2p/Handler.ts"
import {
  decodeMessage,
  encodeFrame,
  encodePeer,
  FrameReader,
  type Message,
  MessageType,
  requestBytesMax
} from "../../../../src/layers/dht/wire/Message.ts"
import { keyOf } from "../../../../src/layers/dht/wire/Nodes.ts"
import { type AnswerFrame, Refusal, type Sender } from "../../../../src/layers/dht/serve/Server.ts"
import * as Server from "../../../../src/layers/dht/serve/Server.ts"
import * as ProviderRecords from "../../../../src/layers/dht/serve/ProviderRecords.ts"
import * as ValueRecords from "../../../../src/layers/dht/serve/ValueRecords.ts"
import { encodeRecord } from "../../../../src/layers/dht/wire/Record.ts"
import { eventually } from "../../../contract/eventually.ts"
import { kadProtocol, makeNode, until } from "../../../support/DhtNode.ts"
import { makePair } from "../../../support/Libp2pNode.ts"
import * as LogLines from "../../../support/LogLines.ts"
import { makePlain, meet, send } from "../../../support/PlainKad.ts"
import * as StallingClock from "../../../support/StallingClock.ts"

describe("Handler", () => {
  it.live("answers the requests of a stream in their order, whether they come at once or byte by byte", () =>
    Effect.gen(function*() {
      const { open } = yield* serve(echo)
      const client = yield* open
      const keys = Array.from({ length: 50 }, (_, i) => `key ${i}`)
      client.stream.send(Buffer.concat(keys.map(question)))
      yield* client.has(50)
      for (const byte of Buffer.concat([question("one"), question("two")])) client.stream.send(Uint8Array.of(byte))
      yield* client.has(52)
      assert.deepStrictEqual(client.keys(), [...keys, "one", "two"])
    }))

  it.live("waits with the next request for an answer that takes time, and takes no answer for none", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const asked: Array<string> = []
      const { open } = yield* serve((message) => {
        asked.push(text(message))
        if (text(message) === "silent") return undefined
        return text(message) === "slow"
          ? Effect.andThen(Deferred.await(gate), Effect.sync(() => echo(message)))
          : echo(message)
      })
      const client = yield* open
      client.stream.send(Buffer.concat(["a", "silent", "slow", "b", "c"].map(question)))
      yield* client.has(1)
      client.stream.send(question("d"))
      yield* other(open)
      assert.deepStrictEqual(asked.filter((key) => key !== "other"), ["a", "silent", "slow"])
      yield* Deferred.succeed(gate, undefined)
      yield* client.has(5)
      assert.deepStrictEqual(client.keys(), ["a", "slow", "b", "c", "d"])
    }))

  it.live("answers at once with an effect that needs no time, and in order", () =>
    Effect.gen(function*() {
      const { open } = yield* serve((message) => Effect.succeed(echo(message)))
      const client = yield* open
      client.stream.send(Buffer.concat(["a", "b", "c"].map(question)))
      yield* client.has(3)
      assert.deepStrictEqual(client.keys(), ["a", "b", "c"])
    }))

  it.live(
    "reads no further while a remote does not take its answers, and gives all of them when it does",
    () =>
      Effect.gen(function*() {
        let answered = 0
        const large = new Uint8Array(16 * 1024)
        const { open, streams } = yield* serve((message) => {
          answered++
          return encodeFrame({ type: MessageType.FIND_NODE, key: message.key, record: large })
        })
        const client = yield* open
        client.stream.pause()
        // 24 KB of questions, 6.5 MB of answers.
        const keys = Array.from({ length: 400 }, (_, i) => `${i}`.padStart(50, "0"))
        client.stream.send(Buffer.concat(keys.slice(0, 200).map(question)))
        yield* eventually("it stops", Effect.sync(() => streams[0]?.readStatus === "paused"))
        client.stream.send(Buffer.concat(keys.slice(200).map(question)))
        yield* other(open)
        const before = answered
        yield* other(open)
        assert.strictEqual(answered, before + 1)
        // The window of the remote, and what may be unsent.
        assert.isAtMost(answered * large.length, 1024 * 1024)
        assert.isAtMost(streams[0]!.writeBufferLength, 256 * 1024)
        client.stream.resume()
        yield* client.has(400)
        assert.deepStrictEqual(client.keys(), keys)
      })
  )

  const ends = Effect.fnUntraced(
    function*(what: string, send: (stream: Stream) => void, why: RegExp) {
      const lines = yield* LogLines.lines
      const { open } = yield* serve(echo)
      const client = yield* open
      client.stream.send(question("before"))
      yield* client.has(1)
      send(client.stream)
      yield* eventually(what, Effect.sync(() => client.stream.status === "reset"))
      yield* eventually("one line", Effect.sync(() => lines.length === 1))
      assert.match(lines[0]!, why)
      // Others go on.
      yield* other(open)
      assert.lengthOf(lines, 1)
    },
    LogLines.capture,
    Effect.provideService(References.MinimumLogLevel, "Debug")
  )

  it.live("resets a stream on which no message comes, with one line in the log", () =>
    ends(
      "bytes",
      (stream) => stream.send(Uint8Array.of(3, 0xff, 0xff, 0xff, 1, 1)),
      /^Debug: .* is reset: not a message/
    ))

  it.live("resets a stream on which a message is announced that is too long", () =>
    ends("length", (stream) => stream.send(lengthOf(requestBytesMax + 1)), /is reset: .*over 65536/))

  it.live("resets a stream on which the server refuses a message, also when it does so later", () =>
    Effect.gen(function*() {
      const { open } = yield* serve((message) => {
        const refusal = new Refusal({ detail: "no such key" })
        if (text(message) === "bad") throw refusal
        if (text(message) === "late") return Effect.andThen(Effect.sleep("1 millis"), Effect.fail(refusal))
        if (text(message) === "defect") return Effect.die(new Error("a rule of a namespace is broken"))
        return echo(message)
      })
      for (const key of ["bad", "late", "defect"]) {
        const client = yield* open
        client.stream.send(Buffer.concat(["good", key, "after"].map(question)))
        yield* eventually(key, Effect.sync(() => client.stream.status === "reset"))
        assert.notInclude(client.keys(), "after")
        yield* other(open)
      }
    }))

  it.live("resets a stream without a whole request for 60 s, bytes or not, and leaves one that goes on asking", () =>
    Effect.gen(function*() {
      const clock = yield* TestClock.make()
      const { open } = yield* serve(echo).pipe(Effect.provideService(Clock.Clock, clock))
      const [asking, idle, slow] = [yield* open, yield* open, yield* open]
      const states = () => [asking, idle, slow].map(({ stream }) => stream.status)
      const bytes = question("a".repeat(200))
      // Opened late by those that wait for the remote to agree to the protocol.
      for (const { has, stream } of [asking, idle, slow]) {
        stream.send(question("first"))
        yield* has(1)
      }
      for (let i = 0; i < 6; i++) {
        yield* clock.adjust(i < 5 ? "10 seconds" : "9999 millis")
        slow.stream.send(bytes.subarray(i, i + 1))
        asking.stream.send(question(`${i}`))
        yield* asking.has(i + 2)
      }
      yield* other(open)
      assert.deepStrictEqual(states(), ["open", "open", "open"])
      yield* clock.adjust("1 millis")
      yield* eventually("reset", Effect.sync(() => idle.stream.status === "reset" && slow.stream.status === "reset"))
      yield* clock.adjust("59998 millis")
      yield* other(open)
      assert.deepStrictEqual(states(), ["open", "reset", "reset"])
      yield* clock.adjust("1 millis")
      yield* eventually("reset", Effect.sync(() => asking.stream.status === "reset"))
    }))

  it.live("answers what came before the remote closed its half, then closes its own", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const { open, streams } = yield* serve((message) =>
        text(message) === "slow"
          ? Effect.andThen(Deferred.await(gate), Effect.sync(() => echo(message)))
          : echo(message)
      )
      const [quick, slow, slower] = [yield* open, yield* open, yield* open]
      quick.stream.send(question("a"))
      slow.stream.send(question("slow"))
      slower.stream.send(Buffer.concat([question("slow"), question("b")]))
      const clients = [quick, slow, slower]
      yield* Effect.promise(() => Promise.all(clients.map(({ stream }) => stream.close())))
      yield* eventually("closed", Effect.sync(() => quick.stream.status === "closed"))
      yield* other(open)
      assert.deepStrictEqual(clients.map(({ stream }) => stream.status), ["closed", "open", "open"])
      yield* Deferred.succeed(gate, undefined)
      yield* eventually("closed", Effect.sync(() => clients.every(({ stream }) => stream.status === "closed")))
      assert.deepStrictEqual(clients.map(({ keys }) => keys()), [["a"], ["slow"], ["slow", "b"]])
      yield* eventually("closed here", Effect.sync(() => streams.every(({ status }) => status === "closed")))
    }))

  it.live("takes 32 streams of a connection", () =>
    Effect.gen(function*() {
      const { open } = yield* serve(echo)
      const clients = yield* Effect.forEach(Array.from({ length: Handler.inboundStreamsMax }), () => open)
      for (const { stream } of clients) stream.send(question("a"))
      yield* Effect.forEach(clients, (client) => client.has(1))
      const surplus = yield* open
      yield* eventually("reset", Effect.sync(() => surplus.stream.status !== "open"))
      yield* Effect.promise(() => clients[0]!.stream.close())
      yield* eventually("closed", Effect.sync(() => clients[0]!.stream.status === "closed"))
      yield* other(open)
    }))

  it.live("resets its streams with its scope", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { open } = yield* serve(echo, scope)
      const client = yield* open
      client.stream.send(question("a"))
      yield* client.has(1)
      yield* Scope.close(scope, Exit.void)
      yield* eventually("reset", Effect.sync(() => client.stream.status === "reset"))
    }))

  it.live("does not count the time in which this process stood still", () =>
    Effect.gen(function*() {
      const outer = yield* TestClock.make()
      const { clock, go, stop } = yield* StallingClock.make.pipe(Effect.provideService(Clock.Clock, outer))
      const { open } = yield* serve(echo).pipe(Effect.provideService(Clock.Clock, clock))
      const client = yield* open
      client.stream.send(question("a"))
      yield* client.has(1)
      yield* stop
      yield* outer.adjust("10 minutes")
      yield* go
      yield* outer.adjust("999 millis")
      yield* other(open)
      assert.strictEqual(client.stream.status, "open")
      yield* outer.adjust("1 millis")
      yield* eventually("reset", Effect.sync(() => client.stream.status === "reset"))
    }))

  it.live("tells the server who asks: where it was dialled if it was, and its subnet unless it is this node's own", () =>
    Effect.gen(function*() {
      const senders: Array<Sender> = []
      const note = (message: Message, from: Sender) => {
        senders.push(from)
        return echo(message)
      }
      const { as, client, open } = yield* serve(note)
      yield* other(open)
      const { bytes } = client.host.node.peerId.toMultihash()
      const [{ tellers, ...asker } = { tellers: [] }] = senders
      assert.deepStrictEqual(asker, { bytes, key: keyOf(bytes), dialledAt: undefined, subnet: undefined })
      assert.match(tellers.join(), /^\/ip4\/127.0.0.1\/tcp\/\d+$/)

      // Other addresses than loopback's cannot be had here, so the connection is told to be from elsewhere.
      const from = Effect.fnUntraced(function*(direction: "inbound" | "outbound", remote: string, own = remote) {
        as({ direction, remote, own: own === remote ? [] : [own] })
        yield* other(open)
        const { dialledAt, subnet } = senders.at(-1)!
        return [dialledAt === undefined ? undefined : multiaddr(dialledAt).toString(), subnet]
      })
      const remote = "/ip4/203.0.113.5/tcp/4001"
      assert.deepStrictEqual(yield* from("inbound", remote), [undefined, "203.0.113.0/24"])
      assert.deepStrictEqual(yield* from("outbound", remote), [remote, "203.0.113.0/24"])
      assert.deepStrictEqual(yield* from("outbound", remote, "/ip4/203.0.113.200/tcp/1"), [remote, undefined])
      assert.deepStrictEqual(yield* from("inbound", remote, "/ip4/198.51.100.1/tcp/1"), [undefined, "203.0.113.0/24"])
      assert.deepStrictEqual(yield* from("inbound", "/ip4/192.168.1.1/tcp/1"), [undefined, undefined])
      assert.deepStrictEqual<ReadonlyArray<string>>(senders.at(-1)!.tellers, ["/ip4/192.168.1.1/tcp/1"])
    }))

  it.live("serves js-libp2p's own kad-dht", () =>
    Effect.gen(function*() {
      const node = yield* makeNode({ withoutDht: true })
      const plain = yield* makePlain()
      const { components } = node
      const { bytes: self } = components.peerId.toMultihash()
      const peer = encodePeer(Buffer.from([...self].reverse()), [multiaddr("/ip4/203.0.113.5/tcp/4001").bytes])
      const server = yield* Server.make({
        self,
        closerMax: 20,
        closest: () => [],
        encodedOf: (id) => id === self ? peer : undefined,
        isNamed: () => true,
        addressesOf: () => plain.getMultiaddrs().map(({ bytes }) => bytes),
        isProvided: () => false,
        providers: ProviderRecords.make(),
        values: ValueRecords.make([{ name: "any", check: () => Effect.void, replaces: () => Effect.succeed(false) }])
      })
      const handle = yield* Handler.make(server, components)
      yield* Effect.promise(async () => components.registrar.handle(kadProtocol, handle))
      yield* meet(plain, node)
      const key = new TextEncoder().encode("any key")
      const asks = (message: Record<string, unknown>) =>
        Effect.map(send(plain, node, "sendRequest", message), (events) => events.at(-1)!)
      yield* send(plain, node, "sendMessage", {
        type: "ADD_PROVIDER",
        key,
        providers: [{ id: plain.peerId.toMultihash().bytes, multiaddrs: [] }]
      })
      const providers = yield* until(
        "stored",
        asks({ type: "GET_PROVIDERS", key }),
        ({ providers }) => providers?.length === 1
      )
      assert.strictEqual(providers.name, "PEER_RESPONSE")
      assert.strictEqual((yield* asks({ type: "FIND_NODE", key })).name, "PEER_RESPONSE")
      assert.strictEqual((yield* asks({ type: "PING" })).name, "PEER_RESPONSE")
      const name = new TextEncoder().encode("/any/value")
      const record = encodeRecord({ key: name, value: Uint8Array.of(7) }, 0)
      assert.strictEqual((yield* asks({ type: "PUT_VALUE", key: name, record })).name, "PEER_RESPONSE")
      assert.deepStrictEqual([...(yield* asks({ type: "GET_VALUE", key: name })).record!.value], [7])
      assert.strictEqual((yield* asks({ type: "GET_PROVIDERS", key: new Uint8Array(81) })).name, "QUERY_ERROR")
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

type Answer = Server.Server["answer"]

const text = ({ key }: Message) => Buffer.from(key ?? []).toString()
const question = (key: string) => encodeFrame({ type: MessageType.FIND_NODE, key: Buffer.from(key) })
const echo = (message: Message): AnswerFrame => encodeFrame({ type: message.type, key: message.key })

/** A length in front of a message that does not come. */
const lengthOf = (bytes: number) => Uint8Array.of(bytes % 128 + 128, (bytes >> 7) % 128 + 128, bytes >> 14)

/** One side of a stream that asks. */
interface Client {
  readonly stream: Stream
  /** The keys of the answers so far. */
  readonly keys: () => ReadonlyArray<string>
  /** Waits for so many answers. */
  readonly has: (count: number) => Effect.Effect<void>
}

/** A node that serves, and one that opens streams to it. */
const serve = Effect.fnUntraced(function*(answer: Answer, scope?: Scope.Scope) {
  const [client, server] = yield* makePair
  const streams: Array<Stream> = []
  // What the connection says of itself.
  let told:
    | { readonly direction: Connection["direction"]; readonly remote: string; readonly own: ReadonlyArray<string> }
    | undefined
  const addressManager = { getAddresses: () => (told?.own ?? []).map((own) => multiaddr(own)) }
  const handle = yield* Handler.make(
    { answer },
    // Of the manager nothing else is used.
    { addressManager: addressManager as Parameters<typeof Handler.make>[1]["addressManager"] }
  ).pipe(Scope.provide(scope ?? (yield* Effect.scope)))
  const { registrar } = server.host.components
  yield* Effect.promise(async () =>
    registrar.handle(kadProtocol, (stream, { direction, remoteAddr, remotePeer }) => {
      streams.push(stream)
      const facts = told === undefined
        ? { direction, remoteAddr, remotePeer }
        : { direction: told.direction, remoteAddr: multiaddr(told.remote), remotePeer }
      handle(stream, facts as Connection)
    }, { maxInboundStreams: Handler.inboundStreamsMax })
  )
  const open = Effect.promise(async (signal): Promise<Client> => {
    const [own] = client.host.node.getConnections()
    const stream = await own!.newStream(kadProtocol, { signal, maxOutboundStreams: 64 })
    const reader = new FrameReader()
    const keys: Array<string> = []
    stream.addEventListener("message", ({ data }) => {
      for (const bytes of data instanceof Uint8Array ? [data] : data) {
        reader.push(bytes, (message) => keys.push(text(decodeMessage(message))))
      }
    })
    return {
      stream,
      keys: () => keys,
      has: (count) => eventually(`${count} answers`, Effect.sync(() => keys.length >= count))
    }
  })
  return { as: (facts: NonNullable<typeof told>) => void (told = facts), client, open, streams }
})

/** Another stream is served meanwhile. */
const other = Effect.fnUntraced(function*(open: Effect.Effect<Client>) {
  const { has, stream } = yield* open
  stream.send(question("other"))
  yield* has(1)
  yield* Effect.promise(() => stream.close())
})
