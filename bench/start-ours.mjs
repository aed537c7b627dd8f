/** A node of ours with its defaults; tells when it listens. */
import { Effect } from "effect"
import { Network } from "../dist/index.js"

const program = Effect.gen(function*() {
  yield* Network.make({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"] })
  const { system, user } = process.cpuUsage()
  process.send?.({ value: (user + system) / 1000 })
  yield* Effect.never
})

process.on("disconnect", () => process.exit(0))
Effect.runPromise(Effect.scoped(program)).catch((error) => {
  console.error(error)
  process.exit(1)
})
