/**
 * The host: modules that are attached after the start, and a stop within a time limit.
 */
import { assert, describe, it } from "@effect/vitest"
import type { PeerDiscoveryEvents, PeerRouting } from "@libp2p/interface"
import { peerDiscoverySymbol, peerRoutingSymbol } from "@libp2p/interface"
import { kadDHT, passthroughMapper } from "@libp2p/kad-dht"
import { peerIdFromString } from "@libp2p/peer-id"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { Duration, Effect, Exit, Latch, Logger, Scope, Stream } from "effect"
import { type AddressInfo, createServer, type Socket } from "node:net"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import type { Components } from "../../../src/layers/libp2p/wire/Components.ts"
import type { Multiaddr, ProtocolId } from "../../../src/schema/Peer.ts"
import { eventually } from "../../contract/eventually.ts"
import { type Libp2pNode, makeNode } from "../../support/Libp2pNode.ts"

// libp2p declares kad-dht's components apart from the components that it gives.
const kad = kadDHT({
  protocol: "/codio/kad/1.0.0",
  clientMode: false,
  peerInfoMapper: passthroughMapper
}) as unknown as (components: Components) => object
const stranger = peerIdFromString("12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5")

setFlagsFromString("--expose-gc")
const collectGarbage = runInNewContext("gc") as () => void

/** A module with routing and discovery of its own, which records its calls. */
const makeModule = () => {
  const calls: Array<string> = []
  const discovery = new EventTarget()
  const routing: PeerRouting = {
    findPeer: async (id) => ({ id, multiaddrs: [multiaddr("/ip4/127.0.0.1/tcp/9")] }),
    async *getClosestPeers() {
      yield { id: stranger, multiaddrs: [] }
    }
  }
  return {
    calls,
    discover: (address: string) =>
      discovery.dispatchEvent(
        new CustomEvent(
          "peer",
          { detail: { id: stranger, multiaddrs: [multiaddr(address)] } } satisfies {
            detail: PeerDiscoveryEvents["peer"]["detail"]
          }
        )
      ),
    beforeStart: () => void calls.push("beforeStart"),
    start: () => void calls.push("start"),
    afterStart: () => void calls.push("afterStart"),
    stop: () => void calls.push("stop"),
    [peerRoutingSymbol]: routing,
    [peerDiscoverySymbol]: discovery
  }
}

