/**
 * Redials kept and wanted peers: one fiber for each.
 *
 * The fiber lasts as long as the interest and sleeps on a latch, which every change of the peer opens. With a fiber for
 * each loss, a loss during the end of the last fiber would be dropped, and a kept peer never dialled again. The backoff
 * is in the peer's record: with a backoff for each loss, a flapping peer would escape it.
 */
import { Cause, Duration, Effect, Exit, Latch } from "effect"
import { type ConnectError, DialError, Refused } from "../../schema/NetworkError.ts"
import { ReconnectFailed, ReconnectScheduled } from "../../schema/NetworkEvent.ts"
import type { Interest, PeerId } from "../../schema/Peer.ts"
import { Dht } from "../../services/Dht.ts"
import { Discovery } from "../../services/Discovery.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { ReconnectPolicy } from "../../services/ReconnectPolicy.ts"
import * as Backoff from "../Backoff.ts"
import * as CodioRequests from "../codio/CodioRequests.ts"
import type * as Pulse from "../Pulse.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import { Dialer } from "./Dialer.ts"
import * as PeerRecord from "./PeerRecord.ts"

/** Tells the supervisors of changes. */
export interface Supervisor {
  /** The peer's record changed in any way: wakes the peer's supervisor, or starts one. */
  readonly changed: (peer: PeerRecord.PeerRecord) => Effect.Effect<void>
  /** Wakes the peer's supervisor, if it has one: its connections changed, or its next dial shall not wait. */
  readonly wake: (peer: PeerRecord.PeerRecord) => Effect.Effect<void>
  /** The delay before the next dial of a peer whose dial failed; undefined when the policy has ended. */
  readonly nextDelay: (
    peer: PeerRecord.PeerRecord,
    interest: Interest,
    error: ConnectError
  ) => Effect.Effect<Duration.Duration | undefined>
}

