/**
 * What the program wishes of an address without a peer id: to connect to whoever answers there, or to keep that peer.
 */
import { Cause, Effect, Exit, Scope } from "effect"
import type { ConnectError } from "../../schema/NetworkError.ts"
import { type Multiaddr, type PeerId, type PeerInfo, withPeer } from "../../schema/Peer.ts"
import { ReconnectPolicy } from "../../services/ReconnectPolicy.ts"
import * as Backoff from "../Backoff.ts"
import type * as Pulse from "../Pulse.ts"
import type { Answering } from "./Answering.ts"
import { Dialer } from "./Dialer.ts"
import { PeerBook } from "./PeerBook.ts"
import * as PeerRecord from "./PeerRecord.ts"

/** The wishes for addresses. A wish stands for the peer that answered last. */
export const make = Effect.fnUntraced(function*(options: {
  readonly answering: Answering
  readonly changed: (peer: PeerRecord.PeerRecord) => Effect.Effect<void>
  readonly keepPeer: (id: PeerId, address: Multiaddr) => Effect.Effect<void, never, Scope.Scope>
  readonly networkChanged: Pulse.Pulse
}) {
  const { answering, changed, keepPeer, networkChanged } = options
  const dialer = yield* Dialer
  const book = yield* PeerBook
  const policy = yield* ReconnectPolicy

  /** Dials an address without knowing whose it is. Whoever answers there is wanted, now and after a loss. */
  const connect = (address: Multiaddr): Effect.Effect<PeerInfo, ConnectError> =>
    Effect.tap(dialer.dialAddress(address), (info) => wantAnswering(address, info.id))

  const wantAnswering = (address: Multiaddr, id: PeerId): Effect.Effect<void> =>
    Effect.suspend(() => {
      const peer = book.record(id)
      // A wish for the peer itself stays with the peer.
      const wasWanted = peer.wanted && !answering.isWanted(peer)
      PeerRecord.wanted(peer)
      PeerRecord.asked(peer, [address])
      if (!wasWanted) {
        answering.standsFor(peer, {
          address,
          kind: "wanted",
          isOpen: () => peer.wanted,
          moveTo: (other) =>
            Effect.suspend(() => {
              PeerRecord.leftAddress(peer)
              return Effect.andThen(changed(peer), wantAnswering(address, other))
            })
        })
      }
      return changed(peer)
    })

  /**
   * Keeps whoever answers at the address while the scope lives: the peer that answers now, and any other one that
   * answers there after it.
   */
  const keepWhoeverAnswers = Effect.fnUntraced(function*(address: Multiaddr, first: PeerId) {
    const outer = yield* Effect.scope
    let isOpen = true
    yield* Effect.addFinalizer(() => Effect.sync(() => isOpen = false))
    let held: Scope.Closeable | undefined
    const hold = (id: PeerId): Effect.Effect<void> =>
      Effect.gen(function*() {
        const former = held
        held = yield* Scope.fork(outer)
        yield* Scope.provide(keepPeer(id, withPeer(address, id)), held)
        answering.standsFor(book.record(id), { address, kind: "kept", isOpen: () => isOpen, moveTo: hold })
        if (former !== undefined) yield* Scope.close(former, Exit.void)
      })
    yield* hold(first)
  })

  /** Dials the address by the policy until a peer answers, then keeps that peer. */
  const keep = Effect.fnUntraced(function*(address: Multiaddr) {
    let backoff: Backoff.Backoff<ConnectError> | undefined
    while (true) {
      const networkChange = networkChanged.next()
      backoff ??= yield* Backoff.make(policy({ interest: "kept" }))
      const next = yield* keepAnswering(address, backoff)
      if (next === undefined) return
      const isNews = yield* Effect.raceFirst(Effect.as(Effect.sleep(next), false), Effect.as(networkChange, true))
      if (isNews) backoff = undefined
    }
  })

  /**
   * Dials the address once, and keeps the peer that answers. Answers with the wait before the next dial, if there is to
   * be one. The error ends here, as in `Supervisor`.
   */
  const keepAnswering = Effect.fnUntraced(function*(address: Multiaddr, backoff: Backoff.Backoff<ConnectError>) {
    const exit = yield* Effect.exit(dialer.dialAddress(address))
    if (Exit.isSuccess(exit)) return void (yield* keepWhoeverAnswers(address, exit.value.id))
    const failure = Cause.findErrorOption(exit.cause)
    if (failure._tag === "None") return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
    const error = failure.value
    if (error._tag === "DialError" && !error.isRetryable) {
      return void (yield* Effect.logWarning(`${address} is not kept: ${error.message}`))
    }
    const delay = yield* backoff.next(error)
    if (delay === undefined) yield* Effect.logWarning(`${address} is given up: ${error.message}`)
    return delay
  })

  return { connect, keep }
})
