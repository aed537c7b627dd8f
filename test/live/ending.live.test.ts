/**
 * How a process ends in which a node was.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as RelayServer from "../../src/layers/reach/RelayServer.ts"
import { Network } from "../../src/Network.ts"
import type { NetworkConfigInput } from "../../src/services/NetworkConfig.ts"

/** How long a process may live on after the scope of its node has closed, on an idle machine. */
const limitMillis = 300

interface End {
  readonly idleMillis: number
  readonly cpuMillis: number
}

const run = (options: NetworkConfigInput, ...others: ReadonlyArray<string>) =>
  Effect.callback<End, Error>((resume) => {
    const program = fileURLToPath(new URL("../support/ending.ts", import.meta.url))
    const child = execFile(
      process.execPath,
      [program, JSON.stringify(options), ...others],
      (error, stdout, stderr) =>
        resume(
          error === null
            ? Effect.sync(() => JSON.parse(stdout.trim().split("\n").at(-1)!) as End)
            : Effect.fail(new Error(`${error.message}\n${stderr}`))
        )
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** A relay that takes lines. */
const makeRelay = Effect.gen(function*() {
  const layer = RelayServer.layer().pipe(
    Layer.provideMerge(Network.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], enableMdns: false }))
  )
  const relay = Context.get(yield* Layer.build(layer), Network)
  yield* relay.handle("/line/1.0.0", (stream) => Stream.runDrain(stream.read))
  const [address] = yield* relay.addresses
  return address!
})

describe("a process ends when the scope of its node has closed,", () => {
  const cases: ReadonlyArray<readonly [string, (relay: string) => readonly [NetworkConfigInput, ...Array<string>]]> = [
    ["if the node met nobody", () => [{}]],
    ["if it had a peer and streams", (relay) => [{}, relay]],
    ["if it looked for peers by mDNS", (relay) => [{ enableMdns: true }, relay]],
    ["if it was reached through a relay", (relay) => [{ relayPeers: [relay] }, relay]]
  ]
  for (const [when, given] of cases) {
    it.live(when, () =>
      Effect.gen(function*() {
        const { cpuMillis, idleMillis } = yield* run(...given(yield* makeRelay))
        assert.isBelow(cpuMillis + idleMillis, limitMillis)
      }))
  }
})
