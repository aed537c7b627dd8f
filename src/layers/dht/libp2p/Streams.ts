/**
 * Questions to peers of the DHT, over one lasting stream for each. [libp2p]
 *
 * A stream is opened when a peer is first asked, carries many questions at once, and closes after a while without use,
 * so that a connection can become idle. The remote may have reset an older stream meanwhile (js-libp2p does so 10 s
 * after the last message, Go after 60 s). So a question that fails on an older stream is asked once more on a fresh
 * one, which is safe since every question of Kademlia may be repeated.
 *
 * ADD_PROVIDER has no answer. It is sent in front of a question, in one write: the answer shows that the remote has
 * read both. A remote that refuses the record resets the stream, and the question is then asked alone.
 *
 * A remote answers in turn, so when a stream fails only its oldest question is to blame. The others are sent on the
 * next stream.
 */
import type { Connection, Stream } from "@libp2p/interface"
import { Bytes, Clock, Duration, Effect, Latch, type Scope } from "effect"
import { toError } from "../../libp2p/Faults.ts"
import { Libp2pHost } from "../../libp2p/Host.ts"
import { type Message, MessageType } from "../wire/Message.ts"
import * as Elapsed from "../../Elapsed.ts"
import * as Supervised from "../../Supervised.ts"
import * as Dial from "./Dial.ts"
import { type PeerQueue, type Remote, RequestError, type Task } from "./PeerQueues.ts"
import * as PeerQueues from "./PeerQueues.ts"
import type { StreamEnd } from "./QuestionStream.ts"
import * as StreamPool from "./StreamPool.ts"
import * as StreamRetry from "./StreamRetry.ts"

export interface Answer {
  readonly message: Message
  /** Whether the remote has read what was sent before the question. True when nothing was. */
  readonly tookBefore: boolean
}

export interface StreamsOptions {
  readonly protocol: string
  /** How long an answer may take, with the connection to the peer and all repetitions. Defaults to 5 s. */
  readonly timeout?: Duration.Input | undefined
  /** How long a stream stays open after the last question. Defaults to 30 s. */
  readonly idleTime?: Duration.Input | undefined
  /**
   * How many streams are open at most; the least recently used one closes. Defaults to 256, which is enough for as many
   * connections.
   */
  readonly streamsMax?: number | undefined
  /** How many questions of a stream may be without an answer at once; others wait. Defaults to 64. */
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
   * Asks a peer. `question` and `before` are frames made by `encodeFrame`, of at most 64 KiB together; `before` holds
   * messages without an answer.
   *
   * Connects if need be. Interruption gives up a dial that nobody else waits for. Once the question is sent its answer
   * is awaited all the same, and dropped, so that the stream keeps its order.
   */
  readonly request: (
    peer: Remote,
    question: Uint8Array,
    before?: Uint8Array
  ) => Effect.Effect<Answer, RequestError>
  /**
   * Sends messages without an answer. Succeeds when they are written, which does not show that the remote takes them.
   * They go on a fresh stream if the open one was not used for more than 8 s: the remote may be resetting it.
   */
  readonly send: (peer: Remote, frame: Uint8Array) => Effect.Effect<void, RequestError>
  /** Opens a stream to a peer that is connected, if it has none. Does not wait for it. */
  readonly warm: (peer: Remote) => Effect.Effect<void>
  readonly counts: () => StreamsCounts
}

/**
 * Streams for as long as the scope lives. They close with the scope. Questions without an answer then fail as `Denied`,
 * and so does every later question.
 */
