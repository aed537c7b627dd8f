/**
 * What this node answers as a server of the DHT.
 *
 * A message is answered from memory, without waiting. Only a value has to be judged by the rules of its namespace,
 * which are effects. Rust, Go and JavaScript are answered alike:
 * - Content keys are any 1 to 80 bytes, as Rust and Go provide them.
 * - A peer can only announce itself: other providers in its message are ignored. If it names no address that may be
 *   named to others (`Naming`), those that identify told are stored, or the one at which this node has dialled it. The
 *   address of an inbound connection is never stored: nobody could dial it.
 * - The closer peers of an answer leave out the asker, and peers without an address that may be named.
 * - An answer has at most 16 KiB, since Rust reads no more.
 *
 * A message that a peer may not send is answered by a {@link Refusal}, which ends its stream. A provider record for
 * which there is no room is dropped, as ADD_PROVIDER has no answer.
 */
import { Bytes, Clock, Data, Effect, type Scope } from "effect"
import { keyBytesMax } from "../../../schema/Content.ts"
import type { Multiaddr } from "../../../schema/Peer.ts"
import {
  encodeFrame,
  encodePeer,
  idBytesMax,
  type Message,
  MessageType,
  peerOverhead,
  portableBytesMax
} from "../wire/Message.ts"
import { keptAddressesMax, type NamingRule } from "../wire/Nodes.ts"
import { type Position, positionOf } from "../wire/Position.ts"
import * as Elapsed from "../../Elapsed.ts"
import * as Supervised from "../../Supervised.ts"
import type { ProviderRecords } from "./ProviderRecords.ts"
import type { ValueRecords } from "./ValueRecords.ts"

/** The peer that sent a message. */
export interface Sender {
  /** The multihash that is its id, and the same bytes as latin1 text. */
  readonly bytes: Uint8Array
  readonly key: string
  /** The remote address of its connection, by which the address guard judges what it tells. */
  readonly tellers: ReadonlyArray<Multiaddr>
  /** The bytes of the multiaddr at which this node dialled the peer; undefined for an inbound connection. */
  readonly dialledAt: Uint8Array | undefined
  /** The subnet by which its records are counted; undefined when they are not. */
  readonly subnet: string | undefined
}

export interface ServerOptions {
  /** The multihash that is this node's id. */
  readonly self: Uint8Array
  /** How many closer peers an answer has: k. */
  readonly closerMax: number
  /** The peers of the table closest to a position, nearest first, without one of them. */
  readonly closest: (
    target: Position,
    count: number,
    without: string
  ) => ReadonlyArray<{ readonly bytes: Uint8Array; readonly key: string }>
  /**
   * A peer as it is answered: a Peer message. Undefined while no address of it may be named. Also asked for this node
   * itself.
   */
  readonly encodedOf: (id: Uint8Array) => Uint8Array | undefined
  /** The bytes of the multiaddrs that a peer has told of itself, by identify. */
  readonly addressesOf: (id: Uint8Array) => ReadonlyArray<Uint8Array>
  /** Whether an address may be named to others, and so be kept. Not what cannot be read. */
  readonly isNamed: NamingRule
  /** Whether this node itself provides a key. */
  readonly isProvided: (key: Uint8Array) => boolean
  readonly providers: ProviderRecords
  readonly values: ValueRecords
}

/** A message that a server does not take. */
export class Refusal extends Data.TaggedError("Refusal")<{ readonly detail: string }> {
  override get message(): string {
    return this.detail
  }
}

/** A frame to be sent; undefined for a message that has no answer. */
export type AnswerFrame = Uint8Array | undefined

export interface Server {
  /** Throws a {@link Refusal}, and nothing else, unless it returns an effect. */
  readonly answer: (message: Message, from: Sender) => AnswerFrame | Effect.Effect<AnswerFrame, Refusal>
}

