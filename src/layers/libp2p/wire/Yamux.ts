/**
 * Yamux as the host uses it: stock Yamux whose muxers are changed from outside, each before anybody has it.
 *
 * What this library uses of Yamux's private members is described here alone, and {@link assertYamux} checks it at
 * start.
 */
import { yamux } from "@chainsafe/libp2p-yamux"
import type {
  Connection,
  MessageStream,
  Stream,
  StreamMessageEvent,
  StreamMuxer,
  StreamMuxerFactory
} from "@libp2p/interface"
import * as StreamBudget from "../../StreamBudget.ts"
import { assertMembers, connectionToNowhere } from "./LeanedOn.ts"

/**
 * A stream with more unsent bytes gets no further ones. What is unsent leaves as one frame, and rust-yamux closes the
 * connection for a frame of 1 MiB.
 */
export const unsentBytesMax = 128 * 1024

/** A stream with its private members. */
export interface YamuxStream extends Stream {
  sendWindowUpdate: () => void
  /** Init 0, SYNSent 1, SYNReceived 2, Established 3, Finished 4, Paused 5. */
  readonly state: number
  /** Bytes of a full window. */
  recvWindow: number
  /** Bytes to which a full window may grow. */
  maxStreamWindowSize: number
  /** Bytes of the window that the remote may still send. */
  readonly recvWindowCapacity: number
  /** Takes what has arrived for the stream. */
  onData: (data: StreamMessageEvent["data"]) => void
}

/** A muxer with its private members. */
export interface YamuxMuxer extends StreamMuxer {
  /** Makes the streams of both directions. */
  _newStream: (...options: ReadonlyArray<unknown>) => YamuxStream
  onCreateStream: (options: unknown) => YamuxStream
  onRemoteStream: (stream: YamuxStream) => void
  /** Sends a frame; false when the connection takes no more for now. */
  send: (frame: StreamMessageEvent["data"]) => boolean
  handleStreamMessage: (frame: Frame) => void
  handleGoAway: (code: number) => void
  readonly sendGoAway: (code: number) => void
  /** The code with which the remote ended the session. */
  readonly remoteGoAway?: number
  readonly ping: (options: { readonly signal: AbortSignal }) => Promise<number>
}

interface Frame {
  readonly header: { readonly type: number; readonly flag: number; readonly length: number }
}

/** Changes a muxer before anybody has it. */
export type Change = (muxer: YamuxMuxer, connection: MessageStream) => void

export interface YamuxOptions {
  /** Streams of one connection, in each direction. */
  readonly streamsMax: number
  /** Bytes that one stream holds unread. */
  readonly readBufferBytes: number
  /** What the streams of all connections share. */
  readonly budget: StreamBudget.StreamBudget
}

/**
 * The muxers of a host: stock Yamux, cured of its faults, counting progress, then changed by `changes` in their order.
 */
export const make = (options: YamuxOptions, changes: ReadonlyArray<Change>): () => StreamMuxerFactory =>
  changed(
    yamux({
      maxInboundStreams: options.streamsMax,
      maxOutboundStreams: options.streamsMax,
      // With a window above the read buffer, a sender could put more into a paused stream than it may hold, which
      // resets it.
      streamOptions: { maxStreamWindowSize: options.readBufferBytes, maxReadBufferLength: options.readBufferBytes }
    }),
    [sharing(options.budget, options.readBufferBytes), safe, watched, counting, ...changes]
  )

/** The same muxers, each changed in the order of `changes`. */
export const changed =
  (factory: () => StreamMuxerFactory, changes: ReadonlyArray<Change>): () => StreamMuxerFactory => () => {
    const muxers = factory()
    const create = muxers.createStreamMuxer.bind(muxers)
    muxers.createStreamMuxer = (connection) => {
      const muxer = create(connection) as YamuxMuxer
      for (const change of changes) change(muxer, connection)
      return muxer
    }
    return muxers
  }

/** The muxer of a connection, which is private; none before it is multiplexed. */
export const muxerOf = (connection: Connection): YamuxMuxer | undefined =>
  (connection as { readonly muxer?: YamuxMuxer }).muxer

