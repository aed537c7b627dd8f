/**
 * `/codio/1.0.0`: answers `hello`, `keep`, `retire` and `goodbye`, and sends the last three for the table and the connection manager.
 */
import { Effect, Layer, Option, Result, Stream } from "effect"
import { agentVersion } from "../../schema/Agent.ts"
import type { CodioRequest, Decoded } from "../../schema/CodioMessage.ts"
import { decodeRequest, decodeResponse, encodeRequest, encodeResponse, protocol } from "../../schema/CodioMessage.ts"
import { MessageError, type StreamError } from "../../schema/NetworkError.ts"
import type { GoodbyeReason } from "../../schema/NetworkEvent.ts"
import { ConnectionManager } from "../../services/ConnectionManager.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { Protocols } from "../../services/Protocols.ts"
import type { ByteStream, Connection } from "../../services/Transport.ts"

/**
 * Sends a request on a stream of its own and reads the response. The stream lives as long as the scope.
 */
export const request = Effect.fnUntraced(function*(connection: Connection, message: CodioRequest) {
  const stream = yield* connection.open(protocol)
  yield* stream.write(encodeRequest(message))
  const response = yield* readHeader(stream, decodeResponse)
  return { stream, response }
})

/**
 * Whether the remote speaks the protocol, as far as identify has told.
 */
export const isSpoken = (connection: Connection): Effect.Effect<boolean> =>
  Effect.map(connection.remote, Option.exists((remote) => remote.protocols.includes(protocol)))

/**
 * Tells the remote that this side is about to close, and why. Waits for its answer, 250 ms at most, 750 ms when the node stops: the stop has
 * seconds, and a busy remote that did not hear the word would dial the node again. Says nothing to software that is known not to speak the
 * protocol. Never fails: the connection is closed next, whatever happens here.
 */
export const goodbye = (connection: Connection, reason: GoodbyeReason): Effect.Effect<void> =>
  Effect.gen(function*() {
    const remote = yield* connection.remote
    if (Option.isSome(remote) && !remote.value.protocols.includes(protocol)) return
    yield* Effect.scoped(request(connection, { op: "goodbye", reason })).pipe(
      // Callers are finalizers; the time limit needs something it may interrupt.
      Effect.interruptible,
      Effect.timeout(reason === "shutdown" ? "750 millis" : "250 millis"),
      Effect.ignore
    )
  })

/**
 * Asks the remote to keep this peer from becoming idle there, until interrupted. Ends when the stream does, at once with other software.
 */
export const keepAlive = (connection: Connection): Effect.Effect<void> =>
  Effect.gen(function*() {
    if (!(yield* isSpoken(connection))) return
    const { stream } = yield* request(connection, { op: "keep" })
    yield* Stream.runDrain(stream.read)
    // A stream that breaks has ended; the caller asks again.
  }).pipe(Effect.scoped, Effect.ignore)

/**
 * Asks the remote to open nothing more on a connection, so that this side may close it when its streams have ended. Software that does not
 * know the request refuses it; `unanswered` is one that has said nothing for 10 s.
 */
export const retire = (connection: Connection): Effect.Effect<"agreed" | "refused" | "unanswered"> =>
  Effect.scoped(request(connection, { op: "retire" })).pipe(
    Effect.map(({ response }) => response.ok ? "agreed" as const : "refused" as const),
    Effect.catch(() => Effect.succeed("refused" as const)),
    Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => Effect.succeed("unanswered" as const) })
  )

/**
 * Answers the protocol. A request that does not decode is answered with its code and the stream is closed.
 */
export const layer = Layer.effectDiscard(Effect.gen(function*() {
  const protocols = yield* Protocols
  const connections = yield* ConnectionManager
  const table = yield* PeerTable
  yield* protocols.handle(
    protocol,
    Effect.fnUntraced(function*(stream) {
      const decoded = yield* Effect.result(readHeader(stream, decodeRequest))
      if (Result.isFailure(decoded)) {
        const error = decoded.failure
        if (error._tag === "StreamError") return
        const code = error.reason._tag === "TooLarge" ? "too-large" : "malformed"
        yield* stream.write(encodeResponse({ ok: false, code, message: error.message }))
        return yield* stream.closeWrite
      }
      const message = decoded.success
      switch (message.op) {
        case "hello":
          yield* stream.write(encodeResponse({ ok: true, agent: agentVersion }))
          break
        case "keep":
          yield* stream.write(encodeResponse({ ok: true }))
          // The open stream is what stops the idle timer; it ends with the remote's wish.
          yield* Effect.ignore(Stream.runDrain(stream.read))
          break
        case "retire":
          yield* stream.write(encodeResponse(
            (yield* table.retire(stream.connection))
              ? { ok: true }
              : { ok: false, code: "in-use", message: "this side uses the connection" }
          ))
          break
        case "goodbye":
          yield* connections.goodbye(stream.connection.peer, message.reason)
          yield* stream.write(encodeResponse({ ok: true }))
          break
      }
      yield* stream.closeWrite
      // The remote went before it read the answer; nothing is left to do for it.
    }, Effect.catchTag("StreamError", () => Effect.void))
  )
}))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Reads until one header is complete. What follows it belongs to the operation; none of today's has any.
function readHeader<A>(
  stream: ByteStream,
  decode: (bytes: Uint8Array) => Result.Result<Decoded<A> | undefined, MessageError>
): Effect.Effect<A, StreamError | MessageError> {
  let bytes: Uint8Array = new Uint8Array(0)
  return stream.read.pipe(
    Stream.mapEffect((chunk) => {
      bytes = bytes.length === 0 ? chunk : concat(bytes, chunk)
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
}

const concat = (left: Uint8Array, right: Uint8Array): Uint8Array => {
  const out = new Uint8Array(left.length + right.length)
  out.set(left)
  out.set(right, left.length)
  return out
}
