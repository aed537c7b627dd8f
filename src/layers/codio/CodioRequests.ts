/**
 * What this node asks of another Codio node over `/codio/1.0.0`.
 */
import { Effect, Option, Stream } from "effect"
import type { CodioRequest } from "../../schema/CodioMessage.ts"
import { decodeResponse, encodeRequest, protocol } from "../../schema/CodioMessage.ts"
import type { GoodbyeReason } from "../../schema/NetworkEvent.ts"
import type { Connection } from "../../services/Transport.ts"
import * as Header from "./Header.ts"

/**
 * Sends a request on a stream of its own and reads the response. The stream lives as long as the scope.
 */
export const request = Effect.fnUntraced(function*(connection: Connection, message: CodioRequest) {
  const stream = yield* connection.open(protocol)
  yield* stream.write(encodeRequest(message))
  const response = yield* Header.read(stream, decodeResponse)
  return { stream, response }
})

/**
 * Whether identify has told that the remote speaks the protocol. False until it has.
 */
export const isSpoken = (connection: Connection): Effect.Effect<boolean> =>
  Effect.map(connection.remote, Option.exists((remote) => remote.protocols.includes(protocol)))

/**
 * Tells the remote that this side is about to close the connection, and why. Never fails: the caller closes the
 * connection next, whatever happens here.
 *
 * Waits 250 ms at most for the answer, and 750 ms when the node stops: a stop may take seconds, and a busy remote that
 * misses the goodbye would dial this node again. A remote that is known to be other software is told nothing.
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
 * Asks the remote not to close this peer for idleness, until interrupted. Ends when the stream does, at once with other
 * software.
 */
export const keepAlive = (connection: Connection): Effect.Effect<void> =>
  Effect.gen(function*() {
    if (!(yield* isSpoken(connection))) return
    const { stream } = yield* request(connection, { op: "keep" })
    yield* Stream.runDrain(stream.read)
    // A stream that breaks has ended; the caller asks again.
  }).pipe(Effect.scoped, Effect.ignore)

/**
 * Asks the remote to open nothing more on a connection, so that this side may close it when its streams have ended.
 *
 * Software that does not know the request counts as `refused`, a remote that says nothing for 5 s as `unanswered`.
 */
export const retire = (connection: Connection): Effect.Effect<"agreed" | "refused" | "unanswered"> =>
  Effect.scoped(request(connection, { op: "retire" })).pipe(
    Effect.map(({ response }) => response.ok ? "agreed" as const : "refused" as const),
    Effect.catch((error) =>
      Effect.succeed(
        error._tag === "MessageError" && error.reason._tag === "Late" ? "unanswered" as const : "refused" as const
      )
    ),
    Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => Effect.succeed("unanswered" as const) })
  )
