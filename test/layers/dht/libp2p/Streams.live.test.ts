import { assert, describe, it } from "@effect/vitest"
import { multiaddr } from "@multiformats/multiaddr"
import { Clock, Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { createServer } from "node:net"
import { encodeFrame, encodePeer, type Message, MessageType } from "../../../../src/layers/dht/wire/Message.ts"
import type * as PeerQueues from "../../../../src/layers/dht/libp2p/PeerQueues.ts"
import * as Streams from "../../../../src/layers/dht/libp2p/Streams.ts"
import * as Libp2pHost from "../../../../src/layers/libp2p/Host.ts"
import type { PeerId } from "../../../../src/schema/Peer.ts"
import { eventually } from "../../../contract/eventually.ts"
import { kadProtocol } from "../../../support/DhtNode.ts"
import { echo, type Server, serve } from "../../../support/KadServer.ts"
import { type Libp2pNode, makeNode } from "../../../support/Libp2pNode.ts"
import { makePlain } from "../../../support/PlainKad.ts"

describe("Streams", () => {
  it.live("carries many questions at once over one stream, and gives each its answer", () =>
    Effect.gen(function*() {
      // Answers come in pieces of any size, several in one or one in several.
      const held: Array<number> = []
      const { ask, server, streams } = yield* makePair((message, { messages, stream }) => {
        held.push(...echo(message))
        const size = messages.length % 7 === 0 || messages.length === 200 ? held.length : held.length >> 1
        stream.send(Uint8Array.from(held.splice(0, size)))
      })
      const answers = yield* Effect.forEach(numbers(200), ask, { concurrency: "unbounded" })
      assert.deepStrictEqual(answers.map(({ message }) => keyOf(message)), numbers(200).map((n) => `key ${n}`))
      assert.isTrue(answers.every(({ tookBefore }) => tookBefore))
      assert.deepStrictEqual(streams.counts(), { requests: 200, writes: 200, opened: 1, retries: 0 })
      assert.lengthOf(server.streams, 1)
      assert.deepStrictEqual(held, [])
    }))

  it.live("asks on a fresh stream without waiting for the remote to agree to the protocol", () =>
    Effect.gen(function*() {
      const [client, other] = [yield* makeNode(), yield* makeNode()]
      yield* serve(other)
      yield* client.transport.dial(yield* other.address)
      const { streams } = yield* pool(client)
      const fiber = yield* Effect.forkChild(streams.request(yield* toRemote(other), question("key")), {
        startImmediately: true
      })
      // Nothing comes from a socket in the turn in which the stream is opened.
      yield* Effect.promise(async () => {
        for (let i = 0; i < 100; i++) await Promise.resolve()
      })
      assert.deepStrictEqual(streams.counts(), { requests: 1, writes: 1, opened: 1, retries: 0 })
      yield* Fiber.join(fiber)
    }))

  it.live("asks no more at once than it may, the rest when there are answers", () =>
    Effect.gen(function*() {
      const held: Array<() => void> = []
      const { ask, server } = yield* makePair(
        (message, { stream }) => void held.push(() => void stream.send(echo(message))),
        { questionsMax: 3 }
      )
      const fiber = yield* Effect.forkChild(Effect.forEach(numbers(7), ask, { concurrency: "unbounded" }))
      for (let asked = 3; asked <= 7; asked++) {
        yield* arrived(server, asked)
        yield* turns
        assert.lengthOf(server.messages(), asked)
        held.shift()!()
      }
      for (const answer of held) answer()
      assert.lengthOf(yield* Fiber.join(fiber), 7)
    }))

  it.live("sends what goes before a question in the same frame, and a message without answer alone", () =>
    Effect.gen(function*() {
      const { remote, server, streams } = yield* makePair((message, { stream }) => {
        if (message.type !== MessageType.ADD_PROVIDER) stream.send(echo(message))
      })
      const frames: Array<number> = []
      const before = encodeFrame({ type: MessageType.ADD_PROVIDER, key: bytes("key") })
      yield* streams.send(remote, before)
      yield* arrived(server, 1)
      server.streams[0]!.stream.addEventListener("message", ({ data }) => frames.push(data.byteLength))
      const { message, tookBefore } = yield* streams.request(remote, question("key"), before)
      assert.deepStrictEqual([keyOf(message), tookBefore], ["key", true])
      assert.deepStrictEqual(frames, [before.length + question("key").length])
      assert.deepStrictEqual(server.messages().map(({ type }) => type), [2, 2, 4])
      assert.deepStrictEqual(streams.counts(), { requests: 1, writes: 2, opened: 1, retries: 0 })
    }))

  it.live("gives a late answer to nobody: a question that had its time takes its stream with it", () =>
    Effect.gen(function*() {
      const { ask, pass, server, streams } = yield* makePair((message, { stream }) => {
        // Like all servers it reads on when it has answered.
        if (server.streams[0]!.stream !== stream) stream.send(echo(message))
      })
      const slow = yield* Effect.forkChild(Effect.flip(ask(1)))
      yield* arrived(server, 1)
      yield* pass("2 seconds")
      const others = yield* Effect.forkChild(Effect.forEach([2, 3], ask, { concurrency: 2 }))
      yield* arrived(server, 3)
      yield* pass("2999 millis")
      assert.isUndefined(slow.pollUnsafe())
      yield* pass("1 millis")
      assert.strictEqual((yield* Fiber.join(slow)).reason, "TimedOut")
      assert.deepStrictEqual((yield* Fiber.join(others)).map(({ message }) => keyOf(message)), ["key 2", "key 3"])
      assert.strictEqual(server.streams[0]!.stream.status, "reset")
      assert.deepStrictEqual(streams.counts(), { requests: 3, writes: 5, opened: 2, retries: 2 })
    }))

  it.live("heals a stream that the remote reset while nobody used it", () =>
    Effect.gen(function*() {
      const { ask, client, server, streams } = yield* makePair()
      yield* ask(1)
      server.streams[0]!.stream.abort(new Error("idle"))
      yield* eventually("the reset has come", Effect.sync(() => kadStreams(client).length === 0))
      assert.strictEqual(keyOf((yield* ask(2)).message), "key 2")
      assert.deepStrictEqual(streams.counts(), { requests: 2, writes: 2, opened: 2, retries: 0 })
    }))

  it.live("heals a stream that the remote resets while questions are on their way", () =>
    Effect.gen(function*() {
      const { ask, server, streams } = yield* makePair((message, served) => {
        if (keyOf(message) === "key 1" || served !== server.streams[0]) served.stream.send(echo(message))
        else served.stream.abort(new Error("idle"))
      })
      yield* ask(1)
      const answers = yield* Effect.forEach([2, 3], ask, { concurrency: 2 })
      assert.deepStrictEqual(answers.map(({ message }) => keyOf(message)), ["key 2", "key 3"])
      assert.deepStrictEqual(streams.counts(), { requests: 3, writes: 5, opened: 2, retries: 2 })
    }))

  it.live("heals a stream whose half the remote has ended", () =>
    Effect.gen(function*() {
      const { ask, client, server, streams } = yield* makePair((message, { messages, stream }) => {
        stream.send(echo(message))
        if (keyOf(message) === "key 2") void stream.close()
        else if (messages.length === 2) stream.abort(new Error("it was to be asked no more"))
      })
      yield* ask(2)
      yield* eventually("both halves have ended", Effect.sync(() => kadStreams(client).length + server.open() === 0))
      assert.strictEqual(server.streams[0]!.stream.status, "closed")
      assert.strictEqual(keyOf((yield* ask(3)).message), "key 3")
      assert.deepStrictEqual(streams.counts(), { requests: 2, writes: 2, opened: 2, retries: 0 })
    }))

  it.live("gives up a question that a fresh stream does not answer either", () =>
    Effect.gen(function*() {
      const { ask, streams } = yield* makePair((message, { stream }) => {
        if (keyOf(message) === "key 1") stream.send(echo(message))
        else stream.abort(new Error("no"))
      })
      yield* ask(1)
      assert.strictEqual((yield* Effect.flip(ask(2))).reason, "Reset")
      assert.deepStrictEqual(streams.counts(), { requests: 2, writes: 3, opened: 2, retries: 1 })
      assert.strictEqual((yield* Effect.flip(ask(2))).reason, "Reset")
      assert.strictEqual(streams.counts().opened, 3)
    }))

  it.live("asks js-libp2p alone what it asked with a record that is refused, and nobody else's record suffers", () =>
    Effect.gen(function*() {
      const plain = yield* makePlain()
      const client = yield* makeNode()
      const { streams } = yield* pool(client)
      const id = plain.peerId.toMultihash().bytes
      const remote = remoteOf(plain.peerId.toString(), id, plain.getMultiaddrs().map(({ bytes }) => bytes))
      const self = client.host.node.peerId.toMultihash().bytes
      const own = encodePeer(self, [multiaddr("/ip4/127.0.0.1/tcp/9").bytes])
      const provide = (key: Uint8Array) =>
        streams.request(
          remote,
          encodeFrame({ type: MessageType.FIND_NODE, key }),
          encodeFrame({ type: MessageType.ADD_PROVIDER, key, providers: [own] })
        )
      const keys = [1, 2, 3, 4].map((n) => Uint8Array.from({ length: 34 }, (_, i) => i === 0 ? 0x12 : i === 1 ? 32 : n))
      // Stock js takes only keys that are a CID's.
      const raw = [bytes("my-content-key"), bytes("another")]
      const tried = [keys[0]!, raw[0]!, keys[1]!, keys[2]!, raw[1]!, keys[3]!]
      const answers = yield* Effect.forEach(tried, provide, { concurrency: "unbounded" })
      assert.deepStrictEqual(answers.map(({ tookBefore }) => tookBefore), [true, false, true, true, false, true])
      assert.isTrue(answers.every(({ message }) => message.type === MessageType.FIND_NODE))
      // On a stream that stands, too.
      assert.isFalse((yield* provide(raw[0]!)).tookBefore)
      for (const key of keys) {
        const { message } = yield* streams.request(remote, encodeFrame({ type: MessageType.GET_PROVIDERS, key }))
        assert.deepStrictEqual(message.providers.map((peer) => Buffer.from(peer.id).toString("hex")), [
          Buffer.from(self).toString("hex")
        ])
      }
    }))

  it.live("does not trust a stream without use for more than 8 s with what has no answer", () =>
    Effect.gen(function*() {
      const { ask, pass, remote, server, streams } = yield* makePair((message, { stream }) => {
        if (message.type !== MessageType.ADD_PROVIDER) stream.send(echo(message))
      })
      const record = encodeFrame({ type: MessageType.ADD_PROVIDER, key: bytes("key") })
      yield* ask(1)
      yield* pass("8 seconds")
      yield* streams.send(remote, record)
      yield* arrived(server, 2)
      assert.lengthOf(server.streams, 1)
      yield* pass("8001 millis")
      yield* streams.send(remote, record)
      yield* arrived(server, 3)
      assert.deepStrictEqual(server.streams.map(({ messages }) => messages.length), [2, 1])
      yield* eventually("the old one is closed", Effect.sync(() => server.open() === 1))
      // A question shows by itself that its stream has failed.
      yield* pass("8001 millis")
      yield* ask(2)
      assert.lengthOf(server.streams, 2)
    }))

  it.live("fails when the remote lacks the protocol", () =>
    Effect.gen(function*() {
      const client = yield* makeNode()
      const { streams } = yield* pool(client)
      const remote = yield* toRemote(yield* makeNode())
      const asked = Effect.flip(streams.request(remote, question("key"), question("key")))
      assert.deepStrictEqual((yield* Effect.all([asked, asked], { concurrency: 2 })).map(({ reason }) => reason), [
        "Unsupported",
        "Unsupported"
      ])
      assert.strictEqual(streams.counts().opened, 1)
      assert.lengthOf(kadStreams(client), 0)
    }))

  it.live("tells a refusal of its own gate from a peer that is not there", () =>
    Effect.gen(function*() {
      const remote = yield* toRemote(yield* makeNode())
      const nobody = { ...remote, addresses: [multiaddr("/ip4/127.0.0.1/tcp/9").bytes] }
      const unreadable = { ...remote, addresses: [Uint8Array.of(255, 255), multiaddr(`/p2p/${stranger}`).bytes] }
      const full = yield* makeNode({ closed: true })
      // Before the dial, and in its last step.
      for (const stage of ["dial", "peer"]) {
        const open = yield* Scope.make()
        yield* full.transport.gate((request) => Effect.succeed(request.stage !== stage)).pipe(Scope.provide(open))
        const { streams } = yield* pool(full)
        assert.strictEqual((yield* Effect.flip(streams.request(remote, question("key")))).reason, "Denied", stage)
        yield* Scope.close(open, Exit.void)
      }
      const { streams } = yield* pool(yield* makeNode())
      for (const peer of [nobody, unreadable, { ...remote, addresses: [] }]) {
        const errors = yield* Effect.all([
          Effect.flip(streams.request(peer, question("key"))),
          Effect.flip(streams.send(peer, question("key")))
        ])
        assert.deepStrictEqual(errors.map(({ reason }) => reason), ["Unreachable", "Unreachable"])
        assert.include(errors[0].message, peer === nobody ? "ECONNREFUSED" : "no address to dial is known")
      }
    }))

  it.live("dials the addresses of the peer store where none are given, and uses a connection that stands", () =>
    Effect.gen(function*() {
      const [client, other] = [yield* makeNode(), yield* makeNode()]
      yield* serve(other)
      const remote = { ...(yield* toRemote(other)), addresses: [] }
      const { streams } = yield* pool(client)
      yield* Effect.promise(() =>
        client.host.node.peerStore.merge(other.host.node.peerId, { multiaddrs: other.host.node.getMultiaddrs() })
      )
      yield* streams.request(remote, question("key"))
      // Also one that the remote has opened.
      const { streams: back } = yield* pool(other)
      yield* serve(client)
      const { message } = yield* back.request({ ...(yield* toRemote(client)), addresses: [] }, question("back"))
      assert.strictEqual(keyOf(message), "back")
      assert.lengthOf(client.host.node.getConnections(), 1)
    }))

  it.live("moves to a better connection when there is one", () =>
    Effect.gen(function*() {
      const { ask, client, server, streams } = yield* makePair((message, { stream }) => {
        if (keyOf(message) !== "key 1") stream.send(echo(message))
      })
      const held = yield* Effect.forkChild(ask(1))
      yield* arrived(server, 1)
      const [old] = client.host.node.getConnections()
      const better = yield* Effect.promise(() => client.host.node.dial(old!.remoteAddr, { force: true }))
      yield* ask(2)
      assert.lengthOf(server.streams, 2)
      assert.isTrue(better.streams.some(({ protocol }) => protocol === kadProtocol))
      // The other one is closed when it has answered.
      assert.lengthOf(kadStreams(client), 2)
      server.streams[0]!.stream.send(echo(server.streams[0]!.messages[0]!))
      assert.strictEqual(keyOf((yield* Fiber.join(held)).message), "key 1")
      yield* eventually("the other has none", Effect.sync(() => kadStreams(client).length === 1))
      assert.deepStrictEqual(streams.counts(), { requests: 2, writes: 2, opened: 2, retries: 0 })
      // And back, when that is lost.
      yield* Effect.promise(() => better.close())
      assert.strictEqual(keyOf((yield* ask(3)).message), "key 3")
    }))

  it.live("leaves a relayed connection with limits alone, and dials a direct address", () =>
    Effect.gen(function*() {
      const [client, other] = [yield* makeNode(), yield* makeNode()]
      const server = yield* serve(other)
      const remote = yield* toRemote(other)
      const { streams } = yield* pool(client)
      const limited = yield* Effect.promise(() => client.host.node.dial(other.host.node.getMultiaddrs()))
      const remoteAddr = multiaddr(`/ip4/127.0.0.1/tcp/9/p2p/${stranger}/p2p-circuit`)
      Object.assign(limited, { direct: false, limits: { bytes: 131_072n }, remoteAddr })
      const relayed = remoteAddr.bytes
      yield* Effect.promise(() => client.host.node.peerStore.delete(other.host.node.peerId))
      const error = yield* Effect.flip(streams.request({ ...remote, addresses: [relayed] }, question("key")))
      assert.strictEqual(error.reason, "Unreachable")
      assert.include(error.message, "no address to dial is known")
      yield* streams.warm(remote)
      yield* turns
      assert.lengthOf(server.streams, 0)
      yield* streams.request({ ...remote, addresses: [relayed, ...remote.addresses] }, question("key"))
      assert.lengthOf(client.host.node.getConnections(), 2)
      assert.isFalse(limited.streams.some(({ protocol }) => protocol === kadProtocol))
      assert.deepStrictEqual(streams.counts(), { requests: 2, writes: 1, opened: 1, retries: 0 })
    }))

  it.live("asks again on the new stream what a stream that it has left does not answer", () =>
    Effect.gen(function*() {
      const { ask, client, server, streams } = yield* makePair((message, { stream }) => {
        if (server.streams[0]!.stream !== stream || keyOf(message) === "key 0") stream.send(echo(message))
      })
      yield* ask(0)
      const fiber = yield* Effect.forkChild(ask(1))
      yield* arrived(server, 2)
      const [old] = client.host.node.getConnections()
      yield* Effect.promise(() => client.host.node.dial(old!.remoteAddr, { force: true }))
      yield* ask(2)
      assert.deepStrictEqual(server.streams.map(({ stream }) => stream.status), ["open", "open"])
      server.streams[0]!.stream.abort(new Error("no"))
      assert.strictEqual(keyOf((yield* Fiber.join(fiber)).message), "key 1")
      assert.deepStrictEqual(streams.counts(), { requests: 3, writes: 4, opened: 2, retries: 1 })
    }))

  it.live("keeps the order when who asked has gone", () =>
    Effect.gen(function*() {
      const held: Array<() => void> = []
      const { ask, server, streams } = yield* makePair((message, { stream }) => {
        held.push(() => void stream.send(echo(message)))
      })
      const fibers = yield* Effect.forEach([1, 2, 3], (n) => Effect.forkChild(ask(n)))
      yield* arrived(server, 3)
      yield* Fiber.interrupt(fibers[0]!)
      yield* Fiber.interrupt(fibers[1]!)
      for (const answer of held) answer()
      assert.strictEqual(keyOf((yield* Fiber.join(fibers[2]!)).message), "key 3")
      assert.deepStrictEqual(streams.counts(), { requests: 3, writes: 3, opened: 1, retries: 0 })
    }))

  it.live("ends a stream whose answer nobody waits for when it does not come", () =>
    Effect.gen(function*() {
      const { ask, pass, server, streams } = yield* makePair((message, { stream }) => {
        if (keyOf(message) !== "key 1") stream.send(echo(message))
      })
      const fiber = yield* Effect.forkChild(ask(1))
      yield* arrived(server, 1)
      yield* Fiber.interrupt(fiber)
      yield* pass("5 seconds")
      yield* eventually("it is reset", Effect.sync(() => server.open() === 0))
      assert.strictEqual(keyOf((yield* ask(2)).message), "key 2")
      assert.strictEqual(streams.counts().retries, 0)
    }))

  it.live("gives up a dial when the last one who waits for it has gone", () =>
    Effect.gen(function*() {
      const { address, sockets } = yield* silence
      const remote = { ...(yield* toRemote(yield* makeNode())), addresses: [address] }
      const client = yield* makeNode()
      const { streams } = yield* pool(client)
      const fibers = [
        yield* Effect.forkChild(Effect.asVoid(streams.request(remote, question("key")))),
        yield* Effect.forkChild(streams.send(remote, question("key")))
      ]
      yield* eventually("it is dialled", Effect.sync(() => sockets.size === 1))
      yield* Fiber.interrupt(fibers[0]!)
      yield* turns
      assert.strictEqual(sockets.size, 1)
      yield* Fiber.interrupt(fibers[1]!)
      // libp2p itself gives up after 3 s.
      yield* eventually("it is not any more", Effect.sync(() => sockets.size === 0), "2.7 seconds")
    }))

  it.live("calls a peer unreachable that is not connected in time", () =>
    Effect.gen(function*() {
      const { address, sockets } = yield* silence
      const remote = { ...(yield* toRemote(yield* makeNode())), addresses: [address] }
      const { pass, streams } = yield* pool(yield* makeNode())
      const fiber = yield* Effect.forkChild(Effect.flip(streams.request(remote, question("key"))))
      yield* eventually("it is dialled", Effect.sync(() => sockets.size === 1))
      yield* pass("5 seconds")
      assert.strictEqual((yield* Fiber.join(fiber)).reason, "Unreachable")
      yield* eventually("it is not any more", Effect.sync(() => sockets.size === 0))
    }))

  it.live("refuses what is no answer, and what nobody asked for", () =>
    Effect.gen(function*() {
      const { ask, client, server, streams } = yield* makePair((message, { stream }) => {
        const key = keyOf(message)
        if (key === "key 1") stream.send(encodeFrame({ type: MessageType.GET_VALUE, key: bytes(key) }))
        else if (key === "key 2") stream.send(Uint8Array.of(1, 0xff))
        else if (key === "key 3") stream.send(Uint8Array.of(0xff, 0xff, 0xff, 0x7f))
        else stream.send(echo(message))
      })
      for (const n of [1, 2, 3]) assert.strictEqual((yield* Effect.flip(ask(n))).reason, "Malformed", `key ${n}`)
      // Who asked behind has an answer, from the next stream.
      const [wrong, right] = yield* Effect.all([Effect.flip(ask(1)), ask(4)], { concurrency: 2 })
      assert.deepStrictEqual([wrong.reason, keyOf(right.message)], ["Malformed", "key 4"])
      assert.strictEqual(streams.counts().opened, 5)
      server.streams[4]!.stream.send(echo({ type: 4, key: bytes("key 4"), closer: [], providers: [] }))
      yield* eventually("it is reset", Effect.sync(() => kadStreams(client).length === 0))
    }))

  it.live("waits with what the remote does not take, and buffers little of it", () =>
    Effect.gen(function*() {
      const { ask, client, remote, server, streams } = yield* makePair((message, { stream }) => {
        if (message.type === MessageType.FIND_NODE) stream.send(echo(message))
      })
      yield* ask(1)
      const { stream } = server.streams[0]!
      stream.pause()
      const frame = encodeFrame({ type: MessageType.PUT_VALUE, record: new Uint8Array(60 * 1024) })
      let sent = 0
      const sends = yield* Effect.forkChild(
        Effect.forEach(numbers(40), () => Effect.tap(streams.send(remote, frame), Effect.sync(() => sent++)), {
          concurrency: "unbounded"
        })
      )
      yield* turns
      assert.isBelow(sent, 30)
      assert.isBelow(kadStreams(client)[0]!.writeBufferLength, 200 * 1024)
      stream.resume()
      yield* Fiber.join(sends)
      yield* arrived(server, 41)
    }))

  it.live("sends on another stream what waits for room on one that leaves, since the remote does not read", () =>
    Effect.gen(function*() {
      const { ask, pass, remote, server, streams } = yield* makePair((message, { stream }) => {
        if (message.type === MessageType.FIND_NODE) stream.send(echo(message))
      }, { timeout: "1 minute" })
      yield* ask(1)
      server.streams[0]!.stream.pause()
      const frame = encodeFrame({ type: MessageType.PUT_VALUE, record: new Uint8Array(60 * 1024) })
      const sends = yield* Effect.forkChild(
        Effect.forEach(numbers(40), () => streams.send(remote, frame), { concurrency: "unbounded" })
      )
      yield* pass("29999 millis")
      assert.lengthOf(server.streams, 1)
      yield* pass("1 millis")
      yield* Fiber.join(sends)
      assert.lengthOf(server.streams, 2)
    }))

  it.live("closes a stream after 30 s without use, so that the connection has none", () =>
    Effect.gen(function*() {
      const { ask, client, pass, server } = yield* makePair()
      yield* ask(1)
      yield* pass("20 seconds")
      yield* ask(2)
      yield* pass("29999 millis")
      assert.strictEqual(server.open(), 1)
      assert.lengthOf(kadStreams(client), 1)
      yield* pass("1 millis")
      yield* eventually("neither side has it", Effect.sync(() => server.open() + kadStreams(client).length === 0))
      assert.strictEqual(server.streams[0]!.stream.status, "closed")
      assert.strictEqual(keyOf((yield* ask(3)).message), "key 3")
    }))

  it.live("keeps no more streams than it may, those that were used last", () =>
    Effect.gen(function*() {
      const client = yield* makeNode()
      const { streams } = yield* pool(client, { streamsMax: 2 })
      const nodes = yield* Effect.forEach(numbers(3), () => makeNode())
      const servers = yield* Effect.forEach(nodes, (node) => serve(node))
      const remotes = yield* Effect.forEach(nodes, toRemote)
      const ask = (i: number) => streams.request(remotes[i]!, question("key"))
      for (const i of [0, 1, 0, 2]) yield* ask(i)
      yield* eventually("one is closed", Effect.sync(() => servers[1]!.open() === 0))
      assert.deepStrictEqual(servers.map((server) => server.open()), [1, 0, 1])
      yield* ask(1)
      yield* eventually("another is closed", Effect.sync(() => servers[0]!.open() === 0))
    }))

  it.live("asks on another stream what waits for one that makes room", () =>
    Effect.gen(function*() {
      const client = yield* makeNode()
      const { streams } = yield* pool(client, { streamsMax: 1, questionsMax: 1 })
      const nodes = [yield* makeNode(), yield* makeNode()]
      let answerFirst = () => {}
      const first = yield* serve(nodes[0]!, (message, { stream }) => {
        if (keyOf(message) === "key 1") answerFirst = () => void stream.send(echo(message))
        else stream.send(echo(message))
      })
      yield* serve(nodes[1]!)
      const remotes = yield* Effect.forEach(nodes, toRemote)
      const asked = yield* Effect.forkChild(
        Effect.forEach(numbers(2), (n) => streams.request(remotes[0]!, question(`key ${n}`)), { concurrency: 2 }),
        { startImmediately: true }
      )
      yield* arrived(first, 1)
      yield* streams.request(remotes[1]!, question("key"))
      yield* arrived(first, 2)
      answerFirst()
      assert.deepStrictEqual((yield* Fiber.join(asked)).map(({ message }) => keyOf(message)), ["key 1", "key 2"])
    }))

  it.live("opens a stream ahead to who is connected, and to nobody else", () =>
    Effect.gen(function*() {
      const [client, other] = [yield* makeNode(), yield* makeNode()]
      const server = yield* serve(other)
      const remote = yield* toRemote(other)
      const { streams } = yield* pool(client)
      yield* streams.warm(remote)
      yield* turns
      assert.lengthOf(client.host.node.getConnections(), 0)
      yield* client.transport.dial(yield* other.address)
      yield* streams.warm(remote)
      yield* streams.warm(remote)
      yield* eventually("it has come", Effect.sync(() => server.streams.length === 1))
      yield* streams.request(remote, question("key"))
      assert.deepStrictEqual(streams.counts(), { requests: 1, writes: 1, opened: 1, retries: 0 })
    }))

  it.live("ends with its scope: its streams, and whoever waits for an answer or a stream", () =>
    Effect.gen(function*() {
      const { address, sockets } = yield* silence
      const client = yield* makeNode()
      const other = yield* makeNode()
      const server = yield* serve(other, () => {})
      const remote = yield* toRemote(other)
      const scope = yield* Scope.make()
      const { streams } = yield* pool(client).pipe(Scope.provide(scope))
      const fibers = yield* Effect.forEach([
        remote,
        remote,
        { ...(yield* toRemote(yield* makeNode())), addresses: [address] }
      ], (peer) => Effect.forkChild(Effect.flip(streams.request(peer, question("key")))))
      yield* arrived(server, 2)
      yield* eventually("it is dialled", Effect.sync(() => sockets.size === 1))
      yield* Scope.close(scope, Exit.void)
      for (const fiber of fibers) assert.strictEqual((yield* Fiber.join(fiber)).reason, "Denied")
      assert.lengthOf(kadStreams(client), 0)
      yield* eventually("the remote knows", Effect.sync(() => server.open() === 0))
      yield* eventually("nothing is dialled", Effect.sync(() => sockets.size === 0))
      assert.strictEqual((yield* Effect.flip(streams.request(remote, question("key")))).reason, "Denied")
      yield* streams.warm(remote)
      assert.lengthOf(server.streams, 1)
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const stranger = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"

/** Streams of a node whose time is the spec's. */
const pool = Effect.fnUntraced(function*(
  node: Libp2pNode,
  options: Partial<Streams.StreamsOptions> = {}
) {
  const clock = yield* TestClock.make()
  const streams = yield* Streams.make({ protocol: kadProtocol, ...options }).pipe(
    Effect.provideService(Libp2pHost.Libp2pHost, node.host),
    Effect.provideService(Clock.Clock, clock)
  )
  const pass = (duration: Parameters<typeof clock.adjust>[0]) =>
    turns.pipe(Effect.andThen(clock.adjust(duration)), Effect.andThen(turns))
  return { streams, pass }
})

/** A client, and a server that is asked by it. */
const makePair = Effect.fnUntraced(function*(
  answer?: Parameters<typeof serve>[1],
  options?: Partial<Streams.StreamsOptions>
) {
  const [client, other] = [yield* makeNode(), yield* makeNode()]
  const server = yield* serve(other, answer)
  const remote = yield* toRemote(other)
  const ask = (n: number) => streams.request(remote, question(`key ${n}`))
  const { pass, streams } = yield* pool(client, options)
  return { client, server, remote, streams, ask, pass }
})

const toRemote = (node: Libp2pNode) =>
  Effect.sync(() => {
    const { peerId } = node.host.node
    return remoteOf(
      peerId.toString(),
      peerId.toMultihash().bytes,
      node.host.node.getMultiaddrs().map(({ bytes }) => bytes)
    )
  })

function remoteOf(id: string, bytes: Uint8Array, addresses: ReadonlyArray<Uint8Array>): PeerQueues.Remote {
  return { id: id as PeerId, bytes, key: Buffer.from(bytes).toString("latin1"), addresses }
}

/** A port that takes connections and says nothing. */
const silence = Effect.acquireRelease(
  Effect.promise(() => {
    const sockets = new Set<unknown>()
    const server = createServer((socket) => {
      sockets.add(socket)
      socket.on("close", () => sockets.delete(socket)).on("error", () => {}).resume()
    })
    return new Promise<{ readonly address: Uint8Array; readonly sockets: Set<unknown>; readonly close: () => void }>(
      (resolve) =>
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          const port = typeof address === "object" && address !== null ? address.port : 0
          resolve({ address: multiaddr(`/ip4/127.0.0.1/tcp/${port}`).bytes, sockets, close: () => server.close() })
        })
    )
  }),
  ({ close }) => Effect.sync(close)
)

const arrived = (server: Server, count: number) =>
  eventually(`${count} messages have come`, Effect.sync(() => server.messages().length >= count))

/** What the two sides do when nothing keeps them from it. */
const turns = Effect.promise(async () => {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
})

function kadStreams(node: Libp2pNode) {
  return node.host.node.getConnections().flatMap(({ streams }) =>
    streams.filter(({ protocol }) => protocol === kadProtocol)
  )
}

function numbers(count: number): ReadonlyArray<number> {
  return Array.from({ length: count }, (_, i) => i + 1)
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

function question(key: string): Uint8Array {
  return encodeFrame({ type: MessageType.FIND_NODE, key: bytes(key) })
}

function keyOf({ key }: Message): string {
  return new TextDecoder().decode(key)
}
