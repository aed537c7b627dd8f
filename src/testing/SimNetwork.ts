/**
 * The switchboard of the simulated network: it carries the messages between simulated nodes, late, lost or not at all.
 *
 * Several nodes over one `SimNetwork` layer see each other. Time comes from `Clock`, so that a `TestClock` drives everything; chance comes
 * from one seed, so that a run can be repeated. `SimTransport`, `SimDiscovery` and `SimDht` are the ports over it.
 *
 * - `partition`, `blackhole`: messages are held back in silence, as by a pulled plug: pings go unanswered, dials hang, and what was sent
 *   arrives after `heal`, as TCP repeats what got lost.
 * - `sever`: the open connections between two nodes break, on both sides at once. Dials work again at once.
 * - `kill`: the node is gone, its connections break, and its address refuses dials until a node of the same name starts anew.
 */
import { Clock, Context, Duration, Effect, Exit, FiberSet, Layer, Random, Schema, type Scope } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { sha256 } from "multiformats/hashes/sha2"
import { type Multiaddr, PeerId, type ProtocolId, type RemoteIdentity } from "../schema/Peer.ts"

export interface SimNetworkOptions {
  /** How long a message takes, one way. Defaults to zero: messages arrive without a sleep. */
  readonly latency?: Duration.Input | undefined
  /** Up to this much more, by chance. Messages of one connection never overtake each other. Defaults to zero. */
  readonly jitter?: Duration.Input | undefined
  /**
   * The chance, 0 to 1, that a transmission is lost. It is repeated after 200 ms, 400 ms and so on, so that a loss is a delay; after eight
   * in a row the connection breaks. Defaults to 0.
   */
  readonly loss?: number | undefined
  /** Where chance begins. Defaults to the environment's `CODIO_SIM_SEED`, then to a random one, which is printed when the scope fails. */
  readonly seed?: string | number | undefined
}

/**
 * A node: by its name, by its peer id, or anything that knows its own peer id, such as a `Network` or a `Transport`.
 */
export type SimNode = string | { readonly localPeer: PeerId }

export class SimNetwork extends Context.Service<SimNetwork, {
  /** What repeats this run, as the option `seed` or in `CODIO_SIM_SEED`. */
  readonly seed: string | number
  /** The nodes that run now. */
  readonly nodes: Effect.Effect<ReadonlyArray<PeerId>>
  /** From now on only nodes of one group hear each other. Nodes that are not named form a group together. Replaces a former partition. */
  readonly partition: (groups: ReadonlyArray<ReadonlyArray<SimNode>>) => Effect.Effect<void>
  /** From now on nothing passes between the two, or between the node and all others, in silence. */
  readonly blackhole: (node: SimNode, other?: SimNode) => Effect.Effect<void>
  /** Ends every partition and blackhole; what was held back arrives. */
  readonly heal: Effect.Effect<void>
  /** Breaks the open connections between two nodes, and what is on the way is lost. They may dial again at once. */
  readonly sever: (node: SimNode, other: SimNode) => Effect.Effect<void>
  /** Ends a node without a goodbye, as `kill -9` does. It does nothing more; a new node of the same name may start. */
  readonly kill: (node: SimNode) => Effect.Effect<void>

  /** Adds a node while the scope lives. A second node of the same id is a defect. For implementations of the ports. */
  readonly join: (endpoint: Endpoint) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Begins a connection to whoever listens at the place, an address without peer id, once `prepare` has set what this end does. For
   * implementations of the ports.
   */
  readonly connect: (from: PeerId, place: Multiaddr, prepare: (end: LineEnd) => void) => void
  /** Waits as long as one message takes. For implementations of the ports. */
  readonly delay: Effect.Effect<void>
  /** Whether messages pass between two running nodes now. */
  readonly reaches: (from: PeerId, to: PeerId) => boolean
  /** The nodes to which a node has an open connection over which messages pass. */
  readonly neighbours: (peer: PeerId) => ReadonlyArray<PeerId>
  /** Calls the listener, while the scope lives, when two nodes have a connection, and after each fault and each `heal`. */
  readonly watch: (listener: () => void) => Effect.Effect<void, never, Scope.Scope>
}>()("codio-network/testing/SimNetwork") {
  /** A network. Provides `Random` too, from the same seed, for the jitter of the nodes' schedules and for the program that it is given to. */
  static readonly layer = (options?: SimNetworkOptions): Layer.Layer<SimNetwork> =>
    Layer.effectContext(
      Effect.gen(function*() {
        const network = yield* make(options)
        const random = yield* Effect.service(Random.Random).pipe(Random.withSeed(`${network.seed} nodes`))
        return Context.make(SimNetwork, network).pipe(Context.add(Random.Random, random))
      })
    )

  /** The peer id of a name: the same in every run. A peer id stands for itself. */
  static readonly peerId = (node: SimNode): PeerId => peerIdOf(node)

  /** Where a node listens: `/memory/<name>`, without its peer id. */
  static readonly place = (name: string): Multiaddr => `/memory/${name}` as Multiaddr
}

