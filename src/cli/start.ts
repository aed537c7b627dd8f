/**
 * `codio start`: runs a node and prints what happens in it, until it is stopped.
 */
import { Clock, Console, Context, type Duration, Effect, Layer, Queue, Stream } from "effect"
import { Command } from "effect/cli"
import type { Network } from "../Network.ts"
import type { NetworkStartError } from "../schema/NetworkError.ts"
import { type NetworkEvent, PeerConnected, PeerIdentified } from "../schema/NetworkEvent.ts"
import type { PeerId, PeerInfo } from "../schema/Peer.ts"
import * as Log from "./log.ts"
import { flags, type ProgramOptions, resolve } from "./options.ts"
import { jsonLine, type Report, textLines } from "./print.ts"

/** Replaces the node on libp2p that the command runs. For tests. */
export const Node = Context.Reference<
  ((options: ProgramOptions) => Layer.Layer<Network, NetworkStartError>) | undefined
>(
  "codio-network/cli/Node",
  { defaultValue: () => undefined }
)

/** What is known about the reader of the program's output. Replaced by `main.ts`. */
export const Reader = Context.Reference<{
  /** Completes when the output is no longer read, which ends the program. */
  readonly gone: Effect.Effect<void>
  /** Completes when the printed lines have been read, so that a slow reader does not fill the memory. */
  readonly ready: Effect.Effect<void>
}>("codio-network/cli/Reader", {
  defaultValue: () => ({ gone: Effect.never, ready: Effect.void })
})

/**
 * Called with the `stopTimeout` of the options, if they have one. Replaced by `main.ts`, which ends the process a
 * little later in any case.
 */
export const StopLimit = Context.Reference<(stopTimeout: Duration.Duration) => Effect.Effect<void>>(
  "codio-network/cli/StopLimit",
  { defaultValue: () => () => Effect.void }
)

/**
 * The command. Fails with `ConfigError` or `NetworkStartError` before it prints anything.
 */
export const start = Command.make(
  "start",
  flags,
  Effect.fnUntraced(function*(given) {
    const options = yield* resolve(given)
    if (options.network.stopTimeout !== undefined) yield* (yield* StopLimit)(options.network.stopTimeout)
    // Loaded only now, so that help and wrong options need not wait for libp2p, which takes most of a start's time.
    const { libp2pNode, Network } = yield* Effect.promise(() => import("./node.ts"))
    const node = (yield* Node) ?? libp2pNode
    const print = printer(options.json)
    let started = false
    yield* Effect.flatMap(Network, (network) => {
      started = true
      return Effect.andThen(warn(options.warnings), report(network, print))
    }).pipe(
      Effect.provide(Layer.provideMerge(node(options), Log.layer(options.log, options.json))),
      // After the node has closed.
      Effect.ensuring(Effect.suspend(() => started ? print({ _tag: "Stopped" }) : Effect.void))
    )
  })
).pipe(
  Command.withDescription("Run a node: it finds, keeps and serves peers until it is stopped"),
  Command.withExamples([
    { command: "codio start", description: "Any free port, peers of the local network, nothing kept on disk" },
    {
      command: "codio start --listen-port 4001 --data-directory ./data",
      description: "A fixed port, and the same peer id each time"
    },
    { command: "codio start --json --log info,dht=debug", description: "For another program to read" }
  ])
)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const warn = (lines: ReadonlyArray<string>) =>
  Effect.forEach(lines, (line) => Effect.logWarning(line), { discard: true }).pipe(
    Effect.annotateLogs({ component: "options" })
  )

type Print = (report: Report) => Effect.Effect<void>

const printer = (json: boolean): Print => (report) =>
  Effect.flatMap(Clock.currentTimeMillis, (millis) => {
    const time = new Date(millis)
    const lines = json ? [jsonLine(time, report)] : textLines(time, report)
    return Effect.forEach(lines, (line) => Console.log(line), { discard: true })
  })

const report = (network: Network["Service"], print: Print) =>
  Effect.scoped(Effect.gen(function*() {
    // Started at once, so that it has subscribed before the table is read. A slow reader gets the newest 1024 events.
    const events = yield* Queue.sliding<NetworkEvent>(1024)
    yield* Effect.forkScoped(Stream.runForEach(network.events, (event) => Queue.offer(events, event)), {
      startImmediately: true
    })
    yield* print({ _tag: "Started", peer: network.localPeer, addresses: yield* network.addresses })
    const news = makeNews(yield* network.peers)
    yield* Effect.forEach(news.present, print, { discard: true })
    const { gone, ready } = yield* Reader
    yield* Queue.take(events).pipe(
      Effect.flatMap((event) => news.isNew(event) ? print(event) : Effect.void),
      Effect.andThen(ready),
      Effect.forever,
      Effect.raceFirst(gone)
    )
  }))

/** How many failed dials are remembered, so that a repetition is not printed. */
const failuresMax = 1024

/**
 * Filters repetitions. Peers that connected before the events were read are printed from the table, so their events may
 * come a second time. A dial that fails again for the same reason is printed once.
 */
function makeNews(peers: ReadonlyArray<PeerInfo>) {
  const connected = new Set<PeerId>()
  const identified = new Set<PeerId>()
  const failures = new Map<string, string>()
  const isNew = (event: NetworkEvent): boolean => {
    switch (event._tag) {
      case "PeerConnected":
        return addTo(connected, event.peer)
      case "PeerIdentified":
        return connected.has(event.peer) && addTo(identified, event.peer)
      case "PeerDisconnected":
        identified.delete(event.peer)
        return connected.delete(event.peer)
      case "DialFailed": {
        const known = failures.get(event.target) === event.reason
        if (failures.size >= failuresMax) failures.clear()
        failures.set(event.target, event.reason)
        return !known
      }
      default:
        return true
    }
  }
  return { isNew, present: peers.flatMap(eventsOf).filter(isNew) }
}

const addTo = (set: Set<PeerId>, peer: PeerId): boolean => {
  if (set.has(peer)) return false
  set.add(peer)
  return true
}

const eventsOf = (info: PeerInfo): ReadonlyArray<NetworkEvent> => {
  const [address] = info.addresses
  // The peer's connection has just closed; its `PeerDisconnected` follows.
  if (address === undefined) return []
  const { agentVersion, direction, id: peer, interest, listenAddresses, observedAddress, protocolVersion, protocols } =
    info
  const observed = observedAddress === undefined ? {} : { observedAddress }
  return [
    new PeerConnected({ peer, address, direction, interest }),
    ...agentVersion === ""
      ? []
      : [new PeerIdentified({ peer, agentVersion, protocolVersion, protocols, listenAddresses, ...observed })]
  ]
}
