/**
 * The `Transport` of a simulated node: connections and byte streams over {@link SimNetwork}, with the promises of the
 * port.
 *
 * A node listens at `/memory/<name>` as soon as its layer is built, and lets nobody in before the gate has a rule. A
 * dial takes four messages one after the other (call, hello, finish, identify), opening a stream two, a ping two. A
 * stream keeps at most 256 KiB on the way that the remote has not read.
 */
import { Cause, Clock, Deferred, Duration, Effect, Exit, FiberSet, Layer, Option, Queue, Schema } from "effect"
import * as StreamBudget from "../../layers/StreamBudget.ts"
import { protocolVersion } from "../../schema/Agent.ts"
import {
  Denied,
  DialedSelf,
  DialError,
  type DialReason,
  HostError,
  InvalidAddress,
  PingError,
  ProtocolError,
  StreamFailed,
  UnexpectedPeer,
  Unreachable
} from "../../schema/NetworkError.ts"
import type { RefusalReason } from "../../schema/NetworkEvent.ts"
import {
  addressOf,
  type DialTarget,
  type Direction,
  isMultiaddr,
  type Multiaddr,
  type PeerId,
  peerOf,
  ProtocolId,
  type RemoteIdentity,
  showTarget,
  withoutPeer,
  withPeer
} from "../../schema/Peer.ts"
import {
  comparing,
  type Connection,
  type ConnectionEvent,
  type GateRequest,
  type GateRule,
  type HandleLimits,
  identifyTime,
  Transport
} from "../../services/Transport.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { later, type LiveStream } from "./SimByteStream.ts"
import * as SimConnection from "./SimConnection.ts"
import { type LineEnd, SimNetwork } from "../network/SimNetwork.ts"

/**
 * A node of the given name. A peer id is a name too.
 */
