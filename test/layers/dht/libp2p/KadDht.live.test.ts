/**
 * The DHT over sockets: the contract of the port, and what only sockets show.
 */
import { assert, describe, it } from "@effect/vitest"
import { multiaddr } from "@multiformats/multiaddr"
import { Context, Deferred, Duration, Effect, Fiber, Layer, Option, Queue, Schedule, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import { hash } from "node:crypto"
import * as FileIdentity from "../../../../src/layers/machine/FileIdentity.ts"
import * as NodeNetworkMonitor from "../../../../src/layers/machine/NodeNetworkMonitor.ts"
import * as KadDht from "../../../../src/layers/dht/libp2p/KadDht.ts"
import * as Libp2pHost from "../../../../src/layers/libp2p/Host.ts"
import * as TcpListener from "../../../../src/layers/libp2p/TcpListener.ts"
import * as ContentKey from "../../../../src/schema/Content.ts"
import { addressOf, type PeerId } from "../../../../src/schema/Peer.ts"
import { Discovery } from "../../../../src/services/Discovery.ts"
import { NetworkConfig } from "../../../../src/services/NetworkConfig.ts"
import { type NetworkInterface, NetworkMonitor } from "../../../../src/services/NetworkMonitor.ts"
import { MessageType } from "../../../../src/layers/dht/wire/Message.ts"
import {
  addresses,
  addressesIn,
  ask,
  connect,
  introduce,
  keepApart,
  kadProtocol,
  line,
  makeNode,
  type Node,
  providersOf,
  until
} from "../../../support/DhtNode.ts"
import { makePlain, meet, recordsAt } from "../../../support/PlainKad.ts"
import { dhtContract } from "../../../contract/DhtContract.ts"
import { eventually } from "../../../contract/eventually.ts"

const key = ContentKey.fromText("some content")

const providers = (node: Node) => providersOf(node, key)

dhtContract("KadDht as a Dht", {
  makeNode: () => makeNode(),
  connect: introduce,
  layer: Layer.empty,
  timeLimit: "1 minute"
})

describe("KadDht", () => {
  it.live("takes in a peer that answers a ping, and drops none that does when a bucket is full", () =>
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      // A young connection is as good as a ping.
      a.node.addEventListener("connection:open", ({ detail }) => Object.assign(detail.timeline, { open: 0 }))
      const { routingTable } = a.kad as {
        readonly routingTable: {
          readonly size: number
          readonly pingOldContacts: (contacts: ReadonlyArray<unknown>) => AsyncIterable<unknown>
        }
      }
      yield* connect(a, b)
      yield* eventually("it is in the table", Effect.sync(() => routingTable.size === 1))
      const contact = { kadId: hash("sha256", b.node.peerId.toMultihash().bytes, "buffer"), peerId: b.node.peerId }
      const silent = yield* Stream.runCollect(
        Stream.fromAsyncIterable(routingTable.pingOldContacts([contact]), (cause) => cause)
      )
      assert.deepStrictEqual(silent, [])
    }))

  it.live("fails with NoPeers at once when nobody is connected", () =>
    Effect.gen(function*() {
      const alone = yield* makeNode()
      const other = yield* Effect.scoped(makeNode())
      const [elapsed, errors] = yield* Effect.timed(Effect.all([
        Effect.flip(providers(alone)),
        Effect.flip(alone.dht.findPeer(other.id))
      ]))
      assert.deepStrictEqual(errors.map((error) => error.reason._tag), ["NoPeers", "NoPeers"])
      // What waits for somebody takes seconds.
      assert.isBelow(Duration.toMillis(elapsed), 1900)
    }))

  it.live("fails with NoPeers when the connected peer speaks no DHT", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode({ withoutDht: true })
      yield* connect(a, b)
      assert.strictEqual((yield* Effect.flip(providers(a))).reason._tag, "NoPeers")
    }))

  it.live("says that announcing is paused when who took copies is gone, and goes on with who comes then", () =>
    Effect.gen(function*() {
      const alice = yield* makeNode()
      const status = Effect.map(Stream.runHead(alice.dht.provideStatus), Option.getOrThrow)
      const isPaused = Effect.map(status, ({ paused }) => paused !== undefined)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* connect(alice, yield* makeNode())
        yield* eventually("announcing is not paused", Effect.map(isPaused, (paused) => !paused))
      }))
      yield* Effect.forkScoped(alice.dht.startProviding(key), { startImmediately: true })
      yield* eventually("announcing is paused", isPaused)
      assert.strictEqual((yield* status).announced, 0)
      yield* connect(alice, yield* makeNode())
      yield* eventually("the key is announced", Effect.map(status, ({ announced }) => announced === 1))
      assert.isFalse(yield* isPaused)
    }))

  it.live("finds a provider right after the connection, without waiting for anything", () =>
    Effect.gen(function*() {
      const [a, b] = [yield* makeNode(), yield* makeNode()]
      yield* connect(a, b)
      yield* b.dht.startProviding(key)
      const found = yield* providers(a)
      assert.deepStrictEqual(found.map((provider) => provider.id), [b.id])
      assert.deepStrictEqual(found[0]!.addresses.map(addressOf), addresses(b))
      // Every node of this spec is seen on loopback.
      assert.deepStrictEqual<ReadonlyArray<string>>(found[0]!.addresses[0]!.tellers, ["/ip4/127.0.0.1"])
    }))

  it.live("announces a key that was provided before there was a peer", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      yield* a.dht.startProviding(key)
      yield* a.dht.startProviding(key)
      const b = yield* makeNode()
      yield* connect(a, b)
      const found = yield* until("b finds it", providers(b), (found) => found.length > 0)
      assert.deepStrictEqual(found.map((provider) => provider.id), [a.id])
    }))

  it.live("finds a key that is provided two hops away, in a line of four", () =>
    Effect.gen(function*() {
      const [a, , , d] = yield* line(4)
      yield* d!.dht.startProviding(key)
      const found = yield* until("a finds it", providers(a!), (found) => found.length > 0)
      assert.deepStrictEqual(found.map((provider) => provider.id), [d!.id])
    }))

  it.live("leaves itself out of the providers, and gives each other once", () =>
    Effect.gen(function*() {
      const [a, b, c] = yield* line(3)
      yield* Effect.forEach([a!, b!, c!], (node) => node.dht.startProviding(key))
      const found = yield* until("both others", providers(a!), (found) => found.length >= 2)
      assert.deepStrictEqual(found.map((provider) => provider.id).sort(), [b!.id, c!.id].sort())
    }))

  it.live("ends empty when nobody provides the key", () =>
    Effect.gen(function*() {
      const [a] = yield* line(3)
      assert.deepStrictEqual(yield* providers(a!), [])
    }))

  it.live("starts anew when the saved list is damaged", () =>
    Effect.gen(function*() {
      const store = Layer.effect(
        KeyValueStore.KeyValueStore,
        Effect.gen(function*() {
          const memory = yield* KeyValueStore.KeyValueStore
          yield* memory.set("provided", "{\"not\": a list")
          return memory
        })
      ).pipe(Layer.provide(Layer.fresh(KeyValueStore.layerMemory)), Layer.orDie)
      const a = yield* makeNode({ store })
      const b = yield* makeNode()
      yield* connect(a, b)
      yield* a.dht.startProviding(key)
      yield* until("b finds it", providers(b), (found) => found.length === 1)
    }))

  it.live("finds where a peer is: itself, a connected one, one that others know", () =>
    Effect.gen(function*() {
      const [a, b, c] = yield* line(3)
      const where = (id: PeerId) =>
        Effect.map(a!.dht.findPeer(id), (peer) => ({ id: peer.id, addresses: peer.addresses.map(addressOf) }))
      assert.deepStrictEqual(yield* where(a!.id), { id: a!.id, addresses: addresses(a!) })
      assert.deepStrictEqual(yield* where(b!.id), { id: b!.id, addresses: addresses(b!) })
      const [elapsed, found] = yield* Effect.timed(where(c!.id))
      assert.deepStrictEqual(found, { id: c!.id, addresses: addresses(c!) })
      // A question that is not answered takes 5 s.
      assert.isBelow(Duration.toMillis(elapsed), 4500)
    }))

  it.live("asks others where a peer has moved to, and falls back on what it knows", () =>
    Effect.gen(function*() {
      const [a, b, c] = yield* Effect.all([makeNode(), makeNode(), makeNode()])
      yield* keepApart(a, c)
      yield* introduce(a, b)
      yield* introduce(b, c)
      const former = multiaddr("/ip4/127.0.0.1/tcp/1")
      yield* Effect.promise(() => a.node.peerStore.patch(c.node.peerId, { multiaddrs: [former] }))
      assert.deepStrictEqual((yield* a.dht.findPeer(c.id)).addresses.map(addressOf), addresses(c))
      yield* b.stop
      yield* Effect.promise(() => a.node.peerStore.patch(c.node.peerId, { multiaddrs: [former] }))
      assert.deepStrictEqual<unknown>((yield* a.dht.findPeer(c.id)).addresses.map(addressOf), [String(former)])
    }))

  it.live("fails with NotFound, long before the timeout, when nobody knows the peer", () =>
    Effect.gen(function*() {
      const [a] = yield* line(3)
      const stranger = yield* Effect.scoped(makeNode())
      const [elapsed, error] = yield* Effect.timed(Effect.flip(a!.dht.findPeer(stranger.id)))
      assert.strictEqual(error.reason._tag, "NotFound")
      assert.isBelow(Duration.toMillis(elapsed), 4500)
    }))

  it.live("fails with NoPeers once all peers have gone, and finds again when one is back", () =>
    Effect.gen(function*() {
      const [a, b] = yield* line(2)
      yield* providers(a!)
      yield* b!.stop
      yield* until("b is gone", Effect.sync(() => a!.node.getConnections().length), (count) => count === 0)
      assert.strictEqual((yield* Effect.flip(providers(a!))).reason._tag, "NoPeers")
      const c = yield* makeNode()
      yield* connect(c, a!)
      yield* c.dht.startProviding(key)
      yield* until("c is found", providers(a!), (found) => found.length === 1)
    }))

  it.live("tells discovery of the peers it meets", () =>
    Effect.gen(function*() {
      const [a, , c] = yield* line(3)
      const seen = yield* Deferred.make<string>()
      const reader = yield* Effect.forkScoped(Effect.forever(
        Effect.flatMap(Queue.take(a!.discovery.peers), (sighting) =>
          sighting.id === c!.id && sighting.addresses.length > 0
            ? Deferred.succeed(seen, sighting.source)
            : Effect.void)
      ))
      // Not before the one in the middle has met the last one does a question lead to it.
      yield* Effect.forkScoped(Effect.repeat(Effect.ignore(providers(a!)), Schedule.spaced("50 millis")))
      const source = yield* Effect.timeout(Deferred.await(seen), "1 minute")
      yield* Fiber.interrupt(reader)
      assert.strictEqual(source, "dht")
    }))

  it.live("leaves no handler behind when its layer closes before the host", () =>
    Effect.gen(function*() {
      const host = yield* Layer.build(Layer.fresh(TcpListener.layer.pipe(
        Layer.provideMerge(Libp2pHost.layer),
        Layer.provideMerge(FileIdentity.layerEphemeral),
        Layer.provideMerge(Discovery.layer),
        Layer.provideMerge(NodeNetworkMonitor.layer),
        Layer.provideMerge(KeyValueStore.layerMemory),
        Layer.provideMerge(NetworkConfig.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"] }))
      )))
      const protocols = () => Context.get(host, Libp2pHost.Libp2pHost).node.getProtocols()
      for (let i = 0; i < 2; i++) {
        yield* Effect.scoped(Effect.gen(function*() {
          yield* Layer.build(Layer.fresh(KadDht.layer))
          assert.include(protocols(), kadProtocol)
        })).pipe(Effect.provide(host))
        assert.notInclude(protocols(), kadProtocol)
      }
    }))

  for (
    const { isInside, name, remote } of [
      {
        name: "names no private address that a peer from outside tells of itself",
        remote: "/ip4/44.0.0.9/tcp/1",
        isInside: false
      },
      {
        name: "names a private address that a peer from its subnet tells of itself",
        remote: "/ip4/10.0.0.9/tcp/1",
        isInside: true
      }
    ]
  ) {
    it.live(name, () =>
      Effect.gen(function*() {
        const subnet: NetworkInterface = { address: "10.0.0.2", prefixLength: 24, family: 4, internal: false }
        const monitor = NetworkMonitor.of({ interfaces: Effect.succeed([subnet]), changes: Stream.never })
        const server = yield* makeNode({ monitor: Layer.succeed(NetworkMonitor)(monitor) })
        // Other addresses than loopback's cannot be had here, so the connection is told to be from elsewhere.
        server.components.events.addEventListener("connection:open", ({ detail }) => {
          Object.assign(detail, { remoteAddr: multiaddr(remote) })
        })
        const [hidden, open] = ["/ip4/10.0.0.5/tcp/4001", "/ip4/44.0.0.9/tcp/4001"]
        const told = yield* makeNode({ config: { announceAddresses: [hidden, open] } })
        yield* connect(told, server)
        yield* told.dht.startProviding(key)
        const peer = told.node.peerId
        const sought = { type: MessageType.FIND_NODE, key: peer.toMultihash().bytes }
        const provided = { type: MessageType.GET_PROVIDERS, key: ContentKey.toBytes(key) }
        const expected = new Set(isInside ? [hidden, open] : [open])
        for (const [question, part] of [[sought, "closer"], [provided, "providers"]] as const) {
          const named = Effect.map(ask(server, question), (message) => addressesIn(message[part], peer))
          yield* until(`${part} names it`, named, (found) => found.has(open))
          assert.deepStrictEqual(yield* named, expected)
        }
      }))
  }

  it.live("announces to peers that come later, while there are few copies", () =>
    Effect.gen(function*() {
      const a = yield* makeNode()
      const b = yield* makeNode()
      yield* connect(a, b)
      yield* a.dht.startProviding(key)
      const late = yield* makeNode()
      yield* connect(late, a)
      const plain = yield* makePlain()
      yield* meet(plain, late)
      yield* until("a record at the late one", recordsAt(plain, late, key), (count) => count === 1)
    }))

  it.live("goes on providing after a restart, and forgets what was stopped", () =>
    Effect.gen(function*() {
      const kept = new Map<string, string | Uint8Array>()
      const store = Layer.succeed(KeyValueStore.KeyValueStore)(KeyValueStore.makeStringOnly({
        get: (name) => Effect.sync(() => kept.get(name) as string | undefined),
        set: (name, value) => Effect.sync(() => void kept.set(name, value)),
        remove: (name) => Effect.sync(() => void kept.delete(name)),
        clear: Effect.sync(() => kept.clear()),
        size: Effect.sync(() => kept.size),
        keys: Effect.sync(() => [...kept.keys()])
      }))
      const before = yield* makeNode({ store })
      yield* before.dht.startProviding(key)
      yield* before.dht.startProviding(ContentKey.fromText("stopped"))
      yield* before.dht.stopProviding(ContentKey.fromText("stopped"))
      yield* before.stop
      const after = yield* makeNode({ store })
      const b = yield* makeNode()
      yield* connect(after, b)
      const found = yield* until("b finds it", providers(b), (found) => found.length > 0)
      assert.deepStrictEqual(found.map((provider) => provider.id), [after.id])
      const saved = [...kept].flatMap(([name, text]) => name.startsWith("provided") ? [String(text)] : []).join()
      assert.include(saved, key)
      assert.notInclude(saved, ContentKey.fromText("stopped"))
    }))
})
