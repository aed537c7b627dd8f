import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import {
  decodeMessage,
  encodeFrame,
  encodePeer,
  FrameReader,
  type Message,
  MessageType
} from "../../../../src/layers/dht/wire/Message.ts"
import { type Node, Nodes } from "../../../../src/layers/dht/wire/Nodes.ts"
import { compareDistance, positionOf } from "../../../../src/layers/dht/wire/Position.ts"
import * as Doubts from "../../../../src/layers/dht/lookup/Doubts.ts"
import * as Queries from "../../../../src/layers/dht/lookup/Queries.ts"
import * as ContentKey from "../../../../src/schema/Content.ts"
import { DhtError, NoPeers } from "../../../../src/schema/NetworkError.ts"
import type { Multiaddr } from "../../../../src/schema/Peer.ts"
import { SimNetwork } from "../../../../src/testing/network/SimNetwork.ts"

const key = ContentKey.fromText("some content")

const address = Uint8Array.of(1)

const opened = (frame: Uint8Array): Message => {
  const messages: Array<Message> = []
  new FrameReader().push(frame, (body) => messages.push(decodeMessage(body)))
  return messages[0]!
}

/** Nodes that all know each other and answer as the spec says; this node knows the first of them. */
const world = (
  names: ReadonlyArray<string>,
  answer: (peer: string, question: Message) => Effect.Effect<Uint8Array, string>,
  beyond: ReadonlyArray<string> = [],
  connected: ReadonlyArray<string> = []
) => {
  const nodes = new Nodes(1000)
  const nameOf = new Map<string, string>()
  const nodeOf = (name: string): Node => {
    const node = nodes.of(ContentKey.toBytes(SimNetwork.peerId(name) as string as ContentKey.ContentKey))
    nameOf.set(node.key, name)
    return node
  }
  const all = names.map(nodeOf)
  const asked: Array<string> = []
  const heard: Array<string> = []
  const seedCounts: Array<number> = []
  const queries = Queries.make({
    self: nodeOf("self"),
    count: 3,
    doubts: Doubts.make(() => 0),
    seeds: (_, count) => {
      seedCounts.push(count)
      return connected.length > 0 ? all : all.slice(0, 1)
    },
    isAtHand: ({ key }) => connected.includes(nameOf.get(key)!),
    ready: (operation, subject) =>
      names.length === 0 ? Effect.fail(new DhtError({ operation, subject, reason: new NoPeers({}) })) : Effect.void,
    request: (peer, question) => {
      asked.push(nameOf.get(peer.key)!)
      return Effect.map(answer(nameOf.get(peer.key)!, opened(question)), (frame) => ({
        message: opened(frame),
        tookBefore: true
      }))
    },
    tellersAt: (peer) => [`/ip4/10.0.0.1/tcp/${nameOf.get(peer.key)!.length}` as Multiaddr],
    hear: (peers) =>
      peers.map(({ addresses, id }) => {
        const node = nodes.of(id)
        heard.push(nameOf.get(node.key)!)
        nodes.hear(node, addresses)
        return node
      }),
    beyond: { observe: () => {}, peersBeyond: () => Effect.succeed({ peers: beyond.map(nodeOf), isCrowded: false }) },
    read: (addresses) => addresses.map((bytes) => `/ip4/192.0.2.${bytes[0]}/tcp/1` as Multiaddr)
  })
  const named = (some: ReadonlyArray<string>) => some.map((name) => encodePeer(nodeOf(name).bytes, [address]))
  return { queries, asked, heard, seedCounts, nodeOf, named }
}

const idOf = (name: string) => SimNetwork.peerId(name)

