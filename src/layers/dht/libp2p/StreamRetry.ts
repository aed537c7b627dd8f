/**
 * What becomes of a question whose stream has failed: whether it goes on to another one, and with what.
 *
 * - A remote answers in turn, so only the oldest question without an answer is to blame; the others go on, a few times.
 * - A stream that stood before the question may have been reset while nobody used it, and a connection may just have been lost: once more.
 * - What went before the question on a fresh stream may be what the remote refuses: once more without it.
 */
import type { StreamEnd } from "./QuestionStream.ts"

/** What a question has been through. */
export interface Attempts {
  /** Absent for messages without an answer. */
  readonly question: Uint8Array | undefined
  /** What is written: the question, with or without what goes before it. Absent where the stream is all that is wanted. */
  bytes: Uint8Array | undefined
  /** Absent when nobody waits any more. */
  readonly done: unknown
  /** It has had its time. */
  isExpired: boolean
  /** It has failed with a stream that was not fresh, or with a connection. */
  isRetried: boolean
  /** How often it went on to another stream because one had failed for another one's sake. */
  spared: number
}

/** Nothing yet. */
export const none: Pick<Attempts, "isExpired" | "isRetried" | "spared"> = {
  isExpired: false,
  isRetried: false,
  spared: 0
}

export interface Failure {
  readonly reason: StreamEnd["reason"]
  /** Whether it is the question for which the stream failed. */
  readonly isBlamed: boolean
  /** Whether the stream was opened after the question had begun to wait for one. */
  readonly isFresh: boolean
  /** Whether the connection has gone with the stream. */
  readonly isLost: boolean
}

/** Why a question has failed for good; undefined when it goes on, with what is then its `bytes`. */
export const failed = (
  attempts: Attempts,
  { isBlamed, isFresh, isLost, reason }: Failure
): StreamEnd["reason"] | "TimedOut" | undefined => {
  if (attempts.isExpired) return "TimedOut"
  if (attempts.done === undefined || reason === "Unsupported") return reason
  if (!isBlamed && attempts.spared++ < sparedMax) return undefined
  if (reason === "Malformed") return reason
  if ((isLost || !isFresh) && !attempts.isRetried) {
    attempts.isRetried = true
    return undefined
  }
  if (isLost || attempts.question === undefined || attempts.bytes === attempts.question) return reason
  attempts.bytes = attempts.question
  return undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Peers that reset every stream would otherwise keep questions going for as long as there are others.
const sparedMax = 3
