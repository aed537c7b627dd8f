import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Duration, Effect, Exit, Fiber, Layer, Schedule, Semaphore, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as PeerBook from "../../../src/layers/peers/PeerBook.ts"
import * as PingHealth from "../../../src/layers/peers/PingHealth.ts"
import * as ScopedPeerTable from "../../../src/layers/peers/ScopedPeerTable.ts"
import { PingError, PingUnsupported, StreamFailed } from "../../../src/schema/NetworkError.ts"
import type { ProtocolId } from "../../../src/schema/Peer.ts"
import { Health } from "../../../src/services/Health.ts"
import { fast, HealthPolicy } from "../../../src/services/HealthPolicy.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../../src/services/NetworkEvents.ts"
import { PeerTable } from "../../../src/services/PeerTable.ts"
import { Transport } from "../../../src/services/Transport.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../../src/testing/TestNetwork.ts"
import * as CoreNode from "../../support/CoreNode.ts"
import * as FakeConnection from "../../support/FakeConnection.ts"
import * as StallingClock from "../../support/StallingClock.ts"

const pair = Effect.gen(function*() {
  const alice = yield* CoreNode.make("alice")
  const bob = yield* CoreNode.make("bob")
  yield* TestNetwork.run(alice.manager.connect((yield* bob.addresses)[0]!))
  return { alice, bob }
})

const net = SimNetwork.layer({ latency: "20 millis" })

const bulk = "/bulk/1" as ProtocolId

/** A policy without jitter, so that a spec can look just before and just after each step. */
const steady = { probe: Schedule.spaced("4 seconds"), timeout: "2500 millis", maxFailures: 2 } as const

describe("PingHealth", () => {
  it.effect("measures the round-trip time of each peer", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* TestClock.adjust("1 second")
      const [peer] = yield* alice.table.peers
      assert.strictEqual(peer?.id, bob.id)
      assert.strictEqual(peer?.roundTripTime === undefined ? undefined : Duration.toMillis(peer.roundTripTime), 40)
    }).pipe(Effect.provide(net)))

  it.effect("closes a silent peer after two misses, and not after one", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* TestClock.adjust("30 seconds")
      const network = yield* SimNetwork
      yield* network.blackhole(alice.id, bob.id)
      yield* Effect.repeat(TestClock.adjust("100 millis"), {
        until: () => alice.happened("PeerUnhealthy").length === 1
      })
      yield* TestClock.adjust("2300 millis")
      assert.strictEqual(yield* alice.table.size, 1)
      yield* TestClock.adjust("200 millis")
      assert.strictEqual(yield* alice.table.size, 0)
      const [left] = alice.happened("PeerDisconnected")
      assert.strictEqual(left?._tag === "PeerDisconnected" && left.reason, "unhealthy")
      assert.strictEqual(alice.happened("PeerUnhealthy").length, 2)
    }).pipe(Effect.provide(net), Effect.provideService(HealthPolicy, steady)))

  it.effect("forgives a single miss", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* TestClock.adjust("30 seconds")
      const network = yield* SimNetwork
      yield* network.blackhole(alice.id, bob.id)
      yield* TestNetwork.until(Effect.sync(() => alice.happened("PeerUnhealthy").length === 1))
      yield* network.heal
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* alice.table.size, 1)
      assert.strictEqual(alice.happened("PeerUnhealthy").length, 1)
    }).pipe(Effect.provide(net), Effect.provideService(HealthPolicy, steady)))

  it.effect("notices within three seconds with the fast policy", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* TestClock.adjust("30 seconds")
      const network = yield* SimNetwork
      yield* network.blackhole(alice.id, bob.id)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* alice.table.size, 0)
    }).pipe(Effect.provide(net), Effect.provideService(HealthPolicy, fast)))

  it.effect("takes no time from a ping that waits for another", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      yield* TestClock.adjust("30 seconds")
      const network = yield* SimNetwork
      yield* network.link(alice.id, bob.id, { latency: "900 millis" })
      // Pings overlap each other, and the policy's.
      for (let i = 0; i < 40; i++) {
        yield* Effect.forkChild(Effect.exit(alice.health.ping(bob.id)))
        yield* TestClock.adjust("1900 millis")
      }
      assert.deepStrictEqual(alice.happened("PeerUnhealthy"), [])
      assert.strictEqual(yield* alice.table.size, 1)
    }).pipe(Effect.provide(net)))

  it.effect("keeps whoever moves bytes, though its answers wait behind them, in either direction", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const network = yield* SimNetwork
      yield* bob.protocols.handle(bulk, (stream) => Effect.ignore(Stream.runDrain(stream.read)))
      // A stream has 256 KiB on the way, which take six seconds.
      yield* network.link(alice.id, bob.id, { bandwidth: 40_000 })
      const stream = yield* TestNetwork.run(alice.protocols.open(bob.id, bulk))
      const writing = yield* Effect.forkChild(Effect.exit(Effect.forever(stream.write(new Uint8Array(16_384)))))
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual([yield* alice.table.size, yield* bob.table.size], [1, 1])
      const late = yield* TestNetwork.run(Effect.flip(alice.health.ping(bob.id)))
      assert.strictEqual(late.reason._tag, "PingTimeout")
      yield* network.blackhole(alice.id, bob.id)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([yield* alice.table.size, yield* bob.table.size], [0, 0])
      assert.isTrue(Exit.isFailure(yield* Fiber.join(writing)))
    }).pipe(Effect.scoped, Effect.provide(net)))

  it.effect("tells why a ping has no answer, and never dials for one", () =>
    Effect.gen(function*() {
      const { alice, bob } = yield* pair
      const stranger = yield* CoreNode.make("carol")
      const absent = yield* Effect.flip(alice.health.ping(stranger.id))
      assert.strictEqual(absent.reason._tag, "StreamFailed")
      assert.strictEqual(yield* alice.table.size, 1)
      const network = yield* SimNetwork
      yield* network.blackhole(alice.id, bob.id)
      const late = yield* TestNetwork.run(Effect.flip(alice.health.ping(bob.id)))
      assert.strictEqual(late.reason._tag, "PingTimeout")
      assert.match(late.message, /no answer within 2s 400ms/)
    }).pipe(Effect.provide(net)))
})

