/**
 * Peers of one network segment find each other by multicast.
 */
import { Effect } from "effect"
import { type Bench, hold } from "../Bench.ts"
import { kinds, type Peer, saw } from "../Peer.ts"

export const mdnsFault =
  "go-libp2p's mDNS reads only answers that carry SRV and A records, and rust-libp2p's carry none, so Go does not see Rust"

export const mdns = (bench: Bench) =>
  Effect.scoped(Effect.gen(function*() {
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
          saw(seer, `${seen.kind} by mDNS`, ({ event, peer }) => event === "mdns" && peer === seen.id).pipe(
            Effect.andThen(hold(true, ""))
          ),
          fault
        )
      }
    }
  })).pipe(Effect.catch((error) => bench.check("mDNS: sees", "ts>ts", Effect.fail(error))))
