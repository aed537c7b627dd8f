import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import * as KeyValuePeerStore from "../../../src/layers/machine/KeyValuePeerStore.ts"
import { Dialer, layer } from "../../../src/layers/peers/Dialer.ts"
import * as PeerBook from "../../../src/layers/peers/PeerBook.ts"
import * as ScopedPeerTable from "../../../src/layers/peers/ScopedPeerTable.ts"
import type { RefusalReason } from "../../../src/schema/NetworkEvent.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { NetworkEvents } from "../../../src/services/NetworkEvents.ts"
import { NetworkMonitor } from "../../../src/services/NetworkMonitor.ts"
import { PeerTable } from "../../../src/services/PeerTable.ts"
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
