/**
 * The connections of one peer: which is the best, who uses which, and how several become one.
 *
 * Two nodes that dial each other at once have two connections, and a direct connection joins a relayed one. Both sides
 * put them into the same order, so that both open new streams on the same connection, and the others end:
 *
 * 1. direct before relayed;
 * 2. dialled by the peer with the smaller id, in the order of the ids as texts, before dialled by the other;
 * 3. newer before older: of two that the same side dialled, the remote may have lost the older one already.
 *
 * A connection is closed only when the remote has agreed to open nothing more on it (`retire` of `/codio/1.0.0`). The
 * answer arrives after every stream that the remote opened before, so that no stream is cut, not even the newest. The
 * peer with the smaller id asks first, the other one later, since the first may know of one connection only. Other
 * software opens streams where it likes and is asked nothing: its connections stay.
 */
import { Effect } from "effect"
import type { PeerId } from "../../schema/Peer.ts"
import { comparing, type Connection, type Ranked } from "../../services/Transport.ts"
import * as CodioRequests from "../codio/CodioRequests.ts"
import { countedNetworkOf } from "../../schema/Subnet.ts"
import * as Pulse from "../Pulse.ts"

/**
 * Which side opened a stream: `holds` counts those of this side, `attends` those of the remote.
 */
export type Use = "holds" | "attends"

export interface PeerConnections {
  readonly size: () => number
  readonly has: (connection: Connection) => boolean
  /** Oldest first. */
  readonly all: () => ReadonlyArray<Connection>
  /** The networks that the connections come from, without networks that no limit counts. */
  readonly networks: () => ReadonlySet<string>
  /** Run `tell` after each `add` and `remove`: neither wakes those who wait. */
  readonly add: (connection: Connection, isDirect: boolean) => void
  /** False when the peer has no such connection. */
  readonly remove: (connection: Connection) => boolean
  /** Wakes whoever waits for the connections to change. */
  readonly tell: Effect.Effect<void>
  /** The open connections, the best one first. */
  readonly best: Effect.Effect<ReadonlyArray<Connection>>
  /** Counts a stream that is open or is being opened. */
  readonly begin: (connection: Connection, use: Use) => void
  readonly end: (connection: Connection, use: Use) => Effect.Effect<void>
  /**
   * The remote asks this side to open nothing more on a connection. Agrees if this side has no stream there and another
   * open connection is at least as good: a relayed one cannot replace a direct one.
   */
  readonly retire: (connection: Connection) => Effect.Effect<boolean>
  /** Beats when another connection may be the best. */
  readonly changed: Pulse.Pulse
  /** Reduces several connections to one, and ends when that is done. To be run when there is a second one. */
  readonly settle: Effect.Effect<void>
  /** Whether `settle` is at work: several connections become one, or the remote has not told whether they can. */
  readonly isSettling: () => boolean
}

/** A connection, its streams, and what the two sides have agreed about it. */
interface ConnectionState extends Ranked {
  readonly connection: Connection
  holds: number
  attends: number
  /** One side has asked the other to open nothing more on the connection. */
  isRetired: boolean
  /** The remote has agreed. */
  isAgreed: boolean
  /** `settle` waits for the end of the connection's streams. */
  isAwaited: boolean
}

