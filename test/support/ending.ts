/**
 * A program with a node in it, for specs of how a process ends: the node gets a reservation if it has relays, connects
 * to others, sends each a line, and its scope closes. Nothing else ends the process.
 *
 *     node test/support/ending.ts '{"enableMdns": true}' /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
 *
 * Prints how long the process lived on after that, as `{"idleMillis":1,"cpuMillis":1}`: how long it waited for timers
 * and sockets, and how long it computed. A busy machine makes neither longer.
 */
import { Effect } from "effect"
import { performance } from "node:perf_hooks"
import { Network } from "../../src/index.ts"
import { until } from "./live.ts"

const [options = "{}", ...others] = process.argv.slice(2)

const use = Effect.gen(function*() {
  const node = yield* Network.make({
    listenAddresses: ["/ip4/127.0.0.1/tcp/0"],
    enableMdns: false,
    ...JSON.parse(options)
  })
  // A node that was given relays is asked to be reached through one.
  yield* until(
    Effect.map(
      node.addresses,
      (addresses) =>
        JSON.parse(options).relayPeers === undefined || addresses.some((address) => address.includes("p2p-circuit"))
    )
  )
  for (const other of others) {
    const { id } = yield* node.connect(other)
    yield* node.ping(id)
    const stream = yield* node.open(id, "/line/1.0.0")
    yield* stream.write(new TextEncoder().encode("a line\n"))
  }
})

await Effect.runPromise(Effect.scoped(use))
const cpu = process.cpuUsage()
const { idle } = performance.eventLoopUtilization()
process.on("exit", () => {
  const { system, user } = process.cpuUsage(cpu)
  const idleMillis = performance.eventLoopUtilization().idle - idle
  console.log(JSON.stringify({ idleMillis, cpuMillis: (system + user) / 1000 }))
})
