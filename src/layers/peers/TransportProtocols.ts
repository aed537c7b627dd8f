/**
 * `Protocols` over the transport's streams and the table's holds.
 */
import { Effect, Exit, Fiber, Layer, Result, Scope } from "effect"
import { PeerNotConnected, StreamError } from "../../schema/NetworkError.ts"
import type { PeerId, ProtocolId } from "../../schema/Peer.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { Protocols } from "../../services/Protocols.ts"
import { Shutdown } from "../../services/Shutdown.ts"
import type { ByteStream } from "../../services/Transport.ts"
import { Transport } from "../../services/Transport.ts"

/** The `Protocols` over the transport and the table. */
export const make = Effect.gen(function*() {
  const transport = yield* Transport
  const table = yield* PeerTable
  const shutdown = yield* Shutdown

  /**
   * Runs a handler that can be left behind: if it ignores its interruption, the stop waits for it as long as a part of
   * the stop may take, then goes on without it.
   */
  const leavable = <E, R>(name: string, handler: Effect.Effect<void, E, R>) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.forkDetach(handler, { startImmediately: true }),
        (fiber) =>
          Effect.onInterrupt(restore(Fiber.join(fiber)), () =>
            Effect.flatMap(shutdown.part(name, Fiber.interrupt(fiber), "most"), (ended) =>
              ended
                ? Effect.void
                : Effect.logWarning(`${name} does not end when it is interrupted, and is left to itself`)))
      )
    )

  const handle = Effect.fnUntraced(
    function*<E, R>(protocol: ProtocolId, handler: (stream: ByteStream) => Effect.Effect<void, E, R>) {
      const context = yield* Effect.context<Exclude<R, never>>()
      yield* transport.handle(protocol, (stream) => {
        const { peer } = stream.connection
        return Effect.gen(function*() {
          // The stream may come before the event pump has admitted its connection, and a peer without a slot is not
          // served. What else follows admission is left to the pump: no caller waits for it here.
          if (Result.isFailure(yield* Effect.result(table.admit(stream.connection)))) {
            return yield* stream.connection.close
          }
          yield* table.attend(stream.connection)
          yield* leavable(`the handler of ${protocol}`, handler(stream))
        }).pipe(
          Effect.scoped,
          Effect.provide(context),
          // A remote that resets its stream or leaves is no fault of the handler: the interruption resets the stream
          // and logs nothing. Any other failure becomes a defect, which the transport logs.
          Effect.catch((error) => {
            if (!isDeparture(error)) return Effect.die(error)
            return Effect.andThen(
              Effect.logDebug(`${protocol} with ${peer} ended early: ${error.message}`),
              Effect.interrupt
            )
          }),
          Effect.annotateLogs({ component: "protocols" })
        )
      })
    }
  )

  // A scope of its own, so that a stream that fails to open leaves no hold in the caller's scope.
  const open = Effect.fn("Protocols.open")(function*(peer: PeerId, protocol: ProtocolId) {
    const scope = yield* Scope.fork(yield* Effect.scope)
    return yield* Effect.flatMap(table.hold(peer), (connection) => connection.open(protocol)).pipe(
      Scope.provide(scope),
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
  })

  return Protocols.of({ handle: handle as Protocols["Service"]["handle"], open })
})

const isDeparture = (error: unknown): error is StreamError | PeerNotConnected =>
  error instanceof StreamError || error instanceof PeerNotConnected

/** {@link make} as a Layer. */
export const layer: Layer.Layer<Protocols, never, Transport | PeerTable> = Layer.effect(Protocols, make)
