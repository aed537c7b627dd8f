/**
 * The nodes of a scenario, from one start to the next: what each wishes, keeps on its disk, and whether it runs.
 */
import { Cause, Clock, Context, Effect, Exit, type Fiber, Metric, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { type PeerId, withPeer } from "../../schema/Peer.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import type { Journal } from "./Journal.ts"
import type * as Scenario from "./Scenario.ts"
import * as SimDisk from "../network/SimDisk.ts"
import { SimNetwork } from "../network/SimNetwork.ts"
import * as SimKad from "../ports/SimKad.ts"
import * as TestNetwork from "../TestNetwork.ts"

/** A node of the scenario, whether it runs or not. */
export interface Host {
  readonly name: string
  readonly peer: PeerId
  readonly config: Scenario.Node["options"]
  disk: SimDisk.SimDisk
  readonly keeps: Set<string>
  readonly blocks: Set<string>
  /** The nodes that this one has disconnected, and has not asked for since. */
  readonly suspended: Set<string>
  running: Running | undefined
  /** Its former runs that are not over: a stop takes time, and may leave fibers. */
  readonly ended: Array<{ readonly node: TestNetwork.TestNode; since: number; readonly stopped: Fiber.Fiber<void> }>
}

export interface Running {
  readonly node: TestNetwork.TestNode
  readonly scope: Scope.Closeable
  readonly table: PeerTable["Service"]
  readonly maxPeers: number
  readonly wishes: Map<string, Scope.Closeable>
  /** The peers for which `block` has returned. */
  readonly blocked: Set<PeerId>
  /** When each peer has come last, in milliseconds, whether it is still there or not. */
  readonly cameAt: Map<PeerId, number>
}

/** How long a node may take to end. */
export const stopMillisMax = 10_000

/** What one node may be told to do with another. */
export type Wish = "connect" | "keep" | "release" | "disconnect" | "block" | "unblock"

export interface HostsOptions {
  readonly scenario: Scenario.Scenario
  /** Where the events of all nodes go. */
  readonly journal: Journal
  /** Called when a node has more peers than it may. */
  readonly isOver: (host: Host, size: number, maxPeers: number) => void
  readonly application: ((node: TestNetwork.TestNode) => Effect.Effect<void, never, Scope.Scope>) | undefined
  /** Called when a peer has sent a node away. */
  readonly wasSentAway: (host: Host, by: PeerId) => void
  /** Called when a fiber of a node, or of its application, has ended with a defect. */
  readonly hasDied: (host: Host, cause: Cause.Cause<unknown>) => void
}

/** The nodes of a scenario, none of which runs yet. */
export const make = Effect.fnUntraced(function*(options: HostsOptions) {
  const { application, hasDied, isOver, journal, scenario, wasSentAway } = options
  const network = yield* SimNetwork
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const hosts = new Map(scenario.nodes.map((node) => [node.name, hostOf(node, scenario)]))
  const named = (name: string): Host => {
    const host = hosts.get(name)
    if (host === undefined) throw new Error(`the scenario has no node ${name}`)
    return host
  }

  const dht = scenario.dht === "kad" ? SimKad.layer() : undefined
  const begin = ({ scope }: Running, effect: Effect.Effect<unknown, unknown>) =>
    Effect.forkIn(Effect.ignore(effect), scope, { startImmediately: true })
  const hold = Effect.fnUntraced(
    function*(self: Running, key: string, effect: Effect.Effect<void, unknown, Scope.Scope>) {
      yield* drop(self, key)
      const scope = yield* Scope.fork(self.scope)
      self.wishes.set(key, scope)
      yield* begin(self, Scope.provide(effect, scope))
    }
  )
  const drop = Effect.fnUntraced(function*(self: Running, key: string) {
    const scope = self.wishes.get(key)
    self.wishes.delete(key)
    if (scope !== undefined) yield* begin(self, Scope.close(scope, Exit.void))
  })
  const targetOf = ({ name, peer }: Host) => withPeer(SimNetwork.address(name), peer)
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

  /** Tells a node to do something with another one; a node that does not run hears nothing. */
  const wish = (self: Host, other: Host, what: Wish): Effect.Effect<unknown> => {
    const { running } = self
    if (running === undefined) return Effect.void
    const { network: own } = running.node
    switch (what) {
      case "connect":
        self.suspended.delete(other.name)
        return begin(running, own.connect(targetOf(other)))
      case "keep":
        self.keeps.add(other.name)
        self.suspended.delete(other.name)
        return keep(running, other)
      case "release":
        self.keeps.delete(other.name)
        return drop(running, `keep ${other.name}`)
      case "disconnect":
        self.suspended.add(other.name)
        return begin(running, own.disconnect(other.peer))
      case "block":
        self.blocks.add(other.name)
        return block(running, other)
      case "unblock":
        self.blocks.delete(other.name)
        return drop(running, `block ${other.name}`)
    }
  }

  /** The fibers that this effect begins, and those that they begin in turn, report their defects. */
  const watched = <A, E, R>(self: Host, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.provideService(effect, Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => {},
      recordFiberEnd: (_, exit) => {
        if (Exit.isFailure(exit) && Cause.hasDies(exit.cause)) hasDied(self, exit.cause)
      }
    })

  /** Starts a node, with the wishes that it had before. */
  const launch = Effect.fnUntraced(function*(self: Host) {
    const scope = yield* Scope.make()
    // A node that is stopping still has its address.
    while ((yield* network.nodes).includes(self.peer)) {
      yield* TestClock.adjust("100 millis")
    }
    const node = yield* watched(self, TestNetwork.start(self.name, self.config, { disk: self.disk, dht })).pipe(
      Scope.provide(scope),
      Effect.orDie
    )
    const table = Context.get(node.untimed, PeerTable)
    const { maxPeers } = Context.get(node.untimed, NetworkConfig)
    const running: Running = { node, scope, table, maxPeers, wishes: new Map(), blocked: new Set(), cameAt: new Map() }
    self.running = running
    yield* node.network.events.pipe(
      Stream.runForEach((event) =>
        Effect.suspend(() => {
          journal.add(now(), self.name, event)
          if (event._tag === "PeerDisconnected" && (event.remoteReason ?? "shutdown") !== "shutdown") {
            wasSentAway(self, event.peer)
          }
          if (event._tag !== "PeerConnected") return Effect.void
          running.cameAt.set(event.peer, now())
          return Effect.map(table.size, (size) => size > maxPeers ? isOver(self, size, maxPeers) : undefined)
        })
      ),
      Effect.forkIn(scope, { startImmediately: true })
    )
    if (application !== undefined) {
      const exit = yield* Effect.exit(Scope.provide(watched(self, application(node)), scope))
      if (Exit.isFailure(exit)) hasDied(self, exit.cause)
    }
    yield* Effect.forEach(self.keeps, (other) => keep(running, named(other)), { discard: true })
    yield* Effect.forEach(self.blocks, (other) => block(running, named(other)), { discard: true })
  })

  /** Stops a node, if it runs, without waiting for its end. */
  const end = Effect.fnUntraced(function*(self: Host) {
    if (self.running === undefined) return
    const { node, scope } = self.running
    self.running = undefined
    const stopped = yield* Effect.forkDetach(Scope.close(scope, Exit.void), { startImmediately: true })
    self.ended.push({ node, since: now(), stopped })
  })

  /**
   * Looks at the former runs of a node: none may take too long to end, or leave a fiber. Forgets the runs that are
   * over.
   */
  const overdue = Effect.fnUntraced(function*(self: Host) {
    for (const ended of [...self.ended]) {
      const fibers = yield* ended.node.fibers
      const isOver = ended.stopped.pollUnsafe() !== undefined && fibers === 0
      if (isOver) self.ended.splice(self.ended.indexOf(ended), 1)
      else if (!network.machine(self.name).isRunning) ended.since = now()
      else if (now() - ended.since > stopMillisMax) return `${self.name} ended 10 s ago, and has ${fibers} fibers`
    }
    return undefined
  })

  /** The nodes that run, by name. */
  const running = (): ReadonlyMap<string, TestNetwork.TestNode> =>
    new Map([...hosts.values()].flatMap((self) => self.running === undefined ? [] : [[self.name, self.running.node]]))

  return { all: [...hosts.values()], named, running, begin, wish, launch, end, overdue }
})

export type Hosts = Effect.Success<ReturnType<typeof make>>

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function hostOf({ name, options: config }: Scenario.Node, { options }: Scenario.Scenario): Host {
  return {
    name,
    peer: SimNetwork.peerId(name),
    config: { ...options, ...config, enableMdns: config?.enableMdns ?? options?.enableMdns ?? false },
    disk: SimDisk.make(),
    keeps: new Set(),
    blocks: new Set(),
    suspended: new Set(),
    running: undefined,
    ended: []
  }
}
