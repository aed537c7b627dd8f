/**
 * `Protocols` over the transport's streams and the table's holds.
 */
import { Effect, Layer, Result } from "effect"
import type { PeerId, ProtocolId } from "../schema/Peer.ts"
import { PeerTable } from "../services/PeerTable.ts"
import { Protocols } from "../services/Protocols.ts"
import type { ByteStream } from "../services/Transport.ts"
import { Transport } from "../services/Transport.ts"

export const make = Effect.gen(function*() {
  const transport = yield* Transport
  const table = yield* PeerTable

  const handle = Effect.fnUntraced(
    function*<E, R>(protocol: ProtocolId, handler: (stream: ByteStream) => Effect.Effect<void, E, R>) {
      const context = yield* Effect.context<Exclude<R, never>>()
      yield* transport.handle(protocol, (stream) => {
        const { peer } = stream.connection
        return Effect.gen(function*() {
          // The stream may come before the pump has taken the connection; nobody is served who has no place in the table.
          if (Result.isFailure(yield* Effect.result(table.admit(stream.connection)))) return yield* stream.connection.close
          yield* table.attend(peer)
          yield* handler(stream)
        }).pipe(
          Effect.scoped,
          Effect.provide(context),
          // The transport resets the stream of a handler that dies, and logs why.
          Effect.orDie
        )
      })
    }
  )

  const open = Effect.fn("Protocols.open")(function*(peer: PeerId, protocol: ProtocolId) {
    const connection = yield* table.hold(peer)
    return yield* connection.open(protocol)
  })

  return Protocols.of({ handle: handle as Protocols["Service"]["handle"], open })
})

export const layer: Layer.Layer<Protocols, never, Transport | PeerTable> = Layer.effect(Protocols, make)
