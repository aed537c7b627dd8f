/** Health checks on real sockets, in a process that stands still. */
import { assert, describe, it } from "@effect/vitest"
import { PING_PROTOCOL } from "@libp2p/ping"
import { Clock, Context, Duration, Effect, Layer, Option } from "effect"
import type { Socket } from "node:net"
import * as Host from "../../src/layers/libp2p/Host.ts"
import { Network } from "../../src/Network.ts"
import { fast, HealthPolicy } from "../../src/services/HealthPolicy.ts"
import * as Libp2pNode from "../support/Libp2pNode.ts"
import * as Live from "../support/live.ts"
import { within } from "../support/within.ts"

/** Blocks the whole process: no timer fires and no socket is read meanwhile. */
const block = (millis: number) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis)

const node = Layer.build(Network.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], enableMdns: false })).pipe(
  Effect.provideService(HealthPolicy, fast)
)

/** Blocks the process once in the middle of a ping: before its bytes are sent, or when they are on their way. */
const blockInPing = (host: Host.Libp2pHost["Service"], moment: "before" | "after", millis: number) =>
  Effect.callback<void>((resume) => {
    const [connection] = host.node.getConnections()
    if (connection === undefined) return resume(Effect.die(new Error("not connected")))
    const stream = connection.streams.find(({ direction, protocol }) =>
      direction === "outbound" && protocol === PING_PROTOCOL
    )
    if (stream === undefined) return resume(Effect.die(new Error("never pinged")))
    const { send } = stream
    stream.send = (bytes) => {
      stream.send = send
      if (moment === "before") block(millis)
      // libp2p writes in a microtask.
      else queueMicrotask(() => queueMicrotask(() => block(millis)))
      setTimeout(() => resume(Effect.void), 0)
      return send.call(stream, bytes)
    }
  })

describe("a process that stands still for seconds", () => {
  it.live("has no timer on its sockets that would be over when it wakes", () =>
    Effect.gen(function*() {
      const [near, far, connection] = yield* Libp2pNode.makePair
      assert.isTrue(yield* connection.isOpen)
      for (const { host } of [near, far]) {
        const [one] = host.node.getConnections()
        // `maConn` and `socket` are private; stock libp2p sets two minutes.
        const { maConn } = one as unknown as { readonly maConn: { readonly socket: Socket } }
        assert.strictEqual(maConn.socket.timeout ?? 0, 0)
      }
    }))

  it.live(
    "keeps its peers, whenever it does, and notices a dead one within three seconds afterwards",
    () =>
      Effect.gen(function*() {
        const remote = yield* Live.spawnNode({}, "1 hour")
        const context = yield* node
        const network = Context.get(context, Network)
        const host = Context.get(context, Host.Libp2pHost)
        const events = yield* Live.record(network)
        const { id } = yield* network.connect(remote.address)
        const answered = Effect.map(network.peer(id), Option.exists((peer) => peer.roundTripTime !== undefined))
        yield* Live.until(answered)
        for (const moment of ["before", "after"] as const) {
          yield* blockInPing(host, moment, 2000)
        }
        // Between two pings.
        yield* Effect.sleep("100 millis")
        yield* Effect.sync(() => block(2000))
        const roundTrip = yield* network.ping(id)
        // Without the time in which the process stood still.
        assert.isBelow(Duration.toMillis(roundTrip), 1900)
        assert.strictEqual(yield* network.peerCount, 1)
        assert.deepStrictEqual(events.filter(({ _tag }) => /PeerUnhealthy|PeerDisconnected/.test(_tag)), [])

        remote.process.kill("SIGSTOP")
        const begun = yield* Clock.currentTimeMillis
        yield* within("it is gone", 3_000, Effect.map(network.peerCount, (count) => count === 0))
        assert.isAbove((yield* Clock.currentTimeMillis) - begun, 850)
        const left = events.flatMap((event) => event._tag === "PeerDisconnected" ? [event.reason] : [])
        assert.deepStrictEqual(left, ["unhealthy"])
      })
  )
})

describe("the stream of pings", () => {
  it.live("keeps no idle peer", () =>
    Effect.gen(function*() {
      const far = yield* Live.makeNode()
      const context = yield* Layer.build(
        Network.layer({
          listenAddresses: ["/ip4/127.0.0.1/tcp/0"],
          enableMdns: false,
          connectionIdleTimeout: "1 second"
        })
      ).pipe(Effect.provideService(HealthPolicy, fast))
      const network = Context.get(context, Network)
      const { node } = Context.get(context, Host.Libp2pHost)
      const events = yield* Live.record(network)
      yield* network.connect((yield* far.addresses)[0]!)
      const [connection] = node.getConnections()
      yield* Live.until(Effect.sync(() => connection!.streams.some(({ protocol }) => protocol === PING_PROTOCOL)))
      yield* Live.until(Effect.sync(() => events.some(({ _tag }) => _tag === "PeerDisconnected")))
      const left = events.flatMap((event) => event._tag === "PeerDisconnected" ? [event.reason] : [])
      assert.deepStrictEqual(left, ["idle"])
    }))
})
