/**
 * Reads one header of `/codio/1.0.0` from a stream, however it is cut into chunks.
 */
import { Duration, Effect, Option, type Result, Stream } from "effect"
import { type Decoded, headerBytesMax, headerLength, prefixBytesMax } from "../../schema/CodioMessage.ts"
import { MessageError, type StreamError } from "../../schema/NetworkError.ts"
import type { ByteStream } from "../../services/Transport.ts"

/** How long a header may take to arrive, from the first look at its stream. */
const headerTime = Duration.seconds(5)

/**
 * Reads until the header is complete and drops the bytes behind it, since no operation sends any. Fails when the header
 * does not decode, when the stream ends before the header does, and when it is not complete after {@link headerTime}.
 */
export const read = <A>(
  stream: Pick<ByteStream, "read">,
  decode: (bytes: Uint8Array) => Result.Result<Decoded<A> | undefined, MessageError>
): Effect.Effect<A, StreamError | MessageError> =>
  Effect.suspend(() => {
    const header = collecting()
    return stream.read.pipe(
      Stream.mapEffect((chunk) => {
        const bytes = header.add(chunk)
        return bytes === undefined ? Effect.undefined : Effect.fromResult(decode(bytes))
      }),
      Stream.filter((decoded) => decoded !== undefined),
      Stream.runHead,
      Effect.flatMap(Option.match({
        onNone: () =>
          Effect.fail(
            new MessageError({ reason: { _tag: "Malformed", detail: "the stream ended before the header did" } })
          ),
        onSome: (decoded) => Effect.succeed(decoded.header)
      }))
    )
  }).pipe(
    Effect.timeoutOrElse({
      duration: headerTime,
      orElse: () => Effect.fail(new MessageError({ reason: { _tag: "Late", after: headerTime } }))
    })
  )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Collects a header from its chunks. `add` gives what has come when there is something to decode: the length, which may
 * be wrong or over the limit, then the complete header.
 *
 * Each byte is copied once, however small the chunks are, and a header that comes in one chunk not at all.
 */
function collecting() {
  let buffer: Uint8Array | undefined
  let filled = 0
  // Bytes before which there is nothing to decode.
  let needed = 1
  const isDecodable = (bytes: Uint8Array) => {
    if (bytes.length < needed) return false
    const length = headerLength(bytes)
    if (length === undefined) return bytes.length >= prefixBytesMax
    needed = length
    return true
  }
  return {
    add: (chunk: Uint8Array): Uint8Array | undefined => {
      if (buffer === undefined && chunk.length >= (headerLength(chunk) ?? Number.POSITIVE_INFINITY)) return chunk
      buffer ??= new Uint8Array(prefixBytesMax + headerBytesMax)
      const piece = chunk.subarray(0, buffer.length - filled)
      buffer.set(piece, filled)
      filled += piece.length
      const bytes = buffer.subarray(0, filled)
      return isDecodable(bytes) ? bytes : undefined
    }
  }
}
