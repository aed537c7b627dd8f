/**
 * Streams that do not wait for the remote to agree to their protocol: a round trip less for each.
 */
import type { Stream } from "@libp2p/interface"
import { UnsupportedProtocolError } from "@libp2p/interface"
import { eachMuxer } from "./Muxer.ts"

/**
 * A muxer whose streams of some protocols are open at once. What goes over the wire is what libp2p sends, only sooner: the proposal leaves
 * with the first frame, and the remote's agreement is taken off what it sends.
 *
 * That a remote lacks the protocol shows when the stream is read: it is aborted with `UnsupportedProtocolError`. So this is for protocols
 * that nearly every remote has which is asked, and whose opener reads.
 */
export const eagerMuxer = (protocols: ReadonlyArray<string>) => {
  const proposals = new Map(
    protocols.map((protocol) => [protocol, Buffer.concat([line("/multistream/1.0.0"), line(protocol)])])
  )
  return eachMuxer((muxer) => {
    const createStream = muxer.createStream.bind(muxer)
    muxer.createStream = async (options) => {
      const stream = await createStream(options)
      const lines = proposals.get(options?.protocol ?? "")
      if (lines !== undefined) propose(stream as Receiving, options!.protocol!, lines)
      return stream
    }
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Where libp2p's streams get what has come; not of the stream interface. */
interface Receiving extends Stream {
  onData: (data: Uint8Array | { readonly subarray: () => Uint8Array }) => void
}

// [uvarint length][text][newline], the length below 16384.
function line(text: string): Uint8Array {
  const body = Buffer.from(`${text}\n`)
  const { length } = body
  return Buffer.concat([Uint8Array.from(length < 0x80 ? [length] : [length % 0x80 + 0x80, length >> 7]), body])
}

/** The remote agrees by sending the same two lines. */
function propose(stream: Receiving, protocol: string, lines: Buffer): void {
  const onData = stream.onData.bind(stream)
  let got = Buffer.alloc(0)
  stream.onData = (data) => {
    got = Buffer.concat([got, data.subarray()])
    const answer = got.subarray(0, lines.byteLength)
    if (!answer.equals(lines.subarray(0, answer.byteLength))) {
      return stream.abort(new UnsupportedProtocolError(`the remote does not speak ${protocol}`))
    }
    if (answer.byteLength < lines.byteLength) return
    stream.onData = onData
    onData(got.subarray(lines.byteLength))
  }
  // What keeps libp2p from negotiating.
  stream.protocol = protocol
  stream.send(lines)
}
