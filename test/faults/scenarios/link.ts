/**
 * Links that are bad and not dead.
 */
import { Clock, Effect } from "effect"
import * as Cable from "../Cable.ts"
import * as Lab from "../Lab.ts"
import * as PeerProcess from "../PeerProcess.ts"
import { type Report, type Scenario, until } from "../Scenario.ts"

/** How long the link is bad: four pings of the default policy. */
const badSeconds = 20

/** For how long bytes go there and back. */
const exchange = (node: PeerProcess.PeerProcess, peer: PeerProcess.PeerProcess, bytes: number, report: Report) =>
  Effect.gen(function*() {
    const began = yield* Clock.currentTimeMillis
    let moved = 0
    let now = began
    while (now - began < badSeconds * 1000) {
      const echoed: number = yield* node.ask({ do: "echo", peer: peer.id, bytes })
      moved += echoed
      now = yield* Clock.currentTimeMillis
    }
    yield* report.atLeast("there and back", moved / 1024, bytes / 1024, "KiB")
    yield* report.atLeast("in a second", moved / 1024 / ((now - began) / 1000), 0.1, "KiB")
  })

/** Two peers with such a cable between them. */
const across = Effect.fnUntraced(function*(cable: Cable.Length) {
  const lab = yield* Lab.make()
  const start = (name: string, cable?: Cable.Length) => Effect.flatMap(lab.host(name, cable), PeerProcess.start)
  return yield* Effect.all([start("far", cable), start("near")], { concurrency: 2 })
})

/** How often a node lost a peer. */
const losses = ({ happened }: PeerProcess.PeerProcess, peer: PeerProcess.PeerProcess) =>
  happened.filter(({ event }) => event._tag === "PeerDisconnected" && event["peer"] === peer.id).length

const isConnected = (node: PeerProcess.PeerProcess, peer: PeerProcess.PeerProcess) =>
  Effect.map(
    node.ask({ do: "peers" }),
    (peers: ReadonlyArray<{ readonly id: string }>) => peers.some(({ id }) => id === peer.id)
  )

export const link: ReadonlyArray<Scenario> = [
  {
    name: "a connection stands when 30 % of the packets to a peer are lost, and one that is given up comes back",
    seconds: 35,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const host = yield* lab.host("peer")
        const config = { minPeers: 0 }
        const [peer, patient, node] = yield* Effect.all([
          PeerProcess.start(host, { config, health: "patient" }),
          Effect.flatMap(lab.host("patient"), (host) => PeerProcess.start(host, { config, health: "patient" })),
          Effect.flatMap(lab.host("default"), (host) => PeerProcess.start(host, { config }))
        ], { concurrency: 3 })
        for (const { ask, event } of [patient, node]) {
          yield* ask({ do: "keep", target: peer.address })
          yield* event("PeerIdentified", { peer: peer.id, seconds: 30 })
        }
        yield* host.lossy(30)
        yield* exchange(patient, peer, 1024, report)
        // TCP waits twice as long after each loss of the same packet, until a policy that shall notice death within 10
        // s sees no difference.
        yield* report.equal("connections lost by a policy with patience for it", losses(patient, peer), 0)
        yield* report.atMost("connections lost by the default policy", losses(node, peer), 2)
        const now = yield* Clock.currentTimeMillis
        const connected = yield* until("the kept peer is connected", isConnected(node, peer), 40)
        yield* report.within("its kept peer is connected", now, connected, 15)
      })
  },
  {
    name: "a connection stands when every packet takes 300 ms, 600 ms there and back",
    seconds: 30,
    lacks: Cable.lacks,
    run: (report) =>
      Effect.gen(function*() {
        const [node, peer] = yield* across({ delayMillis: 300 })
        const began = yield* Clock.currentTimeMillis
        yield* node.ask({ do: "keep", target: peer.address })
        const { at } = yield* node.event("PeerConnected", { peer: peer.id, seconds: 10 })
        yield* report.within("connected", began, at, 6)
        yield* report.atLeast("ping", yield* node.ask({ do: "ping", peer: peer.id }), 600, "ms")
        yield* exchange(node, peer, 64 * 1024, report)
        yield* report.equal("connections lost", losses(node, peer) + losses(peer, node), 0)
        const unanswered = [...node.happened, ...peer.happened].filter(({ event }) => event._tag === "PeerUnhealthy")
        yield* report.equal("pings that went unanswered", unanswered.length, 0)
      })
  },
  {
    name: "a connection stands while bytes move over a slow link, and the answers to pings wait behind them",
    seconds: 30,
    lacks: Cable.lacks,
    run: (report) =>
      Effect.gen(function*() {
        const [node, peer] = yield* across({ bytesPerSecond: 48 * 1024 })
        yield* node.ask({ do: "keep", target: peer.address })
        yield* node.event("PeerIdentified", { peer: peer.id, seconds: 30 })
        yield* exchange(node, peer, 640 * 1024, report)
        yield* report.equal("connections lost", losses(node, peer) + losses(peer, node), 0)
      })
  }
]
