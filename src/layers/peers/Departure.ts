/**
 * How a peer leaves the table, and why.
 *
 * A departure begins with one synchronous step, after which the table neither counts nor finds the peer. What takes
 * time comes after the step: the event, the goodbye, and the end of the peer's scope, which closes the connections.
 */
import { Duration, Effect, Exit, Fiber, Metric, Schema, Scope } from "effect"
import { GoodbyeReason, PeerDisconnected } from "../../schema/NetworkEvent.ts"
import type { PeerId } from "../../schema/Peer.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import * as NetworkMetrics from "../../services/NetworkMetrics.ts"
import type { Departure } from "../../services/PeerTable.ts"
import { Shutdown } from "../../services/Shutdown.ts"
import type { Connection, Farewell } from "../../services/Transport.ts"
import * as CodioRequests from "../codio/CodioRequests.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import { type Entry, flushed, unchecked } from "./Entry.ts"

export const make = Effect.fnUntraced(function*(entries: Map<PeerId, Entry>) {
  const events = yield* NetworkEvents
  const shutdown = yield* Shutdown
  const told = yield* Supervised.told
  /** Connections that are never admitted again: they closed, or the table closes them since their peer leaves. */
  const gone = new WeakMap<Connection, Departure | undefined>()
  /** Entries that have left the table, until that is published. */
  const leaving = new Map<PeerId, Entry>()
  const finishing = new Set<Fiber.Fiber<void>>()

  /**
   * Takes the entry out of the table in one step with the call. The effect that it gives does the rest, and must be
   * run.
   */
  const begin = (entry: Entry, departure: Departure): Effect.Effect<void> => {
    entries.delete(entry.id)
    leaving.set(entry.id, entry)
    for (const connection of entry.connections.all()) gone.set(connection, departure)
    return finish(entry, departure)
  }

  const takeLeave = Effect.fnUntraced(function*(entry: Entry, { reason, remoteReason }: Departure) {
    const now = yield* Elapsed.millis
    yield* Metric.modify(NetworkMetrics.peers, -1)
    yield* entry.announced.await
    yield* events.publish(
      new PeerDisconnected({
        peer: entry.id,
        reason,
        ...(remoteReason === undefined ? {} : { remoteReason }),
        connectionDuration: Duration.millis(now - entry.connectedAt)
      }, unchecked)
    )
    if (leaving.get(entry.id) === entry) leaving.delete(entry.id)
    yield* entry.parted.open
    if (isGoodbyeReason(reason)) {
      const [connection] = yield* entry.connections.best
      const goodbye = connection === undefined ? Effect.void : CodioRequests.goodbye(connection, reason)
      yield* reason === "shutdown" ? shutdown.part("goodbyes", goodbye) : goodbye
    }
    if (reason === "shutdown") yield* shutdown.part(`streams of ${entry.id}`, flushed(entry), "most")
  })

  // The peer has left the table: nothing else would ever close its connections if leave cannot be taken.
  const finish = Effect.fnUntraced(function*(entry: Entry, departure: Departure) {
    yield* told(Supervised.once("a departure", takeLeave(entry, departure)))
    if (leaving.get(entry.id) === entry) leaving.delete(entry.id)
    yield* entry.parted.open
    const end = told(Scope.close(entry.scope, Exit.void))
    yield* departure.reason === "shutdown" ? shutdown.part("connections of peers", end) : end
  }, Effect.uninterruptible)

  return {
    begin,

    /**
     * As `begin`, but the caller does not wait for the rest. A fiber that is forked into a scope which closes before
     * the fiber starts never runs, and the connections would stay open; so the fiber is detached, and `settled` waits
     * for it.
     */
    beginApart: (entry: Entry, departure: Departure) =>
      Effect.map(Effect.forkDetach(told(Supervised.once("a departure", begin(entry, departure)))), (fiber) => {
        finishing.add(fiber)
        fiber.addObserver(() => finishing.delete(fiber))
      }),

    /** Ends when every departure that was begun apart has ended. */
    settled: shutdown.part("connections of peers", Effect.suspend(() => Fiber.awaitAll([...finishing]))),

    /**
     * Ends when the peer's former entry has published its `PeerDisconnected`. Waits for the departure that is under way
     * now, not for one that begins later.
     */
    formerOf: (peer: PeerId): Effect.Effect<void> => leaving.get(peer)?.parted.await ?? Effect.void,

    /** The connection has closed, or its peer has left: it is not to be admitted any more. */
    isGone: (connection: Connection): boolean => gone.has(connection),

    /** Notes that the connection closed. Returns why the table closed it; undefined if the table did not. */
    closed: (connection: Connection): Departure | undefined => {
      const departure = gone.get(connection)
      gone.set(connection, departure)
      return departure
    }
  }
})

/** The departure of a peer that this node lets go. */
export const byThisNode = (reason: GoodbyeReason): Departure => ({ reason, remoteReason: undefined, isExpected: true })

/** The departure of a peer whose last connection closed without `remove` and without a goodbye. */
export const lossOf = (connection: Connection): Effect.Effect<Departure> =>
  Effect.map(connection.farewell, (farewell) =>
    farewell === undefined
      ? { reason: "lost", remoteReason: undefined, isExpected: false }
      // The remote's host had no slot for this node, as after an eviction.
      : { reason: "remote", remoteReason: isSlotless(farewell) ? "evicted" : farewell, isExpected: false })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const isSlotless = (farewell: Farewell): farewell is "full" | "promised" =>
  farewell === "full" || farewell === "promised"

const isGoodbyeReason = Schema.is(GoodbyeReason)
