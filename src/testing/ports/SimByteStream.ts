/**
 * A byte stream between two simulated nodes.
 */
import { type Array as Arr, Cause, Deferred, Duration, Effect, Exit, Latch, Semaphore, Stream } from "effect"
import type * as StreamBudget from "../../layers/StreamBudget.ts"
import { ChunkInvalid, StreamError, type StreamReason, StreamReset, WriteAfterEnd } from "../../schema/NetworkError.ts"
import type { ProtocolId } from "../../schema/Peer.ts"
import type { ByteStream, Connection } from "../../services/Transport.ts"
import type { LineEnd } from "../network/SimNetwork.ts"

export type Run = (effect: Effect.Effect<void>) => unknown

/** One side of a stream: the stream of the port, and what its connection calls when messages arrive. */
export interface LiveStream {
  readonly byteStream: ByteStream
  /** To be called when the owner's scope has closed. */
  readonly finish: (exit: Exit.Exit<unknown, unknown>) => void
  /** Waits until what was written is on its way, if the owner's scope has closed. */
  readonly flushed: Effect.Effect<void>
  /** Ends the stream at this side, for a reason that its reader and writer fail with. */
  readonly fail: (reason: StreamReason) => void
  readonly reset: (detail: string) => void
  /** Counts the stream against a limit of its own as well. */
  readonly join: StreamBudget.Share["join"]
  readonly onData: (bytes: Uint8Array) => void
  readonly onCredit: (bytes: number) => void
  readonly onEnd: () => void
}

/**
 * Yields first. A resumed fiber would run at once, in the middle of the delivery that resumed it, and has to wait for
 * the end of the delivery.
 */
export const later = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> => Effect.andThen(Effect.yieldNow, effect)

/**
 * A stream of a connection. `run` forks the end of the stream into a scope that outlives the owner; `over` is called
 * when both directions have ended.
 */
export function make(options: {
  readonly connection: Connection
  readonly protocol: ProtocolId
  readonly id: number
  readonly end: LineEnd
  readonly run: Run
  readonly over: () => void
  /** Opens the stream's part in the budget of its node. */
  readonly share: (holder: StreamBudget.Holder) => StreamBudget.Share
  /** Done when the connection is over. */
  readonly disconnected: Deferred.Deferred<void>
}): LiveStream {
  const { connection, disconnected, end, id, over, protocol, run } = options
  let waiting = 0
  const share = options.share({
    waiting: () => waiting,
    promised: () => 0,
    evict: (detail) => {
      inbox = []
      waiting = 0
      reset(detail)
    }
  })
  const readable = Latch.makeUnsafe()
  const writable = Latch.makeUnsafe()
  const writing = Semaphore.makeUnsafe(1)
  const ended = Deferred.makeUnsafe<void>()
  const wasReset = Deferred.makeUnsafe<void>()
  let inbox: Array<Uint8Array> = []
  let credit = windowBytes
  let isWriteClosed = false
  let isReadClosed = false
  let isLingering = false
  let isOver = false
  // Whether a writer waits for the remote to read.
  let isWaiting = false
  let failure: StreamReason | undefined

  const streamError = (reason: StreamReason) => new StreamError({ peer: connection.peer, protocol, reason })
  const ends = () => {
    if (isOver) return
    isOver = true
    share.close()
    over()
    readable.openUnsafe()
    writable.openUnsafe()
    Deferred.doneUnsafe(ended, Effect.void)
  }
  const fail = (reason: StreamReason) => {
    if (isOver) return
    failure = reason
    if (!Deferred.isDoneUnsafe(disconnected)) Deferred.doneUnsafe(wasReset, Effect.void)
    ends()
  }
  const reset = (detail: string) => {
    if (isOver) return
    end.send({ _tag: "Reset", stream: id })
    fail(new StreamReset({ detail }))
  }

  const pull: Effect.Effect<Arr.NonEmptyReadonlyArray<Uint8Array>, StreamError | Cause.Done> = Effect.suspend(() => {
    const [first, ...rest] = inbox
    if (first !== undefined) {
      inbox = []
      waiting = 0
      share.update()
      const bytes = rest.reduce((sum, chunk) => sum + chunk.length, first.length)
      if (!isReadClosed && !isOver) end.send({ _tag: "Credit", stream: id, bytes })
      return Effect.succeed([first, ...rest] as const)
    }
    if (isReadClosed) return Cause.done()
    if (failure !== undefined) return Effect.fail(streamError(failure))
    readable.closeUnsafe()
    return Effect.andThen(readable.await, later(pull))
  })

  const push = (rest: Uint8Array): Effect.Effect<void, StreamError> =>
    Effect.suspend(() => {
      const problem = ChunkInvalid.of(rest)
      if (problem !== undefined) return Effect.fail(streamError(problem))
      if (failure !== undefined) return Effect.fail(streamError(failure))
      if (isWriteClosed) return Effect.fail(streamError(new WriteAfterEnd()))
      let from = 0
      while (from < rest.length && credit > 0) {
        const bytes = rest.subarray(from, from + credit)
        credit -= bytes.length
        from += bytes.length
        end.send({ _tag: "Data", stream: id, bytes })
      }
      if (from === rest.length) return Effect.void
      writable.closeUnsafe()
      isWaiting = true
      return writable.await.pipe(
        Effect.onExit(() =>
          Effect.sync(() => {
            isWaiting = false
          })
        ),
        Effect.andThen(later(push(rest.subarray(from))))
      )
    })

  const endWrite = () => {
    if (isWriteClosed || isOver) return
    isWriteClosed = true
    end.send({ _tag: "End", stream: id })
    if (isReadClosed) ends()
  }
  const closeWrite = writing.withPermits(1)(Effect.suspend(() => {
    if (!isWriteClosed && failure !== undefined) return Effect.fail(streamError(failure))
    endWrite()
    return Effect.void
  }))

  return {
    byteStream: {
      connection,
      protocol,
      read: Stream.fromPull(Effect.succeed(pull)),
      write: (chunk) => writing.withPermits(1)(push(chunk)),
      closeWrite,
      lost: Effect.raceFirst(Deferred.await(wasReset), Deferred.await(disconnected)).pipe(
        Effect.map(() => isReadClosed && !Deferred.isDoneUnsafe(wasReset) ? "ended" as const : "cut" as const)
      )
    },
    finish(exit) {
      if (isOver) return
      if (Exit.isFailure(exit)) return reset("this side reset the stream")
      isLingering = true
      if (!isWaiting) endWrite()
      if (isOver) return
      run(
        Effect.exit(closeWrite).pipe(
          Effect.andThen(Deferred.await(ended)),
          Effect.timeoutOption(lingerTimeout),
          Effect.andThen(Effect.sync(() => reset("the remote did not close its half in time")))
        )
      )
    },
    flushed: Effect.suspend(() => isLingering && !isOver ? Effect.asVoid(Effect.exit(closeWrite)) : Effect.void),
    fail,
    reset,
    join: share.join,
    onData(bytes) {
      if (isLingering) return reset("bytes arrived after this side had ended")
      inbox.push(bytes)
      readable.openUnsafe()
      waiting += bytes.length
      share.update()
    },
    onCredit(bytes) {
      credit += bytes
      writable.openUnsafe()
    },
    onEnd() {
      isReadClosed = true
      readable.openUnsafe()
      if (isWriteClosed) ends()
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const lingerTimeout = Duration.seconds(10)
const windowBytes = 256 * 1024
