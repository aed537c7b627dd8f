import { assert, describe, it } from "@effect/vitest"
import type { Multiaddr } from "../../src/schema/Peer.ts"
import { anyAddress, isLoopback, ownSubnetsOnly } from "../../src/services/AddressGuard.ts"
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

  it("judges an IPv4 address in IPv6 clothes as what it is", () => {
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
})
