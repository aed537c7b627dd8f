/**
 * `Health` from `Transport.ping`, by `HealthPolicy`.
 *
 * A ping is no miss when this process stalled before the answer could be read. After a long garbage collection, a
 * suspended machine or a breakpoint the time limits of all pings are over, while the answers lie unread in the sockets.
 * So only time in which this process ran counts. While a ping is unanswered, one fiber, the watch, sleeps in steps of
 * at most three quarters of the time limit. When it wakes late by more than a quarter, the clocks of all pings restart.
 *
 * A late answer is no miss either while bytes flow: a peer that moves data is alive.
 *
 * Nearly all pings are answered, so an answered ping costs neither a fiber nor a timer of its own.
 */
import { Clock, Duration, Effect, Latch, Layer, Result } from "effect"
import { PingError, PingTimeout } from "../../schema/NetworkError.ts"
import { PeerUnhealthy } from "../../schema/NetworkEvent.ts"
import type { PeerId } from "../../schema/Peer.ts"
import { Health } from "../../services/Health.ts"
import { HealthPolicy } from "../../services/HealthPolicy.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { type Connection, Transport } from "../../services/Transport.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"

/**
 * How many bytes must flow during an unanswered ping to show that the peer is alive: the answer waits behind other
 * bytes of the peer, or the ping behind other bytes of this node. More than a peer sends of its own accord, such as
 * pings and some DHT messages, which do not show that the peer hears this node.
 */
const aliveBytes = 16 * 1024

