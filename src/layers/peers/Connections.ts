/**
 * The connections of one peer: which is the best, who uses which, and how several become one.
 *
 * Two nodes that dial each other at once have two connections, and a relayed one is joined by a direct one. Both sides put them into the same
 * order, so that new streams of both go to the same one, and the others end:
 *
 * 1. direct before relayed;
 * 2. dialled by the peer with the smaller id, in the order of the ids as texts, before dialled by the other;
 * 3. the newer before the older: of two that the same side dialled, the older may be one that this side alone believes in.
 *
 * A connection is closed only when the remote has agreed to open nothing more on it (`retire` of `/codio/1.0.0`). The answer comes after
 * whatever the remote opened before, so that no stream is cut, not even one that has just been opened. The peer with the smaller id asks; the
 * other one does too, later, since the first may know of one connection only. Other software opens streams where it likes, and is asked
 * nothing: its connections stay.
 */
import { Effect } from "effect"
import type { PeerId } from "../../schema/Peer.ts"
import { comparing, type Connection, type Ranked } from "../../services/Transport.ts"
import * as CodioRequests from "../codio/CodioRequests.ts"
import { countedNetworkOf } from "../../services/AddressGuard.ts"
import * as Pulse from "../Pulse.ts"

/**
 * How a stream came to be: `holds` are those of this side, `attends` those that the remote opened.
 */
export type Use = "holds" | "attends"

export interface PeerConnections {
  readonly size: () => number
  readonly has: (connection: Connection) => boolean
  /** Oldest first. */
  readonly all: () => ReadonlyArray<Connection>
  /** The networks that they come from, as far as they are counted. */
  readonly networks: () => ReadonlySet<string>
  /** To be followed by `tell`, as `remove` is. */
  readonly add: (connection: Connection, isDirect: boolean) => void
  /** False when it is none of them. */
  readonly remove: (connection: Connection) => boolean
  /** Tells those that wait that there are others now. */
  readonly tell: Effect.Effect<void>
  /** Those that are open, the best one first. */
  readonly best: Effect.Effect<ReadonlyArray<Connection>>
  /** Counts a stream that is open, or about to be. */
  readonly begin: (connection: Connection, use: Use) => void
  readonly end: (connection: Connection, use: Use) => Effect.Effect<void>
  /**
   * The remote asks this side to open nothing more on a connection. True, and from then on kept, when no stream of this side is open on it
   * and another connection is open that is no worse than a relayed one is.
   */
  readonly retire: (connection: Connection) => Effect.Effect<boolean>
  /** Beats when another connection may be the best. */
  readonly changed: Pulse.Pulse
  /** Makes one of several, and ends when that is done. To be run when there is a second one. */
  readonly settle: Effect.Effect<void>
}

interface Line extends Ranked {
  readonly connection: Connection
  holds: number
  attends: number
  /** One side has asked the other to open nothing more on it. */
  isRetired: boolean
  /** The remote has agreed. */
  isAgreed: boolean
  /** It is to be closed when it is used no more. */
  isAwaited: boolean
}

