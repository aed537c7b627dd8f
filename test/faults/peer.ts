/**
 * The peer program of the suite: nodes of this library in a process of their own, driven over standard input and output
 * as `commands.ts` says. It ends when its input does.
 *
 *     node test/faults/peer.ts '{"config": {"listenPort": 4001, "enableMdns": false}}'
 */
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Clock, Context, Duration, Effect, Exit, Layer, Logger, Queue, Schedule, Scope, Stream } from "effect"
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { createInterface } from "node:readline"
import { RelayServer } from "../../src/layers/index.ts"
import { fastHealthPolicy, HealthPolicy, Network, type PeerId, type PeerInfo } from "../../src/index.ts"
import type { Answer, Command, Failure, Happened, PeerOptions, Ready, Request } from "./commands.ts"
import { lostMillis } from "../support/lostMillis.ts"

type Node = Network["Service"]

/** A protocol that every node answers, for `echo` and `flood`. */
const echoProtocol = "/faults/echo/1.0.0"

const options: PeerOptions = JSON.parse(process.argv[2] ?? "{}")

const say = (line: Ready | Answer | Happened) =>
  Effect.sync(() => void process.stdout.write(`${JSON.stringify(line)}\n`))

const health = Layer.succeed(HealthPolicy)(
  options.health === "fast"
    ? fastHealthPolicy
    : options.health === "patient"
    ? { probe: Schedule.spaced("4 seconds"), timeout: "2 minutes", maxFailures: 2 }
    : HealthPolicy.defaultValue()
)

const makeNode = (index: number, lost: () => number): Effect.Effect<Node, unknown, Scope.Scope> =>
  Effect.gen(function*() {
    const network = Network.layer({ enableMdns: false, ...options.config })
    const layer = options.relay === true ? RelayServer.layer().pipe(Layer.provideMerge(network)) : network
    const node = Context.get(yield* Layer.build(Layer.fresh(layer).pipe(Layer.provide(health))), Network)
    yield* node.events.pipe(
      Stream.runForEach((event) =>
        Effect.flatMap(
          Clock.currentTimeMillis,
          (at) => say({ node: index, at, lost: lost(), event: { ...plain(event), _tag: event._tag } })
        )
      ),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* node.handle(echoProtocol, (stream) => Stream.runForEach(stream.read, stream.write))
    return node
  })

const silent = new Set<Socket>()
const hold = (socket: Socket) => {
  silent.add(socket)
  // A reset by the other side is an end like any other. Its bytes are read, so that the end is noticed.
  socket.on("error", () => {}).on("close", () => silent.delete(socket)).resume()
}

const program = Effect.gen(function*() {
  const scope = yield* Effect.scope
  const lost = yield* lostMillis
  const nodes = yield* Effect.forEach(Array.from({ length: options.nodes ?? 1 }), (_, index) => makeNode(index, lost))

  const obey = (command: Command): Effect.Effect<unknown, unknown, Scope.Scope> => {
    const node = nodes[command.node ?? 0]!
    switch (command.do) {
      case "connect":
        return Effect.map(node.connect(command.target), summary)
      case "keep":
        return Scope.provide(node.keep(command.target), scope)
      case "disconnect":
        return node.disconnect(command.peer as PeerId)
      case "ping":
        return Effect.map(node.ping(command.peer as PeerId), Duration.toMillis)
      case "peers":
        return Effect.map(node.peers, (peers) => peers.map(summary))
      case "addresses":
        return node.addresses
      case "memory":
        return Effect.sync(() => process.memoryUsage().rss)
      case "crowd":
        return Effect.forEach(
          nodes,
          (node) =>
            node.connect(command.target).pipe(
              // A failure of a busy machine is tried again.
              Effect.retry({ times: 5, while: (error) => describe(error).reason === "DialError.DialTimeout" }),
              Effect.as("connected"),
              Effect.catch((error) => Effect.succeed(describe(error).reason))
            ),
          { concurrency: command.concurrency }
        )
      case "echo":
        return echo(node, command.peer as PeerId, command.bytes)
      case "flood":
        return Scope.provide(flood(node, command.peer as PeerId, command.streams), scope)
      case "listenSilently":
        return Effect.promise(async () => {
          const server = createServer(hold).listen(0)
          await once(server, "listening")
          return (server.address() as AddressInfo).port
        })
      case "connectSilently":
        return Effect.forEach(
          Array.from({ length: command.count }),
          () =>
            Effect.promise(async () => {
              const socket = connect(command.port, command.host)
              hold(socket)
              // The connection was made or refused; a refusal is an end.
              await Promise.race([once(socket, "connect"), once(socket, "close")]).catch(() => {})
              return socket.destroyed ? 0 : 1
            }),
          { concurrency: 50 }
        ).pipe(Effect.map((made) => made.reduce<number>((sum, one) => sum + one, 0)))
      case "silent":
        return Effect.sync(() => silent.size)
      case "lost":
        return Effect.sync(lost)
    }
  }

  const answer = ({ id, ...command }: Request) =>
    Effect.scoped(obey(command)).pipe(
      Effect.exit,
      Effect.flatMap((exit) =>
        say(
          Exit.isSuccess(exit)
            ? { id, ok: exit.value ?? null }
            : { id, error: describe(Cause.squash(exit.cause)) }
        )
      )
    )

  const lines = yield* Queue.unbounded<string, Cause.Done>()
  createInterface(process.stdin)
    .on("line", (line) => Queue.offerUnsafe(lines, line))
    .on("close", () => Queue.endUnsafe(lines))
  yield* say({ ready: nodes.map((node) => node.localPeer) })
  yield* Stream.runForEach(Stream.fromQueue(lines), (line) => Effect.forkScoped(answer(JSON.parse(line))))
})

program.pipe(
  Effect.scoped,
  // Standard output is for answers.
  Effect.provide(Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)])),
  NodeRuntime.runMain
)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function echo(node: Node, peer: PeerId, bytes: number) {
  return Effect.gen(function*() {
    const stream = yield* node.open(peer, echoProtocol)
    yield* Effect.forkScoped(Effect.andThen(stream.write(new Uint8Array(bytes)), stream.closeWrite))
    return yield* Stream.runFold(stream.read, () => 0, (sum, chunk) => sum + chunk.length)
  })
}

function flood(node: Node, peer: PeerId, streams: number) {
  const one = Effect.gen(function*() {
    const stream = yield* node.open(peer, echoProtocol)
    yield* stream.write(new Uint8Array(1))
    return (yield* Stream.runHead(stream.read))._tag === "Some" ? 1 : 0
  }).pipe(
    Effect.timeout("10 seconds"),
    // A connection that is refused or reset.
    Effect.catch(() => Effect.succeed(0))
  )
  return Effect.map(
    Effect.forEach(Array.from({ length: streams }), () => one, { concurrency: 100 }),
    (answered) => answered.reduce<number>((sum, one) => sum + one, 0)
  )
}

function summary({ addresses, connectionDuration, direction, id, interest, path }: PeerInfo) {
  return plain({ id, addresses, connectionDuration, direction, interest, path: path._tag })
}

function describe(error: unknown): Failure {
  const { _tag, message, reason } = error as { _tag?: string; message?: string; reason?: { _tag: string } }
  const name = _tag ?? "Defect"
  return { reason: reason === undefined ? name : `${name}.${reason._tag}`, message: message ?? String(error) }
}

/** The fields with durations in milliseconds. */
function plain<A extends object>(fields: A): Record<keyof A, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name, Duration.isDuration(value) ? Duration.toMillis(value) : value])
  ) as Record<keyof A, unknown>
}