/** One connected peer, over a transport whose pings are those of the spec. */
const over = (ping: Transport["Service"]["ping"]) =>
  PingHealth.layer.pipe(
    Layer.provideMerge(ScopedPeerTable.layer),
    Layer.provideMerge(Layer.mergeAll(PeerBook.layer, NetworkEvents.layer)),
    Layer.provide([
      NetworkConfig.layer({ connectionIdleTimeout: "1 day" }),
      Layer.provide(
        Layer.effect(Transport, Effect.map(Transport, (fake) => Transport.of({ ...fake, ping }))),
        FakeConnection.transport
      )
    ])
  )

describe("a transport of one's own", () => {
  const peer = FakeConnection.peerId("bob")

  for (const [name, progress] of [["little", 0], ["much", 1_000_000]] as const) {
    it.effect(`that tells of no turns loses a silent peer in time, after ${name} traffic`, () =>
      Effect.gen(function*() {
        const health = yield* Health
        const connection = { ...FakeConnection.make(peer), progress: Effect.succeed(progress) }
        yield* (yield* PeerTable).admit(connection)
        const ping = yield* Effect.forkChild(Effect.flip(health.ping(peer)))
        yield* TestClock.adjust("2499 millis")
        assert.isUndefined(ping.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isDefined(ping.pollUnsafe())
        assert.strictEqual((yield* Fiber.join(ping)).reason._tag, "PingTimeout")
        assert.isTrue(yield* connection.isOpen)
        yield* TestClock.adjust("6 seconds")
        assert.isFalse(yield* connection.isOpen)
      }).pipe(Effect.provide(over(() => Effect.never)), Effect.provideService(HealthPolicy, steady)))
  }

  it.effect("gives each of many pings its time, when they wait for each other", () =>
    Effect.gen(function*() {
      const turn = yield* Semaphore.make(1)
      const ping: Transport["Service"]["ping"] = (_, begun = Effect.void) =>
        turn.withPermit(Effect.andThen(begun, Effect.as(Effect.sleep("2 seconds"), Duration.seconds(2))))
      yield* Effect.gen(function*() {
        const health = yield* Health
        yield* (yield* PeerTable).admit(FakeConnection.make(peer))
        const pings = yield* Effect.forkChild(
          Effect.forEach([1, 2, 3, 4, 5, 6], () => health.ping(peer), { concurrency: "unbounded", discard: true })
        )
        yield* TestClock.adjust("14 seconds")
        yield* Fiber.join(pings)
      }).pipe(Effect.provide(over(ping)))
    }).pipe(Effect.provideService(HealthPolicy, steady)))
})

/** A health policy that gives a peer up at its first miss. */
const strict = { ...steady, maxFailures: 1 } as const

/** Health on a clock that can be late. Each ping goes as the script says; without one it is answered at once. */
const scripted = Effect.gen(function*() {
  const outer = yield* Clock.Clock
  const { clock, lag } = yield* StallingClock.make
  const script: Array<Effect.Effect<Duration.Duration, PingError>> = []
  const at = Effect.succeed(Duration.millis(7))
  const ping = () => Effect.suspend(() => script.shift() ?? at)
  const context = yield* Layer.build(Layer.provide(over(ping), Layer.succeed(Clock.Clock, clock)))
  return {
    health: Context.get(context, Health),
    peers: Context.get(context, PeerTable),
    lag,
    script,
    /** What comes after so long, whatever the clock of this side does. */
    after: <A, E>(millis: number, what: Effect.Effect<A, E>) =>
      Effect.andThen(outer.sleep(Duration.millis(millis)), what),
    at
  }
})

describe("the pings of a peer", () => {
  const peer = FakeConnection.peerId("bob")

  it.effect("are forgiven while 16 KiB flow, and not while a byte less does", () =>
    Effect.gen(function*() {
      const peers = yield* PeerTable
      const one = Effect.fnUntraced(function*(bytes: number) {
        let moved = 0
        const connection = { ...FakeConnection.make(peer), progress: Effect.sync(() => moved) }
        yield* peers.admit(connection)
        yield* TestClock.adjust("1 second")
        moved += bytes
        yield* TestClock.adjust("2 seconds")
        const isOpen = yield* connection.isOpen
        // The next ping begins with what has moved until then.
        yield* TestClock.adjust("2500 millis")
        assert.isFalse(yield* connection.isOpen)
        yield* peers.release(connection)
        return isOpen
      })
      assert.deepStrictEqual([yield* one(16_383), yield* one(16_384)], [false, true])
    }).pipe(Effect.provide(over(() => Effect.never)), Effect.provideService(HealthPolicy, strict)))

  it.effect("count from the last answer: misses with an answer between them do not add up", () =>
    Effect.gen(function*() {
      const { at, peers, script } = yield* scripted
      const connection = FakeConnection.make(peer)
      for (let n = 0; n < 5; n++) script.push(Effect.never, at)
      yield* peers.admit(connection)
      yield* TestClock.adjust("2 minutes")
      assert.isEmpty(script)
      assert.isTrue(yield* connection.isOpen)
    }).pipe(Effect.provideService(HealthPolicy, steady)))

  it.effect("cost a peer that came back meanwhile its silent connections only, and the new one at one miss more", () =>
    Effect.gen(function*() {
      const { peers, script } = yield* scripted
      script.push(...Array(3).fill(Effect.never))
      const back = FakeConnection.make(peer, { inbound: true })
      // Of this one the handshake may be old: it is in the table because its remote did not identify itself in time.
      const unknown = { ...FakeConnection.make(peer), remote: Effect.succeedNone }
      const silent = FakeConnection.make(peer, { inbound: true })
      const open = () => Effect.all([silent.isOpen, unknown.isOpen, back.isOpen])
      yield* peers.admit(silent)
      // The first ping begins after 500 ms.
      yield* TestClock.adjust("600 millis")
      yield* peers.admit(unknown)
      yield* peers.admit(back)
      yield* TestClock.adjust("4899 millis")
      assert.deepStrictEqual(yield* open(), [true, true, true])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* open(), [false, false, true])
      for (const connection of [silent, unknown]) yield* peers.release(connection)
      assert.strictEqual(yield* peers.size, 1)
      yield* TestClock.adjust("2499 millis")
      assert.deepStrictEqual(yield* open(), [false, false, true])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* open(), [false, false, false])
    }).pipe(Effect.provideService(HealthPolicy, steady)))

  it.effect("cost a peer that came back nothing more when it answers again", () =>
    Effect.gen(function*() {
      const { at, peers, script } = yield* scripted
      const [silent, back] = [1, 2].map(() => FakeConnection.make(peer, { inbound: true }))
      script.push(Effect.never, Effect.never, at, Effect.never, at)
      yield* peers.admit(silent!)
      yield* TestClock.adjust("600 millis")
      yield* peers.admit(back!)
      yield* TestClock.adjust("1 minute")
      assert.isEmpty(script)
      assert.deepStrictEqual([yield* silent!.isOpen, yield* back!.isOpen], [false, true])
    }).pipe(Effect.provideService(HealthPolicy, steady)))

  it.effect("prove nothing where the peer does not speak ping", () =>
    Effect.gen(function*() {
      const connection = FakeConnection.make(peer)
      yield* (yield* PeerTable).admit(connection)
      yield* TestClock.adjust("1 minute")
      assert.isTrue(yield* connection.isOpen)
    }).pipe(
      Effect.provide(over(() => Effect.fail(new PingError({ peer, reason: new PingUnsupported({}) })))),
      Effect.provideService(HealthPolicy, steady)
    ))

  it.effect("leave a peer that refuses streams the time of a ping between two misses", () =>
    Effect.gen(function*() {
      const connection = FakeConnection.make(peer)
      yield* (yield* PeerTable).admit(connection)
      yield* TestClock.adjust("2999 millis")
      assert.isTrue(yield* connection.isOpen)
      yield* TestClock.adjust("1 millis")
      assert.isFalse(yield* connection.isOpen)
    }).pipe(
      Effect.provide(over(() => Effect.fail(new PingError({ peer, reason: new StreamFailed({ detail: "busy" }) })))),
      Effect.provideService(HealthPolicy, steady)
    ))

  it.effect("have their clock restarted by a stall three times in a row", () =>
    Effect.gen(function*() {
      const { health, lag, peers, script } = yield* scripted
      yield* peers.admit(FakeConnection.make(peer))
      yield* TestClock.adjust("1 minute")
      yield* lag("2 seconds")
      script.push(Effect.never)
      const ping = yield* Effect.forkChild(Effect.flip(health.ping(peer)), { startImmediately: true })
      // Three quarters of the limit take 2 s longer: three times for nothing, then they count, and so does the last.
      yield* TestClock.adjust(4 * 3875 + 2624)
      assert.isUndefined(ping.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(ping)).reason._tag, "PingTimeout")
    }).pipe(Effect.provideService(HealthPolicy, { ...steady, probe: Schedule.spaced("1 hour") })))

  it.effect("have their clock restarted by any number of stalls with an answer between them", () =>
    Effect.gen(function*() {
      const { after, at, lag, peers, script } = yield* scripted
      const connection = FakeConnection.make(peer)
      yield* peers.admit(connection)
      for (let n = 0; n < 10; n++) {
        yield* TestClock.adjust("20 seconds")
        // The next ping has three quarters of its limit 700 ms late, and the whole limit in time afterwards.
        script.push(after(4_900, at))
        yield* lag("700 millis")
        yield* Effect.repeat(TestClock.adjust("100 millis"), { until: () => script.length === 0 })
        yield* TestClock.adjust("2500 millis")
        yield* lag(0)
        yield* TestClock.adjust("20 seconds")
        assert.isTrue(yield* connection.isOpen)
      }
    }).pipe(Effect.provideService(HealthPolicy, strict)))

  it.effect("are made again when one fails across a stall", () =>
    Effect.gen(function*() {
      const { after, health, lag, peers, script } = yield* scripted
      yield* peers.admit(FakeConnection.make(peer))
      yield* TestClock.adjust("1 minute")
      yield* lag("700 millis")
      script.push(after(2_600, Effect.fail(new PingError({ peer, reason: new StreamFailed({ detail: "broken" }) }))))
      const ping = yield* Effect.forkChild(Effect.exit(health.ping(peer)), { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(ping.pollUnsafe(), Exit.succeed(Exit.succeed(Duration.millis(7))))
    }).pipe(Effect.provideService(HealthPolicy, { ...steady, probe: Schedule.spaced("1 hour") })))
})

