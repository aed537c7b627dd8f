/**
 * Starts a node, connects a second one to it, and prints what each knows of the other.
 *
 *     node scripts/run.mjs examples/01-start.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect } from "effect"
import { Network } from "../src/index.ts"

const program = Effect.gen(function*() {
  // A node lives as long as its scope. Port 0 is any free port; mDNS would work as well, see 02-three-peers.ts.
  const [first, second] = yield* Effect.all([
    Network.make({ enableMdns: false }),
    Network.make({ enableMdns: false })
  ], { concurrency: 2 })

  const [address] = yield* first.addresses
  yield* Console.log(`first  ${address}`)

  const info = yield* second.connect(address!)
  yield* Console.log(`second is connected to ${info.id}, which runs ${info.agentVersion}`)
  yield* Console.log(`round trip: ${Duration.toMillis(yield* second.ping(info.id)).toFixed(1)} ms`)

  for (const peer of yield* first.peers) yield* Console.log(`first sees ${peer.id} (${peer.direction})`)
})

// Closing the scope says goodbye to the peers and stops both nodes.
program.pipe(Effect.scoped, NodeRuntime.runMain)
