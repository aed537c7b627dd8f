/**
 * A connection between two simulated nodes, after its handshake.
 */
import { Deferred, Effect, Option, Semaphore } from "effect"
import * as StreamBudget from "../../layers/StreamBudget.ts"
import {
  ProtocolNotSupported,
  Refused,
  StreamError,
  type StreamReason,
  StreamReset
} from "../../schema/NetworkError.ts"
import type { RefusalReason } from "../../schema/NetworkEvent.ts"
import type { Direction, Multiaddr, PeerId, ProtocolId, RemoteIdentity } from "../../schema/Peer.ts"
import { type Connection, type Farewell, farewellFor, refusedWhy } from "../../services/Transport.ts"
import * as SimByteStream from "./SimByteStream.ts"
import type { LineEnd } from "../network/SimNetwork.ts"

/** One side of a connection: the connection of the port, and what its node does with it. */
export interface LiveConnection {
  readonly connection: Connection
  readonly isOpen: boolean
  readonly isIdentified: boolean
  /** The failure of a dial whose connection was closed before identify. */
  readonly refusal: Refused
  /** Done when the connection was identified, or closed. */
  readonly settled: Deferred.Deferred<void>
  readonly identify: (remote: RemoteIdentity) => void
  /** One at a time; see `Transport.ping`. */
  readonly ping: (begun: Effect.Effect<void>) => Effect.Effect<void, string>
  onIdentified: (remote: RemoteIdentity) => void
  onClosed: () => void
}

/** The text with which a node hangs up on a peer that its gate refuses, with the reason where the rule gives one. */
export const refusal = (answer: RefusalReason | boolean | undefined): string =>
  typeof answer === "string" ? `${refused}${farewellFor(answer)}` : refused

