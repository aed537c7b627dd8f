/**
 * Runs a scenario on the simulated network, with real nodes in virtual time, and checks every second and after every
 * step that they keep their promises. The same scenario and seed give the same run.
 *
 * ```ts
 * it.effect("survives an hour of faults", () =>
 *   Effect.flatMap(RandomScenario.make(7, { lasts: "1 hour" }), (scenario) => Simulation.run(scenario, { seed: 7 })))
 * ```
 */
import { Cause, Clock, Duration, Effect, Exit, Fiber, Random, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { PeerId } from "../../schema/Peer.ts"
import * as Content from "./Content.ts"
import * as Hosts from "./Hosts.ts"
import * as Invariants from "./Invariants.ts"
import { Journal } from "./Journal.ts"
import * as Scenario from "./Scenario.ts"
import * as SimClock from "../network/SimClock.ts"
import * as SimDisk from "../network/SimDisk.ts"
import { SimNetwork } from "../network/SimNetwork.ts"
import { SimulationFailed } from "./SimulationFailed.ts"
import type * as TestNetwork from "../TestNetwork.ts"

/** How a scenario is played. */
export interface SimulationOptions {
  /** The seed of all randomness. Defaults to the environment's `CODIO_SIM_SEED`, then to a random one. */
  readonly seed?: string | number | undefined
  /**
   * How long a peer that is out of reach may stay in a table. Defaults to 10 seconds, which is what the default
   * `HealthPolicy` promises.
   */
  readonly healthBound?: Duration.Input | undefined
  /**
   * How long a node may have a peer that does not have the node, while messages pass between them. Defaults to 1 second
   * and the time that three messages take between the two at most, since an admission takes three, and never to more
   * than `healthBound`.
   */
  readonly oneSidedBound?: Duration.Input | undefined
  /**
   * How long a kept peer that can be dialled may be missing. Defaults to what the default `ReconnectPolicy` and
   * `dialTimeout` promise, by how long the peer had been away: from 29 seconds to 85 after half a minute, for the
   * longest step of the backoff and the dials before and after it.
   */
  readonly reconnectBound?: Duration.Input | undefined
  /**
   * What the program does with a node, each time one starts: handlers, streams, checks of its own. Its scope ends with
   * the node.
   */
  readonly application?: ((node: TestNetwork.TestNode) => Effect.Effect<void, never, Scope.Scope>) | undefined
  /** Promises of the program, checked beside those of the library. */
  readonly invariants?: ReadonlyArray<OwnInvariant> | undefined
  /** What the program does at given times, besides the steps of the scenario. */
  readonly steps?: ReadonlyArray<OwnStep> | undefined
}

/** The nodes that run at one moment, by name. */
export type RunningNodes = ReadonlyMap<string, TestNetwork.TestNode>

/** A promise of the program that is simulated. */
export interface OwnInvariant {
  readonly name: string
  /**
   * When it is checked. `each second`, and after every step. `after healing`: the same, from `reconnectBound` after the
   * last step on (85 seconds by default), when all that was broken has had its time to mend. `at the end`: once, before
   * the nodes are stopped.
   * Defaults to `each second`.
   */
  readonly when?: "each second" | "after healing" | "at the end" | undefined
  /**
   * Answers with what is wrong, or undefined. A defect is wrong, too. No time passes meanwhile, so it may read and not
   * wait: what has not answered at once is wrong.
   */
  readonly check: (nodes: RunningNodes) => Effect.Effect<string | undefined>
}

/** Something that the program does at one moment of a simulation. */
export interface OwnStep {
  readonly at: Duration.Input
  /** What the trace calls it. */
  readonly name: string
  /**
   * Runs beside the simulation, so it may wait. A failure or a defect breaks the run, and the simulation's end
   * interrupts it.
   */
  readonly run: (nodes: RunningNodes) => Effect.Effect<void, unknown, Scope.Scope>
}

/** The outcome of a run in which every promise was kept. */
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
 * (`one-sided`), a peer that is blocked and connected (`blocked`), a kept peer that could be dialled and has been
 * missing longer than `reconnectBound` (`kept`), a provided key, a value or a stream that does not work at the end
 * between nodes that are connected (`provided`, `stored`, `echo`), a node that did not end within 10 s of its stop,
 * or left a fiber
 * (`fibers`), a fiber of a node or of its application that ended with a defect (`application`), a step of the program
 * that failed (`step`), and an invariant of the program (`own`).
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
      // Each run has a network of its own.
      { local: true }
    )
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const tickMillis = 1_000
const lossMax = 0.1
/** The longest step of the backoff is 72 s, and the dial that follows may take 13 s where messages are late. */
const longestMissing = Duration.seconds(85)
const dialMillis = 13_000
/** The dial under way when the peer can be reached again fails after `dialTimeout`. */
const dialTimeoutMillis = 10_000

