/**
 * What every implementation of the `Dht` port promises, as one suite. It runs in real time and waits for events only,
 * so that it holds for Kademlia over sockets and for the simulator alike.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, type Duration, Effect, Exit, type Layer, Option, Order, Schema, Scope, Stream } from "effect"
import * as PublishedValue from "../../src/layers/dht/libp2p/PublishedValue.ts"
import * as ContentKey from "../../src/schema/Content.ts"
import type { DhtError } from "../../src/schema/NetworkError.ts"
import type { PeerId } from "../../src/schema/Peer.ts"
import type { ProvideStatus } from "../../src/schema/ProvideStatus.ts"
import * as ValueNamespace from "../../src/schema/ValueNamespace.ts"
import type { Dht } from "../../src/services/Dht.ts"
import { ValueNamespaces } from "../../src/services/ValueNamespaces.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import { eventually } from "./eventually.ts"

export interface DhtContractNode {
  readonly id: PeerId
  readonly dht: Dht["Service"]
}

export interface DhtFixture<R, N extends DhtContractNode> {
  /** A new node that serves the DHT, listens, lets everybody in, and is connected to nobody. */
  readonly makeNode: (name: string) => Effect.Effect<N, unknown, Scope.Scope | R>
  /** Connects one node to another, and returns when both can be asked about the other. */
  readonly connect: (node: N, other: N) => Effect.Effect<void, unknown, R>
  /** What the nodes of one test share. */
  readonly layer: Layer.Layer<R>
  /** How long each test may take. */
  readonly timeLimit: Duration.Input
}

