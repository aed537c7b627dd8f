/**
 * Dials for the connection manager: one dial at a time for each peer, shared by all callers that want the peer, its
 * addresses raced by `DialPolicy`. The only caller of `Transport.dial`.
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
import { DialFailed, type RefusalReason } from "../../schema/NetworkEvent.ts"
import type { DialTarget, Multiaddr, PeerId, PeerInfo, Told } from "../../schema/Peer.ts"
import { peerOf, showTarget, withoutPeer } from "../../schema/Peer.ts"
import { AddressGuard, isDialable } from "../../services/AddressGuard.ts"
import { DialPolicy } from "../../services/DialPolicy.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { NetworkEvents } from "../../services/NetworkEvents.ts"
import * as NetworkMetrics from "../../services/NetworkMetrics.ts"
import { NetworkMonitor } from "../../services/NetworkMonitor.ts"
import { PeerStore } from "../../services/PeerStore.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import type { Connection } from "../../services/Transport.ts"
import { Transport } from "../../services/Transport.ts"
import * as Elapsed from "../Elapsed.ts"
import type { KnownAddress } from "./Addresses.ts"
import * as AddressRace from "./AddressRace.ts"
import { makeRememberRemote } from "./Admission.ts"
import { PeerBook } from "./PeerBook.ts"
import { dialled, isBlocked, type PeerRecord } from "./PeerRecord.ts"

export class Dialer extends Context.Service<Dialer, {
  /**
   * Dials the peer at all its known addresses, or joins the dial under way. A dial that no caller waits for any more is
   * aborted, unless its remote has answered: the remote may count this node as a peer by then, and would take the abort
   * for a loss. Such a dial goes on to its end.
   */
  readonly dialPeer: (peer: PeerRecord) => Effect.Effect<PeerInfo, ConnectError>
  /** The addresses of the dial of the peer that is under way. */
  readonly dialing: (id: PeerId) => ReadonlySet<Multiaddr> | undefined
  /** Dials an address without knowing whose it is. Interruption aborts the dial, with the same exception. */
  readonly dialAddress: (address: Multiaddr) => Effect.Effect<PeerInfo, ConnectError>
  /**
   * Called by the gate when it learns which peer answers at an address, in the last step before the connection exists.
   * If `dialAddress` is dialling that address, the peer counts as wanted until the dial ends.
   */
  readonly answered: (address: Multiaddr, id: PeerId) => void
  /** Ends the dial of the peer for all who wait for it. */
  readonly abort: (id: PeerId) => Effect.Effect<void>
  /** The peers and the addresses that are being dialled now. */
  readonly pending: () => ReadonlyArray<string>
  /** Whether `AddressGuard` keeps this node from dialling the address. */
  readonly isGuarded: (address: Pick<KnownAddress, "address" | "isOwn" | "tellers">) => Effect.Effect<boolean>
}>()("codio-network/layers/Dialer") {}

/** The error of every dial of a peer that this node blocks. */
export const blockedByThisNode = (target: DialTarget): DialError => denied(target, "the peer is blocked by this node")

/** A dial of a peer in flight. */
interface PeerDial {
  readonly result: Deferred.Deferred<PeerInfo, ConnectError>
  readonly addresses: ReadonlySet<Multiaddr>
  readonly fiber: Fiber.Fiber<unknown, unknown>
  waiters: number
  /** The remote has answered the handshake, at one address at least. */
  hasAnswered: boolean
}

/** The dials in flight of an address whose peer is not known, with the peers that have answered at the gate. */
interface AddressDials {
  /** How many dials have not ended, whether a caller waits for them or not. */
  count: number
  /** By peer, the call that ends the wish for it. */
  readonly answered: Map<PeerId, () => void>
}

