import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as NodeNetworkMonitor from "../../../src/layers/machine/NodeNetworkMonitor.ts"
import type { NetworkChange, NetworkInterface } from "../../../src/services/NetworkMonitor.ts"

const at = (address: string): NetworkInterface => ({ address, prefixLength: 24, family: 4, internal: false })

/**
 * A monitor of interfaces that the spec sets, on a clock that the spec can make leap, and the changes reported so far.
 */
const watched = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const machine = { interfaces: [at("192.168.1.20"), at("10.0.0.5")], leap: 0 }
  const leaping: Clock.Clock = Object.assign(Object.create(clock) as Clock.Clock, {
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + machine.leap,
    currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + machine.leap),
    sleep: (duration: Duration.Duration) => clock.sleep(duration)
  })
  const monitor = yield* NodeNetworkMonitor.make(Effect.sync(() => machine.interfaces)).pipe(
    Effect.provideService(Clock.Clock, leaping)
  )
  const told: Array<NetworkChange> = []
  yield* Effect.forkScoped(Stream.runForEach(monitor.changes, (change) => Effect.sync(() => told.push(change))), {
    startImmediately: true
  })
  return { machine, monitor, told }
})

describe("NodeNetworkMonitor", () => {
  it.effect("tells of a changed address within two seconds, and not of another order", () =>
    Effect.gen(function*() {
      const { machine, monitor, told } = yield* watched
      const before = yield* monitor.interfaces
      machine.interfaces = [...machine.interfaces].reverse()
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(told, [])
      // The address guard keeps what it has made of the list.
      assert.strictEqual(yield* monitor.interfaces, before)
      machine.interfaces = [at("192.168.7.20")]
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(told, [{ _tag: "AddressesChanged" }])
      assert.deepStrictEqual(yield* monitor.interfaces, [at("192.168.7.20")])
    }))

  it.effect("tells that the machine slept when a look comes more than eight seconds late", () =>
    Effect.gen(function*() {
      const { machine, told } = yield* watched
      machine.leap += 8_000
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(told, [])
      machine.leap += 60_000
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(told, [{ _tag: "Awoke", after: Duration.seconds(62) }])
    }))

  it.live("reads the interfaces of this machine", () =>
    Effect.gen(function*() {
      const interfaces = yield* NodeNetworkMonitor.interfacesOfMachine
      const loopback = interfaces.find(({ address }) => address === "127.0.0.1")
      assert.deepStrictEqual(loopback, { address: "127.0.0.1", prefixLength: 8, family: 4, internal: true })
    }))
})
