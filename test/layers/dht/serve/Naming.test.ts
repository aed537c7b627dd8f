/**
 * Which addresses of others a server names.
 */
import { assert, describe, it } from "@effect/vitest"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, PubSub, Stream } from "effect"
import * as Naming from "../../../../src/layers/dht/serve/Naming.ts"
import type { Multiaddr } from "../../../../src/schema/Peer.ts"
import { AddressGuard, anyAddress, ownSubnetsOnly } from "../../../../src/services/AddressGuard.ts"
import { type NetworkChange, type NetworkInterface, NetworkMonitor } from "../../../../src/services/NetworkMonitor.ts"
import * as LogLines from "../../../support/LogLines.ts"
import { unprintable } from "../../../support/unprintable.ts"

const lan: NetworkInterface = { address: "10.0.0.2", prefixLength: 24, family: 4, internal: false }
const relay = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

const bytesOf = (address: string) => multiaddr(address).bytes
const outside = "/ip4/44.0.0.9" as Multiaddr
const container = "/ip4/172.17.0.2" as Multiaddr
const inside = "/ip4/10.0.0.9" as Multiaddr

describe("an address of another peer", () => {
  const rule = Naming.ruleOf(ownSubnetsOnly, [lan])
  const isNamed = (address: string, ...tellers: ReadonlyArray<Multiaddr>) => rule(bytesOf(address), tellers)

  it("is named when it is public or a name, over TCP or not, whoever told it", () => {
    for (
      const address of [
        "/ip4/44.0.0.1/tcp/4001",
        "/ip4/44.0.0.1/udp/4001/quic-v1",
        "/ip6/2a00:1450::1/tcp/4001/ws",
        "/dns4/example.org/tcp/443/wss",
        "/dns6/example.org/udp/4001/quic-v1",
        "/dnsaddr/example.org",
        "/memory/bob",
        `/ip4/44.0.0.1/udp/4001/quic-v1/p2p/${relay}/p2p-circuit`
      ]
    ) assert.deepStrictEqual([isNamed(address), isNamed(address, outside)], [true, true], address)
  })

  it("is named when it is private only if one of its tellers lies in that subnet of this machine", () => {
    for (
      const address of [
        "/ip4/10.0.0.5/tcp/4001",
        "/ip4/10.0.0.5/udp/4001/quic-v1",
        "/ip6/::ffff:10.0.0.5/tcp/4001",
        `/ip4/10.0.0.5/tcp/4001/p2p/${relay}/p2p-circuit`
      ]
    ) {
      assert.isFalse(isNamed(address), address)
      assert.isFalse(isNamed(address, outside, container), address)
      assert.isTrue(isNamed(address, inside), address)
      assert.isTrue(isNamed(address, outside, inside, container), address)
    }
    for (
      const address of [
        "/ip4/10.0.9.5/tcp/4001",
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/10.0.0.2/tcp/1",
        "/ip4/0.0.0.0/tcp/1"
      ]
    ) assert.isFalse(isNamed(address, inside, outside), address)
    assert.isTrue(isNamed("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/51234" as Multiaddr))
  })

  it("is not named when it leads nowhere or cannot be read", () => {
    for (const address of ["/dns4/localhost/tcp/1", "/ip4/44.0.0.1/tcp/0", `/p2p/${relay}/p2p-circuit`]) {
      assert.isFalse(isNamed(address, inside), address)
    }
    for (const bytes of [Uint8Array.of(), Uint8Array.of(4, 1, 2), Uint8Array.of(255, 255, 255, 255), unprintable]) {
      assert.deepStrictEqual([rule(bytes, [inside]), Naming.ruleOf(anyAddress, [])(bytes, [])], [false, false])
    }
    // A guard that lets everything be dialled lets everything be named that can be read.
    assert.isTrue(Naming.ruleOf(anyAddress, [])(bytesOf("/ip4/10.0.9.5/tcp/4001"), []))
  })

  it.effect("is judged by the interfaces that this machine has now", () =>
    Effect.gen(function*() {
      const hub = yield* PubSub.unbounded<NetworkChange>()
      let interfaces: ReadonlyArray<NetworkInterface> = []
      const monitor = { interfaces: Effect.sync(() => interfaces), changes: Stream.fromPubSub(hub) }
      const naming = yield* Effect.provideService(Naming.make, NetworkMonitor, monitor)
      const before = naming()
      const isNamedNow = () => naming()(bytesOf("/ip4/10.0.0.5/tcp/4001"), [inside])
      yield* Effect.yieldNow
      assert.isFalse(isNamedNow())
      interfaces = [lan]
      yield* PubSub.publish(hub, { _tag: "AddressesChanged" })
      yield* Effect.yieldNow
      assert.isTrue(isNamedNow())
      assert.notStrictEqual(naming(), before)
      assert.strictEqual(naming(), naming())
    }))

  it.effect("is not named when it is private and the guard throws, which the log tells of", () =>
    Effect.gen(function*() {
      const monitor = { interfaces: Effect.succeed([lan]), changes: Stream.never }
      const naming = yield* Naming.make.pipe(
        Effect.provideService(NetworkMonitor, monitor),
        Effect.provideService(AddressGuard, () => {
          throw new Error("the guard is broken")
        })
      )
      assert.isTrue(naming()(bytesOf("/ip4/44.0.0.1/tcp/1"), [inside]))
      assert.isFalse(naming()(bytesOf("/ip4/10.0.0.5/tcp/1"), [inside]))
      yield* Effect.yieldNow
      assert.include((yield* LogLines.lines).join(), `a defect in the work "the addresses that the DHT names"`)
    }).pipe(LogLines.capture))
})