/** The `Health` that follows `HealthPolicy`. */
export const make = Effect.gen(function*() {
  const policy = yield* HealthPolicy
  const transport = yield* Transport
  const table = yield* PeerTable
  const events = yield* NetworkEvents
  const timeout = Duration.fromInputUnsafe(policy.timeout)
  const watch = yield* makeWatch(Duration.toMillis(timeout))

  const progress = Effect.fnUntraced(function*(connections: ReadonlyArray<Connection>) {
    let bytes = 0
    for (const connection of connections) bytes += yield* connection.progress
    return bytes
  })
  /** The clock of a ping begins, when the ping is asked for and anew when its turn has come. */
  const begin = Effect.fnUntraced(function*(wait: Wait, isItsTurn: boolean) {
    const connections = yield* table.connections(wait.peer)
    wait.progress = yield* progress(connections)
    wait.connections = connections.map(({ id }) => id)
    watch.begin(wait, isItsTurn)
  })

  /** Pings again while an answer or a failure comes after a stall of this process, which proves nothing. */
  const ask = (wait: Wait): Effect.Effect<Duration.Duration, PingError> =>
    Effect.andThen(
      begin(wait, false),
      Effect.matchEffect(transport.ping(wait.peer, begin(wait, true)), {
        onFailure: (error) => watch.end(wait) ? Effect.fail(error) : ask(wait),
        onSuccess: (roundTripTime) =>
          watch.end(wait) && Duration.isLessThanOrEqualTo(roundTripTime, timeout)
            ? Effect.as(table.measured(wait.peer, roundTripTime), roundTripTime)
            : ask(wait)
      })
    )

  /** Runs the pings, and fails as soon as one of them is not answered in time. */
  const within = <A>(wait: Wait, pings: Effect.Effect<A, PingError>) =>
    Effect.suspend(() => {
      const over = Effect.andThen(
        wait.over.await,
        Effect.suspend(() =>
          Effect.fail(new PingError({ peer: wait.peer, reason: new PingTimeout({ after: timeout }) }))
        )
      )
      return Effect.ensuring(Effect.raceFirst(pings, over), Effect.sync(() => watch.forget(wait)))
    })

  /**
   * Closes the connections that were silent instead of removing the peer from the table: the peer then counts as lost,
   * and a kept peer is dialled again. False when the peer has come back over another connection while the pings were
   * unanswered: whoever has moved does so before its old connection is known to be dead. An outbound connection on
   * which the remote has not identified itself shows nothing.
   */
  const giveUp = Effect.fnUntraced(function*(peer: PeerId, silent: ReadonlyArray<string>) {
    const closing: Array<Connection> = []
    let isGone = true
    for (const connection of yield* table.connections(peer)) {
      const isBack = !silent.includes(connection.id) &&
        (connection.direction === "inbound" || (yield* connection.remote)._tag === "Some")
      if (isBack) isGone = false
      else closing.push(connection)
    }
    if (isGone) yield* table.expect(peer, "unhealthy")
    yield* Effect.forEach(closing, (connection) => connection.close, { concurrency: "unbounded", discard: true })
    return isGone
  })

  /** Pings by the policy, and at once after a miss, until `maxFailures` in a row were missed or the schedule ends. */
  const probe = Effect.fnUntraced(function*(peer: PeerId) {
    let misses = 0
    // The connections that were there when the first of the misses in a row began.
    let silent: ReadonlyArray<string> | undefined
    const answered = () => {
      misses = 0
      silent = undefined
    }
    while (true) {
      const wait = makeWait(peer)
      const result = yield* Effect.result(within(
        wait,
        ask(wait).pipe(
          Effect.map(answered),
          Effect.catchReason("PingError", "PingUnsupported", () => Effect.sync(answered)),
          Effect.repeat(policy.probe)
        )
      ))
      if (Result.isSuccess(result)) return
      // The connection closed during the ping; the transport reports the loss.
      const connections = yield* table.connections(peer)
      if (connections.length === 0) return
      if (
        result.failure.reason._tag === "PingTimeout" && (yield* progress(connections)) - wait.progress >= aliveBytes
      ) {
        answered()
        continue
      }
      silent ??= wait.connections
      misses++
      yield* events.publish(new PeerUnhealthy({ peer, misses }))
      // A busy peer may refuse streams at once. Without the wait all misses would be used up in no time.
      if (misses < policy.maxFailures) {
        if (result.failure.reason._tag === "StreamFailed") yield* Effect.sleep(timeout)
        continue
      }
      if (yield* giveUp(peer, silent)) return
      // One more miss ends what is left, so that a peer which came back for a moment is not there much longer.
      misses--
      silent = undefined
    }
  })

  // The first ping leaves identify and the application's first streams some time.
  yield* table.eachPeer((peer) => Effect.delay(probe(peer), "500 millis"))

  return Health.of({
    ping: (peer) =>
      Effect.suspend(() => {
        const wait = makeWait(peer)
        return within(wait, ask(wait))
      })
  })
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<Health, never, Transport | PeerTable | NetworkEvents> = Layer.effect(Health, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How many times in a row a stalled process may restart a ping's clock, so that a process that always stalls still
 * notices dead peers.
 */
const leapsMax = 3

/** The clock of a ping, or of several in a row. */
interface Wait {
  readonly peer: PeerId
  since: number
  /** Milliseconds that the clock may run. */
  limit: number
  /** Milliseconds since then, without stalls. */
  ran: number
  /** This process stalled during the ping. */
  leapt: boolean
  /** How many times in a row a stall restarted the clock. */
  leaps: number
  /** Bytes that had moved over the peer's connections when the ping was sent. */
  progress: number
  /** The ids of those connections. */
  connections: ReadonlyArray<string>
  /** Opened when the time limit is reached. */
  readonly over: Latch.Latch
}

const makeWait = (peer: PeerId): Wait => ({
  peer,
  since: 0,
  limit: 0,
  ran: 0,
  leapt: false,
  leaps: 0,
  progress: 0,
  connections: [],
  over: Latch.makeUnsafe()
})

const makeWatch = Effect.fnUntraced(function*(limitMillis: number) {
  const clock = yield* Clock.Clock
  const quarter = limitMillis / 4
  const waits = new Set<Wait>()
  const withSleep = Elapsed.withSleep(clock)
  const begun = Latch.makeUnsafe()

  const look = Effect.gen(function*() {
    if (waits.size === 0) {
      begun.closeUnsafe()
      return yield* begun.await
    }
    const start = Elapsed.millisUnsafe(clock)
    const startWithSleep = withSleep()
    // Wake once a quarter before the limit: if that sleep was on time, everything received until then has been read.
    let left = limitMillis
    for (const { limit, ran } of waits) left = Math.min(left, limit - ran)
    const span = left - quarter >= 1 ? left - quarter : left
    yield* clock.sleep(Duration.millis(span))
    const now = Elapsed.millisUnsafe(clock)
    // This process stalled, or the machine slept.
    const leapt = withSleep() - startWithSleep - span > quarter
    for (const wait of waits) {
      if (!leapt) wait.ran += now - Math.max(start, wait.since)
      else if (++wait.leaps > leapsMax) wait.ran += span
      else Object.assign(wait, { since: now, ran: 0, leapt: true })
      // Clocks round to a millisecond.
      if (wait.limit - wait.ran >= 1) continue
      waits.delete(wait)
      wait.over.openUnsafe()
    }
  })
  yield* Supervised.forever("the watch over pings", look)

  return {
    /**
     * A ping that waits for its turn may take the time of the peer's other pings, too. Their end gives it its turn,
     * unless the transport never tells of turns.
     */
    begin(wait: Wait, isItsTurn: boolean) {
      let pings = 1
      if (!isItsTurn) { for (const other of waits) if (other !== wait && other.peer === wait.peer) pings++ }
      wait.since = Elapsed.millisUnsafe(clock)
      wait.limit = pings * limitMillis
      wait.ran = 0
      wait.leapt = false
      waits.add(wait)
      begun.openUnsafe()
    },
    /** True when this process did not stall during the ping. */
    end(wait: Wait): boolean {
      waits.delete(wait)
      if (!wait.leapt) wait.leaps = 0
      return !wait.leapt
    },
    forget: (wait: Wait) => waits.delete(wait)
  }
})
