/**
 * The messages of Kademlia (`/ipfs/kad/1.0.0`, libp2p specs kad-dht), in protocol buffers of version 3.
 *
 * On the wire each is `[uvarint length][length bytes of Message]`:
 *
 *     Message   type = 1, key = 2, record = 3, closer = 8 (Peer), providers = 9 (Peer), ttlSeconds = 777
 *     Peer      id = 1, address = 2 (repeated)
 *
 * `ttlSeconds` is this library's own field. It goes with ADD_PROVIDER, and other implementations skip it like any field
 * that they do not know. Rust has the same number for the ttl of a value's record. `clusterLevel` (10) and a peer's
 * `connection` (3) are neither written nor read: nobody uses them.
 *
 * Written by hand, since the generated code of kad-dht is not exported, makes a class, three closures and a copy for
 * each message, and leaves lengths unbounded.
 *
 * Gotchas
 * - Decoded keys, ids and addresses are views of the bytes that came. Copy one to keep it longer than the message: a
 *   view keeps the whole chunk alive, up to {@link answerBytesMax}.
 * - Rust neither sends nor reads more than {@link portableBytesMax}, Go and JavaScript up to 4 MiB.
 */
import {
  Cursor,
  fieldBytes,
  lastScale,
  malformed,
  type MessageError,
  putBytes,
  putUint,
  uintBytes
} from "./Protobuf.ts"

/** What a message asks for; an answer carries the type of its question. */
export const MessageType = {
  PUT_VALUE: 0,
  GET_VALUE: 1,
  ADD_PROVIDER: 2,
  GET_PROVIDERS: 3,
  FIND_NODE: 4,
  PING: 5
} as const

/** A peer that a message names. */
export interface MessagePeer {
  /** The multihash that is its id; 1 to {@link idBytesMax} bytes. */
  readonly id: Uint8Array
  /** The bytes of its multiaddrs, at most {@link addressesMax}, unchecked. */
  readonly addresses: ReadonlyArray<Uint8Array>
  /** The body of a Peer with this id and these addresses and nothing else, ready to be sent. */
  readonly encoded: Uint8Array
}

/** A message as it was read. */
export interface Message {
  /** One of {@link MessageType}, or a number that this library does not know. */
  readonly type: number
  readonly key?: Uint8Array
  readonly record?: Uint8Array
  readonly closer: ReadonlyArray<MessagePeer>
  readonly providers: ReadonlyArray<MessagePeer>
  readonly ttlSeconds?: number
}

/** A message to be sent. Its peers are bodies made by {@link encodePeer}. */
export interface MessageFields {
  readonly type: number
  readonly key?: Uint8Array | undefined
  readonly record?: Uint8Array | undefined
  readonly closer?: ReadonlyArray<Uint8Array> | undefined
  readonly providers?: ReadonlyArray<Uint8Array> | undefined
  /** Whole seconds. */
  readonly ttlSeconds?: number | undefined
}

/** The longest message that every implementation reads: Rust's limit (libp2p-kad `DEFAULT_MAX_PACKET_SIZE`), 16 KiB. */
export const portableBytesMax = 16 * 1024
/**
 * The longest answer that is read, 1 MiB: 3,000 providers with a few addresses each. Go may send 4 MiB of providers,
 * more than any lookup needs. Rust and JavaScript send at most 20 closer peers and, by default, 20 providers.
 */
export const answerBytesMax = 1024 * 1024
/**
 * The longest question that is read, 64 KiB. A value in its record has at most 10 KiB here and in Go's IPNS; other
 * questions have a few hundred bytes.
 */
export const requestBytesMax = 64 * 1024
/**
 * The longest key of any message. A longer one makes the message malformed. Content keys have at most 80 bytes, those
 * of values 255.
 */
export const messageKeyBytesMax = 1024
/** The longest id of a peer; a peer with a longer id is left out. Ids of libp2p have 34 to 42 bytes. */
export const idBytesMax = 64
/** The longest address of a peer; longer ones are left out. */
export const addressBytesMax = 512
/** How many addresses of a peer are read, the first ones. libp2p dials no more. */
export const addressesMax = 32
/** How many closer peers are read, the first ones. Answers carry k of them, 20 unless configured. */
export const closerMax = 128
/** How many providers are read, the first ones. */
export const providersMax = 1024

