import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"
import { record } from "../support/record.ts"

const net = SimNetwork.layer({ latency: "10 millis", seed: "idle" })

const pair = Effect.gen(function*() {
  const alice = yield* TestNetwork.makeNode("alice")
  const bob = yield* TestNetwork.makeNode("bob")
  const events = yield* record(alice)
  const atBob = yield* record(bob)
  yield* TestNetwork.connected(alice, bob)
  return { alice, bob, events, atBob }
})

const goodbyes = (events: ReadonlyArray<NetworkEvent>) =>
  events.flatMap((event) => event._tag === "PeerDisconnected" ? [event] : [])

/** Moves the clock until the peer has been connected for so long. */
const toAge = Effect.fnUntraced(function*(node: Network["Service"], age: Duration.Input) {
  const [peer] = yield* node.peers
  assert.isDefined(peer)
  yield* TestClock.adjust(Duration.subtract(Duration.fromInputUnsafe(age), peer.connectionDuration))
})

describe("idle peers", () => {
  it.effect("stay for 4 minutes and 59 seconds, and are gone after 5 minutes", () =>
    Effect.gen(function*() {
      const { alice, atBob, bob, events } = yield* pair
      yield* toAge(alice, "299 seconds")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [1, 1])
      yield* TestClock.adjust("1 second")
      // Both peers idle out during the same dial; the peer that was connected first says goodbye first.
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* alice.peers, yield* bob.peers], [[], []])
      assert.deepStrictEqual(goodbyes(events).map(({ reason }) => reason), ["idle"])
      assert.strictEqual(goodbyes(atBob).length, 1)
    }).pipe(Effect.provide(net)))

  it.effect("are not dialled again while they rest, and never as a lost peer is", () =>
    Effect.gen(function*() {
      const { alice, bob, events } = yield* pair
      yield* TestClock.adjust("301 seconds")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [0, 0])
      // The cooldown, after which a remembered peer may be dialled again.
      yield* TestClock.adjust("298 seconds")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [0, 0])
      assert.deepStrictEqual(events.filter(({ _tag }) => _tag === "ReconnectScheduled"), [])
    }).pipe(Effect.provide(net)))

  it.effect("are counted from the end of the last stream, on both sides", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* bob.handle("/sim/wait/1.0.0", (stream) => Stream.runDrain(stream.read))
      const scope = yield* Scope.make()
      yield* TestNetwork.run(Scope.provide(alice.open(bob.localPeer, "/sim/wait/1.0.0"), scope))
      yield* TestClock.adjust("20 minutes")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [1, 1])
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("299 seconds")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [1, 1])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [0, 0])
    }).pipe(Effect.provide(net)))

  it.effect("are peers that answer pings all the while", () =>
    Effect.gen(function*() {
      const { alice } = yield* pair
      yield* toAge(alice, "299 seconds")
      const [peer] = yield* alice.peers
      assert.strictEqual(Duration.toMillis(peer!.roundTripTime!), 20)
      assert.deepStrictEqual(peer!.idleDuration, peer!.connectionDuration)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* alice.peerCount, 0)
    }).pipe(Effect.provide(net)))

  it.effect("are never those that either side keeps", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* alice.keep((yield* bob.addresses)[0]!)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([yield* alice.peerCount, yield* bob.peerCount], [1, 1])
      const [peer] = yield* alice.peers
      assert.isAbove(Duration.toMinutes(peer!.connectionDuration), 59)
    }).pipe(Effect.provide(net)))
})