describe("Queries", () => {
  const names = ["alice", "bob", "carol", "dave", "erin"]

  it.effect("gives the closest peers that answer, nearest first, each with its addresses", () =>
    Effect.gen(function*() {
      const { named, nodeOf, queries } = world(
        names,
        (peer, { type }) =>
          peer === "bob" ? Effect.fail("gone") : Effect.sync(() => encodeFrame({ type, closer: named(names) }))
      )
      const target = positionOf(ContentKey.toBytes(key))
      const expected = names.filter((name) => name !== "bob")
        .sort((a, b) => compareDistance(nodeOf(a).position, nodeOf(b).position, target)).slice(0, 3)
      const closest = yield* queries.closestPeers(key)
      assert.deepStrictEqual(closest.map(({ id }) => id), expected.map(idOf))
    }))

  it.effect("asks for as many seeds as it is to find peers", () =>
    Effect.gen(function*() {
      const { queries, seedCounts } = world(names, (_, { type }) => Effect.sync(() => encodeFrame({ type })))
      yield* queries.closestPeers(key)
      assert.deepStrictEqual(seedCounts, [3])
    }))

  it.effect("asks connected peers before peers that have to be dialled", () =>
    Effect.gen(function*() {
      const answer = (_: string, { type }: Message) => Effect.sync(() => encodeFrame({ type }))
      const { nodeOf } = world(names, answer)
      const target = positionOf(ContentKey.toBytes(key))
      const nearest = names.toSorted((a, b) => compareDistance(nodeOf(a).position, nodeOf(b).position, target))
      // The first peer asked is not among the three closest.
      for (const connected of [[nearest[3]!], [nearest[2]!], [nearest[1]!, nearest[2]!]]) {
        const { asked, queries } = world(names, answer, [], connected)
        yield* queries.providers(key, () => {})
        const first = connected.filter((name) => name !== nearest[3])
        assert.deepStrictEqual(asked, [...first, ...nearest.slice(0, 3).filter((name) => !first.includes(name))])
      }
    }))

  it.effect("hands over each provider once, without this node itself", () =>
    Effect.gen(function*() {
      const { named, queries } = world(names, (peer, { type }) =>
        Effect.sync(() =>
          encodeFrame({ type, closer: named(names), providers: named(["self", "alice", peer]) })
        ))
      const found: Array<string> = []
      yield* queries.providers(key, (some) => found.push(...some.map(({ id }) => id)))
      assert.strictEqual(new Set(found).size, found.length)
      assert.include(found, idOf("alice"))
      assert.notInclude(found, idOf("self"))
    }))

  it.effect("hands over an answer's providers before it reads its closer peers", () =>
    Effect.gen(function*() {
      const { heard, named, queries } = world(
        names,
        (_, { type }) => Effect.sync(() => encodeFrame({ type, closer: named(["carol"]), providers: named(["bob"]) }))
      )
      const atHand: Array<ReadonlyArray<string>> = []
      yield* queries.providers(key, (some) => some.length > 0 && atHand.push(heard.slice()))
      assert.deepStrictEqual(atHand, [["bob"]])
      assert.include(heard, "carol")
    }))

  it.effect("asks beyond the closest peers when these are not to be trusted", () =>
    Effect.gen(function*() {
      const { named, queries } = world(["alice"], (peer, { type }) =>
        Effect.sync(() => encodeFrame({ type, providers: named(peer === "zoe" ? ["bob"] : []) })), ["zoe"])
      const found: Array<string> = []
      yield* queries.providers(key, (some) =>
        found.push(...some.map(({ id }) =>
          id
        )))
      assert.deepStrictEqual(found, [idOf("bob")])
    }))

  it.effect("ends with the first answer that has the peer's addresses, and gives those", () =>
    Effect.gen(function*() {
      const { asked, named, nodeOf, queries } = world(names, (_, { type }) =>
        Effect.sync(() =>
          encodeFrame({
            type,
            closer: [...named(["bob"]), encodePeer(nodeOf("zoe").bytes, [Uint8Array.of(7)])]
          })
        ))
      const found: Array<unknown> = []
      yield* queries.peer(nodeOf("zoe"), (some) => found.push(...some))
      // Told by the peer that was asked.
      const tellers = ["/ip4/10.0.0.1/tcp/5"]
      assert.deepStrictEqual(found, [{ id: idOf("zoe"), addresses: [{ address: "/ip4/192.0.2.7/tcp/1", tellers }] }])
      assert.deepStrictEqual(asked, ["alice"])
    }))

  it.effect("goes on when an answer names the peer without an address", () =>
    Effect.gen(function*() {
      const { nodeOf, queries } = world(["alice"], (peer, { type }) =>
        peer === "zoe"
          ? Effect.fail("nowhere")
          : Effect.sync(() => encodeFrame({ type, closer: [encodePeer(nodeOf("zoe").bytes, [])] })))
      const found: Array<unknown> = []
      yield* queries.peer(nodeOf("zoe"), (some) => found.push(...some))
      assert.deepStrictEqual(found, [])
    }))

  it.effect("fails with NoPeers when there is no peer to ask, or none answers", () =>
    Effect.gen(function*() {
      for (const { queries } of [world([], () => Effect.fail("")), world(names, () => Effect.fail("gone"))]) {
        const error = yield* Effect.flip(queries.closestPeers(key))
        assert.strictEqual(error.reason._tag, "NoPeers")
      }
    }))

  it.effect("puts a value on the closest peers, and reports the peers asked and their answers", () =>
    Effect.gen(function*() {
      const bytes = Uint8Array.of(1, 2, 3)
      const { named, queries } = world(names, (peer, { key, record, type }) =>
        type === MessageType.FIND_NODE
          ? Effect.sync(() => encodeFrame({ type, closer: named(names) }))
          : peer === "alice"
          ? Effect.fail("refused")
          : Effect.sync(() => encodeFrame({ type, key, record })))
      const asked: Array<string> = []
      const answered: Array<string> = []
      yield* queries.putValue(Uint8Array.of(9), bytes, {
        asked: ({ id }) => asked.push(id),
        answered: ({ id }, { record }) => record?.length === 3 && answered.push(id)
      })
      assert.strictEqual(asked.length, 3)
      assert.sameMembers(answered, asked.filter((id) => id !== idOf("alice")))
    }))

  it.effect("gives one element for each peer that answers, with or without a value, and then the closest peers", () =>
    Effect.gen(function*() {
      const { named, nodeOf, queries } = world(
        names,
        (peer, { type }) =>
          Effect.sync(() =>
            encodeFrame({ type, closer: named(names), record: peer === "alice" ? Uint8Array.of(5) : undefined })
          )
      )
      const all = yield* Stream.runCollect(queries.values(Uint8Array.of(9)))
      const answers = all.flatMap((found) => "closest" in found ? [] : [[found.from.id, found.record?.[0]] as const])
      assert.isAtLeast(answers.length, 3)
      assert.deepStrictEqual(answers.filter(([, record]) => record !== undefined), [[idOf("alice"), 5]])
      const last = all.at(-1)!
      const target = positionOf(Uint8Array.of(9))
      const expected = names.toSorted((a, b) => compareDistance(nodeOf(a).position, nodeOf(b).position, target))
      assert.deepStrictEqual(
        "closest" in last ? last.closest.map(({ id }) => id) : [],
        expected.slice(0, 3).map(idOf)
      )
    }))
})
