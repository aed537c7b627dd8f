/**
 * Finds peers on the local network by multicast DNS, and is found by them. [libp2p]
 *
 * A question for `_p2p._udp.local` goes out at the start and every few seconds; who hears it, of this software or
 * another that follows the libp2p specification, answers with its addresses. The first question of a starting node is
 * also heard by itself, and its answer announces it to all others.
 *
 * Gotchas
 * - Only private and loopback addresses are told.
 * - Questions leave by the interface of the default route, so a network beside it is heard but not asked.
 * - Nothing tells that a peer left.
 * - Container bridges pass multicast only inside themselves; many VPNs, clouds and guest networks drop it. What can be
 *   noticed from here is told in one warning.
 */
import type { PeerDiscovery, PeerInfo } from "@libp2p/interface"
import { mdns } from "@libp2p/mdns"
import { CODE_IP4, CODE_TCP, multiaddr } from "@multiformats/multiaddr"
import { Duration, Effect, FiberSet, Layer, Random } from "effect"
import { createSocket, type Socket } from "node:dgram"
import { networkInterfaces } from "node:os"
import type { HostError } from "../../schema/NetworkError.ts"
import { type Multiaddr, type PeerId, withoutPeer } from "../../schema/Peer.ts"
import { Discovery } from "../../services/Discovery.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { Libp2pHost } from "../libp2p/Host.ts"

/** How peers are looked for on the local network. */
export interface MdnsDiscoveryOptions {
  /** The time between two questions. Defaults to 3 seconds. */
  readonly interval?: Duration.Input
  /** The UDP port of the group 224.0.0.251. Defaults to 5353. */
  readonly port?: number
}

/**
 * Tells `Discovery` of each sighting, repeated ones too, while the scope lives; nothing without `enableMdns`.
 *
 * A host where multicast cannot work starts all the same, and says so in one warning with the reason.
 */
export const make = Effect.fnUntraced(function*(options: MdnsDiscoveryOptions) {
  const { enableMdns } = yield* NetworkConfig
  if (!enableMdns) return
  const host = yield* Libp2pHost
  const discovery = yield* Discovery
  const run = yield* FiberSet.makeRuntime()
  const interval = Duration.toMillis(Duration.fromInputUnsafe(options.interval ?? "3 seconds"))
  const port = options.port ?? 5353

  yield* host.attach("mdns", (components) => {
    const service = mdns({ interval, port })(components) as AttachedMdns
    // libp2p reports a peer once; a sighting matters each time, since the peer may have been lost meanwhile.
    service.addEventListener("peer", ({ detail }) => {
      const addresses = detail.multiaddrs.map((address) => withoutPeer(String(address) as Multiaddr))
      run(discovery.announce({ id: detail.id.toString() as PeerId, addresses }, "mdns"))
    })
    return answerAsSpecified(service)
  })

  yield* Effect.forkScoped(
    Effect.flatMap(multicastProblem(port), (problem) =>
      problem === undefined ? Effect.void : Effect.logWarning(
        `peers on the local network cannot be found, multicast does not work here: ${problem}; ` +
          "give bootstrapPeers, or turn mDNS off to end this warning"
      ))
  )
}, Effect.annotateLogs({ component: "mdns" }))

/**
 * {@link make} with its own options.
 */
export const layerWith = (
  options: MdnsDiscoveryOptions
): Layer.Layer<never, HostError, Libp2pHost | NetworkConfig | Discovery> => Layer.effectDiscard(make(options))

/**
 * {@link make} with the defaults.
 */
export const layer: Layer.Layer<never, HostError, Libp2pHost | NetworkConfig | Discovery> = layerWith({})

/**
 * Why multicast DNS cannot work on this machine, or undefined when it does: sends one question to the group and waits 1
 * s for it to come back.
 */
export const multicastProblem = (port = 5353): Effect.Effect<string | undefined> =>
  Effect.flatMap(Random.nextIntBetween(1, 0xffff), (id) =>
    Effect.acquireUseRelease(
      Effect.sync(() => createSocket({ type: "udp4", reuseAddr: true })),
      (socket) =>
        Effect.timeoutOrElse(echo(socket, port, id), {
          duration: "1 second",
          orElse: () => Effect.succeed(`nothing that is sent to ${group} comes back`)
        }),
      (socket) => Effect.promise(() => new Promise<void>((resolve) => socket.close(resolve)))
    ))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const group = "224.0.0.251"
const service = "_p2p._udp.local"

