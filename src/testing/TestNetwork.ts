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
import {
  Clock,
  Context,
  Duration,
  Effect,
  Exit,
  Fiber,
  FiberSet,
  Layer,
  Metric,
  Option,
  Predicate,
  Scope,
  Stream
} from "effect"
import type { TestClock } from "effect/testing"
import * as BootstrapDiscovery from "../layers/discovery/BootstrapDiscovery.ts"
import * as BoundedShutdown from "../layers/machine/BoundedShutdown.ts"
import * as Supervised from "../layers/Supervised.ts"
import * as KeyValuePeerStore from "../layers/machine/KeyValuePeerStore.ts"
import * as RememberedPeers from "../layers/discovery/RememberedPeers.ts"
import { type Core, Network } from "../Network.ts"
import { shortened } from "../schema/Canonical.ts"
import { ConfigError, type ConnectError, NetworkStartError } from "../schema/NetworkError.ts"
import type { PeerInfo } from "../schema/Peer.ts"
import { Dht } from "../services/Dht.ts"
import { Discovery } from "../services/Discovery.ts"
import { NetworkConfig, type NetworkConfigInput } from "../services/NetworkConfig.ts"
import { NetworkMonitor } from "../services/NetworkMonitor.ts"
import { PeerStore } from "../services/PeerStore.ts"
import { Transport } from "../services/Transport.ts"
import * as SimDht from "./ports/SimDht.ts"
import * as SimDiscovery from "./ports/SimDiscovery.ts"
import * as SimDisk from "./network/SimDisk.ts"
import type * as SimKad from "./ports/SimKad.ts"
import { SimNetwork } from "./network/SimNetwork.ts"
import * as SimNetworkMonitor from "./ports/SimNetworkMonitor.ts"
import * as SimTransport from "./ports/SimTransport.ts"

/** All services of a simulated node. */
export type TestServices = Core | Dht | Transport | NetworkConfig | NetworkMonitor

/** How a node of the simulated network is made. */
export interface TestNodeOptions {
  /** The disk that the node reads and writes. Defaults to an empty disk, lost with the node. */
  readonly disk?: SimDisk.SimDisk | undefined
  /**
   * The DHT of the node. Defaults to `SimDht.layer`, which costs little; `SimKad.layer()` is Kademlia as in production.
   */
  readonly dht?: Layer.Layer<Dht, never, SimKad.SimKadServices> | undefined
  /** What the node is given in the stead of a port or a store, such as one that breaks. Defaults to the service. */
  readonly through?: (<A extends object>(port: string, service: A) => A) | undefined
}

/** A simulated node: its `Network`, its services and its end. */
export interface TestNode {
  readonly name: string
  readonly network: Network["Service"]
  readonly services: Context.Context<TestServices>
  /**
   * The same services in the time of the caller: cheaper to read a thousand times, and not for operations that wait or
   * fork.
   */
  readonly untimed: Context.Context<TestServices>
  /** Ends the node in order, as the closing of its scope does. */
  readonly stop: Effect.Effect<void>
  /** How many fibers of the node run. */
  readonly fibers: Effect.Effect<number>
  /** Runs an effect in the time of the node's machine, as the node itself runs. */
  readonly within: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/**
 * A node of the given name, for as long as the scope lives, on the machine of that name. Each call is one node.
 *
 * It does not look for others on the local network unless `enableMdns` is true. The options that concern sockets and
 * relays have no effect. `SimNetwork.kill` ends it: its disk holds what was written before the kill.
 */
export const start = Effect.fnUntraced(function*(
  name: string,
  config: NetworkConfigInput = {},
  options: TestNodeOptions = {}
) {
  const problem = typeof name !== "string"
    ? `expected the name of a node, got ${shortened(name)}`
    : !Predicate.isReadonlyObject(options)
    ? `options: expected an object such as { disk: SimDisk.make() }, got ${shortened(options)}`
    : undefined
  if (problem !== undefined) return yield* new NetworkStartError({ reason: new ConfigError({ problems: [problem] }) })
  const { machine: machineOf } = yield* SimNetwork
  const machine = machineOf(name)
  const disk = (options.disk ?? SimDisk.make()).mount()
  const scope = yield* Scope.fork(yield* Effect.scope)
  const stop = Scope.close(scope, Exit.void)
  const run = yield* FiberSet.makeRuntime()
  const killed = () => {
    disk.detach()
    run(stop)
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => machine.onKill.add(killed)),
    () => Effect.sync(() => machine.onKill.delete(killed))
  ).pipe(Scope.provide(scope))

  let fibers = 0
  const outer = yield* Metric.FiberRuntimeMetrics
  const counting: Metric.FiberRuntimeMetricsService = {
    recordFiberStart(context) {
      fibers++
      outer?.recordFiberStart(context)
    },
    recordFiberEnd(context, exit) {
      fibers--
      outer?.recordFiberEnd(context, exit)
    }
  }
  const inTime = <R>(context: Context.Context<R>): Context.Context<R> =>
    context.pipe(
      Context.add(Clock.Clock, machine.clock),
      Context.add(Metric.FiberRuntimeMetrics, counting)
      // Both are references: no layer has to provide them.
    ) as Context.Context<R>
  const within: TestNode["within"] = (effect) => Effect.updateContext(effect, inTime)

  const node = layersOf(name, config, options).pipe(Layer.provide(Layer.succeed(SimDisk.KeyValueStore)(disk.store)))
  // Layers are memoised by reference: without `fresh` two nodes would share their services.
  const built = yield* within(Layer.build(Layer.fresh(node))).pipe(
    Scope.provide(scope),
    Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
  )
  // A test calls the operations of these services from its own fibers, but the operations have to run in the node's
  // time.
  const services = Context.makeUnsafe<TestServices>(
    new Map([...built.mapUnsafe].map(([key, service]) => [key, inTimeOf(service as object, inTime)]))
  ).pipe(Context.add(Clock.Clock, machine.clock))
  const self: TestNode = {
    name,
    network: Context.get(services, Network),
    services,
    untimed: built,
    stop,
    fibers: Effect.sync(() => fibers),
    within
  }
  return self
})

