import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { KeyValueStore } from "effect/persistence"
import * as Elapsed from "../../../src/layers/Elapsed.ts"
import * as KeyValuePeerStore from "../../../src/layers/machine/KeyValuePeerStore.ts"
import { Dialer, layer } from "../../../src/layers/peers/Dialer.ts"
import * as PeerBook from "../../../src/layers/peers/PeerBook.ts"
import * as ScopedPeerTable from "../../../src/layers/peers/ScopedPeerTable.ts"
import * as PeerRecord from "../../../src/layers/peers/PeerRecord.ts"
import { Denied, DialError, Unreachable } from "../../../src/schema/NetworkError.ts"
import type { RefusalReason } from "../../../src/schema/NetworkEvent.ts"
import { addressOf, type DialTarget, type Multiaddr } from "../../../src/schema/Peer.ts"
import { AddressGuard } from "../../../src/services/AddressGuard.ts"
import { Interests } from "../../../src/services/Interests.ts"
import { NetworkConfig, type NetworkConfigInput } from "../../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../../src/services/NetworkEvents.ts"
import { NetworkMonitor } from "../../../src/services/NetworkMonitor.ts"
import { PeerStore } from "../../../src/services/PeerStore.ts"
import { PeerTable } from "../../../src/services/PeerTable.ts"
import { Transport } from "../../../src/services/Transport.ts"
import * as TestNetwork from "../../../src/testing/TestNetwork.ts"
import * as FakeConnection from "../../support/FakeConnection.ts"

const bob = FakeConnection.peerId("bob")
const machine = Layer.succeed(NetworkMonitor, { interfaces: Effect.succeed([]), changes: Stream.never })

/** A dialler whose table refuses every dial for the reason. */
const refusing = (reason: RefusalReason) => {
  const table = Layer.effect(
    PeerTable,
    Effect.map(PeerTable, (table) => ({ ...table, refuses: () => Effect.succeed(reason) }))
  )
  return layer.pipe(
    Layer.provide(table),
    Layer.provide(ScopedPeerTable.layer),
    Layer.provideMerge(Layer.mergeAll(PeerBook.layer, NetworkEvents.layer, KeyValuePeerStore.layer)),
    Layer.provide([NetworkConfig.layer(), FakeConnection.transport, machine, KeyValueStore.layerMemory])
  )
}

/** How a dial of bob fails. */
const failure = Effect.gen(function*() {
  const dialer = yield* Dialer
  const book = yield* PeerBook.PeerBook
  return yield* Effect.flip(dialer.dialPeer(book.record(bob)))
})

describe("a dial that this node refuses itself", () => {
  for (const [reason, rule] of [["full", "full"], ["promised", "promised"], ["subnet", "subnet"]] as const) {
    it.effect(`meets a limit: ${reason}`, () =>
      Effect.gen(function*() {
        const error = yield* failure
        assert.strictEqual(error._tag, "PeerLimitExceeded")
        assert.strictEqual(error._tag === "PeerLimitExceeded" && (error.rule ?? "full"), rule)
      }).pipe(Effect.provide(refusing(reason))))
  }

  for (
    const [reason, detail] of [
      ["blocked", "the peer is blocked by this node"],
      ["shutdown", "this node is stopping"],
      ["connections", "the peer has as many connections as one peer may have"]
    ] as const
  ) {
    it.effect(`is denied, and says why: ${reason}`, () =>
      Effect.gen(function*() {
        const error = yield* failure
        assert.deepStrictEqual(
          [error._tag, error._tag === "DialError" && [error.target, error.reason._tag, error.reason.message]],
          ["DialError", [bob, "Denied", detail]]
        )
      }).pipe(Effect.provide(refusing(reason))))
  }
})

const address = "/ip4/192.0.2.1/tcp/4001" as Multiaddr

/** A store that takes a moment, in which another caller may come. */
const store = Layer.effect(
  PeerStore,
  Effect.map(PeerStore, (fast) => ({ ...fast, get: (id) => Effect.delay(fast.get(id), "1 millis") }))
).pipe(Layer.provide(KeyValuePeerStore.layer))