/**
 * What a transport brings to the switchboard.
 */
export interface Endpoint {
  readonly peer: PeerId
  /** Where it listens, without peer id. */
  readonly place: Multiaddr
  /** Somebody dials. `from` is no address that can be dialled. */
  readonly accept: (end: LineEnd, from: Multiaddr) => void
  /** The node was killed: nothing may come from it any more. */
  readonly killed: () => void
}

/**
 * One end of a line between two nodes. Messages arrive in order, and before the hang-up that follows them.
 */
export interface LineEnd {
  readonly send: (message: SimMessage) => void
  /** Ends the line; nothing more arrives at this end. */
  readonly hangUp: (reason: string) => void
  /** Tells the switchboard that the two nodes are connected. */
  readonly established: () => void
  onMessage: (message: SimMessage) => void
  /** The other end hung up, or the line broke. Called once, and not after this end has hung up. */
  onHangUp: (reason: string) => void
}

/**
 * What simulated transports say to each other.
 */
export type SimMessage =
  | { readonly _tag: "Hello"; readonly peer: PeerId }
  | { readonly _tag: "Finish"; readonly peer: PeerId; readonly identity: RemoteIdentity }
  | { readonly _tag: "Identify"; readonly identity: RemoteIdentity }
  | { readonly _tag: "Open"; readonly stream: number; readonly protocol: ProtocolId }
  | { readonly _tag: "Accept"; readonly stream: number }
  | { readonly _tag: "Unsupported"; readonly stream: number }
  | { readonly _tag: "Data"; readonly stream: number; readonly bytes: Uint8Array }
  | { readonly _tag: "Credit"; readonly stream: number; readonly bytes: number }
  | { readonly _tag: "End"; readonly stream: number }
  | { readonly _tag: "Reset"; readonly stream: number }
  | { readonly _tag: "Ping"; readonly ping: number }
  | { readonly _tag: "Pong"; readonly ping: number }

