import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as InboundLimits from "../../../src/layers/peers/InboundLimits.ts"
import * as ScopedPeerTable from "../../../src/layers/peers/ScopedPeerTable.ts"
import type { Multiaddr } from "../../../src/schema/Peer.ts"
import { NetworkConfig, type NetworkConfigInput } from "../../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../../src/services/NetworkEvents.ts"
import { PeerTable } from "../../../src/services/PeerTable.ts"
import * as FakeConnection from "../../support/FakeConnection.ts"
import * as FakeInterests from "../../support/FakeInterests.ts"

const services = (config: NetworkConfigInput) =>
  ScopedPeerTable.layer.pipe(
    Layer.provideMerge(NetworkEvents.layer),
    Layer.provide(FakeConnection.transport),
    Layer.provideMerge(FakeInterests.layer),
    Layer.provideMerge(NetworkConfig.layer(config))
  )

const at = (host: string) => `/ip4/${host}/tcp/50000` as Multiaddr

/** The answers to a number of connections in a row from one address. */
const ask = (
  limits: InboundLimits.InboundLimits,
  remoteAddress: Multiaddr,
  times: number,
  pending: ReadonlyArray<Multiaddr> = []
) =>
  Effect.forEach(
    Array.from({ length: times }),
    () => limits.arrive({ stage: "address", direction: "inbound", remoteAddress, pending })
  )

const count = (answers: ReadonlyArray<unknown>) => answers.filter((answer) => answer === true).length

describe("InboundLimits", () => {
  it.effect("lets a host open a burst, not one more, and what its rate gives back afterwards", () =>
    Effect.gen(function*() {
      const limits = yield* InboundLimits.make
      const host = at("203.0.113.1")
      assert.deepStrictEqual(yield* ask(limits, host, 6), [true, true, true, true, true, "rate"])
      // Two tokens a second: the next one comes after half a second.
      yield* TestClock.adjust("499 millis")
      assert.deepStrictEqual(yield* ask(limits, host, 1), ["rate"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* ask(limits, host, 2), [true, "rate"])
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(count(yield* ask(limits, host, 9)), 5)
      assert.deepStrictEqual(yield* limits.refusals, { rate: 7 })
    }).pipe(Effect.provide(services({ inboundRate: 2, inboundBurst: 5 }))))

  it.effect("counts each host for itself: an IPv4 address whatever its port, an IPv6 /64, a relay", () =>
    Effect.gen(function*() {
      const limits = yield* InboundLimits.make
      const relay = (relay: string) => `/ip4/198.51.100.1/tcp/1/p2p/${relay}/p2p-circuit` as Multiaddr
      const addresses: ReadonlyArray<readonly [Multiaddr, number]> = [
        [at("203.0.113.1"), 1],
        ["/ip4/203.0.113.1/tcp/50001" as Multiaddr, 0],
        [at("203.0.113.2"), 1],
        ["/ip6/2001:db8::1/tcp/1" as Multiaddr, 1],
        ["/ip6/2001:db8::2/tcp/1" as Multiaddr, 0],
        ["/ip6/2001:db8:0:1::1/tcp/1" as Multiaddr, 1],
        [relay("a"), 1],
        [relay("a"), 0],
        [relay("b"), 1],
        // The relay itself is counted apart from the peers that come through it.
        [at("198.51.100.1"), 1],
        ["/memory/alice:1" as Multiaddr, 1],
        ["/memory/alice:2" as Multiaddr, 0]
      ]
      for (const [address, expected] of addresses) {
        assert.strictEqual(count(yield* ask(limits, address, 1)), expected, address)
      }
    }).pipe(Effect.provide(services({ inboundRate: 1, inboundBurst: 1 }))))

  it.effect("has room by default for twenty connections in a second and for 200 hosts behind one address", () =>
    Effect.gen(function*() {
      const limits = yield* InboundLimits.make
      for (let second = 0; second < 60; second++) {
        assert.strictEqual(count(yield* ask(limits, at("203.0.113.1"), 20)), 20)
        yield* TestClock.adjust("1 second")
      }
      assert.strictEqual(count(yield* ask(limits, at("203.0.113.2"), 400)), 400)
      assert.strictEqual(count(yield* ask(limits, at("203.0.113.2"), 1)), 0)
    }).pipe(Effect.provide(services({}))))

  it.effect("remembers 4,096 hosts, and not more", () =>
    Effect.gen(function*() {
      const limits = yield* InboundLimits.make
      const host = (n: number) => at(`10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`)
      for (let n = 0; n < 4096; n++) yield* ask(limits, host(n), 1)
      assert.strictEqual(count(yield* ask(limits, host(0), 1)), 0, "the first is still known")
      yield* ask(limits, host(4096), 1)
      assert.strictEqual(count(yield* ask(limits, host(1), 1)), 1, "the longest unseen is not")
    }).pipe(Effect.provide(services({ inboundRate: 1, inboundBurst: 1 }))))

  it.effect("refuses above the handshakes in flight, and above half of them for one host", () =>
    Effect.gen(function*() {
      const limits = yield* InboundLimits.make
      const strangers = (n: number) => Array.from({ length: n }, (_, index) => at(`203.0.113.${index}`))
      const host = at("198.51.100.1")
      assert.deepStrictEqual(yield* ask(limits, host, 1, strangers(7)), [true])
      assert.deepStrictEqual(yield* ask(limits, host, 1, strangers(8)), ["pending"])
      const own = (n: number) => Array.from({ length: n }, () => host)
      assert.deepStrictEqual(yield* ask(limits, host, 1, own(3)), [true])
      assert.deepStrictEqual(yield* ask(limits, host, 1, own(4)), ["pending"])
      assert.deepStrictEqual(yield* ask(limits, at("198.51.100.2"), 1, own(4)), [true])
    }).pipe(Effect.provide(services({ maxPendingInbound: 8 }))))

  it.effect("refuses a full subnet, unless a peer is missing for which another would be evicted", () =>
    Effect.gen(function*() {
      const limits = yield* InboundLimits.make
      const table = yield* PeerTable
      for (const n of [1, 2]) {
        assert.deepStrictEqual(yield* ask(limits, at(`203.0.113.${n}`), 1), [true])
        const address = at(`203.0.113.${n}`)
        yield* table.admit(FakeConnection.make(FakeConnection.peerId(`${n}`), { inbound: true, address }))
      }
      assert.deepStrictEqual(yield* ask(limits, at("203.0.113.3"), 1), ["subnet"])
      assert.deepStrictEqual(yield* ask(limits, at("203.0.114.3"), 1), [true])
      yield* FakeInterests.rank(FakeConnection.peerId("missing"), "kept")
      assert.deepStrictEqual(yield* ask(limits, at("203.0.113.3"), 1), [true])
      assert.deepStrictEqual(yield* limits.refusals, { subnet: 1 })
    }).pipe(Effect.provide(services({ maxPeersPerSubnet: 2 }))))

  const Step = Schema.Struct({
    millis: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 500 })),
    connections: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 }))
  })
  it.effect.prop(
    "never lets a host have more than its burst and its rate together",
    { steps: Schema.Array(Step) },
    ({ steps }) =>
      Effect.gen(function*() {
        const limits = yield* InboundLimits.make
        let elapsed = 0
        let passed = 0
        for (const { connections, millis } of steps) {
          yield* TestClock.adjust(millis)
          elapsed += millis
          passed += count(yield* ask(limits, at("203.0.113.1"), connections))
          assert.isAtMost(passed, 3 + elapsed / 250)
        }
      }).pipe(Effect.provide(services({ inboundRate: 4, inboundBurst: 3 }), { local: true }))
  )
})