export const make = Effect.fnUntraced(function*(
  options: StreamsOptions
): Effect.fn.Return<Streams, never, Libp2pHost | Scope.Scope> {
  const dial = Dial.make(yield* Libp2pHost, options.protocol)
  const clock = yield* Clock.Clock
  const timeoutMillis = Duration.toMillis(Duration.fromInputUnsafe(options.timeout ?? "5 seconds"))
  const idleMillis = Duration.toMillis(Duration.fromInputUnsafe(options.idleTime ?? "30 seconds"))
  const now = () => Elapsed.millisUnsafe(clock)

  const counts = { requests: 0, writes: 0, retries: 0 }
  const queues = PeerQueues.make()
  const pool = StreamPool.make<PeerQueue, Task>({
    streamsMax: options.streamsMax ?? 256,
    questionsMax: options.questionsMax ?? 64,
    idleMillis,
    now,
    onAnswer: (pooled, task, message) => {
      queues.settle(task, message)
      flush(pooled)
    },
    onRoom: (pooled) => flush(pooled),
    onLeave: (pooled) => released(pooled),
    onEnd: (pooled, unanswered, end) => ended(pooled, unanswered, end)
  })
  let isClosed = false

  // ----- time

  const due = Latch.makeUnsafe(false)
  let wakeAt = Number.POSITIVE_INFINITY
  const wakeBy = (at: number) => {
    if (at >= wakeAt) return
    wakeAt = at
    due.openUnsafe()
  }

  yield* Supervised.forever(
    "the end of unused streams",
    Effect.gen(function*() {
      due.closeUnsafe()
      const time = now()
      wakeAt = Math.min(queues.expire(time), pool.sweep(time))
      const wait = wakeAt === Number.POSITIVE_INFINITY ? Effect.never : Effect.sleep(Duration.millis(wakeAt - now()))
      yield* Effect.raceFirst(due.await, wait)
    })
  )

  // ----- the way of a task

  const submit = (task: Task) => {
    const { queue } = task
    if (isClosed) {
      queues.forget(queue)
      return queues.fail(task, "Denied", stopping())
    }
    queues.begin(task)
    wakeBy(task.deadline)
    task.openedBefore = pool.opened()
    const { pooled } = queue
    if (pooled !== undefined && isGood(pooled, task)) {
      if (queue.waiting.length === 0 && pooled.stream.hasRoom()) write(pooled, task)
      else queue.waiting.push(task)
      return
    }
    queue.waiting.push(task)
    if (pooled === undefined) open(queue)
    else pool.leave(pooled)
  }

  const isGood = ({ connection, stream, usedAt }: Pooled, { question, queue }: Task): boolean => {
    if (!stream.isOpen() || question === undefined && now() - usedAt > trustedMillis) return false
    return dial.connectionTo(queue.peer) === connection
  }

  const write = (pooled: Pooled, task: Task) => {
    const { bytes, question } = task
    task.on = pooled
    pool.use(pooled)
    const hasAnswer = question !== undefined
    if (bytes !== undefined) {
      counts.writes++
      if (!pooled.stream.write(bytes, task, hasAnswer)) return
    }
    if (!hasAnswer) queues.settle(task, undefined)
  }

  const flush = (pooled: Pooled) => {
    const { owner: { waiting }, owner, stream } = pooled
    while (owner.pooled === pooled && waiting.length > 0 && stream.hasRoom()) write(pooled, waiting.shift()!)
  }

  // ----- streams

  const open = (queue: PeerQueue) => {
    if (queue.opening !== undefined) return
    const opening = new AbortController()
    queue.opening = opening
    dial.open(queue.peer, queue.remote, opening.signal).then(
      ([connection, stream]) => {
        if (queue.opening !== opening) return stream.abort(new Error("nobody waits for this stream any more"))
        queue.opening = undefined
        opened(queue, connection, stream)
      },
      (thrown: unknown) => {
        if (queue.opening !== opening) return
        queue.opening = undefined
        const { cause, reason } = Dial.failureOf(thrown)
        for (const task of queue.waiting.splice(0)) queues.fail(task, reason, cause)
        queues.forget(queue)
      }
    )
  }

  const opened = (queue: PeerQueue, connection: Connection, stream: Stream) => {
    const pooled = pool.add(queue, connection, stream)
    queue.pooled = pooled
    wakeBy(pooled.usedAt + idleMillis)
    flush(pooled)
  }

  /** A stream is asked nothing more; tasks that wait need another one. */
  const released = (pooled: Pooled) => {
    const { owner } = pooled
    if (owner.pooled === pooled) owner.pooled = undefined
    if (owner.pooled === undefined && owner.waiting.length > 0) open(owner)
    else queues.forget(owner)
  }

  /** A stream has failed: its tasks are sent on another stream, or fail. */
  const ended = (pooled: Pooled, unanswered: ReadonlyArray<Task>, end: StreamEnd) => {
    const { owner } = pooled
    if (owner.pooled === pooled) owner.pooled = undefined
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
      task.openedBefore = pool.opened()
    }
    if (next.length > 0) again(owner, next)
    else if (owner.waiting.length > 0 && owner.pooled === undefined) open(owner)
    for (const [task, reason] of done) queues.fail(task, reason, end.cause)
    queues.forget(owner)
  }

  const again = (former: PeerQueue, next: ReadonlyArray<Task>) => {
    const queue = queues.putBack(former, next)
    counts.retries += next.length
    if (queue.pooled === undefined) open(queue)
    else flush(queue.pooled)
  }

  yield* Effect.addFinalizer(() =>
    Effect.promise(() => {
      isClosed = true
      queues.close(stopping())
      return pool.close()
    })
  )

  const taskOf = (peer: Remote, question: Uint8Array | undefined, bytes: Uint8Array | undefined): Task => ({
    queue: queues.of(peer),
    question,
    type: question === undefined ? 0 : typeOf(question),
    deadline: now() + timeoutMillis,
    bytes,
    done: undefined,
    on: undefined,
    openedBefore: 0,
    ...StreamRetry.none
  })

  /** Fails at once when the id is no peer's: others may name any bytes as a peer. */
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
      return Effect.sync(() => queues.cancel(task))
    })

  return {
    request: (peer, question, before) =>
      Effect.suspend(() => {
        counts.requests++
        return asking(
          peer,
          question,
          before === undefined ? question : Bytes.concat([before, question]),
          (task, message) => ({
            message: message!,
            tookBefore: before === undefined || task.bytes !== question
          })
        )
      }),
    send: (peer, frame) => asking(peer, undefined, frame, () => {}),
    warm: (peer) =>
      Effect.sync(() => {
        const task = taskOf(peer, undefined, undefined)
        // If it fails, the next question fails, too.
        task.done = () => {}
        if (dial.connectionTo(task.queue.peer) !== undefined) submit(task)
        else queues.forget(task.queue)
      }),
    counts: () => ({ ...counts, opened: pool.opened() })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// js-libp2p resets a stream 10 s after its last message, and has no option for it.
const trustedMillis = 8000
type Pooled = StreamPool.PooledStream<PeerQueue, Task>

function stopping(): Error {
  return new Error("this node is stopping")
}

// [uvarint length][0x08][type], or no type, which means PUT_VALUE.
function typeOf(frame: Uint8Array): number {
  let at = 0
  while (frame[at]! >= 0x80) at++
  return frame[at + 1] === 0x08 ? frame[at + 2]! : MessageType.PUT_VALUE
}