/** How many bytes a Peer takes in a message besides its body: its tag, and a length of at most two bytes. */
export const peerOverhead = 3

/** The body of a Peer with its addresses. */
export const encodePeer = (id: Uint8Array, addresses: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(peerBytes(id, addresses))
  let at = id.length === 0 ? 0 : putBytes(bytes, 0, tags.id, id)
  for (const address of addresses) at = putBytes(bytes, at, tags.address, address)
  return bytes
}

/**
 * A message with its length in front. Fields are in the order of their numbers, and a type of 0 is left out, as the
 * generated encoders of all implementations do.
 */
export const encodeFrame = (fields: MessageFields): Uint8Array => {
  const { closer, key, providers, record, ttlSeconds, type } = fields
  let length = 0
  if (type !== 0) length += 1 + uintBytes(type)
  if (key !== undefined) length += fieldBytes(key)
  if (record !== undefined) length += fieldBytes(record)
  if (closer !== undefined) { for (const peer of closer) length += fieldBytes(peer) }
  if (providers !== undefined) { for (const peer of providers) length += fieldBytes(peer) }
  if (ttlSeconds !== undefined) length += uintBytes(tags.ttlSeconds) + uintBytes(ttlSeconds)

  const bytes = new Uint8Array(uintBytes(length) + length)
  let at = putUint(bytes, 0, length)
  if (type !== 0) at = putUint(bytes, putUint(bytes, at, tags.type), type)
  if (key !== undefined) at = putBytes(bytes, at, tags.key, key)
  if (record !== undefined) at = putBytes(bytes, at, tags.record, record)
  if (closer !== undefined) { for (const peer of closer) at = putBytes(bytes, at, tags.closer, peer) }
  if (providers !== undefined) { for (const peer of providers) at = putBytes(bytes, at, tags.providers, peer) }
  if (ttlSeconds !== undefined) putUint(bytes, putUint(bytes, at, tags.ttlSeconds), ttlSeconds)
  return bytes
}

/**
 * Reads one message, without the length in front of it. Throws a {@link MessageError} and nothing else, whatever the
 * bytes are.
 *
 * Unknown fields are skipped, the last of repeated scalars counts, and a missing type is 0. A peer without an id is
 * left out, and so is what exceeds a limit of this module. Only a key that is too long makes the message malformed.
 */
export const decodeMessage = (bytes: Uint8Array): Message => {
  const cursor = new Cursor(bytes)
  const closer: Array<MessagePeer> = []
  const providers: Array<MessagePeer> = []
  const message: { type: number; key?: Uint8Array; record?: Uint8Array; ttlSeconds?: number } & Message = {
    type: 0,
    closer,
    providers
  }
  while (cursor.at < cursor.end) {
    const tag = cursor.uint()
    switch (tag) {
      case tags.type:
        message.type = cursor.uint()
        break
      case tags.key:
        message.key = cursor.bytes()
        if (message.key.length > messageKeyBytesMax) throw malformed(`a key of ${message.key.length} bytes`)
        break
      case tags.record:
        message.record = cursor.bytes()
        break
      case tags.closer:
        readPeer(cursor, closer, closerMax)
        break
      case tags.providers:
        readPeer(cursor, providers, providersMax)
        break
      case tags.ttlSeconds:
        message.ttlSeconds = cursor.uint()
        break
      default:
        cursor.skip(tag)
    }
  }
  return message
}

/**
 * Reads the body of a Peer, as {@link encodePeer} makes it; undefined when it has no id. Throws a {@link MessageError}
 * for other bytes.
 */
export const decodePeer = (body: Uint8Array): MessagePeer | undefined => {
  const cursor = new Cursor(body)
  let id = nothing
  const addresses: Array<Uint8Array> = []
  while (cursor.at < cursor.end) {
    const tag = cursor.uint()
    if (tag === tags.id) {
      id = cursor.bytes()
    } else if (tag === tags.address) {
      const address = cursor.bytes()
      if (addresses.length < addressesMax && address.length <= addressBytesMax) addresses.push(address)
    } else {
      cursor.skip(tag)
    }
  }
  return id.length > 0 && id.length <= idBytesMax ? new DecodedPeer(id, addresses, body) : undefined
}

