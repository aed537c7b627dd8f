import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Fiber, FileSystem, Layer, Option, Scope, Stream } from "effect"
import { NodeFileSystem } from "@effect/platform-node"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Network } from "../../src/Network.ts"
import type { DialError } from "../../src/schema/NetworkError.ts"
import { agentVersion, protocolVersion } from "../../src/schema/Agent.ts"
import * as ContentKey from "../../src/schema/Content.ts"
import { type Multiaddr, type PeerId, peerOf } from "../../src/schema/Peer.ts"
import * as Live from "../support/live.ts"
import { within } from "../support/within.ts"

const reasonOf = (error: unknown): string => {
  const { _tag, reason } = error as DialError
  return reason === undefined ? _tag : `${_tag}.${reason._tag}`
}

const first = (node: Network["Service"]) => Effect.map(node.addresses, ([address]) => address!)

describe("a node on real sockets", () => {
  it.live("connects, knows what the remote said of itself, and counts it on both sides", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* Effect.all([Live.makeNode(), Live.makeNode()])
      const info = yield* alice.connect(yield* first(bob))
      assert.strictEqual(info.id, bob.localPeer)
      assert.strictEqual(info.agentVersion, agentVersion)
      assert.strictEqual(info.protocolVersion, protocolVersion)
      assert.includeMembers([...info.protocols], [
        "/codio/1.0.0",
        "/ipfs/id/1.0.0",
        "/ipfs/ping/1.0.0",
        "/codio/kad/1.0.0"
      ])
      assert.strictEqual(info.path._tag, "Direct")
      assert.strictEqual(info.interest, "wanted")
      yield* Live.until(Effect.map(bob.peerCount, (count) => count === 1))
      const seen = Option.getOrThrow(yield* bob.peer(alice.localPeer))
      assert.deepStrictEqual([seen.direction, seen.interest], ["inbound", "transient"])
      assert.strictEqual((yield* alice.connect(bob.localPeer)).id, bob.localPeer)
      assert.strictEqual(yield* alice.peerCount, 1)
      yield* Live.until(
        Effect.map(alice.peer(bob.localPeer), Option.exists((peer) => peer.roundTripTime !== undefined))
      )
    }))

  it.live("disconnects for good and says so", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* Effect.all([Live.makeNode(), Live.makeNode()])
      const events = yield* Live.record(bob)
      yield* alice.keep(yield* first(bob))
      yield* Live.until(Effect.sync(() => events.some((event) => event._tag === "PeerIdentified")))
      yield* alice.disconnect(bob.localPeer)
      yield* Live.until(Effect.sync(() => events.some((event) => event._tag === "PeerDisconnected")))
      const left = events.find((event) => event._tag === "PeerDisconnected")
      assert.deepStrictEqual([left?.reason, left?.remoteReason], ["remote", "disconnect"])
      assert.strictEqual(yield* alice.peerCount, 0)
    }))

  it.live("does not dial who was disconnected for a lookup either, until somebody asks for the peer", () =>
    Effect.gen(function*() {
      const [alice, bob, carol, dave] = yield* Effect.all([
        Live.makeNode(),
        Live.makeNode(),
        Live.makeNode(),
        Live.makeNode()
      ])
      yield* carol.connect(yield* first(bob))
      yield* alice.connect(yield* first(bob))
      yield* alice.connect(yield* first(carol))
      // Alice would not dial bob either if carol did not name him yet.
      yield* dave.connect(yield* first(carol))
      yield* Live.until(Effect.isSuccess(dave.findPeer(bob.localPeer)))
      yield* alice.disconnect(bob.localPeer)
      const events = yield* Live.record(alice)
      yield* Stream.runDrain(alice.findProviders(ContentKey.fromText("content of nobody")))
      const dialled = () =>
        events.filter((event) =>
          event._tag === "PeerConnected" && event.direction === "outbound" && event.peer === bob.localPeer
        ).length
      assert.strictEqual(dialled(), 0)
      yield* alice.connect(bob.localPeer)
      yield* Live.until(Effect.sync(() => dialled() === 1))
    }))

  it.live("refuses a blocked peer in both directions", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* Effect.all([Live.makeNode(), Live.makeNode()])
      yield* alice.connect(yield* first(bob))
      yield* alice.block(bob.localPeer)
      assert.strictEqual(yield* alice.peerCount, 0)
      assert.strictEqual(reasonOf(yield* Effect.flip(alice.connect(yield* first(bob)))), "DialError.Denied")
      yield* Live.until(Effect.map(bob.peerCount, (count) => count === 0))
      assert.strictEqual(reasonOf(yield* Effect.flip(bob.connect(yield* first(alice)))), "DialError.Refused")
      assert.strictEqual(yield* alice.peerCount, 0)
    }))

  it.live("is never over its limit: of eight diallers at three slots five are refused", () =>
    Effect.gen(function*() {
      const server = yield* Live.makeNode({ maxPeers: 3 })
      const address = yield* first(server)
      const most = yield* Effect.forkChild(
        Effect.repeat(server.peerCount, { until: (count) => count > 3 }),
        { startImmediately: true }
      )
      const clients = yield* Effect.all(Array.from({ length: 8 }, () => Live.makeNode()))
      const exits = yield* Effect.forEach(clients, (client) => Effect.result(client.connect(address)), {
        concurrency: 8
      })
      const failures = exits.flatMap((exit) => exit._tag === "Failure" ? [reasonOf(exit.failure)] : [])
      assert.deepStrictEqual(failures, Array.from({ length: 5 }, () => "DialError.Refused"))
      yield* Live.until(Effect.map(server.peerCount, (count) => count === 3))
      assert.isUndefined(most.pollUnsafe(), "more than three peers at some moment")
      yield* Fiber.interrupt(most)
      // A wanted peer evicts a stranger; the limit holds.
      const outside = yield* Live.makeNode()
      yield* server.connect(yield* first(outside))
      assert.strictEqual(yield* server.peerCount, 3)
    }))

  it.live("answers a protocol, in both directions at once, and connects to open a stream", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* Effect.all([Live.makeNode(), Live.makeNode()])
      yield* bob.handle("/echo/1.0.0", (stream) => Stream.runForEach(stream.read, stream.write))
      const stream = yield* alice.open(yield* first(bob), "/echo/1.0.0")
      const sent = new Uint8Array(1 << 20).map((_, index) => index)
      yield* Effect.forkChild(Effect.andThen(stream.write(sent), stream.closeWrite))
      const received = yield* stream.read.pipe(
        Stream.runFold(() => ({ bytes: 0, wrong: 0 }), (sum, chunk) => ({
          bytes: sum.bytes + chunk.length,
          wrong: sum.wrong +
            chunk.reduce((wrong, byte, index) => wrong + Number(byte !== ((sum.bytes + index) & 255)), 0)
        }))
      )
      assert.deepStrictEqual(received, { bytes: 1 << 20, wrong: 0 })
    }))

  it.live("resets the stream of a handler that throws and serves the next", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* Effect.all([Live.makeNode(), Live.makeNode()])
      let calls = 0
      yield* bob.handle("/fragile/1.0.0", (stream) => {
        if (calls++ === 0) throw new Error("a fault in the handler")
        return Stream.runForEach(stream.read, stream.write)
      })
      const address = yield* first(bob)
      // The reset may come before the stream is there, or while it is read.
      const broken = yield* alice.open(address, "/fragile/1.0.0").pipe(
        Effect.flatMap((stream) => Stream.runDrain(stream.read)),
        Effect.scoped,
        Effect.flip
      )
      assert.strictEqual(reasonOf(broken), "StreamError.StreamReset")
      const stream = yield* alice.open(address, "/fragile/1.0.0")
      yield* stream.write(new Uint8Array([7]))
      assert.deepStrictEqual(Option.getOrThrow(yield* Stream.runHead(stream.read)), new Uint8Array([7]))
    }))

  it.live("gives each dial that cannot be its typed reason and one line", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* Effect.all([Live.makeNode(), Live.makeNode()])
      const address = yield* first(bob)
      const wrong = address.replace(bob.localPeer, "12D3KooWPnd8e2YE67bKZpUqN2YGzs6kByYZR87KkvHtMgXdq2jr")
      const cases: ReadonlyArray<readonly [string, string]> = [
        ["/ip4/127.0.0.1/tcp/1", "DialError.Unreachable"],
        [alice.localPeer, "DialError.DialedSelf"],
        [yield* first(alice), "DialError.DialedSelf"],
        [wrong, "DialError.UnexpectedPeer"],
        ["/ip4/300.0.0.1/tcp/1", "DialError.InvalidAddress"],
        ["nobody", "DialError.InvalidAddress"],
        ["/ip4/127.0.0.1/udp/1/quic-v1", "DialError.InvalidAddress"]
      ]
      for (const [target, expected] of cases) {
        const error = yield* Effect.flip(alice.connect(target))
        assert.strictEqual(reasonOf(error), expected, `${target}: ${error.message}`)
        assert.notInclude(error.message, "\n")
      }
      assert.strictEqual(yield* bob.peerCount, 0)
    }))

  it.live("ends a dial and everything else when its scope closes in the middle", () =>
    Effect.gen(function*() {
      const silent = yield* Live.silentServer
      const scope = yield* Scope.make()
      const node = yield* Scope.provide(Live.makeNode(), scope)
      const dial = yield* Effect.forkChild(Effect.exit(node.connect(`/ip4/127.0.0.1/tcp/${silent.port}`)), {
        startImmediately: true
      })
      yield* silent.accepted
      const begun = yield* Clock.currentTimeMillis
      yield* Scope.close(scope, Exit.void)
      assert.isBelow((yield* Clock.currentTimeMillis) - begun, 5_000)
      yield* Fiber.interrupt(dial)
    }))

  it.live("refuses to start on a port in use, with wrong options, and twice in one data directory", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const dataDirectory = yield* fs.makeTempDirectoryScoped()
      const alice = yield* Live.makeNode({ dataDirectory })
      const taken = /^(.*)\/p2p/.exec(yield* first(alice))![1]!
      const inUse = yield* Effect.flip(Effect.scoped(Live.makeNode({ listenAddresses: [taken] })))
      assert.strictEqual(reasonOf(inUse), "NetworkStartError.HostError")
      assert.match(inUse.message, /in use/)
      const wrong = yield* Effect.flip(Effect.scoped(Live.makeNode({ maxPeers: 0, bootstrapPeers: ["nowhere"] })))
      assert.strictEqual(reasonOf(wrong), "NetworkStartError.ConfigError")
      assert.match(wrong.message, /maxPeers.*bootstrapPeers/)
      const locked = yield* Effect.flip(Effect.scoped(Live.makeNode({ dataDirectory })))
      assert.strictEqual(reasonOf(locked), "NetworkStartError.DataDirectoryError")
      for (const error of [inUse, wrong, locked]) assert.notInclude(error.message, "\n")
    }).pipe(Effect.provide(NodeFileSystem.layer)))

  it.live("keeps its id and its peers in the data directory", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const dataDirectory = yield* fs.makeTempDirectoryScoped()
      const bob = yield* Live.makeNode()
      const id = yield* Effect.scoped(Effect.gen(function*() {
        const alice = yield* Live.makeNode({ dataDirectory })
        yield* alice.connect(yield* first(bob))
        return alice.localPeer
      }))
      const mode = (yield* fs.stat(`${dataDirectory}/identity.key`)).mode & 0o777
      assert.strictEqual(mode, 0o600)
      yield* Live.until(Effect.map(bob.peerCount, (count) => count === 0))
      const again = yield* Live.makeNode({ dataDirectory })
      assert.strictEqual(again.localPeer, id)
      // Remembered, so dialled without being told.
      yield* Live.until(Effect.map(again.peerCount, (count) => count === 1))
    }).pipe(Effect.provide(NodeFileSystem.layer)))

  it.live(
    "notices a killed peer within a second, a stopped and a cut off one within ten",
    () =>
      Effect.gen(function*() {
        const node = yield* Live.makeNode()
        const events = yield* Live.record(node)
        const [killed, stopped] = yield* Effect.all([Live.spawnNode(), Live.spawnNode()], { concurrency: 2 })
        const distant = yield* Live.makeNode()
        const atDistant = yield* Live.record(distant)
        const cable = yield* Live.proxy(yield* first(distant))
        yield* Effect.forEach([killed, stopped, cable], ({ address }) => node.connect(address))
        killed.process.kill("SIGKILL")
        yield* within("the killed one is gone", 1_000, Effect.map(node.peerCount, (count) => count === 2))
        stopped.process.kill("SIGSTOP")
        yield* cable.swallow
        // Read from events, since the two may meet again at the address behind the cable.
        const reason = (of: typeof events, who: PeerId | undefined) =>
          of.flatMap((event) => event._tag === "PeerDisconnected" && event.peer === who ? [event.reason] : [])[0]
        const left = () => [
          reason(events, peerOf(killed.address as Multiaddr)),
          reason(events, peerOf(stopped.address as Multiaddr)),
          reason(events, distant.localPeer),
          reason(atDistant, node.localPeer)
        ]
        yield* within("the others are", 10_000, Effect.sync(() => !left().includes(undefined)))
        assert.deepStrictEqual(left(), ["lost", "unhealthy", "unhealthy", "unhealthy"])
      })
  )

  it.live("announces the public address of its own interface", (context) =>
    Effect.gen(function*() {
      // A network of its own, with a public address on the loopback device.
      const program = fileURLToPath(new URL("../support/node.ts", import.meta.url))
      const script =
        `ip link set lo up && ip addr add 44.0.0.1/32 dev lo && exec "$0" "$1" '{"listenAddresses":["/ip4/44.0.0.1/tcp/0"]}'`
      const child = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn("unshare", ["-n", "sh", "-c", script, process.execPath, program], { stdio: ["ignore", "pipe", "pipe"] })
        ),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      const line = yield* Effect.promise(() =>
        Promise.race([
          once(createInterface(child.stdout), "line").then(([line]) => String(line)),
          once(child, "error").then(() => undefined),
          once(child, "exit").then(() => undefined)
        ])
      )
      if (line === undefined) return context.skip("network namespaces are not permitted here")
      return assert.match(line, /^\/ip4\/44\.0\.0\.1\/tcp\/\d+\/p2p\//)
    }))

  it.live("is one node for each call, and one for each value of the Layer", () =>
    Effect.gen(function*() {
      const layer = Network.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], enableMdns: false })
      const [one, two] = yield* Effect.provide(Effect.all([Network, Network]), [layer, layer])
      assert.strictEqual(one.localPeer, two.localPeer)
      const other = Context.get(
        yield* Layer.build(Network.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], enableMdns: false })),
        Network
      )
      assert.notStrictEqual(other.localPeer, one.localPeer)
    }))
})