/**
 * Supervises while the scope lives, and beats `peersChanged` at every change of a peer.
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly peersChanged: Pulse.Pulse
  /** Told of each dial of a peer that fails, before the next one is planned. */
  readonly failed: (peer: PeerRecord.PeerRecord, error: ConnectError) => Effect.Effect<void>
}) {
  const table = yield* PeerTable
  const events = yield* NetworkEvents
  const policy = yield* ReconnectPolicy
  const dialer = yield* Dialer
  const dht = yield* Dht
  const discovery = yield* Discovery
  const start = yield* Supervised.makeSet("the supervision of a peer")
  const lookUps = yield* Supervised.makeMap<PeerId>("the look-up of a peer")
  /** Records whose supervisor runs. */
  const supervised = new WeakSet<PeerRecord.PeerRecord>()
  /** What each supervisor sleeps on. */
  const latches = new WeakMap<PeerRecord.PeerRecord, Latch.Latch>()

  const wake = (peer: PeerRecord.PeerRecord) =>
    Effect.suspend(() => {
      const latch = latches.get(peer)
      return latch === undefined ? Effect.void : Effect.asVoid(latch.open)
    })

  const changed = Effect.fnUntraced(function*(peer: PeerRecord.PeerRecord) {
    yield* wake(peer)
    yield* options.peersChanged.beat
    if (!PeerRecord.isDesired(peer) || supervised.has(peer)) return
    supervised.add(peer)
    const latch = Latch.makeUnsafe(false)
    latches.set(peer, latch)
    yield* start(Effect.onError(supervise(peer, latch), () => Effect.sync(() => supervised.delete(peer))))
  })

  const nextDelay = Effect.fnUntraced(function*(peer: PeerRecord.PeerRecord, interest: Interest, error: ConnectError) {
    const former = peer.backoff
    // The schedule of another interest may end: a peer that discovery found in vain may be kept now.
    const backoff = former?.interest === interest
      ? former
      : { interest, next: (yield* Backoff.make(policy({ id: peer.id, interest }))).next }
    PeerRecord.backsOff(peer, backoff)
    return yield* backoff.next(error)
  })

  const supervise = (peer: PeerRecord.PeerRecord, latch: Latch.Latch): Effect.Effect<void> => {
    let defects = 0
    return Effect.gen(function*() {
      while (true) {
        yield* latch.close
        if (!PeerRecord.isDesired(peer)) {
          // In one step with the question, so that the next wish for the peer starts another supervisor.
          supervised.delete(peer)
          return
        }
        const exit = yield* Effect.exit(
          Effect.flatMap(
            table.has(peer.id),
            (isConnected) => isConnected ? whileConnected(peer, latch) : attempt(peer)
          )
        )
        if (Exit.isSuccess(exit)) defects = 0
        const delay = Exit.isSuccess(exit) ? exit.value : yield* afterDefect(peer, exit.cause, ++defects)
        if (delay !== undefined) yield* waited(peer, latch, delay)
      }
    })
  }

  /** A policy or a port died under the peer, which is dialled again all the same; `explain` tells why it waits. */
  const afterDefect = Effect.fnUntraced(
    function*(peer: PeerRecord.PeerRecord, cause: Cause.Cause<never>, defects: number) {
      if (!Supervised.isDefect(cause)) return yield* Effect.failCause(cause)
      const delay = Supervised.waitAfter(defects)
      const now = yield* Elapsed.millis
      PeerRecord.died(peer, now, String(Cause.squash(cause)))
      PeerRecord.retriesAt(peer, now + Duration.toMillis(delay))
      yield* Supervised.report("the supervision of a peer", cause)
      return delay
    }
  )

  const whileConnected = (peer: PeerRecord.PeerRecord, latch: Latch.Latch): Effect.Effect<undefined> =>
    Effect.gen(function*() {
      if (PeerRecord.interestOf(peer) !== "kept") {
        yield* latch.await
        return undefined
      }
      const ask = table.follow(peer.id, CodioRequests.keepAlive)
      yield* Effect.raceFirst(
        latch.await,
        // A request that broke while the peer stays is made again, not at once.
        ask.pipe(Effect.andThen(Effect.sleep("30 seconds")), Effect.forever)
      )
      return undefined
    })

  /**
   * Dials the peer once. Answers with the wait before the next dial, which is infinite when the policy has ended;
   * undefined when the peer is connected, or no longer desired. The error ends here: the supervisor sleeps for up to a
   * minute, and a fiber that sleeps keeps what its frames hold.
   */
  const attempt = Effect.fnUntraced(function*(
    peer: PeerRecord.PeerRecord
  ): Effect.fn.Return<Duration.Duration | undefined> {
    PeerRecord.attemptBegins(peer)
    const exit = yield* Effect.exit(
      peer.failsNextDial
        ? Effect.fail(new DialError({ target: peer.id, reason: new Refused({}) }))
        : dialer.dialPeer(peer)
    )
    PeerRecord.attemptEnds(peer)
    if (Exit.isSuccess(exit)) return undefined
    const failure = Cause.findErrorOption(exit.cause)
    if (failure._tag === "None") return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
    return yield* afterFailure(peer, failure.value)
  })

  const afterFailure = Effect.fnUntraced(function*(peer: PeerRecord.PeerRecord, error: ConnectError) {
    const interest = PeerRecord.interestOf(peer)
    // The interest ended while the dial was under way.
    if (!PeerRecord.isDesired(peer)) return undefined
    if (PeerRecord.isRefusal(error)) PeerRecord.refused(peer)
    yield* options.failed(peer, error)
    const delay = yield* nextDelay(peer, interest, error)
    if (delay === undefined) {
      yield* events.publish(new ReconnectFailed({ peer: peer.id, attempts: peer.attempts }))
      PeerRecord.givenUp(peer)
      return Duration.infinity
    }
    PeerRecord.retriesAt(peer, (yield* Elapsed.millis) + Duration.toMillis(delay))
    yield* events.publish(new ReconnectScheduled({ peer: peer.id, attempt: peer.attempts, delay }))
    // A peer that refused has not moved: no DHT lookup.
    if (interest === "kept" && !PeerRecord.isRefusal(error)) {
      yield* lookUps.run(peer.id, lookUp(peer))
    }
    return delay
  })

  const waited = Effect.fnUntraced(
    function*(peer: PeerRecord.PeerRecord, latch: Latch.Latch, delay: Duration.Duration) {
      const hurried = untilHurried(peer, latch)
      yield* Duration.isFinite(delay) ? Effect.raceFirst(Effect.sleep(delay), hurried) : hurried
      PeerRecord.waitEnds(peer)
    }
  )

  /**
   * Asks the DHT for a kept peer that does not answer at its addresses: it may have moved. A new address is a sighting.
   */
  const lookUp = (peer: PeerRecord.PeerRecord) =>
    dht.findPeer(peer.id).pipe(
      Effect.flatMap((found) =>
        found.addresses.every(({ address }) => peer.addresses.has(address))
          ? Effect.void
          : discovery.announce(found, "dht")
      ),
      // The DHT has no peers, or none that knows: the next failure asks again.
      Effect.ignore
    )

  /** Ends when the peer is connected, no longer desired, or hurried; other changes do not shorten the delay. */
  const untilHurried = (peer: PeerRecord.PeerRecord, latch: Latch.Latch): Effect.Effect<void> =>
    Effect.gen(function*() {
      while (PeerRecord.isDesired(peer) && !peer.hurried && !(yield* table.has(peer.id))) {
        yield* latch.close
        yield* latch.await
      }
    })

  return { changed, wake, nextDelay } satisfies Supervisor
})
