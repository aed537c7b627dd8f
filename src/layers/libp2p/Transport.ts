/**
 * `Transport` over the libp2p host.
 */
import type { Connection as Libp2pConnection, Stream as Libp2pStream } from "@libp2p/interface"
import { peerIdFromString } from "@libp2p/peer-id"
import { Duration, Effect, FiberSet, Layer, Queue, Scope, Semaphore } from "effect"
import {
  DialedSelf,
  DialError,
  type DialReason,
  InvalidAddress,
  PingError,
  PingUnsupported,
  ProtocolError,
  StreamFailed,
  UnexpectedPeer
} from "../../schema/NetworkError.ts"
import {
  type DialTarget,
  type Multiaddr,
  type PeerId,
  peerOf,
  type ProtocolId,
  showTarget,
  withPeer
} from "../../schema/Peer.ts"
import { type ConnectionEvent, type HandleLimits, identifyTime, Transport } from "../../services/Transport.ts"
import * as StreamBudget from "../StreamBudget.ts"
import * as ByteStream from "./ByteStream.ts"
import {
  best,
  closeOrAbort,
  isOpen,
  type Libp2pBackedConnection,
  makeConnection,
  remoteIdentity,
  streamsMax
} from "./Connection.ts"
import {
  type Destination,
  destinationOf,
  dialReason,
  isDns,
  isPeerId,
  isRelayed,
  nextConnection,
  refused,
  resolveOwn,
  stopping
} from "./Dialing.ts"
import { dialUnjoined, toError } from "./Faults.ts"
import { Libp2pHost } from "./Host.ts"
import * as PingStream from "./PingStream.ts"
import * as Punches from "./Punches.ts"
import { farewellOf } from "./wire/GoAway.ts"
import { shareOf } from "./wire/Yamux.ts"

