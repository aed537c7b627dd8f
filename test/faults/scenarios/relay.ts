/**
 * A relay that goes down, between two hosts that only it can bring together.
 */
import { Clock, Effect } from "effect"
import * as Lab from "../Lab.ts"
import * as PeerProcess from "../PeerProcess.ts"
import type { Scenario } from "../Scenario.ts"

export const relay: ReadonlyArray<Scenario> = [
  {
    name: "a relay that was down gives the reservation again, and the peer behind it is reached again",
    seconds: 30,
    run: (report) =>
      Effect.gen(function*() {
        const lab = yield* Lab.make()
        const host = yield* lab.host("relay")
        const [one, other] = yield* Effect.all([lab.host("one"), lab.host("other")])
        yield* one.firewalled
        yield* other.firewalled
        const first = yield* PeerProcess.start(host, { relay: true })
        const listener = yield* PeerProcess.start(one, { config: { relayPeers: [first.address], minPeers: 0 } })
        const node = yield* PeerProcess.start(other, { config: { minPeers: 0 } })
        yield* listener.event("RelayReserved", { peer: first.id, seconds: 30 })
        yield* node.ask({ do: "keep", target: `${first.address}/p2p-circuit/p2p/${listener.id}` })
        yield* node.event("PeerIdentified", { peer: listener.id, seconds: 15 })

        const killed = yield* Clock.currentTimeMillis
        yield* first.kill
        const lost = yield* listener.event("RelayLost", { peer: first.id, since: killed, seconds: 30 })
        yield* report.within("reservation lost", killed, lost.at, 1)
        const gone = yield* node.event("PeerDisconnected", { peer: listener.id, since: killed, seconds: 30 })
        yield* report.within("peer behind it gone", killed, gone.at, 1)
        yield* Effect.sleep("4 seconds")
        yield* PeerProcess.start(host, { relay: true })

        const since = yield* Clock.currentTimeMillis
        const reserved = yield* listener.event("RelayReserved", { peer: first.id, since: lost.at, seconds: 40 })
        const step = listener.backoff(first.id, reserved.at)
        yield* report.within(`reservation given again (backoff ${step.toFixed(1)} s)`, since, reserved.at, step + 2)
        const back = yield* node.event("PeerConnected", { peer: listener.id, since: gone.at, seconds: 40 })
        const own = node.backoff(listener.id, back.at)
        // A dial that is under way when the reservation is given waits 5 s for the addresses behind the firewall; the
        // next one succeeds.
        yield* report.within(`peer behind it back (backoff ${own.toFixed(1)} s)`, reserved.at, back.at, 5 + own + 2)
        const peers: ReadonlyArray<{ readonly id: string; readonly path: string }> = yield* node.ask({ do: "peers" })
        yield* report.equal("path", peers.find(({ id }) => id === listener.id)?.path, "Relayed")
        yield* report.equal(
          "bytes there and back",
          yield* node.ask({ do: "echo", peer: listener.id, bytes: 1024 }),
          1024
        )
      })
  }
]