/** Pings so rarely that it gives up no peer that stalls. */
const patient = { probe: Schedule.spaced("1 hour"), timeout: "1 hour", maxFailures: 2 } as const

const awake = { connectionIdleTimeout: "1 day" } as const

/** Alice can stall. Bob is patient. The link between them is slow. */
const stallingPair = Effect.gen(function*() {
  const network = yield* SimNetwork
  const { clock, go, lag, leap, stop } = yield* StallingClock.make
  const alice = yield* CoreNode.make("alice", awake).pipe(Effect.provideService(Clock.Clock, clock))
  const bob = yield* CoreNode.make("bob", awake).pipe(Effect.provideService(HealthPolicy, patient))
  yield* TestNetwork.run(alice.manager.connect((yield* bob.addresses)[0]!))
  return {
    alice,
    bob,
    network,
    lag,
    leap,
    /**
     * For this long neither timers nor messages reach alice. Which of them reach her first afterwards is up to the
     * event loop.
     */
    stall: Effect.fnUntraced(function*(duration: Duration.Input, first: "timers" | "messages") {
      yield* stop
      yield* network.blackhole(alice.id)
      yield* TestClock.adjust(duration)
      if (first === "messages") yield* network.heal
      yield* go
      yield* TestClock.adjust(0)
      yield* network.heal
    }),
    /** As `stall`, and the link is dead afterwards. */
    stallForGood: Effect.fnUntraced(function*(duration: Duration.Input) {
      yield* stop
      yield* network.blackhole(alice.id)
      yield* TestClock.adjust(duration)
      yield* go
    })
  }
})