/**
 * Throws a `HostError` unless a muxer of the factory, and a stream of it, have the private members that are used here.
 */
export const assertYamux = (factory: StreamMuxerFactory = yamux({ enableKeepAlive: false })()): void => {
  const connection = connectionToNowhere()
  const muxer = factory.createStreamMuxer(connection) as YamuxMuxer
  assertMembers("@chainsafe/libp2p-yamux", muxer, muxerMembers)
  const stream = muxer._newStream(1, 0, "outbound")
  assertMembers("@chainsafe/libp2p-yamux", stream, streamMembers)
  // Ends the muxer as well.
  muxer.handleGoAway(0)
  assertMembers("@chainsafe/libp2p-yamux", muxer, endedMembers)
}

/** What {@link assertYamux} asserts of a muxer. */
export const muxerMembers = {
  _newStream: "function",
  onCreateStream: "function",
  onRemoteStream: "function",
  send: "function",
  handleStreamMessage: "function",
  handleGoAway: "function",
  sendGoAway: "function",
  ping: "function"
} as const

/** What {@link assertYamux} asserts of a muxer whose remote has ended the session. */
const endedMembers = { remoteGoAway: "number" } as const

/** What {@link assertYamux} asserts of a stream. */
export const streamMembers = {
  sendWindowUpdate: "function",
  state: "number",
  recvWindow: "number",
  recvWindowCapacity: "number",
  maxStreamWindowSize: "number",
  onData: "function"
} as const

/**
 * Counts what waits in the muxer's streams, and makes their windows no wider than their share of the budget. Opens a
 * window again when half of it is used, as Yamux does in Go and Rust.
 *
 * Fault: js-yamux sends an update for every frame that it reads. Each is a record to seal, send, read and open.
 *
 * A stream whose reader has taken everything gets {@link windowMin} at least, even when its own writes wait: a window
 * that only the remote's reading could open again would be a standstill between two who wait for each other.
 */
const sharing = (budget: StreamBudget.StreamBudget, windowMax: number): Change => (muxer, link) => {
  const make = muxer._newStream.bind(muxer)
  const connection = StreamBudget.group()
  countUnsent(budget, connection, muxer, link)
  muxer._newStream = (...options) => {
    const stream = make(...options)
    let queued = 0
    // Pieces in the stream's own buffer, which is delivered as a whole.
    let pieces = 0
    // While a frame is handed on. What its reader takes at once never waits.
    let isHandingOn = false
    // Told of an eviction after the end of the stream, for as long as somebody may read what is left.
    let reader: ((error: OverBudget) => void) | undefined
    const isOver = () => stream.status !== "open" && stream.status !== "closing"
    const unread = () => queued + (stream.readBufferLength === 0 ? 0 : stream.readBufferLength + pieces * pieceBytes)
    const waiting = () => unread() + (isOver() ? 0 : stream.writeBufferLength)
    const share = budget.open(connection, {
      waiting,
      promised: () => stream.remoteWriteStatus === "closed" ? 0 : stream.recvWindowCapacity + waiting() - firstWindow,
      evict: (detail) => isOver() ? reader?.(new OverBudget(detail)) : stream.abort(new OverBudget(detail))
    })
    // What is unread outlives the stream: a remote may send much and end its half.
    const settle = () => isOver() && (reader === undefined || waiting() === 0) ? share.close() : share.update()
    const send = stream.sendWindowUpdate.bind(stream)
    stream.sendWindowUpdate = () => {
      if (isOver()) return
      // It says that the stream has a first window, and grants nothing.
      if (isOpening(stream)) return send()
      // A window that was narrowed is looked at each time, since its share may have grown.
      if (stream.recvWindowCapacity * 2 > Math.max(stream.recvWindow, firstWindow)) return
      const free = share.allowance() - waiting()
      // A denied window is asked for again when bytes are read, so it is not denied when none are left to read: nothing
      // else would open it. A smaller one than the least would cut what comes into crumbs.
      const window = Math.min(windowMax, free >= windowMin ? free : unread() === 0 ? windowMin : 0)
      stream.maxStreamWindowSize = window
      stream.recvWindow = Math.min(Math.max(stream.recvWindow, firstWindow), window)
      if (stream.recvWindowCapacity < stream.recvWindow && isHalfUsed(stream)) send()
      share.update()
    }
    const onData = stream.onData.bind(stream)
    stream.onData = (data) => {
      if (stream.readBufferLength === 0) pieces = 0
      const parts = data instanceof Uint8Array ? [data] : [...data]
      pieces += parts.length
      // Most frames are handed on as they came.
      isHandingOn = true
      try {
        if (!parts.some(keepsMore)) onData(data)
        else for (const part of parts) onData(keepsMore(part) ? new Uint8Array(part) : part)
      } finally {
        isHandingOn = false
      }
      settle()
    }
    let isSending = false
    const sent = () => {
      isSending = false
      share.update()
    }
    const write = stream.send.bind(stream)
    stream.send = (data) => {
      const result = write(data)
      if (stream.writeBufferLength > 0) {
        share.update()
        if (!isSending) stream.addEventListener("idle", sent, { once: true })
        isSending = true
      }
      return result
    }
    stream.addEventListener("close", settle, { once: true })
    shares.set(stream, {
      join: share.join,
      queue: (bytes) => {
        const isRead = bytes < queued
        queued = bytes
        // Yamux asks for the window itself after a frame.
        if (isHandingOn) return
        // The stream may have been denied a window for what was just read.
        if (isRead && stream.status === "open" && stream.readStatus === "readable") stream.sendWindowUpdate()
        else settle()
      },
      read: (evicted) => {
        reader = evicted
        if (evicted === undefined) settle()
      }
    })
    return stream
  }
}

