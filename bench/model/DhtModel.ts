/**
 * A DHT of thousands of nodes in memory, on the lookup that nodes run (`KadLookup`): what a lookup costs, whether it
 * finds what is there, and what upkeep costs, for a size of the network, a churn, and a crowd of false nodes around a
 * key.
 *
 * A node is its routing table and its provider records; there are no connections and no bytes. A network begins with
 * full tables, as if it had run for long, and `advance` lets it age: nodes leave silently, others join by the procedure
 * of kad-dht, all refresh their tables. A lookup that the caller asks for takes time on the model's own clock: a round
 * trip for an answer, a timeout for a dead node. A lookup of the upkeep takes no time.
 */
import { Clock, Duration, Effect, Fiber, Random, Scheduler } from "effect"
import { beyond } from "../../src/layers/dht/lookup/Crowding.ts"
import {
  lookup,
  type LookupAnswer,
  type LookupOptions,
  type LookupPeer,
  type LookupResult
} from "../../src/layers/dht/lookup/Lookup.ts"
import { commonPrefixLength, ofDigest, type Position, positionOf } from "../../src/layers/dht/wire/Position.ts"
import {
  bucketSize,
  deepened,
  SimKadTable,
  kadDht,
  kademlia,
  Nearest,
  wholeTables
} from "../../src/testing/ports/SimKadTable.ts"
import * as SimClock from "../../src/testing/network/SimClock.ts"

export interface DhtModelOptions {
  readonly nodes: number
  /** The seed of all randomness. Defaults to 1. */
  readonly seed?: string | number | undefined
  /** How tables split their buckets: as the paper does, or as kad-dht does. Defaults to `"kademlia"`. */
  readonly tables?: keyof typeof shapes | undefined
  /** A question and its answer, on average; a random 0.4 to 1.6 times as long. Defaults to 100 ms. */
  readonly roundTrip?: Duration.Input | undefined
  /** How long a question to a dead node takes. Defaults to 5 s. */
  readonly timeout?: Duration.Input | undefined
  /** How long a node stays, on average; for each node that leaves another joins. Absent, nobody leaves. */
  readonly session?: Duration.Input | undefined
  /** How often a node looks itself up and refreshes its buckets. Defaults to 5 minutes, as in kad-dht. */
  readonly refreshInterval?: Duration.Input | undefined
}

/**
 * A node of the model.
 *
 * An `honest` node names the nearest nodes that it knows, and keeps records. The other kinds keep none: a `withholding`
 * node names the nearest nodes, a `colluding` node only others of its crowd.
 */
export interface ModelNode extends LookupPeer {
  readonly isAlive: boolean
  readonly kind: "honest" | "withholding" | "colluding"
}

export type ModelLookupOptions =
  & Partial<Pick<LookupOptions<ModelNode>, "count" | "parallel" | "paths" | "slowAfter">>
  & {
    /** The node that looks up. Defaults to a random honest node. */
    readonly from?: ModelNode | undefined
  }

/** A lookup, and what it cost. */
export interface ModelLookup extends LookupResult<ModelNode> {
  readonly target: Position
  /** By the model's clock. */
  readonly tookMillis: number
  /** How many of the true `count` closest nodes were found. */
  readonly trulyClosest: number
}

export interface ModelFind extends ModelLookup {
  readonly isFound: boolean
}

export interface ModelBeyond {
  readonly isFound: boolean
  /** Requests of the lookups, and to the nodes that may have the record. */
  readonly asked: number
}

/** What upkeep cost. */
export interface ModelUpkeep {
  /** Requests of lookups, and pings. */
  readonly messages: number
  readonly messagesPerNodeAndHour: number
  readonly joined: number
}