const slow = SimNetwork.layer({ latency: "150 millis" })

describe("a process that stalls", () => {
  for (const first of ["timers", "messages"] as const) {
    it.effect(`for 20 seconds, at any moment, drops nobody when it wakes and sees its ${first} first`, () =>
      Effect.gen(function*() {
        const { alice, stall } = yield* stallingPair
        yield* TestClock.adjust("3 seconds")
        for (let phase = 0; phase < 4400; phase += 100) {
          yield* stall("20 seconds", first)
          yield* TestClock.adjust("1 second")
          // No round trip is measured across the stall.
          const [peer] = yield* alice.table.peers
          assert.strictEqual(Duration.toMillis(peer!.roundTripTime!), 300)
          yield* TestClock.adjust("11 seconds")
          yield* TestClock.adjust(phase)
        }
        assert.strictEqual(yield* alice.table.size, 1)
        assert.deepStrictEqual(alice.happened("PeerUnhealthy"), [])
      }).pipe(Effect.provide(slow), Effect.provideService(HealthPolicy, { ...steady, maxFailures: 1 })))
  }

  it.effect("for as long as a ping may take, in the middle of one, blames nobody", () =>
    Effect.gen(function*() {
      const { alice, stall } = yield* stallingPair
      yield* TestClock.adjust("650 millis")
      for (let millis = 2000; millis < 5000; millis += 50) {
        yield* stall(millis, "timers")
        yield* TestClock.adjust("1 second")
        // Counted from the answer, so that each stall begins during a ping.
        yield* TestClock.adjust("4150 millis")
      }
      assert.strictEqual(yield* alice.table.size, 1)
      assert.deepStrictEqual(alice.happened("PeerUnhealthy"), [])
    }).pipe(Effect.provide(slow), Effect.provideService(HealthPolicy, { ...steady, maxFailures: 1 })))

  it.effect("gives its peers one more time limit, and then drops those that are dead", () =>
    Effect.gen(function*() {
      const { alice, stallForGood } = yield* stallingPair
      yield* TestClock.adjust("650 millis")
      yield* stallForGood("20 seconds")
      yield* TestClock.adjust("4900 millis")
      assert.strictEqual(yield* alice.table.size, 1)
      assert.strictEqual(alice.happened("PeerUnhealthy").length, 1)
      yield* TestClock.adjust("200 millis")
      assert.strictEqual(yield* alice.table.size, 0)
      assert.strictEqual(alice.happened("PeerUnhealthy").length, 2)
    }).pipe(Effect.provide(slow), Effect.provideService(HealthPolicy, steady)))

  it.effect("notices a dead peer as soon as ever afterwards", () =>
    Effect.gen(function*() {
      const { alice, bob, network, stall } = yield* stallingPair
      yield* TestClock.adjust("3 seconds")
      yield* stall("20 seconds", "timers")
      yield* TestClock.adjust("10 seconds")
      yield* network.blackhole(bob.id)
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(yield* alice.table.size, 0)
    }).pipe(Effect.provide(slow), Effect.provideService(HealthPolicy, steady)))

  it.effect("all the time loses its dead peers too", () =>
    Effect.gen(function*() {
      const { alice, bob, lag, network } = yield* stallingPair
      yield* TestClock.adjust("3 seconds")
      yield* lag("2 seconds")
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* alice.table.size, 1)
      assert.deepStrictEqual(alice.happened("PeerUnhealthy"), [])
      yield* network.blackhole(bob.id)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* alice.table.size, 0)
    }).pipe(Effect.provide(slow), Effect.provideService(HealthPolicy, steady)))

  it.effect("is not told from a clock that somebody sets, forward or back", () =>
    Effect.gen(function*() {
      const { alice, bob, leap, network } = yield* stallingPair
      for (const by of ["1 minute", "-1 minute"] as const) {
        for (let phase = 0; phase < 4000; phase += 100) {
          yield* leap(by)
          yield* TestClock.adjust("10 seconds")
          yield* TestClock.adjust(phase)
        }
      }
      assert.strictEqual(yield* alice.table.size, 1)
      assert.deepStrictEqual(alice.happened("PeerUnhealthy"), [])
      yield* network.blackhole(bob.id)
      // During a ping, whose clock then restarts.
      yield* TestClock.adjust("4500 millis")
      yield* leap("-1 hour")
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* alice.table.size, 0)
    }).pipe(Effect.provide(slow), Effect.provideService(HealthPolicy, { ...steady, maxFailures: 1 })))

  it.effect("finds out that a kept peer has dropped it meanwhile, and dials it at once", () =>
    Effect.gen(function*() {
      const network = yield* SimNetwork
      const { clock, go, stop } = yield* StallingClock.make
      const alice = yield* CoreNode.make("alice").pipe(Effect.provideService(Clock.Clock, clock))
      const bob = yield* CoreNode.make("bob")
      yield* alice.manager.keep((yield* bob.addresses)[0]!)
      yield* TestClock.adjust("1 minute")
      yield* stop
      yield* network.blackhole(alice.id)
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(yield* bob.table.size, 0)
      yield* go
      yield* TestClock.adjust(0)
      yield* network.heal
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([yield* alice.table.size, yield* bob.table.size], [1, 1])
      assert.deepStrictEqual(alice.happened("PeerUnhealthy"), [])
      assert.deepStrictEqual(
        alice.happened("PeerDisconnected").map((event) => event._tag === "PeerDisconnected" && event.reason),
        ["lost"]
      )
    }).pipe(Effect.provide(net)))
})
