import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Schedule, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Dialer } from "../../../src/layers/peers/Dialer.ts"
import { PeerBook } from "../../../src/layers/peers/PeerBook.ts"
import * as Book from "../../../src/layers/peers/PeerBook.ts"
import * as PeerRecord from "../../../src/layers/peers/PeerRecord.ts"
import * as ScopedPeerTable from "../../../src/layers/peers/ScopedPeerTable.ts"
import * as Supervisor from "../../../src/layers/peers/Supervisor.ts"
import * as Pulse from "../../../src/layers/Pulse.ts"
import {
  type ConnectError,
  DialError,
  DhtError,
  NoPeers,
  Refused,
  Unreachable
} from "../../../src/schema/NetworkError.ts"
import type { NetworkEvent } from "../../../src/schema/NetworkEvent.ts"
import { Dht } from "../../../src/services/Dht.ts"
import { Discovery } from "../../../src/services/Discovery.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../../src/services/NetworkEvents.ts"
import { ReconnectPolicy } from "../../../src/services/ReconnectPolicy.ts"
import * as FakeConnection from "../../support/FakeConnection.ts"

const bob = FakeConnection.peerId("bob")
const unreachable = new DialError({ target: bob, reason: new Unreachable({ detail: "nobody there" }) })
const refused = new DialError({ target: bob, reason: new Refused({}) })

/** A supervisor all of whose dials fail so, and what it asked for. */
const failing = Effect.fnUntraced(function*(error: ConnectError) {
  const seen = { dials: 0, lookUps: 0, events: new Array<NetworkEvent["_tag"]>() }
  const dialer = Layer.mock(Dialer)({
    dialPeer: () =>
      Effect.suspend(() => {
        seen.dials++
        return Effect.fail(error)
      }),
    dialing: () => undefined,
    answered: () => {},
    pending: () => []
  })
  const dht = Layer.mock(Dht)({
    findPeer: () =>
      Effect.suspend(() => {
        seen.lookUps++
        return Effect.fail(new DhtError({ operation: "findPeer", subject: bob, reason: new NoPeers({}) }))
      })
  })
  const context = yield* Layer.build(
    ScopedPeerTable.layer.pipe(
      Layer.provideMerge(Layer.mergeAll(Book.layer, NetworkEvents.layer, Discovery.layer, dialer, dht)),
      Layer.provide([NetworkConfig.layer(), FakeConnection.transport])
    )
  )
  return yield* Effect.gen(function*() {
    const { stream } = yield* NetworkEvents
    yield* Effect.forkScoped(Stream.runForEach(stream, ({ _tag }) => Effect.sync(() => seen.events.push(_tag))), {
      startImmediately: true
    })
    const peer = (yield* PeerBook).record(bob)
    const supervisor = yield* Supervisor.make({ peersChanged: Pulse.make(), failed: () => Effect.void })
    return { seen, peer, supervisor }
  }).pipe(Effect.provide(context))
})

/** One dial a minute, so that a spec sees what comes in between. */
const everyMinute = Effect.provideService(ReconnectPolicy, () => Schedule.spaced("1 minute"))

describe("a supervisor", () => {
  it.effect("asks the DHT for a kept peer that is not reached, and for no other", () =>
    Effect.gen(function*() {
      const one = Effect.fnUntraced(function*(wish: (peer: PeerRecord.PeerRecord) => void, error: ConnectError) {
        const { peer, seen, supervisor } = yield* failing(error)
        wish(peer)
        yield* supervisor.changed(peer)
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(seen.dials, 1)
        return seen.lookUps
      })
      assert.strictEqual(yield* one(PeerRecord.keptBy, unreachable), 1)
      assert.strictEqual(yield* one(PeerRecord.keptBy, refused), 0, "that refused, and so has not moved")
      assert.strictEqual(yield* one(PeerRecord.wanted, unreachable), 0, "that is only wanted")
    }).pipe(everyMinute))

  it.effect("notes a refusal, so that sightings do not hurry the next dial, and nothing else", () =>
    Effect.gen(function*() {
      for (const [error, flaps] of [[refused, true], [unreachable, false]] as const) {
        const { peer, supervisor } = yield* failing(error)
        PeerRecord.keptBy(peer)
        yield* supervisor.changed(peer)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(peer.flapping, flaps)
      }
    }).pipe(everyMinute))

  it.effect("waits its delay whatever changes, unless the peer is hurried", () =>
    Effect.gen(function*() {
      const { peer, seen, supervisor } = yield* failing(unreachable)
      PeerRecord.keptBy(peer)
      yield* supervisor.changed(peer)
      for (let n = 0; n < 5; n++) {
        yield* TestClock.adjust("10 seconds")
        yield* supervisor.changed(peer)
        assert.strictEqual(seen.dials, 1)
      }
      yield* TestClock.adjust("9999 millis")
      assert.strictEqual(seen.dials, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(seen.dials, 2)
      PeerRecord.startAnew(peer)
      yield* supervisor.wake(peer)
      yield* TestClock.adjust(0)
      assert.strictEqual(seen.dials, 3)
    }).pipe(everyMinute))

  it.effect("tells that its policy has ended, and the peer is wanted no more", () =>
    Effect.gen(function*() {
      const { peer, seen, supervisor } = yield* failing(unreachable)
      PeerRecord.wanted(peer)
      yield* supervisor.changed(peer)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(seen.dials, 3)
      assert.deepStrictEqual(seen.events, ["ReconnectScheduled", "ReconnectScheduled", "ReconnectFailed"])
      assert.deepStrictEqual([peer.wanted, peer.attempts], [false, 0])
    }).pipe(Effect.provideService(
      ReconnectPolicy,
      () => Schedule.spaced(Duration.seconds(5)).pipe(Schedule.upTo({ times: 2 }))
    )))

  it.effect("begins the schedule of a new interest: a kept peer's does not end, whatever the peer was before", () =>
    Effect.gen(function*() {
      const { peer, seen, supervisor } = yield* failing(unreachable)
      // As a dial of discovery fails.
      yield* supervisor.nextDelay(peer, "discovered", unreachable)
      const end = PeerRecord.keptBy(peer)
      yield* supervisor.changed(peer)
      yield* TestClock.adjust("1 hour")
      assert.isAbove(seen.dials, 50)
      assert.notInclude(seen.events, "ReconnectFailed")
      // Wanted alone, it is dialled until its own schedule ends, and that is counted from there.
      PeerRecord.wanted(peer)
      end()
      yield* supervisor.changed(peer)
      const { length } = seen.events
      yield* TestClock.adjust("72 seconds")
      assert.isAtMost(peer.attempts, 8)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(seen.events.slice(length), [...Array(8).fill("ReconnectScheduled"), "ReconnectFailed"])
      PeerRecord.keptBy(peer)
      PeerRecord.wanted(peer)
      yield* supervisor.changed(peer)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(seen.events.filter((tag) => tag === "ReconnectFailed").length, 1)
    }))
})
