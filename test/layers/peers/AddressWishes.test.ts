import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import { DialError, UnexpectedPeer, Unreachable } from "../../../src/schema/NetworkError.ts"
import { addressOf, type DialTarget, type Multiaddr, peerOf, withoutPeer } from "../../../src/schema/Peer.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import type { Transport } from "../../../src/services/Transport.ts"
import * as CoreNode from "../../support/CoreNode.ts"

const name = "/dns4/seeds.example/tcp/4001" as Multiaddr
const literal = "/ip4/192.0.2.7/tcp/4001" as Multiaddr

/**
 * An address at which one node answers, and then another one. Whoever asks there for the first one meets the second,
 * or nobody where `isSilent`.
 */
const at = (address: Multiaddr) => {
  const state = { answers: "bob", bare: 0, isSilent: false }
  const dialing = (dial: Transport["Service"]["dial"]): Transport["Service"]["dial"] => (target: DialTarget) => {
    const given = typeof target === "string" ? target : target.addresses.map(addressOf)[0]
    if (given === undefined || withoutPeer(given as Multiaddr) !== address) return dial(target)
    const expected = peerOf(target)
    if (expected === undefined) state.bare++
    return expected === undefined || expected === SimNetwork.peerId(state.answers)
      ? dial(SimNetwork.address(state.answers))
      : Effect.fail(
        new DialError({
          target: address,
          reason: state.isSilent ? new Unreachable({ detail: "nobody" }) : new UnexpectedPeer({ expected })
        })
      )
  }
  return { state, dialing }
}

/** Seconds pass one by one: in one leap the time limit of a dial would come before its answer. */
const passes = (seconds: number) =>
  Effect.forEach(Array.from({ length: seconds }), () => TestClock.adjust("1 second"), { discard: true })

/** A node that comes and goes. */
const comes = Effect.fnUntraced(function*(who: string) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const node = yield* Scope.provide(CoreNode.make(who, { minPeers: 0 }), scope)
  return { id: node.id, goes: Scope.close(scope, Exit.void) }
})

describe("a peer at an address without a peer id", () => {
  for (const way of ["keep", "connect"] as const) {
    for (const address of [name, literal]) {
      it.effect(`of ${way} of ${address} gives way to whoever answers there`, () =>
        Effect.gen(function*() {
          const { dialing, state } = at(address)
          const alice = yield* CoreNode.make("alice", { minPeers: 0 }, dialing)
          let seed = yield* comes("bob")
          yield* Effect.forkScoped(alice.manager[way](address))
          yield* passes(20)
          assert.isTrue(yield* alice.table.has(seed.id))
          for (const next of ["carol", "dave"]) {
            yield* seed.goes
            const former = seed
            seed = yield* comes(next)
            state.answers = next
            yield* passes(20)
            assert.isTrue(yield* alice.table.has(seed.id), next)
            assert.strictEqual((yield* alice.manager.explain(seed.id)).interest, way === "keep" ? "kept" : "wanted")
            assert.strictEqual((yield* alice.manager.explain(former.id)).interest, "transient")
          }
        }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))
    }
  }

  it.effect("behind a name is as good as any other", () =>
    Effect.gen(function*() {
      const { dialing, state } = at(name)
      const alice = yield* CoreNode.make("alice", { minPeers: 0 }, dialing)
      const bob = yield* comes("bob")
      const carol = yield* comes("carol")
      yield* Effect.forkScoped(alice.manager.keep(name))
      yield* passes(20)
      yield* bob.goes
      state.answers = "carol"
      yield* passes(5)
      assert.isTrue(yield* alice.table.has(carol.id))
      // The first one is no longer kept: it comes back, and nobody dials it.
      yield* comes("bob")
      yield* passes(300)
      assert.isFalse(yield* alice.table.has(bob.id))
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  for (const [address, answers] of [[name, "carol"], [literal, "bob"]] as const) {
    it.effect(`that does not answer at ${address} stands for ${address === name ? "any other there" : "itself"}`, () =>
      Effect.gen(function*() {
        const { dialing, state } = at(address)
        const alice = yield* CoreNode.make("alice", { minPeers: 0 }, dialing)
        const bob = yield* comes("bob")
        yield* Effect.forkScoped(alice.manager.keep(address))
        yield* passes(20)
        yield* bob.goes
        yield* comes("carol")
        Object.assign(state, { answers: "carol", isSilent: true })
        yield* passes(20)
        assert.strictEqual((yield* alice.manager.explain(SimNetwork.peerId(answers))).interest, "kept")
      }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))
  }

  it.effect("that is only away is dialled by its id alone", () =>
    Effect.gen(function*() {
      const { dialing, state } = at(literal)
      const alice = yield* CoreNode.make("alice", { minPeers: 0 }, dialing)
      const bob = yield* comes("bob")
      yield* Effect.forkScoped(alice.manager.keep(literal))
      yield* passes(20)
      assert.strictEqual(state.bare, 1)
      yield* bob.goes
      yield* passes(600)
      assert.strictEqual(state.bare, 1)
      yield* comes("bob")
      yield* passes(120)
      assert.isTrue(yield* alice.table.has(bob.id))
      assert.strictEqual((yield* alice.manager.explain(bob.id)).interest, "kept")
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("ends with its scope, whoever answers by then, and a wish for the peer itself stays", () =>
    Effect.gen(function*() {
      const { dialing, state } = at(literal)
      const alice = yield* CoreNode.make("alice", { minPeers: 0 }, dialing)
      const bob = yield* comes("bob")
      const scope = yield* Scope.make()
      yield* Scope.provide(alice.manager.keep(literal), scope)
      yield* passes(20)
      yield* alice.manager.connect(bob.id)
      yield* bob.goes
      const carol = yield* comes("carol")
      state.answers = "carol"
      yield* passes(20)
      assert.strictEqual((yield* alice.manager.explain(carol.id)).interest, "kept")
      assert.strictEqual((yield* alice.manager.explain(bob.id)).interest, "wanted")
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* alice.manager.explain(carol.id)).interest, "transient")
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("leaves a connect to the peer itself, made later, with that peer", () =>
    Effect.gen(function*() {
      const { dialing, state } = at(literal)
      const alice = yield* CoreNode.make("alice", { minPeers: 0 }, dialing)
      const bob = yield* comes("bob")
      yield* Effect.forkScoped(alice.manager.connect(literal))
      yield* passes(20)
      yield* alice.manager.connect(bob.id)
      yield* bob.goes
      yield* comes("carol")
      state.answers = "carol"
      yield* passes(20)
      assert.strictEqual((yield* alice.manager.explain(bob.id)).interest, "wanted")
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("of a disconnected peer is not dialled", () =>
    Effect.gen(function*() {
      const { dialing, state } = at(name)
      const alice = yield* CoreNode.make("alice", { minPeers: 0 }, dialing)
      const bob = yield* comes("bob")
      yield* Effect.forkScoped(alice.manager.keep(name))
      yield* passes(20)
      yield* alice.manager.disconnect(bob.id)
      yield* passes(600)
      assert.strictEqual(state.bare, 1)
      assert.isFalse(yield* alice.table.has(bob.id))
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))
})
