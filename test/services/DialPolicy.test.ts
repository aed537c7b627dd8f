import { assert, describe, it } from "@effect/vitest"
import { DateTime } from "effect"
import type { Multiaddr } from "../../src/schema/Peer.ts"
import { type DialCandidate, defaultOrder } from "../../src/services/DialPolicy.ts"

const at = (second: number) => DateTime.makeUnsafe(second * 1000)
const candidate = (address: string, results: Omit<DialCandidate, "address"> = {}): DialCandidate => ({
  address: address as Multiaddr,
  ...results
})
const ordered = (...candidates: ReadonlyArray<DialCandidate>) => defaultOrder(candidates).map(({ address }) => address)

describe("the order of addresses", () => {
  it("begins with the address that worked last, whatever else it is", () => {
    assert.deepStrictEqual<ReadonlyArray<string>>(
      ordered(
        candidate("/ip4/192.0.2.1/tcp/1"),
        candidate("/ip4/192.0.2.2/tcp/1", { lastSuccess: at(1) }),
        candidate("/ip4/192.0.2.9/tcp/1/p2p/relay/p2p-circuit", { lastSuccess: at(3), lastFailure: at(4) })
      ),
      ["/ip4/192.0.2.9/tcp/1/p2p/relay/p2p-circuit", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"]
    )
  })

  it("puts relayed addresses behind direct ones, and failed ones behind others of their kind", () => {
    assert.deepStrictEqual<ReadonlyArray<string>>(
      ordered(
        candidate("/ip4/192.0.2.9/tcp/1/p2p/relay/p2p-circuit"),
        candidate("/ip4/192.0.2.1/tcp/1", { lastFailure: at(5) }),
        candidate("/ip4/192.0.2.2/tcp/1", { lastSuccess: at(6), lastFailure: at(5) }),
        candidate("/ip4/192.0.2.3/tcp/1")
      ),
      [
        "/ip4/192.0.2.2/tcp/1",
        "/ip4/192.0.2.3/tcp/1",
        "/ip4/192.0.2.1/tcp/1",
        "/ip4/192.0.2.9/tcp/1/p2p/relay/p2p-circuit"
      ]
    )
  })

  it("takes IPv6 and IPv4 in turn, newest first", () => {
    assert.deepStrictEqual<ReadonlyArray<string>>(
      ordered(
        candidate("/ip4/192.0.2.1/tcp/1"),
        candidate("/ip4/192.0.2.2/tcp/1"),
        candidate("/ip6/2001:db8::1/tcp/1"),
        candidate("/ip6/2001:db8::2/tcp/1")
      ),
      ["/ip6/2001:db8::1/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::2/tcp/1", "/ip4/192.0.2.2/tcp/1"]
    )
  })
})
