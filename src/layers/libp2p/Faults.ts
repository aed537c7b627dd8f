/**
 * Faults of libp2p 3.3, each mended from outside by one function.
 *
 * `test/layers/libp2p/Faults.live.test.ts` shows each fault on plain libp2p. A spec there fails once libp2p mends the
 * fault, and the function can go.
 */
import type { Connection, Libp2p, Listener, Peer } from "@libp2p/interface"
import type { Multiaddr as Libp2pMultiaddr } from "@multiformats/multiaddr"
import type { Multiaddr } from "../../schema/Peer.ts"
import type { Components } from "./wire/Components.ts"
import { assertMembers, connectionToNowhere } from "./wire/LeanedOn.ts"
import { muxerOf } from "./wire/Yamux.ts"

/**
 * The error in a value that libp2p throws: some of its promises reject with an Event, whose `error` may hold the
 * reason.
 */
export const toError = (thrown: unknown): Error => {
  if (thrown instanceof Error) return thrown
  const event = thrown as { readonly error?: unknown; readonly type?: unknown } | null | undefined
  if (event?.error instanceof Error) return event.error
  return new Error(typeof event?.type === "string" ? `stream ${event.type}` : String(thrown))
}

/**
 * The text of an address that another node told; undefined where it has none.
 *
 * Fault: bytes become a multiaddr without a look at the value of each part, and `toString` throws for some, such as an
 * `http-path` that begins with an emoji. Thrown where nobody waits, it would end the process.
 */
export const textOf = (address: Libp2pMultiaddr): Multiaddr | undefined => {
  try {
    return address.toString() as Multiaddr
  } catch {
    return undefined
  }
}

/**
 * Runs an operation with a signal that is aborted when the target closes, or together with another signal.
 *
 * Fault: operations that wait for an event of a connection or stream may begin to wait after it has closed, and then
 * wait for ever.
 */
export const untilClosed = async <A>(
  target: Closing | undefined,
  operation: (signal: AbortSignal) => Promise<A>,
  interrupted?: AbortSignal
): Promise<A> => {
  const controller = new AbortController()
  const close = () => controller.abort(closed)
  const interrupt = () => controller.abort(interrupted?.reason)
  target?.addEventListener("close", close)
  interrupted?.addEventListener("abort", interrupt)
  try {
    return await operation(controller.signal)
  } finally {
    target?.removeEventListener("close", close)
    interrupted?.removeEventListener("abort", interrupt)
  }
}

/**
 * Like {@link untilClosed}, and the signal is aborted after `millis` too. Rejects with an error, never with an event.
 *
 * Unlike with `AbortSignal.timeout`, the timer ends with the operation, and it keeps the process alive: libp2p itself
 * waits on timers that do not.
 */
