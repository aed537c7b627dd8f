/**
 * A `ConnectionManager` that supervises each kept or wanted peer with one fiber.
 *
 * The fiber lives as long as the interest and sleeps on a latch, which every change of the peer opens: started per loss, a loss that comes
 * while the former fiber is ending would be dropped, and a kept peer never dialled again. The policy is stepped by hand and its step is
 * kept in the peer's record: a retry per loss would begin anew each time, and a peer that flaps would escape its backoff.
 */
import {
  Cause,
  Clock,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  FiberSet,
  Latch,
  Layer,
  Metric,
  Option,
  Pull,
  Result,
  Schedule,
  Semaphore,
  Stream
} from "effect"
import type { ConnectError } from "../schema/NetworkError.ts"
import { Denied, DialedSelf, DialError, DialTimeout, PeerLimitExceeded, Refused } from "../schema/NetworkError.ts"
import type { GoodbyeReason, RefusalReason } from "../schema/NetworkEvent.ts"
import { DialFailed, PeerDiscovered, PeerRefused, ReconnectFailed, ReconnectScheduled } from "../schema/NetworkEvent.ts"
import type { DialTarget, Interest, Multiaddr, PeerId, PeerInfo } from "../schema/Peer.ts"
import { isMultiaddr, peerOf, showTarget, withoutPeer, withPeer } from "../schema/Peer.ts"
import { ConnectionManager } from "../services/ConnectionManager.ts"
import { Discovery, type Sighting } from "../services/Discovery.ts"
import { NetworkConfig } from "../services/NetworkConfig.ts"
import { NetworkEvents } from "../services/NetworkEvents.ts"
import * as NetworkMetrics from "../services/NetworkMetrics.ts"
import { PeerStore } from "../services/PeerStore.ts"
import { PeerTable } from "../services/PeerTable.ts"
import { type KnownPeer, ReconnectPolicy } from "../services/ReconnectPolicy.ts"
import type { Connection, GateRequest } from "../services/Transport.ts"
import { Transport } from "../services/Transport.ts"
import * as CodioProtocol from "./CodioProtocol.ts"
import * as InboundLimits from "./InboundLimits.ts"

/** Known peers that are kept in memory; of more, those without interest and not connected go, the longest unseen first. */
const knownPeersMax = 4_096

/** Addresses of one peer; a new one displaces the oldest. */
const addressesMax = 16

/** A connection must last this long to earn an immediate dial and a fresh backoff. */
const stableMillis = 15_000

/** How long identify may take before a connection is taken for a peer without it. `Transport.dial` waits as long. */
const identifyTime = "2 seconds"

type Step = (now: number, error: ConnectError) => Pull.Pull<[unknown, Duration.Duration], never, unknown>

/** What this node knows and wants of one peer. */
interface Known {
  readonly id: PeerId
  /** Newest last. */
  readonly addresses: Set<Multiaddr>
  /** Those that `connect` and `keep` were given, which no sighting displaces. Newest last. */
  readonly given: Set<Multiaddr>
  /** Opened by whatever may change what the supervisor does. */
  readonly changed: Latch.Latch
  keeps: number
  /** Calls of `connect` in flight: they rank as wanted, and leave nothing behind when they fail. */
  claims: number
  wanted: boolean
  discovered: boolean
  /** `disconnect` was called and nobody has asked for the peer since. */
  suspended: boolean
  blocks: number
  /** Discovery leaves the peer alone until then. */
  restUntil: number
  /** What counts as the last dial's error when a connection was lost early, or given up by the remote. */
  loss: ConnectError | undefined
  /** The remote said goodbye, so the loss that follows is its wish. */
  farewell: boolean
  connectedAt: number | undefined
  /** The last connection was lost early, or the remote let go. */
  flapping: boolean
  /** Whether a supervisor runs. */
  supervised: boolean
  step: Step | undefined
  attempts: number
  /** A sighting or a call asks for a dial now instead of after the delay. */
  hurried: boolean
}

