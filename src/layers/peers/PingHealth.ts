/**
 * `Health` from `Transport.ping`, by `HealthPolicy`.
 *
 * A ping that is not answered while this process itself does not run is no miss: after a long garbage collection, a
 * suspended machine or a breakpoint the time limits of all pings are over, and the answers lie unread in the sockets.
 * So time counts only as far as this process ran: one fiber, the watch, sleeps a quarter of the time limit at a time
 * while a ping is unanswered, and what it overslept by more than another quarter begins anew for each of them.
 *
 * Nor is one whose answer waits behind other bytes: whoever moves some is alive.
 *
 * An answered ping costs neither a fiber nor a timer of its own, since nearly all are answered.
 */
import { Clock, Duration, Effect, Latch, Layer, Result } from "effect"
import { PingError, PingTimeout } from "../../schema/NetworkError.ts"
import { PeerUnhealthy } from "../../schema/NetworkEvent.ts"
import type { PeerId } from "../../schema/Peer.ts"
import { Health } from "../../services/Health.ts"
import { HealthPolicy } from "../../services/HealthPolicy.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { Transport } from "../../services/Transport.ts"

/**
 * By so many bytes a peer shows that it lives, though it does not answer: its answers wait behind others of its bytes,
 * or this node's pings behind other bytes of this node. More than what a peer says of its own accord, such as pings and
 * a few answers of the DHT, which is no sign that this node is heard.
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

  const progress = Effect.fnUntraced(function*(peer: PeerId) {
    let bytes = 0
    for (const connection of yield* table.connections(peer)) bytes += yield* connection.progress
    return bytes
  })
  /** The time limit counts from here: before, the ping waited for the transport to end another. */
  const begun = (peer: PeerId, wait: Wait) =>
    Effect.map(progress(peer), (bytes) => {
      wait.progress = bytes
      watch.begin(wait)
    })

  /** Pings until there is an answer, or a failure, during which this process ran all the while. */
  const ask = (peer: PeerId, wait: Wait): Effect.Effect<Duration.Duration, PingError> =>
    Effect.suspend(() => {
      wait.leapt = false
      return Effect.matchEffect(transport.ping(peer, begun(peer, wait)), {
        onFailure: (error) => watch.end(wait) ? Effect.fail(error) : ask(peer, wait),
        onSuccess: (roundTripTime) =>
          watch.end(wait) && Duration.isLessThanOrEqualTo(roundTripTime, timeout)
            ? Effect.as(table.measured(peer, roundTripTime), roundTripTime)
            : ask(peer, wait)
      })
    })

  /** Runs pings, one at a time, until one is not answered in time. */
  const within = <A>(peer: PeerId, wait: Wait, pings: Effect.Effect<A, PingError>) =>
    Effect.suspend(() => {
      const over = Effect.andThen(
        wait.over.await,
        Effect.suspend(() => Effect.fail(new PingError({ peer, reason: new PingTimeout({ after: timeout }) })))
      )
      return Effect.ensuring(Effect.raceFirst(pings, over), Effect.sync(() => watch.forget(wait)))
    })

  /**
   * Closes the connections, not the entry: the loss then takes the same way as any other, and a kept peer is dialled
   * again.
   */
  const giveUp = Effect.fnUntraced(function*(peer: PeerId) {
    yield* table.expect(peer, "unhealthy")
    const connections = yield* table.connections(peer)
    yield* Effect.forEach(connections, (connection) => connection.close, { concurrency: "unbounded", discard: true })
  })

  /** Pings by the policy, after a miss at once, until so many in a row were missed. Ends with the policy's schedule. */
  const probe = Effect.fnUntraced(function*(peer: PeerId) {
    let misses = 0
    const answered = () => {
      misses = 0
    }
    while (misses < policy.maxFailures) {
      const wait = makeWait()
      const result = yield* Effect.result(within(
        peer,
        wait,
        ask(peer, wait).pipe(
          Effect.map(answered),
          Effect.catchReason("PingError", "PingUnsupported", () => Effect.sync(answered)),
          Effect.repeat(policy.probe)
        )
      ))
      if (Result.isSuccess(result)) return
      // The connection went in the middle of a ping; its loss is told by the transport.
      if ((yield* table.connections(peer)).length === 0) return
      if (result.failure.reason._tag === "PingTimeout" && (yield* progress(peer)) - wait.progress >= aliveBytes) {
        answered()
        continue
      }
      misses++
      yield* events.publish(new PeerUnhealthy({ peer, misses }))
      // A stream that breaks at once would otherwise use up the misses in one turn, and close a peer that is merely
      // busy.
      if (result.failure.reason._tag === "StreamFailed" && misses < policy.maxFailures) yield* Effect.sleep(timeout)
    }
    yield* giveUp(peer)
  })

  // The first waits until the connection has settled: on both ends identify and the application come first.
  yield* table.eachPeer((peer) => Effect.delay(probe(peer), "500 millis"))

  return Health.of({
    ping: (peer) =>
      Effect.suspend(() => {
        const wait = makeWait()
        return within(peer, wait, ask(peer, wait))
      })
  })
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<Health, never, Transport | PeerTable | NetworkEvents> = Layer.effect(Health, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/**
 * So often in a row time begins anew. A process that is always late, since it has too much to do, must lose dead peers
 * too.
 */
const leapsMax = 3

/** A ping that may be unanswered, and for how long. */
interface Wait {
  since: number
  /** Milliseconds in which this process ran. */
  ran: number
  /** This process did not run for a while. */
  leapt: boolean
  /** How often so, in this ping and those just before. */
  leaps: number
  /** The progress of the peer's connections when the ping began. */
  progress: number
  /** Opened when the time is over. */
  readonly over: Latch.Latch
}

const makeWait = (): Wait => ({
  since: 0,
  ran: 0,
  leapt: false,
  leaps: 0,
  progress: 0,
  over: Latch.makeUnsafe()
})

const makeWatch = Effect.fnUntraced(function*(limitMillis: number) {
  const clock = yield* Clock.Clock
  const quarter = limitMillis / 4
  // Oldest first, so that the first one is over first.
  const waits = new Set<Wait>()
  const begun = Latch.makeUnsafe()

  const look = Effect.gen(function*() {
    const [oldest] = waits
    if (oldest === undefined) {
      begun.closeUnsafe()
      return yield* begun.await
    }
    const start = clock.currentTimeMillisUnsafe()
    // The last quarter apart: whoever has slept through it in time has read before what had come until then.
    const left = limitMillis - oldest.ran
    const span = left - quarter >= 1 ? left - quarter : left
    yield* clock.sleep(Duration.millis(span))
    const now = clock.currentTimeMillisUnsafe()
    // Late, or set back.
    const leapt = Math.abs(now - start - span) > quarter
    for (const wait of waits) {
      if (!leapt) wait.ran += now - Math.max(start, wait.since)
      else if (++wait.leaps > leapsMax) wait.ran += span
      else Object.assign(wait, { since: now, ran: 0, leapt: true })
      // Clocks round, so what is over but for less than a millisecond is over.
      if (limitMillis - wait.ran >= 1) continue
      waits.delete(wait)
      wait.over.openUnsafe()
    }
  })
  yield* Effect.forkScoped(Effect.forever(look))

  return {
    begin(wait: Wait) {
      wait.since = clock.currentTimeMillisUnsafe()
      wait.ran = 0
      wait.leapt = false
      waits.add(wait)
      begun.openUnsafe()
    },
    /** True when this process ran all the while. */
    end(wait: Wait): boolean {
      waits.delete(wait)
      if (!wait.leapt) wait.leaps = 0
      return !wait.leapt
    },
    forget: (wait: Wait) => waits.delete(wait)
  }
})
