/**
 * A kept peer comes back by itself: the server stops and starts again, and the client is connected again.
 *
 *     node scripts/run.mjs examples/04-keep.ts
 */
import { NodeFileSystem, NodeRuntime } from "@effect/platform-node"
import { Console, Deferred, Effect, Exit, FileSystem, Scope, Stream } from "effect"
import { Network } from "../src/index.ts"

const program = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  // The identity is kept here, so that the restarted server is the same peer.
  const dataDirectory = yield* fs.makeTempDirectoryScoped({ prefix: "codio-example-" })
  const server = (listenPort: number) => Network.make({ listenPort, dataDirectory, enableMdns: false })

  const client = yield* Network.make({ enableMdns: false })
  const back = yield* Deferred.make<void>()
  let connections = 0
  yield* client.events.pipe(
    Stream.runForEach((event) => {
      switch (event._tag) {
        case "PeerConnected":
          return Effect.andThen(
            Console.log(`connected to ${event.peer}`),
            ++connections === 2 ? Deferred.succeed(back, undefined) : Effect.void
          )
        case "PeerDisconnected":
          return Console.log(`lost, because: ${event.remoteReason ?? event.reason}`)
        case "ReconnectScheduled":
          return Console.log(`dialling again soon (attempt ${event.attempt})`)
        default:
          return Effect.void
      }
    }),
    Effect.forkScoped
  )

  const scope = yield* Scope.make()
  const first = yield* Scope.provide(server(0), scope)
  const [address] = yield* first.addresses
  // For as long as this program's scope lives.
  yield* client.keep(address!)
  yield* first.events.pipe(Stream.filter((event) => event._tag === "PeerIdentified"), Stream.take(1), Stream.runDrain)
  yield* Scope.close(scope, Exit.void)
  const port = Number(/tcp\/(\d+)/.exec(address!)?.[1])
  // The server is gone. Here it is again.
  yield* server(port)
  yield* Deferred.await(back)
})

program.pipe(Effect.scoped, Effect.timeout("30 seconds"), Effect.provide(NodeFileSystem.layer), NodeRuntime.runMain)
