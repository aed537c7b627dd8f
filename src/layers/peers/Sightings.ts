/**
 * Follows discovery and dials peers that the program did not ask for, while fewer than `minPeers` are connected or the
 * node is isolated.
 */
import { Cause, Duration, Effect, Exit, Stream } from "effect"
import { PeerDiscovered } from "../../schema/NetworkEvent.ts"
import { addressOf } from "../../schema/Peer.ts"
import { Discovery, type Sighting, sourceTraits } from "../../services/Discovery.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { isPromised } from "../../services/ReconnectPolicy.ts"
import { Transport } from "../../services/Transport.ts"
import type * as Pulse from "../Pulse.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import { Dialer } from "./Dialer.ts"
import * as Isolation from "./Isolation.ts"
import { PeerBook } from "./PeerBook.ts"
import * as PeerRecord from "./PeerRecord.ts"
import type { Supervisor } from "./Supervisor.ts"

/** Sightings hurry the dial of a kept or wanted peer at most this often. */
const sightingMillis = 10_000

/** An isolated node dials at most so many peers at a time. */
const isolatedDialsMax = 16

/**
 * Follows discovery while the scope lives, and gets an isolated node back into the network.
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly supervisor: Supervisor
  readonly peersChanged: Pulse.Pulse
  readonly keptAddresses: () => number
}) {
  const { keptAddresses, peersChanged, supervisor } = options
  const config = yield* NetworkConfig
  const transport = yield* Transport
  const table = yield* PeerTable
  const discovery = yield* Discovery
  const events = yield* NetworkEvents
  const book = yield* PeerBook
  const dialer = yield* Dialer
  const inBackground = yield* Supervised.makeSet("a dial that nobody asked for")
  const cooldownMillis = Duration.toMillis(config.rediscoveryCooldown)
  /** How many dials of {@link dial} are under way. */
  let dialing = 0

  /** Dials a peer unasked. Never fails. */
  const dial = (peer: PeerRecord.PeerRecord) =>
    Effect.gen(function*() {
      dialing++
      PeerRecord.sought(peer)
      const exit = yield* Effect.exit(dialer.dialPeer(peer))
      if (Exit.isSuccess(exit)) return PeerRecord.found(peer)
      PeerRecord.missed(peer)
      const failure = Cause.findErrorOption(exit.cause)
      if (failure._tag === "None") return
      const now = yield* Elapsed.millis
      if (PeerRecord.isRefusal(failure.value) && !isPromised(failure.value)) {
        PeerRecord.backsOff(peer, undefined)
        return PeerRecord.rests(peer, now + cooldownMillis)
      }
      const delay = yield* supervisor.nextDelay(peer, "discovered", failure.value)
      if (delay === undefined) PeerRecord.backsOff(peer, undefined)
      PeerRecord.waitsUntil(peer, now + (delay === undefined ? cooldownMillis : Duration.toMillis(delay)))
    }).pipe(
      // Isolation gives its other dials up when a peer comes, which may be this one.
      Effect.onInterrupt(() =>
        Effect.map(table.has(peer.id), (isConnected) => isConnected ? undefined : PeerRecord.missed(peer))
      ),
      Effect.ensuring(Effect.sync(() => dialing--))
    )

  const isolation = yield* Isolation.make({
    peersAtOnce: Math.min(isolatedDialsMax, config.minPeers),
    peersChanged,
    dial,
    keptAddresses
  })

  /** Notes the addresses of a sighting in the book; answers with the new ones. */
  const note = Effect.fnUntraced(function*(sighting: Sighting) {
    const { addresses, id, source } = sighting
    const isNew = book.get(id) === undefined
    const peer = book.record(id)
    const fresh = addresses.filter(({ address, tellers }) =>
      !peer.addresses.isOfAnother(address) && peer.addresses.learn(address, source, tellers)
    )
    if (isNew || fresh.length > 0) {
      yield* events.publish(new PeerDiscovered({ peer: id, addresses: addresses.map(addressOf), source }))
    }
    return { peer, hasNews: fresh.length > 0 }
  })

  const sighted = Effect.fnUntraced(function*(sighting: Sighting) {
    if (sighting.id === transport.localPeer) return
    const { hasNews, peer } = yield* note(sighting)
    if (PeerRecord.isBlocked(peer) || (yield* table.has(peer.id))) return
    const now = yield* Elapsed.millis
    if (PeerRecord.isDesired(peer)) {
      // The peer lives, so its wait is over; but a peer that flaps or refuses is seen all the time.
      const isSign = sourceTraits(sighting.source).isSignOfLife && !peer.flapping &&
        now - peer.hurriedAt >= sightingMillis
      if (!hasNews && !isSign) return
      PeerRecord.hurried(peer, now)
      return yield* supervisor.wake(peer)
    }
    if (peer.suspended) return
    if (hasNews) {
      PeerRecord.reappeared(peer)
      yield* isolation.hope
    }
    if (dialer.dialing(peer.id) !== undefined || (yield* table.size) + dialing >= config.minPeers) return
    if (now < Math.max(peer.restUntil, peer.retryAt ?? 0) && !hasNews) return
    yield* inBackground(dial(peer))
  })

  yield* Supervised.fork(
    "sightings",
    Stream.runForEach(Stream.fromQueue(discovery.peers), (sighting) => Supervised.once("a sighting", sighted(sighting)))
  )

  return isolation
})