export const make = Effect.fnUntraced(function*(name: string) {
  const network = yield* SimNetwork
  const localPeer = SimNetwork.peerId(name)
  const machine = network.machine(name)
  const own = makeOwn(() => machine.address, localPeer)
  const run = yield* FiberSet.makeRuntime()
  const events = yield* Effect.acquireRelease(Queue.unbounded<ConnectionEvent>(), Queue.shutdown)
  const connections = new Set<SimConnection.LiveConnection>()
  const handlers = new Map<string, (stream: LiveStream) => void>()
  const knownAddresses = new Map<PeerId, ReadonlyArray<Multiaddr>>()
  const clock = yield* Clock.Clock
  const budget = yield* makeBudget
  const pending: Handshakes = new Map()
  let ask: ((request: GateRequest) => boolean | RefusalReason) | undefined
  let isStopped = false

  const identity = (): RemoteIdentity => ({
    protocolVersion,
    agentVersion: "codio-network/<sim>",
    protocols: ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", ...handlers.keys()],
    listenAddresses: [own.address()]
  })

  const establish = (
    end: LineEnd,
    peer: PeerId,
    direction: Direction,
    remoteAddress: Multiaddr
  ): SimConnection.LiveConnection => {
    const live = SimConnection.make({ end, peer, direction, remoteAddress, handlers, run, budget })
    connections.add(live)
    live.onIdentified = (remote) => {
      knownAddresses.set(peer, remote.listenAddresses)
      Queue.offerUnsafe(events, { _tag: "Identified", connection: live.connection, remote })
    }
    live.onClosed = () => {
      connections.delete(live)
      Queue.offerUnsafe(events, { _tag: "Closed", connection: live.connection })
    }
    Queue.offerUnsafe(events, { _tag: "Opened", connection: live.connection })
    return live
  }

  const accept = (end: LineEnd, from: Multiaddr) => {
    const now = clock.currentTimeMillisUnsafe()
    endOverdue(pending, now)
    const coming = Array.from(pending.values(), (one) => one.from)
    if (ask?.({ stage: "address", direction: "inbound", remoteAddress: from, pending: coming }) !== true) {
      return end.hangUp("the connection was closed during the handshake")
    }
    pending.set(end, { from, since: now })
    end.onHangUp = () => pending.delete(end)
    end.onMessage = (message) => {
      if (message._tag !== "Finish") return
      pending.delete(end)
      const { identity: remote, peer } = message
      const answer = ask?.({ stage: "peer", direction: "inbound", peer, remoteAddress: from })
      if (answer !== true) return end.hangUp(SimConnection.refusal(answer))
      const live = establish(end, peer, "inbound", from)
      end.established()
      end.send({ _tag: "Identify", identity: identity() })
      live.identify(remote)
    }
    end.send({ _tag: "Hello", peer: localPeer })
  }

  // The handshake of a dial: succeeds with the connection, before identify.
  const shake = (
    to: Multiaddr,
    expected: PeerId | undefined,
    prepared: (end: LineEnd) => void,
    made: (live: SimConnection.LiveConnection) => void
  ) =>
    Effect.callback<SimConnection.LiveConnection, DialReason>((resume) =>
      network.connect(localPeer, to, (end) => {
        prepared(end)
        const fail = (reason: DialReason) => {
          end.hangUp("the dialler hung up during the handshake")
          resume(later(Effect.fail(reason)))
        }
        end.onHangUp = (detail) => resume(later(Effect.fail(isStopped ? stopped : new Unreachable({ detail }))))
        end.onMessage = (message) => {
          if (message._tag !== "Hello") return
          const { peer } = message
          if (expected !== undefined && peer !== expected) return fail(new UnexpectedPeer({ expected }))
          if (peer === localPeer) return fail(new DialedSelf())
          if (ask !== undefined && ask({ stage: "peer", direction: "outbound", peer, remoteAddress: to }) !== true) {
            return fail(new Denied({ detail: `this node does not let ${peer} in` }))
          }
          const live = establish(end, peer, "outbound", to)
          made(live)
          end.send({ _tag: "Finish", peer: localPeer, identity: identity() })
          resume(later(Effect.succeed(live)))
        }
      })
    )

  const settled = (live: SimConnection.LiveConnection): Effect.Effect<Connection, DialReason> =>
    Effect.suspend(() =>
      Deferred.isDoneUnsafe(live.settled)
        ? Effect.void
        : Effect.timeoutOption(Deferred.await(live.settled), identifyTime)
    ).pipe(
      Effect.andThen(Effect.yieldNow),
      Effect.flatMap(() => {
        if (live.isOpen || live.isIdentified) return Effect.succeed(live.connection)
        // Any other open connection of the peer is as good.
        const other = [...connections].find(({ connection }) => connection.peer === live.connection.peer)
        return other === undefined ? Effect.fail(live.refusal) : settled(other)
      })
    )

  const dialAddress = (to: Multiaddr, expected: PeerId | undefined): Effect.Effect<Connection, DialReason> => {
    if (!supported.test(to)) return Effect.fail(unsupported(to))
    return Effect.suspend(() => {
      let made: SimConnection.LiveConnection | undefined
      let abort = () => {}
      return shake(to, expected, (end) => {
        abort = () => {
          // An identified connection belongs to those who read the events.
          if (made?.isIdentified === true) return
          end.hangUp("the dial was aborted")
          end.onHangUp("the dial was aborted")
        }
      }, (live) => {
        made = live
      }).pipe(
        Effect.flatMap(settled),
        Effect.onInterrupt(() => Effect.sync(abort))
      )
    })
  }

  const dial = (target: DialTarget): Effect.Effect<Connection, DialReason> => {
    const wanted = peerOf(target)
    if (isStopped) return Effect.fail(stopped)
    if (wanted === localPeer) return Effect.fail(new DialedSelf())
    const given = typeof target === "string" ? isMultiaddr(target) ? [target] : [] : target.addresses
    const known = given.length > 0 || wanted === undefined ? given : knownAddresses.get(wanted) ?? []
    const addresses = [...new Set(known.map((address) => withoutPeer(addressOf(address))))]
    for (const live of connections) {
      if (live.connection.peer === wanted || addresses.includes(live.connection.remoteAddress)) return settled(live)
    }
    if (addresses.length === 0) return Effect.fail(new Unreachable({ detail: "no address of this peer is known" }))
    if (addresses.length === 1) return dialAddress(addresses[0]!, wanted)
    return addresses.slice(1).reduce(
      (before, to) => Effect.catch(before, () => dialAddress(to, wanted)),
      dialAddress(addresses[0]!, wanted)
    )
  }

  yield* network.join({
    peer: localPeer,
    get address() {
      return own.address()
    },
    accept,
    killed: () => {
      isStopped = true
    }
  })
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isStopped = true
    })
  )

  return Transport.of({
    localPeer,
    streams: budget,
    addresses: Effect.sync(() => isStopped ? [] : own.addresses()),
    announce: own.announce,
    listen: () => new HostError({ module: "simulator", detail: "a simulated machine has one address to listen on" }),
    dial: (target) =>
      Effect.mapError(
        Effect.suspend(() => dial(target)),
        (reason) => new DialError({ target: showTarget(target), reason })
      ),
    retain: () => Effect.void,
    gate: (rule: GateRule) =>
      Effect.acquireRelease(
        Effect.gen(function*() {
          if (ask !== undefined) return yield* Effect.die(new Error("a rule is already installed in the gate"))
          const context = yield* Effect.context<never>()
          const runSync = Effect.runSyncExitWith(context)
          ask = (request) => {
            const exit = runSync(rule(request))
            if (Exit.isSuccess(exit)) return exit.value
            run(Effect.logError("the gate's rule failed or suspended; the connection is refused", exit.cause))
            return false
          }
        }),
        () =>
          Effect.sync(() => {
            ask = undefined
          })
      ),
    events,
    handle: Effect.fnUntraced(function*(protocol, handler, { maxBufferedBytesPerPeer }: HandleLimits = {}) {
      if (!Schema.is(ProtocolId)(protocol)) return yield* noProtocolId(protocol)
      const fibers = yield* FiberSet.make()
      const fork = yield* FiberSet.runtime(fibers)()
      const groupOf = maxBufferedBytesPerPeer === undefined ? undefined : StreamBudget.perPeer(maxBufferedBytesPerPeer)
      const answer = (stream: LiveStream) => {
        if (groupOf !== undefined) stream.join(groupOf(stream.byteStream.connection.peer))
        fork(served(stream, handler))
      }
      yield* Effect.acquireRelease(
        Effect.suspend(() => {
          if (handlers.has(protocol)) {
            return Effect.fail(new ProtocolError({ protocol, detail: "the protocol has a handler already" }))
          }
          handlers.set(protocol, answer)
          return Effect.void
        }),
        () => Effect.sync(() => handlers.delete(protocol))
      )
    }),
    ping: Effect.fnUntraced(function*(peer, begun = Effect.void) {
      const fail = (detail: string) => new PingError({ peer, reason: new StreamFailed({ detail }) })
      // The connection that the peer table ranks first, as over libp2p: one on which streams are opened is not dead.
      const compare = comparing(localPeer, peer)
      const [live] = [...connections].reverse().filter(({ connection }) => connection.peer === peer).sort((a, b) =>
        compare({ direction: a.connection.direction, isDirect: true }, {
          direction: b.connection.direction,
          isDirect: true
        })
      )
      if (live === undefined) return yield* fail("not connected")
      let start = 0n
      const sent = Effect.map(Clock.monotonicTimeNanos, (now) => {
        start = now
      })
      yield* Effect.mapError(live.ping(Effect.andThen(begun, sent)), fail)
      return Duration.nanos((yield* Clock.monotonicTimeNanos) - start)
    })
  })
})

