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
   * Runs a handler. One that ignores its interruption is waited for as long as a stop may take, then left to itself.
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
          // The stream may come before the pump has admitted its connection. Only a peer with a slot of the table is
          // served.
          if (Result.isFailure(yield* Effect.result(table.admit(stream.connection)))) {
            return yield* stream.connection.close
          }
          yield* table.attend(stream.connection)
          yield* leavable(`the handler of ${protocol}`, handler(stream))
        }).pipe(
          Effect.scoped,
          Effect.provide(context),
          // That a remote resets its stream or leaves is no fault of the handler: an interrupted one resets the stream
          // without a word. Of any other failure it dies, and the transport logs why.
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

  // In a scope of its own, so that what fails to open holds nothing in the caller's.
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
