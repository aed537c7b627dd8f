/**
 * A dial's destination, and the reason for which a dial has failed. [libp2p]
 */
import type {
  Connection as Libp2pConnection,
  Libp2p,
  PeerId as Libp2pPeerId,
  MultiaddrResolveOptions
} from "@libp2p/interface"
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
import { addressOf, type DialTarget, isMultiaddr, type PeerId, peerOf, withPeer } from "../../schema/Peer.ts"
import { refusedWhy } from "../../services/Transport.ts"
import { toError } from "./Faults.ts"
import { boundedDnsaddr } from "./Dnsaddr.ts"
import type { Origin } from "./Gater.ts"
import { farewellOf } from "./wire/GoAway.ts"
import { addressDialTimeout } from "./Host.ts"

/** A target's peer, if it names one, and its addresses; without addresses libp2p looks them up. */
export interface Destination {
  readonly peer: Libp2pPeerId | undefined
  readonly addresses: Array<Libp2pMultiaddr>
  /** Where each of the addresses comes from. */
  readonly origins: ReadonlyArray<Origin>
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
  const origins: Array<Origin> = []
  for (const one of texts) {
    const text = addressOf(one)
    // libp2p fails the whole dial for an address that names another peer.
    const other = peerOf(text)
    if (id !== undefined && other !== undefined && other !== id) continue
    try {
      origins.push({
        address: multiaddr(id === undefined ? text : withPeer(text, id)),
        tellers: typeof one === "string" ? undefined : one.tellers
      })
    } catch (cause) {
      return Effect.fail(new InvalidAddress({ detail: toError(cause).message }))
    }
  }
  return Effect.succeed({ peer, origins, addresses: origins.map(({ address }) => address) })
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

/**
 * The destination with what its `/dnsaddr` addresses resolve to, where the program gave them: the gate cannot tell
 * those from addresses of others. What a `/dnsaddr` of another node resolves to, libp2p asks the gate for. Rejects when
 * nothing is left to dial.
 */
export async function resolveOwn(destination: Destination, options: MultiaddrResolveOptions): Promise<Destination> {
  const { origins, peer } = destination
  const isOwnName = ({ address, tellers }: Origin) => tellers === undefined && isDns(address)
  if (!origins.some(isOwnName)) return destination
  const all = await Promise.all(origins.map(async (origin): Promise<ReadonlyArray<Origin>> => {
    if (!isOwnName(origin)) return [origin]
    const found = await boundedDnsaddr.resolve(origin.address, options)
    return found.map((address) => ({ address, tellers: undefined }))
  }))
  const resolved = all.flat()
  if (resolved.length === 0) throw new Error("the name gives no address")
  return { peer, origins: resolved, addresses: resolved.map(({ address }) => address) }
}

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
