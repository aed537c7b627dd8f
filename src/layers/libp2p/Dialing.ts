/**
 * A dial's destination, and the reason for which a dial has failed. [libp2p]
 */
import type { Connection as Libp2pConnection, Libp2p, PeerId as Libp2pPeerId } from "@libp2p/interface"
import { peerIdFromString } from "@libp2p/peer-id"
import { type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import { Duration, Effect } from "effect"
import {
  Denied,
  DialedSelf,
  type DialReason,
  DialTimeout,
  InvalidAddress,
  mergeDialReasons,
  Refused,
  UnexpectedPeer,
  Unreachable
} from "../../schema/NetworkError.ts"
import { type DialTarget, isMultiaddr, type PeerId, peerOf, withPeer } from "../../schema/Peer.ts"
import { refusedWhy } from "../../services/Transport.ts"
import { toError } from "./Faults.ts"
import { farewellOf } from "./wire/GoAway.ts"
import { addressDialTimeout } from "./Host.ts"

/** A target's peer, if it names one, and its addresses; without addresses libp2p looks them up. */
export interface Destination {
  readonly peer: Libp2pPeerId | undefined
  readonly addresses: Array<Libp2pMultiaddr>
}

export function isPeerId(text: string): boolean {
  try {
    peerIdFromString(text)
    return true
  } catch {
    return false
  }
}

export function isRelayed(address: Libp2pMultiaddr): boolean {
  return address.getComponents().some((component) => component.name === "p2p-circuit")
}

// Whether the dial has to resolve the address to others.
export function isDns(address: Libp2pMultiaddr): boolean {
  return address.getComponents()[0]?.name === "dnsaddr"
}

export function destinationOf(target: DialTarget): Effect.Effect<Destination, InvalidAddress> {
  const id = peerOf(target)
  if (id !== undefined && !isPeerId(id)) return Effect.fail(new InvalidAddress({ detail: `${id} is no peer id` }))
  const peer = id === undefined ? undefined : peerIdFromString(id)
  const texts = typeof target === "string" ? isMultiaddr(target) ? [target] : [] : target.addresses
  const addresses: Array<Libp2pMultiaddr> = []
  for (const text of texts) {
    // libp2p fails the whole dial for an address that names another peer.
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

/** The next connection to the peer, if one opens within {@link punchMillis}. */
export function nextConnection(node: Libp2p, peer: Libp2pPeerId): Effect.Effect<Libp2pConnection | undefined> {
  return Effect.callback((resume) => {
    const end = () => {
      clearTimeout(timer)
      node.removeEventListener("connection:open", onOpen)
    }
    const onOpen = ({ detail }: CustomEvent<Libp2pConnection>) => {
      if (!detail.remotePeer.equals(peer)) return
      end()
      resume(Effect.succeed(detail))
    }
    const timer = setTimeout(() => {
      end()
      resume(Effect.undefined)
    }, punchMillis)
    node.addEventListener("connection:open", onOpen)
    return Effect.sync(end)
  })
}

// How long after the end of a relayed connection the direct one may arrive. Both ends begin at the same time, and take
// different ways.
const punchMillis = 1000

export function refused(underlying: Libp2pConnection): Refused {
  return new Refused(refusedWhy(farewellOf(underlying)))
}

export function stopping(thrown?: unknown): Denied {
  return new Denied({ detail: "this node is stopping", ...(thrown === undefined ? {} : { cause: toError(thrown) }) })
}

// By name: a package that is installed twice has each class twice.
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
  // The socket was connected, so the remote closed it before or during the handshake.
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

export function dialReason(thrown: unknown, destination: Destination, expected: PeerId | undefined): DialReason {
  const cause = toError(thrown)
  if (cause instanceof AggregateError && cause.errors.length > 0) {
    return mergeDialReasons(cause.errors.map((error) => dialReason(error, destination, expected)), cause)
  }
  const code = (cause as { readonly code?: unknown }).code
  const known = typeof code === "string" ? unreachable[code] : undefined
  if (known !== undefined) return new Unreachable({ detail: known, cause })
  // libp2p keeps only the text of an error during the handshake.
  if (/aborted due to timeout/.test(cause.message)) {
    return new DialTimeout({ after: Duration.millis(addressDialTimeout) })
  }
  if (expected !== undefined && /does not match expected remote identity key/.test(cause.message)) {
    return new UnexpectedPeer({ expected, cause })
  }
  return dialReasons[cause.name]?.(cause, destination) ?? new Unreachable({ detail: cause.message, cause })
}
