/**
 * Peers and networks that are away for a while, and what a node does by itself when they are back.
 */
import { Clock, Effect } from "effect"
import * as Lab from "../Lab.ts"
import * as PeerProcess from "../PeerProcess.ts"
import type { Scenario } from "../Scenario.ts"

export const away: ReadonlyArray<Scenario> = [
  {
    name: "a bootstrap peer that was down for 20 s is connected within one step of the backoff",
    seconds: 45,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const host = yield* lab.host("bootstrap")
        const bootstrap = yield* PeerProcess.start(host)
        const node = yield* PeerProcess.start(yield* lab.host("node"), {
          config: { bootstrapPeers: [bootstrap.address] }
        })
        yield* node.event("PeerIdentified", { peer: bootstrap.id, seconds: 30 })
        const killed = yield* Clock.currentTimeMillis
        yield* bootstrap.kill
        yield* node.event("PeerDisconnected", { peer: bootstrap.id, since: killed, seconds: 30 })
        yield* Effect.sleep("20 seconds")
        yield* PeerProcess.start(host)
        const since = yield* Clock.currentTimeMillis
        const back = yield* node.event("PeerConnected", { peer: bootstrap.id, since: killed, seconds: 40 })
        const step = node.backoff(bootstrap.id, back.at)
        yield* report.within(`back (backoff ${step.toFixed(1)} s)`, since, back.at, step + 1)
      })
  },
  {
    name: "a node whose links were all down comes back by itself",
    seconds: 40,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const host = yield* lab.host("node")
        const peers = yield* Effect.forEach(["one", "two", "three"], (name) =>
          Effect.flatMap(lab.host(name), (host) => PeerProcess.start(host, { config: { minPeers: 0 } })), {
          concurrency: 2
        })
        const [kept, ...wanted] = peers
        const node = yield* PeerProcess.start(host, { config: { bootstrapPeers: [kept!.address] } })
        yield* Effect.forEach(wanted, ({ address }) =>
          node.ask({ do: "connect", target: address }))
        yield* Effect.forEach(peers, ({ id }) =>
          node.event("PeerIdentified", { peer: id, seconds: 30 }))
        yield* Effect.scoped(Effect.gen(function*() {
          const since = yield* Clock.currentTimeMillis
          yield* host.unplugged
          const alone = yield* node.event("IsolationChanged", { since, seconds: 30 })
          yield* report.equal("isolated", alone.event["isolated"], true)
          // The last peer is gone within 10 s, and 2 s later the node counts as isolated.
          yield* report.within("isolated", since, alone.at, 12)
          yield* Effect.sleep("5 seconds")
        }))
        const since = yield* Clock.currentTimeMillis
        const back = yield* Effect.forEach(peers, ({ id }) =>
          node.event("PeerConnected", { peer: id, since, seconds: 40 }))
        // Its own address came back, which it looks for every 2 s; a dial into the void is cut off after 5 s.
        yield* report.within(
          "first peer",
          since,
          Math.min(...back.map(({ at }) =>
            at
          )),
          4
        )
        yield* report.within("all three peers", since, Math.max(...back.map(({ at }) => at)), 8)
        const { event } = yield* node.event("IsolationChanged", { since, seconds: 10 })
        yield* report.equal("isolated", event["isolated"], false)
      })
  }
]