/**
 * A node of the given name with all its services, as `Network.layer` gives one on real sockets: see {@link start}.
 */
export const layer = (
  name: string,
  config?: NetworkConfigInput,
  options?: TestNodeOptions
): Layer.Layer<TestServices, NetworkStartError, SimNetwork> =>
  Layer.effectContext(Effect.map(start(name, config, options), ({ services }) => services))

/**
 * The `Network` of a node of the given name, for as long as the scope lives: see {@link start}.
 */
export const makeNode = (
  name: string,
  config?: NetworkConfigInput,
  options?: TestNodeOptions
): Effect.Effect<Network["Service"], NetworkStartError, Scope.Scope | SimNetwork> =>
  Effect.map(start(name, config, options), ({ network }) => network)

/**
 * Connects one node to another, and returns when both have each other in their tables. Moves a `TestClock` as far as
 * that takes.
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
 * Runs an effect to its end, moving a `TestClock` as far as that takes, in steps that begin at 1 ms and grow to 1 s. An
 * effect that has not ended after 5 minutes is interrupted, and a defect.
 */
export const run = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    yield* until(Effect.sync(() => fiber.pollUnsafe() !== undefined)).pipe(Effect.onError(() => Fiber.interrupt(fiber)))
    return yield* Fiber.join(fiber)
  })

/**
 * Waits until a condition holds, moving a `TestClock` as {@link run} does. A condition that does not hold after 5
 * minutes is a defect.
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

const layersOf = (
  name: string,
  config: NetworkConfigInput,
  { dht = SimDht.layer, through = (_, service) => service }: TestNodeOptions
) => {
  const given = <I, A extends object, E, R>(port: Context.Service<I, A>, layer: Layer.Layer<I, E, R>) =>
    Layer.effect(port, Effect.map(port, (service) => through(port.key, service))).pipe(Layer.provide(layer))
  // To be read from the bottom, where the layers are that need no other.
  return Layer.mergeAll(
    BootstrapDiscovery.layer,
    RememberedPeers.layer,
    // What is no object of options fails where they are decoded.
    Predicate.isReadonlyObject(config) && config.enableMdns === true ? SimDiscovery.layer : Layer.empty
  ).pipe(
    Layer.provideMerge(Network.layerCore),
    Layer.provideMerge(given(Dht, dht)),
    Layer.provideMerge(given(Transport, SimTransport.layer(name))),
    Layer.provideMerge(given(NetworkMonitor, SimNetworkMonitor.layer(name))),
    Layer.provide(Layer.mergeAll(given(Discovery, Discovery.layer), given(PeerStore, KeyValuePeerStore.layer))),
    Layer.provideMerge(BoundedShutdown.layer),
    Layer.provideMerge(Supervised.layer),
    Layer.provideMerge(NetworkConfig.layer(config)),
    Layer.catch((reason) => Layer.effectContext(Effect.fail(new NetworkStartError({ reason }))))
  )
}

type InTime = <R>(context: Context.Context<R>) => Context.Context<R>

function inTimeOf<A extends object>(service: A, inTime: InTime): A {
  const wrap = (value: unknown): unknown => {
    if (Effect.isEffect(value)) return Effect.updateContext(value, inTime)
    if (Stream.isStream(value)) return Stream.updateContext(value, inTime)
    if (typeof value === "function") return (...args: ReadonlyArray<unknown>) => wrap(value(...args))
    return value
  }
  // Every operation keeps its type; only services are added to the context in which it runs.
  return Object.fromEntries(Object.entries(service).map(([name, value]) => [name, wrap(value)])) as A
}
