/**
 * Plain libp2p with plain kad-dht, whose messages may be sent one by one.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify } from "@libp2p/identify"
import { kadDHT, passthroughMapper } from "@libp2p/kad-dht"
import { ping } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { Effect } from "effect"
import { createLibp2p } from "libp2p"
import { type ContentKey, toBytes } from "../../src/schema/Content.ts"
import { kadProtocol, knows, type Node } from "./DhtNode.ts"

export const makePlain = (listen: ReadonlyArray<string> = ["/ip4/127.0.0.1/tcp/0"], { clientMode = false } = {}) =>
  Effect.acquireRelease(
    Effect.promise(() =>
      createLibp2p({
        addresses: { listen: [...listen] },
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()],
        services: {
          identify: identify(),
          ping: ping(),
          dht: kadDHT({ protocol: kadProtocol, clientMode, peerInfoMapper: passthroughMapper })
        }
      })
    ),
    (node) => Effect.promise(async () => node.stop())
  )

export type Plain = Effect.Success<ReturnType<typeof makePlain>>

/** Connects, and waits until the plain node is identified. */
export const meet = Effect.fnUntraced(function*(plain: Plain, node: Node) {
  yield* Effect.promise((signal) => plain.dial(node.node.getMultiaddrs(), { signal }))
  yield* knows(node, { node: plain })
})

/** An event of kad-dht about a message. */
export interface KadEvent {
  readonly name: string
  readonly providers?: ReadonlyArray<unknown>
  readonly record?: { readonly value: Uint8Array }
}

/** Sends one message of kad-dht, with or without waiting for an answer. */
export const send = (
  plain: Plain,
  to: Node,
  method: "sendMessage" | "sendRequest",
  message: Record<string, unknown>
): Effect.Effect<ReadonlyArray<KadEvent>> =>
  Effect.promise(async () => {
    // `network` is a public member of the class, and missing in its interface.
    const { network } = plain.services.dht as unknown as {
      readonly network: Record<typeof method, (...args: ReadonlyArray<unknown>) => AsyncIterable<KadEvent>>
    }
    const events: Array<KadEvent> = []
    for await (const event of network[method](to.node.peerId, message, { path: { index: -1 } })) events.push(event)
    return events
  })

/** How many providers of a key a node names when it is asked. */
export const recordsAt = (plain: Plain, node: Node, key: ContentKey): Effect.Effect<number> =>
  Effect.map(
    send(plain, node, "sendRequest", { type: "GET_PROVIDERS", key: toBytes(key) }),
    (events) => events.find(({ name }) => name === "PEER_RESPONSE")?.providers?.length ?? 0
  )