export const dhtContract = <R, N extends DhtContractNode>(name: string, fixture: DhtFixture<R, N>): void => {
  const check = (behaviour: string, body: () => Effect.Effect<void, unknown, Scope.Scope | R>) =>
    it.live(behaviour, () =>
      body().pipe(
        Effect.scoped,
        Effect.timeoutOrElse({
          duration: fixture.timeLimit,
          orElse: () => Effect.die(new Error("not done within the time limit"))
        }),
        Effect.provideService(ValueNamespaces, [Scores]),
        Effect.provide(fixture.layer)
      ))

  /** Nodes in a line, each connected to the next. */
  const line = <const Names extends ReadonlyArray<string>>(...names: Names) =>
    Effect.gen(function*() {
      const nodes: Array<N> = []
      for (const name of names) nodes.push(yield* fixture.makeNode(name))
      for (const [index, node] of nodes.entries()) if (index > 0) yield* fixture.connect(nodes[index - 1]!, node)
      return nodes as unknown as { readonly [K in keyof Names]: N }
    })

  const limit = fixture.timeLimit
  const finds = (node: N, key: ContentKey.ContentKey, ...providers: ReadonlyArray<N>) =>
    eventually(
      "the providers are found",
      Effect.map(found(node, key), (ids) => providers.every(({ id }) => ids.includes(id))),
      limit
    )

  describe(name, () => {
    check("answers NoPeers at once when there is no peer to ask", () =>
      Effect.gen(function*() {
        const alice = yield* fixture.makeNode("alice")
        const start = yield* Clock.currentTimeMillis
        for (
          const asks of [
            Effect.asVoid(Stream.runCollect(alice.dht.findProviders(key("nobody")))),
            Effect.asVoid(alice.dht.findPeer(SimNetwork.peerId("nobody"))),
            Effect.asVoid(alice.dht.putValue(Scores, "alice", { points: 1 })),
            Effect.asVoid(alice.dht.getValue(Scores, "alice"))
          ]
        ) {
          const error: DhtError = yield* Effect.flip(asks)
          assert.strictEqual(error.reason._tag, "NoPeers")
        }
        // Waiting for a peer would take seconds.
        assert.isBelow((yield* Clock.currentTimeMillis) - start, 1_900)
      }))

    check("finds the providers of a key, and their addresses", () =>
      Effect.gen(function*() {
        const [alice, bob] = yield* line("alice", "bob")
        yield* bob.dht.startProviding(key("video"))
        yield* finds(alice, key("video"), bob)
        const [provider] = yield* Stream.runCollect(Stream.take(alice.dht.findProviders(key("video")), 1))
        assert.strictEqual(provider?.id, bob.id)
        assert.isAbove(provider!.addresses.length, 0)
      }))

    check("announces a key provided without peers once there is one", () =>
      Effect.gen(function*() {
        const alice = yield* fixture.makeNode("alice")
        const bob = yield* fixture.makeNode("bob")
        yield* bob.dht.startProviding(key("early"))
        yield* bob.dht.startProviding(key("early"))
        yield* fixture.connect(alice, bob)
        yield* finds(alice, key("early"), bob)
      }))

    check("announces no key that was stopped before there was a peer", () =>
      Effect.gen(function*() {
        const alice = yield* fixture.makeNode("alice")
        const bob = yield* fixture.makeNode("bob")
        yield* bob.dht.startProviding(key("stopped"))
        yield* bob.dht.stopProviding(key("stopped"))
        yield* bob.dht.stopProviding(key("never provided"))
        yield* fixture.connect(alice, bob)
        yield* bob.dht.startProviding(key("other"))
        yield* finds(alice, key("other"), bob)
        assert.deepStrictEqual(yield* found(alice, key("stopped")), [])
      }))

    check(
      "provides a key while one of its scopes is open, or startProviding has not been stopped",
      () =>
        Effect.gen(function*() {
          const bob = yield* fixture.makeNode("bob")
          const keys = Effect.map(Stream.runHead(bob.dht.provideStatus), (status) => Option.getOrThrow(status).keys)
          const [first, second] = yield* Effect.all([Scope.make(), Scope.make()])
          yield* Scope.provide(bob.dht.provide(key("scoped")), first)
          yield* Scope.provide(bob.dht.provide(key("scoped"), { ttl: "1 hour" }), second)
          // A scope, and stopProviding, each end only what they began.
          yield* bob.dht.stopProviding(key("scoped"))
          yield* Scope.close(first, Exit.void)
          assert.strictEqual(yield* keys, 1)
          yield* bob.dht.startProviding(key("scoped"))
          yield* Scope.close(second, Exit.void)
          assert.strictEqual(yield* keys, 1)
          yield* Effect.scoped(bob.dht.provide(key("scoped")))
          yield* Effect.flip(Effect.scoped(bob.dht.provide(key("scoped"), { ttl: "1 second" })))
          assert.strictEqual(yield* keys, 1)
          yield* bob.dht.stopProviding(key("scoped"))
          assert.strictEqual(yield* keys, 0)
        })
    )

    check("tells how far announcing is, at once and then as it goes", () =>
      Effect.gen(function*() {
        const alice = yield* fixture.makeNode("alice")
        const bob = yield* fixture.makeNode("bob")
        const told: Array<ProvideStatus> = []
        yield* Effect.forkChild(
          Stream.runForEach(bob.dht.provideStatus, (status) => Effect.sync(() => told.push(status)))
        )
        const tells = (what: string, holds: (status: ProvideStatus) => boolean) =>
          eventually(what, Effect.sync(() => told.some(holds)), limit)
        yield* tells("nothing is provided", ({ keys, paused }) => keys === 0 && paused !== undefined)
        yield* bob.dht.startProviding(key("reported"), { ttl: "1 hour" })
        yield* tells("a key waits", ({ announced, keys, queued }) => keys === 1 && queued === 1 && announced === 0)
        yield* fixture.connect(alice, bob)
        yield* tells("it is announced", ({ announced, copies, paused, queued }) =>
          queued === 0 && announced === 1 && copies.least === 1 && paused === undefined)
        assert.isAtLeast(told.at(-1)!.lastCycle!.keys, 1)
        yield* bob.dht.stopProviding(key("reported"))
        yield* eventually(
          "it is stopped",
          Effect.sync(() =>
            told.at(-1)!.keys === 0
          ),
          limit
        )
      }))

    check("refuses a ttl that is too short, too long or none", () =>
      Effect.gen(function*() {
        const bob = yield* fixture.makeNode("bob")
        for (
          const [ttl, text] of [
            ["59 seconds", "59s"],
            ["25 hours", "1d 1h"],
            ["soon" as "1 second", "\"soon\""]
          ] as const
        ) {
          for (const operation of ["startProviding", "provide"] as const) {
            const error = yield* Effect.flip(Effect.scoped(bob.dht[operation](key("ttl"), { ttl })))
            assert.strictEqual(error.reason._tag, "TtlInvalid")
            assert.strictEqual(
              error.message,
              `${operation} ${key("ttl")}: a ttl is between 1 minute and 24 hours, not ${text}`
            )
          }
        }
        const status = yield* Stream.runHead(bob.dht.provideStatus)
        assert.strictEqual(Option.getOrThrow(status).keys, 0)
      }))

    check("finds other nodes only, each once", () =>
      Effect.gen(function*() {
        const [alice, bob, carol] = yield* line("alice", "bob", "carol")
        for (const node of [alice, bob, carol]) yield* node.dht.startProviding(key("shared"))
        yield* finds(alice, key("shared"), bob, carol)
        yield* finds(bob, key("shared"), alice, carol)
        assert.deepStrictEqual((yield* found(alice, key("shared"))).sort(), [bob.id, carol.id].sort())
        assert.deepStrictEqual((yield* found(bob, key("shared"))).sort(), [alice.id, carol.id].sort())
      }))

    check("finds a key two hops away, in both directions of a line of four", () =>
      Effect.gen(function*() {
        const [alice, , carol, dave] = yield* line("alice", "bob", "carol", "dave")
        yield* carol.dht.startProviding(key("two hops"))
        yield* dave.dht.startProviding(key("three hops"))
        yield* alice.dht.startProviding(key("back"))
        yield* finds(alice, key("two hops"), carol)
        yield* finds(alice, key("three hops"), dave)
        yield* finds(dave, key("back"), alice)
      }))

    check("ends without a provider when there is none", () =>
      Effect.gen(function*() {
        const [alice, bob] = yield* line("alice", "bob")
        yield* bob.dht.startProviding(key("one"))
        yield* finds(alice, key("one"), bob)
        assert.deepStrictEqual(yield* found(alice, key("another")), [])
      }))

    check("answers many questions at once", () =>
      Effect.gen(function*() {
        const [alice, bob] = yield* line("alice", "bob")
        const keys = Array.from({ length: 10 }, (_, index) => key(`many ${index}`))
        yield* Effect.forEach(keys, (key) => bob.dht.startProviding(key), { discard: true })
        yield* Effect.forEach(keys, (key) => finds(alice, key, bob), { concurrency: 5, discard: true })
      }))

    check("finds keys of any 1 to 80 bytes, each as itself", () =>
      Effect.gen(function*() {
        const [alice, , carol] = yield* line("alice", "bob", "carol")
        const text = new TextEncoder().encode("my-content-key")
        const multihashOfText = Uint8Array.of(0x00, text.length, ...text)
        const keys = [text, multihashOfText, Uint8Array.of(7), new Uint8Array(80).fill(7)]
          .map(ContentKey.fromRustRecordKey)
        for (const key of keys) yield* carol.dht.startProviding(key)
        for (const key of keys) yield* finds(alice, key, carol)
        yield* alice.dht.startProviding(ContentKey.fromRustRecordKey("back"))
        yield* finds(carol, ContentKey.fromRustRecordKey("back"), alice)
        assert.deepStrictEqual(yield* found(alice, ContentKey.fromText("my-content-key")), [])
        assert.deepStrictEqual(yield* found(alice, ContentKey.fromRustRecordKey(text.subarray(0, 5))), [])
      }))

    check("gives a value of any node to any other, and says who has stored it", () =>
      Effect.gen(function*() {
        const [alice, , carol] = yield* line("alice", "bob", "carol")
        const stored = yield* alice.dht.putValue(Scores, "alice", { points: 3 })
        assert.isAtLeast(stored.acknowledged, 1)
        assert.isAtLeast(stored.asked, stored.acknowledged)
        assert.deepStrictEqual(yield* carol.dht.getValue(Scores, "alice"), { points: 3 })
        assert.deepStrictEqual(yield* alice.dht.getValue(Scores, "alice"), { points: 3 })
        assert.strictEqual((yield* reasonOf(carol.dht.getValue(Scores, "nobody")))._tag, "NotFound")
      }))

    check("lets the value win that its namespace ranks highest, whoever puts it", () =>
      Effect.gen(function*() {
        const [alice, bob] = yield* line("alice", "bob")
        yield* alice.dht.putValue(Scores, "player", { points: 5 })
        yield* bob.dht.putValue(Scores, "player", { points: 7 })
        assert.deepStrictEqual(yield* alice.dht.getValue(Scores, "player"), { points: 7 })
        // Both nodes have stored the better value.
        assert.strictEqual(
          (yield* reasonOf(alice.dht.putValue(Scores, "player", { points: 6 })))._tag,
          "RecordInvalid"
        )
        yield* bob.dht.putValue(Scores, "player", { points: 7 })
        assert.deepStrictEqual(yield* bob.dht.getValue(Scores, "player"), { points: 7 })
      }))

    check("publishes values that are signed, of which the newest wins", () =>
      Effect.gen(function*() {
        const [alice, bob] = yield* line("alice", "bob")
        const path = PublishedValue.path(alice.id, "profile")
        for (const value of ["first", "second", "third"]) {
          yield* alice.dht.putValue(PublishedValue.namespace, path, { value: text(value) })
        }
        const found = yield* bob.dht.getValue(PublishedValue.namespace, path)
        assert.strictEqual(found.publisher, alice.id)
        assert.strictEqual(found.name, "profile")
        assert.deepStrictEqual(found.value, text("third"))
        const older = { value: text("older"), sequence: found.sequence - 1 }
        const forged = bob.dht.putValue(PublishedValue.namespace, path, { value: text("forged") })
        for (const put of [alice.dht.putValue(PublishedValue.namespace, path, older), forged]) {
          assert.strictEqual((yield* reasonOf(put))._tag, "RecordInvalid")
        }
        assert.deepStrictEqual((yield* bob.dht.getValue(PublishedValue.namespace, path)).value, text("third"))
      }))

    check("fails with the numbers when fewer nodes than the quorum answer", () =>
      Effect.gen(function*() {
        const [alice, bob] = yield* line("alice", "bob")
        const put = yield* reasonOf(alice.dht.putValue(Scores, "alice", { points: 1 }, { quorum: 2 }))
        assert.deepInclude(put, { _tag: "QuorumFailed", quorum: 2, asked: 1, acknowledged: 1 })
        // The stored copy stays.
        assert.deepStrictEqual(yield* bob.dht.getValue(Scores, "alice", { quorum: 1 }), { points: 1 })
        const get = yield* reasonOf(bob.dht.getValue(Scores, "alice", { quorum: 2 }))
        assert.deepInclude(get, { _tag: "QuorumFailed", quorum: 2, asked: 1, acknowledged: 1 })
      }))

    check("counts no node that does not know the namespace", () =>
      Effect.gen(function*() {
        const alice = yield* fixture.makeNode("alice")
        const bob = yield* fixture.makeNode("bob").pipe(Effect.provideService(ValueNamespaces, []))
        yield* fixture.connect(alice, bob)
        const put = yield* reasonOf(alice.dht.putValue(Scores, "alice", { points: 1 }))
        assert.deepInclude(put, { _tag: "QuorumFailed", quorum: 1, asked: 1, acknowledged: 0 })
        const unknown = yield* Effect.flip(bob.dht.getValue(Scores, "alice"))
        assert.strictEqual(unknown.reason._tag, "RecordInvalid")
        assert.strictEqual(unknown.subject, "/scores/alice")
      }))

    check("takes no value that its namespace refuses, and no malformed key", () =>
      Effect.gen(function*() {
        const [alice] = yield* line("alice", "bob")
        const large = { value: new Uint8Array(ValueNamespace.valueBytesMax) }
        for (
          const put of [
            alice.dht.putValue(Scores, "alice", { points: 0.5 }),
            alice.dht.putValue(Scores, "", { points: 1 }),
            alice.dht.putValue(Scores, "x".repeat(ValueNamespace.valueKeyBytesMax), { points: 1 }),
            alice.dht.putValue(PublishedValue.namespace, PublishedValue.path(alice.id, "large"), large),
            alice.dht.putValue(PublishedValue.namespace, "profile", { value: text("nobody's") })
          ]
        ) assert.strictEqual((yield* reasonOf(put))._tag, "RecordInvalid")
      }))

    check("finds a connected peer", () =>
      Effect.gen(function*() {
        const [alice, bob] = yield* line("alice", "bob")
        const where = yield* alice.dht.findPeer(bob.id)
        assert.strictEqual(where.id, bob.id)
        assert.isAbove(where.addresses.length, 0)
      }))

    check("fails for a peer that no node knows", () =>
      Effect.gen(function*() {
        const [alice] = yield* line("alice", "bob")
        const error = yield* Effect.flip(alice.dht.findPeer(SimNetwork.peerId("nobody")))
        assert.include(["NotFound", "QueryTimeout"], error.reason._tag)
        assert.strictEqual(error.operation, "findPeer")
        assert.strictEqual(error.subject, SimNetwork.peerId("nobody"))
      }))
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** A namespace: the greatest score of each player, which anybody may put. */
const Scores = ValueNamespace.make({
  name: "scores",
  schema: ValueNamespace.fromJson(Schema.Struct({ points: Schema.Int })),
  order: Order.mapInput(Order.Number, ({ points }: { readonly points: number }) => points)
})

const reasonOf = <A>(effect: Effect.Effect<A, DhtError>) => Effect.map(Effect.flip(effect), ({ reason }) => reason)

const text = (value: string) => new TextEncoder().encode(value)

const key = (text: string) => ContentKey.fromText(`dht contract: ${text}`)

const found = (node: DhtContractNode, key: ContentKey.ContentKey): Effect.Effect<Array<PeerId>, DhtError> =>
  Effect.map(Stream.runCollect(node.dht.findProviders(key)), (providers) => providers.map(({ id }) => id))