/**
 * The transport of a node of the given name, listening at `/memory/<name>`. A peer id is a name too. Its peer id is
 * `SimNetwork.peerId(name)`.
 */
export const layer = (name: string): Layer.Layer<Transport, never, SimNetwork> => Layer.effect(Transport, make(name))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The address of the machine, which may move, and those that the program announces. */
const makeOwn = (at: () => string, localPeer: PeerId) => {
  const scopes = new Set<{ readonly announced: Multiaddr }>()
  const address = () => SimNetwork.address(at())
  return {
    address,
    addresses: () => [
      ...new Set([withPeer(address(), localPeer), ...Array.from(scopes, ({ announced }) => announced)])
    ],
    announce: (announced: Multiaddr) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.sync(() => {
          const scope = { announced: withPeer(announced, localPeer) }
          scopes.add(scope)
          return scope
        }),
        (scope) => Effect.sync(() => scopes.delete(scope))
      ))
  }
}

const stopped = new Denied({ detail: "this node has stopped" })
/** The inbound connections that are in their handshake. */
type Handshakes = Map<LineEnd, { readonly from: Multiaddr; readonly since: number }>
const noProtocolId = (protocol: ProtocolId) =>
  new ProtocolError({
    protocol,
    detail: "not a protocol id: expected a slash, then 1 to 255 characters without spaces"
  })
const handshakeMillis = 10_000
const endOverdue = (pending: Handshakes, now: number) => {
  for (const [end, { since }] of pending) {
    if (now - since < handshakeMillis) continue
    pending.delete(end)
    end.hangUp("the handshake took too long")
  }
}
const supported = /^\/memory\/[^/]+$|^\/(ip4|ip6|dns|dns4|dns6|dnsaddr)\/[^/]+\/tcp\/\d+$/
const unsupported = (to: Multiaddr) =>
  new InvalidAddress({ detail: `a simulated node cannot dial ${to}; its addresses are /memory/<name>` })

const makeBudget = Effect.gen(function*() {
  const config = Option.getOrUndefined(yield* Effect.serviceOption(NetworkConfig))
  return StreamBudget.make(config?.maxBufferedBytes ?? 256 * 1024 * 1024, yield* Effect.context<never>())
})

/** Runs the handler of a stream, which ends with it. */
const served = (stream: LiveStream, handler: (stream: LiveStream["byteStream"]) => Effect.Effect<void>) =>
  later(Effect.suspend(() => handler(stream.byteStream))).pipe(
    Effect.onExit((exit) => Effect.sync(() => stream.finish(exit))),
    Effect.catchCause((cause) => {
      const { connection, protocol } = stream.byteStream
      return Cause.hasInterruptsOnly(cause)
        ? Effect.void
        : Effect.logError(`the handler of ${protocol} died, and its stream with ${connection.peer} is reset`, cause)
    })
  )
