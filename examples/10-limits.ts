/**
 * Who may be connected: options for how many, policies for which.
 *
 *     node scripts/run.mjs examples/10-limits.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { AddressGuard, anyAddress, EvictionPolicy, GuestPolicy, Network, NetworkConfig } from "../src/index.ts"

// Numbers are options. These builders have the names of the Rust crate; { maxPeers: 1, enableMdns: false } says the
// same.
const options = NetworkConfig.make(0, 1).pipe(NetworkConfig.withoutMdns)

// EvictionPolicy: no peer is sent away for another, so a full node refuses every newcomer.
const eviction = Layer.succeed(EvictionPolicy)(() => [])

// GuestPolicy: strangers that keep this node make room for newcomers after an hour, however few they are.
const guests = Layer.succeed(GuestPolicy)({ stay: "1 hour", share: 0 })

// AddressGuard: in a laboratory every address may be dialled, whoever told it.
const guard = Layer.succeed(AddressGuard)(anyAddress)

const program = Effect.gen(function*() {
  const node = yield* Network
  const [first, second] = yield* Effect.all([
    Network.make({ enableMdns: false }),
    Network.make({ enableMdns: false })
  ])

  yield* node.connect((yield* first.addresses)[0]!)
  const { limit, used } = (yield* node.status).slots
  yield* Console.log(`${used} of ${limit} slots in use`)

  // Errors are typed, with what a program needs to decide.
  yield* node.connect((yield* second.addresses)[0]!).pipe(
    Effect.catchTag("PeerLimitExceeded", (error) => Console.log(`full at ${error.limit}: ${error.message}`))
  )
  // The other direction: the remote learns why it was refused.
  yield* second.connect((yield* node.addresses)[0]!).pipe(
    Effect.catchReason("DialError", "Refused", (reason) => Console.log(`refused, because the node is ${reason.why}`))
  )
})

program.pipe(
  Effect.scoped,
  Effect.provide(Network.layer(options).pipe(Layer.provide([eviction, guests, guard]))),
  Effect.timeout("30 seconds"),
  NodeRuntime.runMain
)
