/**
 * A stream of Kademlia that is unused for longer than the other side allows: js-libp2p resets it 10 s after its last
 * message, Go after 60 s, Rust never. These rows wait most of their time, and run beside the others.
 */
import type { Stream } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import { Clock, Duration, Effect, Fiber } from "effect"
import { connect as connectSocket, createServer, type Socket } from "node:net"
import { isDeepStrictEqual } from "node:util"
import { ContentKey, type Multiaddr, withoutPeer } from "../../../src/index.ts"
import { Node, keyOf } from "../../../src/layers/dht/wire/Nodes.ts"
import { encodePeer } from "../../../src/layers/dht/wire/Message.ts"
import * as Announce from "../../../src/layers/dht/provide/Announce.ts"
import * as Streams from "../../../src/layers/dht/libp2p/Streams.ts"
import { Libp2pHost } from "../../../src/layers/index.ts"
import { kadProtocol } from "../../support/DhtNode.ts"
import { makeNode } from "../../support/Libp2pNode.ts"
import { makePlain } from "../../support/PlainKad.ts"
import { type Bench, connect, hold, knows } from "../Bench.ts"
import type { Pair } from "../Matrix.ts"
import { eventually, type Peer } from "../Peer.ts"

/** The server that is asked, and how many streams a peer has opened to it. */
interface Server {
  readonly id: string
  readonly address: string
  readonly streamsOf: (peer: string) => Effect.Effect<number, Error>
}

export const idle = (bench: Bench) =>
  Effect.scoped(Effect.gen(function*() {
    const go = yield* bench.make("go", { kad: kadProtocol })
    const rust = yield* bench.make("rust", { kad: kadProtocol })
    const plain = yield* makePlain()
    const plainServer: Server = {
      id: plain.peerId.toString(),
      address: plain.getMultiaddrs()[0]!.toString(),
      streamsOf: (peer) =>
        Effect.sync(() => {
          const connections = plain.getConnections().filter(({ remotePeer }) => remotePeer.toString() === peer)
          return connections.flatMap(({ streams }) => streams).filter(isKad).length
        })
    }
    const resets: ReadonlyArray<readonly [string, Pair, Server, resetSeconds: number]> = [
      [row, "ts>go", serverOf(go), 60],
      [`plain js-libp2p: ${row}`, "ts>ts", plainServer, 10]
    ]
    yield* Effect.all([
      ...resets.flatMap(([name, pair, server, seconds]) => [
        bench.check(name, pair, isReset(bench, server, seconds)),
        bench.check(`${name}, its reset on the way`, pair, isBeingReset(bench, server, seconds))
      ]),
      bench.check(row, "ts>rust", stands(bench, serverOf(rust))),
      bench.check("a node closes its stream of the DHT left unused", "ts>go", closes(bench, go))
    ], { concurrency: "unbounded", discard: true })
  })).pipe(
    Effect.catch((error) => bench.check(row, "ts>ts", Effect.fail(error)))
  )

const row = "provides over a stream left unused"

// internal ------------------------------------------------------------------------------------------------------------

/** The reset has come before anybody asks again. */
const isReset = Effect.fnUntraced(function*(bench: Bench, server: Server, seconds: number) {
  const asker = yield* makeAsker(server)
  yield* asker.provide("before")
  const since = yield* Clock.currentTimeMillis
  yield* eventually("the stream is reset", asker.open, (open) => open === 0, `${seconds + 30} seconds`)
  const after = Math.round(((yield* Clock.currentTimeMillis) - since) / 1000)
  yield* hold(after >= seconds - 1, `gone after ${after} s already`)
  yield* asker.provide("after")
  yield* asker.counted({ requests: 2, writes: 2, opened: 2, retries: 0 })
  yield* isFound(bench, server, asker, ["before", "after"])
  return `reset after ${after} s`
}, Effect.scoped)

/** The stream looks open when it is written to, and both the record and the question are lost with it. */
const isBeingReset = Effect.fnUntraced(function*(bench: Bench, server: Server, seconds: number) {
  const way = yield* makeWay(server.address)
  const asker = yield* makeAsker({ ...server, address: way.address })
  yield* asker.provide("before")
  // Nothing comes through from here on. A muxer endures silence for 10 s.
  yield* Effect.sleep(Duration.seconds(seconds - 5))
  yield* way.hold
  yield* eventually("it is reset", server.streamsOf(asker.id), (open) => open === 0, "20 seconds")
  yield* hold((yield* asker.open) === 1, "the reset has come through")
  const fiber = yield* Effect.forkChild(asker.provide("after"), { startImmediately: true })
  yield* eventually("it is written", Effect.sync(asker.writes), (writes) => writes === 2)
  yield* way.release
  yield* Fiber.join(fiber)
  yield* asker.counted({ requests: 2, writes: 3, opened: 2, retries: 1 })
  yield* isFound(bench, server, asker, ["before", "after"])
  return `after ${seconds} s`
}, Effect.scoped)

/** Rust keeps it. */
const stands = Effect.fnUntraced(function*(bench: Bench, server: Server) {
  const asker = yield* makeAsker(server)
  yield* asker.provide("before")
  yield* Effect.sleep("65 seconds")
  yield* asker.provide("after")
  yield* asker.counted({ requests: 2, writes: 2, opened: 1, retries: 0 })
  yield* isFound(bench, server, asker, ["before", "after"])
  return "open after 65 s"
}, Effect.scoped)

