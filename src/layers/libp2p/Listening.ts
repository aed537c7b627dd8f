/**
 * How the host listens: on the addresses of a configuration, both families on the same port, and later on further ones.
 * [libp2p]
 */
import type { Listener, Transport } from "@libp2p/interface"
import { type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import { Effect } from "effect"
import { HostError } from "../../schema/NetworkError.ts"
import type { Multiaddr } from "../../schema/Peer.ts"
import { isLoopback } from "../../schema/Subnet.ts"
import { toError } from "./Faults.ts"
import type { Components } from "./wire/Components.ts"

/** What is used of libp2p's transport manager. */
export interface Listening {
  readonly listen: (addresses: Array<Libp2pMultiaddr>) => Promise<void>
  readonly getListeners: () => ReadonlyArray<Pick<Listener, "getAddrs">>
}

/**
 * Listens, and resolves with what the operator should know, a line for each. Rejects when an address cannot be listened
 * on.
 *
 * `/ip6/::/tcp/<port>` beside `/ip4/0.0.0.0/tcp/<port>` is its companion: IPv4 is first, also where the port is any
 * free one, and IPv6 gets the same port, or another one where another program has it. A machine without IPv6 listens
 * on IPv4 alone.
 */
export const listenAll = async (
  manager: Listening,
  addresses: ReadonlyArray<Multiaddr>
): Promise<ReadonlyArray<string>> => {
  const ports = addresses.flatMap((address) => addresses.includes(ip6(portOf(address))) ? [portOf(address)] : [])
  const paired = [...new Set(ports)].filter((port) => addresses.includes(ip4(port)))
  const isPaired = (address: Multiaddr) => paired.some((port) => address === ip4(port) || address === ip6(port))
  const notes: Array<string> = []
  const single = addresses.filter((address) => !isPaired(address))
  if (single.length > 0) await manager.listen(single.map((address) => multiaddr(address)))
  for (const port of paired) {
    const before = new Set(manager.getListeners())
    await manager.listen([multiaddr(ip4(port))])
    const own = manager.getListeners().find((listener) => !before.has(listener))?.getAddrs()[0]
    const note = await listenBeside(manager, port, own === undefined ? port : portOf(own.toString()))
    if (note !== undefined) notes.push(note)
  }
  const all = manager.getListeners().flatMap((listener) => listener.getAddrs().map(String))
  if (addresses.some(isWildcard) && all.every((address) => isLoopback(address as Multiaddr))) {
    notes.push("this machine has no network but loopback: nobody outside it can reach this node")
  }
  return notes
}

/**
 * Adds the transport, and listens on the addresses with it. What the operator should know is logged. A transport that
 * cannot listen is removed again.
 */
export const listenOn: (
  components: Components,
  module: string,
  transport: Transport,
  addresses: ReadonlyArray<Multiaddr>
) => Effect.Effect<void, HostError> = Effect.fnUntraced(function*(
  { addressManager, transportManager },
  module,
  transport,
  addresses
) {
  const wanted = addresses.map((address) => multiaddr(address))
  const foreign = wanted.find((address) => transport.listenFilter([address]).length === 0)
  if (foreign !== undefined) {
    return yield* new HostError({
      module,
      detail: `cannot listen on ${foreign}: this is no address of the ${module} transport`
    })
  }
  const notes = yield* Effect.tryPromise({
    try: async () => {
      transportManager.add(transport)
      try {
        const notes = await listenAll(transportManager, addresses)
        confirmOwn({ addressManager, transportManager })
        return notes
      } catch (cause) {
        await transportManager.remove(transport[Symbol.toStringTag] ?? "")
        throw cause
      }
    },
    catch: (cause) => new HostError({ module, detail: listenProblem(addresses, toError(cause)), cause })
  })
  yield* Effect.annotateLogs(Effect.forEach(notes, (note) => Effect.logWarning(note), { discard: true }), {
    component: "network"
  })
})

/** Listens on an address with the transports that are attached, and gives the listeners. */
export const listenAlso: (
  components: Components,
  address: Multiaddr
) => Effect.Effect<ReadonlyArray<Listener>, HostError> = Effect.fnUntraced(function*(components, address) {
  const { transportManager } = components
  const wanted = multiaddr(address)
  const module = transportManager.listenTransportForMultiaddr(wanted)?.[Symbol.toStringTag]?.replace("@libp2p/", "")
  if (module === undefined) {
    return yield* new HostError({
      module: "host",
      detail: `cannot listen on ${address}: no transport of this node listens on such an address`
    })
  }
  return yield* Effect.tryPromise({
    try: async () => {
      const before = new Set(transportManager.getListeners())
      const fresh = () => transportManager.getListeners().filter((listener) => !before.has(listener))
      try {
        await transportManager.listen([wanted])
      } catch (cause) {
        await closeAll(fresh())
        throw cause
      }
      confirmOwn(components)
      return fresh()
    },
    catch: (cause) => new HostError({ module, detail: listenProblem([address], toError(cause)), cause })
  })
})

/** Closes the listeners. One that did not begin to listen has nothing to close. */
export const closeAll = async (listeners: ReadonlyArray<Listener>): Promise<void> => {
  await Promise.allSettled(listeners.map((listener) => listener.close()))
}

/**
 * Announces the public addresses of this machine's own interfaces. libp2p holds them back until a remote has confirmed
 * them, which none does without AutoNAT, so a node on a public address would be known by its private ones alone.
 */
export function confirmOwn(
  { addressManager, transportManager }: Pick<Components, "addressManager" | "transportManager">
): void {
  for (const address of transportManager.getAddrs()) addressManager.confirmObservedAddr(address, { type: "transport" })
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const ip4 = (port: string) => `/ip4/0.0.0.0/tcp/${port}` as Multiaddr
const ip6 = (port: string) => `/ip6/::/tcp/${port}` as Multiaddr
const isWildcard = (address: Multiaddr) => /^\/(?:ip4\/0\.0\.0\.0|ip6\/::)\//.test(address)
const portOf = (address: string) => /\/tcp\/(\d+)$/.exec(address)?.[1] ?? ""

/** Listens on IPv6 at the port that IPv4 has. Resolves with a note where it has another one. */
async function listenBeside(manager: Listening, asked: string, port: string): Promise<string | undefined> {
  try {
    await manager.listen([multiaddr(ip6(port))])
    return undefined
  } catch (cause) {
    // Anything else means that this machine has no IPv6.
    if (!toError(cause).message.includes("EADDRINUSE")) return undefined
  }
  await manager.listen([multiaddr(ip6("0"))])
  if (asked === "0") return undefined
  return `port ${asked} of IPv6 is in use by another program: this node listens there on another port`
}

// libp2p joins the failures of all addresses in one text, each with its stack.
function listenProblem(addresses: ReadonlyArray<Multiaddr>, error: Error): string {
  const [address, part] = addresses
    .map((address) => [address, error.message.split(`\n  ${address}: `)[1]?.split("\n\n")[0]] as const)
    .find(([, part]) => part !== undefined) ?? [addresses.join(", "), error.message]
  const code = /\bE[A-Z]{4,}\b/.exec(part ?? "")?.[0]
  const known = code === undefined ? undefined : listenProblems[code]
  return `cannot listen on ${address}: ${known ?? (part ?? error.message).split("\n")[0]}`
}

const listenProblems: Record<string, string | undefined> = {
  EADDRINUSE: "the port is in use by another program; choose another one, or 0 for any free port",
  EACCES: "this user may not listen on that port; choose one from 1024 up, or 0 for any free port",
  EADDRNOTAVAIL: "this machine has no such address; listen on /ip4/0.0.0.0 for all of them"
}
