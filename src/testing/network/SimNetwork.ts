/**
 * The switchboard of the simulated network: it carries the messages between simulated nodes, late, lost or not at all.
 *
 * Several nodes over one `SimNetwork` layer see each other. Time comes from `Clock`, so that a `TestClock` or a
 * `SimClock` drives everything; randomness comes from one seed, so that a run can be repeated. `SimTransport`,
 * `SimDiscovery`, `SimDht` and `SimNetworkMonitor` are the ports over it.
 *
 * Of the links:
 * - `partition`, `blackhole`, `mute`: messages are held back in silence, as by a pulled plug: pings go unanswered,
 *   dials hang, and what was sent arrives after `heal`, as TCP repeats what got lost.
 * - `sever`: the open connections between two nodes break, on both sides at once. Dials work again at once.
 * - `nat`: nodes that can dial out and cannot be dialled from outside, where dials hang.
 *
 * Of the nodes:
 * - `kill`: the node is gone, its connections break, and its address refuses dials until a node of the same name starts
 *   anew.
 * - `stall`, `sleep`: its process, or its machine, does not run for a while. What is sent to it waits; its timers are
 *   late.
 * - `jump`: its wall clock leaps ahead, as after a sleep that takes no time of the others, or is set back.
 * - `readdress`: it is in another network, its connections go dead in silence, and its address may change.
 */
import { Clock, Context, Duration, Effect, Exit, type Fiber, FiberSet, Layer, Random, type Scope } from "effect"
import type { Multiaddr, PeerId } from "../../schema/Peer.ts"
import * as SimClock from "./SimClock.ts"
import {
  type Line,
  type LineEnd,
  type Link,
  lost,
  makeLine,
  sample,
  slowestMillis,
  type Switchboard
} from "./SimLine.ts"
import * as Machine from "./SimMachine.ts"
import { memory, peerIdOf, type SimNode } from "./SimNames.ts"

export type { LineEnd } from "./SimLine.ts"
export type { SimMachine } from "./SimMachine.ts"
export type { SimNode } from "./SimNames.ts"

/** What messages between two nodes take. Changing a link leaves the absent fields as they were. */
export interface SimLinkOptions {
  /** How long a message takes, one way. Defaults to zero: messages arrive without a sleep. */
  readonly latency?: Duration.Input | undefined
  /** Up to this much more, at random. Messages of one connection never overtake each other. Defaults to zero. */
  readonly jitter?: Duration.Input | undefined
  /**
   * The chance, 0 to 1, that a transmission is lost. It is repeated after 200 ms, 400 ms and so on, so that a loss is a
   * delay; after eight in a row the connection breaks. Defaults to 0.
   */
  readonly loss?: number | undefined
  /** Bytes per second in each direction, for all connections between two nodes together. Defaults to no limit. */
  readonly bandwidth?: number | undefined
}

export interface SimNetworkOptions extends SimLinkOptions {
  /**
   * The seed of all randomness. Defaults to the environment's `CODIO_SIM_SEED`, then to a random one, which is printed
   * when the scope fails.
   */
  readonly seed?: string | number | undefined
}

