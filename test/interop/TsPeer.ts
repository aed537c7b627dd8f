/**
 * A node of this library that obeys the commands of the suite.
 */
import { Clock, Context, Duration, Effect, Exit, Layer, Scope, Stream } from "effect"
import { Libp2pHost, RelayServer } from "../../src/layers/index.ts"
import {
  AddressGuard,
  anyAddress,
  type ByteStream,
  ContentKey,
  Network,
  type PeerId,
  PublishedValue
} from "../../src/index.ts"
import type { Answers, Command, Happened, Peer, PeerOptions } from "./Peer.ts"

export const echoProtocol = "/codio/test/echo/1.0.0"
export const drainProtocol = "/codio/test/drain/1.0.0"
export const slowProtocol = "/codio/test/slow/1.0.0"
export const sinkProtocol = "/codio/test/sink/1.0.0"
export const resetProtocol = "/codio/test/reset/1.0.0"

export const make = (options: PeerOptions): Effect.Effect<Peer, Error, Scope.Scope> =>
  Effect.gen(function*() {
    const happened: Array<Happened> = []
    const base = Network.layer({
      listenAddresses: [options.listen ?? "/ip4/127.0.0.1/tcp/0"],
      enableMdns: options.mdns ?? false,
      ...(options.kad === undefined ? {} : { kadProtocol: options.kad })
    })
    // All peers of the suite share the addresses of one machine, which no stranger may make a node dial.
    const unguarded = Layer.provide(base, Layer.succeed(AddressGuard)(anyAddress))
    const layer = options.relay === true ? RelayServer.layer().pipe(Layer.provideMerge(unguarded)) : unguarded
    const context = yield* Layer.build(Layer.fresh(layer))
    const network = Context.get(context, Network)
    const { components, node } = Context.get(context, Libp2pHost.Libp2pHost)

    yield* network.events.pipe(
      Stream.runForEach((event) =>
        Effect.sync(() => {
          if (event._tag === "PeerConnected") {
            happened.push({ event: "connected", peer: event.peer })
          }
          if (event._tag === "PeerDisconnected") happened.push({ event: "disconnected", peer: event.peer })
          if (event._tag === "PeerDiscovered" && event.source === "mdns") {
            happened.push({ event: "mdns", peer: event.peer })
          }
        })
      ),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* serve(network, happened)

    const peer = (command: Command) => command.peer as PeerId
    const key = (command: Command) => ContentKey.fromRustRecordKey(Buffer.from(command.key ?? "", "hex"))
    const obey: { readonly [Op in keyof Answers]: (command: Command) => Effect.Effect<Answers[Op], unknown> } = {
      addresses: () => Effect.map(network.addresses, (addresses) => ({ addresses })),
      connect: ({ addr = "" }) => Effect.map(network.connect(addr), ({ id }) => ({ peer: id })),
      disconnect: (command) => Effect.as(network.disconnect(peer(command)), {}),
      peers: () =>
        Effect.sync(() => ({
          peers: node.getConnections().map((connection) => ({
            peer: connection.remotePeer.toString(),
            addr: connection.remoteAddr.toString(),
            outbound: connection.direction === "outbound"
          }))
        })),
      identify: (command) =>
        Effect.promise(async () => {
          const stored = (await components.peerStore.all()).find(({ id }) => id.toString() === command.peer)
          const text = (name: string) => new TextDecoder().decode(stored?.metadata.get(name))
          return {
            agent: text("AgentVersion"),
            version: text("ProtocolVersion"),
            protocols: stored?.protocols ?? []
          }
        }),
      ping: (command) => Effect.map(network.ping(peer(command)), (after) => ({ millis: Duration.toMillis(after) })),
      "kad-peers": () =>
        Effect.promise(async () => ({
          count: (await components.peerStore.all()).filter(({ tags }) => tags.has("kad-peer")).length
        })),
      provide: (command) =>
        Effect.map(
          Effect.timed(network.startProviding(key(command))),
          ([took]) => ({ millis: Duration.toMillis(took) })
        ),
      find: (command) =>
        Effect.map(
          Effect.timed(Stream.runCollect(network.findProviders(key(command), { requirePeers: true }))),
          ([took, providers]) => ({
            millis: Duration.toMillis(took),
            providers: providers.map(({ addresses, id }) => ({ peer: id, addresses: addresses.map(String) }))
          })
        ),
      put: ({ path = "", quorum, sequence, value = "" }) =>
        Effect.as(
          network.putValue(PublishedValue.namespace, PublishedValue.path(network.localPeer, path), {
            value: Buffer.from(value, "hex"),
            sequence
          }, { quorum }),
          {}
        ),
      get: ({ path = "", quorum }) =>
        Effect.map(network.getValue(PublishedValue.namespace, path, { quorum }), (found) => ({
          publisher: found.publisher,
          sequence: found.sequence,
          value: Buffer.from(found.value).toString("hex")
        })),
      reserve: ({ addr = "" }) =>
        Effect.gen(function*() {
          yield* network.keep(addr).pipe(Effect.provideService(Scope.Scope, scope))
          yield* Stream.runHead(Stream.filter(
            Stream.tick("50 millis").pipe(
              Stream.mapEffect(() => network.addresses)
            ),
            (addresses) => addresses.some((one) => one.startsWith(addr))
          ))
          return {}
        }),
      stream: (command) => open(network, command),
      streams: ({ peer, protocol }) =>
        Effect.sync(() => {
          const all = node.getConnections().filter(({ remotePeer }) => remotePeer.toString() === peer)
          const inbound = all.flatMap(({ streams }) => streams).filter(({ direction }) => direction === "inbound")
          return { count: inbound.filter((stream) => stream.protocol === protocol).length }
        }),
      crowd: (command) => crowd(command)
    }
    const scope = yield* Effect.scope
    return {
      kind: "ts" as const,
      id: network.localPeer,
      addresses: yield* network.addresses,
      happened,
      run: (op, command = {}) =>
        Effect.mapError(
          obey[op](command) as Effect.Effect<never, unknown>,
          (cause) => new Error(`ts: ${op}: ${cause instanceof Error ? cause.message : String(cause)}`)
        )
    } satisfies Peer
  }).pipe(Effect.mapError((cause) => cause instanceof Error ? cause : new Error(String(cause))))

// internal ------------------------------------------------------------------------------------------------------------

// Bytes of a fixed pattern whose period is a prime, so that bytes that are lost, doubled or out of order show.
const period = 65_521
const pattern = new Uint8Array(2 * period)
for (const index of pattern.keys()) {
  const at = index % period
  pattern[index] = at * at * 31 + at
}

interface Checked {
  bytes: number
  intact: boolean
}

/** Reads to the end, and compares with the pattern. */
const drain = (stream: ByteStream, into: Checked, pause?: Duration.Input) =>
  Stream.runForEach(stream.read, (chunk) => {
    for (let at = 0; at < chunk.length;) {
      const start = into.bytes % period
      const piece = chunk.subarray(at, at + period)
      into.intact &&= Buffer.compare(piece, pattern.subarray(start, start + piece.length)) === 0
      into.bytes += piece.length
      at += piece.length
    }
    return pause === undefined ? Effect.void : Effect.sleep(pause)
  })

const fill = Effect.fnUntraced(function*(stream: ByteStream, bytes: number) {
  for (let sent = 0; sent < bytes;) {
    const length = Math.min(period, bytes - sent)
    const start = sent % period
    yield* stream.write(pattern.subarray(start, start + length))
    sent += length
  }
})

const serve = Effect.fnUntraced(function*(network: Network["Service"], happened: Array<Happened>) {
  // Echoes, and ends when the other side does.
  yield* network.handle(echoProtocol, (stream) => Stream.runForEach(stream.read, stream.write))
  // The first two end their own half before they read, the last one after.
  for (const protocol of [drainProtocol, slowProtocol, sinkProtocol]) {
    const pause = protocol === slowProtocol ? "2 millis" : undefined
    yield* network.handle(protocol, (stream) =>
      Effect.gen(function*() {
        if (protocol !== sinkProtocol) yield* stream.closeWrite
        const read: Checked = { bytes: 0, intact: true }
        const exit = yield* Effect.exit(drain(stream, read, pause))
        happened.push({
          event: "received",
          protocol,
          peer: stream.connection.peer,
          ...read,
          error: Exit.isSuccess(exit) ? null : "reset"
        })
      }))
  }
  // Resets in the middle.
  yield* network.handle(
    resetProtocol,
    (stream) => Effect.andThen(Stream.runHead(stream.read), Effect.interrupt)
  )
})

/** Opens a stream and does what the mode says; answers with what came back. */
const open = Effect.fnUntraced(function*(network: Network["Service"], command: Command) {
  const { bytes = 0, mode, peer = "", protocol = "" } = command
  const began = yield* Clock.currentTimeMillis
  const back: Checked = { bytes: 0, intact: true }
  const exchange = Effect.scoped(Effect.gen(function*() {
    const stream = yield* network.open(peer, protocol)
    const write = Effect.andThen(fill(stream, bytes), stream.closeWrite)
    switch (mode) {
      // Writes and reads at once, ends its half when all is written.
      case "echo":
      case "slow": {
        const read = drain(stream, back, mode === "slow" ? "2 millis" : undefined)
        return yield* Effect.all([write, read], { concurrency: 2, discard: true })
      }
      // Waits for the other half to end, then writes.
      case "send":
        return yield* Effect.andThen(drain(stream, back), write)
      // Writes, and resets in the middle: a scope that fails does that.
      case "reset":
        yield* fill(stream, bytes)
        yield* Effect.sleep("100 millis")
        return yield* Effect.fail("enough" as const)
      // Writes, and waits for what the other side does.
      default:
        return yield* Effect.andThen(Effect.ignore(fill(stream, bytes)), drain(stream, back))
    }
  }))
  const exit = yield* Effect.result(exchange)
  const millis = (yield* Clock.currentTimeMillis) - began
  if (exit._tag === "Success" || exit.failure === "enough") return { ...back, millis }
  if (exit.failure._tag === "StreamError" && exit.failure.reason._tag !== "ProtocolNotSupported") {
    return { ...back, millis, reset: exit.failure.message }
  }
  return yield* exit.failure
})

/** Connects from as many nodes of their own, all at once, and tells how many are still connected after a second. */
const crowd = Effect.fnUntraced(function*({ addr = "", count = 0 }: Command) {
  const nodes = yield* Effect.forEach(
    Array.from({ length: count }),
    () => Network.make({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], enableMdns: false }),
    { concurrency: 4 }
  )
  const began = yield* Clock.currentTimeMillis
  const refused: Array<string> = []
  yield* Effect.forEach(
    nodes,
    (node) => Effect.catch(node.connect(addr), ({ message }) => Effect.sync(() => refused.push(message))),
    { concurrency: count, discard: true }
  )
  const millis = (yield* Clock.currentTimeMillis) - began
  yield* Effect.sleep("1 second")
  let connected = 0
  for (const node of nodes) if ((yield* node.peerCount) > 0) connected++
  return { connected, millis, refused }
}, Effect.scoped)