/** Closes after 30 s by default, before Go would reset it. */
const closes = Effect.fnUntraced(function*(bench: Bench, go: Peer) {
  const node = yield* bench.make("ts", { kad: kadProtocol })
  yield* connect(node, go)
  yield* knows(node)
  yield* node.run("provide", { key: hexOf(node, "before") })
  const since = yield* Clock.currentTimeMillis
  const { streamsOf } = serverOf(go)
  yield* hold((yield* streamsOf(node.id)) > 0, "it has no stream")
  yield* eventually("it is closed", streamsOf(node.id), (open) => open === 0, "80 seconds")
  const after = Math.round(((yield* Clock.currentTimeMillis) - since) / 1000)
  yield* hold(after >= 29, `closed after ${after} s already`)
  yield* node.run("provide", { key: hexOf(node, "after") })
  yield* isFound(bench, serverOf(go), node, ["before", "after"])
  return `after ${after} s`
}, Effect.scoped)

const serverOf = (peer: Peer): Server => ({
  id: peer.id,
  address: peer.addresses[0]!,
  streamsOf: (other) => Effect.map(peer.run("streams", { peer: other, protocol: kadProtocol }), ({ count }) => count)
})

/**
 * What announces keys to one server over streams that it keeps for minutes, with patience for a machine on which all
 * the rows run.
 */
const makeAsker = Effect.fnUntraced(function*(server: Server) {
  const { host } = yield* makeNode()
  const streams = yield* Streams.make({ protocol: kadProtocol, idleTime: "5 minutes", timeout: "1 minute" }).pipe(
    Effect.provideService(Libp2pHost.Libp2pHost, host)
  )
  const nodeOf = (id: string, addresses: ReadonlyArray<string>) => {
    const bytes = ContentKey.toBytes(id as ContentKey.ContentKey)
    const node = new Node(bytes, keyOf(bytes))
    node.addresses = addresses.map((address) => multiaddr(withoutPeer(address as Multiaddr)).bytes)
    return node
  }
  const id = host.node.peerId.toString()
  const self = nodeOf(id, host.node.getMultiaddrs().map(String))
  const peer = nodeOf(server.id, [server.address])
  const announce = Announce.make<Node>({
    self,
    count: 20,
    seeds: () => [peer],
    request: (node, question, before) =>
      Effect.map(streams.request(node, question, before), ({ tookBefore }) => ({ closer: [], tookBefore })),
    send: streams.send,
    provider: () => encodePeer(self.bytes, self.addresses)
  })
  return {
    id,
    open: Effect.sync(() => host.node.getConnections().flatMap(({ streams }) => streams).filter(isKad).length),
    writes: () => streams.counts().writes,
    /** Announces a key, and asserts that one copy is reported. */
    provide: Effect.fnUntraced(function*(text: string) {
      const copies: Array<number> = []
      yield* announce({
        keys: [{ key: keyFor(id, text), ttlSeconds: undefined, isOptimistic: false }],
        isWanted: () => true,
        written: () => {},
        announced: (_, count) => copies.push(count)
      })
      yield* hold(copies.join() === "1", `${text}: ${copies.join() || "no"} copies`)
    }),
    counted: (expected: Streams.StreamsCounts) =>
      hold(
        isDeepStrictEqual(streams.counts(), expected),
        `${JSON.stringify(streams.counts())}, and not ${JSON.stringify(expected)}`
      )
  }
})

/** Asserts that the server gives the announced keys to another peer. */
const isFound = Effect.fnUntraced(function*(
  bench: Bench,
  server: Server,
  provider: { readonly id: string },
  texts: ReadonlyArray<string>
) {
  const finder = yield* bench.make("rust", { kad: kadProtocol })
  yield* finder.run("connect", { addr: server.address })
  yield* knows(finder)
  for (const text of texts) {
    yield* eventually(
      `${text} is found`,
      finder.run("find", { key: hexOf(provider, text) }),
      ({ providers }) => providers.some(({ peer }) => peer === provider.id)
    )
  }
})

/** A proxy to an address that can be told to let nothing back. */
const makeWay = (address: string) =>
  Effect.acquireRelease(
    Effect.callback<Way & { readonly close: () => void }>((resume) => {
      const [, , host, , port] = address.split("/")
      const sockets: Array<readonly [near: Socket, far: Socket]> = []
      const server = createServer((near) => {
        const far = connectSocket(Number(port), host)
        sockets.push([near, far])
        near.pipe(far).pipe(near)
        // The other socket ends with it.
        near.on("error", () => far.destroy())
        far.on("error", () => near.destroy())
      })
      server.listen(0, "127.0.0.1", () => {
        const own = server.address()
        const port = typeof own === "object" && own !== null ? own.port : 0
        resume(Effect.succeed({
          address: `/ip4/127.0.0.1/tcp/${port}`,
          hold: Effect.sync(() => {
            for (const [near, far] of sockets) far.unpipe(near)
          }),
          release: Effect.sync(() => {
            for (const [near, far] of sockets) far.pipe(near)
          }),
          close: () => {
            for (const socket of sockets.flat()) socket.destroy()
            server.close()
          }
        }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

interface Way {
  readonly address: string
  readonly hold: Effect.Effect<void>
  readonly release: Effect.Effect<void>
}

const keyFor = (provider: string, text: string) => ContentKey.fromText(`${text}, ${provider}`)

const hexOf = ({ id }: { readonly id: string }, text: string) =>
  Buffer.from(ContentKey.toBytes(keyFor(id, text))).toString("hex")

const isKad = ({ protocol }: Stream) => protocol === kadProtocol
