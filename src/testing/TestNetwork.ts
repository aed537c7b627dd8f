/**
 * Whole nodes on the simulated network: `Network` as a program uses it, with the real policies over simulated ports.
 *
 * ```ts
 * it.effect("closes a peer after the idle timeout", () =>
 *   Effect.gen(function*() {
 *     const alice = yield* TestNetwork.makeNode("alice")
 *     const bob = yield* TestNetwork.makeNode("bob")
 *     yield* TestNetwork.connected(alice, bob)
 *     yield* TestClock.adjust("5 minutes")
 *     assert.deepStrictEqual(yield* alice.peers, [])
 *   }).pipe(Effect.provide(SimNetwork.layer({ latency: "10 millis" }))))
 * ```
 */
import { Clock, Context, Duration, Effect, Fiber, Layer, Option, type Scope } from "effect"
import { KeyValueStore } from "effect/persistence"
import type { TestClock } from "effect/testing"
import * as BootstrapDiscovery from "../layers/BootstrapDiscovery.ts"
import * as KeyValuePeerStore from "../layers/KeyValuePeerStore.ts"
import * as RememberedPeers from "../layers/RememberedPeers.ts"
import { type Core, Network } from "../Network.ts"
import { type ConnectError, NetworkStartError } from "../schema/NetworkError.ts"
import type { PeerInfo } from "../schema/Peer.ts"
import type { Dht } from "../services/Dht.ts"
import { Discovery } from "../services/Discovery.ts"
import { NetworkConfig, type NetworkConfigInput } from "../services/NetworkConfig.ts"
import type { Transport } from "../services/Transport.ts"
import * as SimDht from "./SimDht.ts"
import * as SimDiscovery from "./SimDiscovery.ts"
import type { SimNetwork } from "./SimNetwork.ts"
import * as SimTransport from "./SimTransport.ts"

/**
 * A node of the given name with all its services, as `Network.layer` gives one on real sockets. Each call is one node.
 *
 * It does not look for others on the local network unless `enableMdns` is true. Its data lives in memory and goes with it. The options
 * that concern sockets and relays have no effect.
 */
export const layer = (
  name: string,
  config: NetworkConfigInput = {}
): Layer.Layer<Core | Dht | Transport | NetworkConfig, NetworkStartError, SimNetwork> => {
  // Read from the bottom: what stands first.
  const node = Layer.mergeAll(
    BootstrapDiscovery.layer,
    RememberedPeers.layer,
    config.enableMdns === true ? SimDiscovery.layer : Layer.empty
  ).pipe(
    Layer.provideMerge(Network.layerCore),
    Layer.provideMerge(SimDht.layer),
    Layer.provideMerge(SimTransport.layer(name)),
    Layer.provide(
      Layer.mergeAll(Discovery.layer, KeyValuePeerStore.layer.pipe(Layer.provide(KeyValueStore.layerMemory)))
    ),
    Layer.provideMerge(NetworkConfig.layer(config)),
    Layer.catch((reason) => Layer.effectContext(Effect.fail(new NetworkStartError({ reason }))))
  )
  // Layers are memoised by reference: without it two nodes would share what they are built of.
  return Layer.effectContext(Layer.build(Layer.fresh(node)))
}

/**
 * A node of the given name, for as long as the scope lives: see {@link layer}.
 */
export const makeNode = (
  name: string,
  config?: NetworkConfigInput
): Effect.Effect<Network["Service"], NetworkStartError, Scope.Scope | SimNetwork> =>
  Effect.map(Layer.build(layer(name, config)), (context) => Context.get(context, Network))

/**
 * Connects one node to another, and returns when both have each other in their tables. Moves a `TestClock` as far as that takes.
 */
export const connected = (
  node: Network["Service"],
  other: Network["Service"]
): Effect.Effect<PeerInfo, ConnectError> =>
  Effect.gen(function*() {
    const addresses = yield* other.addresses
    const info = yield* run(node.connect({ id: other.localPeer, addresses }))
    yield* until(Effect.map(other.peer(node.localPeer), Option.isSome))
    return info
  })

/**
 * Runs an effect to its end, moving a `TestClock` as far as that takes, in steps that begin at 1 ms and grow to 1 s. An effect that has
 * not ended after 5 minutes is interrupted, and a defect.
 */
export const run = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    yield* until(Effect.sync(() => fiber.pollUnsafe() !== undefined)).pipe(Effect.onError(() => Fiber.interrupt(fiber)))
    return yield* Fiber.join(fiber)
  })

/**
 * Waits until a condition holds, moving a `TestClock` as {@link run} does. One that does not hold after 5 minutes is a defect.
 */
export const until = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.gen(function*() {
    const pass = passing(yield* Clock.Clock)
    let waited = 0
    for (let step = 1; !(yield* condition); step = Math.min(step * 2, 1_000)) {
      if (waited > waitMillisMax) return yield* Effect.die(new Error("TestNetwork: not within 5 minutes"))
      yield* pass(Duration.millis(step))
      waited += step
    }
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const waitMillisMax = Duration.toMillis("5 minutes")

const passing = (clock: Clock.Clock): (duration: Duration.Duration) => Effect.Effect<void> => (duration) =>
  isTestClock(clock) ? clock.adjust(duration) : clock.sleep(duration)

const isTestClock = (clock: Clock.Clock): clock is TestClock.TestClock => "adjust" in clock