export const make = Effect.fnUntraced(function*(options: SimNetworkOptions = {}) {
  const latencyMillis = Duration.toMillis(Duration.fromInputUnsafe(options.latency ?? 0))
  const jitterMillis = Duration.toMillis(Duration.fromInputUnsafe(options.jitter ?? 0))
  const loss = options.loss ?? 0
  const seed = options.seed ?? process.env["CODIO_SIM_SEED"] ?? Math.abs(yield* Random.nextInt)
  const random = yield* Effect.service(Random.Random).pipe(Random.withSeed(seed))
  const clock = yield* Clock.Clock
  // A test's console keeps what it is given to itself, and the seed is needed on the screen.
  yield* Effect.addFinalizer((exit) =>
    Effect.sync(() => {
      if (Exit.isFailure(exit)) globalThis.console.error(`SimNetwork: CODIO_SIM_SEED=${seed} repeats this run`)
    })
  )
  const run = yield* FiberSet.makeRuntime()

  const endpoints = new Map<PeerId, Endpoint>()
  const lines = new Set<Line>()
  const listeners = new Set<() => void>()
  let groups: ReadonlyMap<PeerId, number> | undefined
  const blackholes = new Set<string>()
  let dials = 0

  const isBlocked = (from: PeerId, to: PeerId): boolean =>
    (groups !== undefined && groups.get(from) !== groups.get(to)) ||
    (blackholes.size > 0 && (blackholes.has(from) || blackholes.has(to) || blackholes.has(pair(from, to))))

  /** How long the next message takes; nothing when it never arrives. */
  const sample = (): number | undefined => {
    // Whole milliseconds: clocks do not sleep in smaller steps.
    let millis = Math.round(latencyMillis + (jitterMillis === 0 ? 0 : random.nextDoubleUnsafe() * jitterMillis))
    if (loss > 0) {
      for (let losses = 0; random.nextDoubleUnsafe() < loss; losses++) {
        if (losses === lossesMax) return undefined
        millis += retransmissionMillis * 2 ** losses
      }
    }
    return millis
  }

  // What arrives at once is delivered here, one after the other, so that no message is handled in the middle of another.
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

  const makeLane = (from: PeerId, to: PeerId, broken: () => void): Lane => {
    const waiting: Array<{ readonly at: number; readonly task: () => void }> = []
    let pumping = false
    let last = 0
    const pump = Effect.gen(function*() {
      while (waiting.length > 0 && !isBlocked(from, to)) {
        const wait = waitUntil(waiting[0]!.at, clock.currentTimeMillisUnsafe())
        if (wait > roundingMillis) yield* clock.sleep(Duration.millis(wait))
        const now = clock.currentTimeMillisUnsafe() + roundingMillis
        while (waiting.length > 0 && waiting[0]!.at <= now && !isBlocked(from, to)) deliver(waiting.shift()!.task)
      }
      pumping = false
    })
    const wake = () => {
      if (pumping || waiting.length === 0 || isBlocked(from, to)) return
      pumping = true
      run(pump)
    }
    return {
      wake,
      clear: () => waiting.splice(0),
      send(task) {
        const millis = sample()
        if (millis === undefined) return broken()
        const now = clock.currentTimeMillisUnsafe()
        const at = Math.max(last, now + millis)
        last = at
        if (at <= now && waiting.length === 0 && !isBlocked(from, to)) return deliver(task)
        waiting.push({ at, task })
        wake()
      }
    }
  }

  const makeLine = (from: PeerId, to: PeerId): Line => {
    const makeEnd = (lane: Lane, back: Lane, other: () => End): End => {
      const end: End = {
        isClosed: false,
        onMessage: () => {},
        onHangUp: () => {},
        send(message) {
          if (end.isClosed) return
          lane.send(() => {
            if (!other().isClosed) other().onMessage(message)
          })
        },
        hangUp(reason) {
          if (end.isClosed) return
          end.isClosed = true
          back.clear()
          if (other().isClosed) return drop()
          lane.send(() => {
            if (other().isClosed) return
            other().isClosed = true
            drop()
            other().onHangUp(reason)
          })
        },
        established() {
          line.isEstablished = true
          notify()
        }
      }
      return end
    }
    const drop = () => {
      lines.delete(line)
      outward.clear()
      inward.clear()
    }
    const broken = () => line.cut("the connection broke: too many losses in a row")
    const outward = makeLane(from, to, broken)
    const inward = makeLane(to, from, broken)
    const near: End = makeEnd(outward, inward, () => far)
    const far: End = makeEnd(inward, outward, () => near)
    const line: Line = {
      peers: [from, to],
      near,
      far,
      isEstablished: false,
      callOut: outward.send,
      cut(reason) {
        for (const end of [near, far]) {
          if (end.isClosed) continue
          end.isClosed = true
          deliver(() => end.onHangUp(reason))
        }
        drop()
      },
      leave(peer, reason, remoteReason) {
        const end = peer === from ? near : far
        if (end.isClosed) return
        end.hangUp(remoteReason)
        deliver(() => end.onHangUp(reason))
      },
      wake() {
        outward.wake()
        inward.wake()
      }
    }
    lines.add(line)
    return line
  }

  const notify = () => listeners.forEach((listener) => deliver(listener))

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

  // With the network goes everybody on it, at once: nodes that stop later find no connection, and wait for no virtual time to pass.
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
    partition: (next) =>
      changed(() => {
        groups = new Map(next.flatMap((group, index) => group.map((node) => [peerIdOf(node), index] as const)))
      }),
    blackhole: (node, other) =>
      changed(() => blackholes.add(other === undefined ? peerIdOf(node) : pair(peerIdOf(node), peerIdOf(other)))),
    heal: changed(() => {
      groups = undefined
      blackholes.clear()
    }),
    sever: (node, other) =>
      changed(() => {
        const ends = [peerIdOf(node), peerIdOf(other)]
        for (const line of [...lines]) {
          if (line.isEstablished && ends.every((peer) => line.peers.includes(peer))) line.cut(lost)
        }
      }),
    kill: (node) =>
      changed(() => {
        const endpoint = endpoints.get(peerIdOf(node))
        if (endpoint === undefined) return
        endpoint.killed()
        leave(endpoint, "this node was killed", lost)
      }),
    join: (endpoint) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          if (endpoints.has(endpoint.peer)) {
            return Effect.die(
              new Error(`SimNetwork: a node of the id ${endpoint.peer} (${endpoint.place}) is already running`)
            )
          }
          endpoints.set(endpoint.peer, endpoint)
          return Effect.void
        }),
        () => Effect.sync(() => leave(endpoint, "this node stopped", "the remote stopped"))
      ),
    connect: (from, place, prepare) => {
      const to = ownerOf(place)
      const line = makeLine(from, to)
      prepare(line.near)
      const source = `${endpoints.get(from)?.place ?? "/memory/unknown"}:${++dials}` as Multiaddr
      line.callOut(() => {
        const endpoint = endpoints.get(to)
        if (endpoint === undefined || endpoint.place !== place) line.far.hangUp(`nobody listens at ${place}`)
        else endpoint.accept(line.far, source)
      })
    },
    delay: Effect.suspend(() => {
      const millis = sample() ?? 0
      return millis === 0 ? Effect.void : clock.sleep(Duration.millis(millis))
    }),
    reaches: (from, to) => endpoints.has(from) && endpoints.has(to) && !isBlocked(from, to),
    neighbours: (peer) => {
      const found = new Set<PeerId>()
      for (const line of lines) {
        if (!line.isEstablished || line.near.isClosed || line.far.isClosed || isBlocked(...line.peers)) continue
        if (line.peers[0] === peer) found.add(line.peers[1])
        if (line.peers[1] === peer) found.add(line.peers[0])
      }
      return [...found]
    },
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