/** The connection at one end of a line. */
export function make(options: {
  readonly end: LineEnd
  readonly peer: PeerId
  readonly direction: Direction
  readonly remoteAddress: Multiaddr
  readonly handlers: ReadonlyMap<string, (stream: SimByteStream.LiveStream) => void>
  readonly run: SimByteStream.Run
  readonly budget: StreamBudget.StreamBudget
}): LiveConnection {
  const { budget, direction, end, handlers, peer, remoteAddress, run } = options
  const group = StreamBudget.group()
  const streams = new Map<number, SimByteStream.LiveStream>()
  const negotiations = new Map<number, Negotiation>()
  const pings = new Map<number, (answer: Effect.Effect<void, string>) => void>()
  const pinging = Semaphore.makeUnsafe(1)
  const disconnected = Deferred.makeUnsafe<void>()
  let progress = 0
  let isOpen = true
  let farewell: Farewell | undefined
  let remote: RemoteIdentity | undefined
  // The dialling side numbers its streams 0, 2, 4, the other side 1, 3, 5.
  let nextStream = direction === "outbound" ? 0 : 1
  let nextPing = 0

  const closed = (detail: string) => {
    if (!isOpen) return
    isOpen = false
    Deferred.doneUnsafe(disconnected, Effect.void)
    if (detail.startsWith(refused) && detail !== refused) farewell = detail.slice(refused.length) as Farewell
    const reason = new StreamReset({ detail })
    for (const stream of [...streams.values()]) stream.fail(reason)
    for (const negotiation of [...negotiations.values()]) negotiation.end(Effect.fail(reason))
    for (const answer of [...pings.values()]) answer(Effect.fail(detail))
    Deferred.doneUnsafe(live.settled, Effect.void)
    live.onClosed()
  }

  const addStream = (id: number, protocol: ProtocolId): SimByteStream.LiveStream => {
    const stream = SimByteStream.make({
      connection,
      protocol,
      id,
      end,
      run,
      over: () => streams.delete(id),
      share: (holder) => budget.open(group, holder),
      disconnected
    })
    streams.set(id, stream)
    return stream
  }

  end.onHangUp = closed
  end.onMessage = (message) => {
    switch (message._tag) {
      case "Identify":
        return live.identify(message.identity)
      case "Open": {
        const answer = handlers.get(message.protocol)
        if (answer === undefined) return end.send({ _tag: "Unsupported", stream: message.stream })
        const stream = addStream(message.stream, message.protocol)
        end.send({ _tag: "Accept", stream: message.stream })
        return answer(stream)
      }
      case "Accept": {
        const negotiation = negotiations.get(message.stream)
        return negotiation?.end(Effect.succeed(addStream(message.stream, negotiation.protocol)))
      }
      case "Unsupported":
        return negotiations.get(message.stream)?.end(Effect.fail(new ProtocolNotSupported({})))
      case "Data":
        progress += message.bytes.length
        return streams.get(message.stream)?.onData(message.bytes)
      case "Credit":
        progress += message.bytes
        return streams.get(message.stream)?.onCredit(message.bytes)
      case "End":
        return streams.get(message.stream)?.onEnd()
      case "Reset":
        return streams.get(message.stream)?.fail(new StreamReset({ detail: "the remote reset the stream" }))
      case "Ping":
        progress += pingBytes
        return end.send({ _tag: "Pong", ping: message.ping })
      case "Pong":
        progress += pingBytes
        return pings.get(message.ping)?.(Effect.void)
    }
  }

  const negotiate = (protocol: ProtocolId) =>
    Effect.suspend(() => {
      const id = nextStream
      nextStream += 2
      return Effect.callback<SimByteStream.LiveStream, StreamReason>((resume) => {
        if (!isOpen) return resume(Effect.fail(new StreamReset({ detail: "the connection is closed" })))
        negotiations.set(id, {
          protocol,
          end(answer) {
            negotiations.delete(id)
            resume(SimByteStream.later(answer))
          }
        })
        end.send({ _tag: "Open", stream: id, protocol })
      }).pipe(Effect.onInterrupt(() =>
        Effect.sync(() => {
          negotiations.delete(id)
          end.send({ _tag: "Reset", stream: id })
          streams.get(id)?.fail(new StreamReset({ detail: "the opener was interrupted" }))
        })
      ))
    })

  const connection: Connection = {
    id: `sim-${++connectionIds}`,
    peer,
    direction,
    remoteAddress,
    path: Effect.succeed({ _tag: "Direct", holePunched: false }),
    isOpen: Effect.sync(() => isOpen),
    activeStreams: Effect.sync(() => streams.size),
    streams: Effect.sync(() => streams.size + negotiations.size),
    progress: Effect.sync(() => progress),
    remote: Effect.sync(() => Option.fromUndefinedOr(remote)),
    farewell: Effect.sync(() => farewell),
    open: (protocol) =>
      Effect.acquireRelease(
        Effect.mapError(negotiate(protocol), (reason) => new StreamError({ peer, protocol, reason })),
        (stream, exit) => Effect.sync(() => stream.finish(exit)),
        { interruptible: true }
      ).pipe(Effect.map((stream) => stream.byteStream)),
    flushed: Effect.suspend(() =>
      Effect.forEach([...streams.values()], (stream) => stream.flushed, { concurrency: "unbounded", discard: true })
    ),
    retire: Effect.void,
    close: Effect.sync(() => {
      closed("this side closed the connection")
      end.hangUp("the remote closed the connection")
    })
  }

  const live: LiveConnection = {
    connection,
    get isOpen() {
      return isOpen
    },
    get refusal() {
      return new Refused(refusedWhy(farewell))
    },
    get isIdentified() {
      return remote !== undefined
    },
    settled: Deferred.makeUnsafe(),
    identify(told) {
      if (!isOpen || remote !== undefined) return
      remote = told
      live.onIdentified(told)
      Deferred.doneUnsafe(live.settled, Effect.void)
    },
    ping: (begun) =>
      pinging.withPermit(Effect.andThen(
        begun,
        Effect.callback<void, string>((resume) => {
          const id = nextPing++
          pings.set(id, (answer) => {
            pings.delete(id)
            resume(SimByteStream.later(answer))
          })
          end.send({ _tag: "Ping", ping: id })
          return Effect.sync(() => pings.delete(id))
        })
      )),
    onIdentified: () => {},
    onClosed: () => {}
  }
  return live
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const refused = "refused "

/** What a ping carries, and its answer. */
const pingBytes = 32

interface Negotiation {
  readonly protocol: ProtocolId
  readonly end: (answer: Effect.Effect<SimByteStream.LiveStream, StreamReason>) => void
}

let connectionIds = 0
