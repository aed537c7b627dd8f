/**
 * Questions to peers of the DHT, over one lasting stream for each. [libp2p]
 *
 * A stream is opened when a peer is first asked, carries many questions at once, and closes after a while without use, so that a connection
 * can become idle. A stream that stood before the question may have been reset by the remote meanwhile (js-libp2p does so 10 s after the
 * last message, Go after 60 s): a question that fails on one is asked once more on a fresh one, which is safe since every question of
 * Kademlia may be repeated.
 *
 * ADD_PROVIDER has no answer. Sent in front of a question, in the same write, the answer to that shows that the remote has read it. A remote
 * that refuses a record resets the stream, and the question with it: it is then asked alone.
 *
 * When a stream fails only its oldest question is to blame, since a remote answers them in turn. The others go on to the next stream.
 */
import type { Connection, PeerId as Libp2pPeerId, Stream } from "@libp2p/interface"
import { peerIdFromMultihash } from "@libp2p/peer-id"
import { Clock, Data, Duration, Effect, Latch, type Scope } from "effect"
import * as Digest from "multiformats/hashes/digest"
import type { PeerId } from "../../../schema/Peer.ts"
import * as Dial from "./Dial.ts"
import { type Message, MessageType } from "../wire/Message.ts"
import * as StreamRetry from "./StreamRetry.ts"
import * as QuestionStream from "./QuestionStream.ts"
import { toError } from "../../libp2p/Faults.ts"
import { Libp2pHost } from "../../libp2p/Host.ts"

/** Who is asked: what a peer of the DHT is known by. */
export interface Remote extends Dial.Addressed {
  /** The multihash that is its id, and the same as a latin1 text. */
  readonly bytes: Uint8Array
  readonly key: string
}

export interface Answer {
  readonly message: Message
  /** Whether the remote has read what was sent before the question. True when nothing was. */
  readonly tookBefore: boolean
}

/**
 * Why a peer has not answered.
 *
 * - `Denied`: this node did not ask: its gate left no place, or it is stopping. Says nothing of the peer.
 * - `Unreachable`: no connection.
 * - `Unsupported`: the remote does not speak the protocol.
 * - `Reset`: the stream or its connection ended, the repetitions included.
 * - `TimedOut`: connected, and no answer in time.
 * - `Malformed`: an answer that is none, or one to another question.
 */
export class RequestError extends Data.TaggedError("RequestError")<{
  readonly peer: PeerId
  readonly reason: "Denied" | "Unreachable" | "Unsupported" | "Reset" | "TimedOut" | "Malformed"
  readonly cause?: Error | undefined
}> {
  override get message(): string {
    return `ask ${this.peer}: ${this.reason}${this.cause === undefined ? "" : ` (${this.cause.message})`}`
  }
}

export interface StreamsOptions {
  readonly protocol: string
  /** How long an answer may take, with the connection to the peer and all repetitions. Defaults to 5 s. */
  readonly timeout?: Duration.Input | undefined
  /** How long a stream stays open after the last question. Defaults to 30 s. */
  readonly idleTime?: Duration.Input | undefined
  /**
   * How many streams are open at most; the one that was asked least recently closes. Each has a connection, so that there are no more of
   * them than of those. Defaults to 256.
   */
  readonly streamsMax?: number | undefined
  /** How many questions of a stream may be without an answer; others wait for their turn. Defaults to 64. */
  readonly questionsMax?: number | undefined
}

/** How often each has happened since the start. */
export interface StreamsCounts {
  /** Questions whose answer was waited for, each counted once. */
  readonly requests: number
  /** Writes to a stream, the repetitions included. */
  readonly writes: number
  /** Streams that were opened. */
  readonly opened: number
  /** Questions that went to another stream because theirs had failed. */
  readonly retries: number
}

export interface Streams {
  /**
   * Asks a peer. Both `question` and `before`, if any, are frames as `encodeFrame` makes them; `before` holds messages without an answer. Of
   * at most 64 KiB together.
   *
   * Connects if need be. Interruption gives up a dial that nobody else waits for; once the question is out its answer is awaited all the
   * same, and dropped, so that the stream keeps its order.
   */
  readonly request: (
    peer: Remote,
    question: Uint8Array,
    before?: Uint8Array
  ) => Effect.Effect<Answer, RequestError>
  /**
   * Sends messages without an answer. Succeeds when they are written, which does not show that the remote takes them. A stream without use
   * for more than 8 s is not trusted with them: the remote may be resetting it.
   */
  readonly send: (peer: Remote, frame: Uint8Array) => Effect.Effect<void, RequestError>
  /** Opens a stream to a peer that is connected, if it has none. Does not wait for it. */
  readonly warm: (peer: Remote) => Effect.Effect<void>
  readonly counts: () => StreamsCounts
}

