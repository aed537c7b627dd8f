/**
 * Ids, addresses, and the snapshot of a connected peer.
 *
 * Ids and addresses are branded strings, so that they compare, hash and serialise as they print. The brands exist only
 * in types. At run time the leading slash tells an address from an id, see {@link isMultiaddr}.
 */
import { Effect, Result, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { plain } from "./Json.ts"
import * as Canonical from "./Canonical.ts"

/**
 * The id of a peer: the base58btc multihash of its public key, such as `12D3KooW...` (Ed25519) or `Qm...` (RSA).
 */
export const PeerId = Schema.String.check(
  Schema.makeFilter((text) => canonicalProblem(Canonical.peerId(text), text) ?? true, { expected: "a base58 peer id" })
).pipe(Schema.brand("PeerId"))
export type PeerId = typeof PeerId.Type

/**
 * A multiaddr in its text form, such as `/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...`.
 */
export const Multiaddr = Schema.String.check(
  Schema.makeFilter((text) => Canonical.multiaddrProblem(text) ?? true, { expected: "a multiaddr" })
).pipe(Schema.brand("Multiaddr"))
export type Multiaddr = typeof Multiaddr.Type

/** A {@link PeerId} from text: base58, or the CID of the key (`bafz...`, `k51...`), as Kubo prints it. */
export const PeerIdFromText = fromText(PeerId, Canonical.peerId)

/** A {@link Multiaddr} from text, in its canonical form: base58 ids after `/p2p/`, and no slash at the end. */
export const MultiaddrFromText = fromText(Multiaddr, Canonical.multiaddr)

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
 * An address that another node told, and the remote addresses at which this node saw those who told it, as far as it
 * knows them. It never becomes an address that the program gave: `AddressGuard` judges it wherever it goes.
 */
export interface Told {
  readonly address: Multiaddr
  readonly tellers: ReadonlyArray<Multiaddr>
}

/** A peer and the addresses that other nodes told of it. */
export interface ToldAddresses {
  readonly id: PeerId
  readonly addresses: ReadonlyArray<Told>
}

/**
 * An address that the DHT found: another node told it. Handed back to `connect`, `keep` or `open` it is judged by
 * `AddressGuard` as if the program had named the peer alone: the object itself, a copy, or its JSON. Only a text is an
 * address of the program's own, so taking `address` out of it is what makes it one.
 *
 * This node remembers with the object who told it, which a copy or JSON does not carry. Such a copy is dialled as an
 * address that nobody knows the teller of: in private networks only as far as this node has heard of it by itself.
 */
export class FoundAddress extends Schema.Class<FoundAddress>("codio-network/FoundAddress")({
  address: Multiaddr,
  /** Whether this node would dial it now. What a name leads to is judged once more, when it has been resolved. */
  isDialable: Schema.Boolean
}) {
  override toString(): string {
    return this.address
  }
}

/** A peer that the DHT found, and the addresses that others told of it. */
export const FoundPeer = Schema.Struct({ id: PeerId, addresses: Schema.Array(FoundAddress) })
export type FoundPeer = typeof FoundPeer.Type

/** The address as a program gets it. */
export const foundAddress = ({ address, tellers }: Told, isDialable: boolean): FoundAddress => {
  const found = new FoundAddress({ address, isDialable }, { disableChecks: true })
  tellersOfFound.set(found, tellers)
  return found
}

/**
 * What can be dialled: a peer whose addresses are known or can be looked up, an address, or a peer at addresses. An
 * address is the program's own when it is a text, and another node's when it is a `Told`.
 */
export type DialTarget =
  | PeerId
  | Multiaddr
  | { readonly id: PeerId; readonly addresses: ReadonlyArray<Multiaddr | Told> }

/** The address itself, whoever told it. */
export const addressOf = (address: Multiaddr | Told): Multiaddr =>
  typeof address === "string" ? address : address.address

/**
 * The path of a connection, as of the moment of reading: direct to the peer, or through a relay.
 */
export const Path = Schema.TaggedUnion({
  Direct: {
    /** Whether the two ends punched a hole through their NATs for it, by DCUtR. */
    holePunched: Schema.Boolean
  },
  Relayed: {
    relay: PeerId,
    /** The bytes that the relay still passes on. Absent where it named no limit, as relays of rust-libp2p do. */
    bytesLeft: Schema.optionalKey(Schema.Int),
    /** The time until the relay ends the connection. Absent where it named no limit. */
    timeLeft: Schema.optionalKey(Schema.Duration),
    /** Whether the two ends are about to punch a hole, for a direct connection in its stead. */
    upgrading: Schema.Boolean
  }
})
export type Path = typeof Path.Type

/** Whether both are direct, or both lead through the same relay. */
export const isSamePath = (one: Path, other: Path): boolean =>
  one._tag === "Relayed" && other._tag === "Relayed" ? one.relay === other.relay : one._tag === other._tag

/** What a remote told about itself through identify. */
export const RemoteIdentity = Schema.Struct({
  protocolVersion: Schema.String,
  agentVersion: Schema.String,
  protocols: Schema.Array(Schema.String),
  listenAddresses: Schema.Array(Multiaddr),
  /** The address of this node, as the remote sees it. */
  observedAddress: Schema.optionalKey(Multiaddr)
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
  protocols: Schema.Array(Schema.String),
  /** Where the peer says that it listens. */
  listenAddresses: Schema.Array(Multiaddr),
  /** The address of this node, as the peer sees it; absent where the peer does not say. */
  observedAddress: Schema.optionalKey(Multiaddr)
}) {
  /** As `JSON.stringify` prints it: durations as `...Millis`, times as ISO 8601. */
  toJSON(): Readonly<Record<string, unknown>> {
    return plain(this)
  }
}

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

/** A target as a program writes it, in text of any form. */
export type TargetText =
  | string
  | { readonly id: string; readonly addresses: ReadonlyArray<string | { readonly address: string }> }

/**
 * Reads a target into its canonical form: ids in base58, addresses as {@link MultiaddrFromText} has them. An address of
 * a peer id alone (`/p2p/12D3KooW...`) is that peer. The failure is one line, for a text that is neither an id nor an
 * address, for a relayed address that names no peer, and for an address of another peer than the target's.
 */
export const readTarget = (target: TargetText): Result.Result<DialTarget, string> => {
  if (typeof target !== "string") {
    return typeof target === "object" && target !== null && "id" in target
      ? readPeerAddresses(target)
      : Result.fail(`expected a peer id, a multiaddr, or an id with addresses, got ${Canonical.shortened(target)}`)
  }
  if (!target.trimStart().startsWith("/")) {
    return Result.mapError(
      readPeerId(target),
      (problem) => `${problem}, or a multiaddr such as /ip4/192.0.2.1/tcp/4001`
    )
  }
  return Result.flatMap(readAddress(target), (address): Result.Result<DialTarget, string> => {
    const id = peerOf(address)
    return id !== undefined && withoutPeer(address) === "" ? Result.succeed(id) : Result.succeed(address)
  })
}

/** Reads a multiaddr in any of its forms; the failure is one line. */
export const readMultiaddr = (text: string): Result.Result<Multiaddr, string> =>
  Canonical.multiaddr(text) as Result.Result<Multiaddr, string>

/** Reads a peer id in any of its forms; the failure is one line. */
export const readPeerId = (text: string): Result.Result<PeerId, string> =>
  Canonical.peerId(text) as Result.Result<PeerId, string>

/** The address or the id of a target, for messages. */
export const showTarget = (target: DialTarget): string => typeof target === "string" ? target : target.id

const interests: ReadonlyArray<Interest> = ["transient", "discovered", "wanted", "kept"]

/** The rank of an interest, from 0 (`transient`) to 3 (`kept`). */
export const interestRank = (interest: Interest): number => interests.indexOf(interest)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Who told the addresses that programs hold. */
const tellersOfFound = new WeakMap<object, ReadonlyArray<Multiaddr>>()

const canonicalProblem = (read: Result.Result<string, string>, text: string): string | undefined =>
  Result.isFailure(read)
    ? read.failure
    : read.success === text
    ? undefined
    : `${Canonical.quoted(text)} is not in its canonical form, which is ${read.success}`

/** A codec from text in any of its forms to the canonical one. */
function fromText<S extends Schema.Codec<string, string>>(
  schema: S,
  read: (text: string) => Result.Result<string, string>
) {
  return Schema.String.pipe(
    Schema.decodeTo(
      Schema.toType(schema),
      SchemaTransformation.transformEffect({
        decode: (text: string, options) =>
          Result.match(read(text), {
            onFailure: (message) => Effect.fail(new SchemaIssue.InvalidValue({ message }, text, options)),
            onSuccess: Effect.succeed
          }),
        encode: (text: string) => Effect.succeed(text)
      })
    )
  )
}

function readAddress(text: string): Result.Result<Multiaddr, string> {
  return Result.flatMap(readMultiaddr(text), (address) =>
    address.endsWith("/p2p-circuit")
      ? Result.fail(`${Canonical.quoted(text)} names a relay and no peer behind it: expected /p2p/<id> at its end`)
      : Result.succeed(address))
}

function readPeerAddresses(
  target: Exclude<TargetText, string>
): Result.Result<Exclude<DialTarget, string>, string> {
  const id = readPeerId(target.id)
  if (Result.isFailure(id)) return Result.fail(id.failure)
  if (!Array.isArray(target.addresses)) {
    return Result.fail(`addresses: expected a list of multiaddrs, got ${Canonical.shortened(target.addresses)}`)
  }
  const addresses: Array<Multiaddr | Told> = []
  for (const one of target.addresses) {
    const text = typeof one === "object" && one !== null ? one.address : one
    const address = readAddress(text)
    if (Result.isFailure(address)) return Result.fail(address.failure)
    const named = peerOf(address.success)
    if (named !== undefined && named !== id.success) {
      return Result.fail(`${Canonical.quoted(text)} is an address of another peer than ${id.success}`)
    }
    // The id alone says nothing that the target does not.
    if (withoutPeer(address.success) === "") continue
    // An object is an address that another node told, whatever it says of itself: who told it is known of this node's
    // own objects alone.
    addresses.push(
      text === one ? address.success : { address: address.success, tellers: tellersOfFound.get(one as object) ?? [] }
    )
  }
  return Result.succeed({ id: id.success, addresses })
}
