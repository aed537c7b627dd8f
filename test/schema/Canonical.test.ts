import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { base16 } from "multiformats/bases/base16"
import { base32, base32upper } from "multiformats/bases/base32"
import { base36 } from "multiformats/bases/base36"
import { base58btc } from "multiformats/bases/base58"
import { base64url } from "multiformats/bases/base64"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"
import * as Canonical from "../../src/schema/Canonical.ts"
import { fromBytes, fromText } from "../../src/schema/Content.ts"
import { show } from "../../src/schema/OptionTable.ts"
import {
  FoundAddress,
  foundAddress,
  FoundPeer,
  type Multiaddr,
  MultiaddrFromText,
  PeerIdFromText,
  readTarget,
  type TargetText
} from "../../src/schema/Peer.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"

const alice = SimNetwork.peerId("alice")
const bob = SimNetwork.peerId("bob")

/** The CID of a peer's key, as Kubo prints it. */
const cidOf = (id: string) => CID.createV1(0x72, Digest.decode(base58btc.baseDecode(id)))
const spellings = (id: string) => [
  id,
  ` ${id}\n`,
  cidOf(id).toString(base32),
  cidOf(id).toString(base36),
  cidOf(id).toString(base58btc),
  `${cidOf(id).toString(base36)}\r\n`
]

const read = Result.getOrThrow
const problemOf = (result: Result.Result<unknown, string>) => read(Result.flip(result))

describe("Canonical.peerId", () => {
  it.prop("is base58, however the key is written", { name: Schema.String }, ({ name }) => {
    const id = SimNetwork.peerId(name)
    for (const text of spellings(id)) assert.strictEqual(read(Canonical.peerId(text)), id)
    assert.match(cidOf(id).toString(base32), /^bafz/)
    assert.match(cidOf(id).toString(base36), /^k51/)
  })

  it("of an RSA key is base58, too", () => {
    const rsa = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
    for (const text of [rsa, cidOf(rsa).toString(base32)]) assert.strictEqual(read(Canonical.peerId(text)), rsa)
  })

  it("says what is wrong in one line", () => {
    assert.strictEqual(
      problemOf(Canonical.peerId("bo\ngus")),
      "\"bo\\ngus\" is not a peer id: expected base58 text such as 12D3KooW..., or its CID such as k51..."
    )
    const content = CID.createV1(0x55, CID.parse(fromText("x")).multihash).toString()
    assert.strictEqual(problemOf(Canonical.peerId(content)), `"${content}" is not a peer id: it is the CID of content`)
    assert.strictEqual(problemOf(Canonical.peerId(undefined as never)), "expected a peer id, got undefined")
    assert.strictEqual(
      problemOf(Canonical.peerId("1".repeat(100_000))),
      `"${"1".repeat(77)}..." is not a peer id: it has 100000 characters, at most 1024 are read`
    )
  })
})

