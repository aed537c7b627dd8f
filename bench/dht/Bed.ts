/** A network of one kind, and the measured node in it, which has a process of its own. */
import { Effect, Exit, Scope } from "effect"
import { type ChildProcess, fork } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { join } from "node:path"
import { build } from "../../test/interop/build.ts"
import { makeForeign } from "../../test/interop/Peer.ts"
import { bytesOf, closest, type Member } from "./Announcer.ts"
import {
  type Answers,
  type Ask,
  type FromNodes,
  kadProtocol,
  type Kind,
  type Measured,
  type NodesOptions,
  type Republished
} from "./BenchNode.ts"

/** A process of nodes. */
export interface Nodes {
  readonly members: ReadonlyArray<Member>
  readonly connect: (node: number, address: string) => Promise<unknown>
  /** These nodes look up keys that nobody provides, one each, so that they hear of others. */
  readonly explore: (keys: ReadonlyArray<{ readonly node: number; readonly key: Uint8Array }>) => Promise<unknown>
  /** The peers in the table of each node. Rust and Go tell only their number. */
  readonly known: () => Promise<ReadonlyArray<ReadonlyArray<string>> | number>
  readonly provide: (key: Uint8Array, optimistic?: boolean) => Promise<Measured>
  readonly find: (key: Uint8Array) => Promise<Measured>
  /** Connects, and provides at once. */
  readonly join: (address: string, key: Uint8Array) => Promise<Measured>
  /** Provides so many keys, and waits while all are announced once more. */
  readonly republish: (keys: number, seconds: number) => Promise<Republished>
  /** Milliseconds of processor time so far; NaN where the process does not tell. */
  readonly cpu: () => Promise<number>
  readonly stop: () => Promise<void>
}

export interface Bed {
  readonly kind: Kind
  /** The nodes that serve. */
  readonly crowd: ReadonlyArray<Member>
  /** The process of the measured node. */
  readonly measured: Nodes
  /** Has another node join, a process of its own, which stays, and measures its first provide. */
  readonly join: () => Promise<Measured>
  /** Milliseconds of processor time of the nodes that serve. */
  readonly cpu: () => Promise<number>
  /** How the network was made, in words. */
  readonly note: string
  readonly stop: () => Promise<void>
}

export interface BedOptions {
  readonly kind: Kind
  /** How many nodes each process of the crowd has. */
  readonly crowd: ReadonlyArray<number>
  /** The kind of the crowd, where it differs from the kind of the measured node. */
  readonly crowdKind?: Kind
  /** Milliseconds added to each round trip of the node that is measured. */
  readonly delayMillis?: number
  /** The seconds after which the measured node announces its keys again. */
  readonly republishSeconds?: number
}

export const make = async (options: BedOptions): Promise<Bed> => {
  const { crowdKind = options.kind, kind } = options
  const began = performance.now()
  const started: Array<Nodes> = []
  const stop = async () => {
    await Promise.all(started.map((nodes) => nodes.stop()))
  }
  try {
    // A few at a time: each start is half a second of processor time.
    await each(options.crowd, 3, async (count) => {
      started.push(await start(crowdKind, { count }))
    })
    const crowd = started.slice()
    const members = crowd.flatMap((nodes) => nodes.members)
    // Each node connects to two earlier ones.
    for (const [index, member] of members.entries()) {
      for (const other of some(members.slice(0, index), 2)) await connect(crowd, member, other.address)
    }
    const tables = await meet(crowd, members)
    const measured = await start(kind, {
      count: 1,
      isWatchful: true,
      ...(options.delayMillis === undefined ? {} : { delayMillis: options.delayMillis }),
      ...(options.republishSeconds === undefined ? {} : { republishSeconds: options.republishSeconds })
    })
    started.push(measured)
    for (const other of some(members, 3)) await measured.connect(0, other.address)
    await meet([measured], members)
    const own = await lookAround(measured, members.length)
    return {
      kind,
      crowd: members,
      measured,
      join: async () => {
        const nodes = await start(kind, { count: 1, isWatchful: true })
        started.push(nodes)
        return nodes.join(some(members, 1)[0]!.address, randomKey())
      },
      cpu: async () => (await Promise.all(crowd.map((nodes) => nodes.cpu()))).reduce((sum, cpu) => sum + cpu, 0),
      note: `${seconds(began)} s to settle, tables of ${tables[0]} to ${tables.at(-1)}, its own of ${own}`,
      stop
    }
  } catch (cause) {
    await stop()
    throw cause
  }
}

