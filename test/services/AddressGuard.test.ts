import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { BlockList, isIP } from "node:net"
import type { Multiaddr } from "../../src/schema/Peer.ts"
import { countedNetworkOf, isLoopback } from "../../src/schema/Subnet.ts"
import { anyAddress, ownSubnetsOnly } from "../../src/services/AddressGuard.ts"
import type { NetworkInterface } from "../../src/services/NetworkMonitor.ts"

const interfaces: ReadonlyArray<NetworkInterface> = [
  { address: "127.0.0.1", prefixLength: 8, family: 4, internal: true },
  { address: "192.168.1.20", prefixLength: 24, family: 4, internal: false },
  { address: "fd12:3456::20", prefixLength: 64, family: 6, internal: false }
]

const passes = (address: string, isToldLocally = false) =>
  ownSubnetsOnly(address as Multiaddr, { interfaces, isToldLocally })

describe("AddressGuard", () => {
  it("lets public addresses, names and other kinds of address pass", () => {
    for (
      const address of [
        "/ip4/44.0.0.1/tcp/4001",
        "/ip6/2a00:1450::1/tcp/4001",
        "/dns4/seed.example.org/tcp/4001",
        "/memory/bob",
        "/ip4/44.0.0.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp/p2p-circuit"
      ]
    ) assert.isTrue(passes(address), address)
  })

  it("lets a private address pass only inside the subnet of an own interface", () => {
    assert.isTrue(passes("/ip4/192.168.1.1/tcp/4001"))
    assert.isTrue(passes("/ip4/192.168.1.255/tcp/4001"))
    assert.isFalse(passes("/ip4/192.168.2.0/tcp/4001"))
    assert.isFalse(passes("/ip4/10.0.0.1/tcp/4001"))
    assert.isFalse(passes("/ip4/169.254.1.1/tcp/4001"))
    assert.isFalse(passes("/ip4/100.64.0.1/tcp/4001"))
    assert.isTrue(passes("/ip6/fd12:3456::1/tcp/4001"))
    assert.isFalse(passes("/ip6/fd12:3456:0:1::1/tcp/4001"))
    assert.isFalse(passes("/ip6/fe80::1/tcp/4001"))
  })

  it("judges an IPv4-mapped IPv6 address as the IPv4 address", () => {
    assert.isTrue(passes("/ip6/::ffff:192.168.1.7/tcp/4001"))
    assert.isFalse(passes("/ip6/::ffff:192.168.2.7/tcp/4001"))
    assert.isFalse(passes("/ip6/::ffff:127.0.0.1/tcp/4001"))
  })

  it("lets loopback pass only when a peer on this machine told it", () => {
    for (const address of ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.1.2.3/tcp/4001", "/ip6/::1/tcp/4001"]) {
      assert.isFalse(passes(address), address)
      assert.isTrue(passes(address, true), address)
      assert.isTrue(isLoopback(address as Multiaddr), address)
    }
    assert.isFalse(isLoopback("/ip4/192.168.1.1/tcp/4001" as Multiaddr))
  })

  it("never lets multicast, unspecified and reserved addresses pass", () => {
    for (
      const address of ["/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.251/tcp/1", "/ip4/255.255.255.255/tcp/1", "/ip6/::/tcp/1"]
    ) assert.isFalse(passes(address, true), address)
    assert.isFalse(passes("/ip6/ff02::fb/tcp/1", true))
  })

  it("can be told to let everything pass", () => {
    assert.isTrue(anyAddress("/ip4/10.0.0.1/tcp/4001" as Multiaddr, { interfaces: [], isToldLocally: false }))
  })

  // Node's lists of addresses are an implementation of their own: of the ranges, of IPv4-mapped addresses, and of
  // parsing.
  const listOf = (...networks: ReadonlyArray<string>) => {
    const list = new BlockList()
    for (const [address = "", prefix] of networks.map((network) => network.split("/"))) {
      list.addSubnet(address, Number(prefix), isIP(address) === 6 ? "ipv6" : "ipv4")
    }
    return (host: string) => list.check(host, isIP(host) === 6 ? "ipv6" : "ipv4")
  }
  const ranges = {
    loopback: ["127.0.0.0/8", "::1/128"],
    private: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "198.18.0.0/15"],
    private6: ["fc00::/7", "fe80::/10"],
    nowhere: ["0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8"]
  }
  const isAt = {
    loopback: listOf(...ranges.loopback),
    private: listOf(...ranges.private, ...ranges.private6),
    nowhere: listOf(...ranges.nowhere),
    own: listOf("192.168.1.20/24", "fd12:3456::20/64")
  }
  const agrees = (host: string) => {
    const address = `/ip${isIP(host)}/${host}/tcp/4001`
    for (const isToldLocally of [false, true]) {
      const expected = !isAt.nowhere(host) &&
        (isAt.loopback(host) ? isToldLocally : !isAt.private(host) || isAt.own(host))
      assert.strictEqual(passes(address, isToldLocally), expected, `${address}, told locally: ${isToldLocally}`)
    }
    assert.strictEqual(isLoopback(address as Multiaddr), isAt.loopback(host), address)
    const counted = countedNetworkOf(address as Multiaddr)
    assert.strictEqual(counted === undefined, isAt.loopback(host) || isAt.private(host), address)
    if (counted !== undefined) assert.isTrue(listOf(counted)(host), `${address} in ${counted}`)
  }
  const text4 = (value: number) => [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".")
  const value4 = (text: string) => text.split(".").reduce((value, octet) => (value * 256 + Number(octet)) >>> 0, 0)
  const mapped = (value: number) => `::ffff:${(value >>> 16).toString(16)}:${(value & 65_535).toString(16)}`

  it("judges both ends of each range, and their neighbours, as node's lists do", () => {
    for (
      const range of [...ranges.loopback, ...ranges.private, ...ranges.nowhere].filter((one) => !one.includes(":"))
    ) {
      const [address = "", prefix] = range.split("/")
      const first = value4(address)
      const last = first + 2 ** (32 - Number(prefix)) - 1
      for (const value of [first - 1, first, last, last + 1].map((one) => one >>> 0)) {
        for (const host of [text4(value), `::ffff:${text4(value)}`, mapped(value)]) agrees(host)
      }
    }
    for (
      const host of [
        ...["::", "::1", "::2", "::127.0.0.1", "fbff:ffff::1", "fc00::", "fdff:ffff:ffff::", "fe00::", "fe7f:ffff::"],
        ...["fe80::", "febf:ffff::", "fec0::", "feff:ffff::1", "ff00::", "ff02::fb", "2001:db8::1", "64:ff9b::7f00:1"]
      ]
    ) agrees(host)
  })

  const Group = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }))
  it.effect.prop(
    "judges any address as node's lists do",
    { groups: Schema.Tuple([Group, Group, Group, Group, Group, Group, Group, Group]), nulls: Schema.Boolean },
    ({ groups, nulls }) =>
      Effect.sync(() => {
        const value = ((groups[0] << 16) | groups[1]) >>> 0
        agrees(text4(value))
        agrees(mapped(value))
        const texts = groups.map((group) => Math.abs(group).toString(16))
        agrees(nulls ? `${texts[0]}::${texts[7]}` : texts.join(":"))
      }),
    { arbitrary: { runs: 500 } }
  )
})