/**
 * Finds the messages in the chunks of a stream, wherever it is cut.
 *
 * A message within one chunk is a view of it. A message in several chunks is copied once, into a buffer of at most
 * twice the bytes that have come, so that a remote cannot make this node allocate by announcing a length.
 */
export class FrameReader {
  private readonly limit: number
  /** The length in front of the message, as far as it has come. */
  private length = 0
  private scale = 1
  /** The bytes that have come of a message whose length is known. */
  private body: Uint8Array | undefined
  private have = 0
  private failure: MessageError | undefined

  /** Reads messages of at most `limit` bytes, {@link answerBytesMax} unless given. */
  constructor(limit: number = answerBytesMax) {
    this.limit = limit
  }

  /**
   * Calls `each` with every message that ends in the chunk, until it returns false. Returns how many bytes of the chunk
   * are read; after false the caller pushes the rest later. Throws a {@link MessageError} as soon as a length is
   * malformed or beyond the limit, and from then on at every call.
   */
  push(chunk: Uint8Array, each: (message: Uint8Array) => unknown): number {
    if (this.failure !== undefined) throw this.failure
    let at = 0
    while (at < chunk.length) {
      if (this.body === undefined) {
        const byte = chunk[at++]!
        this.length += (byte & 0x7f) * this.scale
        if (this.length > this.limit || (byte >= 0x80 && this.scale >= lastScale)) throw this.fail()
        if (byte >= 0x80) {
          this.scale *= 0x80
          continue
        }
        this.scale = 1
        if (at + this.length <= chunk.length) {
          const end = at + this.length
          this.length = 0
          if (each(chunk.subarray(at, at = end)) === false) return at
          continue
        }
        this.body = nothing
        this.have = 0
      }
      const end = Math.min(chunk.length, at + this.length - this.have)
      this.append(chunk, at, end)
      at = end
      if (this.have === this.length) {
        const message = this.body
        this.body = undefined
        this.length = 0
        if (each(message) === false) return at
      }
    }
    return at
  }

  private append(chunk: Uint8Array, from: number, to: number): void {
    let body = this.body!
    const needed = this.have + to - from
    if (needed > body.length) {
      body = new Uint8Array(Math.min(this.length, Math.max(needed, 2 * body.length)))
      body.set(this.body!.subarray(0, this.have))
      this.body = body
    }
    body.set(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to), this.have)
    this.have = needed
  }

  private fail(): MessageError {
    const detail = this.length > this.limit
      ? `a length of ${this.length} bytes or more, over ${this.limit}`
      : "no length"
    return this.failure = malformed(detail)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const tags = {
  type: 1 << 3,
  key: 2 << 3 | 2,
  record: 3 << 3 | 2,
  closer: 8 << 3 | 2,
  providers: 9 << 3 | 2,
  ttlSeconds: 777 << 3,
  id: 1 << 3 | 2,
  address: 2 << 3 | 2
} as const

const nothing: Uint8Array = new Uint8Array(0)

class DecodedPeer implements MessagePeer {
  readonly id: Uint8Array
  readonly addresses: ReadonlyArray<Uint8Array>
  private readonly body: Uint8Array

  constructor(id: Uint8Array, addresses: ReadonlyArray<Uint8Array>, body: Uint8Array) {
    this.id = id
    this.addresses = addresses
    this.body = body
  }

  // Made on demand: most peers that a message names are known already.
  get encoded(): Uint8Array {
    // A body that is longer has fields besides, which are not passed on.
    return peerBytes(this.id, this.addresses) === this.body.length ? this.body : encodePeer(this.id, this.addresses)
  }
}

function readPeer(cursor: Cursor, peers: Array<MessagePeer>, limit: number): void {
  const peer = decodePeer(cursor.bytes())
  if (peer !== undefined && peers.length < limit) peers.push(peer)
}

function peerBytes(id: Uint8Array, addresses: ReadonlyArray<Uint8Array>): number {
  let length = id.length === 0 ? 0 : fieldBytes(id)
  for (const address of addresses) length += fieldBytes(address)
  return length
}
