import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as BootstrapDiscovery from "../../../src/layers/discovery/BootstrapDiscovery.ts"
import { DialedSelf, DialError, InvalidAddress } from "../../../src/schema/NetworkError.ts"
import { type DialTarget, type Multiaddr, showTarget } from "../../../src/schema/Peer.ts"
import { ConnectionManager } from "../../../src/services/ConnectionManager.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import * as CoreNode from "../../support/CoreNode.ts"

const start = (manager: ConnectionManager["Service"], bootstrapPeers: ReadonlyArray<string>) =>
  Layer.build(BootstrapDiscovery.layer.pipe(
    Layer.provide([Layer.succeed(ConnectionManager)(manager), NetworkConfig.layer({ bootstrapPeers })])
  ))

const one = "/ip4/192.0.2.1/tcp/4001"
const two = "/ip4/192.0.2.2/tcp/4001"

/** Records the kept targets, and fails for the targets given. */
const fake = (failing: Record<string, DialError> = {}) => {
  const kept: Array<string> = []
  const keep = (target: DialTarget): Effect.Effect<void, DialError, Scope.Scope> => {
    const error = failing[showTarget(target)]
    if (error !== undefined) return Effect.fail(error)
    return Effect.acquireRelease(
      Effect.sync(() => void kept.push(showTarget(target))),
      () => Effect.sync(() => void kept.splice(kept.indexOf(showTarget(target)), 1))
    )
  }
  const manager: ConnectionManager["Service"] = {
    keep,
    connect: () => Effect.die("not used"),
    disconnect: () => Effect.die("not used"),
    block: () => Effect.die("not used"),
    goodbye: () => Effect.die("not used"),
    explain: () => Effect.die("not used"),
    lastContact: () => Effect.die("not used"),
    judged: () => Effect.die("not used"),
    status: Effect.die("not used")
  }
  return { kept, manager }
}

describe("BootstrapDiscovery", () => {
  it.effect("keeps each bootstrap peer while its scope lives", () =>
    Effect.gen(function*() {
      const { kept, manager } = fake()
      const scope = yield* Scope.make()
      yield* Scope.provide(start(manager, [one, two]), scope)
      assert.deepStrictEqual(kept, [one, two])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(kept, [])
    }))

  it.effect("fails at the start for an address that cannot be dialled", () =>
    Effect.gen(function*() {
      const { manager } = fake({
        [two]: new DialError({ target: two, reason: new InvalidAddress({ detail: "no transport for it" }) })
      })
      const error = yield* Effect.flip(start(manager, [one, two]))
      assert.strictEqual(error._tag, "DialError")
      assert.strictEqual(error.message, `dial ${two}: no transport for it`)
    }).pipe(Effect.scoped))

  it.effect("passes over this node's own address", () =>
    Effect.gen(function*() {
      const { kept, manager } = fake({ [one]: new DialError({ target: one, reason: new DialedSelf({}) }) })
      yield* start(manager, [one, two])
      assert.deepStrictEqual(kept, [two])
    }).pipe(Effect.scoped))

  it.effect("starts while the bootstrap peer is down, and reaches it when it is up", () =>
    Effect.gen(function*() {
      const alice = yield* CoreNode.make("alice")
      yield* start(alice.manager, [`${SimNetwork.address("bob")}/p2p/${SimNetwork.peerId("bob")}` as Multiaddr])
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* alice.table.size, 0)
      yield* CoreNode.make("bob")
      // The longest delay of the policy, with its jitter.
      yield* TestClock.adjust("75 seconds")
      const [bob] = yield* alice.table.peers
      assert.strictEqual(bob?.interest, "kept")
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer({ seed: "bootstrap" }))))
})
