/**
 * Answers `/codio/1.0.0`: `hello`, `keep`, `retire` and `goodbye`.
 */
import { Effect, Layer, Result, Stream } from "effect"
import { decodeRequest, encodeResponse, protocol } from "../../schema/CodioMessage.ts"
import { ConnectionManager } from "../../services/ConnectionManager.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import { Protocols } from "../../services/Protocols.ts"
import * as Header from "./Header.ts"

/**
 * Answers while the layer lives. A request that does not decode is answered with its code and a graceful end; one
 * that is not complete in time resets it.
 */
export const layer = Layer.effectDiscard(Effect.gen(function*() {
  const protocols = yield* Protocols
  const connections = yield* ConnectionManager
  const table = yield* PeerTable
  const { agentVersion } = yield* NetworkConfig
  yield* protocols.handle(
    protocol,
    Effect.fnUntraced(function*(stream) {
      const decoded = yield* Effect.result(Header.read(stream, decodeRequest))
      if (Result.isFailure(decoded)) {
        const error = decoded.failure
        if (error._tag === "StreamError") return
        // A graceful end would wait another 10 s for a remote that sends nothing; an interruption resets the stream.
        if (error.reason._tag === "Late") return yield* Effect.interrupt
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
          // While the stream is open the peer is not idle. The remote ends it when it keeps this node no more.
          yield* table.keptByRemote(stream.connection.peer).pipe(
            Effect.andThen(Stream.runDrain(stream.read)),
            Effect.scoped,
            Effect.ignore
          )
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