/**
 * Counts what the connection itself has not sent. It holds the most where a remote reads nothing at all; then the whole
 * connection is ended.
 *
 * Fault: a connection that is full tells its streams to wait, but not those that are opened later. Answers to Yamux's
 * own pings, and the frames by which streams are opened and reset, do not ask at all.
 */
function countUnsent(
  budget: StreamBudget.StreamBudget,
  connection: StreamBudget.Group,
  muxer: YamuxMuxer,
  link: MessageStream
): void {
  // Since the connection took frames last. They leave as one piece.
  let frames = 0
  const share = budget.open(connection, {
    waiting: () => link.writableNeedsDrain ? link.writeBufferLength + frames * pieceBytes + unsentBelow(link) : 0,
    promised: () => 0,
    evict: (detail) => link.abort(new OverBudget(detail))
  })
  const send = muxer.send.bind(muxer)
  muxer.send = (frame) => {
    const isSent = send(frame)
    if (!isSent && ++frames % framesAtOnce === 0) share.update()
    return isSent
  }
  link.addEventListener("drain", () => {
    // libp2p hands on what waits in a microtask, which it queues before this one.
    if (frames >= framesAtOnce) queueMicrotask(share.update)
    frames = 0
  })
  link.addEventListener("close", share.close, { once: true })
}

/** The part of a stream in the budget of its node; none for a stream of another muxer. */
export const shareOf = (stream: Stream): StreamShare | undefined => shares.get(stream)

/**
 * What a piece that waits costs beside its bytes, roughly. Without it a remote that sends single bytes would have a
 * hundred times the budget.
 */
export const pieceBytes = 256

/** What the reader of a stream tells its budget. */
export interface StreamShare {
  readonly join: StreamBudget.Share["join"]
  /** How many bytes wait outside of the stream for its reader, {@link pieceBytes} for each piece included. */
  readonly queue: (bytes: number) => void
  /**
   * Somebody reads the stream, and drops what is unread when `evicted` is called after its end; or nobody reads it any
   * more.
   */
  readonly read: (evicted: ((error: OverBudget) => void) | undefined) => void
}

/** The error of a stream that was reset because too many bytes waited. */
export class OverBudget extends Error {
  override readonly name = "OverBudget"
}

