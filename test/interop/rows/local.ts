/**
 * Peers of one network segment find each other by multicast.
 */
import { Console, Effect } from "effect"
import { multicastProblem } from "../../../src/layers/discovery/MdnsDiscovery.ts"
import { type Bench, hold } from "../Bench.ts"
import type { Fault } from "../Matrix.ts"
import { kinds, type Peer, saw } from "../Peer.ts"

const mdnsFault: Fault = {
  name:
    "go-libp2p's mDNS reads only answers that carry SRV and A records, and rust-libp2p's carry none, so Go does not see Rust",
  shows: /never: go sees rust/
}

export const mdns = (bench: Bench) =>
  Effect.scoped(Effect.gen(function*() {
    const problem = yield* multicastProblem()
    if (problem !== undefined) return yield* Console.log(`left out 9, discovery by mDNS, on this machine: ${problem}`)
    const options = { mdns: true, listen: "/ip4/0.0.0.0/tcp/0" }
    const first: Array<Peer> = []
    const second: Array<Peer> = []
    for (const kind of kinds) first.push(yield* bench.make(kind, options))
    for (const kind of kinds) second.push(yield* bench.make(kind, options))
    for (const seer of first) {
      for (const seen of second) {
        const fault = seer.kind === "go" && seen.kind === "rust" ? mdnsFault : undefined
        yield* bench.check(
          "mDNS: sees",
          `${seer.kind}>${seen.kind}`,
          saw(
            seer,
            `${seen.kind} by mDNS`,
            ({ event, peer }) => event === "mdns" && peer === seen.id,
            0,
            fault === undefined ? undefined : "10 seconds"
          ).pipe(
            Effect.andThen(hold(true, ""))
          ),
          fault
        )
      }
    }
  })).pipe(Effect.catch((error) => bench.check("mDNS: sees", "ts>ts", Effect.fail(error))))
