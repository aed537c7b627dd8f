/**
 * Connections that exist only as far as the peer table looks at them.
 */
import { Context, Effect, Layer, Queue, Stream } from "effect"
import { base58btc } from "multiformats/bases/base58"
import * as Digest from "multiformats/hashes/digest"
import { sha256 } from "multiformats/hashes/sha2"
import * as StreamBudget from "../../src/layers/StreamBudget.ts"
import { type CodioResponse, encodeResponse, protocol as codioProtocol } from "../../src/schema/CodioMessage.ts"
import type { Multiaddr, PeerId } from "../../src/schema/Peer.ts"
import { type Connection, type ConnectionEvent, type Farewell, Transport } from "../../src/services/Transport.ts"

export interface FakeConnection extends Connection {
  readonly state: { open: boolean; activeStreams: number; closes: number; requests: number }
}

let count = 0

/** A peer id that the schema accepts, the same for the same name. */
export const peerId = (name: string): PeerId => {
  const digest = sha256.digest(new TextEncoder().encode(name))
  if (digest instanceof Promise) throw new Error("sha2-256 is synchronous on Node")
  return base58btc.baseEncode(Digest.decode(digest.bytes).bytes) as PeerId
}

/** A transport that has a peer id, and nothing else. */
export const transport: Layer.Layer<Transport> = Layer.unwrap(
  Effect.map(
    Queue.unbounded<ConnectionEvent>(),
    (events) =>
      Layer.mock(Transport)({
        localPeer: peerId("local"),
        events,
        retain: () => Effect.void,
        streams: StreamBudget.make(1_048_576, Context.empty())
      })
  )
)

export interface FakeOptions {
  readonly inbound?: boolean
  readonly address?: string
  readonly farewell?: Farewell
  /** The relay of a relayed connection. */
  readonly relay?: PeerId
  /**
   * A node of this library, which answers each request of `/codio/1.0.0` so, or never. Without it the remote is other
   * software.
   */
  readonly answer?: () => CodioResponse | "never"
}

export const make = (peer: PeerId, options: FakeOptions = {}): FakeConnection => {
  const state = { open: true, activeStreams: 0, closes: 0, requests: 0 }
  const { answer } = options
  const connection: FakeConnection = {
    state,
    id: `fake-${count++}`,
    peer,
    direction: options.inbound === true ? "inbound" : "outbound",
    remoteAddress: (options.address ?? "/ip4/127.0.0.1/tcp/4001") as Multiaddr,
    path: Effect.succeed(
      options.relay === undefined
        ? { _tag: "Direct", holePunched: false }
        : { _tag: "Relayed", relay: options.relay, upgrading: false }
    ),
    isOpen: Effect.sync(() => state.open),
    activeStreams: Effect.sync(() => state.activeStreams),
    streams: Effect.sync(() => state.activeStreams),
    progress: Effect.succeed(0),
    remote: Effect.succeedSome({
      protocolVersion: "",
      agentVersion: "fake",
      protocols: answer === undefined ? [] : [codioProtocol],
      listenAddresses: []
    }),
    farewell: Effect.sync(() => state.open ? undefined : options.farewell),
    open: (protocol) =>
      answer === undefined ? Effect.die("a fake connection opens no streams") : Effect.sync(() => {
        state.requests++
        return {
          connection,
          protocol,
          read: Stream.suspend(() => {
            const response = answer()
            return response === "never" ? Stream.never : Stream.make(encodeResponse(response))
          }),
          write: () => Effect.void,
          closeWrite: Effect.void,
          lost: Effect.never
        }
      }),
    retire: Effect.void,
    flushed: Effect.void,
    close: Effect.sync(() => {
      state.open = false
      state.closes++
    })
  }
  return connection
}