/**
 * Keeps the muxer from throwing in a microtask.
 *
 * Fault: Yamux sends the first frame of a new stream from a bare `queueMicrotask`. When the connection is aborted in
 * the same turn, the write throws there, which is an uncaught exception. The frame that `abort` sends on a closed
 * connection throws as well.
 */
export const safe: Change = (muxer) => {
  const open = muxer.onCreateStream.bind(muxer)
  const abort = muxer.abort.bind(muxer)
  muxer.onCreateStream = (options) => {
    const stream = open(options)
    const send = stream.sendWindowUpdate.bind(stream)
    stream.sendWindowUpdate = () => {
      stream.sendWindowUpdate = send
      try {
        send()
      } catch (cause) {
        stream.abort(cause as Error)
      }
    }
    return stream
  }
  muxer.abort = (error) => {
    try {
      abort(error)
    } catch {
      // The connection is closed already; the streams were aborted before the frame that failed.
    }
  }
}

/** Lets {@link endedByRemote} know the muxer's streams. */
export const watched: Change = (muxer) => {
  const open = muxer.onCreateStream.bind(muxer)
  const opened = muxer.onRemoteStream.bind(muxer)
  muxer.onCreateStream = (options) => watch(open(options))
  muxer.onRemoteStream = (stream) => opened(watch(stream))
}

/**
 * Whether the remote has closed its write half. Holds for streams of a {@link watched} muxer.
 *
 * Fault: when a connection is lost, its streams end with the same state and events as if the remote had closed them, so
 * a cut cannot be told from an end. The one difference is an event, which may fire before anybody can listen.
 */
export const endedByRemote = (stream: Stream): boolean => ended.has(stream)

/** Lets {@link progressOf} count the muxer's bytes. */
const counting: Change = (muxer) => {
  const handle = muxer.handleStreamMessage.bind(muxer)
  const count = { bytes: 0 }
  counts.set(muxer, count)
  muxer.handleStreamMessage = (frame) => {
    const { flag, length, type } = frame.header
    // The window update that opens a stream returns no bytes that were read.
    if (type === dataFrame || (flag & openingFlags) === 0) count.bytes += length
    handle(frame)
  }
}

/**
 * Bytes of streams that the remote has sent, or has read and made room for again, as its window updates say. 0 for a
 * connection whose muxer does not count.
 */
export const progressOf = (connection: Connection): number => {
  const muxer = muxerOf(connection)
  return muxer === undefined ? 0 : counts.get(muxer)?.bytes ?? 0
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const shares = new WeakMap<Stream, StreamShare>()

// What the remote may send before this side has its say.
const firstWindow = 256 * 1024
const windowMin = 32 * 1024

// Streams hardly send when they are told to wait, so a transfer has fewer unsent frames than this, and is not measured.
const framesAtOnce = 32

/** Bytes that an encrypted connection has given to its socket, and that the system has not taken. */
function unsentBelow(link: MessageStream): number {
  // Private members of noise's stream and of TCP's. A relayed connection has no socket; its stream is counted itself.
  const { stream } = link as { readonly stream?: { readonly socket?: { readonly writableLength: number } } }
  return stream?.socket?.writableLength ?? 0
}

// The first update of a stream carries its SYN or ACK.
const isOpening = (stream: YamuxStream) => stream.state === 0 || stream.state === 2

/** Whether the remote has used half of the window that it was given. */
const isHalfUsed = (stream: YamuxStream) => (stream.recvWindow - stream.recvWindowCapacity) * 2 >= stream.recvWindow

/** Whether a part of what arrived would keep a buffer of four times its size while it waits. Such a part is copied. */
const keepsMore = (part: Uint8Array): boolean => part.byteLength * 4 <= part.buffer.byteLength

const ended = new WeakSet<Stream>()

const counts = new WeakMap<StreamMuxer, { readonly bytes: number }>()

const dataFrame = 0
// SYN and ACK.
const openingFlags = 3

function watch(stream: YamuxStream): YamuxStream {
  stream.addEventListener("remoteCloseWrite", () => ended.add(stream), { once: true })
  return stream
}
