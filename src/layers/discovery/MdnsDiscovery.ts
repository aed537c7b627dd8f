/**
 * Finds peers on the local network by multicast DNS, and is found by them. [libp2p]
 *
 * A question for `_p2p._udp.local` goes out at the start and every few seconds. Every node that hears it, of any
 * software that follows the libp2p specification, answers with its addresses. A starting node hears its own first
 * question too, and its answer announces it to all others.
 *
 * Gotchas
 * - Only private and loopback addresses are announced.
 * - Anybody on the local network may answer for anybody. So the `AddressGuard` judges the addresses, with the sender of
 *   the answer as their teller.
 * - Questions leave by the interface of the default route, so a second network is heard but not asked.
 * - mDNS does not tell when a peer leaves.
 * - Container bridges pass multicast only inside themselves; many VPNs, clouds and guest networks drop it. One warning
 *   reports what can be noticed from here.
 */
import type { PeerDiscovery, PeerInfo } from "@libp2p/interface"
import { mdns } from "@libp2p/mdns"
import { CODE_IP4, CODE_TCP, multiaddr } from "@multiformats/multiaddr"
import { Duration, Effect, Layer, Random } from "effect"
import { createSocket, type Socket } from "node:dgram"
import { networkInterfaces } from "node:os"
import type { HostError } from "../../schema/NetworkError.ts"
import { type Multiaddr, type PeerId, withoutPeer } from "../../schema/Peer.ts"
import { Discovery } from "../../services/Discovery.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { Libp2pHost } from "../libp2p/Host.ts"
import * as Supervised from "../Supervised.ts"

/** How peers are looked for on the local network. */
export interface MdnsDiscoveryOptions {
  /** The time between two questions. Defaults to 3 seconds. */
  readonly interval?: Duration.Input
  /** The UDP port of the group 224.0.0.251. Defaults to 5353. */
  readonly port?: number
}

/**
 * Tells `Discovery` of each sighting, repeated sightings too, while the scope lives; nothing without `enableMdns`.
 *
 * Where multicast cannot work, the node starts all the same, and one warning gives the reason.
 */
export const make = Effect.fnUntraced(function*(options: MdnsDiscoveryOptions) {
  const { enableMdns } = yield* NetworkConfig
  if (!enableMdns) return
  const host = yield* Libp2pHost
  const discovery = yield* Discovery
  const run = yield* Supervised.makeRun("sightings by mDNS")
  const interval = Duration.toMillis(Duration.fromInputUnsafe(options.interval ?? "3 seconds"))
  const port = options.port ?? 5353

  yield* host.attach("mdns", (components) => {
    const service = mdns({ interval, port })(components) as AttachedMdns
    // Every sighting matters, since the peer may have been lost meanwhile; libp2p itself reports a peer once.
    service.addEventListener("peer", ({ detail }) => {
      const addresses = detail.multiaddrs.map((address) => ({
        address: withoutPeer(String(address) as Multiaddr),
        tellers: service.answering === undefined ? [] : [service.answering]
      }))
      run(discovery.announce({ id: detail.id.toString() as PeerId, addresses }, "mdns"))
    })
    return answerAsSpecified(service)
  })

  yield* Supervised.fork(
    "the question whether multicast works",
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
 * The reason why multicast DNS cannot work on this machine, or undefined when it does: sends one question to the group,
 * and waits a second for it to come back.
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

/** Members of libp2p's class that its interface lacks. */
interface AttachedMdns extends PeerDiscovery {
  readonly addEventListener: (type: "peer", listener: (event: CustomEvent<PeerInfo>) => void) => void
  start: () => Promise<void>
  /** The sender of the answer that is being read. */
  answering?: Multiaddr
  readonly mdns?: {
    readonly prependListener: (
      event: "response",
      listener: (packet: unknown, sender: { readonly address: string }) => void
    ) => void
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
 * Sorts libp2p's records as the specification has them. libp2p sends all of them as answers, where rust-libp2p does not
 * look for addresses. It sends a text record for each address, and rust-libp2p reads the first record only. And it
 * sends no SRV and A records, without which go-libp2p drops the rest.
 */
function answerAsSpecified(service: AttachedMdns): AttachedMdns {
  const start = service.start.bind(service)
  service.start = async () => {
    await start()
    const multicast = service.mdns
    if (multicast === undefined) return
    // The module removes its own listener when it stops, and an error without a listener ends the process.
    multicast.on("error", () => {})
    // Before libp2p's own listener, which reports the peer in the same turn.
    multicast.prependListener("response", (_, { address }) => {
      // What this machine sends to the group comes back from the address of an interface.
      const isOwn = Object.values(networkInterfaces()).some((all) => all?.some((one) => one.address === address))
      service.answering = `/ip4/${isOwn ? "127.0.0.1" : address}` as Multiaddr
    })
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
  const endpoints = lines.flatMap((line) => {
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
      { ...record, name, type: "SRV", data: { priority: 0, weight: 0, port: endpoints[0]?.port ?? 0, target } },
      ...[...new Set(endpoints.map(({ ip }) => ip))].map((ip) => ({ ...record, name: target, type: "A", data: ip }))
    ]
  }
}

/** Keeps an answer within one datagram that most networks do not fragment. */
const linesMax = 12

/**
 * Sends a question; undefined when it comes back, or what went wrong. Joins and sends on the interfaces that
 * multicast-dns uses.
 */
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
