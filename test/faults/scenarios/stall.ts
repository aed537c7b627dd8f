/**
 * A node that does not run for a while: a long collection of garbage, a laptop that sleeps.
 */
import { Clock, Effect } from "effect"
import * as Lab from "../Lab.ts"
import * as PeerProcess from "../PeerProcess.ts"
import type { Scenario } from "../Scenario.ts"

const stallSeconds = 20

/** Long enough for the default policy to give up every peer that does not answer. */
const afterSeconds = 11

export const stall: ReadonlyArray<Scenario> = [
  {
    name: "a node that did not run for 20 s drops none of its healthy peers when it wakes",
    seconds: 40,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const [node, ...peers] = yield* Effect.forEach(["node", "one", "two", "three"], (name) =>
          Effect.flatMap(lab.host(name), (host) =>
            // The peers are patient, since the node is dead to them meanwhile.
            PeerProcess.start(host, { config: { minPeers: 0 }, ...(name === "node" ? {} : { health: "patient" }) })), {
          concurrency: 2
        })
        if (node === undefined) {
          return
        }
        const [kept, ...wanted] = peers
        yield* node.ask({ do: "keep", target: kept!.address })
        yield* Effect.forEach(wanted, ({ address }) =>
          node.ask({ do: "connect", target: address }))
        yield* Effect.forEach(peers, ({ id }) =>
          node.event("PeerIdentified", { peer: id, seconds: 30 }))
        yield* Effect.sleep("1 second")
        yield* Effect.scoped(Effect.andThen(node.frozen, Effect.sleep(`${stallSeconds} seconds`)))
        const woke = yield* Clock.currentTimeMillis
        const pings = yield* Effect.forEach(peers, ({ id }) =>
          node.ask({ do: "ping", peer: id }), { concurrency: 3 })
        yield* report.atMost("slowest ping after waking", Math.max(...pings), 2000, "ms")
        yield* Effect.sleep(`${afterSeconds} seconds`)
        const left = [node, ...peers].flatMap(({ happened }) => happened).filter(({ at, event }) =>
          event._tag === "PeerDisconnected" && at >= woke
        )
        yield* report.equal("peers that left", left.length, 0)
        const connected: ReadonlyArray<{ readonly connectionDuration: number }> = yield* node.ask({ do: "peers" })
        yield* report.equal("peers", connected.length, 3)
        const youngest = Math.min(...connected.map(({ connectionDuration }) => connectionDuration)) / 1000
        yield* report.atLeast("youngest connection", youngest, stallSeconds + afterSeconds, "s")
      })
  }
]
