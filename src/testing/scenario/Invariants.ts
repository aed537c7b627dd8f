/** The promises that a simulated network has to keep at any time, seen from outside. */
import { Duration } from "effect"
import type { PeerId } from "../../schema/Peer.ts"
import type { Invariant } from "./SimulationFailed.ts"

/** A node at one moment. */
export interface NodeView {
  readonly name: string
  readonly peer: PeerId
  /** Whether the node runs, and so do its process and its machine. */
  readonly isAwake: boolean
  readonly size: number
  readonly maxPeers: number
  /** Its peers, and when each has come, in milliseconds. */
  readonly peers: ReadonlyMap<PeerId, number>
  /** The nodes to which it has a connection over which messages pass. */
  readonly neighbours: ReadonlySet<PeerId>
  /** The nodes of which messages arrive over a connection. */
  readonly hears: ReadonlySet<PeerId>
  readonly blocked: ReadonlySet<PeerId>
  /** The nodes that it keeps and should reach. */
  readonly kept: ReadonlySet<PeerId>
}

export interface InvariantOptions {
  readonly healthBound: Duration.Duration
  /** How long the first node may have the second without being had, in milliseconds. */
  readonly oneSidedMillisMax: (node: NodeView, other: NodeView) => number
  /**
   * How long a kept peer that can be dialled may be missing, in milliseconds. `awayMillis` is how long it had been gone
   * when it could be dialled again: since its last connection of 15 s, which is what ends the backoff of its keeper.
   */
  readonly missingMillisMax: (awayMillis: number) => number
  /** Whether a dial of the second node by the first could succeed now. */
  readonly canDial: (from: NodeView, to: NodeView) => boolean
}

export interface Broken {
  readonly invariant: Invariant
  readonly detail: string
  readonly nodes: ReadonlyArray<string>
}

