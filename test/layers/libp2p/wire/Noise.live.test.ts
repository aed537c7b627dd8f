import { pureJsCrypto } from "@chainsafe/libp2p-noise"
import { generateKeyPair } from "@libp2p/crypto/keys"
import { assert, describe, it } from "@effect/vitest"
import { streamPair } from "@libp2p/utils"
import { randomBytes } from "node:crypto"
import {
  exchangeOfKeptKeys,
  hkdf,
  type Sealing,
  withKeptKey,
  withKeptKeys
} from "../../../../src/layers/libp2p/wire/Noise.ts"

// noise and libp2p name two versions of the same list in their types.
const stock = {
  encrypt: pureJsCrypto.chaCha20Poly1305Encrypt,
  decrypt: pureJsCrypto.chaCha20Poly1305Decrypt
} as unknown as Sealing
const kept = withKeptKeys(stock)
const sizes = [0, 1, 1183, 1184, 1199, 1200, 1201, 16_383, 16_384, 65_519]

/** The bytes as libp2p gives them: in a list of uneven parts. */
const listOf = async (bytes: Uint8Array) => {
  const [a, b] = await streamPair()
  const list = await new Promise<Exclude<Parameters<Sealing["encrypt"]>[0], Uint8Array>>((resolve, reject) => {
    b.addEventListener(
      "message",
      ({ data }) => data instanceof Uint8Array ? reject(new Error("no list")) : resolve(data.sublist(0, 0))
    )
    a.send(new Uint8Array(1))
  })
  for (let i = 0; i < bytes.byteLength; i += 5000) list.append(bytes.subarray(i, i + 5000))
  return list
}

describe("noise with kept keys", () => {
  it("seals and opens as noise does, whatever the size, in one array or in parts", async () => {
    for (const size of sizes) {
      for (const ad of [new Uint8Array(), randomBytes(32)]) {
        const [plain, nonce, key] = [randomBytes(size), randomBytes(12), randomBytes(32)]
        const expected = stock.encrypt(plain, nonce, ad, key).subarray()
        for (const form of [plain, await listOf(plain)]) {
          assert.deepStrictEqual(Buffer.from(kept.encrypt(form, nonce, ad, key).subarray()), Buffer.from(expected))
        }
        for (const form of [Buffer.from(expected), await listOf(expected)]) {
          assert.deepStrictEqual(Buffer.from(kept.decrypt(form, nonce, ad, key).subarray()), plain)
        }
      }
    }
  })

  it("opens nothing of a message that was changed", async () => {
    const [plain, nonce, key] = [randomBytes(40_000), randomBytes(12), randomBytes(32)]
    const sealed = Buffer.from(kept.encrypt(await listOf(plain), nonce, new Uint8Array(), key).subarray())
    for (const at of [0, 20_000, 39_999, 40_000, 40_015]) {
      const changed = Buffer.from(sealed)
      changed[at]! ^= 1
      assert.throws(() => kept.decrypt(changed, nonce, new Uint8Array(), key))
    }
    assert.throws(() => kept.decrypt(sealed, nonce, new Uint8Array(), randomBytes(32)))
    assert.throws(() => kept.decrypt(sealed.subarray(0, 39_000), nonce, new Uint8Array(), key))
  })

  it("does not mix the keys of several connections", () => {
    const keys = [randomBytes(32), randomBytes(32)]
    const [plain, nonce] = [randomBytes(20_000), randomBytes(12)]
    const sealed = keys.map((key) => Buffer.from(stock.encrypt(plain, nonce, new Uint8Array(), key).subarray()))
    for (const round of [0, 1, 0, 1]) {
      assert.deepStrictEqual(
        Buffer.from(kept.decrypt(sealed[round]!, nonce, new Uint8Array(), keys[round]!).subarray()),
        plain
      )
    }
  })
})

describe("the exchange of kept keys", () => {
  it("agrees with noise's own on the secret, with its pairs too, whether a key comes in one array or in parts", async () => {
    const exchange = exchangeOfKeptKeys()
    const theirs = pureJsCrypto.generateX25519KeyPair()
    for (const ours of [exchange.generateKeypair(), pureJsCrypto.generateX25519KeyPair()]) {
      const { publicKey } = ours
      const expected = Buffer.from(pureJsCrypto.generateX25519SharedKey(theirs.privateKey, publicKey))
      // Twice, since the second time the keys are known.
      for (const key of [theirs.publicKey, await listOf(theirs.publicKey as Uint8Array), theirs.publicKey]) {
        assert.deepStrictEqual(Buffer.from(exchange.dh(ours, key as Uint8Array)), expected)
      }
    }
  })

  it("makes a new pair each time", () => {
    const exchange = exchangeOfKeptKeys()
    const [a, b] = [exchange.generateKeypair(), exchange.generateKeypair()]
    assert.strictEqual(a.publicKey.byteLength, 32)
    assert.notDeepEqual(a.publicKey, b.publicKey)
    assert.deepStrictEqual(exchange.dh(a, b.publicKey), exchange.dh(b, a.publicKey))
  })

  it("refuses a key that leads to no secret", () => {
    const exchange = exchangeOfKeptKeys()
    assert.throws(() => exchange.dh(exchange.generateKeypair(), new Uint8Array(32)))
  })
})

describe("the derivation of keys", () => {
  it("derives what noise's own does, also from nothing, and writes over nothing", () => {
    for (const input of [randomBytes(32), randomBytes(32), new Uint8Array()]) {
      const chainingKey = randomBytes(32)
      const before = Buffer.from(chainingKey)
      const expected = pureJsCrypto.getHKDF(chainingKey, input)
      const derived = hkdf(chainingKey, input)
      assert.deepStrictEqual(derived.map((key) => Buffer.from(key)), expected.map((key) => Buffer.from(key.subarray())))
      assert.deepStrictEqual(chainingKey, before)
    }
  })
})

describe("an identity with its key kept", () => {
  it("signs as before, and no other kind of key is touched", async () => {
    const key = await generateKeyPair("Ed25519")
    const message = randomBytes(100)
    const before = await key.sign(message)
    const kept = withKeptKey(key)
    for (const form of [message, await listOf(message)]) {
      assert.deepStrictEqual(Buffer.from(await kept.sign(form as Uint8Array)), Buffer.from(before))
    }
    assert.isTrue(await kept.publicKey.verify(message, before))
    const other = await generateKeyPair("secp256k1")
    assert.strictEqual(withKeptKey(other).sign, other.sign)
  })
})
