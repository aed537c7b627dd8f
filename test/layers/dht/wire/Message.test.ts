import { assert, describe, it, vi } from "@effect/vitest"
import { Schema } from "effect"
import { createRequire } from "node:module"
import { pathToFileURL } from "node:url"
import {
  addressBytesMax,
  addressesMax,
  answerBytesMax,
  closerMax,
  decodeMessage,
  encodeFrame,
  encodePeer,
  FrameReader,
  idBytesMax,
  type MessagePeer,
  messageKeyBytesMax,
  MessageType,
  providersMax
} from "../../../../src/layers/dht/wire/Message.ts"
import { MessageError } from "../../../../src/layers/dht/wire/Protobuf.ts"
import { readMutants } from "../../../support/KadMutants.ts"

interface TheirPeer {
  readonly id: Uint8Array
  readonly multiaddrs: ReadonlyArray<Uint8Array>
}

interface TheirMessage {
  readonly type: string
  readonly key?: Uint8Array
  readonly record?: Uint8Array
  readonly closer: ReadonlyArray<TheirPeer>
  readonly providers: ReadonlyArray<TheirPeer>
}

/** The generated code of kad-dht, which the package does not export. */
const { Message }: {
  readonly Message: { encode: (message: TheirMessage) => Uint8Array; decode: (bytes: Uint8Array) => TheirMessage }
} = await import(
  new URL("./message/dht.js", pathToFileURL(createRequire(import.meta.url).resolve("@libp2p/kad-dht"))).href
)

const typeNames = ["PUT_VALUE", "GET_VALUE", "ADD_PROVIDER", "GET_PROVIDERS", "FIND_NODE", "PING"]

const Bytes = Schema.Uint8Array
const Type = Schema.Literals([0, 1, 2, 3, 4, 5])
const Peer = Schema.Struct({ id: Bytes, addresses: Schema.Array(Bytes) })

const Fields = Schema.Struct({
  type: Type,
  key: Schema.UndefinedOr(Bytes),
  record: Schema.UndefinedOr(Bytes),
  closer: Schema.Array(Peer),
  providers: Schema.Array(Peer)
})

/** One field of a message, or of a peer within one. */
const Unknown = Schema.Union([
  Schema.Struct({ field: Schema.Literals(["clusterLevel", "varint"]), value: Schema.Int }),
  Schema.Struct({ field: Schema.Literals(["fixed32", "fixed64", "bytes"]), value: Bytes })
])
const PeerPart = Schema.Union([
  Schema.Struct({ field: Schema.Literals(["id", "address"]), value: Bytes }),
  Schema.Struct({ field: Schema.Literal("connection"), value: Schema.Literals([0, 1, 2, 3]) }),
  Unknown
])
const Part = Schema.Union([
  Schema.Struct({ field: Schema.Literal("type"), value: Type }),
  Schema.Struct({ field: Schema.Literals(["key", "record"]), value: Bytes }),
  Schema.Struct({ field: Schema.Literals(["closer", "providers"]), value: Schema.Array(PeerPart) }),
  Unknown
])

