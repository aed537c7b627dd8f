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
import { multiaddr } from "@multiformats/multiaddr"
import { Socket } from "node:net"
import type { Components } from "./Components.ts"
import { assertMembers, silentLogger } from "./LeanedOn.ts"

/** A TCP connection with its private members. */
interface SocketConnection extends MultiaddrConnection {
  readonly socket: Socket
  sendData: (data: Iterable<Uint8Array> & { readonly byteLength: number }) => {
    readonly sentBytes: number
    readonly canSendMore: boolean
  }
}

export const gatheringTcp = (components: Components): Transport => {
  // Pings find silent peers, and allow for a process that stood still. A socket's timer does not: after a pause of two
  // minutes it would close every connection before the bytes that arrived meanwhile are read.
  const transport = tcp({ inboundSocketInactivityTimeout: 0, outboundSocketInactivityTimeout: 0 })(components)
  const dial = transport.dial.bind(transport)
  const createListener = transport.createListener.bind(transport)
  return Object.assign(transport, {
    dial: (address: Parameters<Transport["dial"]>[0], options: DialTransportOptions) =>
      dial(address, { ...options, upgrader: gathering(options.upgrader) }),
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
