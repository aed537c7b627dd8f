/**
 * Redials kept and wanted peers: one fiber for each.
 *
 * The fiber lives as long as the interest and sleeps on a latch, which every change of the peer opens: started per loss, a loss that comes
 * while the former fiber is ending would be dropped, and a kept peer never dialled again. The policy is stepped by hand and its step is
 * kept in the peer's record: a retry per loss would begin anew each time, and a peer that flaps would escape its backoff.
 */
import { Cause, Clock, Duration, Effect, Exit, FiberMap, FiberSet, Pull, Schedule } from "effect"
import type { ConnectError } from "../../schema/NetworkError.ts"
import { ReconnectFailed, ReconnectScheduled } from "../../schema/NetworkEvent.ts"
import { type PeerId, withPeer } from "../../schema/Peer.ts"
import { Dht } from "../../services/Dht.ts"
import { Discovery } from "../../services/Discovery.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { type KnownPeer as PolicySubject, ReconnectPolicy } from "../../services/ReconnectPolicy.ts"
import * as CodioRequests from "../codio/CodioRequests.ts"
import type { KnownPeer, Step } from "./PeerBook.ts"
import { changesOf, interestOf, isDesired, isRefusal, notify } from "./PeerBook.ts"
import { PeerDialer } from "./Dialer.ts"

/**
 * Supervises while the scope lives. `poke` is told of every change of a peer.
 */
export const make = Effect.fnUntraced(function*(options: { readonly poke: Effect.Effect<void> }) {
  const table = yield* PeerTable
  const events = yield* NetworkEvents
  const policy = yield* ReconnectPolicy
  const dialer = yield* PeerDialer
  const dht = yield* Dht
  const discovery = yield* Discovery
  const fibers = yield* FiberSet.make<unknown, unknown>()
  const lookUps = yield* FiberMap.make<PeerId>()

  /** Tells the table and the supervisor what has changed. A supervisor that is missing is started. */
  const changed = Effect.fnUntraced(function*(peer: KnownPeer) {
    yield* table.rank(peer.id, interestOf(peer))
    yield* notify(peer)
    yield* options.poke
    if (!isDesired(peer) || peer.supervised) return
    peer.supervised = true
    yield* FiberSet.run(
      fibers,
      Effect.onError(supervise(peer), () =>
        Effect.sync(() => {
          peer.supervised = false
        }))
    )
  })

  /** The delay before the next dial; none when the policy has ended. */
  const nextDelay = Effect.fnUntraced(function*(
    peer: { step: Step | undefined },
    who: PolicySubject,
    error: ConnectError
  ) {
    peer.step ??= yield* Schedule.toStep(policy(who)) as Effect.Effect<Step>
    const now = yield* Clock.currentTimeMillis
    return yield* peer.step(now, error).pipe(
      Effect.map(([, delay]) => delay),
      Pull.catchDone(() => Effect.succeed(undefined))
    )
  })

  const supervise = (peer: KnownPeer): Effect.Effect<void> =>
    Effect.gen(function*() {
      while (true) {
        yield* changesOf(peer).close
        if (!isDesired(peer)) {
          // In one step with the question, so that whoever wants the peer next starts another.
          peer.supervised = false
          return
        }
        if (yield* table.has(peer.id)) {
          yield* whileConnected(peer)
          continue
        }
        peer.hurried = false
        peer.retryAt = undefined
        const exit = yield* Effect.exit(
          peer.loss === undefined ? dialer.dialPeer(peer) : Effect.fail(peer.loss)
        )
        peer.loss = undefined
        if (Exit.isSuccess(exit)) continue
        const failure = Cause.findErrorOption(exit.cause)
        if (failure._tag === "None") return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
        yield* afterFailure(peer, failure.value)
      }
    })

  const whileConnected = (peer: KnownPeer): Effect.Effect<void> =>
    Effect.gen(function*() {
      if (interestOf(peer) !== "kept") return yield* changesOf(peer).await
      const ask = table.follow(peer.id, CodioRequests.keepAlive)
      yield* Effect.raceFirst(
        changesOf(peer).await,
        // A keep stream that broke while the peer stays is asked for again, not at once.
        ask.pipe(Effect.andThen(Effect.sleep("30 seconds")), Effect.forever)
      )
    })

  const afterFailure = Effect.fnUntraced(function*(peer: KnownPeer, error: ConnectError) {
    const interest = interestOf(peer)
    // Somebody ended the interest while the dial was under way.
    if (!isDesired(peer)) return
    // That it refused tells more than that it is seen.
    if (isRefusal(error)) peer.flapping = true
    const delay = yield* nextDelay(peer, { id: peer.id, interest }, error)
    if (delay === undefined) {
      yield* events.publish(new ReconnectFailed({ peer: peer.id, attempts: peer.attempts }))
      peer.wanted = false
      peer.step = undefined
      peer.attempts = 0
      yield* table.rank(peer.id, interestOf(peer))
      // A kept peer whose policy ends waits for a sighting.
      return yield* hurry(peer)
    }
    peer.attempts++
    peer.retryAt = (yield* Clock.currentTimeMillis) + Duration.toMillis(delay)
    yield* events.publish(new ReconnectScheduled({ peer: peer.id, attempt: peer.attempts, delay }))
    // One that refused is where it was.
    if (interest === "kept" && !isRefusal(error)) {
      yield* FiberMap.run(lookUps, peer.id, lookUp(peer), { onlyIfMissing: true })
    }
    yield* Effect.raceFirst(Effect.sleep(delay), hurry(peer))
    peer.retryAt = undefined
  })

  /** A kept peer that is not where it was may have moved. The DHT is asked for it; a place that was not known is a sighting. */
  const lookUp = (peer: KnownPeer) =>
    dht.findPeer(peer.id).pipe(
      Effect.flatMap((found) =>
        found.addresses.every((address) => peer.addresses.has(withPeer(address, peer.id)))
          ? Effect.void
          : discovery.announce(found, "dht")
      ),
      // Nobody to ask, or nobody who knows: the next failure asks again.
      Effect.ignore
    )

  /** Ends when the peer is connected, no longer desired, or seen by discovery; other changes do not shorten the delay. */
  const hurry = (peer: KnownPeer): Effect.Effect<void> =>
    Effect.gen(function*() {
      while (isDesired(peer) && !peer.hurried && !(yield* table.has(peer.id))) {
        yield* changesOf(peer).close
        yield* changesOf(peer).await
      }
    })

  return { changed, nextDelay }
})