describe("Libp2pHost.attach", () => {
  it.live("takes no peer for one that speaks kad because a stream was opened, by either side", () =>
    Effect.gen(function*() {
      const protocol = "/codio/kad/1.0.0"
      const [a, b] = [yield* makeNode(), yield* makeNode()]
      yield* a.transport.dial(yield* b.address)
      const stream = (from: Libp2pNode) => Effect.promise(() => from.host.node.getConnections()[0]!.newStream(protocol))
      const toldToA = Effect.promise(async () => (await a.host.node.peerStore.get(b.host.node.peerId)).protocols)

      const lacking = yield* stream(a)
      yield* eventually("it is refused", Effect.sync(() => lacking.status === "aborted"))
      assert.notInclude(yield* toldToA, protocol)

      // Like a client of the DHT, which answers nothing itself.
      let answered = 0
      yield* Effect.promise(async () => a.host.components.registrar.handle(protocol, () => void answered++))
      yield* eventually("b has the connection", Effect.sync(() => b.host.node.getConnections().length === 1))
      yield* stream(b)
      yield* eventually("a has the stream", Effect.sync(() => answered === 1))
      assert.notInclude(yield* toldToA, protocol)
    }))

  it.live("starts a module late, which identify then announces, and takes it back with the scope", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode()
      const before = yield* a.transport.dial(yield* b.address)
      const [underlying] = a.host.node.getConnections()
      const scope = yield* Scope.make()
      yield* Scope.provide(b.host.attach("kad-dht", kad), scope)
      // Connected peers hear of it by identify push.
      yield* eventually(
        "the connected peer hears of the protocol",
        Effect.promise(async () =>
          (await a.host.node.peerStore.get(underlying!.remotePeer)).protocols.includes("/codio/kad/1.0.0")
        )
      )
      yield* before.close
      const connection = yield* a.transport.dial(yield* b.address)
      const remote = yield* connection.remote
      assert.include(remote._tag === "Some" ? remote.value.protocols : [], "/codio/kad/1.0.0")
      yield* Scope.close(scope, Exit.void)
      assert.notInclude(b.host.node.getProtocols(), "/codio/kad/1.0.0")
      // A second time.
      yield* b.host.attach("kad-dht", kad)
      assert.include(b.host.node.getProtocols(), "/codio/kad/1.0.0")
    }))

  it.live("asks the module for peers and stores those it discovers, while it is attached", () =>
    Effect.gen(function*() {
      const { host } = yield* makeNode()
      const stored = Effect.promise(async () =>
        (await host.node.peerStore.all()).flatMap((peer) =>
          peer.addresses.map((address) => address.multiaddr.toString())
        )
      )
      const module = makeModule()
      const scope = yield* Scope.make()
      yield* Scope.provide(host.attach("module", () => module), scope)
      assert.deepStrictEqual(module.calls, ["beforeStart", "start", "afterStart"])
      assert.strictEqual(
        (yield* Effect.promise(() => host.node.peerRouting.findPeer(stranger))).multiaddrs[0]?.toString(),
        "/ip4/127.0.0.1/tcp/9"
      )
      module.discover("/ip4/127.0.0.1/tcp/7")
      yield* eventually("it is stored", Effect.map(stored, (addresses) => addresses.includes("/ip4/127.0.0.1/tcp/7")))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(module.calls, ["beforeStart", "start", "afterStart", "stop"])
      module.discover("/ip4/127.0.0.1/tcp/8")
      const error = yield* Effect.promise(() =>
        host.node.peerRouting.findPeer(stranger).catch((error: Error) => error.name)
      )
      assert.strictEqual(error, "NotFoundError")
      assert.notInclude(yield* stored, "/ip4/127.0.0.1/tcp/8")
    }))

  it.live("fails with the module's name, and takes back what was half started", () =>
    Effect.gen(function*() {
      const { host } = yield* makeNode()
      const module = Object.assign(makeModule(), {
        start: () => {
          throw new Error("no socket")
        }
      })
      const error = yield* Effect.flip(Effect.scoped(host.attach("mdns", () => module)))
      assert.strictEqual(error.message, "mdns: no socket")
      assert.deepStrictEqual(module.calls, ["beforeStart", "stop"])
      const thrown = yield* Effect.flip(Effect.scoped(host.attach("kad-dht", (): never => {
        throw new Error("bad options")
      })))
      assert.strictEqual(thrown.message, "kad-dht: bad options")
    }))

  it.live("does not wait for a module that never stops", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { host } = yield* Scope.provide(makeNode(), scope)
      yield* Scope.provide(
        host.attach("stuck", () => ({ start: () => {}, stop: () => new Promise<void>(() => {}) })),
        scope
      )
      const [took] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(took), 5000)
    }).pipe(Effect.provide(Logger.layer([]))))
})