/** The bounds of the library's promises that were given, or those of the default policies. */
const boundsOf = ({ healthBound = "10 seconds", oneSidedBound, reconnectBound }: SimulationOptions, {
  slowest
}: SimNetwork["Service"]): Omit<Invariants.InvariantOptions, "canDial"> => {
  const health = Duration.fromInputUnsafe(healthBound)
  return {
    healthBound: health,
    oneSidedMillisMax: ({ name }, other) =>
      oneSidedBound === undefined
        ? Math.min(Duration.toMillis(health), 1_000 + Duration.toMillis(slowest(name, other.name, 3)))
        : Duration.toMillis(Duration.fromInputUnsafe(oneSidedBound)),
    // The waits double, each 80 to 120 % of that: the next is at most 1.5 times the sum of those before it, and 1.2 s.
    missingMillisMax: (awayMillis) =>
      reconnectBound === undefined
        ? Math.min(Duration.toMillis(longestMissing), 1.5 * (awayMillis + dialTimeoutMillis) + 1_200 + dialMillis)
        : Duration.toMillis(Duration.fromInputUnsafe(reconnectBound))
  }
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
  const names = new Map(scenario.nodes.map(({ name }): [string, string] => [SimNetwork.peerId(name), name]))
  const journal = new Journal(names)
  let last = ""
  let broken: Invariants.Broken | undefined
  const hosts = yield* Hosts.make({
    scenario,
    journal,
    application: Content.applicationOf(scenario, options.application),
    hasDied: ({ name }, cause) => {
      const detail = `a fiber of ${name} ended with a defect: ${Cause.pretty(cause)}`
      broken ??= { invariant: "application", detail, nodes: [name] }
    },
    wasSentAway: ({ name }, by) => invariants.excuse(name, names.get(by)),
    isOver: ({ name }, size, maxPeers) => {
      broken ??= { invariant: "limit", detail: `${name} has ${size} peers of ${maxPeers}`, nodes: [name] }
    }
  })
  const lossy = new Set<string>()
  const hasMoved = (name: string) => network.machine(name).address !== name
  const invariants = Invariants.make({
    ...boundsOf(options, network),
    canDial: (from, to) =>
      network.reaches(from.peer, to.peer) && network.reaches(to.peer, from.peer) &&
      network.isExposed(from.peer, to.peer) &&
      // A node that has moved is found by the nodes that hear of it.
      (!hasMoved(to.name) || scenario.options?.enableMdns === true) &&
      !lossy.has(pair(from.name, to.name))
  })
  const content = Content.make(hosts, network.neighbours)
  const perform = performer({ network, hosts, invariants, lossy, content })

  const own = ownPromises({ ...options, scenario }, hosts.running)
  const check = Effect.fnUntraced(function*(isEnd = false) {
    const views: Array<Invariants.NodeView> = []
    for (const self of hosts.all) {
      if (self.running !== undefined) views.push(yield* viewOf(network, hosts, self, self.running))
      const overdue = yield* hosts.overdue(self)
      if (overdue !== undefined) broken ??= { invariant: "fibers", detail: overdue, nodes: [self.name] }
    }
    broken ??= invariants.look(now(), views)
    broken ??= yield* own.look(now(), isEnd)
    if (broken === undefined) return
    const { detail, invariant, nodes } = broken
    return yield* new SimulationFailed({
      invariant,
      detail,
      at: Duration.millis(now()),
      step: last,
      seed: network.seed,
      trace: journal.of(nodes)
    })
  })
  const passTo = Effect.fnUntraced(function*(time: number) {
    while (now() < time) {
      const tick = (Math.floor(now() / tickMillis) + 1) * tickMillis
      yield* TestClock.adjust(Math.min(tick, time) - now())
      yield* check()
    }
  })

  const played = Effect.gen(function*() {
    for (const { between, ...link } of scenario.links ?? []) yield* network.link(...between, link)
    const nats = Map.groupBy(scenario.nodes.filter(({ nat }) => nat !== undefined), ({ nat }) => nat)
    for (const nodes of nats.values()) yield* network.nat(nodes.map(({ name }) => name))
    for (const [keeper, other] of Scenario.pairsOf(scenario, () => random.nextDoubleUnsafe())) {
      hosts.named(keeper).keeps.add(hosts.named(other).name)
    }
    for (const self of hosts.all) yield* hosts.launch(self)
    const stepScope = yield* Scope.fork(yield* Effect.scope)
    const steps = [
      ...scenario.steps.map((step) => ({
        at: step.at,
        text: texts.get(step) ?? "",
        run: Effect.suspend(() => perform(step))
      })),
      ...own.stepsIn(stepScope)
    ]
    // The sort is stable: of steps at the same time those of the scenario come first.
    for (const { at, run, text } of steps.sort((a, b) => Duration.Order(a.at, b.at))) {
      yield* passTo(Math.min(Duration.toMillis(at), Duration.toMillis(scenario.lasts)))
      last = text
      journal.begins(now(), text)
      yield* run
      yield* TestClock.adjust(0)
      yield* check()
    }
    yield* passTo(Duration.toMillis(scenario.lasts))
    yield* check(true)
    broken ??= yield* content.settle(passTo(now() + Content.contentMillisMax))
    yield* check()
    yield* Scope.close(stepScope, Exit.void)
    yield* Effect.forEach(hosts.all, hosts.end, { discard: true })
    yield* passTo(now() + Hosts.stopMillisMax + 2 * tickMillis)
  })
  yield* Effect.scoped(played).pipe(
    // Without their network nodes end at once, except for time that they wait out.
    Effect.onError(() =>
      Effect.forEach(hosts.all, ({ name }) => network.kill(name)).pipe(
        Effect.andThen(Effect.forEach(hosts.all, hosts.end)),
        Effect.andThen(TestClock.adjust("1 minute"))
      )
    )
  )
  const wakes = SimClock.isSimClock(clock) ? clock.wakes : 0
  const { digest, size: events } = journal
  return { seed: network.seed, lasted: Duration.millis(now()), wakes, events, digest }
})

