/**
 * The peers of the DHT, each read once: what a lookup compares and what an answer sends is kept, so that a message
 * costs no parsing of ids and addresses.
 */
import { base58btc } from "multiformats/bases/base58"
import type { PeerId } from "../../../schema/Peer.ts"
import { encodePeer } from "./Message.ts"
import { type Position, positionOf } from "./Position.ts"

/**
 * A peer of the DHT.
 */
export class Node {
  /** The multihash that is its id. */
  readonly bytes: Uint8Array
  /** The same bytes as latin1 text, to look the peer up in a `Map`. */
  readonly key: string
  readonly position: Position
  private text: PeerId | undefined
  private known: ReadonlyArray<Uint8Array> = []
  private body: Uint8Array | undefined
  /** The peer itself has told its addresses; what others say of them does not count. */
  isIdentified = false
  /** When discovery was told of it last, in milliseconds since the epoch. */
  toldAt = Number.NEGATIVE_INFINITY

  constructor(bytes: Uint8Array, key: string) {
    this.bytes = bytes
    this.key = key
    this.position = positionOf(bytes)
  }

  get id(): PeerId {
    return this.text ??= base58btc.baseEncode(this.bytes) as PeerId
  }

  /** The bytes of its multiaddrs, the latest first. */
  get addresses(): ReadonlyArray<Uint8Array> {
    return this.known
  }

  set addresses(addresses: ReadonlyArray<Uint8Array>) {
    this.known = addresses
    this.body = undefined
  }

  /** Id and addresses as the body of a Peer in a message. */
  get encoded(): Uint8Array {
    return this.body ??= encodePeer(this.bytes, this.known)
  }
}

/**
 * The nodes that are known, at most `limit`. The oldest leave, and are read anew when somebody names them again.
 */
export class Nodes {
  // No BoundedMap: pinned nodes are the oldest, and it would pass over all of them for every newcomer.
  private readonly nodes = new Map<string, Node>()
  private readonly limit: number
  private readonly isPinned: (node: Node) => boolean

  /** Pinned nodes never leave, such as those of the routing table, which are few. */
  constructor(limit: number, isPinned: (node: Node) => boolean = () => false) {
    this.limit = limit
    this.isPinned = isPinned
  }

  get size(): number {
    return this.nodes.size
  }

  /** The node of an id, new or known. The bytes are copied. */
  of(id: Uint8Array): Node {
    const key = keyOf(id)
    const known = this.nodes.get(key)
    if (known !== undefined) return known
    const node = new Node(Uint8Array.from(id), key)
    this.nodes.set(key, node)
    if (this.nodes.size > this.limit) this.shrink(node)
    return node
  }

  known(id: Uint8Array): Node | undefined {
    return this.nodes.get(keyOf(id))
  }

  /**
   * Somebody names a peer with addresses. They are added in front of what is known, unless the peer itself has told its
   * addresses. True when one is new.
   */
  hear(node: Node, addresses: ReadonlyArray<Uint8Array>): boolean {
    if (node.isIdentified || addresses.length === 0) return false
    const known = new Set(node.addresses.map(keyOf))
    const fresh = addresses.filter((address) => address.length <= addressBytesMax && !known.has(keyOf(address)))
    if (fresh.length === 0) return false
    node.addresses = [...fresh.map((address) => Uint8Array.from(address)), ...node.addresses].slice(0, keptAddressesMax)
    return true
  }

  /**
   * The peer itself has told its addresses; what others say does not count from here on. If there are none, because the
   * peer told none or the peer store has forgotten them, the known addresses stay, and others may add more.
   */
  identify(node: Node, addresses: ReadonlyArray<Uint8Array>): void {
    node.isIdentified = addresses.length > 0
    if (node.isIdentified) node.addresses = addresses.slice(0, keptAddressesMax)
  }

  private shrink(newest: Node): void {
    // Some more than needed, so that this is rare.
    let excess = Math.ceil(this.limit / 16)
    for (const node of this.nodes.values()) {
      if (excess === 0) return
      if (node === newest || this.isPinned(node)) continue
      this.nodes.delete(node.key)
      excess--
    }
  }
}

/**
 * Whether the bytes have the form of a peer's id: the sha2-256 multihash of a key, or an Ed25519 or secp256k1 key
 * itself. Others may send any bytes as an id.
 */
export const isPeerId = (bytes: Uint8Array): boolean => {
  if (bytes[0] === 0x12) return bytes[1] === 32 && bytes.length === 34
  if (bytes[0] !== 0 || bytes[1] !== bytes.length - 2 || bytes[2] !== 8 || bytes[4] !== 0x12) return false
  return bytes[3] === 1
    ? bytes.length === 38 && bytes[5] === 32
    : bytes[3] === 2 && bytes.length === 39 && bytes[5] === 33
}

/**
 * How many addresses of a peer are kept: of a node of the DHT, and of a provider. Together with the limit of an
 * address's length: at most 4 KiB a node, whatever others claim.
 */
export const keptAddressesMax = 16

/** Bytes as latin1 text, one character for each. */
export const keyOf = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1")

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** The longest address that others may tell. One with two certificate hashes and a relay has about 200 bytes. */
const addressBytesMax = 256
