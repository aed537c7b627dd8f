/**
 * How many bytes a remote has sent, or has read of what was sent to it, as its muxer says: of the second yamux tells by opening the window again.
 */
import type { Connection, StreamMuxer } from "@libp2p/interface"
import { eachMuxer } from "./Muxer.ts"

/**
 * Muxers for whose connections {@link progressOf} counts.
 */
export const countingMuxer = eachMuxer<YamuxMuxer>((muxer) => {
  // Yamux's own method, not of the muxer interface, and private.
  const handle = muxer.handleStreamMessage?.bind(muxer)
  if (handle === undefined) return
  counts.set(muxer, 0)
  muxer.handleStreamMessage = (frame) => {
    const { flag, length, type } = frame.header
    // The update that opens a stream gives room of which nothing has been used.
    if (type === data || (flag & opening) === 0) counts.set(muxer, counts.get(muxer)! + length)
    handle(frame)
  }
})

/**
 * Bytes of streams that the remote has sent or has made room for again. 0 for a connection with another muxer.
 */
export const progressOf = (connection: Connection): number => {
  // The muxer of a connection is private.
  const { muxer } = connection as { readonly muxer?: StreamMuxer }
  return muxer === undefined ? 0 : counts.get(muxer) ?? 0
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface YamuxMuxer {
  handleStreamMessage?: (frame: {
    readonly header: { readonly type: number; readonly flag: number; readonly length: number }
  }) => void
}

// Of yamux's frames: a type, and the flags SYN and ACK.
const data = 0
const opening = 3

const counts = new WeakMap<StreamMuxer, number>()
