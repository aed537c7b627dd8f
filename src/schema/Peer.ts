/**
 * Ids, addresses, and the snapshot of a connected peer.
 *
 * Ids and addresses are branded strings, so that they compare, hash and serialise as they print. The brands exist only
 * in types. At run time the leading slash tells an address from an id, see {@link isMultiaddr}.
 */
import { multiaddr } from "@multiformats/multiaddr"
import { Schema } from "effect"
import { base58btc } from "multiformats/bases/base58"
import * as Digest from "multiformats/hashes/digest"

/**
 * The id of a peer: the base58btc multihash of its public key, such as `12D3KooW...` (Ed25519) or `Qm...` (RSA).
 */
export const PeerId = Schema.String.check(
  Schema.makeFilter((text) => peerIdProblem(text) ?? true, { expected: "a base58 peer id" })
).pipe(Schema.brand("PeerId"))
export type PeerId = typeof PeerId.Type

/**
 * A multiaddr in its text form, such as `/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...`.
 */
export const Multiaddr = Schema.String.check(
  Schema.makeFilter((text) => multiaddrProblem(text) ?? true, { expected: "a multiaddr" })
).pipe(Schema.brand("Multiaddr"))
export type Multiaddr = typeof Multiaddr.Type

/**
 * The name under which a protocol is negotiated, such as `/codio/1.0.0`. It begins with a slash and holds no white
 * space.
 */
export const ProtocolId = Schema.String.check(
  Schema.isPattern(/^\/\S{1,255}$/, {
    message: "expected a protocol id: a slash, then 1 to 255 characters without spaces"
  })
).pipe(Schema.brand("ProtocolId"))
export type ProtocolId = typeof ProtocolId.Type

/**
 * Which side dialled.
 */
export const Direction = Schema.Literals(["inbound", "outbound"])
export type Direction = typeof Direction.Type

/**
 * How much a node wants a peer, from least to most.
 *
 * - `transient`: inbound strangers, and connections that the DHT opens. Evicted first, never redialled.
 * - `discovered`: found by mDNS, the DHT or memory, dialled while fewer than `minPeers` are connected.
 * - `wanted`: an explicit `connect`. Redialled eight times. The wish ends when this node calls `disconnect`, or closes
 *   the connection by `block`, an eviction or for idleness; when the peer says goodbye with `idle`, `disconnect` or
 *   `blocked`; and when `ReconnectPolicy` ends.
 * - `kept`: `keep`, and every bootstrap peer. Redialled for ever, never idle, never evicted.
 */
export const Interest = Schema.Literals(["transient", "discovered", "wanted", "kept"])
export type Interest = typeof Interest.Type

/** A peer and its addresses. They may lack the `/p2p/<id>` at their end, and there may be none. */
export interface PeerAddresses {
  readonly id: PeerId
  readonly addresses: ReadonlyArray<Multiaddr>
}
export const PeerAddresses = Schema.Struct({ id: PeerId, addresses: Schema.Array(Multiaddr) })

/**
 * What can be dialled: a peer whose addresses are known or can be looked up, an address, or a peer at given addresses.
 */
export type DialTarget = PeerId | Multiaddr | PeerAddresses

/**
 * The path of a connection: direct to the peer, or through a relay.
 *
 * `bytesLeft` and `timeLeft` are what the relay still allows, as of the moment of reading. They are absent where the
 * relay named no limit.
 */
export const Path = Schema.TaggedUnion({
  Direct: {},
  Relayed: {
    relay: PeerId,
    bytesLeft: Schema.optionalKey(Schema.BigInt),
    timeLeft: Schema.optionalKey(Schema.Duration)
  }
})
export type Path = typeof Path.Type

/** What a remote told about itself through identify. */
export const RemoteIdentity = Schema.Struct({
  protocolVersion: Schema.String,
  agentVersion: Schema.String,
  protocols: Schema.Array(Schema.String),
  listenAddresses: Schema.Array(Multiaddr)
})
export type RemoteIdentity = typeof RemoteIdentity.Type

/**
 * A connected peer, as of the moment of reading.
 */
export class PeerInfo extends Schema.Class<PeerInfo>("codio-network/PeerInfo")({
  id: PeerId,
  /** The remote addresses of its open connections, oldest connection first. */
  addresses: Schema.Array(Multiaddr),
  /** The direction of its oldest open connection. */
  direction: Direction,
  /** `Direct` as soon as one of its connections is direct. */
  path: Path,
  interest: Interest,
  connectedAt: Schema.DateTimeUtc,
  /** When its last application stream ended. Absent while one is open. */
  idleSince: Schema.optionalKey(Schema.DateTimeUtc),
  connectionDuration: Schema.Duration,
  /** Zero while an application stream is open. */
  idleDuration: Schema.Duration,
  /** The round trip of the last answered ping. */
  roundTripTime: Schema.optionalKey(Schema.Duration),
  /** The peer's answer to identify; empty until it has answered. */
  protocolVersion: Schema.String,
  agentVersion: Schema.String,
  protocols: Schema.Array(Schema.String)
}) {}

/** Whether the target is an address. Both are strings at run time; only an address begins with a slash. */
export const isMultiaddr = (target: DialTarget | string): target is Multiaddr =>
  typeof target === "string" && target.startsWith("/")

/**
 * The peer that a target leads to; none for an address without `/p2p/<id>` at its end. A relayed address leads to the
 * peer behind the relay.
 */
export const peerOf = (target: DialTarget): PeerId | undefined => {
  if (typeof target !== "string") return target.id
  if (!isMultiaddr(target)) return target
  const id = /\/(?:p2p|ipfs)\/([^/]+)$/.exec(target)?.[1]
  return id === undefined ? undefined : id as PeerId
}

/**
 * The address ending in `/p2p/<id>`, whether or not it did before.
 */
export const withPeer = (address: Multiaddr, id: PeerId): Multiaddr =>
  peerOf(address) === id ? address : `${address}/p2p/${id}` as Multiaddr

/** The address without the `/p2p/<id>` at its end. */
export const withoutPeer = (address: Multiaddr): Multiaddr => address.replace(/\/(?:p2p|ipfs)\/[^/]+$/, "") as Multiaddr

/** The address or the id of a target, for messages. */
export const showTarget = (target: DialTarget): string => typeof target === "string" ? target : target.id

const interests: ReadonlyArray<Interest> = ["transient", "discovered", "wanted", "kept"]

/** The rank of an interest, from 0 (`transient`) to 3 (`kept`). */
export const interestRank = (interest: Interest): number => interests.indexOf(interest)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function peerIdProblem(text: string): string | undefined {
  const problem = `"${text}" is not a peer id: expected base58 text such as 12D3KooW...`
  try {
    return isOfKey(Digest.decode(base58btc.baseDecode(text))) ? undefined : problem
  } catch {
    return problem
  }
}

// A short key is its own digest: protobuf with the key's type (Ed25519 1, secp256k1 2) and length. The digest of a
// longer key is its sha2-256.
function isOfKey({ code, digest }: Digest.Digest<number, number>): boolean {
  if (code === 0x12) return digest.length === 32
  if (code !== 0 || digest[0] !== 0x08 || digest[2] !== 0x12) return false
  return digest[1] === 1
    ? digest[3] === 32 && digest.length === 36
    : digest[1] === 2 && digest[3] === 33 && digest.length === 37
}

function multiaddrProblem(text: string): string | undefined {
  try {
    const address = multiaddr(text)
    if (address.getComponents().length === 0) return `"${text}" is not a multiaddr: it is empty`
    return undefined
  } catch {
    return `"${text}" is not a multiaddr: expected text such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...`
  }
}