export const make = (local: PeerId, peer: PeerId): PeerConnections => {
  /** By connection id, oldest first. */
  const states = new Map<string, ConnectionState>()
  const changed = Pulse.make()
  /** Beats when an awaited connection has no stream any more, and when the connections change. */
  const freed = Pulse.make()
  const compare = comparing(local, peer)
  let isSettling = false

  const ordered = Effect.gen(function*() {
    const open: Array<ConnectionState> = []
    for (const state of states.values()) if (yield* state.connection.isOpen) open.unshift(state)
    return open.length < 2 ? open : open.sort((a, b) => Number(a.isRetired) - Number(b.isRetired) || compare(a, b))
  })

  const isUsed = (state: ConnectionState) => state.holds + state.attends > 0

  /** Whether the remote speaks the protocol; undefined until it has identified itself. */
  const isSpoken = Effect.gen(function*() {
    for (const { connection } of states.values()) {
      const remote = yield* connection.remote
      if (remote._tag === "Some") return yield* CodioRequests.isSpoken(connection)
    }
    return undefined
  })

  /** Has the remote agree that a connection is used no more, then closes it, if nothing is open on it. */
  const end = Effect.fnUntraced(function*(state: ConnectionState) {
    if (!state.isAgreed) {
      state.isRetired = true
      const answer = yield* CodioRequests.retire(state.connection)
      // The best connection answers pings, or it would be closed. So a connection that is silent for so long is dead.
      if (answer === "unanswered") return yield* state.connection.close
      state.isAgreed = answer === "agreed"
      if (!state.isAgreed) {
        state.isRetired = false
        return yield* changed.beat
      }
      yield* state.connection.retire
    }
    const [best] = yield* ordered
    if (best === state || isUsed(state) || (yield* state.connection.streams) > 0) return
    yield* state.connection.close
  })

  const settle = Effect.gen(function*() {
    // Former agreements were made for the sake of a connection that may have gone.
    for (const state of states.values()) {
      state.isAgreed = false
      state.isRetired = false
      state.isAwaited = false
    }
    yield* Effect.sleep(local < peer ? askMillis : askLaterMillis)
    for (let wait = firstWaitMillis; states.size > 1; wait = Math.min(wait * 2, longestWaitMillis)) {
      const next = freed.next()
      const isKnown = yield* isSpoken
      if (isKnown === false) return
      const [, ...surplus] = isKnown === undefined ? [] : yield* ordered
      for (const state of surplus) state.isAwaited = isUsed(state)
      const free = surplus.filter((state) => !state.isAwaited)
      yield* Effect.forEach(free, end, { discard: true })
      // While every connection waits for its streams there is no timer: the end of a stream beats.
      if (states.size < 2) return
      yield* surplus.length > 0 && free.length === 0 ? next : Effect.raceFirst(next, Effect.sleep(wait))
    }
  }).pipe(Effect.ensuring(Effect.sync(() => {
    isSettling = false
  })))

  return {
    size: () => states.size,
    has: (connection) => states.has(connection.id),
    all: () => Array.from(states.values(), (state) => state.connection),
    networks: () => {
      const networks = new Set<string>()
      for (const { connection } of states.values()) {
        const network = countedNetworkOf(connection.remoteAddress)
        if (network !== undefined) networks.add(network)
      }
      return networks
    },
    add: (connection, isDirect) => {
      const { direction } = connection
      const use = { holds: 0, attends: 0, isRetired: false, isAgreed: false, isAwaited: false }
      states.set(connection.id, { connection, direction, isDirect, ...use })
    },
    remove: (connection) => states.delete(connection.id),
    tell: Effect.andThen(changed.beat, freed.beat),
    best: Effect.map(ordered, (open) => open.map((state) => state.connection)),
    begin: (connection, use) => {
      const state = states.get(connection.id)
      if (state !== undefined) state[use]++
    },
    end: (connection, use) =>
      Effect.suspend(() => {
        const state = states.get(connection.id)
        if (state === undefined) return Effect.void
        if (--state[use] < 0) return Effect.die(new Error(`negative ${use} of a connection with ${peer}`))
        return state.isAwaited && !isUsed(state) ? freed.beat : Effect.void
      }),
    retire: Effect.fnUntraced(function*(connection) {
      const state = states.get(connection.id)
      const open = yield* ordered
      const isWorse = (other: ConnectionState) => state?.isDirect === true && !other.isDirect
      if (state === undefined || state.holds > 0) return false
      if (!open.some((other) => other !== state && !other.isRetired && !isWorse(other))) return false
      state.isRetired = true
      yield* connection.retire
      yield* changed.beat
      return true
    }),
    changed,
    settle: Effect.suspend(() => {
      if (isSettling || states.size < 2) return Effect.void
      isSettling = true
      return settle
    }),
    isSettling: () => isSettling
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Time for identify on both sides, and for streams that are being opened. A relayed connection is kept as long.
const askMillis = 2_000
const askLaterMillis = 15_000
const firstWaitMillis = 1_000
const longestWaitMillis = 30_000