/** The simulated network: its links, its machines and their faults. */
export class SimNetwork extends Context.Service<SimNetwork, {
  /** The seed of this run: the option `seed` or `CODIO_SIM_SEED` repeats it. */
  readonly seed: string | number
  /** The nodes that run now. */
  readonly nodes: Effect.Effect<ReadonlyArray<PeerId>>
  /**
   * Changes what messages between the two take from now on, in both directions, or from the first to the second only.
   */
  readonly link: (
    node: SimNode,
    other: SimNode,
    options: SimLinkOptions & { readonly oneWay?: boolean | undefined }
  ) => Effect.Effect<void>
  /**
   * From now on only nodes of one group hear each other. Nodes that are not named form a group together. Replaces a
   * former partition.
   */
  readonly partition: (groups: ReadonlyArray<ReadonlyArray<SimNode>>) => Effect.Effect<void>
  /** From now on nothing passes between the two, or between the node and all others, in silence. */
  readonly blackhole: (node: SimNode, other?: SimNode) => Effect.Effect<void>
  /** From now on nothing passes from the node to the other, or to all others, in silence. The way back stays open. */
  readonly mute: (node: SimNode, other?: SimNode) => Effect.Effect<void>
  /** Ends every partition, blackhole and mute; messages that were held back arrive. */
  readonly heal: Effect.Effect<void>
  /** Breaks the open connections between two nodes, and messages on the way are lost. They may dial again at once. */
  readonly sever: (node: SimNode, other: SimNode) => Effect.Effect<void>
  /**
   * From now on the nodes are behind one NAT: they reach each other, and all others by dialling out. Dials from outside
   * get no answer.
   */
  readonly nat: (nodes: ReadonlyArray<SimNode>) => Effect.Effect<void>
  /** From now on every node can dial this one. */
  readonly expose: (node: SimNode) => Effect.Effect<void>
  /**
   * Ends a node without a goodbye, as `kill -9` does. Everything that `TestNetwork` made for it ends too: its fibers,
   * and its writes to its disk. A new node of the same name may start.
   */
  readonly kill: (node: SimNode) => Effect.Effect<void>
  /**
   * The process of the node runs nothing for that long, as between SIGSTOP and SIGCONT, then everything at once: first
   * the timers that are late, then what was sent to it meanwhile. Takes effect at once, and does not wait. Only nodes
   * of `TestNetwork` have the time of their machine.
   */
  readonly stall: (node: SimNode, duration: Duration.Input) => Effect.Effect<void>
  /** As `stall`, but of the whole machine: its timers stand still meanwhile, and its wall clock goes on. */
  readonly sleep: (node: SimNode, duration: Duration.Input) => Effect.Effect<void>
  /**
   * The wall clock of the node leaps, and its timers do not. Ahead, that looks like a sleep during which nothing
   * happened elsewhere; by a negative duration, the clock is set back.
   */
  readonly jump: (node: SimNode, duration: Duration.Input) => Effect.Effect<void>
  /**
   * The machine of the node is in another network from now on. Its interfaces have other addresses, and nothing passes
   * over its open connections any more, in silence. It can be dialled where it was, or, if it `moves`, at a new address
   * that nobody knows.
   */
  readonly readdress: (node: SimNode, options?: { readonly moves?: boolean | undefined }) => Effect.Effect<void>

  /** The machine of a node. It exists before the node starts, and after its end. */
  readonly machine: (node: SimNode) => Machine.SimMachine
  /** Adds a node while the scope lives. A second node of the same id is a defect. For implementations of the ports. */
  readonly join: (endpoint: Endpoint) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Begins a connection to the node that listens at an address without peer id, once `prepare` has set what this
   * end does. For implementations of the ports.
   */
  readonly connect: (from: PeerId, address: Multiaddr, prepare: (end: LineEnd) => void) => void
  /** Waits as long as one message takes. For implementations of the ports. */
  readonly delay: Effect.Effect<void>
  /**
   * How long some messages that answer each other take between two nodes at most, in all but one of a million cases, as
   * their links are now.
   */
  readonly slowest: (node: SimNode, other: SimNode, messages: number) => Duration.Duration
  /** Whether messages pass between two running nodes now, from the first to the second. */
  readonly reaches: (from: PeerId, to: PeerId) => boolean
  /** Whether NAT lets a dial from the first node to the second arrive. */
  readonly isExposed: (from: PeerId, to: PeerId) => boolean
  /** The nodes to which a node has an open connection over which messages pass. */
  readonly neighbours: (peer: PeerId) => ReadonlyArray<PeerId>
  /** The nodes of which messages arrive at a node, over a connection that is open at its end. */
  readonly hears: (peer: PeerId) => ReadonlyArray<PeerId>
  /**
   * Calls the listener, while the scope lives, when two nodes have a connection, and after each fault and each `heal`.
   */
  readonly watch: (listener: () => void) => Effect.Effect<void, never, Scope.Scope>
}>()("codio-network/testing/SimNetwork") {
  /**
   * A network. Also provides `Random`, from the same seed, for the jitter of the nodes' schedules and for the program.
   */
  static readonly layer = (options?: SimNetworkOptions): Layer.Layer<SimNetwork> =>
    Layer.effectContext(
      Effect.gen(function*() {
        const network = yield* make(options)
        const random = yield* Effect.service(Random.Random).pipe(Random.withSeed(`${network.seed} nodes`))
        return Context.make(SimNetwork, network).pipe(Context.add(Random.Random, random))
      })
    )

  /** A network, and a `SimClock` that begins at zero: makes long simulations several times as fast. */
  static readonly layerWithClock = (options?: SimNetworkOptions): Layer.Layer<SimNetwork> =>
    SimNetwork.layer(options).pipe(Layer.provideMerge(SimClock.layer))

  /** The peer id of a name, the same in every run. A peer id is its own. */
  static readonly peerId = (node: SimNode): PeerId => peerIdOf(node)

  /** Where a node listens: `/memory/<name>`, without its peer id. The spaces of a name become dashes. */
  static readonly address = (name: string): Multiaddr => `${memory}${name.replaceAll(" ", "-")}` as Multiaddr
}