/** The invariants and the steps of the program that is simulated. */
function ownPromises(
  { invariants = [], reconnectBound = longestMissing, scenario, steps = [] }: SimulationOptions & {
    readonly scenario: Scenario.Scenario
  },
  nodes: () => RunningNodes
) {
  let failed: Invariants.Broken | undefined
  const times = [...scenario.steps, ...steps].map(({ at }) => Duration.toMillis(Duration.fromInputUnsafe(at)))
  const healedMillis = Math.max(0, ...times) + Duration.toMillis(Duration.fromInputUnsafe(reconnectBound))
  const isDue = (when: OwnInvariant["when"], now: number, isEnd: boolean) =>
    when === "at the end" ? isEnd : when !== "after healing" || now >= healedMillis
  const broken = (invariant: "own" | "step", name: string, detail: string): Invariants.Broken => ({
    invariant,
    detail: `${name}: ${detail}`,
    nodes: [...nodes().keys()]
  })

  return {
    /** The first own promise that is broken, or the own step that has failed. */
    look: Effect.fnUntraced(function*(now: number, isEnd: boolean) {
      for (const { check, name, when } of invariants) {
        if (failed !== undefined) return failed
        if (!isDue(when, now, isEnd)) continue
        const fiber = yield* Effect.forkChild(check(nodes()), { startImmediately: true })
        // What follows without a timer happens now.
        if (fiber.pollUnsafe() === undefined) yield* TestClock.adjust(0)
        const exit = fiber.pollUnsafe()
        if (exit === undefined) {
          yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
          failed = broken("own", name, "it waits for something, where it may only read")
        } else if (Exit.isFailure(exit)) failed = broken("own", name, Cause.pretty(exit.cause))
        else if (exit.value !== undefined) failed = broken("own", name, exit.value)
      }
      return failed
    }),
    stepsIn: (scope: Scope.Scope) =>
      steps.map(({ at, name, run }) => ({
        at: Duration.fromInputUnsafe(at),
        text: name,
        run: Effect.suspend(() => run(nodes())).pipe(
          Effect.scoped,
          Effect.onExit((exit) =>
            Effect.sync(() => {
              if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) {
                failed ??= broken("step", name, Cause.pretty(exit.cause))
              }
            })
          ),
          Effect.exit,
          Effect.forkIn(scope, { startImmediately: true })
        )
      }))
  }
}