describe("Canonical.multiaddr", () => {
  const address = `/ip4/192.0.2.1/tcp/4001/p2p/${alice}`

  it("is the same for all ways to write one address", () => {
    for (const id of spellings(alice).map((text) => text.trim())) {
      for (const protocol of ["p2p", "ipfs"]) {
        for (const end of ["", "/", "//", "\n", "/\r\n"]) {
          const text = ` /ip4/192.0.2.1/tcp/4001/${protocol}/${id}${end}`
          assert.strictEqual(read(Canonical.multiaddr(text)), address, text)
        }
      }
    }
    assert.strictEqual(read(Canonical.multiaddr("/ip6/2001:DB8:0::1/tcp/1")), "/ip6/2001:db8::1/tcp/1")
    const circuit = `/dns4/Relay.Example/tcp/1/p2p/${cidOf(bob)}/p2p-circuit/p2p/${cidOf(alice)}/`
    assert.strictEqual(
      read(Canonical.multiaddr(circuit)),
      `/dns4/relay.example/tcp/1/p2p/${bob}/p2p-circuit/p2p/${alice}`
    )
  })

  it("keeps the family of a name", () => {
    for (const family of ["dns", "dns4", "dns6"]) {
      assert.strictEqual(read(Canonical.multiaddr(`/${family}/A.b/tcp/1/`)), `/${family}/a.b/tcp/1`)
    }
  })

  it("refuses what would mean another address than it says", () => {
    for (
      const text of [
        "",
        "/",
        "ip4/192.0.2.1/tcp/1",
        "/ip4/192.0.2.1 /tcp/1",
        "/dns4/a b/tcp/1",
        "/dns4/a\nb/tcp/1",
        "/dns4/a\0b/tcp/1",
        "/ip4/192.0.2.1/tcp/1x",
        "/ip4/192.0.2.1/tcp/70000",
        "/ip4/192.0.2.1/tcp/1/p2p/12D3",
        `/dns4/${"a".repeat(1024)}/tcp/1`
      ]
    ) {
      const problem = problemOf(Canonical.multiaddr(text))
      assert.notInclude(problem, "\n")
      assert.isBelow(problem.length, 250)
    }
  })

  it.prop("of its own result is that result", { text: Schema.String }, ({ text }) => {
    for (const candidate of [text, `/dns4/${text}/tcp/1`, `/ip4/192.0.2.1/tcp/1${text}`]) {
      const once = Canonical.multiaddr(candidate)
      if (Result.isSuccess(once)) assert.strictEqual(read(Canonical.multiaddr(once.success)), once.success)
    }
  })
})

describe("Canonical.contentKey", () => {
  it.prop("is the multihash of a CID of any version, codec and base", { bytes: Schema.Uint8Array }, ({ bytes }) => {
    const key = fromBytes(bytes)
    const { multihash } = CID.parse(key)
    for (const codec of [0x55, 0x70, 0x71]) {
      const cid = CID.createV1(codec, multihash)
      for (const base of [base16, base32, base32upper, base36, base58btc, base64url]) {
        assert.strictEqual(read(Canonical.contentKey(` ${cid.toString(base)}\n`)), key)
      }
    }
    assert.strictEqual(read(Canonical.contentKey(key)), key)
  })

  it.prop("of base58 text of 1 to 80 bytes is the text", { bytes: Schema.Uint8Array }, ({ bytes }) => {
    const text = base58btc.baseEncode(bytes)
    const result = Canonical.contentKey(text)
    if (bytes.length >= 1 && bytes.length <= 80) assert.strictEqual(read(result), text)
    else assert.strictEqual(problemOf(result), `a content key has 1 to 80 bytes, this one has ${bytes.length}`)
  })

  it("says what is wrong in one line", () => {
    assert.strictEqual(
      problemOf(Canonical.contentKey("not a key")),
      "\"not a key\" is not a content key: expected base58 text such as Qm..., or a CID such as bafy..."
    )
  })
})

