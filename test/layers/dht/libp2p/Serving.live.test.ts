/**
 * What the DHT of a node stores for plain js-libp2p: which keys, whose records, and where a provider is that does not
 * say it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as ContentKey from "../../../../src/schema/Content.ts"
import { addressOf, type Multiaddr, withoutPeer } from "../../../../src/schema/Peer.ts"
import { line, makeNode, type Node, until } from "../../../support/DhtNode.ts"
import { makePlain, meet, type Plain, send } from "../../../support/PlainKad.ts"

const key = ContentKey.fromRustRecordKey("my-content-key")

const addProvider = (plain: Plain, to: Node, bytes = ContentKey.toBytes(key), others: ReadonlyArray<Uint8Array> = []) =>
  send(plain, to, "sendMessage", {
    type: "ADD_PROVIDER",
    key: bytes,
    providers: [...others, plain.peerId.toMultihash().bytes].map((id) => ({ id, multiaddrs: [] }))
  })
const found = (node: Node) => Stream.runCollect(node.dht.findProviders(key))
const own = (plain: Plain) => plain.getMultiaddrs().map((address) => withoutPeer(String(address) as Multiaddr))

/** Whether the node has answered with closer peers and so many providers. */
const providersAt = (plain: Plain, node: Node, count: number, bytes = ContentKey.toBytes(key)) =>
  until(
    `${count} providers`,
    send(plain, node, "sendRequest", { type: "GET_PROVIDERS", key: bytes }),
    (events) => events.at(-1)?.name === "PEER_RESPONSE" && events.at(-1)?.providers?.length === count
  )

describe("a provider that sends no address", () => {
  for (const clientMode of [false, true]) {
    it.live(`is stored at those that identify told: a ${clientMode ? "client" : "server"} of the DHT`, () =>
      Effect.gen(function*() {
        const [node, finder] = yield* line(2)
        const plain = yield* makePlain(undefined, { clientMode })
        yield* meet(plain, node!)
        yield* addProvider(plain, node!)
        yield* providersAt(plain, node!, 1)
        const [provider, ...others] = yield* found(finder!)
        assert.strictEqual<string | undefined>(provider?.id, plain.peerId.toString())
        assert.deepStrictEqual(provider?.addresses.map(addressOf), own(plain))
        assert.deepStrictEqual(others, [])
      }))
  }

  it.live("is stored at the address this node dialled, never at one it came from", () =>
    Effect.gen(function*() {
      const node = yield* makeNode()
      const inbound = yield* makePlain([])
      yield* meet(inbound, node)
      yield* addProvider(inbound, node)
      // Once there is one that can be reached, the other is still none.
      const dialled = yield* makePlain()
      const at = dialled.getMultiaddrs()
      yield* Effect.promise((signal) => node.node.dial(at, { signal }))
      yield* until(
        "identified",
        Effect.promise(() => node.components.peerStore.get(dialled.peerId)),
        ({ metadata }) => metadata.has("AgentVersion")
      )
      yield* Effect.promise(() => node.components.peerStore.patch(dialled.peerId, { multiaddrs: [] }))
      yield* until(
        "connected",
        Effect.sync(() => dialled.getConnections(node.node.peerId).length),
        (count) => count > 0
      )
      yield* addProvider(dialled, node)
      yield* providersAt(inbound, node, 1)
      const [provider] = yield* Stream.runCollect(Stream.take(node.dht.findProviders(key), 1))
      assert.strictEqual<string | undefined>(provider?.id, dialled.peerId.toString())
      assert.deepStrictEqual(provider?.addresses.map(addressOf), own(dialled))
    }))
})

describe("a node", () => {
  it.live("takes keys of 1 and of 80 bytes, and resets the stream of one of 81 or of none", () =>
    Effect.gen(function*() {
      const node = yield* makeNode()
      const plain = yield* makePlain()
      yield* meet(plain, node)
      for (const length of [1, 80]) {
        const bytes = new Uint8Array(length).fill(7)
        yield* addProvider(plain, node, bytes)
        yield* providersAt(plain, node, 1, bytes)
      }
      for (const length of [0, 81]) {
        const asked = { type: "GET_PROVIDERS", key: new Uint8Array(length).fill(7) }
        assert.strictEqual((yield* send(plain, node, "sendRequest", asked)).at(-1)!.name, "QUERY_ERROR")
      }
    }))

  it.live("stores nobody but the sender as a provider", () =>
    Effect.gen(function*() {
      const [node, victim] = yield* line(2)
      const plain = yield* makePlain()
      yield* meet(plain, node!)
      yield* addProvider(plain, node!, undefined, [victim!.node.peerId.toMultihash().bytes])
      yield* providersAt(plain, node!, 1)
      assert.deepStrictEqual((yield* found(victim!)).map(({ id }) => String(id)), [plain.peerId.toString()])
    }))

  it.live("leaves kad-dht without a provider record, so that kad-dht announces none by itself", () =>
    Effect.gen(function*() {
      const [a, b] = yield* line(2)
      yield* a!.dht.startProviding(key)
      const plain = yield* makePlain()
      yield* meet(plain, b!)
      yield* addProvider(plain, b!)
      yield* providersAt(plain, b!, 2)
      for (const { components } of [a!, b!]) {
        const stored = yield* Effect.promise(async () => {
          const keys: Array<string> = []
          for await (const { key } of components.datastore.query({})) keys.push(key.toString())
          return keys
        })
        assert.deepStrictEqual(stored.filter((key) => key.startsWith("/dht/")), [])
      }
    }))
})
