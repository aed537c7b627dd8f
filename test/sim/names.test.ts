/**
 * Every function of `Network` takes text in any form, and fails typed and in one line for a text that it cannot read.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { base36 } from "multiformats/bases/base36"
import { base58btc } from "multiformats/bases/base58"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"
import type { Network } from "../../src/Network.ts"
import * as ContentKey from "../../src/schema/Content.ts"
import type { DhtError } from "../../src/schema/NetworkError.ts"
import type { ValueNamespace } from "../../src/schema/ValueNamespace.ts"
import * as PublishedValue from "../../src/layers/dht/libp2p/PublishedValue.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as TestNetwork from "../../src/testing/TestNetwork.ts"

type Node = Network["Service"]
type Call = (node: Node, text: string) => Effect.Effect<unknown, unknown, Scope.Scope>

const kubo = (id: string) => CID.createV1(0x72, Digest.decode(base58btc.baseDecode(id))).toString(base36)

const ofPeers: Readonly<Record<string, Call>> = {
  connect: (node, text) => node.connect(text),
  "connect of an object": (node, text) => node.connect({ id: text, addresses: [] }),
  keep: (node, text) => node.keep(text),
  open: (node, text) => node.open(text, "/app/1.0.0"),
  disconnect: (node, text) => node.disconnect(text),
  block: (node, text) => Effect.scoped(node.block(text)),
  peer: (node, text) => node.peer(text),
  explain: (node, text) => node.explain(text),
  ping: (node, text) => node.ping(text),
  findPeer: (node, text) => node.findPeer(text)
}

const ofKeys: Readonly<Record<string, Call>> = {
  startProviding: (node, text) => node.startProviding(text),
  stopProviding: (node, text) => node.stopProviding(text),
  provide: (node, text) => node.provide(text),
  findProviders: (node, text) => Stream.runCollect(node.findProviders(text))
}

const ofOther: Readonly<Record<string, Call>> = {
  handle: (node, text) => node.handle(text, () => Effect.void),
  "open of a protocol": (node, text) => node.open(SimNetwork.peerId("bob"), text),
  putValue: (node, text) => node.putValue(PublishedValue.namespace, text, { value: new Uint8Array() }),
  getValue: (node, text) => node.getValue(PublishedValue.namespace as ValueNamespace<unknown, unknown>, text)
}

const typed = ["DialError", "InvalidPeerId", "PingError", "DhtError", "ProtocolError"]

const nonsense = [
  "bogus",
  "",
  " \n ",
  "not a key",
  "line\nbreak",
  "/ip4/1.2.3/tcp/1",
  "0".repeat(5_000),
  undefined as never,
  null as never,
  7 as never,
  {} as never
]

describe("text at the door", () => {
  it.effect("and numbers without sense fail a lookup typed", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const key = ContentKey.fromText("video")
      const path = PublishedValue.path(alice.localPeer, "status")
      const wrong: ReadonlyArray<readonly [Effect.Effect<unknown, DhtError>, string]> = [
        [
          Stream.runDrain(alice.findProviders(key, { maxProviders: 0 })),
          "maxProviders: expected a whole number from 1, got 0"
        ],
        [
          Stream.runDrain(alice.findProviders(key, { findTimeout: "soon" as never })),
          "findTimeout: expected a duration above zero, got soon"
        ],
        [
          alice.getValue(PublishedValue.namespace, path, { quorum: 1.5 }),
          "quorum: expected a whole number from 0, got 1.5"
        ],
        [
          alice.putValue(PublishedValue.namespace, path, { value: new Uint8Array() }, { quorum: Number.NaN }),
          "quorum: expected a whole number from 0, got NaN"
        ]
      ]
      for (const [call, detail] of wrong) {
        const { reason } = yield* Effect.flip(call)
        assert.strictEqual(reason._tag, "RecordInvalid")
        assert.strictEqual(reason.message, detail)
      }
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("and limits without sense fail handle, since a wrong limit would be none", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const handled = (options: object) => alice.handle("/app/1.0.0", () => Effect.void, options)
      for (const name of ["maxStreamsPerPeer", "maxBufferedBytesPerPeer"]) {
        for (const limit of [0, -1, 1.5, Number.NaN, "1MB", null]) {
          const error = yield* Effect.flip(handled({ [name]: limit }))
          assert.strictEqual(
            error.message,
            `protocol /app/1.0.0: ${name}: expected a whole number from 1, got ${limit}`
          )
        }
      }
      assert.match((yield* Effect.flip(handled({ authorize: true }))).message, /authorize: expected a function/)
      assert.strictEqual(
        (yield* Effect.flip(handled({ authorise: () => Effect.succeed(false) }))).message,
        "protocol /app/1.0.0: authorise: there is no such option; "
          + "expected maxStreamsPerPeer, maxBufferedBytesPerPeer, authorize"
      )
      yield* handled({ maxStreamsPerPeer: 1, maxBufferedBytesPerPeer: 1, authorize: () => Effect.succeed(true) })
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("of an address that nobody can dial is not announced", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const before = yield* alice.addresses
      for (const text of ["/ip4/192.0.2.1/tcp/0", "/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"]) {
        assert.match(
          (yield* Effect.flip(alice.announce(text))).message,
          /expected (the port|one) that others (can )?dial/
        )
      }
      assert.deepStrictEqual(yield* alice.addresses, before)
      assert.match((yield* Effect.flip(alice.provide(" "))).message, /^provide /)
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("that is nonsense fails every function typed, in one short line", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      for (const [name, call] of Object.entries({ ...ofPeers, ...ofKeys, ...ofOther })) {
        for (const text of nonsense) {
          // Four bytes in base58 are a key, and a slash begins a protocol id.
          if (text === "bogus" && Object.hasOwn(ofKeys, name)) continue
          if (text === "/ip4/1.2.3/tcp/1" && Object.hasOwn(ofOther, name)) continue
          const exit = yield* TestNetwork.run(Effect.exit(Effect.suspend(() => call(alice, text))))
          assert.isTrue(Exit.isFailure(exit), `${name} of ${String(text).slice(0, 20)}`)
          if (Exit.isSuccess(exit)) continue
          assert.isFalse(Cause.hasDies(exit.cause), `${name}: ${Cause.pretty(exit.cause)}`)
          const error = exit.cause.reasons.find(Cause.isFailReason)?.error as { _tag: string; message: string }
          assert.include(typed, error._tag, name)
          assert.notInclude(error.message, "\n", name)
          assert.isBelow(error.message.length, 400, name)
        }
      }
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("names the same peer in every form", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* bob.handle("/app/1.0.0", () => Effect.void)
      const [address] = yield* bob.addresses
      const cid = kubo(bob.localPeer)
      const info = yield* TestNetwork.run(alice.connect(`${address!.replace(bob.localPeer, cid)}/\n`))
      assert.strictEqual(info.id, bob.localPeer)
      for (const text of [cid, ` ${bob.localPeer}\n`]) {
        assert.strictEqual((yield* alice.peer(text))._tag, "Some")
        assert.isTrue((yield* alice.explain(text)).isConnected)
        yield* TestNetwork.run(alice.ping(text))
        const opened = yield* TestNetwork.run(Effect.scoped(alice.open(text, "/app/1.0.0")))
        assert.strictEqual(opened.connection.peer, bob.localPeer)
        assert.strictEqual((yield* TestNetwork.run(alice.findPeer(text))).id, bob.localPeer)
        assert.strictEqual((yield* TestNetwork.run(alice.connect({ id: text, addresses: [] }))).id, bob.localPeer)
      }
      yield* TestNetwork.run(alice.disconnect(cid))
      assert.strictEqual(yield* alice.peerCount, 0)
      yield* TestNetwork.run(Effect.scoped(Effect.gen(function*() {
        yield* alice.block(cid)
        assert.isTrue((yield* alice.explain(bob.localPeer)).isBlocked)
      })))
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))

  it.effect("names the same content as a key and as a CID", () =>
    Effect.gen(function*() {
      const alice = yield* TestNetwork.makeNode("alice")
      const bob = yield* TestNetwork.makeNode("bob")
      yield* TestNetwork.connected(alice, bob)
      const key = ContentKey.fromText("video")
      const cid = CID.createV1(0x55, CID.parse(key).multihash).toString()
      yield* TestNetwork.run(bob.startProviding(`${cid}\n`))
      yield* TestClock.adjust("1 second")
      for (const text of [key, cid, ` ${key}`]) {
        const found = yield* TestNetwork.run(Stream.runCollect(alice.findProviders(text)))
        assert.deepStrictEqual(found.map(({ id }) => id), [bob.localPeer])
      }
    }).pipe(Effect.scoped, Effect.provide(SimNetwork.layer())))
})
