/**
 * Dials for the connection manager: one at a time for each peer, shared by all who ask, its addresses raced by `DialPolicy`. The only caller
 * of `Transport.dial`.
 */
import {
  Cause,
  Clock,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FiberSet,
  Layer,
  Metric,
  Option,
  Result,
  Semaphore
} from "effect"
import type { ConnectError } from "../../schema/NetworkError.ts"
import { Denied, DialError, DialTimeout, PeerLimitExceeded, Refused } from "../../schema/NetworkError.ts"
import { DialFailed } from "../../schema/NetworkEvent.ts"
import type { DialTarget, Interest, Multiaddr, PeerId, PeerInfo } from "../../schema/Peer.ts"
import { peerOf, showTarget, withoutPeer } from "../../schema/Peer.ts"
import { AddressGuard } from "../../services/AddressGuard.ts"
import { DialPolicy } from "../../services/DialPolicy.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import * as NetworkMetrics from "../../services/NetworkMetrics.ts"
import { NetworkMonitor } from "../../services/NetworkMonitor.ts"
import { PeerStore } from "../../services/PeerStore.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import type { Connection } from "../../services/Transport.ts"
import { Transport } from "../../services/Transport.ts"
import type { KnownAddress } from "./Addresses.ts"
import { dateOf, dialled, interestOf, PeerBook, type PeerRecord } from "./PeerBook.ts"
import * as AddressRace from "./AddressRace.ts"

export class PeerDialer extends Context.Service<PeerDialer, {
  /** Dials the peer at all addresses that are known, or joins the dial under way. A dial that nobody waits for any more is aborted. */
  readonly dialPeer: (peer: PeerRecord) => Effect.Effect<PeerInfo, ConnectError>
  /** The addresses of the dial of the peer that is under way. */
  readonly dialing: (id: PeerId) => ReadonlySet<Multiaddr> | undefined
  /** Dials a place whose peer is not known. */
  readonly dialAddress: (address: Multiaddr) => Effect.Effect<PeerInfo, ConnectError>
  /** Ends the dial of the peer for all who wait for it. */
  readonly abort: (id: PeerId) => Effect.Effect<void>
  /** The gate asks: whether a place is being dialled without knowing whose it is, and the peer is the one that answers. */
  readonly answers: (place: Multiaddr, id: PeerId) => boolean
  /** What is being dialled now. */
  readonly pending: () => ReadonlyArray<string>
  /** Whether `AddressGuard` keeps this node from dialling the address. */
  readonly isGuarded: (address: KnownAddress) => Effect.Effect<boolean>
}>()("codio-network/layers/PeerDialer") {}

/** A dial in flight, which all who want the peer wait for. */
interface Dial {
  readonly result: Deferred.Deferred<PeerInfo, ConnectError>
  readonly addresses: ReadonlySet<Multiaddr>
  readonly fiber: Fiber.Fiber<unknown, unknown>
  waiters: number
}

/** A place that is being dialled without knowing whose it is: how many dials there are, and who answered at the gate. */
interface Claim {
  count: number
  readonly answered: Set<PeerId>
}

