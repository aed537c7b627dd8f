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
  it("is the program itself only when it is given", () => {
    assert.isTrue(sourceTraits("given").isOwn)
    const others = ["worked", "remembered", "mdns", "dht", "identify", "a program's own", "", "GIVEN", "constructor"]
    for (const source of [...others, "__proto__"]) {
      assert.isFalse(sourceTraits(source).isOwn, source)
    }
  })

  it("is a sign of life unless it is a memory", () => {
    assert.isFalse(sourceTraits("remembered").isSignOfLife)
    for (const source of ["mdns", "dht", "a program's own"]) assert.isTrue(sourceTraits(source).isSignOfLife, source)
  })

  it.effect("and the teller decide whether the address is guarded", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const address = "/ip4/127.0.0.1/tcp/4001" as Multiaddr
      const here = "/ip4/127.0.0.1/tcp/55555" as Multiaddr
      const guarded: Record<string, boolean> = {}
      for (const source of ["given", "mdns", "remembered", "dht", "a program's own"]) {
        for (const tellers of [[], [here], ["/ip4/44.0.0.1/tcp/4001" as Multiaddr]]) {
          const id = SimNetwork.peerId(`${source} ${tellers}`)
          yield* alice.discovery.announce({ id, addresses: [{ address, tellers }] }, source)
          yield* TestClock.adjust(0)
          const { addresses } = yield* alice.manager.explain(id)
          guarded[`${source} ${tellers}`] = addresses[0]!.isGuarded
        }
      }
      const dialled = Object.keys(guarded).filter((key) => guarded[key] === false)
      assert.deepStrictEqual(dialled, [
        "given ",
        `given ${here}`,
        "given /ip4/44.0.0.1/tcp/4001",
        ...["mdns", "remembered", "dht", "a program's own"].map((source) => `${source} ${here}`)
      ])
    }).pipe(Effect.provide(SimNetwork.layer())))

  it.effect("of a program's own may write its text in any form, and what cannot be read is left out", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      const id = SimNetwork.peerId("bob")
      const cid = CID.createV1(0x72, Digest.decode(base58btc.baseDecode(id))).toString()
      const anything = (found: unknown) => alice.discovery.announce(found as never, "own")
      yield* anything({ id: "bogus", addresses: [] })
      for (const found of [undefined, 5, {}, { id }]) yield* anything(found)
      yield* anything({ id, addresses: [undefined, null, 5, {}, { address: null, tellers: [] }] })
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
