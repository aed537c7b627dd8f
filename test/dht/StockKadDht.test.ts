/**
 * The DHT on plain kad-dht's own queries and server.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schedule, Stream } from "effect"
import * as ContentKey from "../../src/schema/Content.ts"
import { kadDhtContract } from "../contract/KadDhtContract.ts"
import { kadValuesContract } from "../contract/KadValuesContract.ts"
import { connect, kadProtocol, mute, type Node, onEngine, providersOf, until } from "../support/DhtNode.ts"

const key = ContentKey.fromText("some content")

const providers = (node: Node) => providersOf(node, key)

const { line, makeNode } = onEngine("stock")

kadDhtContract("stock")
kadValuesContract("stock")

describe("StockKadDht", () => {
  it.live("gives the first provider while the query still waits for a peer that does not answer", () =>
    Effect.gen(function*() {
      const [a, b] = yield* line(2)
      const silent = yield* makeNode()
      yield* connect(a!, silent)
      yield* b!.dht.startProviding(key)
      yield* until("both known", tableSize(a!), (size) => size === 2)
      yield* until("all is quiet", openKadStreams(a!), (count) => count === 0)
      yield* mute(silent)
      const [elapsed, first] = yield* Effect.timed(Stream.runHead(a!.dht.findProviders(key)))
      assert.strictEqual(first._tag === "Some" ? first.value.id : undefined, b!.id)
      // A question that is not answered takes 5 s.
      assert.isBelow(Duration.toMillis(elapsed), 4500)
      // The reader has stopped, and with it the query that was open to the mute one.
      yield* until("no stream is left", openKadStreams(a!), (count) => count === 0)
    }))

  it.live("stops providing: the key is no longer found, nor announced again", () =>
    Effect.gen(function*() {
      const a = yield* makeNode({ policy: { republish: Schedule.spaced("50 millis") } })
      const b = yield* makeNode()
      yield* connect(a, b)
      yield* a.dht.startProviding(key)
      yield* until("b finds it", providers(b), (found) => found.length === 1)
      yield* a.dht.stopProviding(key)
      yield* a.dht.stopProviding(key)
      // What was on its way has arrived.
      for (const node of [a, b]) yield* until("all is quiet", openKadStreams(node), (count) => count === 0)
      yield* forgetRecords(b)
      const c = yield* makeNode()
      yield* connect(c, a)
      yield* connect(c, b)
      // Another key that is announced to all shows that time for an announcement has passed.
      yield* a.dht.startProviding(ContentKey.fromText("another"))
      yield* until("the other", Stream.runCollect(c.dht.findProviders(ContentKey.fromText("another"))), (found) =>
        found.length === 1)
      assert.deepStrictEqual(yield* providers(b), [])
      assert.deepStrictEqual(yield* providers(c), [])
    }))

  it.live("announces again before the copies expire", () =>
    Effect.gen(function*() {
      const a = yield* makeNode({ policy: { republish: Schedule.spaced("200 millis") } })
      const b = yield* makeNode()
      yield* connect(a, b)
      yield* a.dht.startProviding(key)
      yield* until("b finds it", providers(b), (found) => found.length === 1)
      yield* forgetRecords(b)
      yield* until("b finds it again", providers(b), (found) => found.length === 1)
    }))

  it.live("ends a lookup that gets no answer with QueryTimeout", () =>
    Effect.gen(function*() {
      const a = yield* makeNode({ policy: { findTimeout: "300 millis" } })
      const silent = yield* makeNode()
      yield* connect(a, silent)
      yield* until("known", tableSize(a), (size) => size === 1)
      yield* mute(silent)
      const stranger = yield* Effect.scoped(makeNode())
      assert.strictEqual((yield* Effect.flip(a.dht.findPeer(stranger.id))).reason._tag, "QueryTimeout")
      assert.strictEqual((yield* Effect.flip(providers(a))).reason._tag, "QueryTimeout")
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const openKadStreams = (node: Node) =>
  Effect.sync(() =>
    node.node.getConnections().flatMap((connection) => connection.streams).filter((stream) =>
      stream.protocol === kadProtocol
    ).length
  )

const tableSize = (node: Node) =>
  Effect.promise(async () => {
    const peers = await node.components.peerStore.all()
    return peers.filter((peer) => peer.tags.has("kad-peer")).length
  })

const recordKeys = async (node: Node) => {
  const keys = []
  for await (const { key } of node.components.datastore.query({ prefix: "/dht/provider" })) keys.push(key)
  return keys
}

const forgetRecords = (node: Node) =>
  Effect.promise(async () => {
    for (const record of await recordKeys(node)) await node.components.datastore.delete(record)
  })
