/**
 * What is lost is let go: nothing of a connection outlives it, whatever ended it. Shown with weak references, after a
 * full collection.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Scope, Stream } from "effect"
import { Libp2pHost } from "../../src/layers/libp2p/Host.ts"
import { Network } from "../../src/Network.ts"
import type { NetworkConfigInput } from "../../src/services/NetworkConfig.ts"
import { watched, watchHost } from "../support/garbage.ts"
import * as Live from "../support/live.ts"

const loopback = { listenAddresses: ["/ip4/127.0.0.1/tcp/0"], enableMdns: false }
const protocol = "/lifetimes/1.0.0"

/** A node whose connections are watched. */
const makeWatched = Effect.fnUntraced(function*(options: NetworkConfigInput = {}) {
  const context = yield* Layer.build(Network.layer({ ...loopback, ...options }))
  const things = watched()
  watchHost(Context.get(context, Libp2pHost), things)
  const node = Context.get(context, Network)
  yield* node.handle(protocol, (stream) => Stream.runForEach(stream.read, stream.write))
  return { node, things, address: (yield* node.addresses)[0]! }
})

/** A stranger that is gone, rudely, when the scope closes: its sockets are cut, and nobody says goodbye. */
const makeStranger = Effect.fnUntraced(function*() {
  const context = yield* Layer.build(Network.layer(loopback))
  const host = Context.get(context, Libp2pHost)
  const node = Context.get(context, Network)
  yield* node.handle(protocol, (stream) => Stream.runForEach(stream.read, stream.write))
  const cut = Effect.sync(() => {
    for (const connection of host.node.getConnections()) connection.abort(new Error("cut by the spec"))
  })
  return { node, cut, address: (yield* node.addresses)[0]! }
})

/** Opens a stream, and has an answer on it. The stream stays open as long as the scope. */
const talk = Effect.fnUntraced(function*(from: Network["Service"], to: Network["Service"]) {
  const stream = yield* from.open(to.localPeer, protocol)
  yield* stream.write(new Uint8Array(1024))
  yield* Stream.runHead(stream.read)
})

const isAlone = (node: Network["Service"]) => Live.until(Effect.map(node.peerCount, (count) => count === 0))

describe("what a node lets go", () => {
  it.live("after the loss of a young connection: nothing is left but reasons", () =>
    Effect.gen(function*() {
      const { address, node, things } = yield* makeWatched()
      yield* Effect.scoped(Effect.gen(function*() {
        const { cut, node: stranger } = yield* makeStranger()
        yield* stranger.connect(address)
        yield* Effect.scoped(talk(stranger, node))
        yield* Effect.scoped(talk(node, stranger))
        yield* cut
        yield* isAlone(node)
        // The stranger would dial again, since it wants the node.
        yield* stranger.disconnect(node.localPeer)
      }))
      yield* things.collected
      assert.isAtLeast(things.count(), 5)
    }))

  it.live("of a kept peer that is lost and stays away, though it is dialled again without end", () =>
    Effect.gen(function*() {
      const { node, things } = yield* makeWatched()
      const peer = yield* Effect.scoped(Effect.gen(function*() {
        const { address, cut, node: stranger } = yield* makeStranger()
        yield* node.connect(address)
        yield* Effect.scoped(talk(node, stranger))
        yield* cut
        return stranger.localPeer
      }))
      yield* Live.until(Effect.map(node.explain(peer), ({ nextRetry }) => (nextRetry?.attempt ?? 0) >= 2))
      yield* things.collected
      assert.isAtLeast(things.count(), 5)
    }))

  it.live("after an eviction", () =>
    Effect.gen(function*() {
      // For minPeers, and for its DHT, the node would dial the stranger again.
      const { address, node, things } = yield* makeWatched({ maxPeers: 1, minPeers: 0, dht: "off" })
      const stranger = yield* makeStranger()
      yield* stranger.node.connect(address)
      yield* Live.until(Effect.map(node.peerCount, (count) => count === 1))
      const { disconnect, localPeer } = node
      const wanted = yield* makeStranger()
      yield* node.connect(wanted.address)
      assert.deepStrictEqual((yield* node.peers).map(({ id }) => id), [wanted.node.localPeer])
      yield* stranger.node.disconnect(localPeer)
      yield* disconnect(wanted.node.localPeer)
      yield* isAlone(node)
      yield* things.collected
      assert.isAtLeast(things.count(), 6)
    }))

  it.live("of a peer that it refuses, and of one that refuses it", () =>
    Effect.gen(function*() {
      const { address, node, things } = yield* makeWatched()
      const stranger = yield* makeStranger()
      yield* Effect.scoped(Effect.gen(function*() {
        yield* node.block(stranger.node.localPeer)
        yield* Effect.asVoid(Effect.flip(stranger.node.connect(address)))
      }))
      yield* things.collected
      const refused = things.count()
      assert.isAtLeast(refused, 1)
      yield* stranger.node.block(node.localPeer)
      yield* Effect.asVoid(Effect.flip(node.connect(stranger.address)))
      yield* things.collected
      assert.isAbove(things.count(), refused)
    }))

  it.live("of a dial that reaches another peer, and of one that nobody waits for", () =>
    Effect.gen(function*() {
      const { node, things } = yield* makeWatched()
      const stranger = yield* makeStranger()
      const other = yield* makeStranger()
      const wrong = stranger.address.replace(stranger.node.localPeer, other.node.localPeer)
      yield* Effect.asVoid(Effect.flip(node.connect(wrong)))
      const silent = yield* Live.silentServer
      const dial = yield* Effect.forkScoped(
        node.connect(`/ip4/127.0.0.1/tcp/${silent.port}/p2p/${other.node.localPeer}`)
      )
      yield* silent.accepted
      yield* Effect.sync(() => dial.interruptUnsafe())
      yield* things.collected
    }))

  it.live("when it stops: the node itself, and all that it had", () =>
    Effect.gen(function*() {
      const stranger = yield* makeStranger()
      const scope = yield* Scope.make()
      const things = yield* Effect.gen(function*() {
        const { address, node, things } = yield* makeWatched()
        yield* stranger.node.connect(address)
        yield* talk(stranger.node, node)
        yield* talk(node, stranger.node)
        things.add("node", node)
        return things
      }).pipe(Scope.provide(scope))
      yield* Scope.close(scope, Exit.void)
      yield* things.collected
      assert.isAtLeast(things.count(), 6)
    }))
})
