import { assert, describe, it } from "@effect/vitest"
import { peerIdFromString } from "@libp2p/peer-id"
import { multiaddr } from "@multiformats/multiaddr"
import { Exit, Schema } from "effect"
import { base58btc } from "multiformats/bases/base58"
import {
  Interest,
  interestRank,
  isMultiaddr,
  Multiaddr,
  PeerId,
  peerOf,
  ProtocolId,
  showTarget,
  withoutPeer,
  withPeer
} from "../../src/schema/Peer.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"

const isPeerId = Schema.is(PeerId)
const isAddress = Schema.is(Multiaddr)
const isProtocolId = Schema.is(ProtocolId)

const alice = SimNetwork.peerId("alice")
const rsa = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N" as PeerId
const secp256k1 = "16Uiu2HAmU36xEMe1h6FUj3V9Vh3YFeuxNroyDuAQEzj6G754cuZi"

/** The text with one character replaced. */
const mutated = (text: string, at: number, char: number) => {
  const index = Math.abs(at) % text.length
  return text.slice(0, index) + String.fromCharCode(32 + Math.abs(char) % 95) + text.slice(index + 1)
}

const bare = [
  "/ip4/192.0.2.1/tcp/4001",
  "/ip6/2001:db8::1/tcp/4001",
  "/dns4/example.org/tcp/443/wss",
  "/memory/alice"
] as Array<Multiaddr>

describe("PeerId", () => {
  it.prop("takes the id of every Ed25519 key", { name: Schema.String }, ({ name }) => {
    const id = SimNetwork.peerId(`key of ${name}`)
    assert.isTrue(isPeerId(id))
    assert.strictEqual(peerIdFromString(id).type, "Ed25519")
  })

  it("takes an RSA id and refuses what is none", () => {
    assert.isTrue(isPeerId(rsa))
    for (
      const text of [
        "",
        " ",
        "alice",
        "0",
        `${alice} `,
        alice.slice(1),
        alice.slice(0, -1),
        `${alice}1`,
        `/p2p/${alice}`,
        secp256k1.slice(3)
      ]
    ) {
      assert.isFalse(isPeerId(text), text)
    }
  })

  it("says what was given and what is expected", () => {
    const exit = Schema.decodeExit(PeerId)("alice")
    assert.isTrue(Exit.isFailure(exit))
    assert.include(
      String(Exit.isFailure(exit) ? exit.cause : ""),
      "\"alice\" is not a peer id: expected base58 text such as 12D3KooW..."
    )
  })

  it("takes no multihash but those of keys, which are all that libp2p takes", () => {
    assert.isTrue(isPeerId(secp256k1))
    assert.strictEqual(peerIdFromString(secp256k1).type, "secp256k1")
    const others = [
      Uint8Array.of(0, 0),
      Uint8Array.of(0, 4, 1, 2, 3, 4),
      Uint8Array.of(0x12, 2, 1, 2),
      Uint8Array.of(0x13, 32, ...new Uint8Array(32)),
      Uint8Array.of(0, 36, 8, 1, 0x12, 31, ...new Uint8Array(32)),
      Uint8Array.of(0, 35, 8, 1, 0x12, 32, ...new Uint8Array(31))
    ]
    for (const bytes of others) {
      const text = base58btc.baseEncode(bytes)
      assert.isFalse(isPeerId(text), text)
      assert.throws(() => peerIdFromString(text), undefined, undefined, text)
    }
  })

  it.prop("does not throw for any text, and takes no Ed25519 id that libp2p does not take", {
    text: Schema.String,
    at: Schema.Int,
    char: Schema.Int
  }, ({ at, char, text }) => {
    for (const candidate of [text, mutated(alice, at, char), mutated(rsa, at, char)]) {
      if (isPeerId(candidate)) assert.strictEqual(peerIdFromString(candidate).toString(), candidate)
    }
  })
})

describe("Multiaddr", () => {
  it("takes addresses of the kinds in use, relayed ones too, and refuses what is none", () => {
    for (const address of bare) {
      assert.isTrue(isAddress(address), address)
      assert.isTrue(isAddress(withPeer(address, alice)), address)
      assert.isTrue(isAddress(`${withPeer(address, alice)}/p2p-circuit/p2p/${rsa}`), address)
    }
    for (
      const text of [
        "",
        "/",
        "ip4/192.0.2.1/tcp/1",
        "/ip4",
        "/ip4/192.0.2.256/tcp/1",
        "/ip4/192.0.2.1/tcp/65536",
        "/nothing/1",
        alice
      ]
    ) {
      assert.isFalse(isAddress(text), text)
    }
  })

  it.prop("does not throw for any text, and takes only what parses", {
    text: Schema.String,
    at: Schema.Int,
    char: Schema.Int
  }, (input) => {
    const { at, char, text } = input
    for (
      const candidate of [
        text,
        `/${text}`,
        `/ip4/${text}/tcp/1`,
        ...bare.map((address) => mutated(withPeer(address, alice), at, char))
      ]
    ) {
      if (isAddress(candidate)) multiaddr(candidate)
    }
  })

  it("is told from a peer id by its slash", () => {
    for (const address of bare) assert.isTrue(isMultiaddr(address))
    assert.isFalse(isMultiaddr(alice))
    assert.isFalse(isMultiaddr({ id: alice, addresses: bare }))
  })

  it("gains and loses its peer id, and leads to the last one", () => {
    for (const without of bare) {
      const address = withPeer(without, alice)
      assert.strictEqual(address, `${without}/p2p/${alice}`)
      assert.strictEqual(withPeer(address, alice), address)
      assert.strictEqual(withoutPeer(address), without)
      assert.strictEqual(withoutPeer(without), without)
      assert.strictEqual(peerOf(address), alice)
      assert.isUndefined(peerOf(without))
      const relayed = `${address}/p2p-circuit/p2p/${rsa}` as Multiaddr
      assert.strictEqual(peerOf(relayed), rsa)
      assert.strictEqual(withoutPeer(relayed), `${address}/p2p-circuit`)
      assert.isUndefined(peerOf(withoutPeer(relayed)))
    }
    assert.strictEqual(peerOf(alice), alice)
    assert.strictEqual(peerOf({ id: alice, addresses: [] }), alice)
  })

  it("is what a target shows, or the id", () => {
    assert.strictEqual(showTarget(bare[0]!), bare[0])
    assert.strictEqual(showTarget(alice), alice)
    assert.strictEqual(showTarget({ id: alice, addresses: bare }), alice)
  })
})

describe("ProtocolId", () => {
  it("takes a slash and 1 to 255 characters without spaces", () => {
    for (const id of ["/a", "/codio/1.0.0", `/${"a".repeat(255)}`]) assert.isTrue(isProtocolId(id), id)
    for (const id of ["", "/", "codio", "/a b", "/a\n", ` /a`, `/${"a".repeat(256)}`]) {
      assert.isFalse(isProtocolId(id), id)
    }
  })
})

describe("Interest", () => {
  it("is ordered from transient to kept", () => {
    assert.deepStrictEqual(Interest.literals.map(interestRank), [0, 1, 2, 3])
    assert.isBelow(interestRank("transient"), interestRank("discovered"))
    assert.isBelow(interestRank("discovered"), interestRank("wanted"))
    assert.isBelow(interestRank("wanted"), interestRank("kept"))
  })
})
