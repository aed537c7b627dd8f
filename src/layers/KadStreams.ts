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
import { multiaddr, type Multiaddr as Libp2pMultiaddr } from "@multiformats/multiaddr"
import { Clock, Data, Duration, Effect, Latch, type Scope } from "effect"
import * as Digest from "multiformats/hashes/digest"
import { type Multiaddr, type PeerId, peerOf, withPeer } from "../schema/Peer.ts"
import { type KadMessage, MessageType } from "./KadMessage.ts"
import * as KadStream from "./KadStream.ts"
import { toError } from "./Libp2pFaults.ts"
import { Libp2pHost } from "./Libp2pHost.ts"
import { best } from "./Libp2pTransport.ts"

/** Who is asked: what a peer of the DHT is known by. */
export interface KadRemote {
  readonly id: PeerId
  /** The multihash that is the id, and the same as a latin1 text. */
  readonly bytes: Uint8Array
  readonly key: string
  /** The bytes of its multiaddrs. Dialled when it is not connected; with none, those of the peer store are. */
  readonly addresses: ReadonlyArray<Uint8Array>
}

export interface KadAnswer {
  readonly message: KadMessage
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
export class KadRequestError extends Data.TaggedError("KadRequestError")<{
  readonly peer: PeerId
  readonly reason: "Denied" | "Unreachable" | "Unsupported" | "Reset" | "TimedOut" | "Malformed"
  readonly cause?: Error | undefined
}> {
  override get message(): string {
    return `ask ${this.peer}: ${this.reason}${this.cause === undefined ? "" : ` (${this.cause.message})`}`
  }
}

export interface KadStreamsOptions {
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
export interface KadStreamsCounts {
  /** Questions whose answer was waited for, each counted once. */
  readonly requests: number
  /** Writes to a stream, the repetitions included. */
  readonly writes: number
  /** Streams that were opened. */
  readonly opened: number
  /** Questions that went to another stream because theirs had failed. */
  readonly retries: number
}

export interface KadStreams {
  /**
   * Asks a peer. Both `question` and `before`, if any, are frames as `encodeFrame` makes them; `before` holds messages without an answer. Of
   * at most 64 KiB together.
   *
   * Connects if need be. Interruption gives up a dial that nobody else waits for; once the question is out its answer is awaited all the
   * same, and dropped, so that the stream keeps its order.
   */
  readonly request: (
    peer: KadRemote,
    question: Uint8Array,
    before?: Uint8Array
  ) => Effect.Effect<KadAnswer, KadRequestError>
  /**
   * Sends messages without an answer. Succeeds when they are written, which does not show that the remote takes them. A stream without use
   * for more than 8 s is not trusted with them: the remote may be resetting it.
   */
  readonly send: (peer: KadRemote, frame: Uint8Array) => Effect.Effect<void, KadRequestError>
  /** Opens a stream to a peer that is connected, if it has none. Does not wait for it. */
  readonly warm: (peer: KadRemote) => Effect.Effect<void>
  readonly counts: () => KadStreamsCounts
}

/**
 * Streams for as long as the scope lives. They are closed with it, questions without an answer fail as `Denied`, and so does every later one.
 */
export const make = Effect.fnUntraced(function*(
  options: KadStreamsOptions
): Effect.fn.Return<KadStreams, never, Libp2pHost | Scope.Scope> {
  const { connectionManager, peerId, peerStore } = (yield* Libp2pHost).components
  const clock = yield* Clock.Clock
  const self = peerId.toString() as PeerId
  const timeoutMillis = Duration.toMillis(Duration.fromInputUnsafe(options.timeout ?? "5 seconds"))
  const idleMillis = Duration.toMillis(Duration.fromInputUnsafe(options.idleTime ?? "30 seconds"))
  const streamsMax = options.streamsMax ?? 256
  const questionsMax = options.questionsMax ?? 64
  const now = () => clock.currentTimeMillisUnsafe()

  const counts = { requests: 0, writes: 0, opened: 0, retries: 0 }
  /** Peers with a stream, or with somebody who waits for one. */
  const lines = new Map<string, Line>()
  /** Streams that are open, the least recently used first. */
  const pool = new Set<Pooled>()
  /** Tasks that are not done, the oldest first: all have the same time. */
  const tasks = new Set<Task>()
  /** Streams of which this half is closed. */
  const closing = new Set<Pooled>()
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
      if (pooled.stream.isIdle()) retire(pooled)
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
    if (isClosed) return task.done?.(failure(line, "Denied", stopping()))
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
    const connections = connectionManager.getConnections(line.peer)
    return (connections.length === 1 ? connections[0] : best(self, connections)) === connection
  }

  const write = (pooled: Pooled, task: Task) => {
    const { bytes, question } = task
    task.on = pooled
    pooled.usedAt = now()
    pool.delete(pooled)
    pool.add(pooled)
    if (bytes !== undefined) {
      counts.writes++
      pooled.stream.write(bytes, question === undefined ? undefined : task)
    }
    if (question !== undefined) return
    // Without an answer it is done, unless the write has failed, which `onEnd` of the stream does not tell of it.
    if (pooled.stream.isOpen()) settle(task, undefined)
    else ended(pooled, [task], { reason: "Reset", cause: new Error("the stream ended") })
  }

  const flush = (pooled: Pooled) => {
    const { line, stream } = pooled
    while (line.pooled === pooled && line.waiting.length > 0 && stream.hasRoom()) write(pooled, line.waiting.shift()!)
  }

  const settle = (task: Task, result: KadMessage | KadRequestError | undefined) => {
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

  const lineOf = (remote: KadRemote): Line => {
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
    connect(line, opening.signal).then(
      ([connection, stream]) => {
        if (line.opening !== opening) return stream.abort(new Error("nobody waits for this stream any more"))
        line.opening = undefined
        opened(line, connection, stream)
      },
      (thrown: unknown) => {
        if (line.opening !== opening) return
        line.opening = undefined
        const error = thrown instanceof KadRequestError ? thrown : failure(line, "Unreachable", toError(thrown))
        for (const task of line.waiting.splice(0)) settle(task, error)
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
      isLeft: false,
      stream: KadStream.make<Task>(stream, {
        questionsMax,
        onAnswer: (task, message) => {
          settle(task, message)
          flush(pooled)
          if (pooled.isLeft && pooled.stream.isIdle()) retire(pooled)
        },
        onRoom: () => flush(pooled),
        onEnd: (unanswered, end) => ended(pooled, unanswered, end)
      })
    }
    line.pooled = pooled
    const [oldest] = pool
    if (oldest !== undefined && pool.size >= streamsMax) leave(oldest)
    pool.add(pooled)
    wakeBy(pooled.usedAt + idleMillis)
    flush(pooled)
  }

  /** Asks nothing more on a stream, and closes it when what was asked has its answer. */
  const leave = (pooled: Pooled) => {
    pooled.isLeft = true
    if (pooled.line.pooled === pooled) pooled.line.pooled = undefined
    if (pooled.stream.isIdle()) retire(pooled)
  }

  const retire = (pooled: Pooled) => {
    remove(pooled)
    closing.add(pooled)
    void pooled.stream.close(closeMillis).then(() => closing.delete(pooled))
  }

  const remove = (pooled: Pooled) => {
    pool.delete(pooled)
    if (pooled.line.pooled === pooled) pooled.line.pooled = undefined
    forget(pooled.line)
  }

  /** Sends what has no answer on to another stream, or fails it. */
  const ended = (pooled: Pooled, unanswered: ReadonlyArray<Task>, end: KadStream.KadStreamEnd) => {
    const { line } = pooled
    pool.delete(pooled)
    if (line.pooled === pooled) line.pooled = undefined
    const isLost = pooled.connection.status !== "open"
    const blamed = unanswered.find((task) => task.isExpired) ?? unanswered[0]
    const failed: Array<readonly [Task, KadRequestError | undefined]> = []
    const next: Array<Task> = []
    for (const task of unanswered) {
      const isReused = pooled.number <= task.openedBefore
      task.on = undefined
      task.openedBefore = counts.opened
      // Nobody waits for it any more.
      if (task.done === undefined) failed.push([task, undefined])
      else if (task.isExpired) failed.push([task, failure(line, "TimedOut", end.cause)])
      else if (end.reason === "Unsupported") failed.push([task, failure(line, end.reason, end.cause)])
      else if (task !== blamed && task.spared < sparedMax) {
        task.spared++
        next.push(task)
      } else if (end.reason === "Malformed") failed.push([task, failure(line, end.reason, end.cause)])
      else if ((isReused || isLost) && !task.isRetried) {
        task.isRetried = true
        next.push(task)
      } else if (task.bytes !== task.question && task.question !== undefined && !isLost) {
        task.bytes = task.question
        next.push(task)
      } else failed.push([task, failure(line, "Reset", end.cause)])
    }
    counts.retries += next.length
    line.waiting.unshift(...next)
    if (line.waiting.length > 0) open(line)
    for (const [task, error] of failed) settle(task, error)
    forget(line)
  }

  // ----- connections

  /** Throws a `KadRequestError`. */
  const connect = async (line: Line, signal: AbortSignal): Promise<readonly [Connection, Stream]> => {
    const connected = best(self, connectionManager.getConnections(line.peer))
    if (connected !== undefined) {
      try {
        return [connected, await newStream(line, connected, signal)]
      } catch (thrown) {
        // One that was lost in this moment is no reason not to dial.
        if (signal.aborted || connected.status === "open") throw thrown
      }
    }
    const connection = await dial(line, signal)
    return [connection, await newStream(line, connection, signal)]
  }

  const newStream = async (line: Line, connection: Connection, signal: AbortSignal): Promise<Stream> => {
    try {
      const stream = await connection.newStream(options.protocol, { signal, runOnLimitedConnection: true })
      // It has no effect after the negotiation.
      if (signal.aborted) stream.abort(toError(signal.reason))
      return stream
    } catch (thrown) {
      const cause = toError(thrown)
      if (cause.name === "UnsupportedProtocolError") throw failure(line, "Unsupported", cause)
      throw failure(line, connection.status === "open" ? "Reset" : "Unreachable", cause)
    }
  }

  const dial = async (line: Line, signal: AbortSignal): Promise<Connection> => {
    const addresses = await addressesOf(line, signal)
    // libp2p would look it up in the DHT.
    if (addresses.length === 0) throw failure(line, "Unreachable", new Error("no address of it is known"))
    for (let joined = 0;; joined++) {
      try {
        return await connectionManager.openConnection(addresses, { signal })
      } catch (thrown) {
        const cause = toError(thrown)
        // libp2p lets a dial join one to the same peer that somebody else has just given up.
        if (cause.name !== "AbortError" || signal.aborted || joined === joinsMax) {
          throw failure(line, isOwnRefusal(cause) ? "Denied" : "Unreachable", cause)
        }
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
  }

  const addressesOf = async ({ peer, remote }: Line, signal: AbortSignal): Promise<Array<Libp2pMultiaddr>> => {
    const given = remote.addresses.flatMap((bytes) => readAddress(bytes, remote.id))
    if (given.length > 0) return given
    const known = await peerStore.get(peer, { signal }).catch(() => undefined)
    return known?.addresses.flatMap((address) => readAddress(address.multiaddr.bytes, remote.id)) ?? []
  }

  yield* Effect.addFinalizer(() =>
    Effect.promise(async () => {
      isClosed = true
      for (const line of lines.values()) {
        line.opening?.abort(stopping())
        line.opening = undefined
      }
      for (const task of tasks) settle(task, failure(task.line, "Denied", stopping()))
      await Promise.all([...pool, ...closing].map(({ stream }) => stream.close(stopMillis)))
      pool.clear()
      lines.clear()
    })
  )

  const taskOf = (peer: KadRemote, question: Uint8Array | undefined, bytes: Uint8Array | undefined): Task => ({
    line: lineOf(peer),
    question,
    type: question === undefined ? 0 : typeOf(question),
    deadline: now() + timeoutMillis,
    bytes,
    done: undefined,
    on: undefined,
    openedBefore: 0,
    isExpired: false,
    isRetried: false,
    spared: 0
  })

  return {
    request: (peer, question, before) =>
      Effect.callback((resume) => {
        counts.requests++
        const task = taskOf(peer, question, before === undefined ? question : concat(before, question))
        task.done = (result) => {
          if (result instanceof KadRequestError) return resume(Effect.fail(result))
          resume(Effect.succeed({ message: result!, tookBefore: before === undefined || task.bytes !== question }))
        }
        submit(task)
        return Effect.sync(() => cancel(task))
      }),
    send: (peer, frame) =>
      Effect.callback((resume) => {
        const task = taskOf(peer, undefined, frame)
        task.done = (result) => resume(result instanceof KadRequestError ? Effect.fail(result) : Effect.void)
        submit(task)
        return Effect.sync(() => cancel(task))
      }),
    warm: (peer) =>
      Effect.sync(() => {
        const task = taskOf(peer, undefined, undefined)
        // Whether it comes to something shows when the peer is asked.
        task.done = () => {}
        if (connectionManager.getConnections(task.line.peer).length > 0) submit(task)
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
// How often a question goes on to another stream that failed for another one's sake.
const sparedMax = 3
const joinsMax = 3
const closeMillis = 1000
const stopMillis = 250

/** Messages on their way to a peer. */
interface Task extends KadStream.Asked {
  readonly line: Line
  /** Absent where no answer is waited for. */
  readonly question: Uint8Array | undefined
  readonly deadline: number
  /** What is written: the question, with or without what goes before it. Absent where the stream is all that is wanted. */
  bytes: Uint8Array | undefined
  /** Called once. Absent when nobody waits any more. */
  done: ((result: KadMessage | KadRequestError | undefined) => void) | undefined
  /** Where it was written. */
  on: Pooled | undefined
  /** How many streams had been opened when it began to wait for one; any other is fresh for it. */
  openedBefore: number
  isExpired: boolean
  /** It has failed on a stream that was not fresh, or with a connection. */
  isRetried: boolean
  spared: number
}

/** A peer: its stream, or those who wait for one or for room on it. */
interface Line {
  readonly peer: Libp2pPeerId
  remote: KadRemote
  /** The oldest first. */
  readonly waiting: Array<Task>
  pooled: Pooled | undefined
  opening: AbortController | undefined
}

interface Pooled {
  readonly line: Line
  readonly connection: Connection
  readonly stream: KadStream.KadStream<Task>
  /** How many streams had been opened, this one included. */
  readonly number: number
  /** When something was last written to it. */
  usedAt: number
  /** Nothing more is asked on it. */
  isLeft: boolean
}

function failure(line: Line, reason: KadRequestError["reason"], cause?: Error): KadRequestError {
  return new KadRequestError({ peer: line.remote.id, reason, cause })
}

function stopping(): Error {
  return new Error("this node is stopping")
}

// The gate says no before a dial or in the last step of one; a dial to several addresses gathers what each came to. A node that is stopping,
// or whose queue of dials is full, has not tried.
function isOwnRefusal(error: Error): boolean {
  if (error instanceof AggregateError) return error.errors.some(isOwnRefusal)
  return ownRefusals.has(error.name)
}

const ownRefusals = new Set(["DialDeniedError", "ConnectionInterceptedError", "NotStartedError", "DialError"])

/** None for an address that cannot be read, or that leads to another peer. */
function readAddress(bytes: Uint8Array, id: PeerId): ReadonlyArray<Libp2pMultiaddr> {
  try {
    const text = multiaddr(bytes).toString() as Multiaddr
    const other = peerOf(text)
    return other === undefined || other === id ? [multiaddr(withPeer(text, id))] : []
  } catch {
    return []
  }
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
