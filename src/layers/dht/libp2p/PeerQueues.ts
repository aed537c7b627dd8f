/**
 * What waits to be sent to the peers of the DHT: a queue for each peer, and a time limit for each task. [libp2p]
 *
 * A task waits in the queue of its peer while there is no stream to it, or no room on the stream. Then it is on the
 * stream until its answer comes. All tasks have the same time, so the one that began first expires first.
 */
import type { PeerId as Libp2pPeerId } from "@libp2p/interface"
import { peerIdFromMultihash } from "@libp2p/peer-id"
import { Data } from "effect"
import * as Digest from "multiformats/hashes/digest"
import type { PeerId } from "../../../schema/Peer.ts"
import type { Message } from "../wire/Message.ts"
import type { Addressed } from "./Dial.ts"
import type { Asked } from "./QuestionStream.ts"
import type { PooledStream } from "./StreamPool.ts"
import type { Attempts } from "./StreamRetry.ts"

/** What a peer of the DHT is known by. */
export interface Remote extends Addressed {
  /** The multihash that is its id, and the same as a latin1 text. */
  readonly bytes: Uint8Array
  readonly key: string
}

/**
 * Why a peer has not answered.
 *
 * - `Denied`: this node did not ask: its gate refused the connection, or it is stopping. Says nothing of the peer.
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

/** Messages on their way to a peer. */
export interface Task extends Asked, Attempts {
  queue: PeerQueue
  /** By `Elapsed`. */
  readonly deadline: number
  /** Called once. Absent when nobody waits any more. */
  done: ((result: Message | RequestError | undefined) => void) | undefined
  /** The stream on which it was written; absent while it waits in its queue. */
  on: PooledStream<PeerQueue, Task> | undefined
  /** How many streams had been opened when it began to wait for one. A stream with a higher number is fresh for it. */
  openedBefore: number
}

/** A peer with its stream, and the tasks that wait for a stream or for room on it. */
export interface PeerQueue {
  readonly peer: Libp2pPeerId
  remote: Remote
  /** The oldest first. */
  readonly waiting: Array<Task>
  /** The stream on which the peer is asked. */
  pooled: PooledStream<PeerQueue, Task> | undefined
  /** Ends the opening of a stream that is under way. */
  opening: AbortController | undefined
}

export interface PeerQueues {
  /** The queue of a peer, new or known. Throws for an id that is no peer's. */
  readonly of: (remote: Remote) => PeerQueue
  /** Lets go of a queue that has nothing any more. */
  readonly forget: (queue: PeerQueue) => void
  /** From here on the task may expire. */
  readonly begin: (task: Task) => void
  /** Ends a task with its answer, or without one if it has none. */
  readonly settle: (task: Task, result: Message | RequestError | undefined) => void
  readonly fail: (task: Task, reason: RequestError["reason"], cause?: Error) => void
  /** Nobody waits for the task any more. It is not sent if it has not been yet. */
  readonly cancel: (task: Task) => void
  /** Puts tasks back in front of the queue that their peer has now. */
  readonly putBack: (former: PeerQueue, tasks: ReadonlyArray<Task>) => PeerQueue
  /** Ends the tasks whose time is over. When the next one expires, or infinity. */
  readonly expire: (time: number) => number
  /** Fails all tasks as `Denied`, and ends what is being opened for them. */
  readonly close: (cause: Error) => void
}

export const make = (): PeerQueues => {
  /** Queues of peers with a stream, or with a task that waits for one. */
  const queues = new Map<string, PeerQueue>()
  /** Tasks that are not done, the oldest first. */
  const tasks = new Set<Task>()

  const forget: PeerQueues["forget"] = (queue) => {
    const isUsed = queue.pooled !== undefined || queue.opening !== undefined || queue.waiting.length > 0
    if (!isUsed && queues.get(queue.remote.key) === queue) queues.delete(queue.remote.key)
  }

  const stopOpening = (queue: PeerQueue, cause: Error) => {
    queue.opening?.abort(cause)
    queue.opening = undefined
  }

  const settle: PeerQueues["settle"] = (task, result) => {
    const { done } = task
    tasks.delete(task)
    task.done = undefined
    done?.(result)
  }

  const fail: PeerQueues["fail"] = (task, reason, cause) =>
    settle(task, new RequestError({ peer: task.queue.remote.id, reason, cause }))

  /** Takes a task out that has not been written. The stream that is opened for it alone is given up. */
  const drop = (task: Task) => {
    const { queue } = task
    const index = queue.waiting.indexOf(task)
    if (index >= 0) queue.waiting.splice(index, 1)
    if (queue.waiting.length === 0) stopOpening(queue, new Error("nobody waits any more"))
    forget(queue)
  }

  return {
    of: (remote) => {
      const known = queues.get(remote.key)
      if (known !== undefined) {
        known.remote = remote
        return known
      }
      const peer = peerIdFromMultihash(Digest.decode(remote.bytes))
      const queue: PeerQueue = { peer, remote, waiting: [], pooled: undefined, opening: undefined }
      queues.set(remote.key, queue)
      return queue
    },
    forget,
    begin: (task) => void tasks.add(task),
    settle,
    fail,
    cancel: (task) => {
      task.done = undefined
      if (task.on !== undefined) return
      tasks.delete(task)
      drop(task)
    },
    putBack: (former, tasks) => {
      // A stream being closed can fail after its peer got a new stream or was dropped, so look the peer up again.
      const queue = queues.get(former.remote.key) ?? former
      queues.set(queue.remote.key, queue)
      for (const task of tasks) task.queue = queue
      queue.waiting.unshift(...tasks)
      return queue
    },
    expire: (time) => {
      for (const task of tasks) {
        if (task.deadline > time) break
        const { on, queue } = task
        if (on === undefined) {
          drop(task)
          fail(task, queue.pooled === undefined ? "Unreachable" : "TimedOut")
        } else {
          task.isExpired = true
          on.stream.fail({ reason: "Reset", cause: new Error("the remote did not answer in time") })
        }
      }
      for (const { deadline } of tasks) return deadline
      return Number.POSITIVE_INFINITY
    },
    close: (cause) => {
      for (const queue of queues.values()) stopOpening(queue, cause)
      for (const task of tasks) fail(task, "Denied", cause)
      queues.clear()
    }
  }
}