const make = Effect.gen(function*() {
  const config = yield* NetworkConfig
  const transport = yield* Transport
  const table = yield* PeerTable
  const store = yield* PeerStore
  const events = yield* NetworkEvents
  const monitor = yield* NetworkMonitor
  const policy = yield* DialPolicy
  const guard = yield* AddressGuard
  const book = yield* PeerBook
  const rememberRemote = yield* makeRememberRemote
  const clock = yield* Clock.Clock

  const peerDials = new Map<PeerId, PeerDial>()
  const addressDials = new Map<Multiaddr, AddressDials>()
  const permits = yield* Semaphore.make(config.maxParallelDials)
  const fibers = yield* FiberSet.make<unknown, never>()

  /** Whom this node's own gate has refused during the dial, and why: the book has the reason. */
  const refusedSince = (target: DialTarget, startedAt: number, error: ConnectError) => {
    if (error._tag !== "DialError" || error.reason._tag !== "Denied") return undefined
    const id = peerOf(target)
    const answered = id !== undefined ? [id] : [...addressDials.get(target as Multiaddr)?.answered.keys() ?? []]
    for (const peer of answered) {
      const refusal = book.refusalsOf(peer).find(({ at, direction }) => direction === "outbound" && at >= startedAt)
      if (refusal !== undefined) return { peer, reason: refusal.reason }
    }
    return undefined
  }

  /** The error for the caller when this node's own gate has refused. */
  const translate = (target: DialTarget, startedAt: number) => (error: DialError): ConnectError => {
    const refused = refusedSince(target, startedAt, error)
    return refused === undefined ? error : ownRefusal(target, refused.peer, refused.reason) ?? error
  }

  /** A peer that has as many connections as it may have is connected: one of them is what the dial was for. */
  const orStanding = (target: DialTarget, startedAt: number, dial: Effect.Effect<Connection, DialError>) =>
    Effect.catch(dial, (error) =>
      Effect.gen(function*() {
        const refused = refusedSince(target, startedAt, error)
        const [best] = refused?.reason === "connections" ? yield* table.connections(refused.peer) : []
        return best ?? (yield* error)
      }))

  /** The error of a dial that this node refused; undefined for limits that only inbound connections meet. */
  const ownRefusal = (target: DialTarget, peer: PeerId, reason: RefusalReason): ConnectError | undefined => {
    switch (reason) {
      case "full":
        return new PeerLimitExceeded({ peer, limit: config.maxPeers })
      case "promised":
        return new PeerLimitExceeded({ peer, limit: config.maxPeers, rule: reason })
      case "subnet":
        return new PeerLimitExceeded({ peer, limit: config.maxPeersPerSubnet, rule: reason })
      case "connections":
        return denied(target, "the peer has as many connections as one peer may have")
      case "blocked":
        return blockedByThisNode(target)
      case "shutdown":
        return denied(target, "this node is stopping")
      case "inbound":
      case "pending":
      case "rate":
        return undefined
    }
  }

  const count = (outcome: string) => Metric.update(Metric.withAttributes(NetworkMetrics.dials, { outcome }), 1)

  /** Dials each address by a call of its own, so that no address waits for another inside the transport. */
  const dialAddresses = (peer: PeerRecord, addresses: ReadonlyArray<Multiaddr>) =>
    AddressRace.race(
      peer.id,
      addresses,
      policy,
      (address) =>
        Effect.tapError(
          transport.dial({ id: peer.id, addresses: [trusted(peer, address)] }),
          (error) => Effect.map(Elapsed.millis, (now) => peer.addresses.failed(address, now, error, peer.keeps > 0))
        )
    )

  const dialAndAdmit = Effect.fnUntraced(
    function*(
      target: DialTarget,
      dial: Effect.Effect<Connection, DialError>
    ): Effect.fn.Return<PeerInfo, ConnectError> {
      const startedAt = yield* Elapsed.millis
      const first = Effect.flatMap(
        orStanding(target, startedAt, dial),
        (connection) => Effect.map(Effect.result(table.admit(connection)), (admission) => ({ connection, admission }))
      )
      const { admission, connection } = yield* first.pipe(
        // The peer has just been removed, and the transport gave the connection that is closing: wait for its end, then
        // dial anew.
        Effect.flatMap((made) =>
          Result.isFailure(made.admission) && made.admission.failure._tag === "PeerNotConnected"
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
      if (Result.isFailure(admission)) {
        const cause = admission.failure
        yield* connection.close
        if (cause._tag === "PeerLimitExceeded") return yield* cause
        return yield* isBlocked(book.get(connection.peer))
          ? blockedByThisNode(target)
          : new DialError({ target: showTarget(target), reason: new Refused({ cause }) })
      }
      yield* rememberRemote(connection)
      const info = yield* table.get(connection.peer)
      if (info._tag === "Some") return info.value
      // The peer came and went.
      return yield* new DialError({ target: showTarget(target), reason: new Refused({}) })
    },
    (effect) => permits.withPermit(effect),
    (effect, target) => Effect.onExit(effect, (exit) => tell(target, exit))
  )

  const tell = Effect.fnUntraced(function*(target: DialTarget, exit: Exit.Exit<PeerInfo, ConnectError>) {
    const now = yield* Elapsed.millis
    const id = Exit.isSuccess(exit) ? exit.value.id : peerOf(target)
    const peer = id === undefined ? undefined : book.get(id)
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

  const isGuarded = Effect.fnUntraced(function*(address: Pick<KnownAddress, "address" | "isOwn" | "tellers">) {
    return !address.isOwn && !isDialable(guard, address.address, yield* monitor.interfaces, address.tellers)
  })

  /**
   * The addresses to dial, in the policy's order. The peer store may remember addresses that the book has forgotten.
   */
  const addressesOf = Effect.fnUntraced(function*(peer: PeerRecord) {
    const remembered = yield* store.get(peer.id)
    if (Option.isSome(remembered)) peer.addresses.recall(remembered.value, clock)
    const candidates: Array<KnownAddress> = []
    for (const address of peer.addresses.values()) {
      if (!(yield* isGuarded(address))) candidates.unshift(address)
    }
    return policy.order(candidates.map(({ address, lastFailure, lastSuccess }) => ({
      address,
      lastSuccess: lastSuccess === undefined ? undefined : Elapsed.dateOf(clock, lastSuccess),
      lastFailure: lastFailure === undefined ? undefined : Elapsed.dateOf(clock, lastFailure)
    }))).map(({ address }) => address)
  })

  /**
   * Fails when the gate would refuse the dial in its last step: by then the remote would take this node for a peer. The
   * caller's error is made of the reason in the book.
   */
  const failWhenRefused = Effect.fnUntraced(function*(peer: PeerRecord) {
    const reason = yield* table.refuses(peer.id)
    if (reason === undefined) return
    book.noteRefusal(peer.id, { at: yield* Elapsed.millis, direction: "outbound", reason })
    return yield* denied(peer.id, "this node refuses the dial")
  })

  const startDial = Effect.fnUntraced(function*(peer: PeerRecord) {
    const result = Deferred.makeUnsafe<PeerInfo, ConnectError>()
    const addresses = yield* addressesOf(peer)
    // Another caller may have started the dial while the store was asked.
    const running = peerDials.get(peer.id)
    if (running !== undefined) {
      running.waiters++
      return running
    }
    const dial = Effect.andThen(
      failWhenRefused(peer),
      addresses.length === 0 ? transport.dial(peer.id) : dialAddresses(peer, addresses)
    )
    // An exit and no failure, since the set remembers its first failure for as long as it lives.
    const fiber = yield* FiberSet.run(fibers, Effect.exit(dialAndAdmit(peer.id, dial)), { startImmediately: false })
    const started: PeerDial = { result, addresses: new Set(addresses), fiber, waiters: 1, hasAnswered: false }
    // An observer, since a fiber that is interrupted before it has begun runs no part of its effect, `onExit` included.
    fiber.addObserver((exit) => {
      if (peerDials.get(peer.id) === started) peerDials.delete(peer.id)
      Deferred.doneUnsafe(result, outcomeOf(peer.id, exit))
    })
    peerDials.set(peer.id, started)
    return started
  })

  const startAddressDial = Effect.fnUntraced(function*(address: Multiaddr) {
    const dials: AddressDials = addressDials.get(address) ?? { count: 0, answered: new Map() }
    dials.count++
    addressDials.set(address, dials)
    const dial = Effect.exit(dialAndAdmit(address, transport.dial(address)))
    const fiber = yield* FiberSet.run(fibers, dial, { startImmediately: false })
    fiber.addObserver(() => {
      if (--dials.count > 0) return
      addressDials.delete(address)
      for (const end of dials.answered.values()) end()
    })
    return { fiber, dials }
  })

  return Dialer.of({
    dialPeer: (peer) =>
      Effect.acquireUseRelease(
        Effect.suspend(() => {
          const running = peerDials.get(peer.id)
          if (running === undefined) return startDial(peer)
          running.waiters++
          return Effect.succeed(running)
        }),
        (dial) => Deferred.await(dial.result),
        (dial) => --dial.waiters > 0 || dial.hasAnswered ? Effect.void : Fiber.interrupt(dial.fiber)
      ),
    dialing: (id) => peerDials.get(id)?.addresses,
    dialAddress: (address) =>
      Effect.acquireUseRelease(
        startAddressDial(address),
        ({ fiber }) => Effect.flatMap(Fiber.await(fiber), (exit) => outcomeOf(address, exit)),
        ({ dials, fiber }) => dials.answered.size > 0 ? Effect.void : Fiber.interrupt(fiber)
      ),
    answered(address, id) {
      const dial = peerDials.get(id)
      if (dial !== undefined) dial.hasAnswered = true
      const dials = addressDials.get(withoutPeer(address))
      if (dials?.answered.has(id) === false) dials.answered.set(id, book.answers(id))
    },
    abort: (id) =>
      Effect.suspend(() => {
        const dial = peerDials.get(id)
        return dial === undefined ? Effect.void : Fiber.interrupt(dial.fiber)
      }),
    pending: () => [...peerDials.keys(), ...addressDials.keys()],
    isGuarded
  })
})

export const layer: Layer.Layer<
  Dialer,
  never,
  NetworkConfig | Transport | PeerTable | PeerStore | NetworkEvents | NetworkMonitor | PeerBook
> = Layer.effect(Dialer, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How a dial ended, for its callers. A dial that was interrupted was given up by `abort`, or by the node's end. */
const outcomeOf = (
  target: DialTarget,
  exit: Exit.Exit<Exit.Exit<PeerInfo, ConnectError>>
): Exit.Exit<PeerInfo, ConnectError> =>
  Exit.isFailure(exit) || Exit.hasInterrupts(exit.value)
    ? Exit.fail(denied(target, "the dial was given up by this node"))
    : exit.value

/** The address as the transport takes it, which judges what a told address resolves to. */
const trusted = (peer: PeerRecord, address: Multiaddr): Multiaddr | Told => {
  const known = peer.addresses.get(address)
  return known?.isOwn === true ? address : { address, tellers: known?.tellers ?? [] }
}

const denied = (target: DialTarget, detail: string) =>
  new DialError({ target: showTarget(target), reason: new Denied({ detail }) })
