/**
 * The `Transport` of a simulated node: connections and byte streams over {@link SimNetwork}, with the promises of the port.
 *
 * A node listens at `/memory/<name>` as soon as its layer is built, and lets nobody in before the gate has a rule. A dial takes four
 * messages one after the other (call, hello, finish, identify), opening a stream two, a ping two. A stream keeps at most 256 KiB on the way
 * that the remote has not read.
 */
import {
  type Array as Arr,
  Cause,
  Clock,
  Deferred,
  Duration,
  Effect,
  Exit,
  FiberSet,
  Latch,
  Layer,
  Option,
  Queue,
  Schema,
  Semaphore,
  Stream
} from "effect"
import { protocolVersion } from "../schema/Agent.ts"
import type { DialReason, StreamReason } from "../schema/NetworkError.ts"
import type { RefusalReason } from "../schema/NetworkEvent.ts"
import {
  Denied,
  DialedSelf,
  DialError,
  InvalidAddress,
  PingError,
  ProtocolError,
  ProtocolNotSupported,
  Refused,
  StreamError,
  StreamFailed,
  StreamReset,
  UnexpectedPeer,
  Unreachable,
  WriteAfterEnd
} from "../schema/NetworkError.ts"
import {
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
} from "../schema/Peer.ts"
import {
  type ByteStream,
  type Connection,
  type ConnectionEvent,
  type Farewell,
  type GateRequest,
  type GateRule,
  Transport
} from "../services/Transport.ts"
import { type LineEnd, SimNetwork } from "./SimNetwork.ts"

/**
 * A node of the given name. A peer id is a name too.
 */
