/**
 * Protocol buffers of version 3, as far as Kademlia needs them: varints, and fields of bytes.
 *
 * A field is `[tag][value]`. The tag is a varint of the field's number and 3 bits for the type of the value. Type 0, a
 * varint, and type 2, `[uvarint length][bytes]`, are read and written; others are skipped.
 */
import { Data } from "effect"

/** Bytes that are no message, or one beyond its limits. */
export class MessageError extends Data.TaggedError("MessageError")<{ readonly detail: string }> {
  override get message(): string {
    return `not a message of Kademlia: ${this.detail}`
  }
}

export const malformed = (detail: string): MessageError => new MessageError({ detail })

/** The scale of the tenth byte of a varint, which is its last. */
export const lastScale = 2 ** 63

/** Reads fields one after the other. Throws a {@link MessageError} and nothing else. */
export class Cursor {
  at = 0
  readonly end: number
  private readonly source: Uint8Array

  constructor(source: Uint8Array) {
    this.source = source
    this.end = source.length
  }

  /** A varint of at most 10 bytes, below 2^53. */
  uint(): number {
    const { end, source } = this
    let value = 0
    for (let scale = 1; scale <= lastScale; scale *= 0x80) {
      if (this.at >= end) throw malformed("it ends in a number")
      const byte = source[this.at++]!
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) throw malformed("a number of 2^53 or more")
        return value
      }
    }
    throw malformed("a number of more than 10 bytes")
  }

  bytes(): Uint8Array {
    const length = this.uint()
    const from = this.at
    if (length > this.end - from) throw malformed(`it ends in a field of ${length} bytes`)
    this.at = from + length
    return this.source.subarray(from, this.at)
  }

  /** Passes over the value of a field that is not known, or not of the expected type. */
  skip(tag: number): void {
    const number = Math.floor(tag / 8)
    // Protocol buffers number their fields from 1 to 2^29 - 1.
    if (number === 0 || number >= 2 ** 29) throw malformed(`a field of number ${number}`)
    switch (tag % 8) {
      case 0:
        return this.skipVarint()
      case 1:
        return this.skipBytes(8)
      case 2:
        return this.skipBytes(this.uint())
      case 5:
        return this.skipBytes(4)
      default:
        // 3 and 4 are groups, which version 3 does not have.
        throw malformed(`a field of wire type ${tag % 8}`)
    }
  }

  // A negative number has 10 bytes.
  private skipVarint(): void {
    for (let count = 1; count <= 10; count++) {
      if (this.at >= this.end) throw malformed("it ends in a number")
      if (this.source[this.at++]! < 0x80) return
    }
    throw malformed("a number of more than 10 bytes")
  }

  private skipBytes(length: number): void {
    if (length > this.end - this.at) throw malformed(`it ends in a field of ${length} bytes`)
    this.at += length
  }
}

/** How many bytes a varint has. */
export function uintBytes(value: number): number {
  let count = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) count++
  return count
}

/** Writes a varint at an index; the index after it. */
export function putUint(bytes: Uint8Array, at: number, value: number): number {
  let rest = value
  let next = at
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes[next++] = rest % 0x80 + 0x80
  bytes[next++] = rest
  return next
}

/** How many bytes a field of bytes has, with its tag and its length. The tag is below 128. */
export function fieldBytes(value: Uint8Array): number {
  return 1 + uintBytes(value.length) + value.length
}

/** Writes a field of bytes at an index; the index after it. */
export function putBytes(bytes: Uint8Array, at: number, tag: number, value: Uint8Array): number {
  bytes[at] = tag
  const from = putUint(bytes, at + 1, value.length)
  bytes.set(value, from)
  return from + value.length
}