/** A dial in flight, which all who want the peer wait for; one that nobody waits for any more is aborted. */
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
  const discovery = yield* Discovery
  const events = yield* NetworkEvents
  const policy = yield* ReconnectPolicy

  const known = new Map<PeerId, Known>()
  const dials = new Map<PeerId, Dial>()
  /** Places of dials whose peer is not known yet, with the interest it will have: the gate ranks the peer when it learns who it is. */
  const claims = new Map<Multiaddr, Claim>()
  const refusals = new Map<PeerId, RefusalReason>()
  const limits = yield* InboundLimits.make
  const permits = yield* Semaphore.make(config.maxParallelDials)
  const dialFibers = yield* FiberSet.make<unknown, unknown>()
  const background = yield* FiberSet.make<unknown, unknown>()
  const cooldownMillis = Duration.toMillis(config.rediscoveryCooldown)

  const interestOf = (record: Known): Interest =>
    record.suspended || record.blocks > 0
      ? "transient"
      : record.keeps > 0
      ? "kept"
      : record.wanted || record.claims > 0
      ? "wanted"
      : record.discovered
      ? "discovered"
      : "transient"

  /** Whether the peer has a supervisor. */
  const isDesired = (record: Known) => !record.suspended && record.blocks === 0 && (record.keeps > 0 || record.wanted)

  const record = (id: PeerId): Known => {
    const found = known.get(id)
    if (found !== undefined) {
      // The map's order is that of the last mention, so that the first without interest is the longest unseen.
      known.delete(id)
      known.set(id, found)
      return found
    }
    if (known.size >= knownPeersMax) {
      for (const other of known.values()) {
        if (other.keeps + other.blocks + other.claims > 0 || other.wanted || other.connectedAt !== undefined) continue
        known.delete(other.id)
        break
      }
    }
    const made: Known = {
      id,
      addresses: new Set(),
      changed: Latch.makeUnsafe(false),
      given: new Set(),
      keeps: 0,
      claims: 0,
      wanted: false,
      discovered: false,
      suspended: false,
      blocks: 0,
      restUntil: 0,
      loss: undefined,
      farewell: false,
      connectedAt: undefined,
      flapping: false,
      supervised: false,
      step: undefined,
      attempts: 0,
      hurried: false
    }
    known.set(id, made)
    return made
  }

  /** True when the address is new. */
  const learn = (peer: Known, address: Multiaddr, among = peer.addresses): boolean => {
    const place = withPeer(address, peer.id)
    const fresh = !among.delete(place)
    among.add(place)
    if (among.size > addressesMax) {
      for (const oldest of among) {
        among.delete(oldest)
        break
      }
    }
    return fresh
  }

  /** Tells the table and the supervisor what has changed. A supervisor that is missing is started. */
  const changed = (peer: Known): Effect.Effect<void> =>
    Effect.gen(function*() {
      yield* table.rank(peer.id, interestOf(peer))
      yield* peer.changed.open
      if (!isDesired(peer) || peer.supervised) return
      peer.supervised = true
      yield* FiberSet.run(
        background,
        Effect.onError(supervise(peer), () =>
          Effect.sync(() => {
            peer.supervised = false
          }))
      )
    })

  // -------------------------------------------------------------------------------------------------------------------
  // dialling
  // -------------------------------------------------------------------------------------------------------------------

  const denied = (target: string, detail: string) => new DialError({ target, reason: new Denied({ detail }) })

  /** What our own gate's refusal means to the caller. */
  const translate = (target: DialTarget) => (error: DialError): ConnectError => {
    if (error.reason._tag !== "Denied") return error
    const id = peerOf(target)
    const answered = id !== undefined ? [id] : [...claims.get(target as Multiaddr)?.answered ?? []]
    for (const peer of answered) {
      const refusal = refusals.get(peer)
      if (refusal === "full") return new PeerLimitExceeded({ peer, limit: config.maxPeers })
      if (refusal === "subnet") return new PeerLimitExceeded({ peer, limit: config.maxPeersPerSubnet, rule: refusal })
      if (refusal === "blocked") return denied(error.target, "the peer is blocked by this node")
    }
    return error
  }

  const count = (outcome: string) => Metric.update(Metric.withAttributes(NetworkMetrics.dials, { outcome }), 1)

  const dialAndAdmit = Effect.fnUntraced(
    function*(target: DialTarget): Effect.fn.Return<PeerInfo, ConnectError> {
      const dialled = Effect.gen(function*() {
        const connection = yield* transport.dial(target)
        return { connection, admitted: yield* Effect.result(table.admit(connection)) }
      })
      const { admitted, connection } = yield* dialled.pipe(
        // What was open is on its way out, since its peer has just been removed. It is waited for, and dialled anew.
        Effect.flatMap((first) =>
          Result.isFailure(first.admitted) && first.admitted.failure._tag === "PeerNotConnected"
            ? Effect.andThen(first.connection.close, dialled)
            : Effect.succeed(first)
        ),
        Effect.timeoutOrElse({
          duration: config.dialTimeout,
          orElse: () =>
            Effect.fail(
              new DialError({ target: showTarget(target), reason: new DialTimeout({ after: config.dialTimeout }) })
            )
        }),
        Effect.mapError(translate(target))
      )
      if (Result.isFailure(admitted)) {
        const cause = admitted.failure
        yield* connection.close
        if (cause._tag === "PeerLimitExceeded") return yield* cause
        return yield* (known.get(connection.peer)?.blocks ?? 0) > 0
          ? denied(showTarget(target), "the peer is blocked by this node")
          : new DialError({ target: showTarget(target), reason: new Refused({ cause }) })
      }
      if (connection.direction === "outbound") yield* store.remember(connection.peer, connection.remoteAddress)
      yield* connected(connection)
      // The pump will say the same, but the caller shall not have to wait for it.
      const remote = yield* connection.remote
      if (remote._tag === "Some") yield* table.identified(connection.peer, remote.value)
      const info = yield* table.get(connection.peer)
      if (info._tag === "Some") return info.value
      // It came and went.
      return yield* new DialError({ target: showTarget(target), reason: new Refused({}) })
    },
    (effect) => permits.withPermit(effect),
    (effect, target) =>
      Effect.onExit(effect, (exit) => {
        if (Exit.isSuccess(exit)) return count("connected")
        const failure = Cause.findErrorOption(exit.cause)
        if (failure._tag === "None") return count("interrupted")
        const error = failure.value
        const reason = error._tag === "DialError" ? error.reason._tag : error._tag
        return Effect.andThen(
          count(reason),
          events.publish(new DialFailed({ target: showTarget(target), reason, message: error.message }))
        )
      })
  )

  /** One dial per peer at a time, shared by all who ask. */
  const dialPeer = (peer: Known): Effect.Effect<PeerInfo, ConnectError> =>
    Effect.acquireUseRelease(
      Effect.suspend(() => {
        const running = dials.get(peer.id)
        if (running !== undefined) {
          running.waiters++
          return Effect.succeed(running)
        }
        return startDial(peer)
      }),
      (dial) => Deferred.await(dial.result),
      (dial) => --dial.waiters > 0 ? Effect.void : Fiber.interrupt(dial.fiber)
    )

  const startDial = Effect.fnUntraced(function*(peer: Known) {
    const result = Deferred.makeUnsafe<PeerInfo, ConnectError>()
    // Newest first: what was heard or worked last is the likeliest to work now.
    const addresses = [...new Set([...[...peer.addresses].reverse(), ...[...peer.given].reverse()])]
    const remembered = yield* store.get(peer.id)
    if (remembered._tag === "Some") {
      for (const address of remembered.value.addresses) {
        const place = withPeer(address, peer.id)
        if (!addresses.includes(place)) addresses.push(place)
      }
    }
    const target: DialTarget = addresses.length === 0 ? peer.id : { id: peer.id, addresses }
    const fiber = yield* FiberSet.run(
      dialFibers,
      dialAndAdmit(target).pipe(
        Effect.onExit((exit) => {
          dials.delete(peer.id)
          return Deferred.done(
            result,
            Exit.hasInterrupts(exit) ? Exit.fail(denied(peer.id, "the dial was given up by this node")) : exit
          )
        })
      ),
      { startImmediately: false }
    )
    const dial: Dial = { result, addresses: new Set(addresses), fiber, waiters: 1 }
    dials.set(peer.id, dial)
    return dial
  })

  const abortDial = (peer: PeerId): Effect.Effect<void> =>
    Effect.suspend(() => {
      const dial = dials.get(peer)
      return dial === undefined ? Effect.void : Fiber.interrupt(dial.fiber)
    })

  /** A dial to a place whose peer is not known. It ranks as wanted from the moment the gate learns who answers. */
  const dialAddress = (address: Multiaddr, interest: "wanted" | "kept"): Effect.Effect<PeerInfo, ConnectError> =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        const claim = claims.get(address) ?? { count: 0, answered: new Set() }
        claim.count++
        claims.set(address, claim)
        return claim
      }),
      () =>
        Effect.tap(dialAndAdmit(address), (info) => {
          const peer = record(info.id)
          if (interest === "wanted") peer.wanted = true
          peer.suspended = false
          learn(peer, address, peer.given)
          return changed(peer)
        }),
      (claim) =>
        Effect.suspend(() => {
          if (--claim.count > 0) return Effect.void
          claims.delete(address)
          // Whoever answered and did not become a peer goes back to what it was.
          return Effect.forEach(claim.answered, (id) => {
            const peer = known.get(id)
            return table.rank(id, peer === undefined ? "transient" : interestOf(peer))
          }, { discard: true })
        })
    )

  // -------------------------------------------------------------------------------------------------------------------
  // supervision
  // -------------------------------------------------------------------------------------------------------------------

  const connected = (connection: Connection): Effect.Effect<void> =>
    Effect.gen(function*() {
      const peer = known.get(connection.peer)
      if (peer === undefined) return
      if (connection.direction === "outbound" && !connection.remoteAddress.includes("/p2p-circuit")) {
        learn(peer, connection.remoteAddress)
      }
      peer.connectedAt ??= yield* Clock.currentTimeMillis
      peer.loss = undefined
      yield* changed(peer)
    })

  /** The delay before the next dial; none when the policy has ended. */
  const nextDelay = Effect.fnUntraced(function*(peer: Pick<Known, "step">, who: KnownPeer, error: ConnectError) {
    peer.step ??= yield* Schedule.toStep(policy(who)) as Effect.Effect<Step>
    const now = yield* Clock.currentTimeMillis
    return yield* peer.step(now, error).pipe(
      Effect.map(([, delay]) => delay),
      Pull.catchDone(() => Effect.succeed(undefined))
    )
  })

  const supervise = (peer: Known): Effect.Effect<void> =>
    Effect.gen(function*() {
      while (true) {
        yield* peer.changed.close
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
        const exit = yield* Effect.exit(
          peer.loss === undefined ? dialPeer(peer) : Effect.fail(peer.loss)
        )
        peer.loss = undefined
        if (Exit.isSuccess(exit)) continue
        const failure = Cause.findErrorOption(exit.cause)
        if (failure._tag === "None") return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
        yield* afterFailure(peer, failure.value)
      }
    })

  const whileConnected = (peer: Known): Effect.Effect<void> =>
    Effect.gen(function*() {
      if (interestOf(peer) !== "kept") return yield* peer.changed.await
      const ask = Effect.flatMap(
        table.connections(peer.id),
        ([connection]) => connection === undefined ? Effect.void : CodioProtocol.keepAlive(connection)
      )
      yield* Effect.raceFirst(
        peer.changed.await,
        // A keep stream that broke while the peer stays is asked for again, not at once.
        ask.pipe(Effect.andThen(Effect.sleep("30 seconds")), Effect.forever)
      )
    })

  const afterFailure = Effect.fnUntraced(function*(peer: Known, error: ConnectError) {
    if (error._tag === "DialError" && !error.isRetryable && peer.addresses.size === 1) peer.addresses.clear()
    const interest = interestOf(peer)
    // Somebody ended the interest while the dial was under way.
    if (!isDesired(peer)) return
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
    yield* events.publish(new ReconnectScheduled({ peer: peer.id, attempt: peer.attempts, delay }))
    yield* Effect.raceFirst(Effect.sleep(delay), hurry(peer))
  })

  /** Ends when the peer is connected, no longer desired, or seen by discovery; other changes do not shorten the delay. */
  const hurry = (peer: Known): Effect.Effect<void> =>
    Effect.gen(function*() {
      while (isDesired(peer) && !peer.hurried && !(yield* table.has(peer.id))) {
        yield* peer.changed.close
        yield* peer.changed.await
      }
    })

  // -------------------------------------------------------------------------------------------------------------------
  // what the transport tells
  // -------------------------------------------------------------------------------------------------------------------

  const admit = (connection: Connection) =>
    table.admit(connection).pipe(
      Effect.andThen(connected(connection)),
      // Refused by the table after all, or already gone. Closing takes time, which the pump does not have.
      Effect.catch(() => FiberSet.run(background, connection.close))
    )

  /**
   * A remote refuses when the handshake is over, so what this node dialled, or its DHT, is a peer only once identify has answered: it is
   * admitted then, by the dial or by the pump. One that does not identify itself is admitted after the time that a dial waits for it.
   */
  const opened = (connection: Connection) =>
    connection.direction === "inbound"
      ? admit(connection)
      : FiberSet.run(
        background,
        Effect.sleep(identifyTime).pipe(
          Effect.andThen(connection.remote),
          Effect.flatMap((remote) => remote._tag === "Some" ? Effect.void : admit(connection))
        )
      )

  const lost = Effect.fnUntraced(function*(connection: Connection) {
    const { kind: released } = yield* table.release(connection)
    const peer = known.get(connection.peer)
    // Of a connection that was never admitted the dial tells, if there was one.
    if (peer === undefined || released === "unknown") return
    // The supervisor may stand on the connection that went.
    if (released === "other") return yield* Effect.asVoid(peer.changed.open)
    // It is back already, or about to be.
    if (released === "removed" && (dials.has(peer.id) || (yield* table.has(peer.id)))) return
    const now = yield* Clock.currentTimeMillis
    const lasted = now - (peer.connectedAt ?? now)
    peer.connectedAt = undefined
    peer.discovered = false
    const { farewell } = peer
    peer.farewell = false
    if (released === "removed") {
      // The table let it go on purpose (idle, evicted, disconnect, blocked), so nobody wants it back.
      peer.wanted = false
      peer.restUntil = Math.max(peer.restUntil, now + cooldownMillis)
    } else if (!farewell && lasted >= stableMillis) {
      peer.flapping = false
      peer.loss = undefined
      peer.step = undefined
      peer.attempts = 0
    } else {
      peer.flapping = true
      peer.loss = new DialError({ target: peer.id, reason: new Refused({}) })
    }
    yield* changed(peer)
  })

  yield* Stream.fromQueue(transport.events).pipe(
    Stream.runForEach((event) => {
      switch (event._tag) {
        case "Opened":
          return opened(event.connection)
        case "Identified":
          return Effect.andThen(admit(event.connection), table.identified(event.connection.peer, event.remote))
        case "Closed":
          return lost(event.connection)
      }
    }),
    Effect.forkScoped({ startImmediately: true })
  )

  // -------------------------------------------------------------------------------------------------------------------
  // discovery
  // -------------------------------------------------------------------------------------------------------------------

  let discovering = 0

  const dialDiscovered = (peer: Known) =>
    Effect.gen(function*() {
      discovering++
      peer.discovered = true
      yield* table.rank(peer.id, interestOf(peer))
      const exit = yield* Effect.exit(dialPeer(peer))
      if (Exit.isSuccess(exit)) {
        peer.step = undefined
        peer.attempts = 0
        return
      }
      peer.discovered = false
      yield* table.rank(peer.id, interestOf(peer))
      const failure = Cause.findErrorOption(exit.cause)
      if (failure._tag === "None") return
      const now = yield* Clock.currentTimeMillis
      const error = failure.value
      const refused = error._tag === "PeerLimitExceeded" ||
        (error._tag === "DialError" && error.reason._tag === "Refused")
      const delay = refused ? undefined : yield* nextDelay(peer, { id: peer.id, interest: "discovered" }, error)
      if (delay === undefined) peer.step = undefined
      peer.restUntil = now + (delay === undefined ? cooldownMillis : Duration.toMillis(delay))
    }).pipe(Effect.ensuring(Effect.sync(() => discovering--)))

  const sighted = Effect.fnUntraced(function*(sighting: Sighting) {
    if (sighting.id === transport.localPeer) return
    const isNew = !known.has(sighting.id)
    const peer = record(sighting.id)
    const fresh = sighting.addresses.filter((address) => learn(peer, address))
    if (isNew || fresh.length > 0) {
      yield* events.publish(
        new PeerDiscovered({ peer: peer.id, addresses: sighting.addresses, source: sighting.source })
      )
    }
    if (peer.blocks > 0 || (yield* table.has(peer.id))) return
    if (isDesired(peer)) {
      // Seen, so the wait is over; but one that flaps is seen all the time.
      if (peer.flapping && fresh.length === 0) return
      peer.hurried = true
      yield* peer.changed.open
      return
    }
    if (peer.suspended || dials.has(peer.id) || (yield* table.size) + discovering >= config.minPeers) return
    const now = yield* Clock.currentTimeMillis
    if (now < peer.restUntil && fresh.length === 0) return
    yield* FiberSet.run(background, dialDiscovered(peer))
  })

  yield* Stream.fromQueue(discovery.peers).pipe(
    Stream.runForEach(sighted),
    Effect.forkScoped({ startImmediately: true })
  )

  // -------------------------------------------------------------------------------------------------------------------
  // the service
  // -------------------------------------------------------------------------------------------------------------------

  const self = (target: DialTarget) => new DialError({ target: showTarget(target), reason: new DialedSelf({}) })

  const ask = (peer: Known, target: DialTarget) => {
    peer.suspended = false
    peer.hurried = true
    const addresses = typeof target !== "string" ? target.addresses : isMultiaddr(target) ? [target] : []
    for (const address of addresses) learn(peer, address, peer.given)
  }

  const connect = Effect.fn("ConnectionManager.connect")(
    function*(target: DialTarget): Effect.fn.Return<PeerInfo, ConnectError> {
      const id = peerOf(target)
      if (id === undefined) return yield* dialAddress(target as Multiaddr, "wanted")
      if (id === transport.localPeer) return yield* self(target)
      const peer = record(id)
      if (peer.blocks > 0) return yield* denied(showTarget(target), "the peer is blocked by this node")
      ask(peer, target)
      const present = yield* table.get(id)
      if (present._tag === "Some") {
        peer.wanted = true
        yield* changed(peer)
        return yield* Effect.map(table.get(id), Option.getOrElse(() => present.value))
      }
      // Claimed before the dial, since gate and admission rank by it; no supervisor yet, since a failure is the caller's.
      peer.claims++
      yield* table.rank(id, interestOf(peer))
      const joined = dials.get(id)
      return yield* dialPeer(peer).pipe(
        // The dial that was joined may not have tried the caller's addresses.
        Effect.catch((error) =>
          joined !== undefined && [...peer.given].some((address) => !joined.addresses.has(address))
            ? dialPeer(peer)
            : Effect.fail(error)
        ),
        Effect.onExit((exit) => {
          peer.claims--
          if (Exit.isSuccess(exit)) peer.wanted = true
          return changed(peer)
        })
      )
    }
  )

  const keepPeer = Effect.fnUntraced(function*(id: PeerId, target: DialTarget) {
    yield* Effect.acquireRelease(
      Effect.suspend(() => {
        const peer = record(id)
        ask(peer, target)
        peer.keeps++
        return Effect.as(changed(peer), peer)
      }),
      (peer) =>
        Effect.suspend(() => {
          peer.keeps--
          return changed(peer)
        })
    )
  })

  /** Dials the place by the policy until somebody answers, then keeps that peer. */
  const keepAddress = Effect.fnUntraced(function*(address: Multiaddr) {
    const attempt: { step: Step | undefined } = { step: undefined }
    while (true) {
      const exit = yield* Effect.exit(dialAddress(address, "kept"))
      if (Exit.isSuccess(exit)) return yield* keepPeer(exit.value.id, withPeer(address, exit.value.id))
      const failure = Cause.findErrorOption(exit.cause)
      if (failure._tag === "None") return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
      const error = failure.value
      if (error._tag === "DialError" && !error.isRetryable) {
        return yield* Effect.logWarning(`${address} is not kept: ${error.message}`)
      }
      const delay = yield* nextDelay(attempt, { interest: "kept" }, error)
      if (delay === undefined) return yield* Effect.logWarning(`${address} is given up: ${error.message}`)
      yield* Effect.sleep(delay)
    }
  })

  const keep = Effect.fn("ConnectionManager.keep")(function*(target: DialTarget) {
    const id = peerOf(target)
    if (id === transport.localPeer) return yield* self(target)
    return yield* id !== undefined
      ? keepPeer(id, target)
      : keepAddress(target as Multiaddr).pipe(
        Effect.annotateLogs({ component: "connections" }),
        Effect.forkScoped,
        Effect.asVoid
      )
  })

  const disconnect = Effect.fn("ConnectionManager.disconnect")(function*(id: PeerId) {
    const peer = record(id)
    peer.wanted = false
    peer.discovered = false
    peer.suspended = true
    yield* changed(peer)
    yield* abortDial(id)
    yield* table.remove(id, "disconnect")
  })

  const block = Effect.fn("ConnectionManager.block")(function*(id: PeerId) {
    yield* Effect.acquireRelease(
      Effect.suspend(() => {
        const peer = record(id)
        peer.blocks++
        return Effect.as(changed(peer), peer)
      }),
      (peer) =>
        Effect.suspend(() => {
          peer.blocks--
          return changed(peer)
        })
    )
    // A connection may have passed the gate and not be a peer yet.
    yield* table.bar(id)
    yield* abortDial(id)
    yield* table.remove(id, "blocked")
  })

  const goodbye = Effect.fnUntraced(function*(id: PeerId, reason: GoodbyeReason) {
    const now = yield* Clock.currentTimeMillis
    const peer = record(id)
    peer.restUntil = now + cooldownMillis
    peer.farewell = true
    // A remote that restarts or made room may be wanted back; one that let us go for good, or for idleness, is not.
    if (reason === "idle" || reason === "disconnect" || reason === "blocked") peer.wanted = false
    yield* table.expect(id, "remote", reason)
    yield* changed(peer)
  })

  const refuse = Effect.fnUntraced(function*(request: GateRequest & { readonly stage: "peer" }, reason: RefusalReason) {
    const { direction, peer, remoteAddress: address } = request
    refusals.delete(peer)
    refusals.set(peer, reason)
    if (refusals.size > knownPeersMax) {
      for (const oldest of refusals.keys()) {
        refusals.delete(oldest)
        break
      }
    }
    yield* limits.count(reason)
    yield* events.publish(new PeerRefused({ peer, address, direction, reason }, { disableChecks: true }))
    return reason
  })

  // Installed last, when the pump runs.
  yield* transport.gate(Effect.fnUntraced(function*(request: GateRequest) {
    if (request.stage === "address") return yield* limits.arrive(request)
    const { direction, peer: id } = request
    const peer = known.get(id)
    if (peer !== undefined && peer.blocks > 0) return yield* refuse(request, "blocked")
    const claim = direction === "outbound" ? claims.get(withoutPeer(request.remoteAddress)) : undefined
    if (claim !== undefined) {
      claim.answered.add(id)
      if (peer === undefined || interestOf(peer) !== "kept") yield* table.rank(id, "wanted")
    }
    const refusal = yield* table.reserve(request)
    if (refusal !== undefined) return yield* refuse(request, refusal)
    refusals.delete(id)
    return true
  }))

  return ConnectionManager.of({ connect, keep, disconnect, block, goodbye })
})

export const layer: Layer.Layer<
  ConnectionManager,
  never,
  NetworkConfig | Transport | PeerTable | PeerStore | Discovery | NetworkEvents
> = Layer.effect(ConnectionManager, make)
