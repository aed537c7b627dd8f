/** A node of ours with its defaults, in a program that uses effect; tells where it listens. */
import { Console, Effect } from "effect"
import { Network } from "../../dist/index.js"

const program = Effect.gen(function*() {
  const network = yield* Network.make({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"] })
  yield* Console.log((yield* network.addresses).join("\n"))
  yield* Effect.never
})

Effect.runPromise(Effect.scoped(program)).catch((error) => {
  console.error(error)
  process.exit(1)
})
