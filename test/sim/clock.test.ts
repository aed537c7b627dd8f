/**
 * The wall clock of a machine is set, by an hour or a day, and the node goes on as if it had not been.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as ContentKey from "../../src/schema/Content.ts"
import { SimKad, SimNetwork, TestNetwork } from "../../src/testing/index.ts"

/** Each story has a network of its own. */
const net = () => SimNetwork.layerWithClock({ latency: "20 millis", seed: "clock" })

const config = { minPeers: 0, connectionIdleTimeout: "2 minutes", inboundBurst: 1, inboundRate: 1 } as const

/**
 * What happens to a hub whose clock is set: by and with kept peers, with one that comes again and again, one that is
 * idle, one that is gone, and with a record of the DHT.
 */
const story = (leap: Duration.Input, hasLostPeer: boolean) =>
  Effect.gen(function*() {
    const network = yield* SimNetwork
    const dht = SimKad.layer()
    const hub = yield* TestNetwork.start("hub", config, { dht })
    const start = Effect.fnUntraced(function*(name: string) {
      const { network } = yield* TestNetwork.start(name, config, { dht: SimKad.layer() })
      return network
    })
    const [keeper, guest, idler, provider] = [
      yield* start("keeper"),
      yield* start("guest"),
      yield* start("idler"),
      yield* start("provider")
    ]
    const [address] = yield* hub.network.addresses
    const told: Array<unknown> = []
    yield* Effect.forkScoped(
      Stream.runForEach(hub.network.events, (event) =>
        Effect.map(Clock.monotonicTimeNanos, (now) => {
          const { _tag } = event
          // Its date is for people.
          if (_tag !== "PeerIdentified") told.push([Math.round(Number(now) / 1e6), JSON.stringify(event)])
        })),
      { startImmediately: true }
    )

    const key = ContentKey.fromText("a book")
    yield* keeper.keep(address!)
    yield* TestNetwork.run(provider.connect(address!))
    yield* TestNetwork.run(provider.startProviding(key))
    yield* TestNetwork.run(guest.connect(address!))
    yield* TestNetwork.run(guest.disconnect(hub.network.localPeer))
    if (hasLostPeer) {
      yield* hub.network.keep((yield* idler.addresses)[0]!)
      yield* TestClock.adjust("20 seconds")
      yield* network.kill("idler")
      yield* TestClock.adjust("45 seconds")
    } else yield* TestNetwork.run(idler.connect(address!))
    yield* TestClock.adjust("20 seconds")

    const pinged = yield* Effect.forkChild(hub.network.ping(keeper.localPeer))
    yield* TestClock.adjust("10 millis")
    yield* network.jump("hub", leap)
    yield* TestClock.adjust("1 minute")
    const roundTripTime = yield* Fiber.join(pinged)

    // From a host that came before: its bucket of tokens is full again.
    yield* TestNetwork.run(guest.connect(address!))
    const found = yield* TestNetwork.run(Stream.runCollect(guest.findProviders(key)))
    yield* TestClock.adjust("3 minutes")
    const peers = (yield* hub.network.peers).map(({ connectionDuration, id, idleDuration }) => [
      id,
      Math.round(Duration.toMillis(connectionDuration)),
      Math.round(Duration.toMillis(idleDuration))
    ])
    const { refusals } = yield* hub.network.status
    return { told: [...told], roundTripTime, found: found.map(({ id }) => id), peers, refusals }
  }).pipe(Effect.provide(net()))

describe("a wall clock that is set", () => {
  it.effect("back by an hour or a day refuses nobody, lets nothing expire, loses no ping, and delays no dial", () =>
    Effect.gen(function*() {
      const untouched = yield* story("0 millis", true)
      assert.deepStrictEqual(untouched.refusals, {})
      assert.lengthOf(untouched.found, 1)
      for (const leap of ["-1 hour", "-24 hours"] as const) {
        assert.deepStrictEqual(yield* story(leap, true), untouched, leap)
      }
    }))

  it.effect("by an hour or a day changes nothing between peers that answer", () =>
    Effect.gen(function*() {
      const untouched = yield* story("0 millis", false)
      assert.deepStrictEqual(untouched.refusals, {})
      assert.lengthOf(untouched.found, 1)
      assert.isTrue(untouched.told.some((event) => String(event).includes("\"idle\"")))
      for (const leap of ["-1 hour", "1 hour", "25 hours"] as const) {
        assert.deepStrictEqual(yield* story(leap, false), untouched, leap)
      }
    }))
})
