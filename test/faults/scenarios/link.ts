/**
 * Links that are bad and not dead.
 */
import { Clock, Effect } from "effect"
import * as Cable from "../Cable.ts"
import * as Lab from "../Lab.ts"
import * as PeerProcess from "../PeerProcess.ts"
import type { Report, Scenario } from "../Scenario.ts"

/** How long the link is bad: three pings of the default policy, and more. */
const badSeconds = 20

/** For so long bytes go there and back, and the connection that stood at the beginning stands at the end. */
const stands = (
  node: PeerProcess.PeerProcess,
  peer: PeerProcess.PeerProcess,
  bytes: number,
  report: Report
) =>
  Effect.gen(function*() {
    const began = yield* Clock.currentTimeMillis
    let moved = 0
    let now = began
    while (now - began < badSeconds * 1000) {
      const echoed: number = yield* node.ask({ do: "echo", peer: peer.id, bytes })
      moved += echoed
      now = yield* Clock.currentTimeMillis
    }
    const happened = [...node.happened, ...peer.happened].filter(({ at }) => at >= began)
    const count = (tag: string) => happened.filter(({ event }) => event._tag === tag).length
    const rate = moved / 1024 / ((now - began) / 1000)
    yield* report.atLeast("there and back", moved / 1024, bytes / 1024, "KiB")
    yield* report.atLeast("in a second", rate, 0.1, "KiB")
    yield* report.equal("peers that left", count("PeerDisconnected"), 0)
    yield* report.atMost("pings that went unanswered", count("PeerUnhealthy"), 20)
  })

const connected = Effect.fnUntraced(function*(delayMillis: number) {
  const lab = yield* Lab.make()
  const host = yield* lab.host("near", delayMillis)
  const [node, peer] = yield* Effect.all([
    PeerProcess.start(host),
    Effect.flatMap(lab.host("far"), (far) => PeerProcess.start(far))
  ], { concurrency: 2 })
  const began = yield* Clock.currentTimeMillis
  yield* node.ask({ do: "keep", target: peer.address })
  const { at } = yield* node.event("PeerConnected", { peer: peer.id, seconds: 10 })
  return { host, node, peer, took: [began, at] as const }
})

export const link: ReadonlyArray<Scenario> = [
  {
    name: "a connection stands when 30 % of the packets are lost in each direction",
    seconds: 30,
    run: (report) =>
      Effect.gen(function*() {
        const { host, node, peer } = yield* connected(0)
        yield* host.lossy(30)
        yield* stands(node, peer, 1024, report)
      })
  },
  {
    name: "a connection stands when every packet takes 300 ms, 600 ms there and back",
    seconds: 30,
    lacks: Cable.lacks,
    run: (report) =>
      Effect.gen(function*() {
        const { node, peer, took } = yield* connected(300)
        yield* report.within("connected", ...took, 6)
        yield* report.atLeast("ping", yield* node.ask({ do: "ping", peer: peer.id }), 600, "ms")
        yield* stands(node, peer, 64 * 1024, report)
      })
  }
]
