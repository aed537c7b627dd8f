import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Queue } from "effect"
import { KeyValueStore } from "effect/persistence"
import { TestClock } from "effect/testing"
import * as KeyValuePeerStore from "../../../src/layers/machine/KeyValuePeerStore.ts"
import * as Admission from "../../../src/layers/peers/Admission.ts"
import * as PeerBook from "../../../src/layers/peers/PeerBook.ts"
import * as ScopedPeerTable from "../../../src/layers/peers/ScopedPeerTable.ts"
import * as Pulse from "../../../src/layers/Pulse.ts"
import type { Multiaddr } from "../../../src/schema/Peer.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../../src/services/NetworkEvents.ts"
import { PeerStore } from "../../../src/services/PeerStore.ts"
import { PeerTable } from "../../../src/services/PeerTable.ts"
import { type ConnectionEvent, Transport } from "../../../src/services/Transport.ts"
import * as FakeConnection from "../../support/FakeConnection.ts"

const services = ScopedPeerTable.layer.pipe(
  Layer.provideMerge(Layer.mergeAll(PeerBook.layer, NetworkEvents.layer, KeyValuePeerStore.layer)),
  Layer.provide([NetworkConfig.layer(), FakeConnection.transport, KeyValueStore.layerMemory])
)

const full = ScopedPeerTable.layer.pipe(
  Layer.provideMerge(Layer.mergeAll(PeerBook.layer, NetworkEvents.layer, KeyValuePeerStore.layer)),
  Layer.provideMerge(Layer.merge(NetworkConfig.layer({ maxPeers: 1, minPeers: 0 }), FakeConnection.transport)),
  Layer.provide(KeyValueStore.layerMemory)
)

const bob = FakeConnection.peerId("bob")
const listens = "/ip4/198.51.100.7/tcp/4001" as Multiaddr

/** A connection whose remote has told where it listens, and an address of another peer. */
const connectionOf = (options: FakeConnection.FakeOptions) => ({
  ...FakeConnection.make(bob, options),
  remote: Effect.succeedSome({
    protocolVersion: "",
    agentVersion: "bob/1.0.0",
    protocols: [],
    listenAddresses: [listens, `/ip4/198.51.100.8/tcp/4001/p2p/${FakeConnection.peerId("carol")}` as Multiaddr]
  })
})

describe("what follows the admission of a connection", () => {
  it.effect("is what identify told, in the table and in the book, and twice is as good as once", () =>
    Effect.gen(function*() {
      const table = yield* PeerTable
      const book = yield* PeerBook.PeerBook
      const rememberRemote = yield* Admission.makeRememberRemote
      const connection = connectionOf({ inbound: true })
      yield* table.admit(connection)
      const peer = book.record(bob)
      yield* rememberRemote(connection)
      yield* rememberRemote(connection)
      assert.strictEqual((yield* table.peers)[0]?.agentVersion, "bob/1.0.0")
      assert.deepStrictEqual([...peer.addresses.values()].map(({ address, source }) => [address, source]), [
        [`${listens}/p2p/${bob}`, "identify"]
      ])
    }).pipe(Effect.provide(services)))

  it.effect("remembers where this node reached the peer, and no address that an inbound connection came from", () =>
    Effect.gen(function*() {
      const store = yield* PeerStore
      const rememberRemote = yield* Admission.makeRememberRemote
      yield* rememberRemote(connectionOf({ inbound: true }))
      assert.deepStrictEqual(yield* store.peers, [])
      const connection = connectionOf({ address: "/ip4/203.0.113.1/tcp/4001" })
      yield* rememberRemote(connection)
      assert.deepStrictEqual((yield* store.peers).map(({ addresses, id }) => [id, addresses[0]?.address]), [
        [bob, connection.remoteAddress]
      ])
    }).pipe(Effect.provide(services)))

  it.effect("is a refusal that is told and counted where the table has no slot after all", () =>
    Effect.gen(function*() {
      const transport = yield* Transport
      const table = yield* PeerTable
      const refused: Array<string> = []
      const pulse = Pulse.make()
      yield* Admission.make({
        changed: () => Effect.void,
        wake: () => Effect.void,
        peersChanged: pulse,
        isDialing: () => false,
        refuse: ({ peer }, reason) => {
          refused.push(`${peer} ${reason}`)
          return Effect.succeed(reason)
        }
      })
      yield* table.admit(FakeConnection.make(FakeConnection.peerId("alice"), { inbound: true }))
      const connection = FakeConnection.make(bob, { inbound: true })
      yield* Queue.offer(transport.events as Queue.Queue<ConnectionEvent>, { _tag: "Opened", connection })
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(refused, [`${bob} full`])
      assert.strictEqual(connection.state.closes, 1)
    }).pipe(Effect.provide(full)))
})
