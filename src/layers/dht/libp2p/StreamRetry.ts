/**
 * What becomes of a question whose stream has failed: whether it is sent on another stream, and with which bytes.
 *
 * - A remote answers in turn, so only the oldest question without an answer is to blame. The others are sent again, a
 *   few times.
 * - A stream that is older than the question may have been reset while it was not used, and a connection may just have
 *   been lost: once more.
 * - The remote may have refused what was sent before the question on a fresh stream: once more without it.
 */
import type { StreamEnd } from "./QuestionStream.ts"

/** What has happened to a question so far. */
export interface Attempts {
  /** Absent for messages without an answer. */
  readonly question: Uint8Array | undefined
  /** What is written: the question, with or without what goes before it. Absent when only the stream is wanted. */
  bytes: Uint8Array | undefined
  /** Absent when nobody waits any more. */
  readonly done: unknown
  /** Its time is over. */
  isExpired: boolean
  /** It was sent again since its stream was not fresh, or the connection was lost. */
  isRetried: boolean
  /** How often it was sent again since a stream had failed because of another question. */
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
  /** Whether the stream failed because of this question. */
  readonly isBlamed: boolean
  /** Whether the stream was opened after the question had begun to wait for one. */
  readonly isFresh: boolean
  /** Whether the connection is lost, too. */
  readonly isLost: boolean
}

/** Why a question has failed for good; undefined when its `bytes` are to be sent on another stream. */
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

// A peer that resets every stream would otherwise have questions sent again for as long as there are others.
const sparedMax = 3