export interface DhtModel {
  /** The nodes that are alive. */
  readonly nodes: ReadonlyArray<ModelNode>
  /** A random position. */
  readonly randomPosition: () => Position
  readonly lookup: (target: Position, options?: ModelLookupOptions) => Effect.Effect<ModelLookup>
  /** Looks up a key and leaves a provider record with the nodes in `closest`. The honest ones keep it. */
  readonly provide: (key: Position, options?: ModelLookupOptions) => Effect.Effect<ModelLookup>
  /** Looks for a provider record, until it is found or the lookup is over. */
  readonly find: (key: Position, options?: ModelLookupOptions) => Effect.Effect<ModelFind>
  /** Leaves a record as `provide` does, and with the nodes that `Crowding.beyond` names too. */
  readonly provideBeyond: (
    key: Position,
    networkSize: number,
    options?: ModelLookupOptions
  ) => Effect.Effect<ModelLookup>
  /** Looks for a record with the nodes that `Crowding.beyond` names. */
  readonly findBeyond: (key: Position, networkSize: number, options?: ModelLookupOptions) => Effect.Effect<ModelBeyond>
  /** Lets the network age. */
  readonly advance: (duration: Duration.Input) => Effect.Effect<ModelUpkeep>
  /**
   * Joins so many nodes of a kind, nearer to the key than all others, as an attacker has them who makes ids until they
   * fit.
   */
  readonly crowd: (key: Position, size: number, kind: ModelNode["kind"]) => Effect.Effect<ReadonlyArray<ModelNode>>
  /** Joins so many nodes of a kind, anywhere. */
  readonly scatter: (size: number, kind: ModelNode["kind"]) => Effect.Effect<ReadonlyArray<ModelNode>>
  /** The average size of a table and the share of dead nodes in it, over a thousand tables. */
  readonly tables: () => { readonly size: number; readonly dead: number }
}

