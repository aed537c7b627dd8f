/**
 * What a server does with the values that others send it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Libp2pRecord } from "@libp2p/record"
import { Bytes, Effect, Option } from "effect"
import * as PublishedValue from "../../../../src/layers/dht/libp2p/PublishedValue.ts"
import * as SeededIdentity from "../../../../src/layers/machine/SeededIdentity.ts"
import { fromText } from "../../../../src/schema/Content.ts"
import { keyBytes } from "../../../../src/schema/ValueNamespace.ts"
import { introduce, makeNode, type Node } from "../../../support/DhtNode.ts"
import { makePlain, meet, type Plain, send } from "../../../support/PlainKad.ts"
import { eventually } from "../../../contract/eventually.ts"

const publisher = SeededIdentity.make(new Uint8Array(32).fill(1))
const path = PublishedValue.path(publisher.peerId, "profile")
const signed = (sequence: number) =>
  PublishedValue.namespace.seal(path, { value: Uint8Array.of(sequence), sequence }, {
    signer: publisher,
    previous: undefined
  })
const key = Effect.runSync(keyBytes("codio", path))
const other = Effect.runSync(keyBytes("codio", PublishedValue.path(publisher.peerId, "other")))

/** Whether the node stores the record, sent by somebody who checks nothing. */
const stores = (plain: Plain, node: Node, under: Uint8Array, value: Uint8Array, named = under) =>
  Effect.map(
    send(plain, node, "sendRequest", {
      type: "PUT_VALUE",
      key: under,
      record: new Libp2pRecord(named, value, new Date()).serialize()
    }),
    (events) => events.at(-1)?.name === "PEER_RESPONSE"
  )

const servedBy = (plain: Plain, node: Node) =>
  Effect.map(
    send(plain, node, "sendRequest", { type: "GET_VALUE", key }),
    (events) => events.at(-1)?.record?.value
  )

describe("values over sockets", () => {
  it.live("stores a newer value over an older one, and never the other way round", () =>
    Effect.gen(function*() {
      const node = yield* makeNode()
      const plain = yield* makePlain()
      yield* meet(plain, node)
      const [one, two, three] = yield* Effect.all([signed(1), signed(2), signed(3)])
      assert.isTrue(yield* stores(plain, node, key, two))
      assert.isFalse(yield* stores(plain, node, key, one))
      assert.deepStrictEqual(yield* servedBy(plain, node), two)
      assert.isTrue(yield* stores(plain, node, key, two))
      assert.isTrue(yield* stores(plain, node, key, three))
      // Many at once: none is judged by what the one before it was about to replace.
      const values = yield* Effect.forEach([9, 4, 8, 5, 7, 6], signed)
      yield* Effect.forEach(values, (value) => stores(plain, node, key, value), { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* servedBy(plain, node), values[0])
    }))

  it.live("gives the value that is found to nodes that have an older one, or none", () =>
    Effect.gen(function*() {
      const asker = yield* makeNode()
      const others = yield* Effect.replicateEffect(makeNode(), 3)
      const [late, good, empty] = others as [Node, Node, Node]
      const plain = yield* makePlain([], { clientMode: true })
      for (const node of others) {
        yield* meet(plain, node)
        yield* introduce(asker, node)
      }
      const [older, newer] = yield* Effect.all([signed(1), signed(2)])
      assert.isTrue(yield* stores(plain, late, key, older))
      assert.isTrue(yield* stores(plain, good, key, newer))
      yield* eventually(
        "all answer",
        Effect.map(
          Effect.option(asker.dht.closestPeers(fromText("some content"))),
          (closest) => others.every(({ id }) => Option.exists(closest, (all) => all.some((peer) => peer.id === id)))
        )
      )
      const found = yield* asker.dht.getValue(PublishedValue.namespace, path)
      assert.strictEqual(found.sequence, 2)
      for (const node of [late, empty]) {
        yield* eventually(
          "the newer value is served",
          Effect.map(servedBy(plain, node), (value) => value !== undefined && Bytes.Equivalence(value, newer))
        )
      }
    }), 60_000)

  it.live("stores nothing that is not signed, not by its publisher, or under another key", () =>
    Effect.gen(function*() {
      const node = yield* makeNode()
      const plain = yield* makePlain()
      yield* meet(plain, node)
      const value = yield* signed(1)
      const broken = value.slice()
      broken[broken.length - 1]! ^= 1
      assert.isFalse(yield* stores(plain, node, key, Uint8Array.of(1, 2, 3)))
      assert.isFalse(yield* stores(plain, node, key, broken))
      assert.isFalse(yield* stores(plain, node, other, value))
      assert.isFalse(yield* stores(plain, node, other, value, key))
      assert.isFalse(yield* stores(plain, node, new TextEncoder().encode("/unknown/path"), value))
      assert.isFalse(yield* stores(plain, node, new TextEncoder().encode("no key of a value"), value))
      assert.isUndefined(yield* servedBy(plain, node))
      assert.isTrue(yield* stores(plain, node, key, value))
    }))
})
