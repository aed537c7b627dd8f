import { assert, describe, it } from "@effect/vitest"
import { Array, DateTime, Duration, Effect, Option } from "effect"
import { rank } from "../../../../src/layers/dht/lookup/ProviderRanking.ts"
import type { Multiaddr, PeerId } from "../../../../src/schema/Peer.ts"
import { PeerInfo } from "../../../../src/schema/Peer.ts"
import type { LastContact } from "../../../../src/services/ConnectionManager.ts"
import { SimNetwork } from "../../../../src/testing/network/SimNetwork.ts"

const address = "/ip4/192.0.2.1/tcp/4001" as Multiaddr

/** What is known of each peer, by its name. */
const world = (
  known: Record<string, {
    readonly rtt?: number | undefined
    readonly relayed?: boolean
    readonly connected?: boolean
    readonly contact?: Partial<LastContact>
  }>
) => {
  const byId = new Map(Object.entries(known).map(([name, what]) => [SimNetwork.peerId(name), what]))
  return {
    peer: (id: PeerId) =>
      Effect.sync(() => {
        const { connected = false, relayed = false, rtt } = byId.get(id) ?? {}
        if (!connected) return Option.none()
        return Option.some(
          new PeerInfo({
            id,
            addresses: [address],
            direction: "outbound",
            path: relayed
              ? { _tag: "Relayed", relay: SimNetwork.peerId("relay"), upgrading: false }
              : { _tag: "Direct", holePunched: false },
            interest: "wanted",
            connectedAt: DateTime.makeUnsafe(0),
            connectionDuration: Duration.zero,
            idleDuration: Duration.zero,
            ...(rtt === undefined ? {} : { roundTripTime: Duration.millis(rtt) }),
            protocolVersion: "",
            agentVersion: "",
            protocols: [],
            listenAddresses: []
          })
        )
      }),
    lastContact: (id: PeerId) =>
      Effect.sync((): LastContact => ({
        reachedAt: undefined,
        failedAt: undefined,
        isDismissed: false,
        ...byId.get(id)?.contact
      }))
  }
}

describe("ProviderRanking", () => {
  it.effect("puts near peers first, then peers reached before, then unknown ones, and last those not reached", () =>
    Effect.gen(function*() {
      const options = world({
        near: { connected: true, rtt: 2 },
        far: { connected: true, rtt: 80 },
        unmeasured: { connected: true },
        relayed: { connected: true, relayed: true, rtt: 1 },
        recent: { contact: { failedAt: 1, reachedAt: 2000 } },
        long: { contact: { reachedAt: 1000 } },
        dead: { contact: { reachedAt: 1000, failedAt: 3000 } },
        parted: { contact: { reachedAt: 4000, isDismissed: true } }
      })
      const order = [
        "near",
        "far",
        "unmeasured",
        "relayed",
        "recent",
        "long",
        "unknown",
        "another unknown",
        "nowhere",
        "dead",
        "parted"
      ]
      const providers = order.map((name) => ({
        id: SimNetwork.peerId(name),
        addresses: name === "nowhere" ? [] : [{ address, tellers: [] }],
        name
      }))
      const mixed = Array.map([6, 9, 0, 3, 7, 10, 1, 8, 2, 5, 4] as const, (index) => providers[index]!)
      assert.deepStrictEqual((yield* rank(options, mixed)).map(({ name }) => name), order)
    }))
})