/** A dialler over a transport that dials so. */
const over = (dial: Transport["Service"]["dial"], config: NetworkConfigInput = {}) =>
  layer.pipe(
    Layer.provideMerge(ScopedPeerTable.layer),
    Layer.provideMerge(Layer.mergeAll(PeerBook.layer, NetworkEvents.layer, store)),
    Layer.provide([
      NetworkConfig.layer(config),
      Layer.provide(
        Layer.effect(Transport, Effect.map(Transport, (fake) => Transport.of({ ...fake, dial }))),
        FakeConnection.transport
      ),
      machine,
      KeyValueStore.layerMemory
    ])
  )

describe("an address of a peer that has all the connections that it may have", () => {
  it.effect("is connected: the dial gives the peer as it stands", () => {
    let gate: Effect.Effect<never, DialError> = Effect.never
    return Effect.gen(function*() {
      const [dialer, book, table] = [yield* Dialer, yield* PeerBook.PeerBook, yield* PeerTable]
      yield* table.admit(FakeConnection.make(bob))
      gate = Effect.gen(function*() {
        dialer.answered(address, bob)
        book.noteRefusal(bob, { at: yield* Elapsed.millis, direction: "outbound", reason: "connections" })
        return yield* new DialError({ target: address, reason: new Denied({ detail: "the gate" }) })
      })
      assert.strictEqual((yield* TestNetwork.run(dialer.dialAddress(address))).id, bob)
    }).pipe(Effect.provide(over(() => Effect.suspend(() => gate))))
  })
})

/** Dials that never end, and what became of them. */
const endless = () => {
  const seen = { begun: new Array<DialTarget>(), aborted: 0 }
  const dial: Transport["Service"]["dial"] = (target) =>
    Effect.suspend(() => {
      seen.begun.push(target)
      return Effect.onInterrupt(Effect.never, () => Effect.sync(() => seen.aborted++))
    })
  return { seen, dial }
}

/** A caller of the dial, once the dial has begun. */
const calling = Effect.fnUntraced(function*<A, E>(dial: Effect.Effect<A, E>) {
  const fiber = yield* Effect.forkChild(Effect.exit(dial), { startImmediately: true })
  yield* TestClock.adjust(1)
  return fiber
})