export const within = async <A>(
  millis: number,
  operation: (signal: AbortSignal) => Promise<A>,
  target?: Closing
): Promise<A> => {
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(new Error(`not done within ${millis} ms`)), millis)
  try {
    return await untilClosed(target, operation, late.signal)
  } catch (cause) {
    throw toError(cause)
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Dials, and dials again for up to a second while another dial's abort ends it. Rejects with the last error.
 *
 * Fault: libp2p lets a dial join another dial of the peer that its caller has just given up, and fails both, though
 * nobody aborted the second.
 */
export const dialUnjoined = async <A>(dial: () => Promise<A>, signal: AbortSignal): Promise<A> => {
  const start = performance.now()
  for (;;) {
    try {
      return await dial()
    } catch (thrown) {
      const cause = toError(thrown)
      const isJoined = cause.name === "AbortError" && !signal.aborted && performance.now() - start < joinMillis
      if (!isJoined) throw cause
      // The dial that was given up leaves libp2p's queue in a later turn. Where it does not, the waits grow.
      const waited = performance.now() - start
      await new Promise((resolve) => setTimeout(resolve, waited / 4))
    }
  }
}

/**
 * Closes a connection: sends what was written to streams whose write half has ended, resets the others, and aborts the
 * connection after `millis`. Never rejects.
 *
 * Faults: a graceful close ends streams in the middle of their data, as if that were all of it. It closes the socket
 * while data is on its way; what the remote writes then resets the socket, with the data that the remote has not yet
 * read from it (550 kB of 1 MB were seen lost). So a round trip of the muxer first shows that the remote has the data
 * of streams that have just ended. And a graceful close hangs when both ends close at once, or when the remote does not
 * read.
 */
export const closeConnection = async (connection: Connection, millis: number): Promise<void> => {
  if (connection.status === "closed") return
  try {
    await within(millis, async (signal) => {
      for (const stream of [...connection.streams]) {
        if (stream.writeStatus === "writable") stream.abort(new Error("the connection is closed by this side"))
      }
      await flush(connection, signal)
      await connection.close({ signal })
    }, connection)
  } catch (cause) {
    connection.abort(toError(cause))
  }
}

/**
 * Aborts the connection when its close, by whichever side, has taken `millis`. To be called when the connection opens.
 *
 * Fault: a close waits until what is unsent has left. When the remote of a relayed connection ends its half, libp2p
 * closes this side's half without a time limit; when a close with a time limit misses it, as DCUtR's close may, the
 * connection stays as it is. From then on it is neither open nor closed: it takes no streams, the streams that it has
 * wait, and no event comes.
 */
export const closeInTime = (connection: Connection, millis: number): void => {
  let timer: ReturnType<typeof setTimeout> | undefined
  const begin = () => {
    timer ??= setTimeout(() => connection.abort(new Error(`the connection did not close within ${millis} ms`)), millis)
  }
  connection.addEventListener("close", () => clearTimeout(timer), { once: true })
  // `maConn` is private: its close has no event before its end, and no other call leads to it.
  const { maConn } = connection as { readonly maConn?: Pick<Connection, "close"> }
  for (const closing of maConn === undefined ? [connection] : [connection, maConn]) {
    const close = closing.close.bind(closing)
    closing.close = (options) => {
      if (!ended.has(connection.status)) begin()
      return close(options)
    }
  }
  if (connection.status === "closing") begin()
}

/**
 * Waits until the remote has the data of streams whose write half has ended, or until the connection closes. Rejects
 * only with the signal's reason.
 */
export const flushConnection = async (connection: Connection, interrupted: AbortSignal): Promise<void> => {
  if (connection.status === "closed") return
  try {
    await untilClosed(connection, (signal) => flush(connection, signal), interrupted)
  } catch (cause) {
    if (interrupted.aborted) throw toError(cause)
  }
}

/**
 * Skips writes that would tell the peer store nothing new. Protocols in `untold` are never written from streams: an
 * eager or inbound stream does not prove that the remote speaks them; identify does.
 *
 * Fault: libp2p stores the protocol of every stream, in and out, before it hands the stream over, which is more than
 * half of the cost of a short stream. While the peer stays connected, the second write of a protocol changes nothing.
 */
export const rememberProtocols = (components: Components, untold: ReadonlyArray<string>): void => {
  const told = new Map<string, { readonly stored: Peer; readonly protocols: Set<string> }>()
  const { peerStore } = components
  const merge = peerStore.merge.bind(peerStore)
  peerStore.merge = async (id, data, options) => {
    const [protocol, ...others] = data.protocols ?? []
    if (protocol === undefined || others.length > 0 || Object.keys(data).length > 1) return merge(id, data, options)
    // The node's own protocols come from the registrar one by one, and identify sends them to others.
    if (untold.includes(protocol) && !id.equals(components.peerId)) {
      return { id, addresses: [], protocols: [protocol], metadata: new Map(), tags: new Map() }
    }
    const peer = id.toString()
    const known = told.get(peer)
    if (known?.protocols.has(protocol) === true) return known.stored
    const stored = await merge(id, data, options)
    // Connected peers only, which bounds the map.
    if (components.connectionManager.getConnections(id).length > 0) {
      told.set(peer, { stored, protocols: (told.get(peer)?.protocols ?? new Set()).add(protocol) })
    }
    return stored
  }
  components.events.addEventListener("peer:disconnect", ({ detail }) => told.delete(detail.toString()))
}

/**
 * Stops a node within `deadline`, whatever the remotes do. Made before the node starts; `stop` may be called more than
 * once.
 *
 * Faults: `stop` during `start` returns at once, and the node starts all the same. All parts stop at the same time, so
 * the TCP listener destroys inbound sockets while data is unsent. And `stop` waits for ever for a socket whose remote
 * has closed its half and no longer reads. So connections are closed first, then the remaining sockets are destroyed,
 * then the node is stopped.
 */
export const guardNode = (
  node: Libp2p,
  components: Components,
  options: { readonly grace: number; readonly deadline: number }
) => {
  const connections = new Set<Connection>()
  const sockets = new Set<Destroyable>()
  let stopping: Promise<boolean> | undefined

  const opened = (event: CustomEvent<Connection>) => {
    const connection = event.detail
    // A connection that has closed already tells nobody of it again.
    if (connection.status === "closed") return
    connections.add(connection)
    // `maConn` and its `socket` are private fields: no public call destroys a socket that waits for its remote.
    const socket = (connection as { readonly maConn?: { readonly socket?: Destroyable } }).maConn?.socket
    if (socket !== undefined && !socket.destroyed) {
      sockets.add(socket)
      socket.once("close", () => sockets.delete(socket))
    }
    connection.addEventListener("close", () => connections.delete(connection), { once: true })
    if (stopping !== undefined) queueMicrotask(() => connection.abort(new Error("the node is stopping")))
  }
  node.addEventListener("connection:open", opened)

  const run = async (): Promise<boolean> => {
    // node.stop() forgets its listeners.
    const listeners = components.transportManager.getListeners()
    await Promise.all([...connections].map((connection) => closeConnection(connection, options.grace)))
    const destroy = () => {
      // `sockets` is private, see above.
      for (const listener of listeners as ReadonlyArray<Listener & { readonly sockets?: Iterable<Destroyable> }>) {
        for (const socket of listener.sockets ?? []) socket.destroy()
      }
      for (const socket of sockets) socket.destroy()
    }
    destroy()
    const stopped = Promise.resolve(node.stop()).catch(() => {})
    const again = setInterval(destroy, 100)
    const inTime = await settled(stopped, options.deadline)
    clearInterval(again)
    destroy()
    for (const connection of connections) connection.abort(new Error("the node has stopped"))
    node.removeEventListener("connection:open", opened)
    return inTime
  }
  return {
    /** True when the node has stopped, false when the deadline passed first. */
    stop: (): Promise<boolean> => stopping ??= run()
  }
}

/** Private members of libp2p's address manager that are used here. */
export const addressMembers = { "_updatePeerStoreAddresses.stop": "function" } as const

/**
 * Tells connected peers by identify what has changed in the node's own record, a second after the change. `end` calls
 * off what is still to come; to be called when the node has stopped.
 *
 * Fault: libp2p stores the node's addresses a second after they change, and pushes them a second later. A listener that
 * closes with the node is such a change. The timers of both run on, and keep the process alive for up to two seconds.
 */
export const pushUpdates = (
  node: Pick<Libp2p, "addEventListener" | "removeEventListener">,
  { addressManager }: Components,
  push: () => Promise<void>
): { readonly end: () => void } => {
  let timer: ReturnType<typeof setTimeout> | undefined
  const changed = () => {
    clearTimeout(timer)
    // Its failures are logged by libp2p.
    timer = setTimeout(() => void push().catch(() => {}), pushMillis)
  }
  node.addEventListener("self:peer:update", changed)
  return {
    end: () => {
      node.removeEventListener("self:peer:update", changed)
      clearTimeout(timer)
      // A private member, which `addressMembers` asserts.
      const own = addressManager as unknown as { readonly _updatePeerStoreAddresses: { readonly stop: () => void } }
      own._updatePeerStoreAddresses.stop()
    }
  }
}

/** Private members of a connection that are used here, in `Connection.ts` and in `wire/Yamux.ts`. */
export const connectionMembers = { "maConn.close": "function", muxer: "object" } as const

/**
 * Throws a `HostError` unless libp2p's connections have the private members that are used. The one made here opens
 * nothing.
 */
export const assertConnection = (components: Components): void => {
  assertMembers("libp2p", components.upgrader, { _createConnection: "function" })
  // It tells nobody of the connection that it makes.
  const upgrader = Object.assign(Object.create(components.upgrader) as ConnectionMaker, {
    events: { safeDispatchEvent: () => true }
  })
  const muxer = { protocol: "/none", streams: [], addEventListener: () => {} }
  const connection = upgrader._createConnection({
    id: "none",
    maConn: connectionToNowhere(),
    muxer,
    remotePeer: components.peerId,
    direction: "outbound"
  })
  assertMembers("libp2p", connection, connectionMembers)
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const joinMillis = 1000
const pushMillis = 1000

const ended: ReadonlySet<Connection["status"]> = new Set(["closed", "aborted", "reset"])

// Shared by all streams, since making an error takes its stack.
const closed = new Error("closed")

interface ConnectionMaker {
  readonly _createConnection: (options: object) => Connection
}

interface Closing {
  readonly addEventListener: (event: "close", listener: () => void) => void
  readonly removeEventListener: (event: "close", listener: () => void) => void
}

interface Destroyable {
  readonly destroyed: boolean
  readonly destroy: () => void
  readonly once: (event: "close", listener: () => void) => void
}

async function flush(connection: Connection, signal: AbortSignal): Promise<void> {
  const ending = connection.streams.filter(({ writeStatus }) => writeStatus !== "writable")
  await until(
    signal,
    () => ending.every(({ status, writeStatus }) => writeStatus === "closed" || status !== "open")
  )
  if (ending.some(({ status }) => status === "open")) await muxerOf(connection)?.ping({ signal })
}

// Polls, since the end of a write half has no event of its own.
function until(signal: AbortSignal, done: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (!done() && !signal.aborted) return
      clearInterval(timer)
      if (signal.aborted) reject(signal.reason)
      else resolve()
    }
    const timer = setInterval(look, 5)
    look()
  })
}

function settled(promise: Promise<unknown>, millis: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), millis)
    void promise.then(() => {
      clearTimeout(timer)
      resolve(true)
    })
  })
}