/** The `Transport` over the libp2p node. */
export const make = Effect.gen(function*() {
  const host = yield* Libp2pHost
  const { node } = host
  const localPeer = node.peerId.toString() as PeerId
  const events = yield* Effect.acquireRelease(
    // Unbounded, since a lost Closed would keep a slot of the peer table for ever. The host's limit of connections
    // bounds it: a few events for each.
    Queue.unbounded<ConnectionEvent>(),
    Queue.shutdown
  )

  const connections = new WeakMap<Libp2pConnection, Libp2pBackedConnection>()
  const punches = Punches.make()
  const hide = (underlying: Libp2pConnection) => hideIn(host.components, underlying)
  const connectionOf = (underlying: Libp2pConnection): Libp2pBackedConnection => {
    const known = connections.get(underlying)
    if (known !== undefined) return known
    if (!underlying.direct) punches.watch(underlying)
    const isPunched = underlying.direct && punches.isPunched(underlying, node.getConnections(underlying.remotePeer))
    const connection = makeConnection(underlying, hide, isPunched)
    connections.set(underlying, connection)
    return connection
  }

  // ---- events

  const opened = (underlying: Libp2pConnection) => {
    if (connections.has(underlying)) return
    const connection = connectionOf(underlying)
    Queue.offerUnsafe(events, { _tag: "Opened", connection })
    let closed = false
    const onClose = () => {
      if (closed) return
      closed = true
      Queue.offerUnsafe(events, { _tag: "Closed", connection })
    }
    underlying.addEventListener("close", onClose, { once: true })
    if (!isOpen(underlying)) return onClose()
    void host.identified(underlying).then((result) => {
      if (result === undefined || closed) return
      const remote = remoteIdentity(result)
      connection.identify(remote)
      Queue.offerUnsafe(events, { _tag: "Identified", connection, remote })
    })
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      const onOpen = ({ detail }: CustomEvent<Libp2pConnection>) => opened(detail)
      node.addEventListener("connection:open", onOpen)
      for (const underlying of node.getConnections()) opened(underlying)
      return onOpen
    }),
    (onOpen) => Effect.sync(() => node.removeEventListener("connection:open", onOpen))
  )

  // ---- dial

  // How many dials wait for a connection to be identified. The last of them closes it when all were interrupted, and
  // none gave it to a caller.
  const waiting = new Map<Libp2pConnection, number>()
  const delivered = new WeakSet<Libp2pConnection>()

  const identified = (underlying: Libp2pConnection, isOwn: boolean) =>
    Effect.callback<void>((resume) => {
      waiting.set(underlying, (waiting.get(underlying) ?? 0) + 1)
      let settled = false
      const settle = () => {
        if (settled) return
        settled = true
        clearTimeout(timer)
        underlying.removeEventListener("close", done)
        const left = (waiting.get(underlying) ?? 1) - 1
        if (left === 0) waiting.delete(underlying)
        else waiting.set(underlying, left)
      }
      const done = () => {
        if (settled) return
        settle()
        delivered.add(underlying)
        resume(Effect.void)
      }
      const timer = setTimeout(done, Duration.toMillis(identifyTime))
      underlying.addEventListener("close", done)
      if (isOpen(underlying)) void host.identified(underlying).then(done)
      else done()
      return Effect.sync(() => {
        settle()
        // A connection that this dial did not open, such as the remote's, stays open.
        if (isOwn && !waiting.has(underlying) && !delivered.has(underlying)) {
          void closeOrAbort(underlying)
        }
      })
    })

  /**
   * The connection when it is identified; undefined when the remote has closed it. Where it is closed and another of
   * the peer is open, that one is as good: DCUtR closes a relayed connection as soon as a direct one stands, whether or
   * not identify has answered on it, and the direct one may arrive after the end of the relayed one.
   */
  const settled = Effect.fnUntraced(function*(first: Libp2pConnection, isOwn: boolean) {
    let underlying = first
    while (true) {
      yield* identified(underlying, isOwn && underlying === first)
      if (isOpen(underlying)) return connectionOf(underlying)
      const isCut = !underlying.direct && farewellOf(underlying) === undefined && node.status === "started"
      const other = best(localPeer, node.getConnections(underlying.remotePeer)) ??
        (isCut ? yield* nextConnection(node, underlying.remotePeer) : undefined)
      if (other === undefined) return undefined
      underlying = other
    }
  })

  /**
   * Dials one address of a known peer at its transport, past libp2p's queue: the queue joins dials of one peer, so that
   * addresses dialled by several calls would be tried one after another.
   */
  const dialOnce = (destination: Destination, signal: AbortSignal): Promise<Libp2pConnection> => {
    if (node.status !== "started") throw new Error("the node is stopping")
    const { addresses, peer } = destination
    const [only, ...others] = addresses
    if (only === undefined) return node.dial(peer!, { signal })
    if (peer === undefined || others.length > 0 || isDns(only)) return node.dial(addresses, { signal })
    return host.components.transportManager.dial(only, { signal })
  }

  const dial = Effect.fnUntraced(function*(target: DialTarget) {
    const failed = (reason: DialReason) => new DialError({ target: showTarget(target), reason })
    const expected = peerOf(target)
    if (expected === localPeer) return yield* failed(new DialedSelf())
    const destination = yield* Effect.mapError(Effect.suspend(() => destinationOf(target)), failed)
    if (expected !== undefined) {
      const open = best(localPeer, node.getConnections(destination.peer))
      // A relayed connection does not stand in the way of a direct one.
      if (open !== undefined && (open.direct || destination.addresses.every(isRelayed))) {
        return (yield* settled(open, false)) ?? (yield* failed(refused(open)))
      }
    }
    for (const address of destination.addresses) {
      if (isDns(address) || host.components.transportManager.dialTransportForMultiaddr(address) !== undefined) continue
      if (destination.addresses.length > 1) continue
      return yield* failed(new InvalidAddress({ detail: `this node has no transport for ${address}` }))
    }
    const underlying = yield* Effect.tryPromise({
      try: async (signal) => {
        const connection = await dialUnjoined(
          async () => {
            const log = host.components.logger.forComponent("codio:dnsaddr")
            const resolved = await resolveOwn(destination, { log, signal })
            return host.dialing(resolved.origins, () => punches.during(expected, () => dialOnce(resolved, signal)))
          },
          signal
        )
        if (signal.aborted && !delivered.has(connection) && !waiting.has(connection)) void closeOrAbort(connection)
        return connection
      },
      catch: (cause) => failed(node.status === "started" ? dialReason(cause, destination, expected) : stopping(cause))
    })
    const peer = underlying.remotePeer.toString() as PeerId
    if (expected !== undefined && peer !== expected) {
      yield* Effect.promise(() => closeOrAbort(underlying))
      return yield* failed(new UnexpectedPeer({ expected }))
    }
    return (yield* settled(underlying, true)) ??
      (yield* failed(node.status === "started" ? refused(underlying) : stopping()))
  })

  // ---- protocols

  const handle = Effect.fnUntraced(function*(
    protocol: ProtocolId,
    handler: (stream: ByteStream.Libp2pByteStream) => Effect.Effect<void>,
    { maxBufferedBytesPerPeer }: HandleLimits = {}
  ) {
    const scope = yield* Effect.scope
    const fibers = yield* FiberSet.make<void, never>()
    const run = yield* FiberSet.runtime(fibers)()
    const groupOf = maxBufferedBytesPerPeer === undefined ? undefined : StreamBudget.perPeer(maxBufferedBytesPerPeer)
    const onStream = (stream: Libp2pStream, underlying: Libp2pConnection) => {
      if (groupOf !== undefined) shareOf(stream)?.join(groupOf(underlying.remotePeer.toString()))
      const bytes = ByteStream.make(stream, underlying, connectionOf(underlying), protocol)
      run(served(bytes, handler))
    }
    yield* Effect.tryPromise({
      try: () =>
        node.handle(protocol, onStream, {
          runOnLimitedConnection: true,
          maxInboundStreams: streamsMax,
          maxOutboundStreams: streamsMax
        }) ?? Promise.resolve(),
      catch: (thrown) => {
        const cause = toError(thrown)
        const detail = cause.name === "DuplicateProtocolHandlerError"
          ? "the id is taken: something answers it already"
          : cause.message
        return new ProtocolError({ protocol, detail, cause })
      }
    })
    // The peer store is in memory: removing the protocol from it does not fail.
    yield* Scope.addFinalizer(scope, Effect.ignore(Effect.tryPromise(() => Promise.resolve(node.unhandle(protocol)))))
  }, Effect.uninterruptible)

  // One ping at a time, as the spec asks: Rust resets the ping under way when another begins, such as a health check
  // beside a caller's ping.
  const pings = new WeakMap<Libp2pConnection, Pings>()
  const pingsOf = (underlying: Libp2pConnection): Pings => {
    const known = pings.get(underlying)
    if (known !== undefined) return known
    const made = { inTurn: Semaphore.makeUnsafe(1).withPermit, stream: PingStream.make(underlying) }
    pings.set(underlying, made)
    return made
  }

  const ping = Effect.fnUntraced(function*(peer: PeerId, begun: Effect.Effect<void> = Effect.void) {
    const underlying = isPeerId(peer) ? best(localPeer, node.getConnections(peerIdFromString(peer))) : undefined
    if (underlying === undefined) {
      return yield* new PingError({ peer, reason: new StreamFailed({ detail: "the peer is not connected" }) })
    }
    const { inTurn, stream } = pingsOf(underlying)
    return yield* inTurn(Effect.andThen(
      begun,
      Effect.tryPromise({
        try: (signal) => stream.ping(signal),
        catch: (thrown) => {
          const cause = toError(thrown)
          const reason = cause.name === "UnsupportedProtocolError"
            ? new PingUnsupported()
            : new StreamFailed({ detail: cause.message, cause })
          return new PingError({ peer, reason })
        }
      })
    ))
  })

  return Transport.of({
    localPeer,
    streams: host.streams,
    addresses: Effect.sync(() =>
      node.getMultiaddrs().map((address) => withPeer(address.toString() as Multiaddr, localPeer))
    ),
    announce: host.announce,
    listen: host.listenAlso,
    dial,
    gate: host.gate,
    retain: host.retain,
    events,
    handle,
    ping
  })
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<Transport, never, Libp2pHost> = Layer.effect(Transport, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The pings of one connection, one at a time. */
interface Pings {
  readonly inTurn: Semaphore.Semaphore["withPermit"]
  readonly stream: PingStream.PingStream
}

/** Leaves the connection to its streams: libp2p's own protocols choose from this list. */
function hideIn({ connectionManager }: Libp2pHost["Service"]["components"], underlying: Libp2pConnection): void {
  const known = connectionManager.getConnectionsMap()
  const others = known.get(underlying.remotePeer)?.filter((one) => one !== underlying) ?? []
  if (others.length > 0) known.set(underlying.remotePeer, others)
}

/** Runs the handler of a stream, which ends with it. */
const served = <A extends ByteStream.Libp2pByteStream>(stream: A, handler: (stream: A) => Effect.Effect<void>) =>
  handler(stream).pipe(
    Effect.onExit((exit) => Effect.sync(() => stream.release(exit))),
    Effect.catchDefect((defect) => {
      const { connection, protocol } = stream
      return Effect.logError(`the handler of ${protocol} died, and its stream with ${connection.peer} is reset`, defect)
    })
  )
