/**
 * Two nodes that dial each other at once, on real sockets.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option, Scope, Stream } from "effect"
import type { Network } from "../../src/Network.ts"
import * as Live from "../support/live.ts"

const echo = "/echo/1.0.0"

const connectionsOf = (node: Network["Service"], other: Network["Service"]) =>
  Effect.map(
    node.peer(other.localPeer),
    Option.match({ onNone: () => 0, onSome: (peer) => peer.addresses.length })
  )

const both = (alice: Network["Service"], bob: Network["Service"]) =>
  Effect.all([connectionsOf(alice, bob), connectionsOf(bob, alice)])

/** Sends a byte and waits for it to come back. */
const echoed = Effect.fnUntraced(function*(stream: Effect.Success<ReturnType<Network["Service"]["open"]>>) {
  yield* stream.write(Uint8Array.of(7))
  assert.deepStrictEqual(yield* Stream.runHead(stream.read), Option.some(Uint8Array.of(7)))
})

describe("two nodes that dial each other at once, on real sockets", () => {
  it.live(
    "have one connection within seconds, the same on both sides, and no stream is cut",
    () =>
      Effect.gen(function*() {
        const [alice, bob] = yield* Effect.all([Live.makeNode(), Live.makeNode()])
        const events = yield* Effect.all([Live.record(alice), Live.record(bob)])
        for (const node of [alice, bob]) {
          yield* node.handle(echo, (stream) => Stream.runForEach(stream.read, stream.write))
        }
        const [[here], [there]] = yield* Effect.all([alice.addresses, bob.addresses])
        yield* Effect.all([alice.connect(there!), bob.connect(here!)], { concurrency: 2 })
        yield* Live.until(Effect.map(both(alice, bob), (counts) => counts.every((count) => count === 2)))

        // A stream in each direction that lasts until all is done, and short ones without a pause.
        const lasting = yield* Scope.make()
        const streams = yield* Scope.provide(
          Effect.all([alice.open(bob.localPeer, echo), bob.open(alice.localPeer, echo)]),
          lasting
        )
        const talk = (node: Network["Service"], other: Network["Service"]) =>
          Effect.forever(Effect.andThen(
            Effect.scoped(Effect.flatMap(node.open(other.localPeer, echo), echoed)),
            Effect.sleep("5 millis")
          ))
        const talking = yield* Effect.forkChild(
          Effect.all([talk(alice, bob), talk(bob, alice)], { concurrency: 2 }),
          { startImmediately: true }
        )
        yield* Live.until(Effect.map(both(alice, bob), (counts) => counts.every((count) => count === 1)))
        yield* Effect.forEach(streams, echoed, { discard: true })
        assert.isUndefined(talking.pollUnsafe(), "a stream failed")
        yield* Scope.close(lasting, Exit.void)

        const [atAlice, atBob] = yield* Effect.all([alice.peer(bob.localPeer), bob.peer(alice.localPeer)])
        const directions = [Option.getOrThrow(atAlice).direction, Option.getOrThrow(atBob).direction]
        const expected = alice.localPeer < bob.localPeer ? ["outbound", "inbound"] : ["inbound", "outbound"]
        assert.deepStrictEqual(directions, expected)
        for (const seen of events) {
          assert.strictEqual(seen.filter((event) => event._tag === "PeerConnected").length, 1)
          assert.isFalse(seen.some((event) => event._tag === "PeerDisconnected"))
        }
      })
  )
})
