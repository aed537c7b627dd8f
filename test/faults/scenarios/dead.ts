/**
 * Peers that die, in the four ways that a node has to tell apart by time alone.
 */
import { Clock, Effect, type Scope } from "effect"
import * as Lab from "../Lab.ts"
import type { Machine } from "../Machine.ts"
import * as PeerProcess from "../PeerProcess.ts"
import type { Report, Scenario } from "../Scenario.ts"

/** A watcher of each preset keeps the same peer. */
interface Watched {
  readonly peer: PeerProcess.PeerProcess
  readonly host: Lab.Host
  readonly watchers: ReadonlyArray<Watcher>
}

interface Watcher {
  readonly name: string
  readonly bound: number
  readonly process: PeerProcess.PeerProcess
}

/** Short, so that a dial without an answer does not hide the length of the backoff. */
const dialSeconds = 3

const watched: Effect.Effect<Watched, never, Machine | Scope.Scope> = Effect.gen(function*() {
  const lab = yield* Lab.make()
  const host = yield* lab.host("peer")
  const config = { dialTimeout: `${dialSeconds} seconds`, minPeers: 0 } as const
  const [peer, patient, fast] = yield* Effect.all([
    PeerProcess.start(host, { config, health: "patient" }),
    Effect.flatMap(lab.host("default"), (host) => PeerProcess.start(host, { config })),
    Effect.flatMap(lab.host("fast"), (host) => PeerProcess.start(host, { config, health: "fast" }))
  ], { concurrency: 3 })
  const watchers: ReadonlyArray<Watcher> = [
    { name: "default", bound: 10, process: patient },
    { name: "fast", bound: 3, process: fast }
  ]
  yield* Effect.forEach(watchers, ({ process }) => process.ask({ do: "keep", target: peer.address }))
  yield* Effect.forEach(watchers, ({ process }) => process.event("PeerIdentified", { peer: peer.id, seconds: 30 }))
  // The first ping comes half a second after the connection.
  yield* Effect.sleep("1 second")
  return { peer, host, watchers }
})

/**
 * Both notice within their bounds, counted from the fault. The latest moment is 0.3 s before the bound, so the time
 * does not count in which the machine did not run the watcher.
 */
const noticed = ({ peer, watchers }: Watched, since: number, report: Report, bounds?: number) =>
  Effect.forEach(watchers, ({ bound, name, process }) =>
    Effect.gen(function*() {
      const before: number = yield* process.ask({ do: "lost" })
      const gone = yield* process.event("PeerDisconnected", { peer: peer.id, since, seconds: bound + 20 })
      const lost = Math.max(0, gone.lost - before)
      const what = `gone (${name}, ${gone.event["reason"]}, without ${
        (lost / 1000).toFixed(2)
      } s that the watcher did not run)`
      yield* report.within(what, since, gone.at - lost, bounds ?? bound)
    }), { concurrency: 2, discard: true })

/** Both have it back: at most the dial that was under way, then one step of the backoff, then a dial. */
const back = ({ peer, watchers }: Watched, since: number, report: Report, after = since) =>
  Effect.forEach(watchers, ({ name, process }) =>
    Effect.gen(function*() {
      const again = yield* process.event("PeerConnected", { peer: peer.id, since: after, seconds: 60 })
      const step = process.backoff(peer.id, again.at)
      yield* report.within(`back (${name}, backoff ${step.toFixed(1)} s)`, since, again.at, dialSeconds + step + 1)
    }), { concurrency: 2, discard: true })

export const dead: ReadonlyArray<Scenario> = [
  {
    name: "a killed peer is gone within a second, and back when it starts again",
    seconds: 10,
    run: (report) =>
      Effect.gen(function*() {
        const all = yield* watched
        const killed = yield* Clock.currentTimeMillis
        yield* all.peer.kill
        yield* noticed(all, killed, report, 1)
        yield* PeerProcess.start(all.host, { health: "patient", config: { minPeers: 0 } })
        // The peer answers a moment before its program reports so.
        yield* back(all, yield* Clock.currentTimeMillis, report, killed)
      })
  },
  {
    name: "a frozen peer is gone within 10 s, 3 s with the fast preset, and back when it wakes",
    seconds: 25,
    run: (report) =>
      Effect.gen(function*() {
        const all = yield* watched
        yield* Effect.scoped(Effect.gen(function*() {
          const began = yield* Clock.currentTimeMillis
          yield* all.peer.frozen
          yield* noticed(all, began, report)
        }))
        yield* back(all, yield* Clock.currentTimeMillis, report)
      })
  },
  {
    name: "a peer whose packets are dropped is gone within 10 s, 3 s with the fast preset, and back when they pass",
    seconds: 25,
    run: (report) =>
      Effect.gen(function*() {
        const all = yield* watched
        yield* Effect.scoped(Effect.gen(function*() {
          const began = yield* Clock.currentTimeMillis
          yield* all.host.silent
          yield* noticed(all, began, report)
        }))
        yield* back(all, yield* Clock.currentTimeMillis, report)
      })
  },
  {
    name: "a peer whose cable is pulled is gone within 10 s, 3 s with the fast preset, and back when it is plugged in",
    seconds: 25,
    run: (report) =>
      Effect.gen(function*() {
        const all = yield* watched
        yield* Effect.scoped(Effect.gen(function*() {
          const began = yield* Clock.currentTimeMillis
          yield* all.host.unplugged
          yield* noticed(all, began, report)
        }))
        yield* back(all, yield* Clock.currentTimeMillis, report)
      })
  }
]