/** Starts a process of nodes. A process of Rust or Go has one. */
export const start = (kind: Kind, options: Omit<NodesOptions, "kind">): Promise<Nodes> =>
  kind === "rust" || kind === "go" ? startForeign(kind) : startOwn({ ...options, kind })

export const randomKey = (): Uint8Array =>
  Buffer.concat([Uint8Array.of(0x12, 0x20), createHash("sha256").update(randomBytes(32)).digest()])

export const seconds = (since: number): string => ((performance.now() - since) / 1000).toFixed(0)

// internal ------------------------------------------------------------------------------------------------------------

const children = new Set<ChildProcess>()
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL")
})

async function startOwn(options: NodesOptions & { readonly kind: "ours" | "plain" }): Promise<Nodes> {
  const child = fork(join(import.meta.dirname, "nodes.ts"), [JSON.stringify(options)], {
    stdio: ["ignore", "inherit", "inherit", "ipc"]
  })
  children.add(child)
  const waiting = new Map<number, PromiseWithResolvers<never>>()
  const ready = Promise.withResolvers<ReadonlyArray<Member>>()
  let last = 0
  child.on("message", (message: FromNodes) => {
    if ("ready" in message) return ready.resolve(message.ready)
    const { reject, resolve } = waiting.get(message.id)!
    waiting.delete(message.id)
    if ("problem" in message) reject(new Error(`${options.kind}: ${message.problem}`))
    else resolve(message.value as never)
  })
  child.on("exit", (code) => {
    children.delete(child)
    const error = new Error(`a process of ${options.kind} ended with ${code}`)
    ready.reject(error)
    for (const { reject } of waiting.values()) reject(error)
  })
  const ask = <A extends Ask>(ask: A): Promise<Answers[A["op"]]> => {
    const id = ++last
    const answer = Promise.withResolvers<never>()
    waiting.set(id, answer)
    child.send({ ...ask, id })
    return answer.promise
  }
  return {
    members: await ready.promise,
    connect: (node, address) => ask({ op: "connect", node, address }),
    explore: (keys) => ask({ op: "explore", keys: keys.map(({ key, node }) => ({ node, ...hex(key) })) }),
    known: () => ask({ op: "known" }),
    provide: (key, optimistic = false) => ask({ op: "provide", node: 0, ...hex(key), optimistic }),
    find: (key) => ask({ op: "find", node: 0, ...hex(key) }),
    join: (address, key) => ask({ op: "join", address, ...hex(key) }),
    republish: (keys, seconds) => ask({ op: "republish", keys, seconds }),
    cpu: () => ask({ op: "cpu" }),
    stop: () =>
      new Promise((resolve) => {
        child.removeAllListeners("exit")
        child.once("exit", () => {
          children.delete(child)
          resolve()
        })
        child.kill("SIGKILL")
      })
  }
}

