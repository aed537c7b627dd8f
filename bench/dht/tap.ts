/**
 * Counts the messages that this process sends on the streams of Kademlia that it opens, in the stream class of libp2p,
 * which our library and plain js-libp2p share.
 */
import type { Stream } from "@libp2p/interface"
import { AbstractMessageStream } from "@libp2p/utils"
import { kadProtocol, type Sent } from "./BenchNode.ts"

interface Bytes {
  readonly byteLength: number
  readonly subarray: () => Uint8Array
}

const sent = { messages: 0, announcements: 0, writes: 0 }

/** The counts so far. */
export const soFar = (): Sent => ({ ...sent })

export const since = (before: Sent): Sent => ({
  messages: sent.messages - before.messages,
  announcements: sent.announcements - before.announcements,
  writes: sent.writes - before.writes
})

/** Begins to count. */
export const install = (): void => {
  const send = AbstractMessageStream.prototype.send as (this: Stream, data: Bytes) => boolean
  const counting = function(this: Stream, data: Bytes): boolean {
    if (this.direction === "outbound" && this.protocol === kadProtocol) count(data.subarray())
    return send.call(this, data)
  }
  AbstractMessageStream.prototype.send = counting as typeof AbstractMessageStream.prototype.send
}

// internal ------------------------------------------------------------------------------------------------------------

/** [uvarint length][message], repeated. A write always ends with a whole message. */
function count(bytes: Uint8Array): void {
  let messages = 0
  for (let at = 0; at < bytes.length;) {
    let length = 0
    for (let shift = 0;; shift += 7) {
      const byte = bytes[at++]!
      length |= (byte & 0x7f) << shift
      if (byte < 0x80) break
    }
    // A line of multistream-select, which proposes the protocol, begins with a slash; a message begins with field 1,
    // its type.
    if (bytes[at] !== 0x2f) {
      messages++
      if (bytes[at] === 0x08 && bytes[at + 1] === 2) sent.announcements++
    }
    at += length
  }
  sent.messages += messages
  if (messages > 0) sent.writes++
}
