/**
 * The streams on which this node answers as a server of the DHT. [libp2p]
 *
 * A remote may send requests on a stream without waiting for answers. They are answered in order, one at a time: the
 * next is read when the answer before it is made and no more than 128 KiB of answers are unsent. Until then the stream
 * is paused and bytes that have come are kept unread, so that a remote that asks and does not read costs no more than
 * its window.
 *
 * A stream is reset when a message is malformed, refused by the server or longer than 64 KiB, and when no request was
 * answered for 60 s.
 */
import type { Connection, Stream } from "@libp2p/interface"
import { Cause, Clock, Duration, Effect, Exit, type Scope } from "effect"
import { type Multiaddr, withoutPeer } from "../../../schema/Peer.ts"
import { decodeMessage, FrameReader, requestBytesMax } from "../wire/Message.ts"
import { keyOf } from "../wire/Nodes.ts"
import type { AnswerFrame, Sender, Server } from "../serve/Server.ts"
import { toError } from "../../libp2p/Faults.ts"
import type { Components } from "../../libp2p/wire/Components.ts"
import { unsentBytesMax } from "../../libp2p/wire/Yamux.ts"
import * as Elapsed from "../../Elapsed.ts"
import * as Supervised from "../../Supervised.ts"
import * as Subnets from "./Subnets.ts"

export interface HandlerOptions {
  /** How long a stream may go without a request that is answered. Defaults to 60 s, as in Go. */
  readonly requestTimeout?: Duration.Input | undefined
}

/** What the handler needs of the node. */
export interface HandlerHost {
  readonly addressManager: Components["addressManager"]
}

/** How many streams of a connection are taken, as in kad-dht and Rust. For `registrar.handle`. */
export const inboundStreamsMax = 32

/**
 * A handler of inbound streams. Streams that are open when the scope closes are reset.
 */
export const make = Effect.fnUntraced(function*(
  server: Server,
  { addressManager }: HandlerHost,
  options: HandlerOptions = {}
): Effect.fn.Return<(stream: Stream, connection: Connection) => void, never, Scope.Scope> {
  const run = yield* Supervised.makeRun("answers of the DHT")
  const clock = yield* Clock.Clock
  const now = () => Elapsed.millisUnsafe(clock)
  const timeout = Duration.toMillis(options.requestTimeout ?? "60 seconds")
  const open = new Set<Stream>()
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const stream of open) stream.abort(new Error("the DHT of this node has stopped"))
    })
  )

  /** The subnet by which a peer is counted. */
  const subnetOf = (connection: Connection): string | undefined => {
    const subnet = Subnets.subnetOf(connection.remoteAddr)
    return subnet === undefined || Subnets.isOwn(addressManager, subnet) ? undefined : subnet
  }

  return (stream, connection) => {
    const { bytes } = connection.remotePeer.toMultihash()
    const from: Sender = {
      bytes,
      key: keyOf(bytes),
      tellers: [withoutPeer(connection.remoteAddr.toString() as Multiaddr)],
      dialledAt: connection.direction === "outbound" ? connection.remoteAddr.bytes : undefined,
      subnet: subnetOf(connection)
    }
    const reader = new FrameReader(requestBytesMax)
    // Bytes that have come and are not read yet.
    let chunks: Array<Uint8Array> = []
    // An answer is being made; the next request waits for it.
    let isBusy = false
    let isWorking = false
    let answeredAt = now()

    const reset = (error: Error) => {
      if (stream.status !== "open" && stream.status !== "closing") return
      stream.abort(error)
      run(Effect.logDebug(`a stream of the DHT from ${connection.remotePeer} is reset: ${error.message}`))
    }
    const isBehind = () => stream.writableNeedsDrain || stream.writeBufferLength > unsentBytesMax
    const mayGoOn = () => !isBusy && !isBehind()
    const send = (frame: AnswerFrame) => {
      answeredAt = now()
      if (frame !== undefined && stream.writeStatus === "writable") stream.send(frame)
    }
    const take = (message: Uint8Array): boolean => {
      const answer = server.answer(decodeMessage(message), from)
      if (!Effect.isEffect(answer)) {
        send(answer)
        return mayGoOn()
      }
      isBusy = true
      const made = (exit: Exit.Exit<AnswerFrame, unknown>) => {
        isBusy = false
        attempt(() => {
          if (Exit.isFailure(exit)) throw Cause.squash(exit.cause)
          send(exit.value)
        })
        work()
      }
      // `made` may be called before this returns.
      run(Effect.map(Effect.exit(answer), made))
      return mayGoOn()
    }
    const attempt = (step: () => void) => {
      try {
        step()
      } catch (error) {
        chunks = []
        reset(toError(error))
      }
    }
    /**
     * Handles as many requests as may be handled now. `resume` delivers buffered chunks synchronously and re-enters
     * this function.
     */
    const work = () => {
      if (isWorking) return
      isWorking = true
      attempt(() => {
        do {
          while (chunks.length > 0 && mayGoOn()) {
            const chunk = chunks.shift()!
            const read = reader.push(chunk, take)
            if (read < chunk.length) chunks.unshift(chunk.subarray(read))
          }
          if (chunks.length > 0) pause()
          else if (mayGoOn()) resume()
        } while (chunks.length > 0 && mayGoOn())
        end()
      })
      isWorking = false
    }
    const pause = () => {
      if (stream.readStatus === "readable") stream.pause()
    }
    const resume = () => {
      if (stream.readStatus === "paused") stream.resume()
    }
    /** Ends this half when the remote has ended its own and has all its answers. */
    const end = () => {
      if (stream.remoteWriteStatus !== "closed" || stream.writeStatus !== "writable") return
      if (isBusy || chunks.length > 0 || stream.readBufferLength > 0) return
      stream.close().catch((error) => stream.abort(toError(error)))
    }
    const watch = Effect.gen(function*() {
      for (let left: number = timeout; left > 0; left = answeredAt + timeout - now()) {
        const due = now() + left
        yield* Effect.sleep(left)
        // This process stood still, so requests may wait in its sockets: give them a second.
        if (now() - due > 1000) answeredAt = Math.max(answeredAt, now() - timeout + 1000)
      }
      reset(new Error(`no request in ${timeout} ms`))
    })

    open.add(stream)
    const watching = run(watch)
    stream.addEventListener("message", ({ data }) => {
      if (data instanceof Uint8Array) chunks.push(data)
      else for (const bytes of data) chunks.push(bytes)
      work()
    })
    // A microtask later: libp2p sends its buffer in one that it queues before this one, and delivers bytes that came
    // with the end after the event.
    stream.addEventListener("drain", () => queueMicrotask(work))
    stream.addEventListener("remoteCloseWrite", () => queueMicrotask(work))
    stream.addEventListener("close", () => {
      watching.interruptUnsafe()
      open.delete(stream)
      chunks = []
    })
    if (stream.status !== "open") {
      watching.interruptUnsafe()
      open.delete(stream)
    }
  }
})
