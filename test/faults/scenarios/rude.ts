/** Remotes that use up resources and never speak. */
import { Clock, Effect } from "effect"
import * as Lab from "../Lab.ts"
import * as PeerProcess from "../PeerProcess.ts"
import { type Scenario, until } from "../Scenario.ts"

/**
 * Inbound handshakes of one host at a time: half of `maxPendingInbound`. Further connections of it are reset at once.
 */
const handshakesMax = 32

/** Inbound streams of one protocol on one connection, beyond which they are reset. */
const streamsMax = 1024

export const rude: ReadonlyArray<Scenario> = [
  {
    name: "a dial of a remote that accepts and never speaks ends in time, and leaves nothing",
    seconds: 15,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const silentHost = yield* lab.host("silent")
        const host = yield* lab.host("node")
        const [silent, node] = yield* Effect.all([
          PeerProcess.start(silentHost, { nodes: 0 }),
          PeerProcess.start(host)
        ], { concurrency: 2 })
        const port = yield* silent.ask({ do: "listenSilently" })
        const began = yield* Clock.currentTimeMillis
        const { reason } = yield* node.refusal({ do: "connect", target: `/ip4/${silentHost.address}/tcp/${port}` })
        yield* report.within("the dial ended", began, yield* Clock.currentTimeMillis, 10.5)
        yield* report.equal("reason", reason, "DialError.DialTimeout")
        yield* until("no connection left", Effect.map(host.connections, (count) => count === 0), 30)
        yield* report.equal("connections left", yield* host.connections, 0)
        yield* report.equal("peers", (yield* node.ask({ do: "peers" })).length, 0)
      })
  },
  {
    name: "inbound connections that never speak take no slots, and are closed",
    seconds: 25,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const nodeHost = yield* lab.host("node")
        const [node, silent, friend] = yield* Effect.all([
          PeerProcess.start(nodeHost, { config: { maxPeers: 10 } }),
          Effect.flatMap(lab.host("silent"), (host) => PeerProcess.start(host, { nodes: 0 })),
          Effect.flatMap(lab.host("friend"), (host) => PeerProcess.start(host, { config: { minPeers: 0 } }))
        ], { concurrency: 3 })
        const began = yield* Clock.currentTimeMillis
        // To its dialler a connection that is reset may look as if it had never been made.
        const made = yield* silent.ask({
          do: "connectSilently",
          host: nodeHost.address,
          port: PeerProcess.port,
          count: 60
        })
        yield* report.atLeast("silent connections made", made, handshakesMax)
        const asked = yield* Clock.currentTimeMillis
        yield* friend.ask({ do: "connect", target: node.address })
        yield* report.within("a friend connects meanwhile", asked, yield* Clock.currentTimeMillis, 3)
        yield* report.equal("peers", (yield* node.ask({ do: "peers" })).length, 1)
        // Further resets may be on their way.
        yield* until(
          "the others are reset",
          Effect.map(silent.ask({ do: "silent" }), (count) => count <= handshakesMax),
          5
        )
        yield* report.equal(
          "silent connections that wait for a handshake",
          yield* silent.ask({ do: "silent" }),
          handshakesMax
        )
        const closed = yield* until(
          "all are closed",
          Effect.map(silent.ask({ do: "silent" }), (count) => count === 0),
          30
        )
        yield* report.within("all of them closed", began, closed, 15)
      })
  },
  {
    name: "a remote that opens thousands of streams gets a bounded number of them, and the others are served",
    seconds: 25,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const [node, rude, friend] = yield* Effect.all([
          Effect.flatMap(lab.host("node"), (host) => PeerProcess.start(host, { config: { minPeers: 0 } })),
          Effect.flatMap(lab.host("rude"), (host) => PeerProcess.start(host, { config: { minPeers: 0 } })),
          Effect.flatMap(lab.host("friend"), (host) => PeerProcess.start(host, { config: { minPeers: 0 } }))
        ], { concurrency: 3 })
        yield* rude.ask({ do: "connect", target: node.address })
        yield* friend.ask({ do: "connect", target: node.address })
        const before = yield* node.ask({ do: "memory" })
        let slowest = 0
        const answered = yield* Effect.raceFirst(
          rude.ask({ do: "flood", peer: node.id, streams: 2500 }),
          Effect.forever(Effect.gen(function*() {
            const asked = yield* Clock.currentTimeMillis
            yield* friend.ask({ do: "echo", peer: node.id, bytes: 64 * 1024 })
            slowest = Math.max(slowest, (yield* Clock.currentTimeMillis) - asked)
          }))
        )
        yield* report.atMost("streams answered at a time", answered, streamsMax)
        yield* report.atLeast("streams answered at a time", answered, 1)
        yield* report.atMost("slowest 64 KiB of a friend meanwhile", slowest, 5000, "ms")
        const grown = ((yield* node.ask({ do: "memory" })) - before) / 2 ** 20
        yield* report.atMost("memory grown", grown, 150, "MiB")
        yield* report.equal(
          "bytes of a friend afterwards",
          yield* friend.ask({
            do: "echo",
            peer: node.id,
            bytes: 64 * 1024
          }),
          64 * 1024
        )
      })
  }
]
