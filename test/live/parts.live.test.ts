/** What a program may replace of a node, or leave out, and what it may ask of the DHT. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Option, Scope, Stream } from "effect"
import * as SeededIdentity from "../../src/layers/machine/SeededIdentity.ts"
import * as NoDht from "../../src/layers/dht/NoDht.ts"
import type { Network } from "../../src/Network.ts"
import * as ContentKey from "../../src/schema/Content.ts"
import { DhtError, NotFound } from "../../src/schema/NetworkError.ts"
import { Dht } from "../../src/services/Dht.ts"
import * as Live from "../support/live.ts"

const key = ContentKey.fromText("the cat video")
const first = (node: Network["Service"]) => Effect.map(node.addresses, ([address]) => address!)
const kadProtocol = "/codio/kad/1.0.0"

describe("the parts of a node", () => {
  it.live("take an identity of the program's own", () =>
    Effect.gen(function*() {
      const seed = new Uint8Array(32).fill(7)
      const node = yield* Live.makeNode({}, { identity: SeededIdentity.layer(seed) })
      const other = yield* Live.makeNode()
      assert.strictEqual(node.localPeer, SeededIdentity.make(seed).peerId)
      assert.strictEqual((yield* other.connect(yield* first(node))).id, node.localPeer)
    }))

  it.live("tell the agent and the protocol version of the options, and what each sees of the other", () =>
    Effect.gen(function*() {
      const alice = yield* Live.makeNode({ agentVersion: "edge/7 (cache)", protocolVersion: "/edge/7" })
      const bob = yield* Live.makeNode()
      const events = yield* Live.record(bob)
      const info = yield* bob.connect(yield* first(alice))
      assert.deepStrictEqual([info.agentVersion, info.protocolVersion], ["edge/7 (cache)", "/edge/7"])
      assert.strictEqual(info.listenAddresses.length, 1)
      assert.match(info.observedAddress ?? "", /^\/ip4\/127\.0\.0\.1\/tcp\/\d+/)
      yield* Live.until(Effect.sync(() => events.some(({ _tag }) => _tag === "PeerIdentified")))
      const identified = events.find((event) => event._tag === "PeerIdentified")
      assert.deepStrictEqual(identified?.listenAddresses, info.listenAddresses)
      assert.strictEqual(identified?.observedAddress, info.observedAddress)
      const printed: Record<string, unknown> = JSON.parse(JSON.stringify(info))
      assert.strictEqual(printed["connectedAt"], new Date(info.connectedAt.epochMilliseconds).toISOString())
      assert.isNumber(printed["connectionDurationMillis"])
      assert.strictEqual(JSON.parse(JSON.stringify(yield* bob.status))["slots"]["used"], 1)
    }))

  it.live("are a node without a DHT: it says so, and others ask it nothing", () =>
    Effect.gen(function*() {
      const off = yield* Live.makeNode({ dht: "off" })
      const server = yield* Live.makeNode()
      const info = yield* server.connect(yield* first(off))
      assert.notInclude(info.protocols, kadProtocol)
      for (const operation of ["startProviding", "provide"] as const) {
        const refused = yield* Effect.flip(Effect.scoped(off[operation](key)))
        assert.strictEqual(refused.reason._tag, "DhtOff")
        assert.strictEqual(
          refused.message,
          `${operation} ${key}: this node has no DHT; start it with the option dht set to server or client`
        )
      }
      assert.strictEqual((yield* Effect.flip(Stream.runCollect(off.findProviders(key)))).reason._tag, "DhtOff")
      yield* off.stopProviding(key)
      assert.deepStrictEqual(
        Option.map(yield* Stream.runHead(off.provideStatus), ({ keys }) => keys),
        Option.some(0)
      )
      assert.strictEqual(yield* server.routingTableSize, 0)
    }))

  it.live("are a client of the DHT: it announces and finds, and is in nobody's table", () =>
    Effect.gen(function*() {
      const [server, client, reader] = yield* Effect.all([
        Live.makeNode(),
        Live.makeNode({ dht: "client" }),
        Live.makeNode()
      ])
      const info = yield* server.connect(yield* first(client))
      assert.notInclude(info.protocols, kadProtocol)
      yield* reader.connect(yield* first(server))
      yield* Live.until(Effect.map(client.routingTableSize, (size) => size === 1))
      yield* client.startProviding(key)
      yield* Live.until(
        Effect.map(Effect.orDie(Stream.runCollect(reader.findProviders(key))), (found) =>
          found.some(({ id }) => id === client.localPeer))
      )
      yield* Live.until(Effect.map(server.routingTableSize, (size) =>
        size === 1))
      assert.deepStrictEqual((yield* server.closestPeers(key)).map(({ id }) => id), [reader.localPeer])
    }))

  it.live("take a DHT of the program's own, whose operations have names of its own", () =>
    Effect.gen(function*() {
      const failing = (operation: string) => new DhtError({ operation, subject: "x", reason: new NotFound({}) })
      const own = Layer.effect(
        Dht,
        Effect.map(Dht, (none) => Dht.of({ ...none, findPeer: () => Effect.fail(failing("askTheTracker")) }))
      ).pipe(Layer.provide(NoDht.layer))
      const node = yield* Live.makeNode({}, { dht: own })
      const error = yield* Effect.flip(node.findPeer(node.localPeer))
      assert.match(error.message, /^askTheTracker x: /)
    }))
})

describe("addresses at run time", () => {
  it.live("are announced while the scope lives, and peers hear of it", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* Effect.all([Live.makeNode(), Live.makeNode()])
      const info = yield* bob.connect(yield* first(alice))
      const own = `/dns4/node.example.com/tcp/4001/p2p/${alice.localPeer}`
      const isAnnounced = Effect.map(alice.addresses, (addresses) => addresses.some((address) => address === own))
      const scope = yield* Scope.make()
      yield* Scope.provide(alice.announce(" /dns4/node.example.com/tcp/4001/ "), scope)
      assert.isTrue(yield* isAnnounced)
      const told = (host: string) =>
        Effect.map(
          Effect.orDie(bob.findPeer(info.id)),
          ({ addresses }) => addresses.some(({ address }) => address.startsWith(`/dns4/${host}`))
        )
      yield* Live.until(told("node.example.com"))
      // A node tells its addresses once by itself, a second after its start.
      const short = yield* Scope.make()
      yield* Scope.provide(alice.announce("/dns4/short.example.com/tcp/4001"), short)
      yield* Live.until(told("short.example.com"))
      yield* Scope.close(short, Exit.void)
      yield* Live.until(Effect.map(told("short.example.com"), (isTold) => !isTold))
      // Twice announced, it stays until both scopes have closed.
      const second = yield* Scope.make()
      yield* Scope.provide(alice.announce("/dns4/node.example.com/tcp/4001"), second)
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(yield* isAnnounced)
      yield* Scope.close(second, Exit.void)
      assert.isFalse(yield* isAnnounced)
      assert.strictEqual((yield* Effect.flip(alice.announce("node.example.com")))._tag, "InvalidAddress")
    }).pipe(Effect.scoped))

  it.live("are listened on while the scope lives", () =>
    Effect.gen(function*() {
      const [alice, bob] = yield* Effect.all([Live.makeNode({ listenAddresses: [] }), Live.makeNode()])
      assert.deepStrictEqual(yield* alice.addresses, [])
      const scope = yield* Scope.make()
      const [address] = yield* Scope.provide(alice.listen("/ip4/127.0.0.1/tcp/0"), scope)
      assert.deepStrictEqual(yield* alice.addresses, [address!])
      yield* bob.connect(address!)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* alice.addresses, [])
      yield* bob.disconnect(alice.localPeer)
      assert.strictEqual((yield* Effect.flip(bob.connect(address!)))._tag, "DialError")
    }))

  it.live("that cannot be listened on are told from those that are none", () =>
    Effect.gen(function*() {
      const node = yield* Live.makeNode()
      const taken = (yield* first(node)).replace(/\/p2p\/.*/, "")
      assert.match(
        (yield* Effect.flip(node.listen(taken))).message,
        /^tcp: cannot listen on \/ip4\/127.* the port is in use by another program; choose another one/
      )
      assert.match(
        (yield* Effect.flip(node.listen("/ip4/127.0.0.1/udp/4001/quic-v1"))).message,
        /no transport of this node listens on such an address$/
      )
      assert.strictEqual((yield* Effect.flip(node.listen("127.0.0.1:4001")))._tag, "InvalidAddress")
      assert.strictEqual((yield* node.addresses).length, 1)
      const without = yield* Live.makeNode({ enableRelay: false })
      assert.match(
        (yield* Effect.flip(without.reserve("/ip4/127.0.0.1/tcp/4001"))).message,
        /^relay: this node uses no relays; start it with the option enableRelay/
      )
    }).pipe(Effect.scoped))
})

