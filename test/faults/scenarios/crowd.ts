/**
 * Strangers that come in numbers, and take what they are given.
 */
import { Clock, Effect } from "effect"
import type { Happened } from "../commands.ts"
import * as Lab from "../Lab.ts"
import * as PeerProcess from "../PeerProcess.ts"
import type { Scenario } from "../Scenario.ts"

const slots = 50
const strangers = 200
const processes = 4

/** Dials of strangers in flight: as many as two cores can do in the time that a dial may take. */
const handshakes = 24

export const crowd: ReadonlyArray<Scenario> = [
  {
    name: "200 strangers at a node of 50 slots: never more than 50 peers, and the rest are refused",
    seconds: 50,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const node = yield* PeerProcess.start(yield* lab.host("node"), { config: { maxPeers: slots } })
        const friend = yield* PeerProcess.start(yield* lab.host("friend"), {
          health: "patient",
          config: { minPeers: 0 }
        })
        yield* friend.ask({ do: "keep", target: node.address })
        yield* friend.event("PeerIdentified", { peer: node.id, seconds: 30 })
        const crowds = yield* Effect.forEach(
          Array.from({ length: processes }, (_, index) => index),
          (index) =>
            Effect.flatMap(lab.host(`crowd${index}`), (host) =>
              PeerProcess.start(host, {
                nodes: strangers / processes,
                // Their connections are with strangers as well.
                config: { minPeers: 0, enableRelay: false, kadProtocol: `/crowd${index}/kad/1.0.0` }
              })),
          { concurrency: 2 }
        )

        const slowest = { ping: 0, answer: 0 }
        const began = yield* Clock.currentTimeMillis
        const outcomes: ReadonlyArray<string> = yield* Effect.raceFirst(
          Effect.map(
            Effect.forEach(
              crowds,
              (crowd) => crowd.ask({ do: "crowd", target: node.address, concurrency: handshakes / processes }),
              { concurrency: processes }
            ),
            (each) => each.flat()
          ),
          Effect.forever(Effect.gen(function*() {
            slowest.ping = Math.max(slowest.ping, yield* friend.ask({ do: "ping", peer: node.id }))
            const asked = yield* Clock.currentTimeMillis
            yield* node.ask({ do: "peers" })
            slowest.answer = Math.max(slowest.answer, (yield* Clock.currentTimeMillis) - asked)
            yield* Effect.sleep("20 millis")
          }))
        )
        yield* report.within("all of them answered", began, yield* Clock.currentTimeMillis, 60)
        const count = (outcome: string) => outcomes.filter((each) => each === outcome).length
        yield* report.equal("connected", count("connected"), slots - 1)
        yield* report.equal("refused", count("DialError.Refused"), strangers - slots + 1)
        yield* report.atMost("peers at the fullest moment", fullest(node.happened), slots)
        yield* report.equal("peers at the end", (yield* node.ask({ do: "peers" })).length, slots)
        yield* report.atMost("slowest ping of a friend meanwhile", slowest.ping, 3000, "ms")
        yield* report.atMost("slowest answer of the node meanwhile", slowest.answer, 3000, "ms")
      })
  }
]

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How many peers a node had at most, as its own events tell it. */
function fullest(happened: ReadonlyArray<Happened>): number {
  let peers = 0
  let most = 0
  for (const { event } of happened) {
    peers += event._tag === "PeerConnected" ? 1 : event._tag === "PeerDisconnected" ? -1 : 0
    most = Math.max(most, peers)
  }
  return most
}
