/**
 * Reads one header of `/codio/1.0.0` from a stream, however it is cut into chunks.
 */
import { Bytes, Effect, Option, type Result, Stream } from "effect"
import { type Decoded, headerLength } from "../../schema/CodioMessage.ts"
import { MessageError, type StreamError } from "../../schema/NetworkError.ts"
import type { ByteStream } from "../../services/Transport.ts"

/**
 * Reads until the header is complete and drops the bytes behind it, since no operation sends any. Fails when the header
 * does not decode, and when the stream ends before the header does.
 */
export const read = <A>(
  stream: Pick<ByteStream, "read">,
  decode: (bytes: Uint8Array) => Result.Result<Decoded<A> | undefined, MessageError>
): Effect.Effect<A, StreamError | MessageError> =>
  Effect.suspend(() => {
    let chunks: Array<Uint8Array> = []
    let received = 0
    let needed = 0
    return stream.read.pipe(
      Stream.mapEffect((chunk) => {
        chunks.push(chunk)
        received += chunk.length
        // The chunks wait unjoined until the header is whole: joining at each chunk would copy a header that comes byte
        // by byte thousands of times.
        if (received < needed) return Effect.undefined
        const bytes = Bytes.concat(chunks)
        chunks = [bytes]
        needed = headerLength(bytes) ?? 0
        return Effect.fromResult(decode(bytes))
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
  })
