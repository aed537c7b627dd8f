/**
 * `Transport` over the libp2p host.
 */
import type {
  Connection as Libp2pConnection,
  IdentifyResult,
  PeerId as Libp2pPeerId,
  Stream as Libp2pStream
} from "@libp2p/interface"
import { peerIdFromString } from "@libp2p/peer-id"
import { CODE_P2P, type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import { Duration, Effect, FiberSet, Layer, Option, Queue, Scope, Semaphore } from "effect"
import {
  Denied,
  DialedSelf,
  DialError,
  type DialReason,
  DialTimeout,
  InvalidAddress,
  PingError,
  PingUnsupported,
  ProtocolError,
  ProtocolNotSupported,
  Refused,
  StreamError,
  StreamFailed,
  StreamReset,
  StreamTimeout,
  UnexpectedPeer,
  Unreachable
} from "../schema/NetworkError.ts"
import {
  type DialTarget,
  isMultiaddr,
  type Multiaddr,
  Path,
  type PeerId,
  peerOf,
  type ProtocolId,
  type RemoteIdentity,
  showTarget,
  withoutPeer,
  withPeer
} from "../schema/Peer.ts"
import { type Connection, type ConnectionEvent, Transport } from "../services/Transport.ts"
import * as ByteStream from "./Libp2pByteStream.ts"
import { closeConnection, flushConnection, toError } from "./Libp2pFaults.ts"
import { farewellOf } from "./Libp2pGoAway.ts"
import { addressDialTimeout, Libp2pHost } from "./Libp2pHost.ts"
import { progressOf } from "./Libp2pProgress.ts"
import { comparing } from "./PeerConnections.ts"

export const make = Effect.gen(function*() {
  const host = yield* Libp2pHost
  const { node } = host
  const localPeer = node.peerId.toString() as PeerId
  const events = yield* Effect.acquireRelease(
    // Unbounded, since a lost Closed would keep a place in the table for ever; bounded by the host's ceiling of connections, twice.
    Queue.unbounded<ConnectionEvent>(),
    Queue.shutdown
  )

  const connections = new WeakMap<Libp2pConnection, Libp2pBackedConnection>()
  // libp2p's own protocols take any connection of its list.
  const hide = (underlying: Libp2pConnection) => {
    const known = host.components.connectionManager.getConnectionsMap()
    const others = known.get(underlying.remotePeer)?.filter((one) => one !== underlying) ?? []
    if (others.length > 0) known.set(underlying.remotePeer, others)
  }
  const connectionOf = (underlying: Libp2pConnection): Libp2pBackedConnection => {
    const known = connections.get(underlying)
    if (known !== undefined) return known
    const connection = makeConnection(underlying, hide)
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

  // How many dials wait for a connection to be identified: the last one that is interrupted closes it, if none has given it to its caller.
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
      const timer = setTimeout(done, identifyWaitMillis)
      underlying.addEventListener("close", done)
      if (isOpen(underlying)) void host.identified(underlying).then(done)
      else done()
      return Effect.sync(() => {
        settle()
        // One that somebody else opened, the remote perhaps, is not ours to close.
        if (isOwn && !waiting.has(underlying) && !delivered.has(underlying)) {
          void closeConnection(underlying, closeMillis)
        }
      })
    })

  /**
   * One address of a known peer goes straight to its transport: libp2p's queue joins a dial to others of the same peer, so that addresses
   * dialled by several calls would be tried one after another.
   */
  const dialOnce = (destination: Destination, signal: AbortSignal): Promise<Libp2pConnection> => {
    const { addresses, peer } = destination
    const [only, ...others] = addresses
    if (only === undefined) return node.dial(peer!, { signal })
    if (peer === undefined || others.length > 0 || isDns(only)) return node.dial(addresses, { signal })
    if (node.status !== "started") throw new Error("the node is stopping")
    return host.components.transportManager.dial(only, { signal })
  }

  const dial = Effect.fnUntraced(function*(target: DialTarget) {
    const failed = (reason: DialReason) => new DialError({ target: showTarget(target), reason })
    const expected = peerOf(target)
    if (expected === localPeer) return yield* failed(new DialedSelf())
    const destination = yield* Effect.mapError(Effect.suspend(() => destinationOf(target)), failed)
    if (expected !== undefined) {
      const open = best(localPeer, node.getConnections(destination.peer))
      // A relayed connection does not keep from trying a direct address.
      if (open !== undefined && (open.direct || destination.addresses.every(isRelayed))) {
        yield* identified(open, false)
        return isOpen(open) ? connectionOf(open) : yield* failed(refused(open))
      }
    }
    for (const address of destination.addresses) {
      if (isDns(address) || host.components.transportManager.dialTransportForMultiaddr(address) !== undefined) continue
      if (destination.addresses.length > 1) continue
      return yield* failed(new InvalidAddress({ detail: `this node has no transport for ${address}` }))
    }
    const underlying = yield* Effect.tryPromise({
      try: async (signal) => {
        const start = performance.now()
        for (;;) {
          try {
            const connection = await host.dialChosen(destination.addresses, () => dialOnce(destination, signal))
            if (signal.aborted && !delivered.has(connection) && !waiting.has(connection)) {
              void closeConnection(connection, closeMillis)
            }
            return connection
          } catch (cause) {
            // libp2p lets a dial join one to the same peer that somebody else has just given up.
            const joined = toError(cause).name === "AbortError" && !signal.aborted &&
              performance.now() - start < joinMillis
            if (!joined || node.status !== "started") throw cause
            await new Promise((resolve) => setImmediate(resolve))
          }
        }
      },
      catch: (cause) => failed(node.status === "started" ? dialReason(cause, destination, expected) : stopping(cause))
    })
    const peer = underlying.remotePeer.toString() as PeerId
    if (expected !== undefined && peer !== expected) {
      yield* Effect.promise(() => closeConnection(underlying, closeMillis))
      return yield* failed(new UnexpectedPeer({ expected }))
    }
    yield* identified(underlying, true)
    if (!isOpen(underlying)) return yield* failed(node.status === "started" ? refused(underlying) : stopping())
    return connectionOf(underlying)
  })

  // ---- protocols

  const handle = Effect.fnUntraced(function*(
    protocol: ProtocolId,
    handler: (stream: ByteStream.Libp2pByteStream) => Effect.Effect<void>
  ) {
    const scope = yield* Effect.scope
    const fibers = yield* FiberSet.make<void, never>()
    const run = yield* FiberSet.runtime(fibers)()
    const onStream = (stream: Libp2pStream, underlying: Libp2pConnection) => {
      const bytes = ByteStream.make(stream, underlying, connectionOf(underlying), protocol)
      run(
        handler(bytes).pipe(
          Effect.onExit((exit) => Effect.sync(() => bytes.release(exit))),
          Effect.catchDefect((defect) => Effect.logError(`the handler of ${protocol} died`, defect))
        )
      )
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
    // The peer store is in memory: telling it of the protocol's end does not fail.
    yield* Scope.addFinalizer(scope, Effect.ignore(Effect.tryPromise(() => Promise.resolve(node.unhandle(protocol)))))
  }, Effect.uninterruptible)

  // One ping at a time, as the spec asks: Rust resets the one under way when another begins, such as a health check beside a caller's.
  const pinging = new WeakMap<Libp2pConnection, Semaphore.Semaphore>()
  const inTurn = (underlying: Libp2pConnection) => {
    const known = pinging.get(underlying) ?? Semaphore.makeUnsafe(1)
    pinging.set(underlying, known)
    return known.withPermit
  }

  const ping = Effect.fnUntraced(function*(peer: PeerId) {
    const underlying = isPeerId(peer) ? best(localPeer, node.getConnections(peerIdFromString(peer))) : undefined
    if (underlying === undefined) {
      return yield* new PingError({ peer, reason: new StreamFailed({ detail: "the peer is not connected" }) })
    }
    return yield* inTurn(underlying)(Effect.tryPromise({
      try: (signal) => roundTrip(underlying, signal),
      catch: (thrown) => {
        const cause = toError(thrown)
        const reason = cause.name === "UnsupportedProtocolError"
          ? new PingUnsupported()
          : new StreamFailed({ detail: cause.message, cause })
        return new PingError({ peer, reason })
      }
    }))
  })

  return Transport.of({
    localPeer,
    addresses: Effect.sync(() =>
      node.getMultiaddrs().map((address) => withPeer(address.toString() as Multiaddr, localPeer))
    ),
    dial,
    gate: host.gate,
    events,
    handle,
    ping
  })
})

export const layer: Layer.Layer<Transport, never, Libp2pHost> = Layer.effect(Transport, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal: connections
// ---------------------------------------------------------------------------------------------------------------------

const closeMillis = 250
const identifyWaitMillis = 2000
const joinMillis = 1000
const openMillis = 10_000
const streamsMax = 1024
const pingProtocol = "/ipfs/ping/1.0.0"
const pingBytes = 32

// Streams that libp2p opens on its own account. Those of a relay, hop and stop, carry somebody's connection and are not among them.
const housekeeping = /^\/ipfs\/(ping|id|id\/push)\/|\/kad\/|^\/libp2p\/(autonat|dcutr)/

interface Libp2pBackedConnection extends Connection {
  readonly identify: (remote: RemoteIdentity) => void
}

let connectionCount = 0

function isOpen(underlying: Libp2pConnection): boolean {
  // After a farewell it carries no more streams, and closes in the next turn.
  return underlying.status === "open" && farewellOf(underlying) === undefined
}

/**
 * Which of a peer's connections is to be used: the table's, as far as it can be known here. What the two sides agree on beyond that is
 * between them. None when none is open.
 */
export function best(local: PeerId, connections: ReadonlyArray<Libp2pConnection>): Libp2pConnection | undefined {
  const open = connections.filter(isOpen).reverse()
  if (open.length < 2) return open[0]
  const compare = comparing(local, open[0]!.remotePeer.toString() as PeerId)
  const ranked = open.map((connection) => ({
    connection,
    direction: connection.direction,
    isDirect: connection.direct
  }))
  return ranked.sort(compare)[0]?.connection
}

function makeConnection(
  underlying: Libp2pConnection,
  hide: (underlying: Libp2pConnection) => void
): Libp2pBackedConnection {
  const peer = underlying.remotePeer.toString() as PeerId
  let remote = Option.none<RemoteIdentity>()
  const relay = underlying.direct ? undefined : relayOf(underlying.remoteAddr)
  const connection: Libp2pBackedConnection = {
    id: `connection-${++connectionCount}`,
    peer,
    direction: underlying.direction,
    remoteAddress: withoutPeer(underlying.remoteAddr.toString() as Multiaddr),
    path: Effect.sync(() => relay === undefined ? Path.cases.Direct.make({}) : relayedPath(relay, underlying)),
    isOpen: Effect.sync(() => isOpen(underlying)),
    activeStreams: Effect.sync(() => {
      let active = 0
      for (const stream of underlying.streams) {
        if (stream.status === "open" && stream.protocol !== "" && !housekeeping.test(stream.protocol)) active++
      }
      return active
    }),
    streams: Effect.sync(() => underlying.streams.length),
    progress: Effect.sync(() => progressOf(underlying)),
    remote: Effect.sync(() => remote),
    farewell: Effect.sync(() => isOpen(underlying) ? undefined : farewellOf(underlying)),
    open: (protocol) =>
      Effect.acquireRelease(
        openStream(underlying, connection, protocol),
        (stream, exit) => Effect.sync(() => stream.release(exit)),
        { interruptible: true }
      ),
    flushed: Effect.promise((signal) => flushConnection(underlying, signal)),
    retire: Effect.sync(() => hide(underlying)),
    close: Effect.promise(() => closeConnection(underlying, closeMillis)),
    identify: (told) => {
      remote = Option.some(told)
    }
  }
  return connection
}

function relayedPath(relay: PeerId, { limits, timeline }: Libp2pConnection): Path {
  return Path.cases.Relayed.make({
    relay,
    ...(limits?.bytes === undefined ? {} : { bytesLeft: limits.bytes }),
    ...(limits?.seconds === undefined ? {} : { timeLeft: timeLeft(limits.seconds, Date.now() - timeline.open) })
  })
}

// A js relay grants its limit in milliseconds where seconds belong, and libp2p counts that number down by one a second. A limit of more than
// this many seconds, almost three hours, is taken for one of those.
const relaySecondsMax = 10_000

function timeLeft(counter: number, ageMillis: number): Duration.Duration {
  const granted = counter + ageMillis / 1000
  return Duration.millis(Math.max(0, granted > relaySecondsMax ? granted - ageMillis : counter * 1000))
}

function relayOf(address: Libp2pMultiaddr): PeerId {
  return (address.getComponents().find((component) => component.code === CODE_P2P)?.value ?? "") as PeerId
}

function remoteIdentity(result: IdentifyResult): RemoteIdentity {
  return {
    protocolVersion: result.protocolVersion ?? "",
    agentVersion: result.agentVersion ?? "",
    protocols: result.protocols,
    listenAddresses: result.listenAddrs.map((address) => address.toString() as Multiaddr)
  }
}

function openStream(underlying: Libp2pConnection, connection: Connection, protocol: ProtocolId) {
  const fail = (reason: StreamError["reason"]) => new StreamError({ peer: connection.peer, protocol, reason })
  return Effect.tryPromise({
    try: async (interrupted) => {
      const controller = new AbortController()
      const abort = () => controller.abort(new Error("the negotiation was given up"))
      const timer = setTimeout(() => controller.abort(new OpenTimeout()), openMillis)
      interrupted.addEventListener("abort", abort)
      try {
        const stream = await underlying.newStream(protocol, {
          signal: controller.signal,
          runOnLimitedConnection: true,
          maxOutboundStreams: streamsMax
        })
        // The signal has no effect after the negotiation.
        if (interrupted.aborted) stream.abort(new Error("nobody waits for this stream any more"))
        // The remote may have refused it already, by a full table of streams or a handler that threw.
        if (stream.status !== "open" && stream.readBufferLength === 0) throw new Error("the remote reset the stream")
        return ByteStream.make(stream, underlying, connection, protocol)
      } catch (cause) {
        throw controller.signal.reason instanceof OpenTimeout ? controller.signal.reason : cause
      } finally {
        clearTimeout(timer)
        interrupted.removeEventListener("abort", abort)
      }
    },
    catch: (thrown) => {
      const cause = toError(thrown)
      if (cause.name === "UnsupportedProtocolError") return fail(new ProtocolNotSupported({ cause }))
      if (cause instanceof OpenTimeout) return fail(new StreamTimeout({ after: Duration.millis(openMillis) }))
      if (!isOpen(underlying)) return fail(new StreamReset({ detail: "the connection is closed", cause }))
      return fail(new StreamReset({ detail: cause.message, cause }))
    }
  })
}

class OpenTimeout extends Error {}

// libp2p's own ping dials, takes the first connection, and without a signal waits for ever on a stream that was reset.
async function roundTrip(underlying: Libp2pConnection, signal: AbortSignal): Promise<Duration.Duration> {
  const stream = await underlying.newStream(pingProtocol, {
    signal,
    runOnLimitedConnection: true,
    maxOutboundStreams: streamsMax
  })
  return new Promise((resolve, reject) => {
    const sent = globalThis.crypto.getRandomValues(new Uint8Array(pingBytes))
    const start = performance.now()
    let received = 0
    const finish = (error: Error | undefined) => {
      signal.removeEventListener("abort", onAbort)
      stream.removeEventListener("close", onClose)
      if (error === undefined) return resolve(Duration.millis(performance.now() - start))
      stream.abort(error)
      reject(error)
    }
    const onAbort = () => finish(new Error("the ping was given up"))
    const onClose = (event: { readonly error?: Error | undefined }) =>
      finish(event.error ?? new Error("the connection was lost"))
    signal.addEventListener("abort", onAbort)
    stream.addEventListener("close", onClose)
    stream.addEventListener("message", ({ data }) => {
      const bytes = data.subarray()
      for (const byte of bytes) {
        if (byte !== sent[received++]) return finish(new Error("the remote answered with other bytes than were sent"))
      }
      if (received < pingBytes) return
      finish(undefined)
      stream.close().catch((cause) => stream.abort(toError(cause)))
    })
    if (signal.aborted) return onAbort()
    if (stream.status !== "open") return finish(new Error("the remote reset the stream"))
    try {
      stream.send(sent)
    } catch (cause) {
      finish(toError(cause))
    }
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// internal: dialling
// ---------------------------------------------------------------------------------------------------------------------

interface Destination {
  readonly peer: Libp2pPeerId | undefined
  readonly addresses: Array<Libp2pMultiaddr>
}

function isPeerId(text: string): boolean {
  try {
    peerIdFromString(text)
    return true
  } catch {
    return false
  }
}

function isRelayed(address: Libp2pMultiaddr): boolean {
  return address.getComponents().some((component) => component.name === "p2p-circuit")
}

// Resolved to addresses by the dial.
function isDns(address: Libp2pMultiaddr): boolean {
  return address.getComponents()[0]?.name === "dnsaddr"
}

function destinationOf(target: DialTarget): Effect.Effect<Destination, InvalidAddress> {
  const id = peerOf(target)
  if (id !== undefined && !isPeerId(id)) return Effect.fail(new InvalidAddress({ detail: `${id} is no peer id` }))
  const peer = id === undefined ? undefined : peerIdFromString(id)
  const texts = typeof target === "string" ? isMultiaddr(target) ? [target] : [] : target.addresses
  const addresses: Array<Libp2pMultiaddr> = []
  for (const text of texts) {
    // An address that names another peer would fail the whole dial.
    const other = peerOf(text)
    if (id !== undefined && other !== undefined && other !== id) continue
    try {
      addresses.push(multiaddr(id === undefined ? text : withPeer(text, id)))
    } catch (cause) {
      return Effect.fail(new InvalidAddress({ detail: toError(cause).message }))
    }
  }
  return Effect.succeed({ peer, addresses })
}

function refused(underlying: Libp2pConnection): Refused {
  const why = farewellOf(underlying)
  return new Refused(why === undefined ? {} : { why: why === "evicted" ? "full" : why })
}

function stopping(thrown?: unknown): Denied {
  return new Denied({ detail: "this node is stopping", ...(thrown === undefined ? {} : { cause: toError(thrown) }) })
}

// By name, since a package may be installed twice, and then its classes are.
const dialReasons: Record<string, ((cause: Error, destination: Destination) => DialReason) | undefined> = {
  InvalidPeerIdError: () => new DialedSelf(),
  InvalidMultiaddrError: (cause) => new InvalidAddress({ detail: cause.message }),
  InvalidParametersError: (cause) => new InvalidAddress({ detail: cause.message }),
  TransportUnavailableError: (cause) => new InvalidAddress({ detail: cause.message }),
  NoValidAddressesError: (cause, { addresses }) =>
    new Unreachable({
      detail: addresses.length === 0 ? "no address is known" : "no transport for any of its addresses",
      cause
    }),
  DialDeniedError: (cause) => new Denied({ detail: "this node's gate refused", cause }),
  ConnectionInterceptedError: (cause) => new Denied({ detail: "this node's gate refused", cause }),
  NotStartedError: stopping,
  DialError: (cause) => new Denied({ detail: cause.message, cause }),
  // The socket stood, so the remote closed it before or during the handshake.
  EncryptionFailedError: (cause) =>
    new Unreachable({ detail: `the connection broke during the handshake: ${cause.message}`, cause }),
  MuxerUnavailableError: (cause) =>
    new Unreachable({ detail: `the connection broke during the handshake: ${cause.message}`, cause }),
  ConnectionClosedError: (cause) => new Refused({ cause }),
  AbortError: () => new DialTimeout({ after: Duration.millis(addressDialTimeout) }),
  TimeoutError: () => new DialTimeout({ after: Duration.millis(addressDialTimeout) })
}

const unreachable: Record<string, string | undefined> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "the connection was reset",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "no route to the network",
  EHOSTDOWN: "the host is down",
  ETIMEDOUT: "no answer from the host",
  EADDRNOTAVAIL: "no local address to dial from",
  ENOTFOUND: "the host name does not resolve",
  EAI_AGAIN: "the name server does not answer"
}

function dialReason(thrown: unknown, destination: Destination, expected: PeerId | undefined): DialReason {
  const cause = toError(thrown)
  if (cause instanceof AggregateError && cause.errors.length > 0) {
    const reasons = cause.errors.map((error) => dialReason(error, destination, expected))
    const tags = new Set(reasons.map((reason) => reason._tag))
    const common = reasons.find(({ _tag }) => _tag === "Denied" || _tag === "Refused") ??
      (tags.size === 1 ? reasons[0] : undefined)
    if (common !== undefined && common._tag !== "Unreachable") return common
    return new Unreachable({ detail: [...new Set(reasons.map((reason) => reason.message))].join("; "), cause })
  }
  const code = (cause as { readonly code?: unknown }).code
  const known = typeof code === "string" ? unreachable[code] : undefined
  if (known !== undefined) return new Unreachable({ detail: known, cause })
  // Of what happened during the handshake libp2p keeps only the text.
  if (/aborted due to timeout/.test(cause.message)) {
    return new DialTimeout({ after: Duration.millis(addressDialTimeout) })
  }
  if (expected !== undefined && /does not match expected remote identity key/.test(cause.message)) {
    return new UnexpectedPeer({ expected, cause })
  }
  return dialReasons[cause.name]?.(cause, destination) ?? new Unreachable({ detail: cause.message, cause })
}
