/**
 * Answers pings: sends back what comes. [libp2p]
 *
 * Fault: the handler of `@libp2p/ping` resets a stream 10 s after it was opened, though its pings go on, so that the
 * remote opens one stream after another, which costs several times as much as the pings. It also answers as often as
 * anybody asks, and keeps what a remote does not read.
 */
import type { Connection, Startable, Stream, StreamHandler, StreamMessageEvent } from "@libp2p/interface"
import { PING_PROTOCOL, type Ping, ping } from "@libp2p/ping"
import { toError } from "./Faults.ts"
import type { Components } from "./wire/Components.ts"

/**
 * A module of libp2p that answers pings, with two streams for each connection, as the spec of ping asks. It pings by
 * libp2p's own, for kad-dht: that takes only peers that answer into its table, and drops those that do not.
 */
export const module = (
  { connectionManager, registrar }: Pick<Components, "connectionManager" | "registrar">,
  handler = make(silentMillis)
): Ping & Startable => {
  const own = ping()({ connectionManager, registrar })
  return {
    ping: (peer, options) => own.ping(peer, options),
    start: () =>
      registrar.handle(PING_PROTOCOL, handler, { maxInboundStreams: streamsMax, runOnLimitedConnection: true }),
    stop: () => registrar.unhandle(PING_PROTOCOL)
  }
}

/**
 * Answers the pings of a stream until the remote ends it, or was silent for `silentMillis`.
 *
 * The streams of a connection have 100 answers at once, then 100 a second. A ping that comes sooner waits, and pings
 * that wait on one stream have one answer together. A stream on which more than 1 KiB waits is reset, so that a remote
 * that does not wait for its answers has to slow down.
 */
export const make = (silentMillis: number): StreamHandler => {
  const paces = new WeakMap<Connection, Pace>()
  return (stream, connection) => {
    const pace = paces.get(connection) ?? makePace()
    paces.set(connection, pace)
    answer(stream, pace, silentMillis)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const streamsMax = 2
// Four pings of rust-libp2p, and twelve of this library, have their time.
const silentMillis = 60_000
const pingBytes = 32
const waitingBytesMax = 1024
const burstMillis = 1000
const spacingMillis = 10

/** How long the next answer of a connection has to wait. */
type Pace = () => number

function makePace(): Pace {
  let next = Number.NEGATIVE_INFINITY
  return () => {
    const now = performance.now()
    const due = Math.max(next, now - burstMillis)
    next = due + spacingMillis
    return due - now
  }
}

function answer(stream: Stream, pace: Pace, silentMillis: number): void {
  // It has no events any more.
  if (stream.status !== "open") return
  const waiting = new Array<StreamMessageEvent["data"]>()
  // A small piece counts as a whole ping, since it costs as much.
  let waitingBytes = 0
  let later: ReturnType<typeof setTimeout> | undefined
  const silent = setTimeout(() => stream.abort(new Error(`no ping for ${silentMillis} ms`)), silentMillis)

  const close = () => void stream.close().catch((cause) => stream.abort(toError(cause)))
  const send = () => {
    later = undefined
    const [first, ...others] = waiting.splice(0)
    waitingBytes = 0
    try {
      if (first !== undefined) stream.send(others.length === 0 ? first : joined([first, ...others]))
    } catch (cause) {
      return stream.abort(toError(cause))
    }
    if (stream.remoteWriteStatus === "closed") close()
  }
  stream.addEventListener("message", ({ data }) => {
    silent.refresh()
    waiting.push(data)
    waitingBytes += Math.max(data.byteLength, pingBytes)
    if (waitingBytes + stream.writeBufferLength > waitingBytesMax) {
      return stream.abort(new Error("the remote does not wait for the answers to its pings"))
    }
    if (later !== undefined) return
    const millis = pace()
    if (millis <= 0) send()
    else later = setTimeout(send, millis)
  })
  stream.addEventListener("end", () => later ?? close())
  stream.addEventListener("close", () => {
    clearTimeout(silent)
    clearTimeout(later)
  })
  if (stream.readableEnded) close()
}

function joined(pieces: ReadonlyArray<StreamMessageEvent["data"]>): Uint8Array {
  return Buffer.concat(pieces.map((piece) => piece.subarray()))
}
