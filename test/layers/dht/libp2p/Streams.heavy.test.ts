import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import { encodeFrame, MessageType } from "../../../../src/layers/dht/wire/Message.ts"
import { keyOf } from "../../../../src/layers/dht/wire/Nodes.ts"
import type * as PeerQueues from "../../../../src/layers/dht/libp2p/PeerQueues.ts"
import * as Streams from "../../../../src/layers/dht/libp2p/Streams.ts"
import * as Libp2pHost from "../../../../src/layers/libp2p/Host.ts"
import type { PeerId } from "../../../../src/schema/Peer.ts"
import { eventually } from "../../../contract/eventually.ts"
import { kadProtocol } from "../../../support/DhtNode.ts"
import { mulberry } from "../../../support/KadMutants.ts"
import { echo, serve } from "../../../support/KadServer.ts"
import { type Libp2pNode, makeNode } from "../../../support/Libp2pNode.ts"

describe("Streams", () => {
  it.live("comes through peers that refuse, reset, fall silent, talk nonsense and lose their connections", () =>
    Effect.gen(function*() {
      const seed = Number(process.env["CODIO_FUZZ_SEED"] ?? 6)
      const random = mulberry(seed)
      const client = yield* makeNode()
      const nodes = yield* Effect.forEach([1, 2, 3, 4], () => makeNode())
      for (const node of nodes) yield* serveBadly(node, random)
      const streams = yield* Streams.make({
        protocol: kadProtocol,
        timeout: "1 second",
        idleTime: "300 millis",
        streamsMax: 3,
        questionsMax: 8
      }).pipe(Effect.provideService(Libp2pHost.Libp2pHost, client.host))
      const remotes = nodes.map(remoteOf)

      const outcomes = new Map<string, number>()
      const count = (outcome: string) => Effect.sync(() => outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1))
      const operation = Effect.fnUntraced(function*(i: number) {
        const remote = remotes[Math.floor(random() * remotes.length)]!
        const key = Buffer.from(`key ${i}`)
        const record = encodeFrame({ type: MessageType.ADD_PROVIDER, key })
        const what = random()
        if (what < 0.02) return yield* streams.warm(remote)
        if (what < 0.1) return yield* count(`send ${outcomeOf(yield* Effect.result(streams.send(remote, record)))}`)
        const question = encodeFrame({ type: MessageType.FIND_NODE, key })
        const request = streams.request(remote, question, random() < 0.3 ? record : undefined)
        if (what < 0.2) {
          const fiber = yield* Effect.forkChild(request)
          yield* Effect.sleep(what < 0.15 ? 0 : 1)
          return yield* Fiber.interrupt(fiber)
        }
        const result = yield* Effect.result(request)
        if (Result.isSuccess(result)) {
          assert.strictEqual(Buffer.from(result.success.message.key!).toString(), `key ${i}`)
        }
        yield* count(outcomeOf(result))
      })
      // Each has an end within its time, which the limit of the spec would show.
      yield* Effect.forEach(Array.from({ length: 10_000 }, (_, i) => i), operation, { concurrency: 60, discard: true })

      const shown = `seed ${seed}: ${JSON.stringify([...outcomes])}`
      for (const outcome of ["took", "refused", "Reset", "Malformed", "TimedOut"]) {
        assert.isAbove(outcomes.get(outcome) ?? 0, 0, shown)
      }
      assert.isAbove(outcomes.get("took")!, 7000, shown)
      const kad = Effect.sync(() =>
        client.host.node.getConnections().flatMap((connection) =>
          connection.streams.filter(({ protocol }) => protocol === kadProtocol)
        ).length
      )
      yield* eventually("no stream is left", Effect.map(kad, (open) => open === 0))
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Answers in pieces of any size, and one time in fifty does something else. */
const serveBadly = (node: Libp2pNode, random: () => number) => {
  const silent = new WeakSet<object>()
  return serve(node, (message, { stream }) => {
    const what = random()
    if (silent.has(stream)) return
    if (message.type === MessageType.ADD_PROVIDER) {
      if (what < 0.02) stream.abort(new Error("refused"))
    } else if (what < 0.01) stream.abort(new Error("reset"))
    else if (what < 0.015) void stream.close().catch(() => stream.abort(new Error("reset")))
    else if (what < 0.018) stream.send(Uint8Array.of(3, 1, 2, 3))
    else if (what < 0.019) {
      for (const connection of node.host.node.getConnections()) connection.abort(new Error("lost"))
    } else if (what < 0.02) silent.add(stream)
    else {
      const frame = echo(message)
      const at = Math.floor(what * frame.length)
      stream.send(frame.subarray(0, at))
      stream.send(frame.subarray(at))
    }
  })
}

const outcomeOf = (result: Result.Result<Streams.Answer | void, PeerQueues.RequestError>) => {
  if (Result.isFailure(result)) return result.failure.reason
  return result.success?.tookBefore === false ? "refused" : "took"
}

function remoteOf({ host: { node } }: Libp2pNode): PeerQueues.Remote {
  const { bytes } = node.peerId.toMultihash()
  const addresses = node.getMultiaddrs().map((address) => address.bytes)
  return { id: node.peerId.toString() as PeerId, bytes, key: keyOf(bytes), addresses }
}
