import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Layer, Queue } from "effect"
import { TestClock } from "effect/testing"
import * as RememberedPeers from "../../../src/layers/discovery/RememberedPeers.ts"
import type { Multiaddr, PeerId } from "../../../src/schema/Peer.ts"
import { Discovery } from "../../../src/services/Discovery.ts"
import { PeerStore, type RememberedPeer } from "../../../src/services/PeerStore.ts"

const remembered = (n: number): RememberedPeer => ({
  id: `peer-${n}` as PeerId,
  addresses: [{ address: `/ip4/192.0.2.1/tcp/${n}` as Multiaddr, lastSuccess: DateTime.makeUnsafe(0) }],
  lastSeen: DateTime.makeUnsafe(0)
})

const storeOf = (peers: ReadonlyArray<RememberedPeer>) =>
  Layer.succeed(PeerStore, {
    remember: () => Effect.void,
    get: () => Effect.succeedNone,
    peers: Effect.sync(() => peers)
  })

const over = (peers: ReadonlyArray<RememberedPeer>) =>
  RememberedPeers.layer.pipe(Layer.provide(storeOf(peers)), Layer.provideMerge(Layer.fresh(Discovery.layer)))

const taken = Effect.flatMap(Discovery, (discovery) => Queue.clear(discovery.peers))

describe("RememberedPeers", () => {
  it.effect("announces at start and every five minutes, in the store's order", () =>
    Effect.gen(function*() {
      const first = yield* taken
      assert.deepStrictEqual(first.map(({ addresses, id, source }) => [id, addresses[0]?.address, source]), [
        ["peer-2", "/ip4/192.0.2.1/tcp/2", "remembered"],
        ["peer-1", "/ip4/192.0.2.1/tcp/1", "remembered"]
      ] as never)
      // The peer was there itself, so the guard takes it for a teller of that network.
      assert.deepStrictEqual(first[0]?.addresses[0]?.tellers, ["/ip4/192.0.2.1/tcp/2" as Multiaddr])
      yield* TestClock.adjust("299 seconds")
      assert.deepStrictEqual(yield* taken, [])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* taken, first)
    }).pipe(Effect.provide(over([remembered(2), remembered(1)]))))

  it.effect("announces the 128 that were seen last, which leaves room for other sources", () =>
    Effect.gen(function*() {
      const announced = yield* taken
      assert.strictEqual(announced.length, 128)
      assert.strictEqual(announced[0]?.id, "peer-0" as PeerId)
      assert.strictEqual(announced[127]?.id, "peer-127" as PeerId)
    }).pipe(Effect.provide(over(Array.from({ length: 200 }, (_, n) => remembered(n))))))
})