describe("a message of Kademlia", () => {
  it.prop("is written as kad-dht writes it", { fields: Fields }, ({ fields }) => {
    const { closer, key, providers, record, type } = fields
    const theirs = Message.encode({
      type: typeNames[type]!,
      ...(key === undefined ? {} : { key }),
      ...(record === undefined ? {} : { record }),
      closer: closer.map(({ addresses, id }) => ({ id, multiaddrs: addresses })),
      providers: providers.map(({ addresses, id }) => ({ id, multiaddrs: addresses }))
    })
    const ours = encodeFrame({
      type,
      key,
      record,
      closer: closer.map(encoded),
      providers: providers.map(encoded)
    })
    assert.deepStrictEqual(hex(ours), hex(lengthPrefixed(theirs)))
  })

  it.prop("is read as kad-dht reads it, whatever the order of its fields and with others between", {
    parts: Schema.Array(Part)
  }, ({ parts }) => {
    const bytes = Buffer.concat(parts.map(partBytes))
    const theirs = Message.decode(bytes)
    const ours = decodeMessage(bytes)
    const known = ({ id, multiaddrs }: TheirPeer) => ({ id: hex(id), addresses: multiaddrs.map(hex) })
    assert.deepStrictEqual({
      type: typeNames[ours.type],
      key: ours.key === undefined ? undefined : hex(ours.key),
      record: ours.record === undefined ? undefined : hex(ours.record),
      closer: ours.closer.map(shown),
      providers: ours.providers.map(shown)
    }, {
      type: theirs.type,
      key: theirs.key === undefined ? undefined : hex(theirs.key),
      record: theirs.record === undefined ? undefined : hex(theirs.record),
      closer: theirs.closer.filter(({ id }) => id.length > 0).map(known),
      providers: theirs.providers.filter(({ id }) => id.length > 0).map(known)
    })
    // What else a peer came with is not passed on.
    for (const peer of [...ours.closer, ...ours.providers]) {
      assert.strictEqual(peer.encoded.length, encodePeer(peer.id, peer.addresses).length)
      const again = decodeMessage(body({ type: MessageType.FIND_NODE, closer: [peer.encoded] })).closer[0]!
      assert.deepStrictEqual(shown(again), shown(peer))
    }
  })

  it.prop("is read as it was written", { fields: Fields, ttlSeconds: Schema.Int }, ({ fields, ttlSeconds }) => {
    const seconds = Math.abs(ttlSeconds)
    const { closer, key, providers, record, type } = fields
    const read = decodeMessage(body({
      type,
      key,
      record,
      closer: closer.map(encoded),
      providers: providers.map(encoded),
      ttlSeconds: seconds
    }))
    assert.strictEqual(read.type, type)
    assert.strictEqual(read.ttlSeconds, seconds)
    assert.deepStrictEqual(read.key && hex(read.key), key && hex(key))
    assert.deepStrictEqual(read.record && hex(read.record), record && hex(record))
    assert.deepStrictEqual(read.closer.map(shown), closer.filter(({ id }) => id.length > 0).map(shown))
    assert.deepStrictEqual(read.providers.map(shown), providers.filter(({ id }) => id.length > 0).map(shown))
  })

  it("is of type PUT_VALUE when it says none, and leaves out what it does not have", () => {
    const read = decodeMessage(new Uint8Array(0))
    assert.deepStrictEqual(read, { type: MessageType.PUT_VALUE, closer: [], providers: [] })
    assert.isFalse("key" in read)
  })

  it("with a ttl is one that others read without", () => {
    const bytes = body({ type: MessageType.ADD_PROVIDER, key: Uint8Array.of(1), ttlSeconds: 90 })
    assert.strictEqual(decodeMessage(bytes).ttlSeconds, 90)
    const theirs = Message.decode(bytes)
    assert.deepStrictEqual([theirs.type, hex(theirs.key!)], ["ADD_PROVIDER", "01"])
  })

  it("has numbers up to 2^53 - 1 in at most 10 bytes", () => {
    const most = body({ type: MessageType.ADD_PROVIDER, ttlSeconds: Number.MAX_SAFE_INTEGER })
    assert.strictEqual(decodeMessage(most).ttlSeconds, Number.MAX_SAFE_INTEGER)
    const ttl = [0xc8, 0x30]
    refuses(Uint8Array.of(...ttl, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10), "2^53")
    refuses(Uint8Array.of(...ttl, ...Array.from({ length: 9 }, () => 0xff), 0x01), "2^53")
    refuses(Uint8Array.of(...ttl, ...Array.from({ length: 10 }, () => 0x80), 0x00), "10 bytes")
    // A padded one is the same number.
    assert.strictEqual(
      decodeMessage(Uint8Array.of(...ttl, 0x81, ...Array.from({ length: 8 }, () => 0x80), 0)).ttlSeconds,
      1
    )
    // Of a field that is skipped only the length counts.
    const negative = Uint8Array.of(0x50, ...Array.from({ length: 9 }, () => 0xff), 0x01)
    assert.strictEqual(decodeMessage(negative).type, 0)
    refuses(Uint8Array.of(0x50, ...Array.from({ length: 10 }, () => 0xff), 0x01), "10 bytes")
  })

  it("is refused when it is cut, or its fields are none", () => {
    const whole = body({
      type: MessageType.GET_PROVIDERS,
      key: Uint8Array.of(1, 2, 3),
      closer: [encodePeer(Uint8Array.of(1), [Uint8Array.of(2)])]
    })
    const cuts = new Set<string>()
    for (let length = 1; length < whole.length; length++) {
      try {
        cuts.add(JSON.stringify(decodeMessage(whole.subarray(0, length))))
      } catch (error) {
        assert.instanceOf(error, MessageError)
      }
    }
    // After the type, and after the key: what follows is optional.
    assert.strictEqual(cuts.size, 2)
    refuses(Uint8Array.of(0x03), "number 0")
    refuses(Uint8Array.of(0x5b), "wire type 3")
    refuses(Uint8Array.of(0x5f), "wire type 7")
    refuses(Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x10), "a field of number")
    // A peer that ends beyond its own bytes is none, though the message has them.
    refuses(Uint8Array.of(0x42, 2, 0x0a, 4, 1, 2, 3, 4), "4 bytes")
  })

  it("keeps the first of too many peers and addresses, and none that are too long", () => {
    const id = (length: number) => new Uint8Array(length).fill(7)
    const peers = (count: number) => Array.from({ length: count }, (_, i) => encodePeer(Uint8Array.of(i >> 8, i), []))
    const read = decodeMessage(body({
      type: MessageType.GET_PROVIDERS,
      closer: peers(closerMax + 1),
      providers: peers(providersMax + 1)
    }))
    assert.deepStrictEqual([read.closer.length, read.providers.length], [closerMax, providersMax])
    assert.deepStrictEqual(read.closer.map(shown), read.providers.slice(0, closerMax).map(shown))

    const [most, ...none] = decodeMessage(body({
      type: MessageType.FIND_NODE,
      closer: [
        encodePeer(id(idBytesMax), Array.from({ length: addressesMax + 1 }, (_, i) => Uint8Array.of(i))),
        encodePeer(id(idBytesMax + 1), [])
      ]
    })).closer
    assert.lengthOf(none, 0)
    assert.deepStrictEqual(most!.addresses.map(hex), Array.from({ length: addressesMax }, (_, i) => hex([i])))
    assert.deepStrictEqual(hex(most!.encoded), hex(encodePeer(most!.id, most!.addresses)))

    const [peer] = decodeMessage(body({
      type: MessageType.FIND_NODE,
      closer: [encodePeer(id(1), [id(addressBytesMax + 1), id(addressBytesMax), id(0)])]
    })).closer
    assert.deepStrictEqual(peer!.addresses.map((address) => address.length), [addressBytesMax, 0])
  })

  it("is refused with a key that is too long", () => {
    const key = (length: number) => body({ type: MessageType.GET_VALUE, key: new Uint8Array(length) })
    assert.lengthOf(decodeMessage(key(messageKeyBytesMax)).key!, messageKeyBytesMax)
    refuses(key(messageKeyBytesMax + 1), "a key of")
  })
})

