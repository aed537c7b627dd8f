import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { BlockList, isIP } from "node:net"
import type { Multiaddr } from "../../src/schema/Peer.ts"
import { countedNetworkOf, isLoopback } from "../../src/schema/Subnet.ts"
import { anyAddress, ownSubnetsOnly, isDialable } from "../../src/services/AddressGuard.ts"
import type { NetworkInterface } from "../../src/services/NetworkMonitor.ts"

const interfaces: ReadonlyArray<NetworkInterface> = [
  { address: "127.0.0.1", prefixLength: 8, family: 4, internal: true },
  { address: "192.168.1.20", prefixLength: 24, family: 4, internal: false },
  { address: "172.17.0.1", prefixLength: 16, family: 4, internal: false },
  { address: "44.7.7.7", prefixLength: 32, family: 4, internal: false },
  { address: "fd12:3456::20", prefixLength: 64, family: 6, internal: false }
]

/** A teller on the internet, in each of the subnets, and on this machine. */
const tellers = {
  nobody: undefined,
  far: "/ip4/44.0.0.1/tcp/4001",
  relayed: "/ip4/192.168.1.9/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp/p2p-circuit",
  lan: "/ip4/192.168.1.9/tcp/51234",
  mapped: "/ip6/::ffff:192.168.1.9/tcp/51234",
  lan6: "/ip6/fd12:3456::9/tcp/51234",
  container: "/ip4/172.17.0.2/tcp/51234",
  here: "/ip4/127.0.0.1/tcp/51234",
  hereByAddress: "/ip4/192.168.1.20/tcp/51234"
} as const
type Teller = keyof typeof tellers

const passes = (address: string, teller: Teller = "nobody") =>
  ownSubnetsOnly(address as Multiaddr, { interfaces, teller: tellers[teller] as Multiaddr | undefined })

const all = Object.keys(tellers) as ReadonlyArray<Teller>
/** The tellers for which the address passes. */
const passesFor = (address: string) => all.filter((teller) => passes(address, teller))

const relay = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

