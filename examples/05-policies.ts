/**
 * Policies are values: how often to dial again, how soon a silent peer is dead, how many peers there may be.
 *
 *     node examples/05-policies.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Fiber, Layer, Schedule, Stream } from "effect"
import {
  AddressGuard,
  anyAddress,
  DialPolicy,
  EvictionPolicy,
  fastHealthPolicy,
  HealthPolicy,
  Network,
  NetworkConfig,
  ReconnectPolicy
} from "../src/index.ts"

// Numbers and flags are options; the builders are those of the Rust crate.
const options = NetworkConfig.make(0, 10).pipe(
  NetworkConfig.withoutMdns,
  NetworkConfig.withKadReplicationFactor(8)
)

// Behaviours are values too, each given by a Layer. docs/POLICIES.md draws their defaults.

// ReconnectPolicy: three dials of a lost peer, a fifth of a second apart, and more of one that is kept.
const reconnect = Layer.succeed(ReconnectPolicy)(({ interest }) =>
  Schedule.spaced("200 millis").pipe(Schedule.upTo({ times: interest === "kept" ? 30 : 3 }))
)

// HealthPolicy: the fast one, and a third chance.
const health = Layer.succeed(HealthPolicy)({ ...fastHealthPolicy, maxFailures: 3 })

// DialPolicy: all addresses at once, for whoever does not mind the sockets.
const dial = Layer.succeed(DialPolicy)({
  order: (candidates) => candidates,
  stagger: 0,
  timeout: "3 seconds",
  parallelDials: 16
})

// EvictionPolicy: nobody is sent away for another, so a full node refuses all.
const eviction = Layer.succeed(EvictionPolicy)(() => [])

// AddressGuard: in a laboratory every address may be dialled, whoever told it.
const guard = Layer.succeed(AddressGuard)(anyAddress)

const policies = Layer.mergeAll(reconnect, health, dial, eviction, guard)

const program = Effect.gen(function*() {
  const node = yield* Network
  const gaveUp = yield* node.events.pipe(
    Stream.tap((event) => event._tag === "ReconnectScheduled" ? Console.log(`attempt ${event.attempt}`) : Effect.void),
    Stream.filter((event) => event._tag === "ReconnectFailed"),
    Stream.runHead,
    Effect.forkChild({ startImmediately: true })
  )

  // Connected, then gone without coming back: the wanted peer is dialled three times.
  yield* Effect.scoped(Effect.gen(function*() {
    const context = yield* Layer.build(Network.layer({ enableMdns: false }))
    const remote = Context.get(context, Network)
    yield* node.connect((yield* remote.addresses)[0]!)
    yield* Console.log(`connected, ${yield* node.peerCount} of 10 slots taken`)
  }))
  yield* Fiber.join(gaveUp)
  yield* Console.log("gave up")

  // Errors are typed, with reasons.
  yield* node.connect("/ip4/127.0.0.1/tcp/1").pipe(
    Effect.catchReason("DialError", "Unreachable", (_, error) => Console.log(error.message))
  )
})

program.pipe(
  Effect.provide(Network.layer(options).pipe(Layer.provide(policies))),
  Effect.timeout("30 seconds"),
  NodeRuntime.runMain
)
