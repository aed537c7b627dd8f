import { assert, describe, it } from "@effect/vitest"
import { KnownAddresses } from "../../../src/layers/peers/Addresses.ts"
import { DialError, UnexpectedPeer, Unreachable } from "../../../src/schema/NetworkError.ts"
import type { Multiaddr } from "../../../src/schema/Peer.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"

const bob = SimNetwork.peerId("bob")
const addressOf = (n: number) => `/ip4/192.0.2.${n % 250}/tcp/${4001 + n}` as Multiaddr
const unreachable = new DialError({ target: "x", reason: new Unreachable({ detail: "x".repeat(10_000) }) })

describe("the addresses that others tell", () => {
  it("have 512 characters at most, and those of the program as many as it likes", () => {
    const addresses = new KnownAddresses(SimNetwork.peerId("bob"))
    const long = (length: number) => `/dns4/${"x".repeat(length - 15)}/tcp/4001` as Multiaddr
    assert.isTrue(addresses.learn(long(512), "identify"))
    assert.isFalse(addresses.learn(long(513), "identify"))
    assert.isTrue(addresses.learn(long(513), "given"))
    assert.isFalse(addresses.learn(long(513), "dht"))
    assert.strictEqual(addresses.size, 2)
  })
})

describe("KnownAddresses", () => {
  it("keeps 16 addresses that were told and as many that were given, and those that worked before others", () => {
    const addresses = new KnownAddresses(bob)
    addresses.learn(addressOf(0), "given")
    addresses.worked(addressOf(1), 1000)
    for (let n = 2; n < 200; n++) assert.isTrue(addresses.learn(addressOf(n), "dht"))
    assert.strictEqual(addresses.size, 17)
    const [, ...told] = addresses.values()
    assert.strictEqual(told[0]?.lastSuccess, 1000)
    assert.isFalse(addresses.learn(addressOf(199), "dht"))
    // Told again by others, the address stays a given one.
    addresses.learn(addressOf(0), "dht")
    assert.strictEqual([...addresses.values()].at(-1)?.source, "given")
    for (let n = 300; n < 400; n++) addresses.learn(addressOf(n), "given")
    assert.strictEqual(addresses.size, 32)
  })

  it("remembers who told an address: the last four hosts that may change the guard's answer", () => {
    const addresses = new KnownAddresses(bob)
    const at = "/ip4/192.168.1.7/tcp/4001" as Multiaddr
    const tellers = (...hosts: ReadonlyArray<string>) => hosts.map((host) => `${host}/tcp/51234` as Multiaddr)
    addresses.learn(at, "dht", tellers("/ip4/44.0.0.1", "/ip4/192.168.1.1/tcp/1/p2p/x/p2p-circuit", "/dns4/a.example"))
    assert.deepStrictEqual(addresses.get(at)?.tellers, [])
    for (const n of [1, 2, 3, 4, 5, 2]) addresses.learn(at, "identify", tellers(`/ip6/::ffff:10.0.0.${n}`))
    assert.deepStrictEqual<unknown>(
      addresses.get(at)?.tellers,
      [3, 4, 5, 2].map((n) => `/ip4/10.0.0.${n}`)
    )
    assert.isFalse(addresses.get(at)?.isOwn)
    addresses.learn(at, "given")
    assert.isTrue(addresses.get(at)?.isOwn)
    // A peer lies at the address where it was reached, which says nothing about who gave the address.
    const reached = "/ip4/44.0.0.1/tcp/4001" as Multiaddr
    addresses.worked(reached, 1)
    assert.deepStrictEqual<unknown>(addresses.get(reached)?.tellers, ["/ip4/44.0.0.1"])
    assert.isFalse(addresses.get(reached)?.isOwn)
  })

  it("notes how dials went, in bounded words, and forgets addresses not worth another dial", () => {
    const addresses = new KnownAddresses(bob)
    for (const n of [1, 2]) addresses.learn(addressOf(n), "given")
    addresses.failed(addressOf(1), 5, unreachable, false)
    const [first] = addresses.values()
    assert.strictEqual(first?.lastFailure, 5)
    assert.isBelow(first?.problem?.length ?? 0, 210)
    addresses.worked(addressOf(1), 6)
    assert.isUndefined(first?.problem)
    const wrong = new DialError({ target: "x", reason: new UnexpectedPeer({ expected: bob }) })
    addresses.failed(addressOf(2), 7, wrong, true)
    assert.strictEqual(addresses.size, 2)
    addresses.failed(addressOf(2), 8, wrong, false)
    assert.strictEqual(addresses.size, 1)
  })
})
