/**
 * Faults of libp2p 3.3 and what is done about each from outside, one function for each fault.
 *
 * `test/layers/libp2p/Faults.live.test.ts` shows each fault on plain libp2p, so that it fails once a fault is mended
 * and the cure can go.
 */
import type { Connection, Libp2p, Listener, Peer } from "@libp2p/interface"
import type { Components } from "./wire/Components.ts"
import { assertMembers, connectionToNowhere } from "./wire/LeanedOn.ts"
import { muxerOf } from "./wire/Yamux.ts"

/**
 * The error in what libp2p throws: some of its promises reject with an Event, whose `error` may hold the reason.
 */
export const toError = (thrown: unknown): Error => {
  if (thrown instanceof Error) return thrown
  const event = thrown as { readonly error?: unknown; readonly type?: unknown } | null | undefined
  if (event?.error instanceof Error) return event.error
  return new Error(typeof event?.type === "string" ? `stream ${event.type}` : String(thrown))
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
 * Dials, and again for up to a second while what ends the dial is another dial's abort. Rejects with what ended the
 * last one.
 *
 * Fault: libp2p lets a dial join one to the same peer that its caller has just given up, and fails both. Nobody had
 * aborted the second.
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
      // The dial that was given up leaves libp2p's queue in a later turn.
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
}

/**
 * Closes a connection: what was written to streams whose write half has ended is sent, the other streams are reset, and
 * after `millis` the connection is aborted. Never rejects.
 *
 * Faults: a graceful close ends streams in the middle of their data as if that were all of it. It closes the socket
 * while data is on its way, and what the remote then writes resets it, with the data that the remote has yet to take
 * from its socket (550 kB of 1 MB were seen lost); so where a stream has just ended, a round trip of the muxer first
 * tells that the remote has all. And it hangs when both ends close at once, or when the remote does not read.
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
 * Waits until the remote has what was written to streams whose write half has ended, or until the connection closes.
 * Rejects only with the signal's reason.
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
 * Lets the peer store skip what it has been told, and the protocols given, of which identify tells it: whether the
 * remote answers them, a stream does not say when it was opened eagerly, or by the remote.
 *
 * Fault: libp2p stores the protocol of every stream, in and out, before it hands the stream over: more than half of the
 * cost of a short stream. Told again of a protocol while the peer is connected, the store has nothing to do.
 */
export const rememberProtocols = (components: Components, untold: ReadonlyArray<string>): void => {
  const told = new Map<string, { readonly stored: Peer; readonly protocols: Set<string> }>()
  const { peerStore } = components
  const merge = peerStore.merge.bind(peerStore)
  peerStore.merge = async (id, data, options) => {
    const [protocol, ...others] = data.protocols ?? []
    if (protocol === undefined || others.length > 0 || Object.keys(data).length > 1) return merge(id, data, options)
    // Its own protocols, which the registrar tells it one by one, are what identify tells others.
    if (untold.includes(protocol) && !id.equals(components.peerId)) {
      return { id, addresses: [], protocols: [protocol], metadata: new Map(), tags: new Map() }
    }
    const peer = id.toString()
    const known = told.get(peer)
    if (known?.protocols.has(protocol) === true) return known.stored
    const stored = await merge(id, data, options)
    // Only of connected peers, which bounds the map.
    if (components.connectionManager.getConnections(id).length > 0) {
      told.set(peer, { stored, protocols: (told.get(peer)?.protocols ?? new Set()).add(protocol) })
    }
    return stored
  }
  components.events.addEventListener("peer:disconnect", ({ detail }) => told.delete(detail.toString()))
}

/**
 * Ends a node within `deadline` whatever the remotes do. Made before the node starts; `stop` may be called more than
 * once.
 *
 * Faults: `stop` during `start` returns at once and the node starts all the same; closing a TCP listener destroys the
 * inbound sockets while data is unsent, since all parts stop at the same time; and `stop` waits for ever for a socket
 * whose remote has closed its half and reads no more. So connections are closed first, then the sockets that are left
 * are destroyed, then the node is stopped.
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
    // stop() forgets them.
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

/** Private members of a connection that are used here and in `wire/Yamux.ts`. */
export const connectionMembers = { maConn: "object", muxer: "object" } as const

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

// An error takes its stack when it is made: one is enough for all streams that close.
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

// The end of a write half has no event of its own, so it is looked for.
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
