/**
 * A node in a process of its own, for specs that stop or kill it: prints its address and then waits.
 *
 *     node test/support/node.ts '{"enableMdns": false}' "1 hour"
 *
 * The second argument, if given, is the time between its pings, and their timeout.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, type Duration, Effect, Schedule } from "effect"
import { HealthPolicy, Network } from "../../src/index.ts"

const patience = process.argv[3] as Duration.Input | undefined

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

program.pipe(
  Effect.scoped,
  patience === undefined
    ? (effect) => effect
    : Effect.provideService(HealthPolicy, { probe: Schedule.spaced(patience), timeout: patience, maxFailures: 2 }),
  NodeRuntime.runMain
)
