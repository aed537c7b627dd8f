/**
 * The record in which Kademlia carries a value (libp2p specs kad-dht):
 *
 *     Record    key = 1, value = 2, timeReceived = 5 (text, RFC 3339)
 *
 * `timeReceived` is written, since Go and JavaScript expect it, and never read: another node's clock says nothing about
 * the age of a value here.
 */
import { DateTime } from "effect"
import { Cursor, fieldBytes, MessageError, putBytes } from "./Protobuf.ts"

export interface Record {
  readonly key: Uint8Array
  readonly value: Uint8Array
}

/** The bytes of a record that was received at a time, in milliseconds since the epoch. */
export const encodeRecord = ({ key, value }: Record, time: number): Uint8Array => {
  // [yyyy-mm-ddThh:mm:ss.][nnnnnnnnn]Z, in nanoseconds as Go writes it.
  const received = new TextEncoder().encode(DateTime.formatIso(DateTime.makeUnsafe(time)).replace("Z", "000000Z"))
  const fields = ([[tags.key, key], [tags.value, value], [tags.timeReceived, received]] as const)
    .filter(([, { length }]) => length > 0)
  const bytes = new Uint8Array(fields.reduce((sum, [, field]) => sum + fieldBytes(field), 0))
  fields.reduce((at, [tag, field]) => putBytes(bytes, at, tag, field), 0)
  return bytes
}

/** Reads a record, whose key and value are views of the bytes; undefined when the bytes are none. */
export const decodeRecord = (bytes: Uint8Array): Record | undefined => {
  try {
    const cursor = new Cursor(bytes)
    let [key, value] = [nothing, nothing]
    while (cursor.at < cursor.end) {
      const tag = cursor.uint()
      if (tag === tags.key) key = cursor.bytes()
      else if (tag === tags.value) value = cursor.bytes()
      else cursor.skip(tag)
    }
    return { key, value }
  } catch (error) {
    if (error instanceof MessageError) return undefined
    throw error
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const tags = { key: 1 << 3 | 2, value: 2 << 3 | 2, timeReceived: 5 << 3 | 2 } as const

const nothing: Uint8Array = new Uint8Array(0)
