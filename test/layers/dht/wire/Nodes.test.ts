import { assert, describe, it } from "@effect/vitest"
import {
  decodeMessage,
  decodePeer,
  encodeFrame,
  FrameReader,
  MessageType
} from "../../../../src/layers/dht/wire/Message.ts"
import { isPeerId, type NamingRule, type Node, Nodes, keyOf } from "../../../../src/layers/dht/wire/Nodes.ts"
import { toBytes } from "../../../../src/schema/Content.ts"
import type { Multiaddr } from "../../../../src/schema/Peer.ts"
import type { ContentKey } from "../../../../src/schema/Content.ts"
import { SimNetwork } from "../../../../src/testing/network/SimNetwork.ts"

const idOf = (name: string): Uint8Array => toBytes(SimNetwork.peerId(name) as string as ContentKey)

const [teller, other] = ["/ip4/10.0.0.9" as Multiaddr, "/ip4/172.17.0.2" as Multiaddr]
const all: NamingRule = () => true

const address = (port: number): Uint8Array => Uint8Array.of(4, 127, 0, 0, 1, 6, port >> 8, port & 255)

describe("Nodes", () => {
  it("reads a peer once, and gives its id as text", () => {
    const nodes = new Nodes(10)
    const alice = nodes.of(idOf("alice"))
    assert.strictEqual(nodes.of(idOf("alice")), alice)
    assert.strictEqual(alice.id, SimNetwork.peerId("alice"))
    assert.strictEqual(nodes.known(idOf("bob")), undefined)
    assert.strictEqual(nodes.size, 1)
  })

  it("keeps no bytes of the message that named a peer", () => {
    const nodes = new Nodes(10)
    const message = idOf("alice")
    const told = address(1)
    const alice = nodes.of(message)
    nodes.hear(alice, [told])
    message.fill(0)
    told.fill(0)
    assert.strictEqual(alice.id, SimNetwork.peerId("alice"))
    assert.deepStrictEqual(alice.addresses, [address(1)])
  })

  it("adds what others tell in front, within bounds, until the peer has told itself", () => {
    const nodes = new Nodes(10)
    const alice = nodes.of(idOf("alice"))
    assert.isTrue(nodes.hear(alice, [address(1)]))
    assert.isFalse(nodes.hear(alice, [address(1)]))
    assert.isTrue(nodes.hear(alice, [address(2), address(1)]))
    assert.deepStrictEqual(alice.addresses, [address(2), address(1)])
    nodes.hear(alice, Array.from({ length: 100 }, (_, port) => address(1000 + port)))
    assert.strictEqual(alice.addresses.length, 16)
    assert.isFalse(nodes.hear(alice, [new Uint8Array(257)]))
    nodes.identify(alice, [address(7)])
    assert.isFalse(nodes.hear(alice, [address(8)]))
    assert.deepStrictEqual(alice.addresses, [address(7)])
    nodes.identify(alice, [])
    assert.deepStrictEqual(alice.addresses, [address(7)])
    assert.isTrue(nodes.hear(alice, [address(8)]))
    assert.deepStrictEqual(alice.addresses, [address(8), address(7)])
  })

  it("encodes a peer as it is now", () => {
    const nodes = new Nodes(10)
    const alice = nodes.of(idOf("alice"))
    const sent = () => {
      const body = alice.encodedBy(all)
      if (body === undefined) return []
      let named: ReadonlyArray<Uint8Array> = []
      new FrameReader().push(encodeFrame({ type: MessageType.FIND_NODE, closer: [body] }), (frame) => {
        const [peer] = decodeMessage(frame).closer
        assert.strictEqual(keyOf(peer!.id), alice.key)
        named = peer!.addresses
      })
      return named.map((bytes) => Uint8Array.from(bytes))
    }
    assert.deepStrictEqual(sent(), [])
    nodes.hear(alice, [address(1)])
    assert.deepStrictEqual(sent(), [address(1)])
    nodes.identify(alice, [address(2)])
    assert.deepStrictEqual(sent(), [address(2)])
  })

  it("names those of a peer's addresses that the rule lets be named, and asks it again only when something changes", () => {
    const nodes = new Nodes(10)
    const alice = nodes.of(idOf("alice"))
    let asked = 0
    const near: NamingRule = (bytes, tellers) => {
      asked++
      return bytes[7] === 1 || tellers.includes(teller)
    }
    const named = (rule = near) => {
      const body = alice.encodedBy(rule)
      return body === undefined ? [] : decodePeer(body)!.addresses.map((bytes) => Uint8Array.from(bytes))
    }
    nodes.hear(alice, [address(2)], other)
    assert.deepStrictEqual([named(), named()], [[], []])
    assert.strictEqual(asked, 1)
    nodes.hear(alice, [address(1)])
    assert.deepStrictEqual(named(), [address(1)])
    nodes.hear(alice, [address(2)], teller)
    assert.deepStrictEqual(named(), [address(1), address(2)])
    assert.strictEqual(asked, 5)
    for (const again of [teller, other]) nodes.hear(alice, [address(2)], again)
    assert.strictEqual(alice.encodedBy(near), alice.encodedBy(near))
    assert.strictEqual(asked, 5)
    assert.deepStrictEqual(named(() => false), [])
    assert.deepStrictEqual(named(), [address(1), address(2)])
    nodes.identify(alice, [address(3), address(1)])
    assert.deepStrictEqual(named(), [address(1)])
    nodes.identify(alice, [address(3), address(1)], teller)
    assert.deepStrictEqual(named(), [address(3), address(1)])
  })

  it("keeps the last four tellers of an address", () => {
    const nodes = new Nodes(10)
    const alice = nodes.of(idOf("alice"))
    const tellers = [1, 2, 3, 4, 5].map((host) => `/ip4/10.0.0.${host}` as Multiaddr)
    for (const teller of tellers) nodes.hear(alice, [address(1)], teller)
    assert.deepStrictEqual(alice.tellersOf(address(1)), tellers.slice(1))
    nodes.identify(alice, [address(2)])
    assert.deepStrictEqual(alice.tellersOf(address(1)), [])
  })

  it("forgets the oldest of too many, never a pinned one", () => {
    const pinned = new Set<Node>()
    const nodes = new Nodes(32, (node) => pinned.has(node))
    const all = Array.from({ length: 32 }, (_, i) => nodes.of(idOf(`${i}`)))
    pinned.add(all[0]!)
    nodes.of(idOf("one more"))
    assert.strictEqual(nodes.known(idOf("0")), all[0])
    assert.strictEqual(nodes.known(idOf("1")), undefined)
    assert.strictEqual(nodes.known(idOf("2")), undefined)
    assert.strictEqual(nodes.known(idOf("3")), all[3])
    for (let i = 0; i < 1000; i++) nodes.of(idOf(`later ${i}`))
    assert.isAtMost(nodes.size, 32)
  })
})

describe("isPeerId", () => {
  it("tells ids of peers from other bytes", () => {
    const key = Array.from({ length: 33 }, () => 7)
    const ids = [[0x12, 32, ...key.slice(1)], [0, 36, 8, 1, 0x12, 32, ...key.slice(1)], [0, 37, 8, 2, 0x12, 33, ...key]]
    assert.isTrue(isPeerId(idOf("alice")))
    for (const id of ids) {
      assert.isTrue(isPeerId(Uint8Array.from(id)))
      assert.isFalse(isPeerId(Uint8Array.from(id.slice(1))))
      assert.isFalse(isPeerId(Uint8Array.from(id.slice(0, -1))))
      assert.isFalse(isPeerId(Uint8Array.from([...id, 0])))
    }
    assert.isFalse(isPeerId(Uint8Array.of()))
    assert.isFalse(isPeerId(Uint8Array.of(0, 0)))
  })
})
