import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Option, Scope } from "effect"
import { KeyValueStore } from "effect/persistence"
import { TestClock } from "effect/testing"
import { base58btc } from "multiformats/bases/base58"
import * as KeyValuePeerStore from "../../../src/layers/machine/KeyValuePeerStore.ts"
import type { Multiaddr, PeerId } from "../../../src/schema/Peer.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import type { PeerStore, RememberedPeer } from "../../../src/services/PeerStore.ts"

// A sha2-256 multihash whose last bytes are the number.
const peer = (n: number): PeerId => {
  const bytes = new Uint8Array(34)
  bytes.set([0x12, 0x20, n >> 8, n & 0xff])
  return base58btc.baseEncode(bytes) as PeerId
}
const address = (n: number): Multiaddr => `/ip4/192.0.2.${n}/tcp/4001` as Multiaddr

/** Opens the peer store over the same key-value store again; the caller closes its scope. */
const open = Effect.gen(function*() {
  const scope = yield* Scope.make()
  const store: PeerStore["Service"] = yield* Scope.provide(KeyValuePeerStore.make, scope)
  return { store, close: Scope.close(scope, Exit.void) }
})

const memory = Layer.merge(Layer.fresh(KeyValueStore.layerMemory), NetworkConfig.layer())

const addressesOf = (known: RememberedPeer) => known.addresses.map(({ address }) => address)

describe("KeyValuePeerStore", () => {
  it.effect("remembers peers across openings, those seen last first, with their last address first", () =>
    Effect.gen(function*() {
      const before = yield* open
      yield* before.store.remember(peer(1), address(1))
      yield* TestClock.adjust("1 second")
      yield* before.store.remember(peer(2), address(2))
      yield* TestClock.adjust("1 second")
      yield* before.store.remember(peer(1), `${address(3)}/p2p/${peer(1)}` as Multiaddr)
      yield* before.close

      const after = yield* open
      const peers = yield* after.store.peers
      assert.deepStrictEqual(peers.map((known) => [known.id, addressesOf(known), known.lastSeen.epochMilliseconds]), [
        [peer(1), [address(3), address(1)], 2000],
        [peer(2), [address(2)], 1000]
      ])
      assert.deepStrictEqual(peers[0]?.addresses.map(({ lastSuccess }) => lastSuccess.epochMilliseconds), [2000, 0])
      assert.deepStrictEqual(Option.map(yield* after.store.get(peer(2)), addressesOf), Option.some([address(2)]))
      assert.isTrue(Option.isNone(yield* after.store.get(peer(3))))
      yield* after.close
    }).pipe(Effect.provide(memory)))

  it.effect("takes over what an earlier version wrote, and remembers fewer where it is told so", () =>
    Effect.gen(function*() {
      const values = yield* KeyValueStore.KeyValueStore
      const peers = [1, 2, 3].map((n) => ({ id: peer(n), addresses: [address(n)], lastSeen: n * 1000 }))
      yield* values.set("peers", JSON.stringify({ version: 1, peers }))
      const { close, store } = yield* open
      assert.deepStrictEqual((yield* store.peers).map(({ id }) => id), [peer(3), peer(2)])
      assert.deepStrictEqual(
        Option.map(
          yield* store.get(peer(2)),
          ({ addresses }) => addresses.map(({ address, lastSuccess }) => [address, lastSuccess.epochMilliseconds])
        ),
        Option.some([[address(2), 2000]])
      )
      yield* close
    }).pipe(
      Effect.provide(Layer.merge(Layer.fresh(KeyValueStore.layerMemory), NetworkConfig.layer({ maxKnownPeers: 2 })))
    ))

  it.effect("writes 30 s after a change, and nothing when nothing changed", () =>
    Effect.gen(function*() {
      const writes: Array<string> = []
      const values = yield* KeyValueStore.KeyValueStore
      const counted = KeyValueStore.make({
        ...values,
        set: (key, value) => Effect.andThen(Effect.sync(() => writes.push(key)), values.set(key, value))
      })
      yield* Effect.gen(function*() {
        const { close, store } = yield* open
        yield* store.remember(peer(1), address(1))
        yield* TestClock.adjust("29999 millis")
        assert.strictEqual(writes.length, 0)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(writes.length, 1)
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(writes.length, 1)
        yield* close
        assert.strictEqual(writes.length, 1)
      }).pipe(Effect.provideService(KeyValueStore.KeyValueStore, counted))
    }).pipe(Effect.provide(memory)))

  it.effect("keeps 8 addresses of a peer and 4,096 peers, and lets the oldest go", () =>
    Effect.gen(function*() {
      const { close, store } = yield* open
      for (let n = 1; n <= 9; n++) yield* store.remember(peer(0), address(n))
      const known = Option.getOrThrow(yield* store.get(peer(0)))
      assert.deepStrictEqual(addressesOf(known), [9, 8, 7, 6, 5, 4, 3, 2].map(address))
      for (let n = 1; n < 4096; n++) yield* store.remember(peer(n), address(1))
      assert.strictEqual((yield* store.peers).length, 4096)
      yield* store.remember(peer(0), address(1))
      yield* store.remember(peer(4096), address(1))
      assert.strictEqual((yield* store.peers).length, 4096)
      assert.isTrue(Option.isNone(yield* store.get(peer(1))))
      assert.isTrue(Option.isSome(yield* store.get(peer(0))))
      yield* close
    }).pipe(Effect.provide(memory)))

  it.effect("starts empty over a damaged snapshot and replaces it", () =>
    Effect.gen(function*() {
      const values = yield* KeyValueStore.KeyValueStore
      for (
        const damaged of [
          "{\"version\":1,\"peers\":[{\"id\"",
          "{\"version\":3,\"peers\":[]}",
          "{\"version\":1,\"peers\":[{\"id\":\"x\"}]}"
        ]
      ) {
        yield* values.set("peers", damaged)
        const first = yield* open
        assert.deepStrictEqual(yield* first.store.peers, [])
        yield* first.store.remember(peer(1), address(1))
        yield* first.close
        const second = yield* open
        assert.deepStrictEqual((yield* second.store.peers).map((known) => known.id), [peer(1)])
        yield* second.close
      }
    }).pipe(Effect.provide(memory)))

  it.effect("fails to open when the store cannot be read, and goes on when it cannot be written", () =>
    Effect.gen(function*() {
      const values = yield* KeyValueStore.KeyValueStore
      const broken = (method: "get" | "set") =>
        KeyValueStore.make({
          ...values,
          [method]: () => Effect.fail(new KeyValueStore.KeyValueStoreError({ method, message: "disk on fire" }))
        })
      const error = yield* Effect.flip(open.pipe(Effect.provideService(KeyValueStore.KeyValueStore, broken("get"))))
      assert.strictEqual(
        error.message,
        "peer store: read failed: disk on fire; check that the data directory can be read and written"
      )
      yield* Effect.gen(function*() {
        const { close, store } = yield* open
        yield* store.remember(peer(1), address(1))
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual((yield* store.peers).length, 1)
        yield* close
      }).pipe(Effect.provideService(KeyValueStore.KeyValueStore, broken("set")))
    }).pipe(Effect.provide(memory)))
})