const lossesMax = 8
const retransmissionMillis = 200
const lost = "the connection was lost"
// A virtual clock stands at fractions of a millisecond after a jittered delay, and sums of fractions miss their mark by a rounding error.
// A message is due this little before its time, and a sleep that would end after it is shortened.
const roundingMillis = 0.001

const waitUntil = (at: number, now: number): number => {
  const wait = Math.round((at - now) * 1e6) / 1e6
  return now + wait > at ? wait - roundingMillis / 2 : wait
}

interface End extends LineEnd {
  isClosed: boolean
}

interface Line {
  readonly peers: readonly [PeerId, PeerId]
  readonly near: End
  readonly far: End
  isEstablished: boolean
  /** Delivers a task at the far end, as a message would be. */
  readonly callOut: (task: () => void) => void
  /** Breaks on both sides at once. */
  readonly cut: (reason: string) => void
  /** The peer is gone: its own end is told at once, the other in due time. */
  readonly leave: (peer: PeerId, reason: string, remoteReason: string) => void
  readonly wake: () => void
}

interface Lane {
  readonly send: (task: () => void) => void
  readonly clear: () => void
  readonly wake: () => void
}

function pair(one: PeerId, other: PeerId): string {
  return one < other ? `${one} ${other}` : `${other} ${one}`
}

// Short texts of base58 may happen to be multihashes, so a name is a peer id only from the length on that real ones have.
const isPeerId = (name: string): name is PeerId => name.length >= 46 && Schema.is(PeerId)(name)

function peerIdOf(node: SimNode): PeerId {
  if (typeof node !== "string") return node.localPeer
  if (isPeerId(node)) return node
  const digest = sha256.digest(new TextEncoder().encode(node))
  if (digest instanceof Promise) throw new Error("sha2-256 is synchronous on Node")
  // An identity multihash (00 24) of an Ed25519 public key in protobuf (08 01 12 20).
  return base58btc.baseEncode(Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...digest.digest)) as PeerId
}

function ownerOf(place: Multiaddr): PeerId {
  return peerIdOf(place.startsWith("/memory/") ? place.slice("/memory/".length) : place)
}
