import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Metric, Option, Scope } from "effect"
import { KeyValueStore } from "effect/persistence"
import { TestClock } from "effect/testing"
import { base58btc } from "multiformats/bases/base58"
import * as KeyValuePeerStore from "../../../src/layers/machine/KeyValuePeerStore.ts"
import type { Multiaddr, PeerId } from "../../../src/schema/Peer.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import * as NetworkMetrics from "../../../src/services/NetworkMetrics.ts"
import type { PeerStore, RememberedPeer } from "../../../src/services/PeerStore.ts"
import * as LogLines from "../../support/LogLines.ts"

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

/** The store, and the keys that are written to it, in their order. */
const counting = (values: KeyValueStore.KeyValueStore) => {
  const writes: Array<string> = []
  const counted = KeyValueStore.make({
    ...values,
    set: (key, value) => Effect.andThen(Effect.sync(() => writes.push(key)), values.set(key, value))
  })
  return { counted, writes }
}

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

  it.effect("writes what changes within a second, in one small write, and nothing when nothing changed", () =>
    Effect.gen(function*() {
      const values = yield* KeyValueStore.KeyValueStore
      const { counted, writes } = counting(values)
      yield* Effect.gen(function*() {
        const { close, store } = yield* open
        yield* store.remember(peer(1), address(1))
        yield* store.remember(peer(2), address(2))
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(writes, [])
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(writes, ["peers"])
        yield* store.remember(peer(3), address(3))
        yield* store.remember(peer(1), address(3))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(writes, ["peers", "peers.changes"])
        const changes: { peers: ReadonlyArray<{ id: string }> } = JSON.parse((yield* values.get("peers.changes")) ?? "")
        assert.deepStrictEqual(changes.peers.map(({ id }) => id), [peer(3), peer(1)])
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(writes.length, 2)
        yield* close
        assert.deepStrictEqual(writes, ["peers", "peers.changes", "peers"])
        assert.isUndefined(yield* values.get("peers.changes"))
      }).pipe(Effect.provideService(KeyValueStore.KeyValueStore, counted))
    }).pipe(Effect.provide(memory)))

  it.effect("keeps what it met a second before it was killed", () =>
    Effect.gen(function*() {
      const killed = yield* open
      yield* killed.store.remember(peer(1), address(1))
      yield* TestClock.adjust("1 second")
      yield* killed.store.remember(peer(2), address(2))
      yield* killed.store.remember(peer(1), address(3))
      yield* TestClock.adjust("1 second")
      yield* killed.store.remember(peer(3), address(3))
      // The process ends here: nothing of the last second is written.
      const { close, store } = yield* open
      assert.deepStrictEqual((yield* store.peers).map((known) => [known.id, addressesOf(known)]), [
        [peer(1), [address(3), address(1)]],
        [peer(2), [address(2)]]
      ])
      yield* close
      yield* killed.close
    }).pipe(Effect.provide(memory)))

  it.effect("writes all peers after 512 changes, also those of whom nothing has changed", () =>
    Effect.gen(function*() {
      const values = yield* KeyValueStore.KeyValueStore
      const { close, store } = yield* open
      yield* store.remember(peer(0), address(1))
      yield* TestClock.adjust("1 second")
      for (let n = 1; n <= 511; n++) yield* store.remember(peer(n), address(1))
      yield* TestClock.adjust("1 second")
      assert.isDefined(yield* values.get("peers.changes"))
      yield* store.remember(peer(512), address(1))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(yield* values.get("peers.changes"))
      const again = yield* open
      assert.strictEqual((yield* again.store.peers).length, 513)
      yield* again.close
      yield* close
    }).pipe(Effect.provide(memory)))

  it.effect("writes all peers again when what it wrote was removed", () =>
    Effect.gen(function*() {
      const values = yield* KeyValueStore.KeyValueStore
      const { close, store } = yield* open
      yield* store.remember(peer(1), address(1))
      yield* TestClock.adjust("1 second")
      yield* values.clear
      yield* store.remember(peer(2), address(2))
      yield* TestClock.adjust("1 second")
      const second = yield* open
      assert.strictEqual((yield* second.store.peers).length, 2)
      yield* values.clear
      yield* second.close
      assert.isDefined(yield* values.get("peers"))
      yield* close
    }).pipe(Effect.provide(memory)))

  it.effect("prefers a snapshot to older changes that a kill left beside it", () =>
    Effect.gen(function*() {
      const values = yield* KeyValueStore.KeyValueStore
      const saved = (n: number, seen: number) =>
        JSON.stringify({
          version: 2,
          peers: [{ id: peer(1), lastSeen: seen, addresses: [{ address: address(n), lastSuccess: seen }] }]
        })
      yield* values.set("peers", saved(2, 2000))
      yield* values.set("peers.changes", saved(1, 1000))
      const { close, store } = yield* open
      assert.deepStrictEqual((yield* store.peers).map(addressesOf), [[address(2)]])
      yield* close
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

  it.effect("sets a damaged list aside as it is, counts and names it in one line, and goes on with the other one", () =>
    Effect.gen(function*() {
      const values = yield* KeyValueStore.KeyValueStore
      const before = yield* open
      yield* before.store.remember(peer(1), address(1))
      yield* TestClock.adjust("1 second")
      yield* before.store.remember(peer(2), address(2))
      yield* TestClock.adjust("1 second")
      const whole = yield* values.get("peers.changes")
      const count = Effect.map(Metric.value(NetworkMetrics.damagedLists), ({ count }) => count)
      for (
        const damaged of [
          "{\"version\":1,\"peers\":[{\"id\"",
          "{\"version\":3,\"peers\":[]}",
          "{\"version\":1,\"peers\":[{\"id\":\"x\"}]}"
        ]
      ) {
        yield* values.set("peers", damaged)
        yield* values.set("peers.changes", whole!)
        const counted = yield* count
        const first = yield* open
        assert.deepStrictEqual((yield* LogLines.lines).slice(-1), [
          "Warn: 1 list of remembered peers is damaged or of a newer version, and is set aside: peers.damaged"
        ])
        assert.strictEqual((yield* count) - counted, 1)
        assert.deepStrictEqual(yield* values.getUint8Array("peers.damaged"), new TextEncoder().encode(damaged))
        assert.deepStrictEqual((yield* first.store.peers).map((known) => known.id), [peer(2)])
        yield* first.close
        const second = yield* open
        assert.deepStrictEqual((yield* second.store.peers).map((known) => known.id), [peer(2)])
        yield* second.close
      }
    }).pipe(Effect.provide(memory), LogLines.capture))

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

  it.effect("tries again 30 s after a disk has refused, and saves what it owes", () =>
    Effect.gen(function*() {
      const values = yield* KeyValueStore.KeyValueStore
      let isFull = true
      let tries = 0
      const full = KeyValueStore.make({
        ...values,
        set: (key, value) => {
          tries++
          return isFull
            ? Effect.fail(new KeyValueStore.KeyValueStoreError({ method: "set", message: "ENOSPC" }))
            : values.set(key, value)
        }
      })
      yield* Effect.gen(function*() {
        const { close, store } = yield* open
        yield* store.remember(peer(1), address(1))
        yield* store.remember(peer(2), address(2))
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(tries, 1)
        isFull = false
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(tries, 2)
        const again = yield* open
        assert.strictEqual((yield* again.store.peers).length, 2)
        yield* again.close
        yield* close
      }).pipe(Effect.provideService(KeyValueStore.KeyValueStore, full))
    }).pipe(Effect.provide(memory)))
})