describe("a target", () => {
  const address = "/ip4/192.0.2.1/tcp/4001"

  it("is read into its canonical form", () => {
    for (const id of spellings(alice)) {
      assert.strictEqual(read(readTarget(id)), alice)
      assert.strictEqual(read(readTarget(`/p2p/${id.trim()}/`)), alice)
      assert.deepStrictEqual<unknown>(
        read(readTarget({ id, addresses: [`${address}/`, `${address}/p2p/${id.trim()}`, `/p2p/${alice}`] })),
        { id: alice, addresses: [address, `${address}/p2p/${alice}`] }
      )
    }
    assert.strictEqual<unknown>(read(readTarget(`\n${address}/`)), address)
  })

  it("keeps apart what the program gives and what other nodes told, in every copy", () => {
    const teller = "/ip4/192.168.1.9/tcp/51234" as Multiaddr
    const found = foundAddress({ address: address as Multiaddr, tellers: [teller] }, true)
    const provider = { id: alice, addresses: [found] }
    const told = (tellers: ReadonlyArray<string>) => ({ id: alice, addresses: [{ address, tellers }] })
    const reads = (target: TargetText) => read(readTarget(target))
    assert.deepStrictEqual<unknown>(reads(provider), told([teller]))
    assert.deepStrictEqual<unknown>(reads({ ...provider }), told([teller]))
    assert.deepStrictEqual<unknown>(reads({ ...provider, addresses: [...provider.addresses] }), told([teller]))
    // A copy does not say who told it, and cannot say it of itself.
    const copies = [
      JSON.parse(JSON.stringify(provider)) as typeof provider,
      structuredClone(provider),
      Schema.decodeUnknownSync(FoundPeer)(JSON.parse(JSON.stringify(provider))),
      { id: alice, addresses: [new FoundAddress({ address: address as Multiaddr, isDialable: true })] },
      { id: alice, addresses: [{ ...found }] },
      { id: alice, addresses: [{ address, tellers: ["/ip4/127.0.0.1/tcp/1"] }] }
    ]
    for (const copy of copies) assert.deepStrictEqual<unknown>(reads(copy), told([]))
    // A text is the program's own.
    assert.deepStrictEqual<unknown>(reads({ id: alice, addresses: [found.address, found] }), {
      id: alice,
      addresses: [address, { address, tellers: [teller] }]
    })
    assert.strictEqual(`${found}`, address)
    assert.strictEqual(JSON.stringify(found), JSON.stringify({ address, isDialable: true }))
  })

  it("is refused in one line", () => {
    assert.strictEqual(
      problemOf(readTarget("bogus")),
      "\"bogus\" is not a peer id: expected base58 text such as 12D3KooW..., or its CID such as k51..., or a multiaddr such as /ip4/192.0.2.1/tcp/4001"
    )
    assert.match(problemOf(readTarget({ id: alice, addresses: [`${address}/p2p/${bob}`] })), /another peer than/)
    assert.match(problemOf(readTarget({ id: "bogus", addresses: [] })), /"bogus" is not a peer id/)
    assert.match(problemOf(readTarget({ id: alice, addresses: ["here"] })), /"here" is not a multiaddr/)
    assert.match(problemOf(readTarget(`${address}/p2p/${bob}/p2p-circuit`)), /no peer behind it/)
    for (const nothing of [undefined, null, 5, {}, []]) {
      assert.notInclude(problemOf(readTarget(nothing as never)), "\n")
    }
  })
})

describe("a value of any kind", () => {
  const circle: Record<string, unknown> = Object.create(null)
  circle["itself"] = circle

  it("is shown on one line, whatever printing it does", () => {
    const lines = [
      "a\nb",
      // A function is printed as its source, of two lines here.
      () => {
        return circle
      },
      Symbol("s"),
      5n,
      circle,
      { toJSON: () => undefined },
      {
        toJSON: () => {
          throw new Error("no")
        }
      }
    ]
    const shown = ["a function", "Symbol(s)", "5", "an object", "an object", "an object"]
    assert.deepStrictEqual(lines.map(Canonical.shortened), ["a b", ...shown])
    assert.deepStrictEqual(lines.map(show), ["\"a\\nb\"", ...shown])
  })
})

describe("codecs from text", () => {
  it("decode to the canonical form", () => {
    const id = Schema.decodeUnknownSync(PeerIdFromText)
    const address = Schema.decodeUnknownSync(MultiaddrFromText)
    assert.strictEqual(id(`${cidOf(alice)}\n`), alice)
    assert.strictEqual<string>(address("/ip4/192.0.2.1/tcp/1/"), "/ip4/192.0.2.1/tcp/1")
    assert.throws(() => id("bogus"), /"bogus" is not a peer id/)
    assert.throws(() => address("bogus"), /"bogus" is not a multiaddr/)
  })
})
