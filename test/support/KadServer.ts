/**
 * A server of Kademlia that does what a spec tells it to, message by message.
 */
import type { Stream } from "@libp2p/interface"
import { Effect, type Scope } from "effect"
import { decodeMessage, encodeFrame, FrameReader, type Message } from "../../src/layers/dht/wire/Message.ts"
import { kadProtocol } from "./DhtNode.ts"
import type { Libp2pNode } from "./Libp2pNode.ts"

/** What is needed of a node. */
export interface Serving {
  readonly host: { readonly components: Pick<Libp2pNode["host"]["components"], "registrar"> }
}

/** One stream as the server sees it. */
export interface Served {
  readonly stream: Stream
  /** The messages that arrived on it. */
  readonly messages: ReadonlyArray<Message>
}

export interface Server {
  /** All streams that were opened, the oldest first. */
  readonly streams: ReadonlyArray<Served>
  /** The messages of all streams. */
  readonly messages: () => ReadonlyArray<Message>
  readonly open: () => number
}

/** Answers with the key and the type of the question. */
export const echo = ({ key, type }: Message): Uint8Array => encodeFrame({ type, key })

/** Serves a node's peers for as long as the scope lives. `answer` is called for each message, in order. */
export const serve = (
  node: Serving,
  answer: (message: Message, served: Served) => void = (message, { stream }) => void stream.send(echo(message))
): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.gen(function*() {
    const streams: Array<Served> = []
    const onStream = (stream: Stream) => {
      const reader = new FrameReader()
      const messages: Array<Message> = []
      const served: Served = { stream, messages }
      streams.push(served)
      stream.addEventListener("message", ({ data }) => {
        reader.push(data.subarray(), (bytes) => {
          const message = decodeMessage(bytes)
          messages.push(message)
          if (stream.writeStatus === "writable") answer(message, served)
        })
      })
      stream.addEventListener("remoteCloseWrite", () => {
        stream.close().catch(() => stream.abort(new Error("the remote has gone")))
      })
    }
    const { registrar } = node.host.components
    yield* Effect.acquireRelease(
      Effect.promise(async () => registrar.handle(kadProtocol, onStream)),
      () => Effect.promise(async () => registrar.unhandle(kadProtocol))
    )
    return {
      streams,
      messages: () => streams.flatMap(({ messages }) => messages),
      open: () => streams.filter(({ stream }) => stream.status === "open").length
    }
  })