describe("Libp2pHost.listen", () => {
  it.live("says in one line why it cannot listen", () =>
    Effect.gen(function*() {
      const { address } = yield* makeNode()
      const taken = (yield* address).replace(/\/p2p\/.*/, "")
      const problem = (listenAddresses: ReadonlyArray<string>) =>
        Effect.map(Effect.flip(Effect.scoped(makeNode({ listenAddresses }))), (error) => error.message)
      assert.strictEqual(
        yield* problem([taken]),
        `tcp: cannot listen on ${taken}: the port is in use by another program; choose another one, or 0 for any free port`
      )
      // The listener on the good address is closed again.
      const free = createServer()
      yield* Effect.callback<void>((resume) => void free.listen(0, "127.0.0.1", () => resume(Effect.void)))
      const { port } = free.address() as AddressInfo
      yield* Effect.callback<void>((resume) => void free.close(() => resume(Effect.void)))
      assert.include(yield* problem([`/ip4/127.0.0.1/tcp/${port}`, taken]), taken)
      yield* Effect.scoped(makeNode({ listenAddresses: [`/ip4/127.0.0.1/tcp/${port}`] }))

      assert.strictEqual(
        yield* problem(["/ip4/192.0.2.1/tcp/0"]),
        "tcp: cannot listen on /ip4/192.0.2.1/tcp/0: this machine has no such address; listen on /ip4/0.0.0.0 for all of them"
      )
      assert.strictEqual(
        yield* problem(["/ip4/127.0.0.1/udp/0/quic-v1"]),
        "tcp: cannot listen on /ip4/127.0.0.1/udp/0/quic-v1: this is no address of the tcp transport"
      )
    }))

  it.live("listens on both families at one port by default, or on another of IPv6 where a program has it", () =>
    Effect.gen(function*() {
      const portsOf = (node: Effect.Success<ReturnType<typeof makeNode>>) =>
        Effect.map(node.transport.addresses, (addresses) => {
          const of = (family: string) =>
            new Set(addresses.flatMap((one) => new RegExp(`^/${family}/.*/tcp/(\\d+)`).exec(one)?.[1] ?? []))
          return { ip4: of("ip4"), ip6: of("ip6"), all: addresses }
        })
      const defaults = ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"]
      const first = yield* makeNode({ listenAddresses: defaults })
      const { all, ip4, ip6 } = yield* portsOf(first)
      if (ip6.size === 0) return console.log("left out: this machine has no IPv6")
      assert.deepStrictEqual([ip4.size, ip6], [1, ip4])
      const other = yield* makeNode()
      for (const address of ["/ip4/127.0.0.1/", "/ip6/::1/"].map((start) => all.find((one) => one.startsWith(start)))) {
        yield* (yield* other.transport.dial(address!)).close
      }

      // A free port of IPv4 whose twin of IPv6 is taken.
      const server = createServer()
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) =>
          void server.listen({ port: 0, host: "::", ipv6Only: true }, () => resume(Effect.void))
        ),
        () => Effect.sync(() => server.close())
      )
      const { port } = server.address() as AddressInfo
      const second = yield* portsOf(
        yield* makeNode({ listenAddresses: [`/ip4/0.0.0.0/tcp/${port}`, `/ip6/::/tcp/${port}`] })
      )
      assert.deepStrictEqual([...second.ip4], [String(port)])
      assert.isFalse(second.ip6.has(String(port)))
      assert.strictEqual(second.ip6.size, 1)
    }).pipe(Effect.provide(Logger.layer([]))))

  it.live("takes nobody in after its scope, keeps who is in, and still dials", () =>
    Effect.gen(function*() {
      const early = yield* makeNode()
      const late = yield* makeNode()
      const scope = yield* Scope.make()
      // Only the listener's scope closes; the node stops with the test.
      const { host, transport } = yield* makeNode({ listenAddresses: [] })
      yield* Effect.promise(() => host.components.transportManager.remove("@libp2p/tcp"))
      yield* Scope.provide(host.listen("tcp", tcp(), ["/ip4/127.0.0.1/tcp/0" as Multiaddr]), scope)
      const [address] = yield* transport.addresses
      const connection = yield* early.transport.dial(address!)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Effect.flip(late.transport.dial(address!))).reason._tag, "Unreachable")
      assert.isTrue(yield* connection.isOpen)
      assert.isAbove(Duration.toMillis(yield* early.transport.ping(transport.localPeer)), 0)
      yield* transport.dial(yield* late.address)
    }))

  it.live("announces the addresses it is told besides its own", () =>
    Effect.gen(function*() {
      const { transport } = yield* makeNode({ announceAddresses: ["/ip4/203.0.113.7/tcp/4001"] })
      const addresses = yield* transport.addresses
      assert.include(addresses, `/ip4/203.0.113.7/tcp/4001/p2p/${transport.localPeer}`)
      assert.isTrue(addresses.every((address) => address.endsWith(`/p2p/${transport.localPeer}`)))
      assert.lengthOf(addresses, 2)
    }))
})

