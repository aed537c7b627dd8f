/**
 * A program for `test/live/lifecycle.live.test.ts`: starts and stops so many pairs of connected nodes, and prints what
 * is left, as JSON.
 *
 *     node --expose-gc test/support/lifecycle.ts 100
 */
import { Effect, Stream } from "effect"
import { Network } from "../../src/index.ts"

const pairs = Number(process.argv[2] ?? 100)
const faults: Array<string> = []
process.on("unhandledRejection", (reason) => faults.push(`unhandled rejection: ${String(reason)}`))
process.on("uncaughtException", (error) => faults.push(`uncaught exception: ${String(error)}`))

const heapAfterGc = (): number => {
  for (let i = 0; i < 3; i++) globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

/** Handles that may hold the process open, without the standard streams. */
const handles = (): ReadonlyArray<string> =>
  process.getActiveResourcesInfo().filter((name) => !["TTYWrap", "PipeWrap", "FileWrap"].includes(name))

const pair = Effect.scoped(Effect.gen(function*() {
  const options = { listenAddresses: ["/ip4/127.0.0.1/tcp/0"] }
  const [one, other] = yield* Effect.all([Network.make({ ...options, enableMdns: false }), Network.make(options)], {
    concurrency: 2
  })
  yield* other.handle("/lifecycle/1.0.0", (stream) => Stream.runForEach(stream.read, stream.write))
  yield* one.connect((yield* other.addresses)[0]!)
  // Left open, so that every stop has a stream to end.
  const stream = yield* one.open(other.localPeer, "/lifecycle/1.0.0")
  yield* stream.write(new Uint8Array(1024))
  yield* Stream.runHead(stream.read)
}))

let heapAfter20 = 0
const durations: Array<number> = []
for (let i = 1; i <= pairs; i++) {
  const begun = performance.now()
  await Effect.runPromise(pair)
  durations.push(performance.now() - begun)
  if (i === 20) heapAfter20 = heapAfterGc()
}
const timer = setTimeout(() => {
  clearTimeout(timer)
  setImmediate(() => {
    const heap = heapAfterGc()
    console.log(JSON.stringify({
      pairs,
      faults,
      handles: handles(),
      heapAfter20,
      growthBytes: heap - heapAfter20,
      pairMillis: Math.round(durations.reduce((sum, millis) => sum + millis, 0) / pairs),
      pairMillisMax: Math.round(Math.max(...durations))
    }))
  })
}, 15_000)
