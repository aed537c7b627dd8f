/**
 * Runs a scenario on the simulated network, with real nodes in virtual time, and checks every second and after every
 * step that they keep their promises. The same scenario and seed give the same run.
 *
 * ```ts
 * it.effect("survives an hour of faults", () =>
 *   Effect.flatMap(RandomScenario.make(7, { lasts: "1 hour" }), (scenario) => Simulation.run(scenario, { seed: 7 })))
 * ```
 */
import { Clock, Context, Duration, Effect, Exit, type Fiber, Random, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { type PeerId, withPeer } from "../../schema/Peer.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import * as Invariants from "./Invariants.ts"
import { Journal } from "./Journal.ts"
import * as Scenario from "./Scenario.ts"
import * as SimClock from "../network/SimClock.ts"
import * as SimDisk from "../network/SimDisk.ts"
import { SimNetwork } from "../network/SimNetwork.ts"
import { SimulationFailed } from "./SimulationFailed.ts"
import * as TestNetwork from "../TestNetwork.ts"

/** How a scenario is played. */
export interface SimulationOptions {
  /** Where chance begins. Defaults to the environment's `CODIO_SIM_SEED`, then to a random one. */
  readonly seed?: string | number | undefined
  /**
   * How long a peer that is out of reach may stay in a table. Defaults to 10 seconds, which is what the default
   * `HealthPolicy` promises.
   */
  readonly healthBound?: Duration.Input | undefined
  /**
   * How long a kept peer that can be dialled may be missing. Defaults to 85 seconds: the longest step of the default
   * `ReconnectPolicy`, and the dial that follows.
   */
  readonly reconnectBound?: Duration.Input | undefined
  /**
   * What the program does with a node, each time one starts: handlers, streams, checks of its own. Its scope ends with
   * the node.
   */
  readonly application?: ((node: TestNetwork.TestNode) => Effect.Effect<void, never, Scope.Scope>) | undefined
}

/** What a scenario came to that kept every promise. */
export interface SimulationReport {
  readonly seed: string | number
  readonly lasted: Duration.Duration
  /** How many timers and sleeps ended. */
  readonly wakes: number
  /** How many events the nodes published. */
  readonly events: number
  /** The same for the same events at the same times. */
  readonly digest: string
}

/**
 * Runs a scenario from its start to its end, then stops all nodes.
 *
 * Fails with the first broken promise, `SimulationFailed`: a table over its limit (`limit`), a peer in a table that has
 * been out of reach longer than `healthBound` (`dead`), a peer that does not have the node in its own table for as long
 * (`one-sided`), one that is blocked and connected (`blocked`), a kept peer that could be dialled and has been missing
 * longer than `reconnectBound` (`kept`), and a node that did not end within 10 s of its stop, or left a fiber
 * (`fibers`).
 */
export const run = (
  input: Scenario.ScenarioInput,
  options: SimulationOptions = {}
): Effect.Effect<SimulationReport, SimulationFailed> =>
  Effect.suspend(() => {
    const scenario = Scenario.make(input)
    const texts = new Map(scenario.steps.map((step, index) => [step, JSON.stringify(input.steps[index])]))
    return Effect.provide(
      simulate(scenario, texts, options),
      SimNetwork.layerWithClock({ ...scenario.link, seed: options.seed }),
      // Another run is another network.
      { local: true }
    )
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const tickMillis = 1_000
const stopMillisMax = 10_000
const lossMax = 0.1

/** What is to become of a node, whether it runs or not. */
interface Host {
  readonly name: string
  readonly peer: PeerId
  readonly config: Scenario.Node["options"]
  disk: SimDisk.SimDisk
  readonly keeps: Set<string>
  readonly blocks: Set<string>
  /** Those it disconnected, and has not asked for since. */
  readonly suspended: Set<string>
  running: Running | undefined
  readonly ended: Array<{ readonly node: TestNetwork.TestNode; since: number; readonly stopped: Fiber.Fiber<void> }>
}

interface Running {
  readonly node: TestNetwork.TestNode
  readonly scope: Scope.Closeable
  readonly table: PeerTable["Service"]
  readonly maxPeers: number
  readonly wishes: Map<string, Scope.Closeable>
  /** Where `block` has returned. */
  readonly blocked: Set<PeerId>
}

const simulate = Effect.fnUntraced(function*(
  scenario: Scenario.Scenario,
  texts: ReadonlyMap<Scenario.Step, string>,
  options: SimulationOptions
) {
  const network = yield* SimNetwork
  const clock = yield* Clock.Clock
  const random = yield* Effect.service(Random.Random).pipe(Random.withSeed(`${network.seed} keeps`))
  const now = () => clock.currentTimeMillisUnsafe()
  const enableMdns = scenario.options?.enableMdns ?? false
  const hosts = new Map(scenario.nodes.map(({ name, options: config }): [string, Host] => [name, {
    name,
    peer: SimNetwork.peerId(name),
    config: { ...scenario.options, ...config, enableMdns: config?.enableMdns ?? enableMdns },
    disk: SimDisk.make(),
    keeps: new Set(),
    blocks: new Set(),
    suspended: new Set(),
    running: undefined,
    ended: []
  }]))
  const names = new Map([...hosts.values()].map(({ name, peer }) => [peer as string, name]))
  const host = (name: string) => hosts.get(name) ?? yieldDefect(`the scenario has no node ${name}`)
  const lossy = new Set<string>()
  const journal = new Journal(names)
  let last: Scenario.Step | undefined
  let broken: Invariants.Broken | undefined

  const hasMoved = ({ name }: Host) => network.machine(name).address !== name
  const invariants = Invariants.make({
    healthBound: Duration.fromInputUnsafe(options.healthBound ?? "10 seconds"),
    reconnectBound: Duration.fromInputUnsafe(options.reconnectBound ?? "85 seconds"),
    canDial: (from, to) =>
      network.reaches(from.peer, to.peer) && network.reaches(to.peer, from.peer) &&
      network.isExposed(from.peer, to.peer) &&
      // Whoever has moved is found by whoever hears of it.
      (!hasMoved(host(to.name)) || enableMdns) &&
      !lossy.has(pair(from.name, to.name))
  })

  // ---- wishes

  const wish = (self: Running, effect: Effect.Effect<unknown, unknown>) =>
    Effect.forkIn(Effect.ignore(effect), self.scope, { startImmediately: true })
  const hold = Effect.fnUntraced(
    function*(self: Running, key: string, effect: Effect.Effect<void, unknown, Scope.Scope>) {
      yield* drop(self, key)
      const scope = yield* Scope.fork(self.scope)
      self.wishes.set(key, scope)
      yield* wish(self, Scope.provide(effect, scope))
    }
  )
  const drop = Effect.fnUntraced(function*(self: Running, key: string) {
    const scope = self.wishes.get(key)
    self.wishes.delete(key)
    if (scope !== undefined) yield* wish(self, Scope.close(scope, Exit.void))
  })
  const targetOf = (other: Host) => withPeer(SimNetwork.address(other.name), other.peer)
  const keep = (self: Running, other: Host) => hold(self, `keep ${other.name}`, self.node.network.keep(targetOf(other)))
  const block = (self: Running, other: Host) =>
    hold(
      self,
      `block ${other.name}`,
      Effect.tap(self.node.network.block(other.peer), () =>
        Effect.acquireRelease(
          Effect.sync(() => self.blocked.add(other.peer)),
          () => Effect.sync(() => self.blocked.delete(other.peer))
        ))
    )

  // ---- nodes

  const launch = Effect.fnUntraced(function*(self: Host) {
    const scope = yield* Scope.make()
    // Who is stopping has its address still.
    while ((yield* network.nodes).includes(self.peer)) {
      yield* TestClock.adjust("100 millis")
    }
    const node = yield* TestNetwork.start(self.name, self.config, { disk: self.disk }).pipe(
      Scope.provide(scope),
      Effect.orDie
    )
    const table = Context.get(node.untimed, PeerTable)
    const { maxPeers } = Context.get(node.untimed, NetworkConfig)
    const running: Running = { node, scope, table, maxPeers, wishes: new Map(), blocked: new Set() }
    self.running = running
    yield* node.network.events.pipe(
      Stream.runForEach((event) =>
        Effect.suspend(() => {
          journal.add(now(), self.name, event)
          return event._tag === "PeerConnected" ? Effect.flatMap(table.size, atMost(self.name, maxPeers)) : Effect.void
        })
      ),
      Effect.forkIn(scope, { startImmediately: true })
    )
    if (options.application !== undefined) yield* Scope.provide(options.application(node), scope)
    yield* Effect.forEach(self.keeps, (other) => keep(running, host(other)), { discard: true })
    yield* Effect.forEach(self.blocks, (other) => block(running, host(other)), { discard: true })
  })
  const atMost = (name: string, maxPeers: number) => (size: number) =>
    Effect.sync(() => {
      if (size > maxPeers) {
        broken ??= { invariant: "limit", detail: `${name} has ${size} peers of ${maxPeers}`, nodes: [name] }
      }
    })
  const end = Effect.fnUntraced(function*(self: Host, { node, scope }: Running) {
    self.running = undefined
    const stopped = yield* Effect.forkDetach(Scope.close(scope, Exit.void), { startImmediately: true })
    self.ended.push({ node, since: now(), stopped })
  })

  // ---- steps

  const perform = (step: Scenario.Step): Effect.Effect<unknown, never, Scope.Scope | SimNetwork> => {
    switch (step.do) {
      case "partition":
        return network.partition(step.groups)
      case "blackhole":
      case "mute":
        return network[step.do](step.node, step.other)
      case "heal":
        return network.heal
      case "sever":
        return network.sever(step.node, step.other)
      case "link":
        if ((step.link.loss ?? 0) > lossMax) lossy.add(pair(step.node, step.other))
        else lossy.delete(pair(step.node, step.other))
        return network.link(step.node, step.other, { ...step.link, oneWay: step.oneWay })
      case "nat":
        return network.nat(step.nodes)
      case "expose":
        return network.expose(step.node)
      case "stall":
      case "sleep":
      case "jump":
        if (step.do === "jump") invariants.leapt(step.node)
        return network[step.do](step.node, step.lasts)
      case "readdress":
        return network.readdress(step.node, { moves: step.moves })
      case "start": {
        const self = host(step.node)
        if (self.running !== undefined) return Effect.void
        if (step.disk === false) self.disk = SimDisk.make()
        return launch(self)
      }
      case "kill":
      case "stop": {
        const self = host(step.node)
        const { running } = self
        if (running === undefined) return Effect.void
        const kill = step.do === "kill" ? network.kill(step.node) : Effect.void
        return Effect.andThen(kill, end(self, running))
      }
      default:
        return wishes(host(step.node), host(step.other), step.do)
    }
  }
  const wishes = (self: Host, other: Host, what: (Scenario.Step & { readonly other: string })["do"]) => {
    const { running } = self
    if (running === undefined) return Effect.void
    const { network: own } = running.node
    switch (what) {
      case "connect":
        self.suspended.delete(other.name)
        return wish(running, own.connect(targetOf(other)))
      case "keep":
        self.keeps.add(other.name)
        self.suspended.delete(other.name)
        return keep(running, other)
      case "release":
        self.keeps.delete(other.name)
        return drop(running, `keep ${other.name}`)
      case "disconnect":
        self.suspended.add(other.name)
        invariants.excuse(self.name, other.name)
        return wish(running, own.disconnect(other.peer))
      case "block":
        self.blocks.add(other.name)
        return block(running, other)
      default:
        self.blocks.delete(other.name)
        return drop(running, `block ${other.name}`)
    }
  }

  // ---- checks

  const view = Effect.fnUntraced(function*(self: Host, { blocked, maxPeers, table }: Running) {
    const peers = new Set<PeerId>()
    for (const other of hosts.values()) if (yield* table.has(other.peer)) peers.add(other.peer)
    const kept = new Set<PeerId>()
    for (const name of self.keeps) {
      const other = host(name)
      const isFree = !self.suspended.has(name) && !self.blocks.has(name) && !other.blocks.has(self.name)
      if (isFree && other.running?.blocked.has(self.peer) !== true) kept.add(other.peer)
    }
    const seen: Invariants.NodeView = {
      name: self.name,
      peer: self.peer,
      isAwake: network.machine(self.name).isRunning,
      size: yield* table.size,
      maxPeers,
      peers,
      neighbours: new Set(network.neighbours(self.peer)),
      blocked,
      kept
    }
    return seen
  })
  const check = Effect.gen(function*() {
    const views: Array<Invariants.NodeView> = []
    for (const self of hosts.values()) {
      if (self.running !== undefined) views.push(yield* view(self, self.running))
      for (const ended of [...self.ended]) {
        const fibers = yield* ended.node.fibers
        const isOver = ended.stopped.pollUnsafe() !== undefined && fibers === 0
        if (isOver) self.ended.splice(self.ended.indexOf(ended), 1)
        else if (!network.machine(self.name).isRunning) ended.since = now()
        else if (now() - ended.since > stopMillisMax) {
          const detail = `${self.name} ended 10 s ago, and has ${fibers} fibers`
          broken ??= { invariant: "fibers", detail, nodes: [self.name] }
        }
      }
    }
    broken ??= invariants.look(now(), views)
    if (broken === undefined) return
    const { detail, invariant, nodes } = broken
    return yield* new SimulationFailed({
      invariant,
      detail,
      at: Duration.millis(now()),
      step: last === undefined ? "" : texts.get(last) ?? "",
      seed: network.seed,
      trace: journal.of(nodes)
    })
  })
  const passTo = Effect.fnUntraced(function*(time: number) {
    while (now() < time) {
      const tick = (Math.floor(now() / tickMillis) + 1) * tickMillis
      yield* TestClock.adjust(Math.min(tick, time) - now())
      yield* check
    }
  })

  // ---- the run

  const played = Effect.gen(function*() {
    for (const { between, ...link } of scenario.links ?? []) yield* network.link(...between, link)
    const nats = Map.groupBy(scenario.nodes.filter(({ nat }) => nat !== undefined), ({ nat }) => nat)
    for (const nodes of nats.values()) yield* network.nat(nodes.map(({ name }) => name))
    for (const [keeper, other] of Scenario.pairsOf(scenario, () => random.nextDoubleUnsafe())) {
      host(keeper).keeps.add(host(other).name)
    }
    for (const self of hosts.values()) yield* launch(self)
    for (const step of [...scenario.steps].sort((a, b) => Duration.Order(a.at, b.at))) {
      yield* passTo(Math.min(Duration.toMillis(step.at), Duration.toMillis(scenario.lasts)))
      last = step
      yield* perform(step)
      yield* TestClock.adjust(0)
      yield* check
    }
    yield* passTo(Duration.toMillis(scenario.lasts))
    for (const self of hosts.values()) if (self.running !== undefined) yield* end(self, self.running)
    yield* passTo(now() + stopMillisMax + 2 * tickMillis)
  })
  yield* Effect.scoped(played).pipe(
    // With their network gone nodes end at once, but for what they wait for.
    Effect.onError(() =>
      Effect.gen(function*() {
        for (const self of hosts.values()) {
          yield* network.kill(self.name)
          if (self.running !== undefined) yield* end(self, self.running)
        }
        yield* TestClock.adjust("1 minute")
      })
    )
  )
  const report: SimulationReport = {
    seed: network.seed,
    lasted: Duration.millis(now()),
    wakes: SimClock.isSimClock(clock) ? clock.wakes : 0,
    events: journal.size,
    digest: journal.digest
  }
  return report
})

const pair = (one: string, other: string): string => one < other ? `${one} ${other}` : `${other} ${one}`

const yieldDefect = (problem: string): never => {
  throw new Error(problem)
}