describe("the end of a host", () => {
  it.live("is bounded when a remote has closed its half and reads no more", () =>
    Effect.gen(function*() {
      const socketOf = (node: Libp2pNode) =>
        // A private member: no public call stops reading.
        (node.host.node.getConnections()[0] as unknown as { readonly maConn: { readonly socket: Socket } }).maConn
          .socket
      const protocol = "/test/1.0.0" as ProtocolId
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
      const remote = yield* makeNode()
      const stopped = yield* Scope.provide(makeNode(), scope)
      const mayWrite = yield* Latch.make()
      yield* Scope.provide(
        stopped.transport.handle(
          protocol,
          (stream) =>
            Effect.ignore(Effect.andThen(mayWrite.await, Effect.forever(stream.write(new Uint8Array(256 * 1024)))))
        ),
        scope
      )
      const connection = yield* remote.transport.dial(yield* stopped.address)
      // Each stream has a window of its own: enough of them fill the socket.
      yield* Effect.repeat(connection.open(protocol), { times: 39 })
      const [far, near] = [socketOf(remote), socketOf(stopped)]
      far.pause()
      yield* mayWrite.open
      yield* eventually("bytes are unsent", Effect.sync(() => near.writableLength > 0))
      far.end()
      // A write after the end would destroy it.
      far.write = () => true
      yield* eventually("the end has arrived", Effect.sync(() => near.readableEnded))
      assert.isAbove(near.writableLength, 0)
      const [took] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(took), 5000)
      assert.isTrue(near.destroyed)
    }))

  it.live("leaves nothing behind, a hundred times", () =>
    Effect.gen(function*() {
      const rejections: Array<unknown> = []
      const onRejection = (reason: unknown) => void rejections.push(reason)
      yield* Effect.acquireRelease(
        Effect.sync(() => process.on("unhandledRejection", onRejection)),
        () => Effect.sync(() => process.off("unhandledRejection", onRejection))
      )
      const protocol = "/test/1.0.0" as ProtocolId
      // Two connected nodes with a stream open each way, one in the middle of its data, that stop together.
      const round = Effect.scoped(Effect.gen(function*() {
        const scope = yield* Effect.acquireRelease(Scope.make("parallel"), (scope) => Scope.close(scope, Exit.void))
        const [a, b] = yield* Effect.all([makeNode(), makeNode()], { concurrency: 2 }).pipe(Scope.provide(scope))
        yield* Scope.provide(
          b.transport.handle(protocol, (stream) => Effect.ignore(Stream.runForEach(stream.read, stream.write))),
          scope
        )
        const connection = yield* a.transport.dial(yield* b.address)
        const stream = yield* Scope.provide(connection.open(protocol), scope)
        yield* stream.write(new Uint8Array(200_000))
        yield* Stream.runHead(stream.read)
      }))
      const used = Effect.sync(() => {
        collectGarbage()
        collectGarbage()
        return process.memoryUsage().heapUsed
      })
      const handles = () => process.getActiveResourcesInfo().filter((resource) => /TCP|Immediate/.test(resource))
      for (let i = 0; i < 20; i++) yield* round
      const before = yield* used
      for (let i = 0; i < 100; i++) yield* round
      yield* eventually("all sockets are closed", Effect.sync(() => handles().length === 0))
      const grown = (yield* used) - before
      assert.deepStrictEqual(rejections, [])
      // Some 17 KiB for each, of which timers of libp2p hold the most, for ten seconds at most.
      assert.isBelow(grown / 100, 100 * 1024)
    }))
})
