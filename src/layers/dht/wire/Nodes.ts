/**
 * The peers of the DHT, each read once: what a lookup compares and what an answer sends is kept, so that a message
 * costs no parsing of ids and addresses.
 */
import { base58btc } from "multiformats/bases/base58"
import type { Multiaddr, PeerId } from "../../../schema/Peer.ts"
import { encodePeer } from "./Message.ts"
import { type Position, positionOf } from "./Position.ts"

/** Whether an address may be named to others, given the remote addresses of those who told it. */
export type NamingRule = (address: Uint8Array, tellers: ReadonlyArray<Multiaddr>) => boolean

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
  /** As latin1 texts: an array of 8 bytes takes 250, a text of them 32. */
  private known: ReadonlyArray<string> = []
  /** Who told each address: the last tellers that are not on the internet. */
  private near: Map<string, ReadonlyArray<Multiaddr>> | undefined
  private body: Uint8Array | undefined
  /** The rule of which `body` is the outcome. */
  private namedBy: NamingRule | undefined
  /** The peer itself has told its addresses; what others say of them does not count. */
  isIdentified = false
  /** When discovery was told of it last, by `Elapsed`. */
  toldAt = Number.NEGATIVE_INFINITY

  constructor(bytes: Uint8Array, key: string) {
    this.bytes = bytes
    this.key = key
    this.position = positionOf(bytes)
  }

  get id(): PeerId {
    return this.text ??= flat(base58btc.baseEncode(this.bytes)) as PeerId
  }

  /** The bytes of its multiaddrs, the latest first. Setting keeps copies. */
  get addresses(): ReadonlyArray<Uint8Array> {
    return this.known.map(bytesOf)
  }

  set addresses(addresses: ReadonlyArray<Uint8Array>) {
    this.known = addresses.map(keyOf)
    this.namedBy = undefined
    this.forgetTellers()
  }

  /** Notes who told those of the addresses that are known. */
  toldBy(addresses: ReadonlyArray<Uint8Array>, teller: Multiaddr): void {
    this.near ??= new Map()
    for (const text of addresses.map(keyOf)) {
      const tellers = this.near.get(text) ?? []
      if (!this.known.includes(text) || tellers.includes(teller)) continue
      this.near.set(text, [...tellers, teller].slice(-tellersMax))
      this.namedBy = undefined
    }
  }

  /** The remote addresses of those who told the address, where they may matter to the address guard. */
  tellersOf(address: Uint8Array): ReadonlyArray<Multiaddr> {
    return this.near?.get(keyOf(address)) ?? []
  }

  /** Adds addresses in front, and drops the last above `most`. False when all of them are known. */
  learn(addresses: ReadonlyArray<Uint8Array>, most: number): boolean {
    const fresh = addresses.map(keyOf).filter((text) => !this.known.includes(text))
    if (fresh.length === 0) return false
    this.known = [...fresh, ...this.known].slice(0, most)
    this.namedBy = undefined
    this.forgetTellers()
    return true
  }

  /** Forgets the tellers of addresses that are known no more. */
  private forgetTellers(): void {
    for (const text of this.near?.keys() ?? []) if (!this.known.includes(text)) this.near?.delete(text)
  }

  /**
   * Id and those addresses that the rule lets be named, as the body of a Peer in a message; undefined where it lets
   * none. Kept until something changes or another rule is given.
   */
  encodedBy(rule: NamingRule): Uint8Array | undefined {
    if (this.namedBy === rule) return this.body
    const named = this.addresses.filter((address) => rule(address, this.tellersOf(address)))
    this.body = named.length === 0 ? undefined : encodePeer(this.bytes, named)
    this.namedBy = rule
    return this.body
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
   * addresses. True when one is new. `teller` is the remote address of who names it, where it is not on the internet.
   */
  hear(node: Node, addresses: ReadonlyArray<Uint8Array>, teller?: Multiaddr): boolean {
    if (node.isIdentified) return false
    const isNews = node.learn(addresses.filter(isShort), keptAddressesMax)
    if (teller !== undefined) node.toldBy(addresses, teller)
    return isNews
  }

  /**
   * The peer itself has told its addresses; what others say does not count from here on. If there are none, because the
   * peer told none or the peer store has forgotten them, the known addresses stay, and others may add more.
   */
  identify(node: Node, addresses: ReadonlyArray<Uint8Array>, teller?: Multiaddr): void {
    node.isIdentified = addresses.length > 0
    if (node.isIdentified) node.addresses = addresses.filter(isShort).slice(0, keptAddressesMax)
    if (teller !== undefined) node.toldBy(addresses, teller)
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

/**
 * Bytes as latin1 text, one character for each. The method of `Buffer` reads any bytes. To ask a small array for its
 * `buffer` would move its bytes out of the heap, which takes 200 bytes more for as long as the array lives.
 */
export const keyOf = (bytes: Uint8Array): string => latin1.call(bytes)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const latin1: (this: Uint8Array) => string = Buffer.prototype.latin1Slice

/** The bytes of a latin1 text. No part of Buffer's pool, which would stay as long as the bytes do. */
const bytesOf = (text: string): Uint8Array => {
  const bytes = new Uint8Array(text.length)
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index)
  return bytes
}

/**
 * The text in one piece. base58 is put together letter by letter, and V8 keeps such a text as a chain of 52 pieces,
 * 1.6 KiB for an id.
 */
const flat = (text: string): string => Buffer.from(text, "latin1").toString("latin1")

/** As many tellers of an address are kept as by the records of peers. */
const tellersMax = 4

const isShort = (address: Uint8Array): boolean => address.length <= addressBytesMax

/** The longest address that others may tell. One with two certificate hashes and a relay has about 200 bytes. */
const addressBytesMax = 256