/**
 * Streams for as long as the scope lives. They are closed with it, questions without an answer fail as `Denied`, and so does every later one.
 */
export const make = Effect.fnUntraced(function*(
  options: StreamsOptions
): Effect.fn.Return<Streams, never, Libp2pHost | Scope.Scope> {
  const dial = Dial.make((yield* Libp2pHost).components, options.protocol)
  const clock = yield* Clock.Clock
  const timeoutMillis = Duration.toMillis(Duration.fromInputUnsafe(options.timeout ?? "5 seconds"))
  const idleMillis = Duration.toMillis(Duration.fromInputUnsafe(options.idleTime ?? "30 seconds"))
  const streamsMax = options.streamsMax ?? 256
  const questionsMax = options.questionsMax ?? 64
  const now = () => clock.currentTimeMillisUnsafe()

  const counts = { requests: 0, writes: 0, opened: 0, retries: 0 }
  /** Peers with a stream, or with somebody who waits for one. */
  const lines = new Map<string, Line>()
  /** Streams that are asked, the least recently used first. */
  const pool = new Set<Pooled>()
  /** Tasks that are not done, the oldest first: all have the same time. */
  const tasks = new Set<Task>()
  /** Streams that are asked nothing more, and are open. */
  const leaving = new Set<Pooled>()
  let isClosed = false

  // ----- time

  const due = Latch.makeUnsafe(false)
  let wakeAt = Number.POSITIVE_INFINITY
  const wakeBy = (at: number) => {
    if (at >= wakeAt) return
    wakeAt = at
    due.openUnsafe()
  }

  /** Ends what has had its time, and says when something else may have. */
  const sweep = (): number => {
    const time = now()
    for (const task of tasks) {
      if (task.deadline > time) break
      expire(task)
    }
    for (const pooled of pool) {
      if (pooled.usedAt + idleMillis > time) break
      if (pooled.stream.isIdle()) leave(pooled)
    }
    for (const { deadline } of tasks) return Math.min(deadline, idleAt())
    return idleAt()
  }

  /** When the next stream may close. One with a question is none, as that has its time first. */
  const idleAt = () => {
    for (const { stream, usedAt } of pool) if (stream.isIdle()) return usedAt + idleMillis
    return Number.POSITIVE_INFINITY
  }

  yield* Effect.forkScoped(Effect.gen(function*() {
    while (true) {
      due.closeUnsafe()
      wakeAt = sweep()
      const wait = wakeAt === Number.POSITIVE_INFINITY ? Effect.never : Effect.sleep(Duration.millis(wakeAt - now()))
      yield* Effect.raceFirst(due.await, wait)
    }
  }))

  // ----- the way of a task

  const submit = (task: Task) => {
    const { line } = task
    if (isClosed) {
      forget(line)
      return task.done?.(failure(line, "Denied", stopping()))
    }
    tasks.add(task)
    wakeBy(task.deadline)
    task.openedBefore = counts.opened
    const { pooled } = line
    if (pooled !== undefined && isGood(pooled, task)) {
      if (line.waiting.length === 0 && pooled.stream.hasRoom()) write(pooled, task)
      else line.waiting.push(task)
      return
    }
    line.waiting.push(task)
    if (pooled !== undefined) leave(pooled)
    open(line)
  }

  const isGood = ({ connection, stream, usedAt }: Pooled, { line, question }: Task): boolean => {
    if (!stream.isOpen() || question === undefined && now() - usedAt > trustedMillis) return false
    return dial.connectionTo(line.peer) === connection
  }

  const write = (pooled: Pooled, task: Task) => {
    const { bytes, question } = task
    task.on = pooled
    pooled.usedAt = now()
    pool.delete(pooled)
    pool.add(pooled)
    const hasAnswer = question !== undefined
    if (bytes !== undefined) {
      counts.writes++
      if (!pooled.stream.write(bytes, task, hasAnswer)) return
    }
    if (!hasAnswer) settle(task, undefined)
  }

  const flush = (pooled: Pooled) => {
    const { line, stream } = pooled
    while (line.pooled === pooled && line.waiting.length > 0 && stream.hasRoom()) write(pooled, line.waiting.shift()!)
  }

  const settle = (task: Task, result: Message | RequestError | undefined) => {
    const { done } = task
    tasks.delete(task)
    task.done = undefined
    done?.(result)
  }

  const expire = (task: Task) => {
    const { line, on } = task
    if (on === undefined) {
      drop(task)
      return settle(task, failure(line, line.pooled === undefined ? "Unreachable" : "TimedOut"))
    }
    task.isExpired = true
    on.stream.fail({ reason: "Reset", cause: new Error("the remote did not answer in time") })
  }

  /** Takes a task out that has not been written. What is opened for it alone is given up. */
  const drop = (task: Task) => {
    const { line } = task
    const place = line.waiting.indexOf(task)
    if (place >= 0) line.waiting.splice(place, 1)
    if (line.waiting.length === 0) {
      line.opening?.abort(new Error("nobody waits any more"))
      line.opening = undefined
    }
    forget(line)
  }

  const cancel = (task: Task) => {
    task.done = undefined
    if (task.on !== undefined) return
    tasks.delete(task)
    drop(task)
  }

  // ----- streams

  const lineOf = (remote: Remote): Line => {
    const known = lines.get(remote.key)
    if (known !== undefined) {
      known.remote = remote
      return known
    }
    const peer = peerIdFromMultihash(Digest.decode(remote.bytes))
    const line: Line = { peer, remote, waiting: [], pooled: undefined, opening: undefined }
    lines.set(remote.key, line)
    return line
  }

  const forget = (line: Line) => {
    const isUsed = line.pooled !== undefined || line.opening !== undefined || line.waiting.length > 0
    if (!isUsed && lines.get(line.remote.key) === line) lines.delete(line.remote.key)
  }

  const open = (line: Line) => {
    if (line.opening !== undefined) return
    const opening = new AbortController()
    line.opening = opening
    dial.open(line.peer, line.remote, opening.signal).then(
      ([connection, stream]) => {
        if (line.opening !== opening) return stream.abort(new Error("nobody waits for this stream any more"))
        line.opening = undefined
        opened(line, connection, stream)
      },
      (thrown: unknown) => {
        if (line.opening !== opening) return
        line.opening = undefined
        const { cause, reason } = Dial.failureOf(thrown)
        for (const task of line.waiting.splice(0)) settle(task, failure(line, reason, cause))
        forget(line)
      }
    )
  }

  const opened = (line: Line, connection: Connection, stream: Stream) => {
    const pooled: Pooled = {
      line,
      connection,
      number: ++counts.opened,
      usedAt: now(),
      stream: QuestionStream.make<Task>(stream, {
        questionsMax,
        onAnswer: (task, message) => {
          settle(task, message)
          flush(pooled)
          if (leaving.has(pooled) && pooled.stream.isIdle()) close(pooled)
        },
        onRoom: () => flush(pooled),
        onEnd: (unanswered, end) => ended(pooled, unanswered, end)
      })
    }
    line.pooled = pooled
    const [least] = pool
    if (least !== undefined && pool.size >= streamsMax) {
      leave(least)
      if (least.line.waiting.length > 0) open(least.line)
    }
    pool.add(pooled)
    wakeBy(pooled.usedAt + idleMillis)
    flush(pooled)
  }

  /** Asks nothing more on a stream, and closes it when what was asked has its answer. */
  const leave = (pooled: Pooled) => {
    remove(pooled)
    leaving.add(pooled)
    if (pooled.stream.isIdle()) close(pooled)
    forget(pooled.line)
  }

  const close = (pooled: Pooled) => void pooled.stream.close(closeMillis).then(() => leaving.delete(pooled))

  const remove = (pooled: Pooled) => {
    pool.delete(pooled)
    leaving.delete(pooled)
    if (pooled.line.pooled === pooled) pooled.line.pooled = undefined
  }

  // A stream that is left may fail when its peer has another one, or was forgotten.
  const again = (former: Line, next: ReadonlyArray<Task>) => {
    const line = lines.get(former.remote.key) ?? former
    lines.set(line.remote.key, line)
    for (const task of next) task.line = line
    counts.retries += next.length
    line.waiting.unshift(...next)
    if (line.pooled === undefined) open(line)
    else flush(line.pooled)
  }

  /** Sends what has no answer on to another stream, or fails it. */
  const ended = (pooled: Pooled, unanswered: ReadonlyArray<Task>, end: QuestionStream.StreamEnd) => {
    const { line } = pooled
    remove(pooled)
    const isLost = pooled.connection.status !== "open"
    const blamed = unanswered.find((task) => task.isExpired) ?? unanswered[0]
    const done: Array<readonly [Task, RequestError["reason"]]> = []
    const next: Array<Task> = []
    for (const task of unanswered) {
      const reason = StreamRetry.failed(task, {
        reason: end.reason,
        isBlamed: task === blamed,
        isFresh: pooled.number > task.openedBefore,
        isLost
      })
      if (reason === undefined) next.push(task)
      else done.push([task, reason])
      task.on = undefined
      task.openedBefore = counts.opened
    }
    if (next.length > 0) again(line, next)
    else if (line.waiting.length > 0 && line.pooled === undefined) open(line)
    for (const [task, reason] of done) settle(task, failure(line, reason, end.cause))
    forget(line)
  }

  yield* Effect.addFinalizer(() =>
    Effect.promise(async () => {
      isClosed = true
      for (const line of lines.values()) {
        line.opening?.abort(stopping())
        line.opening = undefined
      }
      for (const task of tasks) settle(task, failure(task.line, "Denied", stopping()))
      await Promise.all([...pool, ...leaving].map(({ stream }) => stream.close(stopMillis)))
      pool.clear()
      lines.clear()
    })
  )

  const taskOf = (peer: Remote, question: Uint8Array | undefined, bytes: Uint8Array | undefined): Task => ({
    line: lineOf(peer),
    question,
    type: question === undefined ? 0 : typeOf(question),
    deadline: now() + timeoutMillis,
    bytes,
    done: undefined,
    on: undefined,
    openedBefore: 0,
    ...StreamRetry.none
  })

  /** Fails at once when the id is no peer's: whoever names peers may name anything. */
  const asking = <A>(
    peer: Remote,
    question: Uint8Array | undefined,
    bytes: Uint8Array,
    read: (task: Task, result: Message | undefined) => A
  ): Effect.Effect<A, RequestError> =>
    Effect.callback((resume) => {
      let task: Task
      try {
        task = taskOf(peer, question, bytes)
      } catch (thrown) {
        const cause = toError(thrown)
        return resume(Effect.fail(new RequestError({ peer: peer.id, reason: "Unreachable", cause })))
      }
      task.done = (result) =>
        resume(result instanceof RequestError ? Effect.fail(result) : Effect.succeed(read(task, result)))
      submit(task)
      return Effect.sync(() => cancel(task))
    })

  return {
    request: (peer, question, before) =>
      Effect.suspend(() => {
        counts.requests++
        return asking(peer, question, before === undefined ? question : concat(before, question), (task, message) => ({
          message: message!,
          tookBefore: before === undefined || task.bytes !== question
        }))
      }),
    send: (peer, frame) => asking(peer, undefined, frame, () => {}),
    warm: (peer) =>
      Effect.sync(() => {
        const task = taskOf(peer, undefined, undefined)
        // Whether it comes to something shows when the peer is asked.
        task.done = () => {}
        if (dial.connectionTo(task.line.peer) !== undefined) submit(task)
        else forget(task.line)
      }),
    counts: () => ({ ...counts })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// js-libp2p resets a stream 10 s after its last message, and has no option for it.
const trustedMillis = 8000
const closeMillis = 1000
const stopMillis = 250

/** Messages on their way to a peer. */
interface Task extends QuestionStream.Asked, StreamRetry.Attempts {
  line: Line
  readonly deadline: number
  /** Called once. Absent when nobody waits any more. */
  done: ((result: Message | RequestError | undefined) => void) | undefined
  /** Where it was written. */
  on: Pooled | undefined
  /** How many streams had been opened when it began to wait for one; any other is fresh for it. */
  openedBefore: number
}

/** A peer: its stream, or those who wait for one or for room on it. */
interface Line {
  readonly peer: Libp2pPeerId
  remote: Remote
  /** The oldest first. */
  readonly waiting: Array<Task>
  pooled: Pooled | undefined
  opening: AbortController | undefined
}

interface Pooled {
  readonly line: Line
  readonly connection: Connection
  readonly stream: QuestionStream.QuestionStream<Task>
  /** How many streams had been opened, this one included. */
  readonly number: number
  /** When something was last written to it. */
  usedAt: number
}

function failure(line: Line, reason: RequestError["reason"], cause?: Error): RequestError {
  return new RequestError({ peer: line.remote.id, reason, cause })
}

function stopping(): Error {
  return new Error("this node is stopping")
}

// [uvarint length][0x08][type], or without a type where it is that of PUT_VALUE.
function typeOf(frame: Uint8Array): number {
  let at = 0
  while (frame[at]! >= 0x80) at++
  return frame[at + 1] === 0x08 ? frame[at + 2]! : MessageType.PUT_VALUE
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length)
  bytes.set(a)
  bytes.set(b, a.length)
  return bytes
}
