/**
 * A relay: two nodes meet over it, of which one does not listen and so cannot be dialled.
 *
 *     node scripts/run.mjs examples/08-relay.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Duration, Effect, Layer, Schedule } from "effect"
import { Network } from "../src/index.ts"
import { RelayServer } from "../src/layers/index.ts"

// A relay is a node with one Layer more.
const relayLayer = RelayServer.layer({ maxReservations: 10, durationLimit: "1 minute" }).pipe(
  Layer.provideMerge(Network.layer({ enableMdns: false }))
)

const program = Effect.gen(function*() {
  const relay = Context.get(yield* Layer.build(relayLayer), Network)
  const [address] = yield* relay.addresses
  yield* Console.log(`relay   ${address}`)

  const hidden = yield* Network.make({ enableMdns: false, listenAddresses: [], relayPeers: [address!] })
  // It is reached through the relay as soon as it has a reservation there.
  const [reserved] = yield* Effect.repeat(hidden.addresses, {
    until: (addresses) => addresses.length > 0,
    schedule: Schedule.spaced("100 millis")
  })
  yield* Console.log(`hidden  ${reserved}`)

  const visitor = yield* Network.make({ enableMdns: false })
  const { id } = yield* visitor.connect(reserved!)
  const roundTrip = yield* visitor.ping(id)
  yield* Console.log(`visitor is connected to ${id}, round trip ${Duration.toMillis(roundTrip).toFixed(1)} ms`)
})

program.pipe(Effect.scoped, Effect.timeout("30 seconds"), NodeRuntime.runMain)
