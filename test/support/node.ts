/**
 * A node in a process of its own, for specs that stop or kill it: prints its address and then waits.
 *
 *     node test/support/node.ts '{"enableMdns": false}'
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Network } from "../../src/index.ts"

const program = Effect.gen(function*() {
  const node = yield* Network.make({
    listenAddresses: ["/ip4/127.0.0.1/tcp/0"],
    enableMdns: false,
    ...JSON.parse(process.argv[2] ?? "{}")
  })
  const [address] = yield* node.addresses
  yield* Console.log(address)
  return yield* Effect.never
})

program.pipe(Effect.scoped, NodeRuntime.runMain)
