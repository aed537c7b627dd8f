/**
 * The streams on which peers of the DHT are asked, one for each peer: how many are open, and which closes next.
 * [libp2p]
 *
 * A stream closes after a while without use, and the least recently used one when there are too many. It leaves the
 * pool first: it is asked nothing more, and closes when the questions on it have their answers.
 */
import type { Connection, Stream } from "@libp2p/interface"
import type { Message } from "../wire/Message.ts"
import * as QuestionStream from "./QuestionStream.ts"

export interface PooledStream<Owner, Question extends QuestionStream.Asked> {
  readonly owner: Owner
  readonly connection: Connection
  readonly stream: QuestionStream.QuestionStream<Question>
  /** How many streams had been opened, this one included. */
  readonly number: number
  /** When something was last written to it, by `now` of the options. */
  usedAt: number
}

export interface StreamPoolOptions<Owner, Question extends QuestionStream.Asked> {
  readonly streamsMax: number
  readonly questionsMax: number
  readonly idleMillis: number
  readonly now: () => number
  /** The answer to the oldest question of a stream. */
  readonly onAnswer: (pooled: PooledStream<Owner, Question>, question: Question, message: Message) => void
  /** There may be room on a stream again. */
  readonly onRoom: (pooled: PooledStream<Owner, Question>) => void
  /** A stream has left the pool: whoever asks its owner now needs another one. */
  readonly onLeave: (pooled: PooledStream<Owner, Question>) => void
  /** A stream has failed, in the pool or after it has left; these questions have no answer, the oldest first. */
  readonly onEnd: (
    pooled: PooledStream<Owner, Question>,
    unanswered: ReadonlyArray<Question>,
    end: QuestionStream.StreamEnd
  ) => void
}

export interface StreamPool<Owner, Question extends QuestionStream.Asked> {
  /** Takes in a stream, in the turn in which libp2p gave it. */
  readonly add: (owner: Owner, connection: Connection, stream: Stream) => PooledStream<Owner, Question>
  /** Tells that something is written to a stream. */
  readonly use: (pooled: PooledStream<Owner, Question>) => void
  readonly leave: (pooled: PooledStream<Owner, Question>) => void
  /** Has the streams leave that were not used for a while. When the next one may leave, or infinity. */
  readonly sweep: (time: number) => number
  /** How many streams have been opened. */
  readonly opened: () => number
  /** Closes all of them. Never rejects. */
  readonly close: () => Promise<unknown>
}

export const make = <Owner, Question extends QuestionStream.Asked>(
  { idleMillis, now, onAnswer, onEnd, onLeave, onRoom, questionsMax, streamsMax }: StreamPoolOptions<Owner, Question>
): StreamPool<Owner, Question> => {
  type Pooled = PooledStream<Owner, Question>
  /** Streams that are asked, the least recently used first. */
  const pool = new Set<Pooled>()
  /** Streams that have left, and are open. */
  const leaving = new Set<Pooled>()
  let opened = 0

  const close = (pooled: Pooled) => void pooled.stream.close(closeMillis).then(() => leaving.delete(pooled))

  const leave = (pooled: Pooled) => {
    pool.delete(pooled)
    leaving.add(pooled)
    if (pooled.stream.isIdle()) close(pooled)
    onLeave(pooled)
  }

  return {
    add: (owner, connection, stream) => {
      const pooled: Pooled = {
        owner,
        connection,
        number: ++opened,
        usedAt: now(),
        stream: QuestionStream.make<Question>(stream, {
          questionsMax,
          onAnswer: (question, message) => {
            onAnswer(pooled, question, message)
            if (leaving.has(pooled) && pooled.stream.isIdle()) close(pooled)
          },
          onRoom: () => onRoom(pooled),
          onEnd: (unanswered, end) => {
            pool.delete(pooled)
            leaving.delete(pooled)
            onEnd(pooled, unanswered, end)
          }
        })
      }
      const [least] = pool
      if (least !== undefined && pool.size >= streamsMax) leave(least)
      pool.add(pooled)
      return pooled
    },
    use: (pooled) => {
      pooled.usedAt = now()
      pool.delete(pooled)
      pool.add(pooled)
    },
    leave,
    sweep: (time) => {
      for (const pooled of pool) {
        if (pooled.usedAt + idleMillis > time) break
        if (pooled.stream.isIdle()) leave(pooled)
      }
      // A stream with a question does not become idle before the time of the question is over.
      for (const { stream, usedAt } of pool) if (stream.isIdle()) return usedAt + idleMillis
      return Number.POSITIVE_INFINITY
    },
    opened: () => opened,
    close: () => {
      const closing = Promise.all([...pool, ...leaving].map(({ stream }) => stream.close(stopMillis)))
      pool.clear()
      return closing
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const closeMillis = 1000
const stopMillis = 250
