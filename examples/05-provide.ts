/**
 * Content routing: two nodes announce that they have something, a third finds them and connects to the first that it
 * finds.
 *
 *     node scripts/run.mjs examples/05-provide.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schedule, Stream } from "effect"
import { ContentKey, Network } from "../src/index.ts"

const program = Effect.gen(function*() {
  const make = Network.make({ enableMdns: false })
  const [seed, alice, bob, carol] = yield* Effect.all([make, make, make, make], { concurrency: 4 })
  // All know the seed alone. The DHT tells them of each other.
  for (const node of [alice, bob, carol]) yield* node.connect((yield* seed.addresses)[0]!)

  const key = ContentKey.fromText("the cat video")
  // Until the scope closes. `startProviding` announces until `stopProviding`, with a `dataDirectory` also after a
  // restart.
  yield* alice.provide(key)
  // Copies of this announcement end ten minutes after bob has crashed, where 24 hours are the default.
  yield* bob.provide(key, { ttl: "10 minutes" })

  const status = yield* alice.provideStatus.pipe(
    Stream.filter(({ announced }) => announced > 0),
    Stream.runHead,
    Effect.flatMap(Effect.fromOption)
  )
  yield* Console.log(`alice has announced ${status.announced} key`)

  // The announcements travel while carol asks, so carol asks until both are known.
  const found = yield* carol.findProviders(key, { maxProviders: 2 }).pipe(
    Stream.runCollect,
    Effect.repeat({ until: (providers) => providers.length === 2, schedule: Schedule.spaced("100 millis") })
  )
  for (const provider of found) yield* Console.log(`carol found ${provider.id}`)

  const { id } = yield* carol.connect(found[0]!)
  yield* Console.log(`carol is connected to ${id === alice.localPeer ? "alice" : "bob"}`)
})

program.pipe(Effect.scoped, Effect.timeout("30 seconds"), NodeRuntime.runMain)
