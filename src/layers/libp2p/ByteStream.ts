/**
 * `ByteStream` over a stream of libp2p.
 *
 * Reading. libp2p pushes messages; the stream is paused when more than 128 KiB wait unread. Gotchas of libp2p 3.3
 * behind the shape:
 * - `resume()` first delivers what it has buffered and then reopens the window, even when a listener paused the stream
 *   meanwhile. So the stream is resumed only when nothing is queued here, and paused after `resume` has returned.
 * - A stream whose connection is lost ends like a stream that the remote has closed; `endedByRemote` tells them apart.
 * - Bytes that were buffered when the remote reset the stream can still be read.
 *
 * Writing. A piece has at most 64 KiB, and waits while more than 128 KiB are unsent: buffered pieces leave as one
 * frame, and rust-yamux closes the connection for a frame above 1 MiB. `onDrain()` works once only, so events are
 * awaited.
 */
import {
  type Connection as Libp2pConnection,
  type Stream as Libp2pStream,
  type StreamMessageEvent,
  StreamResetError
} from "@libp2p/interface"
import { Cause, Effect, Exit, type Pull, Stream } from "effect"
import type { NonEmptyReadonlyArray } from "effect/Array"
import {
  ChunkInvalid,
  LimitReached,
  StreamError,
  type StreamReason,
  StreamReset,
  WriteAfterEnd
} from "../../schema/NetworkError.ts"
import type { ProtocolId } from "../../schema/Peer.ts"
import type { ByteStream, Connection, StreamLoss } from "../../services/Transport.ts"
import { toError, untilClosed } from "./Faults.ts"
import { endedByRemote, OverBudget, pieceBytes, shareOf, unsentBytesMax } from "./wire/Yamux.ts"

export interface Libp2pByteStream extends ByteStream {
  /** Ends the stream with its scope, as `ByteStream` promises. Never waits. */
  readonly release: (exit: Exit.Exit<unknown, unknown>) => void
}

/**
 * Takes over a negotiated stream, in the turn in which libp2p gave it.
 */
