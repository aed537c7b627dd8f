/**
 * One stream of Kademlia: questions go out, and answers come in the order of their questions. [libp2p]
 *
 * All implementations read the next message of a stream when they have answered the last one, so that many questions
 * may be under way. An answer has no number: a missing one would shift all later answers. So fail a stream when a
 * question on it is given up.
 */
import type { Stream, StreamMessageEvent } from "@libp2p/interface"
import { decodeMessage, FrameReader, type Message } from "../wire/Message.ts"
import { toError, untilClosed } from "../../libp2p/Faults.ts"
import { unsentBytesMax } from "../../libp2p/wire/Yamux.ts"

/** Why a stream is over. */
export interface StreamEnd {
  /**
   * `Malformed`: bytes that are no answer, or an answer that nobody asked for. `Reset`: anything else that ended the
   * stream, at either side.
   */
  readonly reason: "Unsupported" | "Malformed" | "Reset"
  readonly cause: Error
}

/** What this file knows of a question. */
export interface Asked {
  /** The type of the question and of its answer. */
  readonly type: number
}

export interface QuestionStreamOptions<Question extends Asked> {
  /** How many questions may be without an answer at once. */
  readonly questionsMax: number
  /** The answer to the oldest question. */
  readonly onAnswer: (question: Question, message: Message) => void
  /** There may be room again. */
  readonly onRoom: () => void
  /** The stream is over; these questions have no answer, the oldest first. Called once, unless `close` comes first. */
  readonly onEnd: (unanswered: ReadonlyArray<Question>, end: StreamEnd) => void
}

export interface QuestionStream<Question extends Asked> {
  readonly isOpen: () => boolean
  /** Whether another question may be sent now: not too many are without an answer, and the remote reads. */
  readonly hasRoom: () => boolean
  readonly isIdle: () => boolean
  /**
   * Sends bytes in one frame of the muxer, with or without waiting for an answer. False when that has failed: then
   * `onEnd` has been given the question, too.
   */
  readonly write: (bytes: Uint8Array, question: Question, hasAnswer: boolean) => boolean
  /** Resets the stream, and tells `onEnd`. */
  readonly fail: (end: StreamEnd) => void
  /**
   * Ends this half, drops late answers, and resets the stream if the remote has not ended its half in time. Never
   * rejects.
   */
  readonly close: (millis: number) => Promise<void>
}

/** Takes over a stream, in the turn in which libp2p gave it. */
export const make = <Question extends Asked>(
  stream: Stream,
  options: QuestionStreamOptions<Question>
): QuestionStream<Question> => {
  const reader = new FrameReader()
  const questions: Array<Question> = []
  let isOver = false

  const end = (why: StreamEnd) => {
    if (isOver) return
    isOver = true
    const unanswered = questions.splice(0)
    // A remote that has ended its half and owes no answer gets the end of the other half, and not a reset.
    if (unanswered.length === 0 && stream.remoteWriteStatus === "closed") void finish(stream, closeMillis)
    else stream.abort(why.cause)
    options.onEnd(unanswered, why)
  }

  const onMessage = ({ data }: StreamMessageEvent) => {
    if (isOver) return
    try {
      if (data instanceof Uint8Array) reader.push(data, take)
      else for (const chunk of data) reader.push(chunk, take)
    } catch (thrown) {
      end({ reason: "Malformed", cause: toError(thrown) })
    }
  }
  const take = (bytes: Uint8Array) => {
    // A message before this one has failed the stream.
    if (isOver) return
    const [question] = questions
    if (question === undefined) throw new Error("the remote sent what nobody asked for")
    const message = decodeMessage(bytes)
    if (message.type !== question.type) throw new Error(`an answer of type ${message.type} to one of ${question.type}`)
    questions.shift()
    options.onAnswer(question, message)
  }
  const onClose = ({ error }: { readonly error?: Error | undefined }) => {
    const cause = error ?? new Error("the stream was closed")
    end({ reason: cause.name === "UnsupportedProtocolError" ? "Unsupported" : "Reset", cause })
  }
  // The frame that ends the remote's half may carry an answer, which libp2p delivers after the event.
  const onRemoteEnd = () =>
    queueMicrotask(() => end({ reason: "Reset", cause: new Error("the remote ended the stream") }))

  const hasRoom = () =>
    questions.length < options.questionsMax && !stream.writableNeedsDrain && stream.writeBufferLength <= unsentBytesMax
  // libp2p sends its buffer in a microtask that it queues before this one.
  const onDrain = () =>
    queueMicrotask(() => {
      if (!isOver && hasRoom()) options.onRoom()
    })

  stream.addEventListener("message", onMessage)
  stream.addEventListener("remoteCloseWrite", onRemoteEnd)
  stream.addEventListener("drain", onDrain)
  stream.addEventListener("close", onClose)

  return {
    isOpen: () => !isOver && stream.writeStatus === "writable" && stream.remoteWriteStatus !== "closed",
    hasRoom,
    isIdle: () => questions.length === 0,
    write: (bytes, question, hasAnswer) => {
      questions.push(question)
      try {
        stream.send(bytes)
      } catch (thrown) {
        end({ reason: "Reset", cause: toError(thrown) })
      }
      if (!hasAnswer) questions.pop()
      return !isOver
    },
    fail: end,
    close: (millis) => {
      isOver = true
      return finish(stream, millis)
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const closeMillis = 1000

async function finish(stream: Stream, millis: number): Promise<void> {
  if (stream.status !== "open") return
  const closed = new Promise<void>((resolve) => stream.addEventListener("close", () => resolve(), { once: true }))
  const timer = setTimeout(() => stream.abort(new Error("the remote did not end the stream in time")), millis)
  untilClosed(stream, (signal) => stream.close({ signal })).catch((thrown: unknown) => stream.abort(toError(thrown)))
  await closed
  clearTimeout(timer)
}
