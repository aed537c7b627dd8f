/**
 * Policies of time are values: how often a lost peer is dialled again, how soon a silent peer is dead, how long a dial
 * may take, how much a lookup may cost, how many relays are used.
 *
 *     node scripts/run.mjs examples/09-reconnect.ts
 *
 * docs/POLICIES.md draws the defaults.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Fiber, Layer, Schedule, Stream } from "effect"
import {
  DialPolicy,
  fastHealthPolicy,
  HealthPolicy,
  KadDhtPolicy,
  Network,
  ReconnectPolicy,
  RelayPolicy
} from "../src/index.ts"

// ReconnectPolicy: three dials of a lost peer, a fifth of a second apart, and thirty of a kept peer.
const reconnect = Layer.succeed(ReconnectPolicy)(({ interest }) =>
  Schedule.spaced("200 millis").pipe(Schedule.upTo({ times: interest === "kept" ? 30 : 3 }))
)

// HealthPolicy: the fast preset, and a third chance.
const health = Layer.succeed(HealthPolicy)({ ...fastHealthPolicy, maxFailures: 3 })

// DialPolicy: all addresses at once, at the price of more sockets.
const dial = Layer.succeed(DialPolicy)({
  order: (candidates) => candidates,
  stagger: 0,
  timeout: "3 seconds",
  parallelDials: 16
})

// KadDhtPolicy: a lookup ends after three seconds or eight providers; all else is as by default.
const dht = Layer.succeed(KadDhtPolicy)({ ...KadDhtPolicy.defaultValue(), findTimeout: "3 seconds", maxProviders: 8 })

// RelayPolicy: three reservations, so that the loss of a relay leaves two.
const relay = Layer.succeed(RelayPolicy)({ ...RelayPolicy.defaultValue(), relays: 3 })

const layer = Network.layer({ enableMdns: false }).pipe(
  Layer.provide(Layer.mergeAll(reconnect, health, dial, dht, relay))
)

const program = Effect.gen(function*() {
  const node = yield* Network
  const gaveUp = yield* node.events.pipe(
    Stream.tap((event) => event._tag === "ReconnectScheduled" ? Console.log(`attempt ${event.attempt}`) : Effect.void),
    Stream.filter((event) => event._tag === "ReconnectFailed"),
    Stream.runHead,
    Effect.forkChild({ startImmediately: true })
  )

  // The remote ends with this scope and does not come back, so the node dials it three times.
  yield* Effect.scoped(Effect.gen(function*() {
    const remote = yield* Network.make({ enableMdns: false })
    yield* node.connect((yield* remote.addresses)[0]!)
    yield* Console.log("connected")
  }))
  yield* Fiber.join(gaveUp)
  yield* Console.log("gave up")
})

program.pipe(Effect.provide(layer), Effect.timeout("30 seconds"), NodeRuntime.runMain)