describe("questions to the DHT", () => {
  it.live("give no providers where there is nobody to ask, and say so where that is asked for", () =>
    Effect.gen(function*() {
      const node = yield* Live.makeNode()
      assert.deepStrictEqual(yield* Stream.runCollect(node.findProviders(key)), [])
      const error = yield* Effect.flip(Stream.runCollect(node.findProviders(key, { requirePeers: true })))
      assert.strictEqual(error.reason._tag, "NoPeers")
      assert.strictEqual((yield* Effect.flip(node.closestPeers(key))).reason._tag, "NoPeers")
      const refresh = yield* Effect.flip(node.refreshRoutingTable)
      assert.strictEqual(refresh.reason._tag, "NoPeers")
      assert.match(refresh.message, /^refresh: /)
      assert.strictEqual((yield* Effect.flip(node.closestPeers("not a key"))).reason._tag, "RecordInvalid")
    }))

  it.live("fill the routing table with the peers of peers", () =>
    Effect.gen(function*() {
      const nodes = yield* Effect.all(Array.from({ length: 5 }, () => Live.makeNode({ minPeers: 0 })))
      const [hub, ...others] = nodes as [Network["Service"], ...Array<Network["Service"]>]
      for (const other of others) yield* other.connect(yield* first(hub))
      yield* Live.until(Effect.map(hub.routingTableSize, (size) => size === 4))
      const [one] = others
      yield* one!.refreshRoutingTable
      yield* Live.until(Effect.map(one!.routingTableSize, (size) => size === 4))
      assert.sameMembers((yield* one!.closestPeers(key)).map(({ id }) => id), [
        hub.localPeer,
        ...others.slice(1).map(({ localPeer }) => localPeer)
      ])
    }))
})
