import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type KadInternals, takeAnyKey, toKadKey } from "../../src/layers/KadKeys.ts"
import * as ContentKey from "../../src/schema/Content.ts"
import { type Multiaddr, withoutPeer } from "../../src/schema/Peer.ts"
import { addresses, type Node, onEngine, providersOf as found, until } from "../support/DhtNode.ts"
import { makePlain, meet, type Plain, send } from "../support/PlainKad.ts"

const { line, makeNode } = onEngine("stock")

const addProvider = (plain: Plain, to: Node, key: Uint8Array, multiaddrs: ReadonlyArray<Uint8Array> = []) =>
  send(plain, to, "sendMessage", {
    type: "ADD_PROVIDER",
    key,
    providers: [{ id: plain.peerId.toMultihash().bytes, multiaddrs }]
  })

const text = ContentKey.fromRustRecordKey("my-content-key")

describe("KadKeys", () => {
  it.live("keeps a provider that sends no address at those that identify told", () =>
    Effect.gen(function*() {
      const [node, finder] = yield* line(2)
      const plain = yield* makePlain()
      yield* meet(plain, node!)
      yield* addProvider(plain, node!, ContentKey.toBytes(text))
      const providers = yield* until("found", found(finder!, text), (found) => found.length === 1)
      assert.deepStrictEqual(providers, [{
        id: plain.peerId.toString() as Node["id"],
        addresses: plain.getMultiaddrs().map((address) => withoutPeer(String(address) as Multiaddr))
      }])
    }))

  it.live("keeps a provider that listens nowhere at the address this node dialled, never at one it came from", () =>
    Effect.gen(function*() {
      const [node, finder] = yield* line(2)
      const inbound = yield* makePlain([])
      yield* meet(inbound, node!)
      yield* addProvider(inbound, node!, ContentKey.toBytes(text))
      // The record is there, and who asks gets none that it could not dial.
      yield* until("stored", storedProviders(node!, text), (count) => count === 1)
      assert.deepStrictEqual(yield* found(finder!, text), [])

      const dialled = yield* makePlain()
      const at = dialled.getMultiaddrs()
      yield* Effect.promise((signal) => node!.node.dial(at, { signal }))
      yield* Effect.promise(() => node!.components.peerStore.patch(dialled.peerId, { multiaddrs: [] }))
      yield* addProvider(dialled, node!, ContentKey.toBytes(text))
      const providers = yield* until("found", found(finder!, text), (found) => found.length === 1)
      assert.deepStrictEqual(providers[0]!.addresses, at.map((address) => withoutPeer(String(address) as Multiaddr)))
    }))

  it.live("takes keys of 1 and of 80 bytes, and resets the stream of one of 81 or of none", () =>
    Effect.gen(function*() {
      const node = yield* makeNode()
      const plain = yield* makePlain()
      yield* meet(plain, node)
      const own = plain.getMultiaddrs().map(({ bytes }) => bytes)
      const asks = (key: Uint8Array) => send(plain, node, "sendRequest", { type: "GET_PROVIDERS", key })
      for (const length of [1, 80]) {
        const key = new Uint8Array(length).fill(7)
        yield* addProvider(plain, node, key, own)
        const events = yield* until("stored", asks(key), (events) => events.at(-1)?.providers?.length === 1)
        assert.strictEqual(events.at(-1)!.name, "PEER_RESPONSE")
      }
      for (const length of [0, 81]) {
        const events = yield* asks(new Uint8Array(length).fill(7))
        assert.strictEqual(events.at(-1)!.name, "QUERY_ERROR")
      }
    }))

  it.live("stores nobody but the sender", () =>
    Effect.gen(function*() {
      const [node, victim] = yield* line(2)
      const plain = yield* makePlain()
      yield* meet(plain, node!)
      const providers = [
        { id: victim!.node.peerId.toMultihash().bytes, multiaddrs: [] },
        { id: plain.peerId.toMultihash().bytes, multiaddrs: [] }
      ]
      yield* send(plain, node!, "sendMessage", { type: "ADD_PROVIDER", key: ContentKey.toBytes(text), providers })
      yield* until("the sender", storedProviders(node!, text), (count) => count > 0)
      const ids = yield* storedIds(node!, text)
      assert.deepStrictEqual(ids, [plain.peerId.toString()])
    }))

  it.live("keeps apart the keys whose names could be taken for each other", () =>
    Effect.gen(function*() {
      const [a, b] = yield* line(2)
      // A text, the identity multihash of it, the identity multihash of that, and texts that begin with it.
      const one = new TextEncoder().encode("abcde")
      const two = Uint8Array.of(0x00, one.length, ...one)
      const three = Uint8Array.of(0x00, two.length, ...two)
      const others = [two, three, Uint8Array.of(...one, ...one), one.subarray(0, 4), Uint8Array.of(0x12, 0x20)]
      yield* b!.dht.startProviding(ContentKey.fromRustRecordKey(one))
      yield* until("found", found(a!, ContentKey.fromRustRecordKey(one)), (found) => found.length === 1)
      for (const other of others) assert.deepStrictEqual(yield* found(a!, ContentKey.fromRustRecordKey(other)), [])
      for (const other of others) yield* b!.dht.startProviding(ContentKey.fromRustRecordKey(other))
      yield* b!.dht.stopProviding(ContentKey.fromRustRecordKey(two))
      for (const other of others) {
        yield* until("each", found(a!, ContentKey.fromRustRecordKey(other)), (found) => found.length === 1)
      }
      assert.deepStrictEqual(addresses(b!), (yield* found(a!, ContentKey.fromRustRecordKey(one)))[0]!.addresses)
    }))

  it.live("leaves announcing to this library: kad-dht's own would use the name a key is stored by", () =>
    Effect.gen(function*() {
      const [a, b] = yield* line(2)
      yield* a!.dht.startProviding(text)
      yield* until("found", found(b!, text), (found) => found.length === 1)
      // An own record past its time is what kad-dht announces again.
      const old = Uint8Array.of(1)
      yield* Effect.promise(async () => {
        for await (const { key } of a!.components.datastore.query({ prefix: "/dht/provider" })) {
          await a!.components.datastore.put(key, old)
        }
        await reprovider(a!).processRecords()
        await reprovider(a!).reprovideQueue.onIdle()
      })
      const names = yield* Effect.promise(async () => {
        const names: Array<string> = []
        for await (const { key } of b!.components.datastore.query({ prefix: "/dht/provider" })) {
          names.push(key.toString())
        }
        return names
      })
      assert.lengthOf(names, 1)
    }))

  it("refuses a kad-dht that lacks a member, by the member's name", () => {
    const fn = () => Promise.resolve([] as never)
    const whole = (): KadInternals => ({
      providers: { addProvider: fn, removeProvider: fn, getProviders: fn },
      peerRouting: { getClosestPeersOffline: fn },
      reprovider: { queueReprovide: fn },
      rpc: { handlers: { ADD_PROVIDER: { handle: fn }, GET_PROVIDERS: { handle: fn } } }
    })
    const components = {} as Parameters<typeof takeAnyKey>[1]
    takeAnyKey(whole(), components)
    for (const member of ["providers", "peerRouting", "reprovider", "rpc"] as const) {
      const { [member]: _, ...rest } = whole()
      assert.throws(() => takeAnyKey(rest as KadInternals, components), new RegExp(`has no ${member}\\.`))
    }
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The kad-dht of a node, which its services do not name since it is attached. */
const kadOf = (node: Node) => node.kad as unknown as KadInternals

const storedIds = (node: Node, key: ContentKey.ContentKey) =>
  Effect.promise(async () => (await kadOf(node).providers.getProviders(toKadKey(key))).map(String))

const storedProviders = (node: Node, key: ContentKey.ContentKey) =>
  Effect.map(storedIds(node, key), (ids) => ids.length)

const reprovider = (node: Node) =>
  (node.kad as unknown as {
    readonly reprovider: {
      readonly processRecords: () => Promise<void>
      readonly reprovideQueue: { readonly onIdle: () => Promise<void> }
    }
  }).reprovider
