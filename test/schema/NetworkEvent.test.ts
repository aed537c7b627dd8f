import { assert, describe, it } from "@effect/vitest"
import { Duration, Schema } from "effect"
import * as NetworkEvent from "../../src/schema/NetworkEvent.ts"
import type { Multiaddr } from "../../src/schema/Peer.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"

const peer = SimNetwork.peerId("bob")
const address = "/ip4/192.0.2.1/tcp/4001" as Multiaddr

const events: ReadonlyArray<NetworkEvent.NetworkEvent> = [
  new NetworkEvent.PeerDiscovered({ peer, addresses: [address], source: "mdns" }),
  new NetworkEvent.PeerConnected({ peer, address, direction: "inbound", interest: "transient" }),
  new NetworkEvent.PeerIdentified({
    peer,
    protocolVersion: "/codio/1.0.0",
    agentVersion: "codio-network/1",
    protocols: ["/codio/1.0.0"],
    listenAddresses: [address],
    observedAddress: address
  }),
  new NetworkEvent.PeerPathChanged({
    peer,
    from: { _tag: "Relayed", relay: peer, bytesLeft: 1_000, timeLeft: Duration.minutes(1), upgrading: true },
    to: { _tag: "Direct", holePunched: true }
  }),
  new NetworkEvent.PeerPathChanged({
    peer,
    from: { _tag: "Direct", holePunched: false },
    to: { _tag: "Relayed", relay: peer, upgrading: false }
  }),
  new NetworkEvent.PeerDisconnected({
    peer,
    reason: "remote",
    remoteReason: "shutdown",
    connectionDuration: Duration.millis(1_500)
  }),
  new NetworkEvent.PeerDisconnected({ peer, reason: "lost", connectionDuration: Duration.zero }),
  new NetworkEvent.PeerRefused({ peer, address, direction: "inbound", reason: "full" }),
  new NetworkEvent.DialFailed({ target: address, reason: "Refused", message: "dial failed" }),
  new NetworkEvent.ReconnectScheduled({ peer, attempt: 2, delay: Duration.seconds(2) }),
  new NetworkEvent.ReconnectFailed({ peer, attempts: 8 }),
  new NetworkEvent.PeerUnhealthy({ peer, misses: 1 }),
  new NetworkEvent.RelayReserved({ relay: peer, addresses: [address] }),
  new NetworkEvent.RelayLost({ relay: peer }),
  new NetworkEvent.IsolationChanged({ isolated: true, candidates: 3 })
]

describe("NetworkEvent", () => {
  it("prints with its tag and its durations in milliseconds, whatever its kind", () => {
    for (const event of events) {
      const text = JSON.stringify(event)
      assert.include(text, `"_tag":"${event._tag}"`)
      assert.notInclude(text, "_id")
    }
    assert.sameMembers(
      [...new Set(events.map(({ _tag }) => _tag))],
      NetworkEvent.NetworkEvent.members.map(({ fields }) => fields._tag.schema.literal)
    )
    assert.strictEqual(
      JSON.stringify(
        new NetworkEvent.PeerDisconnected({ peer, reason: "lost", connectionDuration: Duration.millis(1_500) })
      ),
      `{"_tag":"PeerDisconnected","peer":"${peer}","reason":"lost","connectionDurationMillis":1500}`
    )
  })

  it("crosses a wire as JSON and is itself again", () => {
    const codec = Schema.toCodecJson(NetworkEvent.NetworkEvent)
    const same = Schema.toEquivalence(NetworkEvent.NetworkEvent)
    for (const event of events) {
      const back = Schema.decodeUnknownSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(event))))
      assert.isTrue(same(back, event), event._tag)
    }
  })

  it("has no event that this specification leaves out", () => {
    const seen = new Set<string>(events.map(({ _tag }) => _tag))
    const exported = Object.entries(NetworkEvent).flatMap(([name, value]) =>
      typeof value === "function" && "fields" in value ? [name] : []
    )
    assert.deepStrictEqual(exported.filter((name) => !seen.has(name)), [])
  })
})
