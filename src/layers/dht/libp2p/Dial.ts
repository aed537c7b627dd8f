/**
 * A stream to a peer of the DHT, on a connection that is open or on a new one. [libp2p]
 */
import type { Connection, PeerId as Libp2pPeerId, Stream } from "@libp2p/interface"
import { type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import { type Multiaddr, type PeerId, peerOf, withPeer } from "../../../schema/Peer.ts"
import { best } from "../../libp2p/Connection.ts"
import { dialUnjoined, toError } from "../../libp2p/Faults.ts"
import type { Origin } from "../../libp2p/Gater.ts"
import type { Libp2pHost } from "../../libp2p/Host.ts"

export interface Addressed {
  readonly id: PeerId
  /**
   * The bytes of its multiaddrs, which are dialled when it is not connected. An address that cannot be read or names
   * another peer is left out. If none is left, those of the peer store are dialled.
   */
  readonly addresses: ReadonlyArray<Uint8Array>
  /** The remote addresses of those who told one of them, for the gate. */
  readonly tellersOf?: (address: Uint8Array) => ReadonlyArray<Multiaddr>
}

/** Why there is no stream. */
export interface DialFailure {
  /**
   * `Denied` when this node's own gate refuses, its queue of dials is full or it is stopping; `Unreachable` without a
   * connection; `Unsupported` when the remote lacks the protocol; `Reset` when it refuses the stream.
   */
  readonly reason: "Denied" | "Unreachable" | "Unsupported" | "Reset"
  readonly cause: Error
}

export interface Dial {
  /** The connection on which a peer is asked. A connection through a relay with limits does not count. */
  readonly connectionTo: (peer: Libp2pPeerId) => Connection | undefined
  /**
   * Opens a stream on that connection, or on a new one, for which the gate is asked. Rejects with an error that {@link
   * failureOf} reads, also when the signal is aborted.
   */
  readonly open: (
    peer: Libp2pPeerId,
    remote: Addressed,
    signal: AbortSignal
  ) => Promise<readonly [connection: Connection, stream: Stream]>
}

/**
 * Opens streams of a protocol.
 *
 * As everywhere in libp2p, relayed connections with limits are not used: a few dozen answers would use up what the
 * relay lets through, and end the connection.
 */
export const make = (
  { components, dialing }: Pick<Libp2pHost["Service"], "components" | "dialing">,
  protocol: string
): Dial => {
  const { connectionManager, peerId, peerStore } = components
  const self = peerId.toString() as PeerId

  const connectionTo = (peer: Libp2pPeerId) =>
    best(self, connectionManager.getConnections(peer).filter(({ limits }) => limits === undefined))

  const newStream = async (connection: Connection, signal: AbortSignal): Promise<Stream> => {
    try {
      const stream = await connection.newStream(protocol, { signal })
      // The signal has no effect once the protocol is negotiated.
      if (signal.aborted) stream.abort(toError(signal.reason))
      return stream
    } catch (thrown) {
      const cause = toError(thrown)
      if (cause.name === "UnsupportedProtocolError") throw new Failure("Unsupported", cause)
      const isUsable = connection.status === "open" && connection.limits === undefined
      throw new Failure(isUsable ? "Reset" : "Unreachable", cause)
    }
  }

  const dial = async (peer: Libp2pPeerId, remote: Addressed, signal: AbortSignal): Promise<Connection> => {
    const addresses = await addressesOf(peer, remote, signal)
    // libp2p would look it up in the DHT.
    if (addresses.length === 0) throw new Failure("Unreachable", new Error("no address to dial is known"))
    try {
      return await dialUnjoined(
        () =>
          dialing(
            addresses,
            () => connectionManager.openConnection(addresses.map(({ address }) => address), { signal })
          ),
        signal
      )
    } catch (thrown) {
      const cause = toError(thrown)
      throw new Failure(isOwnRefusal(cause) ? "Denied" : "Unreachable", cause)
    }
  }

  const addressesOf = async (
    peer: Libp2pPeerId,
    remote: Addressed,
    signal: AbortSignal
  ): Promise<Array<Origin>> => {
    // A connected peer comes here when its connection is relayed with limits: only a direct address helps.
    const isConnected = connectionManager.getConnections(peer).length > 0
    const { addresses, id } = remote
    const read = (all: ReadonlyArray<Uint8Array>) =>
      all.flatMap((bytes) =>
        readAddress(bytes, id, !isConnected).map((address) => ({ address, tellers: remote.tellersOf?.(bytes) ?? [] }))
      )
    const given = read(addresses)
    if (given.length > 0) return given
    const known = await peerStore.get(peer, { signal }).catch(() => undefined)
    return read(known?.addresses.map((address) => address.multiaddr.bytes) ?? [])
  }

  const open: Dial["open"] = async (peer, remote, signal) => {
    const connected = connectionTo(peer)
    if (connected !== undefined) {
      try {
        return [connected, await newStream(connected, signal)]
      } catch (thrown) {
        // The connection was lost just now: dial.
        if (signal.aborted || connected.status === "open") throw thrown
      }
    }
    const connection = await dial(peer, remote, signal)
    return [connection, await newStream(connection, signal)]
  }

  return { connectionTo, open }
}

/** Why `open` has rejected. */
export const failureOf = (thrown: unknown): DialFailure =>
  thrown instanceof Failure ? thrown : { reason: "Unreachable", cause: toError(thrown) }

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

class Failure extends Error implements DialFailure {
  readonly reason: DialFailure["reason"]
  override readonly cause: Error

  constructor(reason: DialFailure["reason"], cause: Error) {
    super(cause.message)
    this.reason = reason
    this.cause = cause
  }
}

// The gate refuses before a dial or in its last step; a dial to several addresses gathers the errors of all. A node
// that is stopping, or whose queue of dials is full, has not tried.
function isOwnRefusal(error: Error): boolean {
  if (error instanceof AggregateError) return error.errors.some(isOwnRefusal)
  return ownRefusals.has(error.name)
}

const ownRefusals = new Set(["DialDeniedError", "ConnectionInterceptedError", "NotStartedError", "DialError"])

function readAddress(bytes: Uint8Array, id: PeerId, isRelayedToo: boolean): ReadonlyArray<Libp2pMultiaddr> {
  try {
    const text = multiaddr(bytes).toString() as Multiaddr
    if (!isRelayedToo && text.includes("/p2p-circuit")) return []
    const other = peerOf(text)
    return other === undefined || other === id ? [multiaddr(withPeer(text, id))] : []
  } catch {
    return []
  }
}