describe("a reader of frames", () => {
  it.prop("finds the messages wherever the chunks are cut", {
    bodies: Schema.Array(Schema.Uint8Array),
    cuts: Schema.Array(Schema.Int)
  }, ({ bodies, cuts }) => {
    const long = new Uint8Array(300).fill(1)
    const expected = [...bodies, long, ...bodies]
    const stream = Buffer.concat(expected.map(lengthPrefixed))
    const ends = [0, ...cuts.map((cut) => Math.abs(cut) % (stream.length + 1)).sort((a, b) => a - b), stream.length]
    const chunks = ends.slice(1).map((end, i) => stream.subarray(ends[i], end))
    for (const cut of [chunks, [...stream].map((byte) => Uint8Array.of(byte))]) {
      assert.deepStrictEqual(read(new FrameReader(), cut).map(hex), expected.map(hex))
    }
  })

  it("stops after a message whose reader wants no more, and goes on where it was", () => {
    const bodies = [1, 2, 300, 0, 4].map((length) => new Uint8Array(length).fill(length))
    const stream = Buffer.concat(bodies.map(lengthPrefixed))
    for (const size of [1, 7, 200, stream.length]) {
      const reader = new FrameReader()
      const messages: Array<Uint8Array> = []
      for (let at = 0; at < stream.length; at += size) {
        for (let rest = stream.subarray(at, at + size); rest.length > 0;) {
          const before = messages.length
          rest = rest.subarray(reader.push(rest, (message) => {
            messages.push(message)
            return false
          }))
          assert.isAtMost(messages.length, before + 1)
        }
      }
      assert.deepStrictEqual(messages.map(hex), bodies.map(hex))
    }
  })

  it("reads a message of the limit, and refuses a longer one before it has come", () => {
    assert.deepStrictEqual(read(new FrameReader(300), [lengthPrefixed(new Uint8Array(300))]).map((m) => m.length), [
      300
    ])
    const reader = new FrameReader(300)
    assert.throws(() => read(reader, [Uint8Array.of(0xad, 0x02)]), MessageError)
    // It is not to be trusted any more.
    assert.throws(() => read(reader, [Uint8Array.of(1, 1)]), MessageError)
    const endless = new FrameReader()
    assert.throws(() => read(endless, Array.from({ length: 10 }, () => Uint8Array.of(0x80))), MessageError)
    assert.throws(() => read(new FrameReader(), [Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)]), MessageError)
  })

  it("takes no memory for a length that is only announced", () => {
    const start = Uint8Array.of(...varint(BigInt(answerBytesMax)), 0x08)
    const before = process.memoryUsage().arrayBuffers
    const readers = Array.from({ length: 1000 }, () => new FrameReader())
    for (const reader of readers) read(reader, [start])
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 10 * answerBytesMax)
    assert.lengthOf(readers, 1000)
  })

  it("copies what comes in small pieces a few times at most", () => {
    const size = 32 * 1024
    const stream = lengthPrefixed(new Uint8Array(size).fill(1))
    const sets = vi.spyOn(Uint8Array.prototype, "set")
    try {
      const reader = new FrameReader()
      const lengths: Array<number> = []
      for (let at = 0; at < stream.length; at++) {
        reader.push(stream.subarray(at, at + 1), (message) => lengths.push(message.length))
      }
      assert.deepStrictEqual(lengths, [size])
      assert.isAtMost(sets.mock.calls.reduce((sum, [bytes]) => sum + bytes.length, 0), 3 * size)
    } finally {
      sets.mockRestore()
    }
  })
})