describe("a dial of a peer", () => {
  it.effect("is one for all who ask, lasts while one of them waits, and is aborted when nobody does", () => {
    const { dial, seen } = endless()
    return Effect.gen(function*() {
      const dialer = yield* Dialer
      const peer = (yield* PeerBook.PeerBook).record(bob)
      const first = yield* Effect.forkChild(Effect.exit(dialer.dialPeer(peer)), { startImmediately: true })
      const second = yield* calling(dialer.dialPeer(peer))
      const third = yield* calling(dialer.dialPeer(peer))
      assert.strictEqual(seen.begun.length, 1)
      yield* Fiber.interrupt(third)
      yield* Fiber.interrupt(first)
      assert.deepStrictEqual([seen.aborted, dialer.pending()], [0, [bob]])
      yield* Fiber.interrupt(second)
      assert.deepStrictEqual([seen.aborted, dialer.pending()], [1, []])
    }).pipe(Effect.provide(over(dial)))
  })

  it.effect("goes on when nobody waits, once its remote has answered", () => {
    const { dial, seen } = endless()
    return Effect.gen(function*() {
      const dialer = yield* Dialer
      const caller = yield* calling(dialer.dialPeer((yield* PeerBook.PeerBook).record(bob)))
      dialer.answered(address, bob)
      yield* Fiber.interrupt(caller)
      assert.deepStrictEqual([seen.aborted, dialer.pending()], [0, [bob]])
      yield* dialer.abort(bob)
      assert.deepStrictEqual([seen.aborted, dialer.pending()], [1, []])
    }).pipe(Effect.provide(over(dial)))
  })

  it.effect("waits for its turn among `maxParallelDials`", () => {
    const { dial, seen } = endless()
    return Effect.gen(function*() {
      const dialer = yield* Dialer
      const book = yield* PeerBook.PeerBook
      const peers = ["carol", "dave", "erin"].map(FakeConnection.peerId)
      const callers = yield* Effect.forEach(peers, (id) => calling(dialer.dialPeer(book.record(id))))
      assert.deepStrictEqual(seen.begun, peers.slice(0, 2))
      yield* Fiber.interrupt(callers[0]!)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(seen.begun, peers)
    }).pipe(Effect.provide(over(dial, { maxParallelDials: 2 })))
  })

  it.effect("fails when `dialTimeout` is over", () => {
    const { dial, seen } = endless()
    return Effect.gen(function*() {
      const dialer = yield* Dialer
      const caller = yield* Effect.forkChild(
        Effect.flip(dialer.dialPeer((yield* PeerBook.PeerBook).record(bob))),
        { startImmediately: true }
      )
      yield* TestClock.adjust("3 seconds")
      assert.isUndefined(caller.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(caller)
      assert.strictEqual(error._tag === "DialError" && error.reason._tag, "DialTimeout")
      assert.strictEqual(seen.aborted, 1)
    }).pipe(Effect.provide(over(dial, { dialTimeout: "3 seconds" })))
  })

  it.effect("closes the connection that the table does not admit, whatever happened during the dial", () => {
    const made: Array<FakeConnection.FakeConnection> = []
    let meanwhile: Effect.Effect<unknown> = Effect.void
    const dial = () =>
      Effect.map(Effect.suspend(() => meanwhile), () => {
        const connection = FakeConnection.make(bob)
        made.push(connection)
        return connection
      })
    return Effect.gen(function*() {
      const dialer = yield* Dialer
      const book = yield* PeerBook.PeerBook
      const table = yield* PeerTable
      const kept = FakeConnection.peerId("carol")
      PeerRecord.keptBy(book.record(kept))
      meanwhile = Effect.orDie(table.admit(FakeConnection.make(kept)))
      const full = yield* TestNetwork.run(Effect.flip(dialer.dialPeer(book.record(bob))))
      yield* table.remove(kept, "disconnect")
      meanwhile = Effect.sync(() => PeerRecord.blockedBy(book.record(bob)))
      const blocked = yield* TestNetwork.run(Effect.flip(dialer.dialPeer(book.record(bob))))
      assert.deepStrictEqual(
        [full._tag, blocked._tag === "DialError" && blocked.reason._tag],
        ["PeerLimitExceeded", "Denied"]
      )
      assert.deepStrictEqual(made.map(({ state }) => state.open), [false, false])
    }).pipe(Effect.provide(over(dial, { maxPeers: 1 })))
  })

  it.effect("leaves out what `AddressGuard` refuses, but only where a stranger told it", () => {
    const { dial, seen } = endless()
    return Effect.gen(function*() {
      const dialer = yield* Dialer
      const peer = (yield* PeerBook.PeerBook).record(bob)
      peer.addresses.learn("/ip4/192.0.2.7/tcp/1" as Multiaddr, "dht")
      peer.addresses.learn("/ip4/192.0.2.8/tcp/1" as Multiaddr, "given")
      yield* calling(dialer.dialPeer(peer))
      const allowed = [`/ip4/192.0.2.8/tcp/1/p2p/${bob}`]
      assert.sameMembers([...dialer.dialing(bob)!], allowed)
      const dialled = seen.begun.flatMap((target) => typeof target === "string" ? [] : target.addresses.map(addressOf))
      assert.sameMembers(dialled, allowed)
    }).pipe(Effect.provide(over(dial)), Effect.provideService(AddressGuard, () => false))
  })
})

describe("a dial of an address", () => {
  it.effect("wants the peer that answers there until the dial ends, and no longer", () => {
    const outcome = Deferred.makeUnsafe<never, DialError>()
    return Effect.gen(function*() {
      const dialer = yield* Dialer
      const interests = yield* Interests
      const caller = yield* calling(dialer.dialAddress(address))
      assert.strictEqual(interests.of(bob), "transient")
      dialer.answered(address, bob)
      assert.strictEqual(interests.of(bob), "wanted")
      yield* Fiber.interrupt(caller)
      assert.deepStrictEqual([interests.of(bob), dialer.pending()], ["wanted", [address]])
      yield* Deferred.fail(outcome, new DialError({ target: address, reason: new Unreachable({ detail: "gone" }) }))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual([interests.of(bob), dialer.pending()], ["transient", []])
    }).pipe(Effect.provide(over(() => Deferred.await(outcome))))
  })

  it.effect("is aborted when nobody waits for it and nobody has answered there", () => {
    const { dial, seen } = endless()
    return Effect.gen(function*() {
      const dialer = yield* Dialer
      yield* Fiber.interrupt(yield* calling(dialer.dialAddress(address)))
      assert.deepStrictEqual([seen.aborted, dialer.pending()], [1, []])
    }).pipe(Effect.provide(over(dial)))
  })
})
