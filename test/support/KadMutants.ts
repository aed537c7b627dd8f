/** Frames of Kademlia, mutated: changed, cut, too long or out of order. */
import * as Message from "../../src/layers/dht/wire/Message.ts"
import { MessageError } from "../../src/layers/dht/wire/Protobuf.ts"

const { decodeMessage, encodeFrame, encodePeer, FrameReader, MessageType } = Message

/**
 * Mutants of messages of all types, without end; the same for the same seed.
 */
function* mutants(seed: number): Generator<Uint8Array, never> {
  const random = mulberry(seed)
  const below = (limit: number) => Math.floor(random() * limit)
  const bytes = (length: number) => Uint8Array.from({ length }, () => below(256))
  const peers = (count: number) =>
    Array.from({ length: count }, () => encodePeer(bytes(38), Array.from({ length: below(4) }, () => bytes(8))))
  const samples = Object.values(MessageType).flatMap((type) => [
    encodeFrame({ type, key: bytes(34), closer: peers(4), providers: peers(2), ttlSeconds: 3600 }),
    encodeFrame({ type, key: bytes(14), record: bytes(60) })
  ])
  // Bytes that matter: the ends of the ranges of numbers, and the tags of a message.
  const interesting = [0, 1, 0x7f, 0x80, 0xff, 0x08, 0x12, 0x1a, 0x42, 0x4a]
  const mutations: ReadonlyArray<(frame: Uint8Array) => Uint8Array> = [
    (frame) => frame.with(below(frame.length), below(256)),
    (frame) => frame.with(below(frame.length), interesting[below(interesting.length)]!),
    (frame) => frame.subarray(0, below(frame.length)),
    (frame) => frame.subarray(below(frame.length)),
    (frame) => Buffer.concat([frame.subarray(0, below(frame.length)), bytes(1 + below(12)), frame]),
    // Swaps the halves.
    (frame) => {
      const at = below(frame.length)
      return Buffer.concat([frame.subarray(at), frame.subarray(0, at)])
    },
    // A wrong body in a right frame.
    (frame) => {
      const body = frame.subarray(frame.length < 0x80 ? 1 : 2)
      const changed = body.with(below(body.length), below(256)).subarray(below(4))
      return Buffer.concat([Uint8Array.of(changed.length % 0x80 + 0x80, changed.length >> 7), changed])
    },
    (frame) => Buffer.concat([frame.subarray(0, below(4)), Uint8Array.of(0xff, 0xff, 0xff, below(256)), frame])
  ]
  for (;;) yield mutations[below(mutations.length)]!(samples[below(samples.length)]!)
}

/**
 * Reads so many mutants, each in two chunks, and counts the outcomes. Throws unless each gives a message within the
 * limits, a `MessageError` or an unfinished frame. `CODIO_FUZZ_SEED` chooses others.
 */
export const readMutants = (count: number) => {
  const seed = Number(process.env["CODIO_FUZZ_SEED"] ?? 6)
  const frames = mutants(seed)
  const outcomes = { messages: 0, refused: 0, unfinished: 0 }
  for (let i = 0; i < count; i++) {
    const frame = frames.next().value
    const at = frame[frame.length >> 1]! % (frame.length + 1) || 0
    let messages = 0
    try {
      const reader = new FrameReader()
      for (const chunk of [frame.subarray(0, at), frame.subarray(at)]) {
        reader.push(chunk, (message) => {
          messages++
          if (!isWithin(decodeMessage(message))) throw new Error("beyond the limits")
        })
      }
      if (messages === 0) outcomes.unfinished++
      else outcomes.messages++
    } catch (error) {
      if (!(error instanceof MessageError)) {
        throw new Error(`seed ${seed}: ${Buffer.from(frame).toString("hex")}`, { cause: error })
      }
      outcomes.refused++
    }
  }
  return outcomes
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Without assertions, which cost more than the codec.
function isWithin({ closer, key, providers }: Message.Message): boolean {
  return closer.length <= Message.closerMax && providers.length <= Message.providersMax &&
    (key?.length ?? 0) <= Message.messageKeyBytesMax &&
    [...closer, ...providers].every(({ addresses, encoded, id }) =>
      id.length >= 1 && id.length <= Message.idBytesMax && addresses.length <= Message.addressesMax &&
      encoded.length === encodePeer(id, addresses).length
    )
}

/** A generator of numbers from 0 to 1, the same for the same seed. */
export function mulberry(seed: number): () => number {
  let state = seed
  return () => {
    state = state + 0x6d2b79f5 | 0
    let t = Math.imul(state ^ state >>> 15, 1 | state)
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32
  }
}
