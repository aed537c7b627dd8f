/**
 * The pings of one connection, all on one stream as long as the remote lets it stand. [libp2p]
 *
 * Like a telephone line that stays open between two questions: dialling anew costs most of a ping. The remote may hang
 * up whenever it likes, as js-libp2p does 10 s after the stream was opened, and Go after 10 s of silence. Then the next
 * ping opens a new stream; where the end crosses that ping, it is sent again. Neither fails a ping.
 *
 * A stream is reset when nobody knows what comes next on it: after a ping without an answer, since the answer of the
 * next ping would come behind the late one, and after bytes that nobody asked for.
 *
 * Some remotes answer one ping of each stream, and some hang up before the second. After two streams in a row without a
 * second answer each ping has a stream of its own for the rest of the connection.
 */
import type { Connection, Stream, StreamMessageEvent } from "@libp2p/interface"
import { PING_PROTOCOL } from "@libp2p/ping"
import { Duration } from "effect"
import { isOpen } from "./Connection.ts"
import { toError } from "./Faults.ts"

/** The pings of one connection. */
export interface PingStream {
  /**
   * Pings, and resolves with the time it took; one ping at a time. Rejects when the remote does not speak the protocol,
   * gives a wrong answer or is lost, and when the signal aborts.
   *
   * libp2p's own ping may dial, takes the peer's first connection, opens a stream for each ping, and without a signal
   * waits for ever on a stream that was reset.
   */
  readonly ping: (signal: AbortSignal) => Promise<Duration.Duration>
}

export const make = (connection: Connection): PingStream => {
  let kept: Line | undefined
  // Streams in a row that ended, or were silent, before their second answer.
  let strikes = 0

  const ask = async (line: Line, signal: AbortSignal): Promise<Duration.Duration> => {
    const isSecond = line.answers() === 1
    if (isSecond) strikes++
    const time = await line.ask(signal)
    if (isSecond) strikes = 0
    if (strikes >= strikesMax) line.close()
    kept = line
    return time
  }

  return {
    ping: async (signal) => {
      const former = kept
      kept = undefined
      if (former?.isOpen() === true) {
        try {
          return await ask(former, signal)
        } catch (cause) {
          if (!former.isEndedByRemote() || signal.aborted || !isOpen(connection)) throw cause
        }
      } else if (former !== undefined) {
        if (former.answers() === 1) strikes++
        // The remote may not have ended its half.
        former.abort(new Error("the next ping has a stream of its own"))
      }
      const stream = await connection.newStream(PING_PROTOCOL, { signal, runOnLimitedConnection: true })
      return ask(makeLine(stream), signal)
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const pingBytes = 32
const strikesMax = 2

/** A stream on which pings are asked one after another. */
interface Line {
  readonly ask: (signal: AbortSignal) => Promise<Duration.Duration>
  readonly answers: () => number
  /** Whether a ping can be sent. */
  readonly isOpen: () => boolean
  readonly isEndedByRemote: () => boolean
  readonly close: () => void
  readonly abort: (error: Error) => void
}

/** A ping that waits for its answer. */
interface Question {
  readonly sent: Uint8Array
  received: number
  readonly settle: (error: Error | undefined) => void
}

function makeLine(stream: Stream): Line {
  let question: Question | undefined
  let answers = 0
  let isEnded = false

  const fail = (error: Error) => {
    question?.settle(error)
    stream.abort(error)
  }
  const close = () => void stream.close().catch((cause) => stream.abort(toError(cause)))
  const onMessage = ({ data }: StreamMessageEvent) => {
    if (question === undefined) return fail(new Error("the remote sent what was not asked for"))
    for (const byte of data.subarray()) {
      if (byte !== question.sent[question.received++]) {
        return fail(new Error("the remote answered with other bytes than were sent"))
      }
    }
    if (question.received === pingBytes) question.settle(undefined)
  }
  stream.addEventListener("message", onMessage)
  stream.addEventListener("remoteCloseWrite", () => {
    isEnded = true
    if (question === undefined) close()
    else fail(new Error("the remote ended the stream"))
  })
  stream.addEventListener("close", ({ error }: { readonly error?: Error | undefined }) => {
    isEnded ||= stream.status !== "aborted"
    question?.settle(error ?? new Error("the connection was lost"))
  })

  return {
    ask: (signal) =>
      new Promise((resolve, reject) => {
        const onAbort = () => fail(new Error("the ping was given up"))
        const start = performance.now()
        question = {
          sent: globalThis.crypto.getRandomValues(new Uint8Array(pingBytes)),
          received: 0,
          settle: (error) => {
            question = undefined
            signal.removeEventListener("abort", onAbort)
            if (error !== undefined) return reject(error)
            answers++
            resolve(Duration.millis(performance.now() - start))
          }
        }
        signal.addEventListener("abort", onAbort)
        if (signal.aborted) return onAbort()
        if (stream.status !== "open") return fail(new Error("the remote reset the stream"))
        try {
          stream.send(question.sent)
        } catch (cause) {
          fail(toError(cause))
        }
      }),
    answers: () => answers,
    isOpen: () => stream.status === "open" && stream.writeStatus === "writable" && !isEnded,
    isEndedByRemote: () => isEnded,
    close,
    abort: (error) => stream.abort(error)
  }
}
