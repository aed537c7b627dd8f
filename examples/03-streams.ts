/**
 * A protocol of your own: one node answers in capital letters, another asks.
 *
 *     node scripts/run.mjs examples/03-streams.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { Network } from "../src/index.ts"

const protocol = "/example/shout/1.0.0"

const program = Effect.gen(function*() {
  const server = yield* Network.make({ enableMdns: false })
  const client = yield* Network.make({ enableMdns: false })

  // The handler runs once for each stream and has it for as long as it runs. `write` waits while the remote is behind.
  yield* server.handle(protocol, (stream) =>
    stream.read.pipe(
      Stream.decodeText(),
      Stream.map((text) => text.toUpperCase()),
      Stream.encodeText,
      Stream.runForEach(stream.write)
    ))

  const [address] = yield* server.addresses
  const answer = yield* Effect.scoped(Effect.gen(function*() {
    // Opening connects first where need be.
    const stream = yield* client.open(address!, protocol)
    yield* stream.write(new TextEncoder().encode("hello, "))
    yield* stream.write(new TextEncoder().encode("peer"))
    // The server's read ends here, and its own half after that.
    yield* stream.closeWrite
    return yield* stream.read.pipe(Stream.decodeText(), Stream.mkString)
  }))
  yield* Console.log(answer)

  // What goes wrong has a type: the server does not speak this protocol.
  yield* Effect.scoped(client.open(server.localPeer, "/example/unknown/1.0.0")).pipe(
    Effect.catchReason("StreamError", "ProtocolNotSupported", (_, error) => Console.log(error.message))
  )
})

program.pipe(Effect.scoped, NodeRuntime.runMain)