export const make = Effect.gen(function*() {
  const config = yield* NetworkConfig
  const transport = yield* Transport
  const table = yield* PeerTable
  const store = yield* PeerStore
  const events = yield* NetworkEvents
  const monitor = yield* NetworkMonitor
  const policy = yield* DialPolicy
  const guard = yield* AddressGuard
  const known = yield* PeerBook

  const dials = new Map<PeerId, Dial>()
  const claims = new Map<Multiaddr, Claim>()
  const permits = yield* Semaphore.make(config.maxParallelDials)
  const fibers = yield* FiberSet.make<unknown, unknown>()

  const denied = (target: string, detail: string) => new DialError({ target, reason: new Denied({ detail }) })

  /** What our own gate's refusal means to the caller. */
  const translate = (target: DialTarget, startedAt: number) => (error: DialError): ConnectError => {
    if (error.reason._tag !== "Denied") return error
    const id = peerOf(target)
    const answered = id !== undefined ? [id] : [...claims.get(target as Multiaddr)?.answered ?? []]
    for (const peer of answered) {
      const reason = known.refusalsOf(peer).find(({ at, direction }) => direction === "outbound" && at >= startedAt)
        ?.reason
      if (reason === "blocked") return denied(error.target, "the peer is blocked by this node")
      if (reason === "full") return new PeerLimitExceeded({ peer, limit: config.maxPeers })
      if (reason === "subnet") return new PeerLimitExceeded({ peer, limit: config.maxPeersPerSubnet, rule: reason })
    }
    return error
  }

  const count = (outcome: string) => Metric.update(Metric.withAttributes(NetworkMetrics.dials, { outcome }), 1)

  /** Dials each address alone, so that none waits for another inside the transport. */
  const dialAddresses = (peer: PeerRecord, addresses: ReadonlyArray<Multiaddr>) =>
    AddressRace.race(
      peer.id,
      addresses,
      policy,
      (address) =>
        Effect.tapError(
          transport.dial({ id: peer.id, addresses: [address] }),
          (error) =>
            Effect.map(Clock.currentTimeMillis, (now) => peer.addresses.failed(address, now, error, peer.keeps > 0))
        )
    )

  const dialAndAdmit = Effect.fnUntraced(
    function*(
      target: DialTarget,
      dial: Effect.Effect<Connection, DialError>
    ): Effect.fn.Return<PeerInfo, ConnectError> {
      const startedAt = yield* Clock.currentTimeMillis
      const first = Effect.flatMap(
        dial,
        (connection) => Effect.map(Effect.result(table.admit(connection)), (admitted) => ({ connection, admitted }))
      )
      const { admitted, connection } = yield* first.pipe(
        // What was open is on its way out, since its peer has just been removed. It is waited for, and dialled anew.
        Effect.flatMap((made) =>
          Result.isFailure(made.admitted) && made.admitted.failure._tag === "PeerNotConnected"
            ? Effect.andThen(made.connection.close, first)
            : Effect.succeed(made)
        ),
        Effect.timeoutOrElse({
          duration: config.dialTimeout,
          orElse: () =>
            Effect.fail(
              new DialError({ target: showTarget(target), reason: new DialTimeout({ after: config.dialTimeout }) })
            )
        }),
        Effect.mapError(translate(target, startedAt))
      )
      if (Result.isFailure(admitted)) {
        const cause = admitted.failure
        yield* connection.close
        if (cause._tag === "PeerLimitExceeded") return yield* cause
        return yield* (known.get(connection.peer)?.blocks ?? 0) > 0
          ? denied(showTarget(target), "the peer is blocked by this node")
          : new DialError({ target: showTarget(target), reason: new Refused({ cause }) })
      }
      // The pump will say the same, but the caller shall not have to wait for it.
      if (connection.direction === "outbound") yield* store.remember(connection.peer, connection.remoteAddress)
      const remote = yield* connection.remote
      if (remote._tag === "Some") yield* table.identified(connection.peer, remote.value)
      const info = yield* table.get(connection.peer)
      if (info._tag === "Some") return info.value
      // It came and went.
      return yield* new DialError({ target: showTarget(target), reason: new Refused({}) })
    },
    (effect) => permits.withPermit(effect),
    (effect, target) => Effect.onExit(effect, (exit) => tell(target, exit))
  )

  const tell = Effect.fnUntraced(function*(target: DialTarget, exit: Exit.Exit<PeerInfo, ConnectError>) {
    const now = yield* Clock.currentTimeMillis
    const id = Exit.isSuccess(exit) ? exit.value.id : peerOf(target)
    const peer = id === undefined ? undefined : known.get(id)
    if (Exit.isSuccess(exit)) {
      if (peer !== undefined) dialled(peer, now)
      return yield* count("connected")
    }
    const failure = Cause.findErrorOption(exit.cause)
    if (Option.isNone(failure)) return yield* count("interrupted")
    const error = failure.value
    const reason = error._tag === "DialError" ? error.reason._tag : error._tag
    if (peer !== undefined) dialled(peer, now, error)
    yield* count(reason)
    yield* events.publish(new DialFailed({ target: showTarget(target), reason, message: error.message }))
  })

  const isGuarded = Effect.fnUntraced(function*(address: KnownAddress) {
    if (!strangers.has(address.source)) return false
    const interfaces = yield* monitor.interfaces
    return !guard(address.address, { interfaces, isToldLocally: address.isToldLocally })
  })

  /** What to dial, in the policy's order. Also what was remembered of the peer, should the book have forgotten it. */
  const addressesOf = Effect.fnUntraced(function*(peer: PeerRecord) {
    const remembered = yield* store.get(peer.id)
    if (Option.isSome(remembered)) peer.addresses.recall(remembered.value)
    const candidates: Array<KnownAddress> = []
    for (const address of peer.addresses.values()) {
      if (!(yield* isGuarded(address))) candidates.unshift(address)
    }
    return policy.order(candidates.map(({ address, lastFailure, lastSuccess }) => ({
      address,
      lastSuccess: lastSuccess === undefined ? undefined : dateOf(lastSuccess),
      lastFailure: lastFailure === undefined ? undefined : dateOf(lastFailure)
    }))).map(({ address }) => address)
  })

  /** Fails when the gate would refuse the dial in its last step, by then a peer to the remote. */
  const noPlace = Effect.fnUntraced(function*(peer: PeerRecord) {
    const reason = yield* table.refuses(peer.id)
    if (reason === undefined) return
    known.noteRefusal(peer.id, { at: yield* Clock.currentTimeMillis, direction: "outbound", reason })
    return yield* denied(peer.id, "this node has no place for the peer")
  })

  const startDial = Effect.fnUntraced(function*(peer: PeerRecord) {
    const result = Deferred.makeUnsafe<PeerInfo, ConnectError>()
    const addresses = yield* addressesOf(peer)
    // Somebody else may have started it while the store was asked.
    const running = dials.get(peer.id)
    if (running !== undefined) {
      running.waiters++
      return running
    }
    const dial = Effect.andThen(
      noPlace(peer),
      addresses.length === 0 ? transport.dial(peer.id) : dialAddresses(peer, addresses)
    )
    const fiber = yield* FiberSet.run(fibers, dialAndAdmit(peer.id, dial), { startImmediately: false })
    const started: Dial = { result, addresses: new Set(addresses), fiber, waiters: 1 }
    // An observer, since a fiber that is interrupted before it has begun runs nothing of its effect, `onExit` neither.
    fiber.addObserver((exit) => {
      if (dials.get(peer.id) === started) dials.delete(peer.id)
      Deferred.doneUnsafe(
        result,
        Exit.hasInterrupts(exit) ? Exit.fail(denied(peer.id, "the dial was given up by this node")) : exit
      )
    })
    dials.set(peer.id, started)
    return started
  })

  return PeerDialer.of({
    dialPeer: (peer) =>
      Effect.acquireUseRelease(
        Effect.suspend(() => {
          const running = dials.get(peer.id)
          if (running === undefined) return startDial(peer)
          running.waiters++
          return Effect.succeed(running)
        }),
        (dial) => Deferred.await(dial.result),
        (dial) => --dial.waiters > 0 ? Effect.void : Fiber.interrupt(dial.fiber)
      ),
    dialing: (id) => dials.get(id)?.addresses,
    dialAddress: (address) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          const claim = claims.get(address) ?? { count: 0, answered: new Set() }
          claim.count++
          claims.set(address, claim)
          return claim
        }),
        () => dialAndAdmit(address, transport.dial(address)),
        (claim) =>
          Effect.suspend(() => {
            if (--claim.count > 0) return Effect.void
            claims.delete(address)
            // Whoever answered and did not become a peer goes back to what it was.
            return Effect.forEach(claim.answered, (id) => {
              const peer = known.get(id)
              const interest: Interest = peer === undefined ? "transient" : interestOf(peer)
              return table.rank(id, interest)
            }, { discard: true })
          })
      ),
    abort: (id) =>
      Effect.suspend(() => {
        const dial = dials.get(id)
        return dial === undefined ? Effect.void : Fiber.interrupt(dial.fiber)
      }),
    answers: (place, id) => {
      const claim = claims.get(withoutPeer(place))
      claim?.answered.add(id)
      return claim !== undefined
    },
    pending: () => [...dials.keys(), ...claims.keys()],
    isGuarded
  })
})

export const layer: Layer.Layer<
  PeerDialer,
  never,
  NetworkConfig | Transport | PeerTable | PeerStore | NetworkEvents | NetworkMonitor | PeerBook
> = Layer.effect(PeerDialer, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Sources whose addresses the guard judges: who told them is not known to this program, nor heard on the local network. */
const strangers: ReadonlySet<string> = new Set(["dht", "identify"])