export const make = Effect.fnUntraced(function*(name: string) {
  const network = yield* SimNetwork
  const localPeer = SimNetwork.peerId(name)
  const machine = network.machine(name)
  let listening = { at: "", place: SimNetwork.place(name), addresses: [] as ReadonlyArray<Multiaddr> }
  const here = () => {
    const at = machine.address
    if (listening.at !== at) {
      const place = SimNetwork.place(at)
      listening = { at, place, addresses: [withPeer(place, localPeer)] }
    }
    return listening
  }
  const place = () => here().place
  const run = yield* FiberSet.makeRuntime()
  const events = yield* Effect.acquireRelease(Queue.unbounded<ConnectionEvent>(), Queue.shutdown)
  const connections = new Set<LiveConnection>()
  const handlers = new Map<string, (stream: LiveStream) => void>()
  const knownAddresses = new Map<PeerId, ReadonlyArray<Multiaddr>>()
  const clock = yield* Clock.Clock
  const pending = new Map<LineEnd, { readonly from: Multiaddr; readonly since: number }>()
  let ask: ((request: GateRequest) => boolean | RefusalReason) | undefined
  let isStopped = false

  const identity = (): RemoteIdentity => ({
    protocolVersion,
    agentVersion: "codio-network/<sim>",
    protocols: ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", ...handlers.keys()],
    listenAddresses: [place()]
  })

  const establish = (end: LineEnd, peer: PeerId, direction: Direction, remoteAddress: Multiaddr): LiveConnection => {
    const live = makeConnection({ end, peer, direction, remoteAddress, handlers, run })
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
    for (const [other, { since }] of pending) {
      if (now - since < handshakeMillis) continue
      pending.delete(other)
      other.hangUp("the handshake took too long")
    }
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
      if (answer !== true) return end.hangUp(typeof answer === "string" ? `${refused}${whyOf(answer)}` : refused)
      const live = establish(end, peer, "inbound", from)
      end.established()
      end.send({ _tag: "Identify", identity: identity() })
      live.identify(remote)
    }
    end.send({ _tag: "Hello", peer: localPeer })
  }

  // The handshake of a dial: ends with the connection, not yet identified.
  const shake = (to: Multiaddr, expected: PeerId | undefined, prepared: (end: LineEnd) => void) =>
    Effect.callback<LiveConnection, DialReason>((resume) =>
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
          end.send({ _tag: "Finish", peer: localPeer, identity: identity() })
          resume(later(Effect.succeed(live)))
        }
      })
    )

  const settled = (live: LiveConnection): Effect.Effect<Connection, DialReason> =>
    Effect.suspend(() =>
      Deferred.isDoneUnsafe(live.settled)
        ? Effect.void
        : Effect.timeoutOption(Deferred.await(live.settled), identifyTimeout)
    ).pipe(
      Effect.andThen(Effect.yieldNow),
      Effect.flatMap(() =>
        live.isOpen || live.isIdentified ? Effect.succeed(live.connection) : Effect.fail(live.refusal)
      )
    )

  const dialPlace = (to: Multiaddr, expected: PeerId | undefined): Effect.Effect<Connection, DialReason> => {
    const supported = /^\/memory\/[^/]+$|^\/(ip4|ip6|dns|dns4|dns6|dnsaddr)\/[^/]+\/tcp\/\d+$/.test(to)
    if (!supported) {
      return Effect.fail(
        new InvalidAddress({ detail: `a simulated node cannot dial ${to}; its addresses are /memory/<name>` })
      )
    }
    return Effect.suspend(() => {
      let abort = () => {}
      return shake(to, expected, (end) => {
        abort = () => {
          end.hangUp("the dial was aborted")
          end.onHangUp("the dial was aborted")
        }
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
    const places = [...new Set(known.map(withoutPeer))]
    for (const live of connections) {
      if (live.connection.peer === wanted || places.includes(live.connection.remoteAddress)) return settled(live)
    }
    if (places.length === 0) return Effect.fail(new Unreachable({ detail: "no address of this peer is known" }))
    if (places.length === 1) return dialPlace(places[0]!, wanted)
    return places.slice(1).reduce(
      (before, to) => Effect.catch(before, () => dialPlace(to, wanted)),
      dialPlace(places[0]!, wanted)
    )
  }

  yield* network.join({
    peer: localPeer,
    get place() {
      return place()
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
    addresses: Effect.sync(() => isStopped ? [] : here().addresses),
    dial: (target) =>
      Effect.mapError(
        Effect.suspend(() => dial(target)),
        (reason) => new DialError({ target: showTarget(target), reason })
      ),
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
    handle: Effect.fnUntraced(function*(protocol, handler) {
      if (!Schema.is(ProtocolId)(protocol)) {
        return yield* new ProtocolError({
          protocol,
          detail: "not a protocol id: expected a slash, then 1 to 255 characters without spaces"
        })
      }
      const fibers = yield* FiberSet.make()
      const fork = yield* FiberSet.runtime(fibers)()
      const answer = (stream: LiveStream) => {
        fork(
          later(Effect.suspend(() => handler(stream.byteStream))).pipe(
            Effect.onExit((exit) => Effect.sync(() => stream.finish(exit))),
            Effect.catchCause((cause) =>
              Cause.hasInterruptsOnly(cause)
                ? Effect.void
                : Effect.logError(`the handler of ${protocol} died; its stream is reset`, cause)
            )
          )
        )
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
    ping: Effect.fnUntraced(function*(peer) {
      const fail = (detail: string) => new PingError({ peer, reason: new StreamFailed({ detail }) })
      // The newest, which is the table's best among those that the same side dialled.
      let live: LiveConnection | undefined
      for (const one of connections) if (one.connection.peer === peer) live = one
      if (live === undefined) return yield* fail("not connected")
      const start = yield* Clock.monotonicTimeNanos
      yield* Effect.mapError(live.ping, fail)
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

const stopped = new Denied({ detail: "this node has stopped" })
// How a node hangs up on a peer that its gate refuses; why follows, where the rule says so.
const refused = "refused "
const whyOf = (reason: RefusalReason): Farewell => reason === "blocked" || reason === "shutdown" ? reason : "full"

const handshakeMillis = 10_000
const identifyTimeout = Duration.seconds(2)
const lingerTimeout = Duration.seconds(10)
const windowBytes = 256 * 1024

// A fiber that is resumed runs at once, in the middle of the delivery that resumed it. It has to wait until that is over.
const later = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> => Effect.andThen(Effect.yieldNow, effect)

type Run = (effect: Effect.Effect<void>) => unknown

interface LiveConnection {
  readonly connection: Connection
  readonly isOpen: boolean
  readonly isIdentified: boolean
  /** What a dial fails with that was closed before it was identified. */
  readonly refusal: Refused
  /** Done when the connection was identified, or closed. */
  readonly settled: Deferred.Deferred<void>
  readonly identify: (remote: RemoteIdentity) => void
  readonly ping: Effect.Effect<void, string>
  onIdentified: (remote: RemoteIdentity) => void
  onClosed: () => void
}

interface Negotiation {
  readonly protocol: ProtocolId
  readonly end: (answer: Effect.Effect<LiveStream, StreamReason>) => void
}

interface LiveStream {
  readonly byteStream: ByteStream
  /** The owner's scope has closed. */
  readonly finish: (exit: Exit.Exit<unknown, unknown>) => void
  /** Its owner's scope has closed, and what was written is on its way. */
  readonly flushed: Effect.Effect<void>
  /** It ended before its time. */
  readonly fail: (reason: StreamReason) => void
  readonly reset: (detail: string) => void
  readonly onData: (bytes: Uint8Array) => void
  readonly onCredit: (bytes: number) => void
  readonly onEnd: () => void
}

let connectionIds = 0

function makeConnection(options: {
  readonly end: LineEnd
  readonly peer: PeerId
  readonly direction: Direction
  readonly remoteAddress: Multiaddr
  readonly handlers: ReadonlyMap<string, (stream: LiveStream) => void>
  readonly run: Run
}): LiveConnection {
  const { direction, end, handlers, peer, remoteAddress, run } = options
  const streams = new Map<number, LiveStream>()
  const negotiations = new Map<number, Negotiation>()
  const pings = new Map<number, (answer: Effect.Effect<void, string>) => void>()
  const pinging = Semaphore.makeUnsafe(1)
  let progress = 0
  let isOpen = true
  let farewell: Farewell | undefined
  let remote: RemoteIdentity | undefined
  // Both sides count their streams, one in even numbers and one in odd ones.
  let nextStream = direction === "outbound" ? 0 : 1
  let nextPing = 0

  const closed = (detail: string) => {
    if (!isOpen) return
    isOpen = false
    if (detail.startsWith(refused) && detail !== refused) farewell = detail.slice(refused.length) as Farewell
    const reason = new StreamReset({ detail })
    for (const stream of [...streams.values()]) stream.fail(reason)
    for (const negotiation of [...negotiations.values()]) negotiation.end(Effect.fail(reason))
    for (const answer of [...pings.values()]) answer(Effect.fail(detail))
    Deferred.doneUnsafe(live.settled, Effect.void)
    live.onClosed()
  }

  const addStream = (id: number, protocol: ProtocolId): LiveStream => {
    const stream = makeStream({ connection, protocol, id, end, run, over: () => streams.delete(id) })
    streams.set(id, stream)
    return stream
  }

  end.onHangUp = closed
  end.onMessage = (message) => {
    switch (message._tag) {
      case "Identify":
        return live.identify(message.identity)
      case "Open": {
        const answer = handlers.get(message.protocol)
        if (answer === undefined) return end.send({ _tag: "Unsupported", stream: message.stream })
        const stream = addStream(message.stream, message.protocol)
        end.send({ _tag: "Accept", stream: message.stream })
        return answer(stream)
      }
      case "Accept": {
        const negotiation = negotiations.get(message.stream)
        return negotiation?.end(Effect.succeed(addStream(message.stream, negotiation.protocol)))
      }
      case "Unsupported":
        return negotiations.get(message.stream)?.end(Effect.fail(new ProtocolNotSupported({})))
      case "Data":
        progress += message.bytes.length
        return streams.get(message.stream)?.onData(message.bytes)
      case "Credit":
        progress += message.bytes
        return streams.get(message.stream)?.onCredit(message.bytes)
      case "End":
        return streams.get(message.stream)?.onEnd()
      case "Reset":
        return streams.get(message.stream)?.fail(new StreamReset({ detail: "the remote reset the stream" }))
      case "Ping":
        return end.send({ _tag: "Pong", ping: message.ping })
      case "Pong":
        return pings.get(message.ping)?.(Effect.void)
    }
  }

  const negotiate = (protocol: ProtocolId) =>
    Effect.suspend(() => {
      const id = nextStream
      nextStream += 2
      return Effect.callback<LiveStream, StreamReason>((resume) => {
        if (!isOpen) return resume(Effect.fail(new StreamReset({ detail: "the connection is closed" })))
        negotiations.set(id, {
          protocol,
          end(answer) {
            negotiations.delete(id)
            resume(later(answer))
          }
        })
        end.send({ _tag: "Open", stream: id, protocol })
      }).pipe(Effect.onInterrupt(() =>
        Effect.sync(() => {
          negotiations.delete(id)
          end.send({ _tag: "Reset", stream: id })
          streams.get(id)?.fail(new StreamReset({ detail: "the opener was interrupted" }))
        })
      ))
    })

  const connection: Connection = {
    id: `sim-${++connectionIds}`,
    peer,
    direction,
    remoteAddress,
    path: Effect.succeed({ _tag: "Direct" }),
    isOpen: Effect.sync(() => isOpen),
    activeStreams: Effect.sync(() => streams.size),
    streams: Effect.sync(() => streams.size + negotiations.size),
    progress: Effect.sync(() => progress),
    remote: Effect.sync(() => Option.fromUndefinedOr(remote)),
    farewell: Effect.sync(() => farewell),
    open: (protocol) =>
      Effect.acquireRelease(
        Effect.mapError(negotiate(protocol), (reason) => new StreamError({ peer, protocol, reason })),
        (stream, exit) => Effect.sync(() => stream.finish(exit)),
        { interruptible: true }
      ).pipe(Effect.map((stream) => stream.byteStream)),
    flushed: Effect.suspend(() =>
      Effect.forEach([...streams.values()], (stream) => stream.flushed, { concurrency: "unbounded", discard: true })
    ),
    retire: Effect.void,
    close: Effect.sync(() => {
      closed("this side closed the connection")
      end.hangUp("the remote closed the connection")
    })
  }

  const live: LiveConnection = {
    connection,
    get isOpen() {
      return isOpen
    },
    get refusal() {
      return new Refused(farewell === undefined || farewell === "evicted" ? {} : { why: farewell })
    },
    get isIdentified() {
      return remote !== undefined
    },
    settled: Deferred.makeUnsafe(),
    identify(told) {
      if (!isOpen || remote !== undefined) return
      remote = told
      live.onIdentified(told)
      Deferred.doneUnsafe(live.settled, Effect.void)
    },
    ping: pinging.withPermit(Effect.callback<void, string>((resume) => {
      const id = nextPing++
      pings.set(id, (answer) => {
        pings.delete(id)
        resume(later(answer))
      })
      end.send({ _tag: "Ping", ping: id })
      return Effect.sync(() => pings.delete(id))
    })),
    onIdentified: () => {},
    onClosed: () => {}
  }
  return live
}

function makeStream(options: {
  readonly connection: Connection
  readonly protocol: ProtocolId
  readonly id: number
  readonly end: LineEnd
  readonly run: Run
  readonly over: () => void
}): LiveStream {
  const { connection, end, id, over, protocol, run } = options
  const readable = Latch.makeUnsafe()
  const writable = Latch.makeUnsafe()
  const writing = Semaphore.makeUnsafe(1)
  const ended = Deferred.makeUnsafe<void>()
  let inbox: Array<Uint8Array> = []
  let credit = windowBytes
  let isWriteClosed = false
  let isReadClosed = false
  let isLingering = false
  let isOver = false
  // A writer waits for the remote to read.
  let isWaiting = false
  let failure: StreamReason | undefined

  const streamError = (reason: StreamReason) => new StreamError({ peer: connection.peer, protocol, reason })
  const ends = () => {
    if (isOver) return
    isOver = true
    over()
    readable.openUnsafe()
    writable.openUnsafe()
    Deferred.doneUnsafe(ended, Effect.void)
  }
  const fail = (reason: StreamReason) => {
    if (isOver) return
    failure = reason
    ends()
  }
  const reset = (detail: string) => {
    if (isOver) return
    end.send({ _tag: "Reset", stream: id })
    fail(new StreamReset({ detail }))
  }

  const pull: Effect.Effect<Arr.NonEmptyReadonlyArray<Uint8Array>, StreamError | Cause.Done> = Effect.suspend(() => {
    const [first, ...rest] = inbox
    if (first !== undefined) {
      inbox = []
      const bytes = rest.reduce((sum, chunk) => sum + chunk.length, first.length)
      if (!isReadClosed && !isOver) end.send({ _tag: "Credit", stream: id, bytes })
      return Effect.succeed([first, ...rest] as const)
    }
    if (isReadClosed) return Cause.done()
    if (failure !== undefined) return Effect.fail(streamError(failure))
    readable.closeUnsafe()
    return Effect.andThen(readable.await, later(pull))
  })

  const push = (rest: Uint8Array): Effect.Effect<void, StreamError> =>
    Effect.suspend(() => {
      if (failure !== undefined) return Effect.fail(streamError(failure))
      if (isWriteClosed) return Effect.fail(streamError(new WriteAfterEnd()))
      let from = 0
      while (from < rest.length && credit > 0) {
        const bytes = rest.subarray(from, from + credit)
        credit -= bytes.length
        from += bytes.length
        end.send({ _tag: "Data", stream: id, bytes })
      }
      if (from === rest.length) return Effect.void
      writable.closeUnsafe()
      isWaiting = true
      return writable.await.pipe(
        Effect.onExit(() =>
          Effect.sync(() => {
            isWaiting = false
          })
        ),
        Effect.andThen(later(push(rest.subarray(from))))
      )
    })

  const endWrite = () => {
    if (isWriteClosed || isOver) return
    isWriteClosed = true
    end.send({ _tag: "End", stream: id })
    if (isReadClosed) ends()
  }
  const closeWrite = writing.withPermits(1)(Effect.suspend(() => {
    if (!isWriteClosed && failure !== undefined) return Effect.fail(streamError(failure))
    endWrite()
    return Effect.void
  }))

  return {
    byteStream: {
      connection,
      protocol,
      read: Stream.fromPull(Effect.succeed(pull)),
      write: (chunk) => writing.withPermits(1)(push(chunk)),
      closeWrite
    },
    finish(exit) {
      if (isOver) return
      if (Exit.isFailure(exit)) return reset("this side reset the stream")
      isLingering = true
      if (!isWaiting) endWrite()
      if (isOver) return
      run(
        Effect.exit(closeWrite).pipe(
          Effect.andThen(Deferred.await(ended)),
          Effect.timeoutOption(lingerTimeout),
          Effect.andThen(Effect.sync(() => reset("the remote did not close its half in time")))
        )
      )
    },
    flushed: Effect.suspend(() => isLingering && !isOver ? Effect.asVoid(Effect.exit(closeWrite)) : Effect.void),
    fail,
    reset,
    onData(bytes) {
      if (isLingering) return reset("bytes arrived after this side had ended")
      inbox.push(bytes)
      readable.openUnsafe()
    },
    onCredit(bytes) {
      credit += bytes
      writable.openUnsafe()
    },
    onEnd() {
      isReadClosed = true
      readable.openUnsafe()
      if (isWriteClosed) ends()
    }
  }
}
