import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import type { Multiaddr } from "../../src/schema/Peer.ts"
import * as Subnet from "../../src/schema/Subnet.ts"

const at = (address: string) => address as Multiaddr
const networkOf = (address: string) => Subnet.subnetOf(at(address), 24, 56)

describe("Subnet", () => {
  it("is the /24 of an IPv4 address and the /56 of an IPv6 one", () => {
    const networks: ReadonlyArray<readonly [string, string]> = [
      ["/ip4/203.0.113.7/tcp/4001", "203.0.113.0/24"],
      ["/ip4/203.0.112.255/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp", "203.0.112.0/24"],
      ["/ip6/2001:db8::1/tcp/4001", "2001:db8::/56"],
      ["/ip6/2001:db8:0:1ff:aa::1/tcp/4001", "2001:db8:0:100::/56"],
      ["/ip6/2001:db8:0:200::/tcp/4001", "2001:db8:0:200::/56"],
      ["/ip6/::ffff:203.0.113.9/tcp/4001", "203.0.113.0/24"],
      ["/ip6/::ffff:cb00:7109/tcp/4001", "203.0.113.0/24"],
      ["/ip6/fe80::1/tcp/4001", "fe80::/56"],
      ["/ip6/64:ff9b::203.0.113.9/tcp/4001", "64:ff9b::/56"]
    ]
    for (const [address, network] of networks) assert.strictEqual(networkOf(address), network, address)
  })

  it("is the address of an IPv4 host and the /64 of an IPv6 one", () => {
    assert.strictEqual(Subnet.hostNetworkOf(at("/ip4/203.0.113.7/tcp/4001")), "203.0.113.7/32")
    assert.strictEqual(
      Subnet.hostNetworkOf(at("/ip6/2001:db8:1:2:aa::1/tcp/1")),
      Subnet.hostNetworkOf(at("/ip6/2001:db8:1:2::/tcp/1"))
    )
    assert.notStrictEqual(
      Subnet.hostNetworkOf(at("/ip6/2001:db8:1:2::1/tcp/1")),
      Subnet.hostNetworkOf(at("/ip6/2001:db8:1:3::1/tcp/1"))
    )
  })

  it("is none for names, other kinds of address and relayed ones", () => {
    for (
      const address of [
        "/dns4/example.org/tcp/4001",
        "/memory/alice:1",
        "/ip4/203.0.113.7/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp/p2p-circuit"
      ]
    ) {
      assert.isUndefined(networkOf(address), address)
    }
  })

  const Octet = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
  it.effect.prop(
    "is the same for all hosts of a subnet, and for no other",
    { network: Schema.Tuple([Octet, Octet, Octet]), other: Octet, hosts: Schema.Tuple([Octet, Octet]) },
    ({ hosts: [one, two], network: [a, b, c], other }) =>
      Effect.sync(() => {
        const of = (third: number, host: number) => networkOf(`/ip4/${a}.${b}.${third}.${host}/tcp/1`)
        assert.strictEqual(of(c, one), of(c, two))
        assert.strictEqual(of(c, one) === of(other, two), Math.abs(c) === Math.abs(other))
      })
  )
})
