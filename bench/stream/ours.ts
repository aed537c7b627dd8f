/**
 * Our side: the rows through `Network`, from the compiled package. `node bench/stream/ours.ts server`, or
 * `client <address>`.
 */
import { Effect, Queue, Stream } from "effect"
import type { ByteStream } from "../../src/services/Transport.ts"
import {
  bulkBytes,
  chunk,
  dials,
  echo,
  freshRequests,
  longRequests,
  request,
  serveAddress,
  serveRows,
  sink,
  source,
  timed
} from "./protocol.ts"

const entry = new URL("../../dist/index.js", import.meta.url).href
const { Network }: typeof import("../../src/index.ts") = await import(entry)

const program = Effect.gen(function*() {
  const network = yield* Network.make({
    listenAddresses: ["/ip4/127.0.0.1/tcp/0"],
    enableMdns: false,
    enableRelay: false
  })

  if (process.argv[2] === "server") {
    yield* network.handle(
      sink,
      (stream) => Effect.andThen(Stream.runDrain(stream.read), stream.write(Uint8Array.of(1)))
    )
    yield* network.handle(source, sendBulk)
    yield* network.handle(echo, (stream) => Stream.runForEach(stream.read, stream.write))
    const [address] = yield* network.addresses
    serveAddress(address!)
    return yield* Effect.never
  }

  const address = process.argv[3]!
  const { id: server } = yield* network.connect(address)
  const run = Effect.runPromiseWith(yield* Effect.context())
  const perStream = <E>(protocol: string, use: (stream: ByteStream) => Effect.Effect<number, E>) => () =>
    run(Effect.scoped(Effect.flatMap(network.open(server, protocol), use)))
  const seconds = (work: Effect.Effect<unknown, unknown>) => Effect.promise(() => timed(() => run(work)))

  serveRows({
    upload: perStream(sink, (stream) =>
      Effect.map(
        seconds(sendBulk(stream).pipe(Effect.andThen(stream.closeWrite), Effect.andThen(received(stream, 1)))),
        (seconds) => bulkBytes / 2 ** 20 / seconds
      )),
    download: perStream(
      source,
      (stream) => Effect.map(seconds(received(stream, bulkBytes)), (seconds) => bulkBytes / 2 ** 20 / seconds)
    ),
    fresh: () =>
      run(Effect.map(
        seconds(Effect.gen(function*() {
          for (let i = 0; i < freshRequests; i++) {
            yield* Effect.scoped(Effect.gen(function*() {
              const stream = yield* network.open(server, echo)
              yield* stream.write(request)
              yield* stream.closeWrite
              yield* received(stream, request.byteLength)
            }))
          }
        })),
        (seconds) => freshRequests / seconds
      )),
    long: perStream(echo, (stream) =>
      Effect.scoped(Effect.gen(function*() {
        const pull = yield* Stream.toPull(stream.read)
        const took = yield* seconds(Effect.gen(function*() {
          for (let i = 0; i < longRequests; i++) {
            yield* stream.write(request)
            for (let got = 0; got < request.byteLength;) for (const bytes of yield* pull) got += bytes.byteLength
          }
        }))
        return longRequests / took
      }))),
    dial: () =>
      run(Effect.scoped(Effect.gen(function*() {
        const gone = yield* Queue.unbounded<void>()
        yield* network.events.pipe(
          Stream.filter((event) => event._tag === "PeerDisconnected"),
          Stream.runForEach(() => Queue.offer(gone, undefined)),
          Effect.forkScoped({ startImmediately: true })
        )
        let total = 0
        for (let i = 0; i < dials; i++) {
          yield* network.disconnect(server)
          yield* Queue.take(gone)
          total += yield* seconds(network.connect(address))
        }
        return dials / total
      })))
  })
  return yield* Effect.never
})

Effect.runPromise(Effect.scoped(program)).catch((error) => {
  console.error(error)
  process.exit(1)
})

// internal ------------------------------------------------------------------------------------------------------------

function sendBulk(stream: ByteStream) {
  return Effect.gen(function*() {
    for (let sent = 0; sent < bulkBytes; sent += chunk.byteLength) yield* stream.write(chunk)
  })
}

function received(stream: ByteStream, bytes: number) {
  return Effect.gen(function*() {
    let got = 0
    yield* Stream.runForEach(stream.read, (chunk) => Effect.sync(() => (got += chunk.byteLength)))
    if (got !== bytes) return yield* Effect.die(new Error(`the stream ended after ${got} of ${bytes} bytes`))
  })
}