/** A server. While the scope lives, it forgets expired provider records. */
export const make = Effect.fnUntraced(function*(
  options: ServerOptions
): Effect.fn.Return<Server, never, Scope.Scope> {
  const { closerMax, encodedOf, providers, self, values } = options
  const clock = yield* Clock.Clock

  yield* Supervised.forever(
    "the sweep of provider records",
    Effect.delay(Effect.sync(() => providers.sweep(Elapsed.millisUnsafe(clock), keysPerSweep)), "10 seconds")
  )

  /** The peers closest to a position, without those that have no address or do not fit into so many bytes. */
  const closerTo = (target: Position, from: Sender, bytesMax: number): Array<Uint8Array> => {
    const closer: Array<Uint8Array> = []
    let left = bytesMax
    for (const peer of options.closest(target, closerMax, from.key)) {
      const encoded = encodedOf(peer.bytes)
      if (encoded !== undefined && encoded.length + peerOverhead <= left) {
        left -= encoded.length + peerOverhead
        closer.push(encoded)
      }
    }
    return closer
  }

  const findNode = (message: Message, from: Sender): Uint8Array => {
    const key = given(message.key)
    const closer = closerTo(positionOf(key), from, portableBytesMax - frameOverhead)
    // The target itself is often known and not in the table, such as a client.
    const target = key.length > idBytesMax || Bytes.Equivalence(key, from.bytes) ? undefined : encodedOf(key)
    // A target that is in the table is the first of the closer peers already.
    if (target !== undefined && (closer[0] === undefined || !Bytes.Equivalence(closer[0], target))) {
      let bytes = [target, ...closer].reduce((sum, peer) => sum + peer.length + peerOverhead, 0)
      while (bytes > portableBytesMax - frameOverhead && closer.length > 0) bytes -= closer.pop()!.length + peerOverhead
      closer.unshift(target)
    }
    return encodeFrame({ type: MessageType.FIND_NODE, closer })
  }

  const getProviders = (message: Message, from: Sender): Uint8Array => {
    const key = contentKey(message.key)
    const bytesMax = portableBytesMax - frameOverhead - key.length
    const closer = closerTo(positionOf(key), from, bytesMax / 2)
    let left = bytesMax - closer.reduce((sum, peer) => sum + peer.length + peerOverhead, 0)
    const found: Array<Uint8Array> = []
    const own = options.isProvided(key) ? encodedOf(self) : undefined
    if (own !== undefined && own.length + peerOverhead <= left) {
      left -= own.length + peerOverhead
      found.push(own)
    }
    for (const peer of providers.get(key, Elapsed.millisUnsafe(clock), left, encodedOf)) found.push(peer)
    return encodeFrame({ type: MessageType.GET_PROVIDERS, key, closer, providers: found })
  }

  const addProvider = (message: Message, from: Sender): undefined => {
    const key = contentKey(message.key)
    const sender = message.providers.find(({ id }) => Bytes.Equivalence(id, from.bytes))
    if (sender === undefined) return undefined
    const isNamed = (address: Uint8Array) => options.isNamed(address, from.tellers)
    let addresses = kept(sender.addresses, isNamed)
    if (addresses.length === 0) addresses = kept(options.addressesOf(from.bytes), isNamed)
    if (addresses.length === 0 && from.dialledAt !== undefined) addresses = kept([from.dialledAt], isNamed)
    // An address may be known by the time somebody asks.
    const body = addresses.length === 0 ? undefined : encodePeer(from.bytes, addresses)
    providers.put(key, from.bytes, body, Elapsed.millisUnsafe(clock), {
      ttlSeconds: message.ttlSeconds,
      subnet: from.subnet
    })
    return undefined
  }

  const getValue = (message: Message, from: Sender): Uint8Array => {
    const key = given(message.key)
    const record = values.get(key, Elapsed.millisUnsafe(clock))
    const left = portableBytesMax - frameOverhead - key.length - (record?.length ?? 0)
    return encodeFrame({ type: MessageType.GET_VALUE, key, record, closer: closerTo(positionOf(key), from, left) })
  }

  const putValue = ({ key: sent, record }: Message, from: Sender): Effect.Effect<AnswerFrame, Refusal> => {
    const key = given(sent)
    if (record === undefined) throw new Refusal({ detail: "no value to store" })
    // A node that has stored a value sends it back.
    return Effect.suspend(() => values.put(key, record, Elapsed.millisUnsafe(clock), from)).pipe(
      Effect.mapError(({ detail }) => new Refusal({ detail })),
      Effect.map(() => encodeFrame({ type: MessageType.PUT_VALUE, key, record }))
    )
  }

  return {
    answer: (message, from) => {
      switch (message.type) {
        case MessageType.FIND_NODE:
          return findNode(message, from)
        case MessageType.GET_PROVIDERS:
          return getProviders(message, from)
        case MessageType.ADD_PROVIDER:
          return addProvider(message, from)
        case MessageType.GET_VALUE:
          return getValue(message, from)
        case MessageType.PUT_VALUE:
          return putValue(message, from)
        case MessageType.PING:
          return ping
        default:
          throw new Refusal({ detail: `a message of type ${message.type}` })
      }
    }
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Of 200,000 keys each is looked at once in ten minutes; a step takes less than a millisecond. */
const keysPerSweep = 4000
/** The lengths and tags around the key, the record and the peers of a message, and its type. */
const frameOverhead = 16
/** How many bytes the addresses of a provider may have: with the id less than a record may have. */
const addressesBytesMax = 900

const ping = encodeFrame({ type: MessageType.PING })

function given(key: Uint8Array | undefined): Uint8Array {
  if (key === undefined || key.length === 0) throw new Refusal({ detail: "a message without a key" })
  return key
}

function contentKey(key: Uint8Array | undefined): Uint8Array {
  if (key !== undefined && key.length >= 1 && key.length <= keyBytesMax) return key
  throw new Refusal({ detail: `a key has 1 to ${keyBytesMax} bytes, this one has ${key?.length ?? 0}` })
}

/** The first addresses that may be named, as many as are kept. */
function kept(addresses: ReadonlyArray<Uint8Array>, isNamed: (address: Uint8Array) => boolean): Array<Uint8Array> {
  const found: Array<Uint8Array> = []
  let left = addressesBytesMax
  for (const address of addresses) {
    if (found.length === keptAddressesMax) break
    if (address.length > left || !isNamed(address)) continue
    left -= address.length + 2
    found.push(address)
  }
  return found
}
