/**
 * The bytes that wait in the streams of one node, and how the streams share the room for them.
 *
 * A stream whose reader is slow is like a guest who lets plates pile up. As long as the table is half empty nobody
 * minds; then each guest is served less, the fuller his own end of the table is; and when the table is full, the guest
 * with the highest pile has to leave. Two numbers follow from this:
 *
 * - {@link Share.allowance}: bytes that may wait in a stream. Half of the limit is shared evenly among the connections
 *   whose streams hold bytes, and each part among the streams of its connection. What others leave of that half may be
 *   used beyond the even share. The transport makes the windows of its streams no wider than this.
 * - The limit itself. A first window is not for the receiver to choose (256 KiB in Yamux), so many streams together can
 *   pass the half. When they pass the limit, the connection that holds the most loses its fullest stream.
 */
import { type Context, Effect, Metric } from "effect"
import type { StreamRefusal } from "../schema/NodeStatus.ts"
import * as NetworkMetrics from "../services/NetworkMetrics.ts"
import type { StreamAccount } from "../services/Transport.ts"

/** What the budget has to know of a stream, and what it may do with it. */
export interface Holder {
  /** Bytes that have come and were not read, and bytes that were written and not sent. */
  readonly waiting: () => number
  /** Bytes that the remote may send beyond its first window, so that they may have to wait next. */
  readonly promised: () => number
  /** Resets the stream. */
  readonly evict: (detail: string) => void
}

/** The part of one stream. */
export interface Share {
  /** How many bytes may wait in the stream, those that wait now included. */
  readonly allowance: () => number
  /** Looks again at what waits; may evict this stream or others. */
  readonly update: () => void
  /** Counts the stream against a limit of its own as well. */
  readonly join: (group: Group) => void
  /** The stream is over. Safe to call twice. */
  readonly close: () => void
}

/** Streams that have a limit of their own together, or are the streams of one connection. */
export interface Group {
  readonly limit: number
  readonly shares: Set<Member>
  /** Bytes that wait. */
  waiting: number
  /** Bytes that wait or may have to. */
  charged: number
  /** Called when the last stream has left. */
  readonly onEmpty: () => void
}

/** The budget of one node. */
export interface StreamBudget extends StreamAccount {
  /** The part of a stream of a connection. */
  readonly open: (connection: Group, holder: Holder) => Share
}

/** Streams that may hold so many bytes together. */
export const group = (limit: number = Number.POSITIVE_INFINITY, onEmpty: () => void = () => {}): Group => ({
  limit,
  shares: new Set(),
  waiting: 0,
  charged: 0,
  onEmpty
})

/** A group of its own for each peer that has a stream. */
export const perPeer = (limit: number): (peer: string) => Group => {
  const groups = new Map<string, Group>()
  return (peer) => {
    const made = groups.get(peer) ?? group(limit, () => groups.delete(peer))
    groups.set(peer, made)
    return made
  }
}

/** The budget of a node, in bytes. `context` has the metrics. */
export const make = (limit: number, context: Context.Context<never>): StreamBudget => {
  const node = group(limit)
  // Connections with a stream that holds something.
  const holding = new Set<Group>()
  const refusals: Partial<Record<StreamRefusal, number>> = {}

  const count = (reason: StreamRefusal) => {
    refusals[reason] = (refusals[reason] ?? 0) + 1
    Metric.withAttributes(NetworkMetrics.refusedStreams, { reason }).updateUnsafe(1, context)
  }

  const evict = (from: Group, detail: string) => {
    const fullest = largest(from.shares)
    if (fullest === undefined) return false
    fullest.measure()
    // It was read meanwhile, and the numbers of the others may be as old.
    if (fullest !== largest(from.shares)) return true
    fullest.close()
    count("buffered")
    fullest.holder.evict(detail)
    return true
  }
  const makeRoomIn = (limited: Group) => {
    while (limited.waiting > limited.limit) {
      if (!evict(limited, `more than the ${limited.limit} bytes that a peer may let wait in the protocol`)) break
    }
  }
  const makeRoom = () => {
    while (node.waiting > node.limit) {
      const connection = largest(holding)
      if (connection === undefined || !evict(connection, `more than the ${limit} bytes that may wait in streams`)) break
    }
  }

  const open = (connection: Group, holder: Holder): Share => {
    let limited: Group | undefined
    let isOpen = true
    const member: Member = {
      holder,
      waiting: 0,
      charged: 0,
      measure: () => {
        if (isOpen) set(holder.waiting(), holder.promised())
      },
      close: () => {
        if (!isOpen) return
        set(0, 0)
        isOpen = false
        if (limited?.shares.delete(member) === true && limited.shares.size === 0) limited.onEmpty()
      }
    }
    const set = (waiting: number, promised: number) => {
      const charged = Math.max(waiting, promised)
      if (waiting === member.waiting && charged === member.charged) return
      for (const one of limited === undefined ? [node, connection] : [node, connection, limited]) {
        one.waiting += waiting - member.waiting
        one.charged += charged - member.charged
      }
      member.waiting = waiting
      member.charged = charged
      if (charged > 0) connection.shares.add(member)
      else connection.shares.delete(member)
      if (connection.shares.size > 0) holding.add(connection)
      else holding.delete(connection)
    }
    return {
      allowance: () => {
        const others = holding.size - (holding.has(connection) ? 1 : 0)
        const half = limit / 2
        const ours = Math.max(half - (node.charged - connection.charged), half / (others + 1))
        const siblings = connection.shares.size - (connection.shares.has(member) ? 1 : 0)
        const free = ours - (connection.charged - member.charged)
        const own = Math.max(free / 2, ours / (siblings + 1))
        if (limited === undefined) return own
        return Math.min(own, Math.max(limited.limit - limited.charged + member.charged, 0))
      },
      update: () => {
        member.measure()
        if (limited !== undefined) makeRoomIn(limited)
        makeRoom()
      },
      join: (given) => {
        if (limited !== undefined) return
        limited = given
        if (!isOpen) return given.shares.size === 0 ? given.onEmpty() : undefined
        given.shares.add(member)
        given.waiting += member.waiting
        given.charged += member.charged
        makeRoomIn(given)
      },
      close: member.close
    }
  }

  return {
    open,
    limit,
    buffered: Effect.sync(() => {
      for (const connection of [...holding]) for (const member of [...connection.shares]) member.measure()
      return node.waiting
    }),
    refuse: (reason) => Effect.sync(() => count(reason)),
    refusals: Effect.sync(() => ({ ...refusals }))
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Member {
  readonly holder: Holder
  waiting: number
  charged: number
  readonly measure: () => void
  readonly close: () => void
}

function largest<A extends { readonly waiting: number }>(all: Iterable<A>): A | undefined {
  let found: A | undefined
  for (const one of all) if (one.waiting > (found?.waiting ?? 0)) found = one
  return found
}
