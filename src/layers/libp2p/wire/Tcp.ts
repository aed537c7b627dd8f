/**
 * TCP that gives the parts of a frame to the system in one write.
 *
 * Stock TCP writes each part of an encrypted frame (length, header, body, tag) with a call of its own, and after a part
 * that fills the socket's buffer it waits for the buffer to drain. Gathering all frames of a turn was slower where each
 * request waits for the last answer: 0.81 to 0.86 of plain js-libp2p's speed, against 0.97 to 1.14.
 */
import type {
  CreateListenerOptions,
  DialTransportOptions,
  MultiaddrConnection,
  Transport,
  Upgrader
} from "@libp2p/interface"
import { tcp } from "@libp2p/tcp"
import { type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import { isIP, type LookupFunction, Socket } from "node:net"
import type { Components } from "./Components.ts"
import { assertMembers, silentLogger } from "./LeanedOn.ts"
import * as Lookup from "./Lookup.ts"

/** A TCP connection with its private members. */
interface SocketConnection extends MultiaddrConnection {
  readonly socket: Socket
  sendData: (data: Iterable<Uint8Array> & { readonly byteLength: number }) => {
    readonly sentBytes: number
    readonly canSendMore: boolean
  }
}

/**
 * Says of an address that is about to be dialled which IP addresses a socket may connect to for it. Undefined for an
 * address that the program gave, which is dialled wherever it leads.
 */
export type JudgeOf = (address: Libp2pMultiaddr) => Lookup.Judge | undefined

/** TCP whose sockets connect nowhere that `judgeOf` does not allow. */
export const gatheringTcp = (judgeOf: JudgeOf, resolve?: Lookup.Resolve) => (components: Components): Transport => {
  // Pings find silent peers, and allow for a process that stood still. A socket's timer does not: after a pause of two
  // minutes it would close every connection before the bytes that arrived meanwhile are read.
  const transport = tcp({ inboundSocketInactivityTimeout: 0, outboundSocketInactivityTimeout: 0 })(components)
  const dial = transport.dial.bind(transport)
  const createListener = transport.createListener.bind(transport)
  return Object.assign(transport, {
    dial: async (address: Libp2pMultiaddr, options: DialTransportOptions) => {
      const dialled: DialTransportOptions & { readonly lookup: LookupFunction } = {
        ...options,
        upgrader: gathering(options.upgrader),
        lookup: lookupFor(address, judgeOf(address), resolve)
      }
      return dial(address, dialled)
    },
    createListener: (options: CreateListenerOptions) =>
      createListener({ ...options, upgrader: gathering(options.upgrader) })
  })
}

/**
 * Rejects with a `HostError` unless TCP's connections and listeners have the private members that are used here and in
 * `Faults.ts`. Nothing is dialled.
 */
export const assertTcp = async (
  components: Components,
  make: (components: Components) => Transport = tcp()
): Promise<void> => {
  const transport = make(components)
  assertMembers("@libp2p/tcp", transport, { _connect: "function" })
  assertMembers("@libp2p/tcp", transport.createListener({ upgrader: components.upgrader }), listenerMembers)
  const socket = new Socket()
  const unconnected = Object.assign(Object.create(transport) as Transport, {
    _connect: async () => socket,
    log: silentLogger
  })
  let made: MultiaddrConnection | undefined
  // A dial calls this member of the upgrader alone.
  const upgrader = {
    upgradeOutbound: async (connection: MultiaddrConnection) => {
      made = connection
    }
  } as unknown as Upgrader
  await unconnected.dial(multiaddr("/ip4/127.0.0.1/tcp/1"), { upgrader, signal: new AbortController().signal })
  socket.destroy()
  assertMembers("@libp2p/tcp", made, connectionMembers)
}

/** What {@link assertTcp} asserts of a listener. */
export const listenerMembers = { sockets: "object" } as const

/** What {@link assertTcp} asserts of a connection. */
export const connectionMembers = { sendData: "function", "socket.cork": "function" } as const

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The lookup that TCP hands to the socket. A socket asks for no lookup when the host is an IP address, in whichever
 * part of the address it stands, so that one is judged here: throws when it may not be dialled.
 */
function lookupFor(
  address: Libp2pMultiaddr,
  judge: Lookup.Judge | undefined,
  resolve: Lookup.Resolve | undefined
): LookupFunction {
  const [{ name, value = "" } = { name: "" }] = address.getComponents()
  const family = Lookup.familyOf(name)
  if (judge === undefined) return Lookup.ownLookup(family)
  if (!toldProtocols.has(name) || isIP(value) !== 0 && !judge(value)) {
    throw new Lookup.NotDialled(String(address), isIP(value) === 0 ? [] : [{ address: value, family: isIP(value) }])
  }
  return Lookup.toldLookup(family, judge, resolve)
}

const toldProtocols: ReadonlySet<string> = new Set(["ip4", "ip6", "dns", "dns4", "dns6"])

// A transport gives each connection to the upgrader before it writes to it.
function gathering(upgrader: Upgrader): Upgrader {
  return new Proxy(upgrader, {
    get: (target, name) => {
      const member: unknown = Reflect.get(target, name)
      if (typeof member !== "function") return member
      if (name !== "upgradeInbound" && name !== "upgradeOutbound") return member.bind(target)
      return (connection: MultiaddrConnection, ...rest: ReadonlyArray<unknown>) => {
        gather(connection)
        return member.call(target, connection, ...rest)
      }
    }
  })
}

function gather(connection: MultiaddrConnection): void {
  const { socket } = connection as SocketConnection
  ;(connection as SocketConnection).sendData = (data) => {
    socket.cork()
    for (const bytes of data) socket.write(bytes)
    socket.uncork()
    return { sentBytes: data.byteLength, canSendMore: !socket.writableNeedDrain }
  }
}