describe("frames that are mutated, cut, too long or out of order", () => {
  it("end as a message within the limits or with a MessageError", () => {
    // test/dht has a hundred thousand.
    const outcomes = readMutants(5000)
    // The mutations reach each of the ends.
    for (const count of Object.values(outcomes)) assert.isAbove(count, 250, JSON.stringify(outcomes))
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function partBytes(part: typeof Part.Type | typeof PeerPart.Type): Uint8Array {
  switch (part.field) {
    case "type":
      return Uint8Array.of(0x08, part.value)
    case "key":
      return field(2, part.value)
    case "record":
      return field(3, part.value)
    case "closer":
      return field(8, Buffer.concat(part.value.map(partBytes)))
    case "providers":
      return field(9, Buffer.concat(part.value.map(partBytes)))
    case "id":
      return field(1, part.value)
    case "address":
      return field(2, part.value)
    case "connection":
      return Uint8Array.of(0x18, part.value)
    case "clusterLevel":
      return Buffer.concat([Uint8Array.of(0x50), varint(BigInt.asUintN(64, BigInt(part.value)))])
    case "varint":
      return Buffer.concat([varint(300n << 3n), varint(BigInt.asUintN(64, BigInt(part.value)))])
    case "fixed32":
      return Buffer.concat([varint(301n << 3n | 5n), sized(part.value, 4)])
    case "fixed64":
      return Buffer.concat([varint(302n << 3n | 1n), sized(part.value, 8)])
    case "bytes":
      return field(303, part.value)
  }
}

function field(number: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([varint(BigInt(number) << 3n | 2n), varint(BigInt(value.length)), value])
}

function varint(value: bigint): Uint8Array {
  const bytes: Array<number> = []
  for (let rest = value;; rest >>= 7n) {
    if (rest < 0x80n) return Uint8Array.from([...bytes, Number(rest)])
    bytes.push(Number(rest & 0x7fn) | 0x80)
  }
}

function sized(bytes: Uint8Array, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => bytes[i] ?? 0)
}

function lengthPrefixed(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([varint(BigInt(bytes.length)), bytes])
}

function body(fields: Parameters<typeof encodeFrame>[0]): Uint8Array {
  return read(new FrameReader(Number.POSITIVE_INFINITY), [encodeFrame(fields)])[0]!
}

function encoded({ addresses, id }: typeof Peer.Type): Uint8Array {
  return encodePeer(id, addresses)
}

function read(reader: FrameReader, chunks: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> {
  const messages: Array<Uint8Array> = []
  for (const chunk of chunks) reader.push(chunk, (message) => messages.push(message))
  return messages
}

function hex(bytes: Iterable<number>): string {
  return Buffer.from([...bytes]).toString("hex")
}

function shown({ addresses, id }: Pick<MessagePeer, "id" | "addresses">) {
  return { id: hex(id), addresses: addresses.map(hex) }
}

function refuses(bytes: Uint8Array, detail: string): void {
  let thrown: unknown
  try {
    decodeMessage(bytes)
  } catch (error) {
    thrown = error
  }
  if (!(thrown instanceof MessageError)) throw new Error(`${hex(bytes)} is not refused`, { cause: thrown })
  assert.include(thrown.message, detail)
}