async function startForeign(kind: "rust" | "go"): Promise<Nodes> {
  const scope = Scope.makeUnsafe()
  const program = await Effect.runPromise(build(kind))
  const peer = await Effect.runPromise(
    Effect.provideService(makeForeign(kind, program, { kad: kadProtocol, quiet: true }), Scope.Scope, scope)
  )
  const provide = (key: Uint8Array) => Effect.runPromise(peer.run("provide", hex(key)))
  return {
    members: [{ peer: peer.id, address: peer.addresses[0]! }],
    connect: (_, addr) => Effect.runPromise(peer.run("connect", { addr })),
    explore: (keys) => each(keys, 1, ({ key }) => Effect.runPromise(peer.run("find", hex(key)))),
    known: () => Effect.runPromise(Effect.map(peer.run("kad-peers"), ({ count }) => count)),
    provide,
    join: async (addr, key) => {
      await Effect.runPromise(peer.run("connect", { addr }))
      return provide(key)
    },
    find: (key) =>
      Effect.runPromise(Effect.map(peer.run("find", hex(key)), ({ firstMillis, millis, providers }) => ({
        millis,
        found: providers.length,
        ...(firstMillis === undefined || firstMillis === null ? {} : { firstMillis })
      }))),
    republish: () => Promise.reject(new Error(`${kind} is not measured at this`)),
    cpu: () => Promise.resolve(Number.NaN),
    stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

async function connect(crowd: ReadonlyArray<Nodes>, member: Member, address: string): Promise<void> {
  const nodes = crowd.find(({ members }) => members.includes(member))!
  await nodes.connect(nodes.members.indexOf(member), address)
}

/**
 * Waits until each node has its closest peers in its table, so that every lookup ends where it should; a node that
 * lacks one of them looks up its own position. Gives the sizes of the tables, the smallest first.
 */
async function meet(crowd: ReadonlyArray<Nodes>, all: ReadonlyArray<Member>): Promise<ReadonlyArray<number>> {
  for (const deadline = performance.now() + 240_000;; await pause()) {
    const sizes: Array<number> = []
    let lacking = 0
    await each(crowd, 4, async (nodes) => {
      const known = await nodes.known()
      const lost: Array<{ readonly node: number; readonly key: Uint8Array }> = []
      for (const [node, member] of nodes.members.entries()) {
        const neighbours = closest(all.filter(({ peer }) => peer !== member.peer), bytesOf(member))
        const peers = typeof known === "number" ? undefined : new Set(known[node])
        sizes.push(peers === undefined ? Number(known) : peers.size)
        if (peers === undefined ? Number(known) < neighbours.length : neighbours.some(({ peer }) => !peers.has(peer))) {
          lost.push({ node, key: bytesOf(member) })
        }
      }
      lacking += lost.length
      await nodes.explore(lost)
    })
    if (lacking === 0) return sizes.sort((a, b) => a - b)
    if (performance.now() > deadline) {
      throw new Error(`${lacking} of ${all.length} nodes still lack neighbours after 240 s`)
    }
  }
}

/**
 * Has a node look up random keys until its table hardly grows any more, and gives the size of the table. A bucket of
 * its table holds 20 at most.
 */
async function lookAround(nodes: Nodes, most: number): Promise<number> {
  for (let last = 0, quiet = 0;; await pause()) {
    await nodes.explore(Array.from({ length: 4 }, () => ({ node: 0, key: randomKey() })))
    const found = await nodes.known()
    const known = typeof found === "number" ? found : found[0]!.length
    quiet = known <= last * 1.01 ? quiet + 1 : 0
    if (known >= most || quiet === 4) return known
    last = known
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 250))
}

function hex(key: Uint8Array): { readonly key: string } {
  return { key: Buffer.from(key).toString("hex") }
}

async function each<A>(items: ReadonlyArray<A>, width: number, run: (item: A) => Promise<unknown>): Promise<void> {
  const waiting = items.values()
  await Promise.all(Array.from({ length: width }, async () => {
    for (const item of waiting) await run(item)
  }))
}

function some<A>(items: ReadonlyArray<A>, count: number): ReadonlyArray<A> {
  const left = [...items]
  return Array.from(
    { length: Math.min(count, left.length) },
    () => left.splice(Math.floor(Math.random() * left.length), 1)[0]!
  )
}