export const make = (local: PeerId, peer: PeerId): PeerConnections => {
  /** By connection id, oldest first. */
  const lines = new Map<string, Line>()
  const changed = Pulse.make()
  /** One that is awaited is used no more, or there is another. */
  const freed = Pulse.make()
  const compare = comparing(local, peer)
  let isSettling = false

  const ordered = Effect.gen(function*() {
    const open: Array<Line> = []
    for (const line of lines.values()) if (yield* line.connection.isOpen) open.unshift(line)
    return open.length < 2 ? open : open.sort((a, b) => Number(a.isRetired) - Number(b.isRetired) || compare(a, b))
  })

  const isUsed = (line: Line) => line.holds + line.attends > 0

  /** Whether the remote speaks the protocol; undefined until it has identified itself. */
  const isSpoken = Effect.gen(function*() {
    for (const { connection } of lines.values()) {
      const remote = yield* connection.remote
      if (remote._tag === "Some") return yield* CodioRequests.isSpoken(connection)
    }
    return undefined
  })

  /** True when the line is gone, or will go by itself. */
  const end = Effect.fnUntraced(function*(line: Line) {
    if (!line.isAgreed) {
      line.isRetired = true
      const answer = yield* CodioRequests.retire(line.connection)
      // While the best connection answers pings, one that does not answer for so long is dead.
      if (answer === "unanswered") return yield* line.connection.close
      line.isAgreed = answer === "agreed"
      if (!line.isAgreed) {
        line.isRetired = false
        return yield* changed.beat
      }
      yield* line.connection.retire
    }
    const [best] = yield* ordered
    if (best === line || isUsed(line) || (yield* line.connection.streams) > 0) return
    yield* line.connection.close
  })

  const settle = Effect.gen(function*() {
    // What was agreed was for the sake of a connection that may have gone.
    for (const line of lines.values()) {
      line.isAgreed = false
      line.isRetired = false
      line.isAwaited = false
    }
    yield* Effect.sleep(local < peer ? askMillis : askLaterMillis)
    for (let wait = firstWaitMillis; lines.size > 1; wait = Math.min(wait * 2, longestWaitMillis)) {
      const next = freed.next()
      const isKnown = yield* isSpoken
      if (isKnown === false) return
      const [, ...surplus] = isKnown === undefined ? [] : yield* ordered
      for (const line of surplus) line.isAwaited = isUsed(line)
      const free = surplus.filter((line) => !line.isAwaited)
      yield* Effect.forEach(free, end, { discard: true })
      // A stream of long life costs no wake: its end beats.
      if (lines.size < 2) return
      yield* surplus.length > 0 && free.length === 0 ? next : Effect.raceFirst(next, Effect.sleep(wait))
    }
  }).pipe(Effect.ensuring(Effect.sync(() => {
    isSettling = false
  })))

  return {
    size: () => lines.size,
    has: (connection) => lines.has(connection.id),
    all: () => Array.from(lines.values(), (line) => line.connection),
    networks: () => {
      const networks = new Set<string>()
      for (const { connection } of lines.values()) {
        const network = countedNetworkOf(connection.remoteAddress)
        if (network !== undefined) networks.add(network)
      }
      return networks
    },
    add: (connection, isDirect) => {
      const { direction } = connection
      const use = { holds: 0, attends: 0, isRetired: false, isAgreed: false, isAwaited: false }
      lines.set(connection.id, { connection, direction, isDirect, ...use })
    },
    remove: (connection) => lines.delete(connection.id),
    tell: Effect.andThen(changed.beat, freed.beat),
    best: Effect.map(ordered, (open) => open.map((line) => line.connection)),
    begin: (connection, use) => {
      const line = lines.get(connection.id)
      if (line !== undefined) line[use]++
    },
    end: (connection, use) =>
      Effect.suspend(() => {
        const line = lines.get(connection.id)
        if (line === undefined) return Effect.void
        if (--line[use] < 0) return Effect.die(new Error(`negative ${use} of a connection with ${peer}`))
        return line.isAwaited && !isUsed(line) ? freed.beat : Effect.void
      }),
    retire: Effect.fnUntraced(function*(connection) {
      const line = lines.get(connection.id)
      const open = yield* ordered
      const isWorse = (other: Line) => line?.isDirect === true && !other.isDirect
      if (line === undefined || line.holds > 0) return false
      if (!open.some((other) => other !== line && !other.isRetired && !isWorse(other))) return false
      line.isRetired = true
      yield* connection.retire
      yield* changed.beat
      return true
    }),
    changed,
    settle: Effect.suspend(() => {
      if (isSettling || lines.size < 2) return Effect.void
      isSettling = true
      return settle
    })
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Until both are identified, and whoever opens a stream in the middle of it all has done so. A relayed connection is kept as long.
const askMillis = 2_000
const askLaterMillis = 15_000
const firstWaitMillis = 1_000
const longestWaitMillis = 30_000