describe("AddressGuard", () => {
  it("lets public addresses and names pass, whoever told them", () => {
    for (
      const address of [
        "/ip4/44.0.0.1/tcp/4001",
        `/ip4/44.0.0.1/tcp/4001/p2p/${relay}`,
        "/ip6/2a00:1450::1/tcp/4001",
        "/dns4/seed.example.org/tcp/4001",
        "/dns/_seed-1.example.org./tcp/65535",
        "/dnsaddr/example.org",
        `/dnsaddr/example.org/p2p/${relay}`,
        "/memory/bob",
        `/ip4/44.0.0.1/tcp/4001/p2p/${relay}/p2p-circuit`,
        `/ip4/44.0.0.1/tcp/4001/p2p/${relay}/p2p-circuit/p2p/${relay}`,
        `/dns6/relay.example.org/tcp/4001/p2p/${relay}/p2p-circuit`
      ]
    ) assert.deepStrictEqual(passesFor(address), all, address)
  })

  it("lets no form pass that no transport here understands", () => {
    for (
      const address of [
        "",
        "/ip4/44.0.0.1",
        "/ip4/44.0.0.1/tcp/0",
        "/ip4/44.0.0.1/tcp/99999999",
        "/ip4/44.0.0.1/udp/4001/quic-v1",
        "/ip4/44.0.0.1/tcp/4001/ws",
        "/ip4/44.0.0.1/tcp/4001/http",
        "/ip6zone/lo/ip6/::1/tcp/4001",
        "/ip6zone/eth0/ip6/fe80::1/tcp/4001",
        "/unix/var%2frun%2fdocker.sock",
        "/unix/%2fvar%2frun%2fdocker.sock/p2p/x",
        `/p2p/${relay}`,
        `/p2p/${relay}/p2p-circuit`,
        "/p2p-circuit",
        "/ip4/44.0.0.1/tcp/4001/p2p-circuit",
        `/ip4/44.0.0.1/tcp/4001/p2p/${relay}/p2p-circuit/p2p/${relay}/p2p-circuit`,
        `/ip6zone/lo/ip6/::1/tcp/4001/p2p/${relay}/p2p-circuit`,
        "/dns4/fe80::1%lo/tcp/4001",
        "/dns4/a b/tcp/4001",
        `/dns4/${"a".repeat(254)}/tcp/4001`,
        "/ip4/localhost/tcp/4001",
        // The system takes these for IP addresses.
        "/dns4/127.0.0.1/tcp/4001",
        "/dns4/44.0.0.1/tcp/4001",
        "/dns/::1/tcp/4001",
        "/dns4/localhost/tcp/4001",
        "/dns6/LOCALHOST./tcp/4001",
        "/dns/anything.localhost/tcp/4001",
        `/dns4/localhost/tcp/4001/p2p/${relay}/p2p-circuit`,
        "/ip6/::1%lo/tcp/4001"
      ]
    ) assert.deepStrictEqual(passesFor(address), [], address)
  })

  it("lets a private address pass only when its teller lies in the same subnet of this machine's", () => {
    const here: ReadonlyArray<Teller> = ["here", "hereByAddress"]
    const lan: ReadonlyArray<Teller> = ["lan", "mapped", ...here]
    assert.deepStrictEqual(passesFor("/ip4/192.168.1.1/tcp/4001"), lan)
    assert.deepStrictEqual(passesFor("/ip4/192.168.1.255/tcp/4001"), lan)
    assert.deepStrictEqual(passesFor(`/ip4/192.168.1.1/tcp/4001/p2p/${relay}/p2p-circuit`), lan)
    assert.deepStrictEqual(passesFor("/ip4/172.17.0.2/tcp/4001"), ["container", ...here])
    assert.deepStrictEqual(passesFor("/ip6/fd12:3456::1/tcp/4001"), ["lan6", ...here])
    for (
      const address of [
        "/ip4/192.168.2.0/tcp/4001",
        "/ip4/10.0.0.1/tcp/4001",
        "/ip4/169.254.1.1/tcp/4001",
        "/ip4/100.64.0.1/tcp/4001",
        "/ip4/203.0.113.9/tcp/4001",
        "/ip6/fd12:3456:0:1::1/tcp/4001",
        "/ip6/fe80::1/tcp/4001"
      ]
    ) assert.deepStrictEqual(passesFor(address), [], address)
  })

  it("lets loopback pass only when a peer told it over loopback", () => {
    for (const address of ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.1.2.3/tcp/4001", "/ip6/::1/tcp/4001"]) {
      assert.deepStrictEqual(passesFor(address), ["here"], address)
    }
  })

  it("lets this machine's own addresses pass only when a peer on this machine told them", () => {
    for (
      const address of [
        "/ip4/192.168.1.20/tcp/4001",
        "/ip4/44.7.7.7/tcp/4001",
        "/ip6/::ffff:44.7.7.7/tcp/4001",
        "/ip6/fd12:3456::20/tcp/4001"
      ]
    ) assert.deepStrictEqual(passesFor(address), ["here", "hereByAddress"], address)
    assert.isTrue(isLoopback("/ip6/::1/tcp/4001" as Multiaddr))
    assert.isFalse(isLoopback("/ip4/192.168.1.1/tcp/4001" as Multiaddr))
  })

  it("never lets multicast, unspecified and reserved addresses pass", () => {
    for (
      const address of [
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.251/tcp/1",
        "/ip4/255.255.255.255/tcp/1",
        "/ip6/::/tcp/1",
        "/ip6/ff02::fb/tcp/1",
        "/ip6/::ffff:0.0.0.0/tcp/1",
        "/ip6/2002:e000:fb::1/tcp/1"
      ]
    ) assert.deepStrictEqual(passesFor(address), [], address)
  })

  it("judges an IPv6 address as the IPv4 address that it stands for", () => {
    const written = (a: number, b: number, c: number, d: number) => {
      const high = ((a << 8) | b).toString(16)
      const low = ((c << 8) | d).toString(16)
      return {
        mapped: `::ffff:${high}:${low}`,
        compatible: `::${high}:${low}`,
        translated: `::ffff:0:${high}:${low}`,
        NAT64: `64:ff9b::${high}:${low}`,
        "6to4": `2002:${high}:${low}::1`,
        ISATAP: `2a00:1450:1:1:0:5efe:${high}:${low}`,
        "ISATAP, global": `2a00:1450:1:1:200:5efe:${high}:${low}`
      }
    }
    for (const [name, host] of Object.entries(written(127, 0, 0, 1))) {
      assert.deepStrictEqual(passesFor(`/ip6/${host}/tcp/1`), ["here"], name)
    }
    for (const [name, host] of Object.entries(written(192, 168, 1, 7))) {
      assert.deepStrictEqual(passesFor(`/ip6/${host}/tcp/1`), ["lan", "mapped", "here", "hereByAddress"], name)
    }
    for (const [name, host] of Object.entries(written(10, 0, 0, 1))) {
      assert.deepStrictEqual(passesFor(`/ip6/${host}/tcp/1`), [], name)
    }
    for (const [name, host] of Object.entries(written(44, 0, 0, 1))) {
      assert.deepStrictEqual(passesFor(`/ip6/${host}/tcp/1`), all, name)
    }
    // Their prefix is not reached from here.
    assert.deepStrictEqual(passesFor("/ip6/fe80::5efe:2c00:1/tcp/1"), [])
    assert.deepStrictEqual(passesFor("/ip6/64:ff9b:1::7f00:1/tcp/1"), [])
    assert.deepStrictEqual(passesFor("/ip6/2001:0:2c00:1::80ff:fffe/tcp/1"), [])
  })

  it("passes when one of several tellers is near enough", () => {
    const address = "/ip4/192.168.1.7/tcp/1" as Multiaddr
    const ask = (...some: ReadonlyArray<Teller>) =>
      isDialable(ownSubnetsOnly, address, interfaces, some.map((teller) => tellers[teller] as Multiaddr))
    assert.isFalse(ask())
    assert.isFalse(ask("far", "container"))
    assert.isTrue(ask("far", "container", "lan"))
  })

  it("can be told to let everything pass", () => {
    assert.isTrue(anyAddress("/ip4/10.0.0.1/tcp/4001" as Multiaddr, { interfaces: [], teller: undefined }))
  })
})