/** The transport of a node as the switchboard sees it. */
export interface Endpoint {
  readonly peer: PeerId
  /** Where it listens now, without peer id. */
  readonly address: Multiaddr
  /** Called for an inbound connection. `from` cannot be dialled. */
  readonly accept: (end: LineEnd, from: Multiaddr) => void
  /** Called when the node is killed: it may send nothing any more. */
  readonly killed: () => void
}

const make = Effect.fnUntraced(function*(options: SimNetworkOptions = {}) {
  const seed = options.seed ?? process.env["CODIO_SIM_SEED"] ?? Math.abs(yield* Random.nextInt)
  // As a text, since `CODIO_SIM_SEED` is one: the number draws another run.
  const random = yield* Effect.service(Random.Random).pipe(Random.withSeed(`${seed}`))
  const clock = yield* Clock.Clock
  // The console of a test shows nothing, and the seed is needed on the screen.
  yield* Effect.addFinalizer((exit) =>
    Effect.sync(() => {
      if (Exit.isFailure(exit)) globalThis.console.error(`SimNetwork: CODIO_SIM_SEED=${seed} repeats this run`)
    })
  )
  const run = yield* FiberSet.makeRuntime()
  const after: Machine.After = SimClock.isSimClock(clock) ? clock.afterUnsafe : (millis, task) => {
    const fiber: Fiber.Fiber<void> = run(Effect.andThen(clock.sleep(Duration.millis(millis)), Effect.sync(task)))
    return () => fiber.interruptUnsafe()
  }

  const endpoints = new Map<PeerId, Endpoint>()
  const machines = new Map<PeerId, Machine.SimMachine>()
  const owners = new Map<Multiaddr, PeerId>()
  const links = new Map<PeerId, Map<PeerId, Link>>()
  const lines = new Set<Line>()
  const listeners = new Set<() => void>()
  let groups: ReadonlyMap<PeerId, number> | undefined
  const blackholes = new Set<string>()
  const mutes = new Set<string>()
  const nats = new Map<PeerId, number>()
  let natted = 0
  let dials = 0

  const isBlocked = (from: PeerId, to: PeerId): boolean =>
    (groups !== undefined && groups.get(from) !== groups.get(to)) ||
    (blackholes.size > 0 && (blackholes.has(from) || blackholes.has(to) || blackholes.has(pair(from, to)))) ||
    (mutes.size > 0 && (mutes.has(from) || mutes.has(`${from} ${to}`)))

  /** The nodes at the other ends of those lines of a node that count. */
  const across = (
    peer: PeerId,
    counts: (other: PeerId, line: Line, own: Line["near"]) => boolean
  ): ReadonlyArray<PeerId> => {
    const found = new Set<PeerId>()
    for (const line of lines) {
      const [from, to] = line.peers
      if ((from !== peer && to !== peer) || line.isStray) continue
      const [other, own] = from === peer ? [to, line.near] : [from, line.far]
      if (counts(other, line, own)) found.add(other)
    }
    return [...found]
  }

  const isExposed = (from: PeerId, to: PeerId): boolean => !nats.has(to) || nats.get(to) === nats.get(from)

  const machine = (node: SimNode): Machine.SimMachine => {
    const peer = peerIdOf(node)
    const found = machines.get(peer)
    // Until now only the peer id may have been known.
    const isNews = typeof node === "string" && node !== peer && found?.name !== node
    if (found !== undefined && !isNews) return found
    const made = found ?? Machine.make({ name: peer, index: machines.size + 1, base: clock, after })
    if (isNews) made.name = node
    machines.set(peer, made)
    owners.set(SimNetwork.address(made.address), peer)
    return made
  }

  const chance = () => random.nextDoubleUnsafe()
  const untouched: Link = { latencyMillis: 0, jitterMillis: 0, loss: 0, bytesPerMilli: Infinity, busyUntil: 0 }
  const usual = changeLink({ ...untouched }, options)
  const link = (from: PeerId, to: PeerId): Link => {
    let outward = links.get(from)
    if (outward === undefined) links.set(from, outward = new Map())
    let found = outward.get(to)
    if (found === undefined) outward.set(to, found = { ...usual })
    return found
  }

  // Messages that arrive at the same time are delivered one after the other: none is handled in the middle of another.
  const ready: Array<() => void> = []
  let delivering = false
  const deliver = (task: () => void) => {
    ready.push(task)
    if (delivering) return
    delivering = true
    try {
      for (let next = ready.shift(); next !== undefined; next = ready.shift()) next()
    } finally {
      delivering = false
    }
  }

  const notify = () => listeners.forEach((listener) => deliver(listener))

  const board: Switchboard = {
    now: () => clock.currentTimeMillisUnsafe(),
    after,
    chance,
    link,
    machine,
    isBlocked,
    deliver,
    established: notify,
    dropped: (line) => void lines.delete(line)
  }

  const changed = (change: () => void) =>
    Effect.sync(() => {
      change()
      for (const line of [...lines]) line.wake()
      notify()
    })

  const leave = (endpoint: Endpoint, reason: string, remoteReason: string) => {
    if (endpoints.get(endpoint.peer) !== endpoint) return
    endpoints.delete(endpoint.peer)
    for (const line of [...lines]) {
      if (line.peers.includes(endpoint.peer)) line.leave(endpoint.peer, reason, remoteReason)
    }
  }

  const freeze = (node: SimNode, duration: Duration.Input, asleep: boolean) =>
    Effect.sync(() => machine(node).freeze(Duration.toMillis(Duration.fromInputUnsafe(duration)), asleep))

  // The network ends before its nodes, and all connections with it: nodes that stop afterwards wait for nothing, since
  // no virtual time passes any more.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const endpoint of endpoints.values()) endpoint.killed()
      endpoints.clear()
      for (const line of [...lines]) line.cut(lost)
    })
  )

  return SimNetwork.of({
    seed,
    nodes: Effect.sync(() => [...endpoints.keys()]),
    link: (node, other, options) =>
      Effect.sync(() => {
        const [from, to] = [peerIdOf(node), peerIdOf(other)]
        changeLink(link(from, to), options)
        if (options.oneWay !== true) changeLink(link(to, from), options)
      }),
    partition: (next) =>
      changed(() => {
        groups = new Map(next.flatMap((group, index) => group.map((node) => [peerIdOf(node), index] as const)))
      }),
    blackhole: (node, other) =>
      changed(() => blackholes.add(other === undefined ? peerIdOf(node) : pair(peerIdOf(node), peerIdOf(other)))),
    mute: (node, other) =>
      changed(() => mutes.add(other === undefined ? peerIdOf(node) : `${peerIdOf(node)} ${peerIdOf(other)}`)),
    heal: changed(() => {
      groups = undefined
      blackholes.clear()
      mutes.clear()
    }),
    sever: (node, other) =>
      changed(() => {
        const ends = [peerIdOf(node), peerIdOf(other)]
        for (const line of [...lines]) {
          if (line.isEstablished && ends.every((peer) => line.peers.includes(peer))) line.cut(lost)
        }
      }),
    nat: (nodes) =>
      Effect.sync(() => {
        natted++
        for (const node of nodes) nats.set(peerIdOf(node), natted)
      }),
    expose: (node) => Effect.sync(() => void nats.delete(peerIdOf(node))),
    kill: (node) =>
      changed(() => {
        const endpoint = endpoints.get(peerIdOf(node))
        if (endpoint === undefined) return
        endpoint.killed()
        leave(endpoint, "this node was killed", lost)
        const { onKill } = machine(node)
        for (const listener of [...onKill]) listener()
      }),
    stall: (node, duration) => freeze(node, duration, false),
    sleep: (node, duration) => freeze(node, duration, true),
    jump: (node, duration) =>
      Effect.sync(() => machine(node).jump(Duration.toMillis(Duration.fromInputUnsafe(duration)))),
    readdress: (node, { moves = false } = {}) =>
      changed(() => {
        const peer = peerIdOf(node)
        machine(node).readdress(moves)
        owners.set(SimNetwork.address(machine(node).address), peer)
        for (const line of lines) if (line.peers.includes(peer)) line.isStray = true
      }),
    machine,
    join: (endpoint) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          if (endpoints.has(endpoint.peer)) {
            return Effect.die(
              new Error(`SimNetwork: a node of the id ${endpoint.peer} (${endpoint.address}) is already running`)
            )
          }
          endpoints.set(endpoint.peer, endpoint)
          return Effect.void
        }),
        () => Effect.sync(() => leave(endpoint, "this node stopped", "the remote stopped"))
      ),
    connect: (from, address, prepare) => {
      if (address.startsWith(memory) && !owners.has(address)) machine(address.slice(memory.length))
      const to = owners.get(address) ?? peerIdOf(address)
      const line = makeLine(board, from, to)
      lines.add(line)
      prepare(line.near)
      const source = `${endpoints.get(from)?.address ?? "/memory/unknown"}:${++dials}` as Multiaddr
      line.callOut(() => {
        const endpoint = endpoints.get(to)
        // A NAT, and an address that its node has left, do not answer.
        if (endpoint !== undefined && (!isExposed(from, to) || (endpoint.address !== address && owners.has(address)))) {
          return
        }
        if (endpoint === undefined || endpoint.address !== address) line.far.hangUp(`nobody listens at ${address}`)
        else endpoint.accept(line.far, source)
      })
    },
    delay: Effect.suspend(() => {
      const millis = sample(usual, chance) ?? 0
      return millis === 0 ? Effect.void : clock.sleep(Duration.millis(millis))
    }),
    slowest: (node, other, messages) => {
      const [one, two] = [peerIdOf(node), peerIdOf(other)]
      return Duration.millis(
        Math.max(slowestMillis(link(one, two), messages), slowestMillis(link(two, one), messages))
      )
    },
    reaches: (from, to) => endpoints.has(from) && endpoints.has(to) && !isBlocked(from, to),
    isExposed,
    neighbours: (peer) =>
      across(
        peer,
        (other, line) =>
          line.isEstablished && !line.near.isClosed && !line.far.isClosed && !isBlocked(peer, other) &&
          !isBlocked(other, peer)
      ),
    hears: (peer) => across(peer, (other, _, own) => !own.isClosed && !isBlocked(other, peer)),
    watch: (listener) =>
      Effect.acquireRelease(
        Effect.sync(() => void listeners.add(listener)),
        () => Effect.sync(() => void listeners.delete(listener))
      )
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function changeLink(link: Link, { bandwidth, jitter, latency, loss }: SimLinkOptions): Link {
  if (latency !== undefined) link.latencyMillis = Duration.toMillis(Duration.fromInputUnsafe(latency))
  if (jitter !== undefined) link.jitterMillis = Duration.toMillis(Duration.fromInputUnsafe(jitter))
  if (loss !== undefined) link.loss = loss
  if (bandwidth !== undefined) link.bytesPerMilli = bandwidth / 1_000
  return link
}

function pair(one: PeerId, other: PeerId): string {
  return one < other ? `${one} ${other}` : `${other} ${one}`
}
