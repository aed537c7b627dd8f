/**
 * Small values in the DHT: a signed profile of which the newest wins, and a namespace with rules of its own.
 *
 *     node scripts/run.mjs examples/06-values.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer, Order, Schedule, Schema } from "effect"
import { Network, PublishedValue, ValueNamespace, ValueNamespaces } from "../src/index.ts"

// Of two scores under one name the higher wins. Every node that is to store scores needs the namespace.
const Scores = ValueNamespace.make({
  name: "scores",
  schema: ValueNamespace.fromJson(Schema.Struct({ points: Schema.Int })),
  order: Order.mapInput(Order.Number, ({ points }) => points)
})

const layer = Network.layer({ enableMdns: false }).pipe(Layer.provide(Layer.succeed(ValueNamespaces)([Scores])))
const makeNode = Effect.map(Layer.build(Layer.fresh(layer)), (context) => Context.get(context, Network))

const program = Effect.gen(function*() {
  const [alice, bob] = yield* Effect.all([makeNode, makeNode])
  yield* bob.connect((yield* alice.addresses)[0]!)
  // A node takes part in the DHT shortly after its first connection.
  const soon = Effect.retry(Schedule.spaced("100 millis"))

  const profile = PublishedValue.path(alice.localPeer, "profile")
  yield* alice.putValue(PublishedValue.namespace, profile, { value: new TextEncoder().encode("I am Alice") }).pipe(soon)
  const { publisher, value } = yield* bob.getValue(PublishedValue.namespace, profile).pipe(soon)
  yield* Console.log(`${publisher} says: ${new TextDecoder().decode(value)}`)

  yield* alice.putValue(Scores, "alice", { points: 3 })
  yield* bob.putValue(Scores, "alice", { points: 5 })
  yield* Console.log(`alice has ${(yield* alice.getValue(Scores, "alice")).points} points`)

  // Two nodes cannot store four copies on others.
  yield* alice.putValue(Scores, "alice", { points: 8 }, { quorum: 4 }).pipe(
    Effect.catchReason("DhtError", "QuorumFailed", (_, error) => Console.log(error.message))
  )
})

program.pipe(Effect.scoped, Effect.timeout("30 seconds"), NodeRuntime.runMain)