/** What libp2p's class has beside its interface. */
interface AttachedMdns extends PeerDiscovery {
  readonly addEventListener: (type: "peer", listener: (event: CustomEvent<PeerInfo>) => void) => void
  start: () => Promise<void>
  readonly mdns?: {
    respond: (response: ReadonlyArray<Answer> | object) => void
    readonly on: (event: "error", listener: () => void) => void
  }
}

interface Answer {
  readonly name: string
  readonly type: string
  readonly data: unknown
}

/**
 * Puts each record where the specification has it. libp2p sends all of them as answers, where rust-libp2p does not look
 * for addresses, one text record for each address, of which it reads the first, and no SRV and A, without which
 * go-libp2p drops the rest.
 */
function answerAsSpecified(service: AttachedMdns): AttachedMdns {
  const start = service.start.bind(service)
  service.start = async () => {
    await start()
    const multicast = service.mdns
    if (multicast === undefined) return
    // The module takes its own listener off when it stops, and an error nobody listens to ends the process.
    multicast.on("error", () => {})
    const respond = multicast.respond.bind(multicast)
    multicast.respond = (response) => {
      const specified = Array.isArray(response) ? asSpecified(response) : response
      if (specified !== undefined) respond(specified)
    }
  }
  return service
}

function asSpecified(answers: ReadonlyArray<Answer>): object | undefined {
  const pointer = answers.find((answer) => answer.type === "PTR")
  const lines = answers.filter((answer) => answer.type === "TXT").map((answer) => String(answer.data)).slice(
    0,
    linesMax
  )
  if (pointer === undefined || lines.length === 0) return undefined
  const name = String(pointer.data)
  const target = name.replace(`.${service}`, ".local")
  const places = lines.flatMap((line) => {
    const parts = multiaddr(line.slice(line.indexOf("=") + 1)).getComponents()
    const ip = parts.find((part) => part.code === CODE_IP4)?.value
    const port = parts.find((part) => part.code === CODE_TCP)?.value
    return ip === undefined || port === undefined ? [] : [{ ip, port: Number(port) }]
  })
  const record = { class: "IN", ttl: 120 }
  return {
    answers: [pointer],
    additionals: [
      { ...record, name, type: "TXT", data: lines },
      { ...record, name, type: "SRV", data: { priority: 0, weight: 0, port: places[0]?.port ?? 0, target } },
      ...[...new Set(places.map(({ ip }) => ip))].map((ip) => ({ ...record, name: target, type: "A", data: ip }))
    ]
  }
}

/** Keeps an answer within a datagram that needs no reassembly on most networks. */
const linesMax = 12

/** Sends a question and ends when it is back, or with what went wrong. Joins and sends where multicast-dns does. */
const echo = (socket: Socket, port: number, id: number) =>
  Effect.callback<string | undefined>((resume) => {
    const message = question(id)
    const finish = (problem?: string) => resume(Effect.succeed(problem))
    socket.on("error", (error) => finish(error.message))
    socket.on("message", (received) => {
      if (received.equals(message)) finish()
    })
    socket.bind(port, () => {
      const addresses = interfaceAddresses()
      const refused = addresses.all.flatMap((address) => {
        try {
          socket.addMembership(group, address)
          return []
        } catch (error) {
          return [`${address}: ${(error as Error).message}`]
        }
      })
      if (refused.length === addresses.all.length) {
        return finish(
          addresses.all.length === 0
            ? "there is no IPv4 interface"
            : `no interface can join ${group} (${refused.join(", ")})`
        )
      }
      try {
        socket.setMulticastLoopback(true)
        socket.setMulticastInterface(addresses.outgoing)
      } catch (error) {
        return finish((error as Error).message)
      }
      socket.send(message, port, group, (error) => {
        if (error !== null) finish(error.message)
      })
    })
  })

function interfaceAddresses() {
  const each = Object.values(networkInterfaces()).map((addresses) =>
    addresses?.filter((address) => address.family === "IPv4") ?? []
  )
  return {
    all: each.flatMap(([first]) => first === undefined ? [] : [first.address]),
    outgoing: each.flat().some((address) => !address.internal) ? "0.0.0.0" : "127.0.0.1"
  }
}

/** `[2 id][2 flags][2 questions: 1][6 counts][name][2 type: PTR][2 class: IN]` */
function question(id: number): Buffer {
  const labels = service.split(".").flatMap((label) => [Buffer.from([label.length]), Buffer.from(label)])
  return Buffer.concat([
    Buffer.from([id >> 8, id & 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
    ...labels,
    Buffer.from([0, 0, 12, 0, 1])
  ])
}
