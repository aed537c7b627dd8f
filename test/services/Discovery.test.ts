import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { base58btc } from "multiformats/bases/base58"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"
import type { Multiaddr } from "../../src/schema/Peer.ts"
import { sourceTraits } from "../../src/services/Discovery.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as CoreNode from "../support/CoreNode.ts"

describe("the source of an address", () => {
  it("is trusted only when the table says so", () => {
    for (const source of ["given", "worked", "remembered", "mdns"]) {
      assert.isTrue(sourceTraits(source).isTrusted, source)
    }
    for (const source of ["dht", "identify", "a program's own", "", "MDNS", "constructor", "__proto__"]) {
      assert.isFalse(sourceTraits(source).isTrusted, source)
    }
  })

  it("is a sign of life unless it is a memory", () => {
    assert.isFalse(sourceTraits("remembered").isSignOfLife)
    for (const source of ["mdns", "dht", "a program's own"]) assert.isTrue(sourceTraits(source).isSignOfLife, source)
  })

  it.effect("decides whether the address is guarded", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const guarded: Record<string, boolean> = {}
      for (const source of ["mdns", "remembered", "dht", "a program's own"]) {
        const id = SimNetwork.peerId(source)
        yield* alice.discovery.announce({ id, addresses: ["/ip4/127.0.0.1/tcp/4001" as Multiaddr] }, source)
        yield* TestClock.adjust(0)
        const { addresses } = yield* alice.manager.explain(id)
        guarded[source] = addresses[0]!.isGuarded
      }
      assert.deepStrictEqual(guarded, { mdns: false, remembered: false, dht: true, "a program's own": true })
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("of a program's own may write its text in any form, and what cannot be read is left out", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const id = SimNetwork.peerId("bob")
      const cid = CID.createV1(0x72, Digest.decode(base58btc.baseDecode(id))).toString()
      yield* alice.discovery.announce({ id: "bogus", addresses: [] }, "own")
      yield* alice.discovery.announce({
        id: `${cid}\n`,
        addresses: ["/ip4/192.0.2.1/tcp/1/", "here", `/ip4/192.0.2.2/tcp/1/p2p/${SimNetwork.peerId("carol")}`]
      }, "own")
      yield* TestClock.adjust(0)
      const { addresses } = yield* alice.manager.explain(id)
      assert.deepStrictEqual<unknown>(addresses.map(({ address }) => address), [`/ip4/192.0.2.1/tcp/1/p2p/${id}`])
      assert.strictEqual((yield* alice.manager.status).knownPeers, 1)
    }).pipe(Effect.provide(SimNetwork.layer())))
})