export const make = Effect.fnUntraced(function*(options: DhtModelOptions) {
  const seed = options.seed ?? 1
  const chance = (yield* Effect.service(Random.Random).pipe(Random.withSeed(seed))).nextDoubleUnsafe
  const { clock, scheduler } = yield* SimClock.make
  const roundTripMillis = millisOf(options.roundTrip ?? "100 millis")
  const timeoutMillis = millisOf(options.timeout ?? "5 seconds")
  const sessionMillis = options.session === undefined ? Infinity : millisOf(options.session)
  const stepMillis = millisOf(options.refreshInterval ?? "5 minutes") / steps

  const shape = shapes[options.tables ?? "kademlia"]

  const live: Array<Node> = []
  let made = 0
  let joined = 0
  let messages = 0
  let step = 0

  const now = () => step * stepMillis
  const below = (bound: number) => Math.floor(chance() * bound)
  const randomPosition = (): Position => {
    const bytes = new Uint8Array(32)
    for (let index = 0; index < 32; index++) bytes[index] = below(256)
    return ofDigest(bytes)
  }
  const add = (kind: ModelNode["kind"], position = positionOf(new TextEncoder().encode(`${seed}/${made}`))): Node => {
    const node: Node = {
      key: String(made++),
      position,
      kind,
      isAlive: true,
      phase: below(steps),
      table: undefined,
      records: undefined,
      crowd: undefined
    }
    live.push(node)
    return node
  }
  /** The first nodes get their full tables lazily. */
  let firstTable = (node: Node) => new SimKadTable<Node>(node.position, shape)
  const tableOf = (node: Node) => node.table ??= firstTable(node)
  const closest = (target: Position, count: number) => {
    const nearest = new Nearest<Node>(target, count)
    for (const node of live) nearest.offer(node)
    return nearest.nodes
  }
  const anyHonest = () => {
    while (true) {
      const node = live[below(live.length)]!
      if (node.kind === "honest") return node
    }
  }

  /** The answer of a node to another. Both learn of each other. */
  const answer = (from: Node, node: Node, target: Position): ReadonlyArray<Node> => {
    messages += tableOf(node).add(from, now()) + tableOf(from).add(node, now())
    if (node.kind === "colluding") {
      const crowd = new Nearest<Node>(target, bucketSize)
      for (const other of node.crowd ?? []) if (other !== node) crowd.offer(other)
      return crowd.nodes
    }
    return tableOf(node).closest(target, bucketSize, from)
  }
  const dead = Effect.fail("nobody is there")
  const askAtOnce = (from: Node, target: Position) => (node: Node) => {
    messages++
    if (node.isAlive) return Effect.succeed({ closer: answer(from, node, target) })
    tableOf(from).remove(node)
    return dead
  }
  const background = (from: Node, target: Position, seeds = tableOf(from).closest(target, bucketSize)) =>
    lookup({ target, seeds, self: from.key, ask: askAtOnce(from, target) })

  /**
   * Refreshes as kad-dht 16.4 does: looks up the node itself, and a bucket for each byte, not bit, that it shares with
   * its nearest neighbour.
   */
  const refresh = Effect.fnUntraced(function*(node: Node, seeds?: ReadonlyArray<Node>) {
    yield* background(node, node.position, seeds)
    const [nearest] = tableOf(node).closest(node.position, 1)
    const bytes = nearest === undefined ? 0 : commonPrefixLength(node.position, nearest.position) >> 3
    for (let shared = 0; shared <= bytes; shared++) {
      yield* background(node, sharing(node.position, shared, randomPosition()))
    }
  })
  const join = (node: Node) => refresh(node, Array.from({ length: 3 }, () => anyHonest()))

  const timed = Effect.fnUntraced(
    function*(
      key: Position,
      { count = bucketSize, from, ...rest }: ModelLookupOptions,
      heed: (node: Node) => boolean
    ) {
      const asker = from === undefined ? anyHonest() : from as Node
      const expected = new Set<ModelNode>(closest(key, count + 1).filter((node) => node !== asker).slice(0, count))
      const ask = (node: Node): Effect.Effect<LookupAnswer<Node>, string> => {
        if (!node.isAlive) {
          return Effect.flatMap(Effect.sleep(timeoutMillis), () => {
            tableOf(asker).remove(node)
            return dead
          })
        }
        return Effect.map(Effect.sleep(roundTripMillis * (0.4 + 1.2 * chance())), () => ({
          closer: answer(asker, node, key),
          enough: heed(node)
        }))
      }
      const began = clock.currentTimeMillisUnsafe()
      const fiber = yield* lookup<Node>({
        target: key,
        seeds: tableOf(asker).closest(key, bucketSize),
        self: asker.key,
        ask,
        count,
        ...rest
      }).pipe(
        Effect.map((result) => ({
          ...result,
          target: key,
          tookMillis: clock.currentTimeMillisUnsafe() - began,
          trulyClosest: result.closest.filter((node) => expected.has(node)).length
        })),
        Effect.provideService(Clock.Clock, clock),
        Effect.provideService(Scheduler.Scheduler, scheduler),
        Effect.forkChild({ startImmediately: true })
      )
      yield* clock.adjust(Duration.infinity)
      return yield* Fiber.join(fiber)
    }
  )

  /** A random number of the Poisson distribution with the mean (Knuth). */
  const poisson = (mean: number) => {
    const limit = Math.exp(-mean)
    let product = chance()
    let count = 0
    while (product > limit) {
      count++
      product *= chance()
    }
    return count
  }

  const advance = Effect.fnUntraced(function*(duration: Duration.Input) {
    const before = { messages, joined }
    const count = Math.round(millisOf(duration) / stepMillis)
    let nodeMillis = 0
    for (let index = 0; index < count; index++) {
      step++
      nodeMillis += live.length * stepMillis
      for (let left = poisson(live.length * stepMillis / sessionMillis); left > 0; left--) {
        const index = below(live.length)
        const node = live[index]!
        // A node with an interest stays.
        if (node.kind !== "honest") continue
        node.isAlive = false
        live[index] = live.at(-1)!
        live.pop()
        joined++
        yield* join(add("honest"))
      }
      for (const node of [...live]) if (node.phase === step % steps && node.isAlive) yield* refresh(node)
    }
    const spent = messages - before.messages
    return {
      messages: spent,
      messagesPerNodeAndHour: nodeMillis === 0 ? 0 : spent * 3_600_000 / nodeMillis,
      joined: joined - before.joined
    }
  })

  for (let index = 0; index < options.nodes; index++) add("honest")
  const whole = wholeTables(live, shape, below)
  firstTable = (node) => Number(node.key) < options.nodes ? whole(node) : new SimKadTable(node.position, shape)

  const provide = (key: Position, options: ModelLookupOptions = {}) =>
    Effect.tap(timed(key, options, () => false), ({ closest }) => Effect.sync(() => closest.forEach(leave(key))))
  const leave = (key: Position) => (node: ModelNode) => {
    if (node.kind === "honest") ((node as Node).records ??= new Set()).add(key)
  }
  const lookBeyond = Effect.fnUntraced(
    function*(key: Position, networkSize: number, options: ModelLookupOptions = {}) {
      const { isInRegion, targets } = beyond(key, networkSize)
      const from = options.from ?? anyHonest()
      const found = new Set<ModelNode>()
      let asked = 0
      for (const { position } of targets) {
        const result = yield* timed(position, { ...options, from }, () => false)
        asked += result.asked
        for (const node of result.closest) if (isInRegion(node)) found.add(node)
      }
      return { asked: asked + found.size, found: [...found] }
    }
  )

  const joinAll = Effect.fnUntraced(function*(kind: ModelNode["kind"], positions: ReadonlyArray<Position>) {
    const crowd = positions.map((position) => add(kind, position))
    for (const node of crowd) {
      node.crowd = crowd
      yield* join(node)
    }
    return crowd
  })

  const model: DhtModel = {
    nodes: live,
    randomPosition,
    lookup: (target, options = {}) => timed(target, options, () => false),
    provide,
    provideBeyond: Effect.fnUntraced(function*(key, networkSize, options) {
      const result = yield* provide(key, options)
      const { found } = yield* lookBeyond(key, networkSize, options)
      found.forEach(leave(key))
      return result
    }),
    findBeyond: (key, networkSize, options) =>
      Effect.map(lookBeyond(key, networkSize, options), ({ asked, found }) => ({
        isFound: found.some((node) => (node as Node).records?.has(key) === true),
        asked
      })),
    find: (key, options = {}) =>
      Effect.suspend(() => {
        let isFound = false
        return Effect.map(
          timed(key, options, (node) => isFound ||= node.records?.has(key) === true),
          (result) => ({ ...result, isFound })
        )
      }),
    advance,
    crowd: (key, size, kind) => {
      const [nearest] = closest(key, 1)
      const shared = nearest === undefined ? 0 : commonPrefixLength(nearest.position, key) + 1
      return joinAll(kind, Array.from({ length: size }, () => beginning(key, shared, randomPosition())))
    },
    scatter: (size, kind) => joinAll(kind, Array.from({ length: size }, randomPosition)),
    tables: () => {
      const sample = Array.from({ length: Math.min(live.length, 1_000) }, () => live[below(live.length)]!)
      let size = 0
      let dead = 0
      for (const node of sample) {
        const { nodes } = tableOf(node)
        size += nodes.length
        for (const { isAlive } of nodes) if (!isAlive) dead++
      }
      return { size: size / sample.length, dead: size === 0 ? 0 : dead / size }
    }
  }
  return model
})

