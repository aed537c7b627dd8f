import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Known from "../../../src/layers/peers/PeerBook.ts"
import { DialError, UnexpectedPeer, Unreachable } from "../../../src/schema/NetworkError.ts"
import type { Multiaddr } from "../../../src/schema/Peer.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"

const book = (maxKnownPeers = 4096) => Known.layer.pipe(Layer.provide(NetworkConfig.layer({ maxKnownPeers })))
const place = (n: number) => `/ip4/192.0.2.${n % 250}/tcp/${4001 + n}` as Multiaddr
const unreachable = new DialError({ target: "x", reason: new Unreachable({ detail: "x".repeat(10_000) }) })
const bob = SimNetwork.peerId("bob")

describe("KnownPeers", () => {
  it.effect("keeps as many peers as it may, and lets those without interest go first, the longest unseen before others", () =>
    Effect.gen(function*() {
      const known = yield* Known.KnownPeers
      const [kept, wanted, connected, old, seen] = ["kept", "wanted", "connected", "old", "seen"].map(SimNetwork.peerId)
      known.record(kept!).keeps = 1
      known.record(wanted!).wanted = true
      known.record(connected!).connectedAt = 0
      known.record(seen!)
      known.record(old!)
      known.record(seen!)
      assert.strictEqual(known.size(), 5)
      known.record(bob)
      assert.strictEqual(known.size(), 5)
      assert.isUndefined(known.get(old!))
      for (const id of [kept!, wanted!, connected!, seen!, bob]) assert.isDefined(known.get(id))
      for (let n = 0; n < 100; n++) known.record(SimNetwork.peerId(`stranger ${n}`))
      assert.strictEqual(known.size(), 5)
      for (const id of [kept!, wanted!, connected!]) assert.isDefined(known.get(id))
    }).pipe(Effect.provide(book(5))))

  it.effect("keeps 16 addresses that were told and as many that were given, and those that worked before others", () =>
    Effect.gen(function*() {
      const peer = (yield* Known.KnownPeers).record(bob)
      Known.learn(peer, place(0), "given")
      Known.worked(peer, place(1), 1000)
      for (let n = 2; n < 200; n++) assert.isTrue(Known.learn(peer, place(n), "dht"))
      assert.strictEqual(peer.addresses.size, 17)
      const [, ...told] = [...peer.addresses.values()]
      assert.strictEqual(told[0]?.lastSuccess, 1000)
      assert.isFalse(Known.learn(peer, place(199), "dht"))
      // Told again by others, it is still one that was given.
      Known.learn(peer, place(0), "dht")
      assert.strictEqual([...peer.addresses.values()].at(-1)?.source, "given")
      for (let n = 300; n < 400; n++) Known.learn(peer, place(n), "given")
      assert.strictEqual(peer.addresses.size, 32)
    }).pipe(Effect.provide(book())))

  it.effect("notes how dials went, in bounded words, and forgets addresses not worth another dial", () =>
    Effect.gen(function*() {
      const peer = (yield* Known.KnownPeers).record(bob)
      for (const n of [1, 2]) Known.learn(peer, place(n), "given")
      Known.failed(peer, place(1), 5, unreachable)
      const [first] = peer.addresses.values()
      assert.strictEqual(first?.lastFailure, 5)
      assert.isBelow(first?.problem?.length ?? 0, 210)
      Known.worked(peer, place(1), 6)
      assert.isUndefined(first?.problem)
      const wrong = new DialError({ target: "x", reason: new UnexpectedPeer({ expected: bob }) })
      peer.keeps = 1
      Known.failed(peer, place(2), 7, wrong)
      assert.strictEqual(peer.addresses.size, 2)
      peer.keeps = 0
      Known.failed(peer, place(2), 8, wrong)
      assert.strictEqual(peer.addresses.size, 1)
      for (let n = 0; n < 20; n++) Known.dialled(peer, n, unreachable)
      assert.deepStrictEqual(peer.dials.map(({ at }) => at), [19, 18, 17, 16, 15, 14, 13, 12])
    }).pipe(Effect.provide(book())))

  it.effect("remembers refusals of strangers without making them known", () =>
    Effect.gen(function*() {
      const known = yield* Known.KnownPeers
      for (let at = 0; at < 20; at++) known.refused(bob, { at, direction: "inbound", reason: "full" })
      for (let n = 0; n < 4; n++) {
        known.refused(SimNetwork.peerId(`x${n}`), { at: 0, direction: "inbound", reason: "full" })
      }
      assert.strictEqual(known.size(), 0)
      assert.strictEqual(known.refusalsOf(bob).length, 8)
      assert.strictEqual(known.refusalsOf(bob)[0]?.at, 19)
      known.refused(SimNetwork.peerId("x4"), { at: 0, direction: "inbound", reason: "full" })
      assert.deepStrictEqual(known.refusalsOf(bob), [])
    }).pipe(Effect.provide(book(5))))
})
