/**
 * Gets a node that has lost all its peers back into the network.
 *
 * A node is isolated when no peer is connected although it knows some to try. Kept and wanted peers are redialled by
 * their own supervisors; this one dials the other known and remembered peers, those that worked last first, on the
 * schedule that `ReconnectPolicy` has for kept peers, without end. New hope, by a sighting or a change of the machine's
 * network, starts the schedule anew.
 */
import { Clock, Duration, Effect } from "effect"
import { type ConnectError, DialError, Unreachable } from "../../schema/NetworkError.ts"
import { IsolationChanged } from "../../schema/NetworkEvent.ts"
import type { Isolation } from "../../schema/NodeStatus.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import { PeerStore } from "../../services/PeerStore.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { ReconnectPolicy } from "../../services/ReconnectPolicy.ts"
import * as Backoff from "../Backoff.ts"
import * as Pulse from "../Pulse.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import { PeerBook } from "./PeerBook.ts"
import { isCandidate, isDesired, type PeerRecord } from "./PeerRecord.ts"

/**
 * A node without peers counts as isolated after this time: a start takes a moment, and so does the redial of a lost
 * peer.
 */
const grace = Duration.seconds(2)

/** Remembered peers that an isolated node takes into the book, those seen last first. */
const rememberedMax = 256

export interface IsolationSupervisor {
  /** There is new hope, so the wait is over and the schedule begins anew. */
  readonly hope: Effect.Effect<void>
  /** How the node stands. */
  readonly state: Effect.Effect<Isolation>
}

/**
 * Supervises while the scope lives. `dial` dials one peer unasked, and never fails. An attempt dials
 * `peersAtOnce` peers, and the next attempt goes on with the others; with none at once the state is watched, and no
 * peer dialled.
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly peersAtOnce: number
  /** A peer came or went, or became worth a try. */
  readonly peersChanged: Pulse.Pulse
  readonly dial: (peer: PeerRecord) => Effect.Effect<void>
  /** How many addresses are kept without knowing yet whose they are. */
  readonly keptAddresses: () => number
}) {
  const table = yield* PeerTable
  const store = yield* PeerStore
  const events = yield* NetworkEvents
  const policy = yield* ReconnectPolicy
  const book = yield* PeerBook
  const clock = yield* Clock.Clock

  const { peersChanged } = options
  const hope = Pulse.make()
  let since: number | undefined
  let attempts = 0
  let nextAttempt: number | undefined

  const isAlone = Effect.map(table.size, (size) => size === 0)

  const peerCame = Pulse.until(peersChanged, Effect.map(isAlone, (alone) => !alone))

  const candidates = (): number => {
    let count = options.keptAddresses()
    for (const peer of book.all()) if (isCandidate(peer)) count++
    return count
  }

  const recallAll = Effect.gen(function*() {
    const remembered = yield* store.peers
    // The peer seen last is mentioned last.
    for (const peer of remembered.slice(0, rememberedMax).reverse()) {
      if (book.get(peer.id) === undefined) book.record(peer.id).addresses.recall(peer, clock)
    }
  })

  /**
   * The peers to dial next, those not yet tried in this isolation first. Peers with a supervisor are dialled by it, and
   * peers that rest after a goodbye are left alone.
   */
  const pick = Effect.fnUntraced(function*(tried: Set<string>) {
    const now = yield* Elapsed.millis
    const worthwhile: Array<PeerRecord> = []
    for (const peer of book.all()) {
      if (isCandidate(peer) && !isDesired(peer) && peer.restUntil <= now) worthwhile.push(peer)
    }
    const untried = worthwhile.filter(({ id }) => !tried.has(id))
    if (untried.length === 0) tried.clear()
    const next = (untried.length === 0 ? worthwhile : untried)
      .map((peer) => ({ peer, success: lastSuccessOf(peer) }))
      .sort((a, b) => b.success - a.success)
      .slice(0, options.peersAtOnce)
      .map(({ peer }) => peer)
    for (const { id } of next) tried.add(id)
    return next
  })

  const attempt = Effect.fnUntraced(function*(tried: Set<string>) {
    attempts++
    nextAttempt = undefined
    yield* recallAll
    const peers = yield* pick(tried)
    yield* Effect.raceFirst(
      Effect.forEach(peers, options.dial, { concurrency: options.peersAtOnce, discard: true }),
      peerCame
    )
  })

  /** Attempts without end; interrupted when a peer is connected. */
  const tryAll = Effect.gen(function*() {
    const tried = new Set<string>()
    let backoff: Backoff.Backoff<ConnectError> | undefined
    while (true) {
      const hopeful = hope.next()
      yield* attempt(tried)
      backoff ??= yield* Backoff.make(policy({ interest: "kept" }))
      const delay = yield* backoff.next(nobody)
      if (delay !== undefined) nextAttempt = (yield* Elapsed.millis) + Duration.toMillis(delay)
      const isHopeful = yield* Effect.raceFirst(
        Effect.as(hopeful, true),
        // A policy that ends waits for hope alone.
        delay === undefined ? Effect.never : Effect.as(Effect.sleep(delay), false)
      )
      if (!isHopeful) continue
      backoff = undefined
      tried.clear()
    }
  })

  const isLonely = Effect.gen(function*() {
    if (!(yield* isAlone)) return false
    if (candidates() > 0) return true
    yield* recallAll
    return candidates() > 0
  })

  yield* Supervised.forever(
    "isolation",
    Effect.gen(function*() {
      yield* Pulse.until(peersChanged, isLonely)
      const isBack = yield* Effect.raceFirst(Effect.as(peerCame, true), Effect.as(Effect.sleep(grace), false))
      if (isBack || !(yield* isLonely)) return
      since = yield* Elapsed.millis
      attempts = 0
      yield* events.publish(new IsolationChanged({ isolated: true, candidates: candidates() }))
      yield* Effect.raceFirst(
        options.peersAtOnce > 0 ? tryAll : Effect.never,
        Pulse.until(peersChanged, Effect.map(isLonely, (lonely) => !lonely))
      )
      since = undefined
      nextAttempt = undefined
      yield* events.publish(new IsolationChanged({ isolated: false, candidates: candidates() }))
    })
  )

  return {
    hope: Effect.andThen(hope.beat, peersChanged.beat),
    state: Effect.gen(function*(): Effect.fn.Return<Isolation> {
      if (!(yield* isAlone)) return { _tag: "Connected" }
      if (since === undefined) return { _tag: "Alone" }
      return {
        _tag: "Isolated",
        since: Elapsed.dateOf(clock, since),
        candidates: candidates(),
        attempts,
        ...(nextAttempt === undefined ? {} : { nextAttempt: Elapsed.dateOf(clock, nextAttempt) })
      }
    })
  } satisfies IsolationSupervisor
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The schedule's input. */
const nobody = new DialError({ target: "any known peer", reason: new Unreachable({ detail: "nobody answers" }) })

const lastSuccessOf = (peer: PeerRecord): number => {
  let latest = Number.NEGATIVE_INFINITY
  for (const { lastSuccess } of peer.addresses.values()) {
    if (lastSuccess !== undefined && lastSuccess > latest) latest = lastSuccess
  }
  return latest
}
