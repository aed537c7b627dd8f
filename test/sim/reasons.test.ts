/**
 * Why a peer left, as both sides see it: idle, disconnect, block.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Network } from "../../src/Network.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import type { NetworkConfigInput } from "../../src/services/NetworkConfig.ts"
import { SimNetwork, TestNetwork } from "../../src/testing/index.ts"
import { record } from "../support/record.ts"

const net = SimNetwork.layer({ latency: "10 millis", seed: "reasons" })

const pair = Effect.fnUntraced(function*(ofAlice: NetworkConfigInput = {}, ofBob: NetworkConfigInput = {}) {
  const alice = yield* TestNetwork.makeNode("alice", ofAlice)
  const bob = yield* TestNetwork.makeNode("bob", ofBob)
  const counts = Effect.all([alice.peerCount, bob.peerCount])
  return { alice, bob, atAlice: yield* record(alice), atBob: yield* record(bob), counts }
})

const departures = (events: ReadonlyArray<NetworkEvent>) =>
  events.flatMap((event) => event._tag === "PeerDisconnected" ? [[event.reason, event.remoteReason]] : [])

const count = (events: ReadonlyArray<NetworkEvent>, tag: NetworkEvent["_tag"]) =>
  events.filter(({ _tag }) => _tag === tag).length

const keeps = Effect.fnUntraced(function*(node: Network["Service"], other: Network["Service"]) {
  const scope = yield* Scope.make()
  yield* Scope.provide(node.keep((yield* other.addresses)[0]!), scope)
  yield* TestNetwork.until(
    Effect.map(Effect.all([node.peerCount, other.peerCount]), ([one, two]) => one === 1 && two === 1)
  )
  return scope
})

describe("an idle peer", () => {
  it.effect("is told so at 5:00 and not at 4:59, and neither side dials again", () =>
    Effect.gen(function*() {
      const { alice, atAlice, atBob, bob, counts } = yield* pair({}, { connectionIdleTimeout: "1 day" })
      yield* TestNetwork.connected(alice, bob)
      const [peer] = yield* alice.peers
      yield* TestClock.adjust(Duration.subtract(Duration.seconds(299), peer!.connectionDuration))
      assert.deepStrictEqual(yield* counts, [1, 1])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(departures(atAlice), [["idle", undefined]])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(departures(atBob), [["remote", "idle"]])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* counts, [0, 0])
      assert.deepStrictEqual([count(atAlice, "ReconnectScheduled"), count(atBob, "ReconnectScheduled")], [0, 0])
    }).pipe(Effect.provide(net)))

  it.effect("is no peer whose keeper has told so, until 5:00 after the keeper has let go", () =>
    Effect.gen(function*() {
      const { alice, atAlice, atBob, bob, counts } = yield* pair({ connectionIdleTimeout: "1 day" })
      const keep = yield* keeps(alice, bob)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* counts, [1, 1])
      // What bob knows of it is the stream.
      const [seen] = yield* bob.peers
      assert.deepStrictEqual([seen?.interest, Duration.toMillis(seen!.idleDuration)], ["transient", 0])
      yield* Scope.close(keep, Exit.void)
      yield* TestClock.adjust("299 seconds")
      assert.deepStrictEqual(yield* counts, [1, 1])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* counts, [0, 0])
      assert.deepStrictEqual(departures(atBob), [["idle", undefined]])
      assert.deepStrictEqual(departures(atAlice), [["remote", "idle"]])
    }).pipe(Effect.provide(net)))
})

describe("a disconnected peer", () => {
  it.effect("is told so, and is dialled by nobody here, also when it is seen all the time, until somebody asks", () =>
    Effect.gen(function*() {
      const { alice, atAlice, atBob, bob, counts } = yield* pair({ enableMdns: true }, {
        enableMdns: true,
        minPeers: 0
      })
      yield* TestNetwork.until(Effect.map(counts, ([one, two]) => one === 1 && two === 1))
      yield* TestNetwork.run(alice.disconnect(bob.localPeer))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(departures(atAlice), [["disconnect", undefined]])
      assert.deepStrictEqual(departures(atBob), [["remote", "disconnect"]])
      yield* TestClock.adjust("2 hours")
      assert.deepStrictEqual(yield* counts, [0, 0])
      assert.deepStrictEqual([count(atAlice, "PeerConnected"), count(atAlice, "DialFailed")], [1, 0])
      yield* TestNetwork.connected(alice, bob)
      assert.deepStrictEqual(yield* counts, [1, 1])
    }).pipe(Effect.provide(net)))

  it.effect("ends its reconnection too", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { alice, atAlice, bob } = yield* pair()
      yield* TestNetwork.connected(alice, bob)
      yield* TestClock.adjust("1 minute")
      yield* network.kill("bob")
      yield* TestClock.adjust("5 seconds")
      assert.isAbove(count(atAlice, "ReconnectScheduled"), 0)
      yield* TestNetwork.run(alice.disconnect(bob.localPeer))
      const dials = count(atAlice, "DialFailed")
      const again = yield* TestNetwork.makeNode("bob")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(count(atAlice, "DialFailed"), dials)
      assert.deepStrictEqual([yield* alice.peerCount, yield* again.peerCount], [0, 0])
    }).pipe(Effect.provide(net)))
})

describe("a blocked peer", () => {
  it.effect("is told so, and refused both ways while the scope lives, whoever keeps whom; then both keeps go on", () =>
    Effect.gen(function*() {
      const { alice, atAlice, atBob, bob, counts } = yield* pair()
      yield* keeps(alice, bob)
      yield* bob.keep((yield* alice.addresses)[0]!)
      yield* TestClock.adjust("1 minute")
      const scope = yield* Scope.make()
      yield* TestNetwork.run(Scope.provide(alice.block(bob.localPeer), scope))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(departures(atAlice), [["blocked", undefined]])
      assert.deepStrictEqual(departures(atBob), [["remote", "blocked"]])
      let most = 0
      for (let minutes = 0; minutes < 60; minutes++) {
        yield* TestClock.adjust("1 minute")
        most = Math.max(most, ...(yield* counts))
      }
      assert.strictEqual(most, 0)
      // Bob keeps trying, and is refused; alice does not try.
      assert.isAbove(count(atBob, "DialFailed"), 30)
      assert.strictEqual(count(atAlice, "DialFailed"), 0)
      const denied = yield* TestNetwork.run(Effect.flip(alice.connect(bob.localPeer)))
      assert.strictEqual(denied._tag === "DialError" && denied.reason._tag, "Denied")
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("72 seconds")
      assert.deepStrictEqual(yield* counts, [1, 1])
    }).pipe(Effect.provide(net)))
})