// Node's lists of addresses are an implementation of their own: of ranges, of IPv4-mapped addresses, and of parsing.
describe("AddressGuard and node's lists of the ranges of IANA", () => {
  const listOf = (...networks: ReadonlyArray<string>) => {
    const list = new BlockList()
    for (const [address = "", prefix] of networks.map((network) => network.split("/"))) {
      list.addSubnet(address, Number(prefix), isIP(address) === 6 ? "ipv6" : "ipv4")
    }
    return (host: string) => list.check(host, isIP(host) === 6 ? "ipv6" : "ipv4")
  }
  // https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, as of 2025; multicast
  // and the unallocated parts of IPv6 from the registries of the spaces.
  const ranges = {
    loopback: ["127.0.0.0/8"],
    local: [
      ...["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24"],
      ...["192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"]
    ],
    public: ["192.0.0.9/32", "192.0.0.10/32", "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24"],
    nowhere: ["0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"],
    own: ["192.168.1.0/24", "172.17.0.0/16"],
    here: ["192.168.1.20/32", "172.17.0.1/32", "44.7.7.7/32"]
  }
  const ranges6 = {
    loopback: ["::1/128"],
    local: [
      ...["64:ff9b:1::/48", "100::/8", "2001::/23", "2001:db8::/32"],
      ...["3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10"],
      // No part of 2000::/3.
      ...["200::/7", "400::/6", "800::/5", "1000::/4", "4000::/3", "6000::/3", "8000::/3", "a000::/3"],
      ...["c000::/3", "e000::/4", "f000::/5", "f800::/6", "fe00::/9"]
    ],
    public: [
      ...["2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:3::/32", "2001:4:112::/48", "2001:20::/28"],
      ...["2001:30::/28", "2620:4f:8000::/48"]
    ],
    nowhere: ["::/128", "ff00::/8"],
    own: ["fd12:3456::/64"],
    here: ["fd12:3456::20/128"]
  }
  /** The ranges of IPv6 that stand for a range of IPv4. */
  const embedded = (range: string) => {
    const [address = "", prefix] = range.split("/")
    const [a = 0, b = 0, c = 0, d = 0] = address.split(".").map(Number)
    const high = ((a << 8) | b).toString(16)
    const low = ((c << 8) | d).toString(16)
    const length = Number(prefix)
    return [
      `::ffff:0:${high}:${low}/${96 + length}`,
      `64:ff9b::${high}:${low}/${96 + length}`,
      `2002:${high}:${low}::/${16 + length}`
    ]
  }
  // The list knows IPv4-mapped addresses by itself. IPv4-compatible ones overlap with loopback: see the spec above.
  const isAt = Object.fromEntries(
    (["loopback", "local", "public", "nowhere", "own", "here"] as const).map((kind) => [
      kind,
      listOf(...ranges[kind], ...ranges6[kind], ...ranges[kind].flatMap(embedded))
    ])
  )
  const subnets: ReadonlyArray<{ readonly isIn: (host: string) => boolean; readonly tellers: ReadonlyArray<Teller> }> =
    [
      { isIn: listOf("192.168.1.0/24", ...embedded("192.168.1.0/24")), tellers: ["lan", "mapped"] },
      { isIn: listOf("172.17.0.0/16", ...embedded("172.17.0.0/16")), tellers: ["container"] },
      { isIn: listOf("fd12:3456::/64"), tellers: ["lan6"] }
    ]
  const expected = (host: string, teller: Teller) => {
    const at = (kind: string) => isAt[kind]?.(host) === true
    const isHere = teller.startsWith("here")
    if (at("nowhere")) return false
    if (at("loopback")) return teller === "here"
    if (at("here")) return isHere
    if (!at("local") || at("public")) return true
    if (!at("own")) return false
    return isHere || subnets.some(({ isIn, tellers }) => tellers.includes(teller) && isIn(host))
  }
  const agrees = (host: string) => {
    for (const protocol of ["dns", "dns4", "dns6"]) {
      assert.deepStrictEqual(passesFor(`/${protocol}/${host}/tcp/4001`), [], host)
    }
    {
      const address = `/ip${isIP(host)}/${host}/tcp/4001`
      for (const teller of all) {
        assert.strictEqual(passes(address, teller), expected(host, teller), `${address} by ${teller}`)
      }
    }
    const address = `/ip${isIP(host)}/${host}/tcp/4001` as Multiaddr
    const counted = countedNetworkOf(address)
    if (counted !== undefined) assert.isTrue(listOf(counted)(host), `${address} in ${counted}`)
  }
  const text4 = (value: number) => [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".")
  const value4 = (text: string) => text.split(".").reduce((value, octet) => (value * 256 + Number(octet)) >>> 0, 0)
  const hex = (value: number) => `${(value >>> 16).toString(16)}:${(value & 65_535).toString(16)}`
  const formsOf = (value: number) => [
    text4(value),
    `::ffff:${text4(value)}`,
    `::ffff:${hex(value)}`,
    `::ffff:0:${hex(value)}`,
    `64:ff9b::${hex(value)}`,
    `2002:${hex(value)}::`,
    `2002:${hex(value)}:1:2:3:4:5`
  ]

  it("agree at both ends of each range of IPv4, and beside them, in every form", () => {
    for (const range of Object.values(ranges).flat()) {
      const [address = "", prefix] = range.split("/")
      const first = value4(address)
      const last = first + 2 ** (32 - Number(prefix)) - 1
      for (const value of [first - 1, first, last, last + 1].map((one) => one >>> 0)) formsOf(value).forEach(agrees)
    }
  })

  const value6 = (text: string) => {
    const [head = "", tail = ""] = text.split("::")
    const groups = (part: string) => part === "" ? [] : part.split(":")
    const missing = 8 - groups(head).length - groups(tail).length
    const whole = [...groups(head), ...text.includes("::") ? Array<string>(missing).fill("0") : [], ...groups(tail)]
    return whole.reduce((value, group) => (value << 16n) | BigInt(Number.parseInt(group, 16)), 0n)
  }
  const text6 = (value: bigint) =>
    [7, 6, 5, 4, 3, 2, 1, 0].map((index) => ((value >> BigInt(16 * index)) & 0xffffn).toString(16)).join(":")
  // Of ::/8 the spec above has every form that stands for an IPv4 address.
  const isPlain = (value: bigint) => value >= 1n << 120n || value < 2n || value >> 80n === 0x64ff9b0001n

  it("agree at both ends of each range of IPv6, and beside them", () => {
    for (const range of Object.values(ranges6).flat()) {
      const [address = "", prefix] = range.split("/")
      const first = value6(address)
      const last = first + (1n << BigInt(128 - Number(prefix))) - 1n
      const around = [first - 1n, first, last, last + 1n].filter((value) => value >= 0n && value < 1n << 128n)
      for (const value of around.filter(isPlain)) agrees(text6(value))
    }
  })

  const Group = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }))
  it.effect.prop(
    "agree on any address",
    { groups: Schema.Tuple([Group, Group, Group, Group, Group, Group, Group, Group]), nulls: Schema.Boolean },
    ({ groups, nulls }) =>
      Effect.sync(() => {
        formsOf(((groups[0] << 16) | groups[1]) >>> 0).forEach(agrees)
        const texts = groups.map((group) => Math.abs(group).toString(16))
        const host = nulls ? `${texts[0]}::${texts[7]}` : texts.join(":")
        // ISATAP has its own spec.
        if (isPlain(value6(host)) && groups[5] !== 0x5efe) agrees(host)
      }),
    { arbitrary: { runs: 80 } }
  )

  it.effect.prop(
    "let nothing pass that is neither an address nor a name",
    { text: Schema.String },
    ({ text }) =>
      Effect.sync(() => {
        const isName = /^[a-z0-9_.-]+$/i.test(text)
        if (!isName) assert.deepStrictEqual(passesFor(`/dns4/${text}/tcp/1`), [], text)
        if (isIP(text) === 0) assert.deepStrictEqual(passesFor(`/ip4/${text}/tcp/1`), [], text)
        assert.deepStrictEqual(passesFor(text), [], text)
      }),
    { arbitrary: { runs: 300 } }
  )
})