export const make = (
  stream: Libp2pStream,
  underlying: Libp2pConnection,
  connection: Connection,
  protocol: ProtocolId
): Libp2pByteStream => {
  // Chunks that arrived and are not yet pulled, and their bytes.
  let queue: Array<Uint8Array> = []
  let queued = 0
  let resuming = false
  let released = false
  // Bytes that had arrived when the scope ended.
  let unread = 0
  // Set when the stream is over. Making an error takes its stack, so no error is made before a caller sees it.
  let over: { readonly error: Error | undefined } | undefined
  let reader: ((pull: Pull.Pull<NonEmptyReadonlyArray<Uint8Array>, StreamError>) => void) | undefined
  // The first is being sent, the others wait behind it.
  const writers: Array<Writer> = []
  let writeEnded = false
  const share = shareOf(stream)
  let evicted: Error | undefined
  // Told when the stream or its connection is over.
  const watchers = new Set<() => void>()

  const fail = (reason: StreamReason) => new StreamError({ peer: connection.peer, protocol, reason })

  const onMessage = (event: StreamMessageEvent) => {
    if (released) {
      unread -= event.data.byteLength
      if (unread < 0) stream.abort(new Error("nobody reads this stream any more"))
      return
    }
    if (evicted !== undefined) return
    if (event.data instanceof Uint8Array) queue.push(event.data)
    else for (const bytes of event.data) queue.push(bytes)
    queued += event.data.byteLength
    share?.queue(queued + queue.length * pieceBytes)
    if (reader !== undefined) wake()
    else if (!resuming && queued > queuedBytesMax) pause()
  }
  const pause = () => {
    if (stream.readStatus === "readable") stream.pause()
  }
  const resume = () => {
    resuming = true
    try {
      stream.resume()
    } catch {
      // The window could not be reopened since the connection is gone; what was buffered has been delivered.
    } finally {
      resuming = false
    }
  }
  const wake = () => {
    const waiting = reader
    reader = undefined
    waiting?.(take() ?? pull)
  }

  // What a reader gets without waiting; undefined when it has to wait.
  const take = (): Pull.Pull<NonEmptyReadonlyArray<Uint8Array>, StreamError> | undefined => {
    if (evicted !== undefined) return Effect.fail(fail(reset(evicted)))
    if (queue.length === 0 && stream.readStatus === "paused") {
      resume()
      if (queued > queuedBytesMax) pause()
    }
    if (queue.length > 0) {
      const chunks = queue as unknown as NonEmptyReadonlyArray<Uint8Array> // not empty, as just asked
      queue = []
      queued = 0
      share?.queue(0)
      return Effect.succeed(chunks)
    }
    // Bytes that came in the turn in which the listener was added are delivered in a microtask.
    if (stream.readBufferLength > 0 && stream.readStatus !== "closed") return undefined
    if (endedByRemote(stream) && stream.status !== "aborted") return Cause.done()
    return over === undefined ? undefined : Effect.fail(fail(lost(over)))
  }
  // Made once, since each request on a long stream waits here. There is one reader at a time, so an interruption is the
  // waiting reader's.
  const forget = Effect.sync(() => {
    reader = undefined
  })
  const next: Pull.Pull<NonEmptyReadonlyArray<Uint8Array>, StreamError> = Effect.callback((resume) => {
    reader = resume
    return forget
  })
  const pull: Pull.Pull<NonEmptyReadonlyArray<Uint8Array>, StreamError> = Effect.suspend(() => take() ?? next)

  const isBehind = () => stream.writableNeedsDrain || stream.writeBufferLength > unsentBytesMax
  // Sends as much as the stream takes now; false when the next write has to wait.
  const send = (writer: Writer): boolean => {
    while (writer.offset < writer.chunk.byteLength) {
      if (isBehind()) return false
      const end = Math.min(writer.offset + sendBytesMax, writer.chunk.byteLength)
      const piece = writer.offset === 0 && end === writer.chunk.byteLength
        ? writer.chunk
        : writer.chunk.subarray(writer.offset, end)
      writer.offset = end
      stream.send(piece)
    }
    return !isBehind()
  }
  const flush = () => {
    for (let writer = writers[0]; writer !== undefined; writer = writers[0]) {
      try {
        if (!send(writer)) return
        writer.done(Effect.void)
      } catch (cause) {
        writer.done(Effect.fail(fail(over === undefined ? reset(cause) : lost(over))))
      }
      writers.shift()
    }
  }
  // libp2p sends its buffer in a microtask, which it queues before this one.
  const onDrain = () => {
    if (writers.length > 0) queueMicrotask(flush)
  }
  const refuse = (reason: () => StreamReason) => {
    for (const writer of writers.splice(0)) writer.done(Effect.fail(fail(reason())))
  }

  const lost = ({ error }: { readonly error: Error | undefined }): StreamReason => {
    if (underlying.limits !== undefined && underlying.status !== "open") {
      return new LimitReached(error === undefined ? {} : { cause: error })
    }
    if (error !== undefined) return reset(error)
    return new StreamReset({ detail: "the connection was lost before the remote had ended the stream" })
  }
  const onClose = (event: { readonly error?: Error | undefined }) => {
    clearTimeout(lingering)
    const ended = over ??= { error: event.error }
    // Their room is given to others.
    if (event.error instanceof OverBudget) queue = []
    refuse(() => lost(ended))
    if (reader !== undefined) wake()
    for (const look of watchers) look()
  }
  // The frame that ends the stream may carry bytes, and libp2p delivers them after the event.
  const onEnd = () =>
    queueMicrotask(() => {
      if (reader !== undefined) wake()
    })
  let lingering: ReturnType<typeof setTimeout> | undefined

  share?.read((error) => {
    evicted = error
    queue = []
    if (stream.readStatus === "paused") resume()
    if (reader !== undefined) wake()
  })
  stream.addEventListener("message", onMessage)
  stream.addEventListener("remoteCloseWrite", onEnd)
  stream.addEventListener("drain", onDrain)
  stream.addEventListener("close", onClose)
  // The close event does not come again.
  if (stream.status !== "open") over = { error: stream.status === "reset" ? new StreamResetError() : undefined }

  const closeWrite = Effect.suspend(() => {
    if (writeEnded) return Effect.void
    writeEnded = true
    refuse(() => new WriteAfterEnd())
    if (over !== undefined) return Effect.fail(fail(lost(over)))
    return Effect.tryPromise({
      try: (signal) => closing(stream, signal),
      catch: (cause) => fail(over === undefined ? reset(cause) : lost(over))
    })
  })

  const lossNow = (): StreamLoss | undefined => {
    const isCut = stream.status === "reset" || stream.status === "aborted"
    if (!isCut && underlying.status === "open") return undefined
    return stream.status !== "reset" && endedByRemote(stream) ? "ended" : "cut"
  }
  const whenLost: Effect.Effect<StreamLoss> = Effect.callback((resume) => {
    const look = () => {
      const loss = lossNow()
      if (loss !== undefined) resume(Effect.succeed(loss))
    }
    watchers.add(look)
    const unwatch = watchEnd(underlying, look)
    look()
    return Effect.sync(() => {
      watchers.delete(look)
      unwatch()
    })
  })

  return {
    connection,
    protocol,
    lost: whenLost,
    read: Stream.fromPull(Effect.succeed(pull)),
    write: (chunk) =>
      Effect.suspend(() => {
        const problem = ChunkInvalid.of(chunk)
        if (problem !== undefined) return Effect.fail(fail(problem))
        if (writeEnded) return Effect.fail(fail(new WriteAfterEnd()))
        if (over !== undefined) return Effect.fail(fail(lost(over)))
        const writer: Writer = { chunk, offset: 0, done: () => {} }
        if (writers.length === 0) {
          try {
            if (send(writer)) return Effect.void
          } catch (cause) {
            return Effect.fail(fail(over === undefined ? reset(cause) : lost(over)))
          }
        }
        return Effect.callback((resume) => {
          writer.done = resume
          writers.push(writer)
          return Effect.sync(() => {
            const index = writers.indexOf(writer)
            if (index >= 0) writers.splice(index, 1)
          })
        })
      }),
    closeWrite,
    release: (exit) => {
      if (released) return
      released = true
      share?.read(undefined)
      if (stream.status !== "open") return
      if (Exit.isFailure(exit)) return stream.abort(new Error("the stream's scope ended with a failure"))
      writeEnded = true
      lingering = setTimeout(() => stream.abort(new Error("the remote did not end the stream in time")), lingerMillis)
      queue = []
      share?.queue(0)
      unread = stream.readBufferLength
      if (stream.readStatus === "paused") resume()
      if (stream.writeStatus === "writable") closing(stream).catch((cause) => stream.abort(toError(cause)))
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const sendBytesMax = 64 * 1024
const queuedBytesMax = 128 * 1024
const lingerMillis = 10_000

interface Writer {
  readonly chunk: Uint8Array
  offset: number
  done: (result: Effect.Effect<void, StreamError>) => void
}

// One listener for all streams of a connection: a listener costs more than a stream's whole part here.
const ends = new WeakMap<Libp2pConnection, Set<() => void>>()

/** Calls `look` when the connection has closed, until the returned function is called. */
function watchEnd(underlying: Libp2pConnection, look: () => void): () => void {
  const known = ends.get(underlying)
  const watchers = known ?? new Set()
  if (known === undefined) {
    ends.set(underlying, watchers)
    underlying.addEventListener("close", () => watchers.forEach((each) => each()), { once: true })
  }
  watchers.add(look)
  return () => watchers.delete(look)
}

function reset(thrown: unknown): StreamReset {
  const cause = toError(thrown)
  return new StreamReset({
    detail: cause.name === "StreamResetError" ? "the remote reset the stream" : cause.message,
    cause
  })
}

/** Sends what is unsent, then the end of the write half. */
function closing(stream: Libp2pStream, interrupted?: AbortSignal): Promise<void> {
  return untilClosed(stream, (signal) => stream.close({ signal }), interrupted)
}