/** What many lookups come to. */
export interface ModelSurvey {
  /** Of lookups of random positions: the median, the 95th percentile and the maximum. */
  readonly hops: Quantiles
  readonly asked: Quantiles
  readonly tookMillis: Quantiles
  /** The share of the 20 closest nodes of each position that was found. */
  readonly closestFound: number
  /** The share of provider records that another node found, right after they had been provided. */
  readonly recordsFound: number
}

export type Quantiles = readonly [half: number, most: number, all: number]

/**
 * Looks up so many random positions, and provides and finds as many keys, each from a random node.
 */
export const survey = Effect.fnUntraced(function*(model: DhtModel, count: number) {
  const lookups: Array<ModelLookup> = []
  let found = 0
  for (let index = 0; index < count; index++) {
    lookups.push(yield* model.lookup(model.randomPosition()))
    const key = model.randomPosition()
    yield* model.provide(key)
    if ((yield* model.find(key)).isFound) found++
  }
  const quantiles = (values: ReadonlyArray<number>): Quantiles => {
    const sorted = values.toSorted((a, b) => a - b)
    const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1] ?? 0
    return [at(0.5), at(0.95), at(1)]
  }
  const survey: ModelSurvey = {
    hops: quantiles(lookups.map(({ hops }) => hops)),
    asked: quantiles(lookups.map(({ asked }) => asked)),
    tookMillis: quantiles(lookups.map(({ tookMillis }) => Math.round(tookMillis))),
    closestFound: lookups.reduce((sum, { trulyClosest }) => sum + trulyClosest, 0) /
      (count * Math.min(bucketSize, model.nodes.length - 1)),
    recordsFound: found / count
  }
  return survey
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The time between two refreshes is divided into so many steps, over which the nodes are spread. */
const steps = 60

const shapes = { kademlia, "kad-dht": kadDht, deepened }

interface Node extends ModelNode {
  isAlive: boolean
  readonly phase: number
  table: SimKadTable<Node> | undefined
  records: Set<Position> | undefined
  /** The nodes that a colluding node names. */
  crowd: ReadonlyArray<Node> | undefined
}

const millisOf = (duration: Duration.Input): number => Duration.toMillis(duration)

/** A position with the first bits of `first` and the other bits of `rest`. */
function beginning(first: Position, bits: number, rest: Position): Position {
  return ofDigest(first.bytes.map((byte, index) => {
    const mask = 0xff << Math.min(8, Math.max(0, 8 * (index + 1) - bits))
    return (byte & mask) | (rest.bytes[index]! & ~mask)
  }))
}

/** A position that shares exactly so many bits with another. */
function sharing(position: Position, bits: number, rest: Position): Position {
  const bytes = beginning(position, bits + 1, rest).bytes
  bytes[bits >> 3]! ^= 0x80 >> (bits & 7)
  return ofDigest(bytes)
}
