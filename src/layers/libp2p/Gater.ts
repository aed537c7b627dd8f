/**
 * What libp2p asks before it dials, accepts or keeps a connection, answered by the one rule of `Transport.gate`.
 * [libp2p]
 */
import type {
  ComponentLogger,
  ConnectionGater,
  MultiaddrConnection,
  PeerId as Libp2pPeerId,
  Transport as Libp2pTransport
} from "@libp2p/interface"
import type { Multiaddr as Libp2pMultiaddr } from "@multiformats/multiaddr"
import { type Context, Effect, type Scope } from "effect"
import type { RefusalReason } from "../../schema/NetworkEvent.ts"
import { type Direction, type Multiaddr, type PeerId, peerOf, withoutPeer } from "../../schema/Peer.ts"
import type { GateRequest, GateRule } from "../../services/Transport.ts"
import { toError } from "./Faults.ts"
import type { Components } from "./wire/Components.ts"

export interface Gater {
  /** For libp2p. */
  readonly gater: ConnectionGater
  /** Behind `Transport.gate`; one rule at a time. */
  readonly gate: (rule: GateRule) => Effect.Effect<void, never, Scope.Scope>
  /** Dials addresses that the caller chose, so that the rule is not asked for them (`stage: "dial"`). */
  readonly dialChosen: <A>(addresses: ReadonlyArray<Libp2pMultiaddr>, dial: () => Promise<A>) => Promise<A>
  /** Lets no connection of the transport in any more. */
  readonly endAcceptance: (transport: Libp2pTransport) => void
}

export interface GaterOptions {
  readonly components: () => Components
  readonly logger: ComponentLogger
  /** What the rule runs with. */
  readonly context: Context.Context<never>
  /** Tells the remote of a refused connection why. libp2p closes the connection when the promise has resolved. */
  readonly refuse: (connection: MultiaddrConnection, reason: RefusalReason) => Promise<void>
}

export const make = ({ components, context, logger, refuse }: GaterOptions): Gater => {
  let rule: GateRule | undefined
  const chosen = makeChosen()
  // Transports whose acceptance has ended.
  const ended = new Set<Libp2pTransport>()
  const pending = new Map<MultiaddrConnection, Multiaddr>()

  const answer = (request: GateRequest): boolean | RefusalReason => {
    if (rule === undefined) return request.direction === "outbound"
    try {
      return Effect.runSyncWith(context)(rule(request))
    } catch (cause) {
      logger.forComponent("codio:gate").error("the gate's rule failed, refusing - %e", toError(cause))
      return false
    }
  }
  const refuses = (direction: Direction, peer: Libp2pPeerId, connection: MultiaddrConnection) => {
    const answered = answer({
      stage: "peer",
      direction,
      peer: peer.toString() as PeerId,
      remoteAddress: withoutPeer(connection.remoteAddr.toString() as Multiaddr)
    })
    if (typeof answered === "boolean") return !answered
    return refuse(connection, answered).then(() => true)
  }
  return {
    gater: {
      denyDialMultiaddr: (address) => {
        const given = address.toString() as Multiaddr
        const remoteAddress = withoutPeer(given)
        if (chosen.has(remoteAddress)) return false
        const peer = peerOf(given)
        const expected = peer === undefined ? {} : { peer }
        return answer({ stage: "dial", direction: "outbound", remoteAddress, ...expected }) !== true
      },
      denyInboundConnection: (connection) => {
        const transport = components().transportManager.dialTransportForMultiaddr(connection.remoteAddr)
        if (transport !== undefined && ended.has(transport)) return true
        const remoteAddress = withoutPeer(connection.remoteAddr.toString() as Multiaddr)
        const others = [...pending.values()]
        if (answer({ stage: "address", direction: "inbound", remoteAddress, pending: others }) !== true) return true
        // Pending until the second stage, or until the handshake fails, which closes the connection.
        pending.set(connection, remoteAddress)
        connection.addEventListener("close", () => pending.delete(connection), { once: true })
        return false
      },
      denyInboundUpgradedConnection: (peer, connection) => {
        pending.delete(connection)
        return refuses("inbound", peer, connection)
      },
      denyOutboundUpgradedConnection: (peer, connection) => refuses("outbound", peer, connection)
    },
    gate: (next) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          if (rule !== undefined) return Effect.die(new Error("a gate's rule is installed already; only one at a time"))
          rule = next
          return Effect.void
        }),
        () => Effect.sync(() => rule = undefined)
      ),
    dialChosen: chosen.during,
    endAcceptance: (transport) => void ended.add(transport)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// A dnsaddr resolves to addresses that cannot be told from others: while one is dialled, the rule is asked for none.
const anyAddress = "/dnsaddr"

/** Addresses that are being dialled because a caller chose them, each with its number of dials. */
function makeChosen() {
  const dials = new Map<string, number>()
  const during: Gater["dialChosen"] = async (addresses, dial) => {
    const asked = addresses.flatMap(askedOf)
    for (const address of asked) dials.set(address, (dials.get(address) ?? 0) + 1)
    try {
      return await dial()
    } finally {
      for (const address of asked) {
        const left = (dials.get(address) ?? 1) - 1
        if (left === 0) dials.delete(address)
        else dials.set(address, left)
      }
    }
  }
  return { has: (address: string): boolean => dials.has(address) || dials.has(anyAddress), during }
}

// The addresses for which libp2p asks the gater when it dials this one: a relayed address begins with a dial of the
// relay.
function askedOf(address: Libp2pMultiaddr): ReadonlyArray<string> {
  const given = withoutPeer(address.toString() as Multiaddr)
  if (given.startsWith(`${anyAddress}/`)) return [anyAddress]
  const [relay, ...rest] = given.split("/p2p-circuit")
  return rest.length === 0 ? [given] : [given, withoutPeer(relay as Multiaddr)]
}