/** Performs the steps of a scenario. `lossy` holds the pairs of nodes whose link loses too much for a dial. */
function performer({ content, hosts, invariants, lossy, network }: {
  readonly content: ReturnType<typeof Content.make>
  readonly network: SimNetwork["Service"]
  readonly hosts: Hosts.Hosts
  readonly invariants: ReturnType<typeof Invariants.make>
  readonly lossy: Set<string>
}): (step: Scenario.Step) => Effect.Effect<unknown, never, Scope.Scope | SimNetwork> {
  return (step) => {
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
        if (step.do === "jump" && Duration.isGreaterThan(step.lasts, Duration.zero)) invariants.leapt(step.node)
        return network[step.do](step.node, step.lasts)
      case "provide":
      case "put":
      case "echo":
        return content.perform(step)
      case "readdress":
        return network.readdress(step.node, { moves: step.moves })
      case "start": {
        const self = hosts.named(step.node)
        if (self.running !== undefined) return Effect.void
        if (step.disk === false) self.disk = SimDisk.make()
        return hosts.launch(self)
      }
      case "kill":
      case "stop": {
        const self = hosts.named(step.node)
        if (self.running === undefined) return Effect.void
        return Effect.andThen(step.do === "kill" ? network.kill(step.node) : Effect.void, hosts.end(self))
      }
      default: {
        const self = hosts.named(step.node)
        if (step.do === "disconnect" && self.running !== undefined) invariants.excuse(step.node, step.other)
        return hosts.wish(self, hosts.named(step.other), step.do)
      }
    }
  }
}

/** A running node as the invariants look at it. */
const viewOf = Effect.fnUntraced(function*(
  network: SimNetwork["Service"],
  hosts: Hosts.Hosts,
  self: Hosts.Host,
  { blocked, cameAt, maxPeers, table }: Hosts.Running
) {
  const peers = new Map<PeerId, number>()
  for (const { peer } of hosts.all) if (yield* table.has(peer)) peers.set(peer, cameAt.get(peer) ?? 0)
  const kept = new Set<PeerId>()
  for (const name of self.keeps) {
    const other = hosts.named(name)
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
    hears: new Set(network.hears(self.peer)),
    blocked,
    kept
  }
  return seen
})

const pair = (one: string, other: string): string => one < other ? `${one} ${other}` : `${other} ${one}`
