/**
 * Streams that do not wait for the remote to agree to their protocol, which saves each of them a round trip.
 */
import { UnsupportedProtocolError } from "@libp2p/interface"
import type { Change, YamuxStream } from "./Yamux.ts"

/**
 * Opens streams of the given protocols at once. The bytes on the wire are libp2p's own, only sooner: the proposal
 * leaves with the first frame, and the remote's agreement is cut off from what it sends.
 *
 * A remote that lacks the protocol is noticed when the stream is read: it is aborted with `UnsupportedProtocolError`.
 * So this is for protocols that nearly every remote speaks, and whose opener reads.
 */
export const eager = (protocols: ReadonlyArray<string>): Change => {
  const proposals = new Map(
    protocols.map((protocol) => [protocol, Buffer.concat([line("/multistream/1.0.0"), line(protocol)])])
  )
  return (muxer) => {
    const createStream = muxer.createStream.bind(muxer)
    muxer.createStream = async (options) => {
      const stream = await createStream(options)
      const lines = proposals.get(options?.protocol ?? "")
      if (lines !== undefined) propose(stream as YamuxStream, options!.protocol!, lines)
      return stream
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// [uvarint length][text][newline], the length below 16384.
function line(text: string): Uint8Array {
  const body = Buffer.from(`${text}\n`)
  const { length } = body
  return Buffer.concat([Uint8Array.from(length < 0x80 ? [length] : [length % 0x80 + 0x80, length >> 7]), body])
}

/** The remote agrees by sending the same two lines. */
function propose(stream: YamuxStream, protocol: string, lines: Buffer): void {
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
  // libp2p negotiates only for a stream without a protocol.
  stream.protocol = protocol
  stream.send(lines)
}
