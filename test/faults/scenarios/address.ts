/** Hosts that get another address: connections from the former address go dead in silence. */
import { Clock, Effect } from "effect"
import * as Lab from "../Lab.ts"
import * as PeerProcess from "../PeerProcess.ts"
import { type Scenario, until } from "../Scenario.ts"

export const address: ReadonlyArray<Scenario> = [
  {
    name: "a node whose own address changed is connected to its kept peer again",
    seconds: 20,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const host = yield* lab.host("node")
        const [node, peer] = yield* Effect.all([
          PeerProcess.start(host),
          Effect.flatMap(lab.host("peer"), (host) => PeerProcess.start(host, { config: { minPeers: 0 } }))
        ], { concurrency: 2 })
        yield* node.ask({ do: "keep", target: peer.address })
        yield* node.event("PeerIdentified", { peer: peer.id, seconds: 30 })
        const since = yield* Clock.currentTimeMillis
        yield* host.readdress("44.0.0.201")
        const at = yield* seenAt(peer, node.id, "44.0.0.201", 30)
        // Health finds out, within 10 s; then one step of the backoff, and a dial.
        yield* report.within("connected from the new address", since, at, 13)
        const addresses: ReadonlyArray<string> = yield* node.ask({ do: "addresses" })
        yield* report.equal(
          "its own addresses",
          addresses.filter((text) => text.includes("/44.")).join(" "),
          [
            `/ip4/44.0.0.201/tcp/${PeerProcess.port}/p2p/${node.id}`
          ].join(" ")
        )
      })
  },
  {
    name: "a kept peer that moved to another address is found again on the local network",
    seconds: 25,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make("10.44.0")
        const host = yield* lab.host("peer")
        const config = { enableMdns: true } as const
        const [node, peer] = yield* Effect.all([
          Effect.flatMap(lab.host("node"), (host) => PeerProcess.start(host, { config })),
          PeerProcess.start(host, { config: { ...config, minPeers: 0 } })
        ], { concurrency: 2 })
        yield* node.ask({ do: "keep", target: peer.address })
        yield* node.event("PeerIdentified", { peer: peer.id, seconds: 30 })
        const since = yield* Clock.currentTimeMillis
        yield* host.readdress("10.44.0.202")
        const at = yield* seenAt(node, peer.id, "10.44.0.202", 40)
        yield* report.within("connected at the new address", since, at, 20)
      })
  },
  {
    name: "a kept peer that moved to another address is found again through the DHT",
    seconds: 30,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const host = yield* lab.host("peer")
        const bootstrap = yield* PeerProcess.start(yield* lab.host("bootstrap"), { config: { minPeers: 0 } })
        const config = { bootstrapPeers: [bootstrap.address], minPeers: 0 }
        const [node, peer] = yield* Effect.all([
          Effect.flatMap(lab.host("node"), (host) => PeerProcess.start(host, { config })),
          PeerProcess.start(host, { config })
        ], { concurrency: 2 })
        yield* node.ask({ do: "keep", target: peer.address })
        yield* node.event("PeerIdentified", { peer: peer.id, seconds: 30 })
        const since = yield* Clock.currentTimeMillis
        yield* host.readdress("44.0.0.203")
        const at = yield* seenAt(node, peer.id, "44.0.0.203", 50)
        yield* report.within("connected at the new address", since, at, 30)
      })
  }
]

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** When the peer is connected, to or from an address of that host. */
function seenAt(node: PeerProcess.PeerProcess, peer: string, host: string, seconds: number) {
  const isSeen = (peers: ReadonlyArray<{ readonly id: string; readonly addresses: ReadonlyArray<string> }>) =>
    peers.some(({ addresses, id }) => id === peer && addresses.some((address) => address.startsWith(`/ip4/${host}/`)))
  return until(`the peer is connected at ${host}`, Effect.map(node.ask({ do: "peers" }), isSeen), seconds)
}
