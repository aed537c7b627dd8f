/**
 * A connection of libp2p in the form of the `Transport` port: its state and its streams. [libp2p]
 */
import type { Connection as Libp2pConnection, IdentifyResult } from "@libp2p/interface"
import { PING_PROTOCOL } from "@libp2p/ping"
import { CODE_P2P, type Multiaddr as Libp2pMultiaddr } from "@multiformats/multiaddr"
import { Duration, Effect, Option } from "effect"
import { ProtocolNotSupported, StreamError, StreamReset, StreamTimeout } from "../../schema/NetworkError.ts"
import {
  type Multiaddr,
  Path,
  type PeerId,
  type ProtocolId,
  type RemoteIdentity,
  withoutPeer
} from "../../schema/Peer.ts"
import { comparing, type Connection } from "../../services/Transport.ts"
import * as ByteStream from "./ByteStream.ts"
import { closeConnection, flushConnection, textOf, toError } from "./Faults.ts"
import { farewellOf } from "./wire/GoAway.ts"
import { isUpgrading } from "./Punches.ts"
import { muxerOf, progressOf } from "./wire/Yamux.ts"

/** Streams of one protocol on one connection, in each direction. */
export const streamsMax = 1024

/** A connection that takes the result of identify. */
export interface Libp2pBackedConnection extends Connection {
  readonly identify: (remote: RemoteIdentity) => void
}

/** Whether the connection takes streams. */
export function isOpen(underlying: Libp2pConnection): boolean {
  // After a farewell the muxer opens no more streams, and the connection closes in the next turn.
  if (underlying.status !== "open" || farewellOf(underlying) !== undefined) return false
  // A close ends the muxer first, then the connection.
  return (muxerOf(underlying)?.status ?? "open") === "open"
}

/**
 * The connection that the peer table would choose, by the rules visible here: direct, direction, age. `retire`
 * agreements are not known to libp2p. Undefined when no connection is open.
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

/**
 * A connection in the form of the port. `hide` removes it from the list that libp2p's own protocols choose from,
 * `holePunched` says whether it came of DCUtR.
 */
export function makeConnection(
  underlying: Libp2pConnection,
  hide: (underlying: Libp2pConnection) => void,
  holePunched: boolean
): Libp2pBackedConnection {
  const peer = underlying.remotePeer.toString() as PeerId
  const openedAt = performance.now()
  let remote = Option.none<RemoteIdentity>()
  const relay = underlying.direct ? undefined : relayOf(underlying.remoteAddr)
  const connection: Libp2pBackedConnection = {
    id: `connection-${++connectionCount}`,
    peer,
    direction: underlying.direction,
    remoteAddress: withoutPeer(underlying.remoteAddr.toString() as Multiaddr),
    path: Effect.sync(() =>
      relay === undefined
        ? Path.cases.Direct.make({ holePunched })
        : relayedPath(relay, underlying, performance.now() - openedAt)
    ),
    isOpen: Effect.sync(() => isOpen(underlying)),
    activeStreams: Effect.sync(() => {
      let active = 0
      for (const stream of underlying.streams) {
        if (stream.status === "open" && stream.protocol !== "" && !housekeeping.test(stream.protocol)) active++
      }
      return active
    }),
    streams: Effect.sync(() => {
      let streams = 0
      for (const { protocol } of underlying.streams) if (protocol !== PING_PROTOCOL) streams++
      return streams
    }),
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
    close: Effect.promise(() => closeOrAbort(underlying)),
    identify: (told) => {
      remote = Option.some(told)
    }
  }
  return connection
}

/** Closes the connection, and aborts it after 250 ms. */
export function closeOrAbort(underlying: Libp2pConnection): Promise<void> {
  return closeConnection(underlying, 250)
}

/** Identify's result in the form of the port, without addresses that have no text. */
export function remoteIdentity(result: IdentifyResult): RemoteIdentity {
  const observedAddress = result.observedAddr === undefined ? undefined : textOf(result.observedAddr)
  return {
    protocolVersion: result.protocolVersion ?? "",
    agentVersion: result.agentVersion ?? "",
    protocols: result.protocols,
    listenAddresses: result.listenAddrs.flatMap((address) => textOf(address) ?? []),
    ...(observedAddress === undefined ? {} : { observedAddress })
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const openMillis = 10_000

// Streams that libp2p opens on its own account. A relay's hop and stop streams are not among them, since they carry a
// peer's connection.
const housekeeping = /^\/ipfs\/(ping|id|id\/push)\/|\/kad\/|^\/libp2p\/(autonat|dcutr)/

let connectionCount = 0

function relayedPath(relay: PeerId, underlying: Libp2pConnection, ageMillis: number): Path {
  const { limits } = underlying
  return Path.cases.Relayed.make({
    relay,
    ...(limits?.bytes === undefined ? {} : { bytesLeft: Math.min(Number(limits.bytes), Number.MAX_SAFE_INTEGER) }),
    ...(limits?.seconds === undefined ? {} : { timeLeft: timeLeft(limits.seconds, ageMillis) }),
    upgrading: isUpgrading(underlying)
  })
}

// A js relay grants its limit in milliseconds where seconds belong, and libp2p counts the number down by one a second.
// A limit above this many seconds, almost three hours, is taken for milliseconds.
const relaySecondsMax = 10_000

function timeLeft(counter: number, ageMillis: number): Duration.Duration {
  const granted = counter + ageMillis / 1000
  return Duration.millis(Math.max(0, granted > relaySecondsMax ? granted - ageMillis : counter * 1000))
}

function relayOf(address: Libp2pMultiaddr): PeerId {
  return (address.getComponents().find((component) => component.code === CODE_P2P)?.value ?? "") as PeerId
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
        // libp2p ignores the signal after the negotiation.
        if (interrupted.aborted) stream.abort(new Error("nobody waits for this stream any more"))
        // The remote may have reset the stream already: its table of streams was full, or its handler threw.
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
