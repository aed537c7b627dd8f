/**
 * Positions in the keyspace of Kademlia, which peers and keys share: the sha2-256 of a peer's id or of a key. The
 * distance of two positions is the XOR of their bytes, read as one number of 256 bits.
 */
import { hash } from "node:crypto"

/**
 * A position in the keyspace.
 */
export interface Position {
  /** The first 32 bits, unsigned. They and the next 32 decide nearly every comparison without a look at the bytes. */
  readonly h0: number
  /** The next 32 bits, unsigned. */
  readonly h1: number
  /** All 32 bytes. Not to be changed. */
  readonly bytes: Uint8Array
}

/** How many bits a position has. */
export const positionBits = 256

/**
 * The position of a key, or of a peer by the multihash of its id: the sha2-256 of the bytes.
 */
export const positionOf = (bytes: Uint8Array): Position => ofDigest(hash("sha256", bytes, "buffer"))

/**
 * The position whose 32 bytes are given; they are kept and not copied. Throws a `RangeError` for another length.
 */
export const ofDigest = (bytes: Uint8Array): Position => {
  if (bytes.length !== positionBits / 8) throw new RangeError(`a position has 32 bytes, this one has ${bytes.length}`)
  return { h0: prefixAt(bytes, 0), h1: prefixAt(bytes, 4), bytes }
}

/**
 * Whether `a` is nearer to the target than `b` is. False when they are the same.
 */
export const closer = (a: Position, b: Position, target: Position): boolean => compareDistance(a, b, target) < 0

/**
 * Below zero when `a` is nearer to the target than `b`, above zero when it is farther, zero when they are the same. For
 * `sort`.
 */
export const compareDistance = (a: Position, b: Position, target: Position): number => {
  const first = ((a.h0 ^ target.h0) >>> 0) - ((b.h0 ^ target.h0) >>> 0)
  if (first !== 0) return first
  const second = ((a.h1 ^ target.h1) >>> 0) - ((b.h1 ^ target.h1) >>> 0)
  if (second !== 0) return second
  for (let index = 8; index < a.bytes.length; index++) {
    const wanted = target.bytes[index]!
    const rest = (a.bytes[index]! ^ wanted) - (b.bytes[index]! ^ wanted)
    if (rest !== 0) return rest
  }
  return 0
}

/**
 * The distance of two positions as a share of the keyspace: 0 for the same position, at most just under 1. Rounded; to
 * sort by distance, use `compareDistance`.
 */
export const distanceOf = (a: Position, b: Position): number =>
  ((a.h0 ^ b.h0) >>> 0) / 2 ** 32 + ((a.h1 ^ b.h1) >>> 0) / 2 ** 64

/**
 * How many leading bits two positions share: 0 to 256. It is the number of the bucket that holds the one in the table
 * of the other.
 */
export const commonPrefixLength = (a: Position, b: Position): number => {
  if (a.h0 !== b.h0) return Math.clz32(a.h0 ^ b.h0)
  if (a.h1 !== b.h1) return 32 + Math.clz32(a.h1 ^ b.h1)
  for (let index = 8; index < a.bytes.length; index++) {
    const difference = a.bytes[index]! ^ b.bytes[index]!
    if (difference !== 0) return index * 8 + Math.clz32(difference) - 24
  }
  return positionBits
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function prefixAt(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>> 0
}