/** Looks at all nodes, to be called about every second, and answers with the first broken promise. */
export const make = (options: InvariantOptions) => {
  const healthMillis = Duration.toMillis(options.healthBound)
  const dead = new Since()
  /**
   * What the first node of a pair had of the second when they were last looked at. 1: a connection over which messages
   * pass both ways; 2: messages of the second arrive; 4: they arrive, and the second runs.
   */
  const lifeSigns = new Map<string, number>()
  const oneSided = new Since()
  const missing = new Since()
  const away = new Away()
  let present: ReadonlySet<string> = new Set()

  const look = (now: number, nodes: ReadonlyArray<NodeView>): Broken | undefined => {
    if (nodes.length !== present.size || !nodes.every(({ name }) => present.has(name))) {
      present = new Set(nodes.map(({ name }) => name))
      for (const since of [dead, oneSided, missing]) since.keepOnly(present)
      away.keepOnly(present, now)
    }
    for (const node of nodes) {
      if (node.size > node.maxPeers) {
        return {
          invariant: "limit",
          detail: `${node.name} has ${node.size} peers, and its maxPeers is ${node.maxPeers}`,
          nodes: [node.name]
        }
      }
      for (const other of nodes) {
        if (node === other) continue
        const both = [node.name, other.name]
        const pair = `${node.name} ${other.name}`
        const has = node.peers.has(other.peer)
        if (has && node.blocked.has(other.peer)) {
          return { invariant: "blocked", detail: `${node.name} has ${other.name}, which it blocks`, nodes: both }
        }
        const isNeighbour = node.neighbours.has(other.peer)
        const isHeard = node.hears.has(other.peer)
        // A new connection, what was on its way and passes again, and the answers of a node that wakes are signs of
        // life, whatever happens to the other right after.
        const signs = (isNeighbour ? 1 : 0) | (isHeard ? 2 : 0) | (isHeard && other.isAwake ? 4 : 0)
        if ((signs & ~(lifeSigns.get(pair) ?? signs)) !== 0) dead.of(pair, false, now)
        lifeSigns.set(pair, signs)
        // A node that stands still cannot do anything about its table.
        const isDead = node.isAwake && has && !(other.isAwake && isNeighbour)
        const deadMillis = dead.of(pair, isDead, now)
        if (deadMillis > healthMillis) {
          return {
            invariant: "dead",
            detail: `${node.name} has ${other.name}, which has been out of its reach for ${show(deadMillis)}`,
            nodes: both
          }
        }
        const isOneSided = node.isAwake && other.isAwake && has && !other.peers.has(node.peer) && !isDead
        const oneSidedMillis = oneSided.of(pair, isOneSided, now)
        if (oneSidedMillis > 0 && oneSidedMillis > options.oneSidedMillisMax(node, other)) {
          return {
            invariant: "one-sided",
            detail: `${node.name} has ${other.name}, which has not had it for ${show(oneSidedMillis)}`,
            nodes: both
          }
        }
        const isMissing = node.isAwake && other.isAwake && node.kept.has(other.peer) && !has &&
          node.size < node.maxPeers && other.size < other.maxPeers && options.canDial(node, other)
        const missingMillis = missing.of(pair, isMissing, now)
        const awayMillis = away.of(node, pair, node.peers.get(other.peer), now) - missingMillis
        if (isMissing && missingMillis > options.missingMillisMax(awayMillis)) {
          return {
            invariant: "kept",
            detail: `${node.name} keeps ${other.name} and has not had it for ${
              show(missingMillis)
            }, with nothing between them, after ${show(awayMillis)} away`,
            nodes: both
          }
        }
      }
    }
    return undefined
  }

  return {
    look,
    /**
     * One of the two nodes disconnected the other: the time in which the connection has to be back begins anew, and is
     * the longest, since a peer that was sent away waits.
     */
    excuse: (node: string, other?: string) => {
      missing.forget(node, other)
      away.excuse(node, other)
    },
    /** The node's clock leapt. The node believes that it stood still, and gives all its peers their time once more. */
    leapt: (node: string) => dead.forget(node, undefined)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const show = (millis: number): string => Duration.format(Duration.millis(Math.round(millis)))

/** Since when a condition has held for a pair of nodes. */
class Since {
  private readonly times = new Map<string, number>()

  of(pair: string, holds: boolean, now: number): number {
    if (!holds) {
      this.times.delete(pair)
      return 0
    }
    const since = this.times.get(pair)
    if (since !== undefined) return now - since
    this.times.set(pair, now)
    return 0
  }

  /** Forgets nodes that do not run: after a start their time begins anew. */
  keepOnly(names: ReadonlySet<string>): void {
    for (const key of this.times.keys()) if (!key.split(" ").every((name) => names.has(name))) this.times.delete(key)
  }

  forget(node: string, other: string | undefined): void {
    for (const key of [...this.times.keys()]) {
      const pair = key.split(" ")
      if (pair.includes(node) && (other === undefined || pair.includes(other))) this.times.delete(key)
    }
  }
}

/** How long a connection lasts that ends the backoff of a keeper, as the supervisor of peers counts it. */
const steadyMillis = 15_000

/** Since when a node has been without another, but for connections that were over soon. */
class Away {
  private readonly times = new Map<
    string,
    { steadyAt: number; since: number | undefined; cameAt: number | undefined; lookedAt: number; wasAwake: boolean }
  >()
  /** Since when each node that runs has been running. */
  private readonly starts = new Map<string, number>()

  /**
   * How long the first has been without the second: from when the first began to run, where they never met since. The
   * time in which the first stood still is no part of a connection: its clock may have stood as well.
   */
  of({ isAwake, name }: NodeView, pair: string, cameAt: number | undefined, now: number): number {
    const time = this.times.get(pair) ??
      { steadyAt: this.starts.get(name) ?? now, since: undefined, cameAt, lookedAt: now, wasAwake: isAwake }
    this.times.set(pair, time)
    if (time.since !== undefined && !(isAwake && time.wasAwake)) time.since += now - time.lookedAt
    time.lookedAt = now
    time.wasAwake = isAwake
    // A peer that was lost and came back between two looks has another connection.
    if (cameAt !== time.cameAt) time.since = undefined
    time.cameAt = cameAt
    time.since = cameAt === undefined ? undefined : time.since ?? now
    if (time.since !== undefined && now - time.since >= steadyMillis) time.steadyAt = now
    return now - time.steadyAt
  }

  /** A keeper that starts anew has no backoff. A peer that does ends no backoff, and its connections are over. */
  keepOnly(names: ReadonlySet<string>, now: number): void {
    for (const name of this.starts.keys()) if (!names.has(name)) this.starts.delete(name)
    for (const name of names) if (!this.starts.has(name)) this.starts.set(name, now)
    for (const [key, time] of this.times) {
      const [keeper, other] = key.split(" ")
      if (!names.has(keeper!)) this.times.delete(key)
      else if (!names.has(other!)) time.since = undefined
    }
  }

  excuse(node: string, other: string | undefined): void {
    for (const [key, time] of this.times) {
      const pair = key.split(" ")
      if (!pair.includes(node) || (other !== undefined && !pair.includes(other))) continue
      time.steadyAt = -Infinity
      // The other node has the connection until it hears of its end.
      time.since = undefined
    }
  }
}
