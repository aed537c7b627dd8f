/**
 * Listens on the addresses of a configuration, both families on the same port.
 * [libp2p]
 */
import type { Listener } from "@libp2p/interface"
import { type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import type { Multiaddr } from "../../schema/Peer.ts"
import { isLoopback } from "../../schema/Subnet.ts"
import { toError } from "./Faults.ts"

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
