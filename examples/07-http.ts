/**
 * The node inside an application of `effect/http`: a Layer beside the server's own, which tells its state over HTTP.
 *
 *     node scripts/run.mjs examples/07-http.ts
 *
 * The program asks itself once and ends. A server that stays would end with
 * `Layer.launch(server).pipe(NodeRuntime.runMain)`.
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { FetchHttpClient, HttpClient, HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"
import { Network } from "../src/index.ts"

const routes = HttpRouter.use(Effect.fnUntraced(function*(router) {
  const network = yield* Network
  yield* router.add(
    "GET",
    "/status",
    Effect.gen(function*() {
      const { isolation, slots } = yield* network.status
      return yield* HttpServerResponse.json({
        peer: network.localPeer,
        addresses: yield* network.addresses,
        peers: (yield* network.peers).map(({ id, direction }) => ({ id, direction })),
        slots: `${slots.used} of ${slots.limit}`,
        state: isolation._tag
      })
    })
  )
}))

const server = HttpRouter.serve(routes).pipe(
  Layer.provide(Network.layer({ enableMdns: false })),
  Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
)

const program = HttpServer.addressFormattedWith((url) =>
  Effect.gen(function*() {
    const response = yield* HttpClient.get(`${url}/status`)
    yield* Console.log(yield* response.json)
  })
)

program.pipe(Effect.provide([server, FetchHttpClient.layer]), NodeRuntime.runMain)
