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
import type { JudgeOf } from "./wire/Tcp.ts"

export interface Gater {
  /** For libp2p. */
  readonly gater: ConnectionGater
  /** Behind `Transport.gate`; one rule at a time. */
  readonly gate: (rule: GateRule) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Dials addresses whose origin the caller knows. The rule is not asked for those without tellers, which the program
   * gave, and is told of the tellers of the others (`stage: "dial"`).
   */
  readonly dialing: <A>(addresses: ReadonlyArray<Origin>, dial: () => Promise<A>) => Promise<A>
  /**
   * The judge of the sockets for an address, which asks the rule for each IP address. Undefined for an address that the
   * program gave.
   */
  readonly judgeOf: JudgeOf
  /** Lets no connection of the transport in any more. */
  readonly endAcceptance: (transport: Libp2pTransport) => void
}

/** An address that is dialled, and who told it: undefined for the program itself. */
export interface Origin {
  readonly address: Libp2pMultiaddr
  readonly tellers: ReadonlyArray<Multiaddr> | undefined
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
  const dials = makeDials()
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
  // The question whether an address may be dialled; undefined for one that the program gave.
  const dialRequest = (address: Libp2pMultiaddr) => {
    const given = address.toString() as Multiaddr
    const remoteAddress = withoutPeer(given)
    const { isOwn, tellers } = dials.originOf(remoteAddress)
    if (isOwn) return undefined
    const peer = peerOf(given)
    const expected = peer === undefined ? {} : { peer }
    return { stage: "dial", direction: "outbound", remoteAddress, tellers, ...expected } as const
  }
  return {
    gater: {
      denyDialMultiaddr: (address) => {
        const request = dialRequest(address)
        return request !== undefined && answer(request) !== true
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
    dialing: dials.during,
    judgeOf: (address) => {
      const request = dialRequest(address)
      if (request === undefined) return undefined
      const port = /\/tcp\/\d+/.exec(request.remoteAddress)?.[0] ?? ""
      return (ip) =>
        answer({ ...request, resolved: `/ip${ip.includes(":") ? 6 : 4}/${ip}${port}` as Multiaddr }) === true
    },
    endAcceptance: (transport) => void ended.add(transport)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Dials {
  count: number
  /** How many of the dials are the program's own. */
  own: number
  readonly tellers: Array<ReadonlyArray<Multiaddr>>
}

/** The addresses that are being dialled by a caller that knows where they come from. */
function makeDials() {
  const dials = new Map<string, Dials>()
  const begin = (address: string, tellers: Origin["tellers"]) => {
    const found = dials.get(address) ?? { count: 0, own: 0, tellers: [] }
    dials.set(address, found)
    found.count++
    if (tellers === undefined) found.own++
    else found.tellers.push(tellers)
    return () => {
      if (tellers === undefined) found.own--
      else found.tellers.splice(found.tellers.indexOf(tellers), 1)
      if (--found.count === 0) dials.delete(address)
    }
  }
  const during: Gater["dialing"] = async (origins, dial) => {
    const ends = origins.flatMap(({ address, tellers }) => askedOf(address).map((asked) => begin(asked, tellers)))
    try {
      return await dial()
    } finally {
      for (const end of ends) end()
    }
  }
  return {
    originOf: (address: string): { readonly isOwn: boolean; readonly tellers: ReadonlyArray<Multiaddr> } => {
      const found = dials.get(address)
      return { isOwn: found !== undefined && found.own > 0, tellers: found?.tellers.flat() ?? [] }
    },
    during
  }
}

// The addresses for which libp2p asks the gater when it dials this one: a relayed address begins with a dial of the
// relay.
function askedOf(address: Libp2pMultiaddr): ReadonlyArray<string> {
  const given = withoutPeer(address.toString() as Multiaddr)
  const [relay, ...rest] = given.split("/p2p-circuit")
  return rest.length === 0 ? [given] : [given, withoutPeer(relay as Multiaddr)]
}
