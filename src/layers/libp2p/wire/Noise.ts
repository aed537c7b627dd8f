/**
 * Noise that keeps its keys in the form that node's crypto works with.
 *
 * Stock noise gives node raw key bytes for every message, which node copies and checks each time: 10 % of the time of a
 * bulk transfer, and two thirds of a handshake's. Nothing else differs. The algorithms, the records and the handshake
 * are noise's own, and so is the work on messages below 1200 bytes, for which its WebAssembly is faster.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { publicKeyToProtobuf } from "@libp2p/crypto/keys"
import type { ConnectionEncrypter, MessageStream, PrivateKey, StreamMessageEvent } from "@libp2p/interface"
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  type DecipherChaCha20Poly1305,
  diffieHellman,
  generateKeyPairSync,
  getCiphers,
  hkdfSync,
  type KeyObject,
  sign
} from "node:crypto"
import { assertMembers, connectionToNowhere } from "./LeanedOn.ts"

// One array, or a list of arrays.
type Bytes = StreamMessageEvent["data"]

/**
 * Noise's two operations on messages. A nonce has 12 bytes, a key 32, and the sealed bytes end in a tag of 16.
 */
export interface Sealing {
  encrypt: (plaintext: Bytes, nonce: Uint8Array, ad: Uint8Array, key: Uint8Array) => Bytes
  /** Throws when the bytes were changed after sealing. */
  decrypt: (ciphertext: Bytes, nonce: Uint8Array, ad: Uint8Array, key: Uint8Array, target?: Uint8Array) => Bytes
}

/**
 * Operations for messages from 1200 bytes up; smaller messages go to the given operations.
 */
export const withKeptKeys = (given: Sealing): Sealing => {
  // Each direction of a connection has one array of key bytes for its whole life, and nobody writes to it.
  const keys = new WeakMap<Uint8Array, KeyObject>()
  const keyOf = (bytes: Uint8Array): KeyObject => kept(keys, bytes, () => createSecretKey(bytes))
  return {
    encrypt: (plaintext, nonce, ad, key) => {
      // A connection's messages come as lists; single arrays come only during the handshake.
      if (plaintext.byteLength < smallBytes || plaintext instanceof Uint8Array) {
        return given.encrypt(plaintext, nonce, ad, key)
      }
      const cipher = createCipheriv(algorithm, keyOf(key), nonce, { authTagLength: tagBytes })
      if (ad.byteLength > 0) cipher.setAAD(ad, { plaintextLength: plaintext.byteLength })
      if (plaintext.byteLength < gatheredBytes) {
        return Buffer.concat([cipher.update(plaintext.subarray()), cipher.final(), cipher.getAuthTag()])
      }
      const sealed = plaintext.sublist(0, 0)
      for (const bytes of plaintext) sealed.append(cipher.update(bytes))
      cipher.final()
      sealed.append(cipher.getAuthTag())
      return sealed
    },
    decrypt: (ciphertext, nonce, ad, key, target) => {
      if (ciphertext.byteLength < smallBytes) return given.decrypt(ciphertext, nonce, ad, key, target)
      const end = ciphertext.byteLength - tagBytes
      const decipher = createDecipheriv(algorithm, keyOf(key), nonce, { authTagLength: tagBytes })
      if (ad.byteLength > 0) decipher.setAAD(ad, { plaintextLength: end })
      decipher.setAuthTag(ciphertext.subarray(end))
      const opened = ciphertext instanceof Uint8Array
        ? decipher.update(ciphertext.subarray(0, end))
        : openList(decipher, ciphertext.sublist(0, end))
      // Checks the tag, before any byte is returned.
      decipher.final()
      return opened
    }
  }
}

/** A pair of X25519 keys, 32 bytes each. */
export interface KeyPair {
  readonly publicKey: Uint8Array
  readonly privateKey: Uint8Array
}

/** Noise's two operations on pairs of keys. */
export interface Exchange {
  generateKeypair: () => KeyPair
  dh: (pair: KeyPair, publicKey: Bytes) => Uint8Array
}

/**
 * Operations on pairs of keys. The private key of a pair made here stays in node's form, and `privateKey` is empty.
 */
export const exchangeOfKeptKeys = (): Exchange => {
  const privateKeys = new WeakMap<KeyPair, KeyObject>()
  // A handshake uses each of the remote's keys twice.
  const publicKeys = new WeakMap<Bytes, KeyObject>()
  return {
    generateKeypair: () => {
      const { privateKey, publicKey } = generateKeyPairSync("x25519")
      // Export in any other format takes a hundred times as long.
      const { x = "" } = publicKey.export({ format: "jwk" })
      const pair = { publicKey: Buffer.from(x, "base64url"), privateKey: new Uint8Array() }
      privateKeys.set(pair, privateKey)
      return pair
    },
    dh: (pair, publicKey) =>
      diffieHellman({
        privateKey: kept(privateKeys, pair, () => {
          const key = { ...x25519, x: base64url(pair.publicKey), d: base64url(pair.privateKey) }
          return createPrivateKey({ key, format: "jwk" })
        }),
        publicKey: kept(publicKeys, publicKey, () => {
          const key = { ...x25519, x: base64url(publicKey.subarray()) }
          return createPublicKey({ key, format: "jwk" })
        })
      })
  }
}

/**
 * Derives three keys of 32 bytes by HKDF-SHA256, in node's crypto. A handshake derives four times, and noise's
 * JavaScript takes 0.3 ms for each in a process that has just started.
 */
export const hkdf = (chainingKey: Uint8Array, input: Uint8Array): [Uint8Array, Uint8Array, Uint8Array] => {
  const keys = new Uint8Array(hkdfSync("sha256", input, chainingKey, noInfo, 96))
  return [keys.subarray(0, 32), keys.subarray(32, 64), keys.subarray(64)]
}

/**
 * The identity with its key kept in node's form: reading the key from its bytes takes longer than a signature, and each
 * side of a connection signs twice.
 */
export const withKeptKey = (identity: PrivateKey): PrivateKey => {
  if (identity.type !== "Ed25519") return identity
  const jwk = {
    kty: "OKP",
    crv: "Ed25519",
    x: base64url(identity.publicKey.raw),
    d: base64url(identity.raw.subarray(0, 32))
  }
  const key = createPrivateKey({ key: jwk, format: "jwk" })
  return Object.assign(identity, { sign: (message: Bytes) => sign(null, message.subarray(), key) })
}

/**
 * Noise for a host; stock noise where the machine's crypto lacks the cipher.
 */
export const fastNoise = (components: NoiseComponents, make = noise()): ConnectionEncrypter => {
  const encrypter = make(components)
  assertMembers("@chainsafe/libp2p-noise", encrypter, encrypterMembers)
  if (!getCiphers().includes(algorithm)) return encrypter
  const open = encrypter as OpenEncrypter
  open.crypto = { ...open.crypto, ...withKeptKeys(open.crypto), ...exchangeOfKeptKeys(), hkdf }
  const secureInbound = open.secureInbound.bind(open)
  const secureOutbound = open.secureOutbound.bind(open)
  open.secureInbound = async (connection, options) => lean(await secureInbound(connection, options))
  open.secureOutbound = async (connection, options) => lean(await secureOutbound(connection, options))
  return encrypter
}

/**
 * Rejects with a `HostError` unless noise's secured connections have the private members that are used. The connection
 * that is secured here leads nowhere, and its handshake is made up.
 */
export const assertSecured = async (components: NoiseComponents, make = noise()): Promise<void> => {
  const unshaken = Object.assign(Object.create(make(components)) as ConnectionEncrypter, {
    performHandshakeInitiator: async () => ({
      // The remote is this node itself.
      payload: { identityKey: publicKeyToProtobuf(components.privateKey.publicKey) },
      encrypt: () => {},
      decrypt: () => {}
    })
  })
  const connection = connectionToNowhere()
  const secured = await unshaken.secureOutbound(connection, { skipStreamMuxerNegotiation: true })
  assertMembers("@chainsafe/libp2p-noise", secured.connection, securedMembers)
}

/** What {@link fastNoise} asserts of noise. `performHandshakeInitiator` is for {@link assertSecured} alone. */
export const encrypterMembers = {
  "crypto.encrypt": "function",
  "crypto.decrypt": "function",
  "crypto.generateKeypair": "function",
  "crypto.dh": "function",
  "crypto.hkdf": "function",
  performHandshakeInitiator: "function"
} as const

/** What {@link assertSecured} asserts of a secured connection. */
export const securedMembers = {
  "decoder.lengthDecoder": "function",
  decrypt: "function",
  "handshake.decrypt": "function"
} as const

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const algorithm = "chacha20-poly1305"
const tagBytes = 16
const smallBytes = 1200
// Each array of a list is written to the socket by itself; below this size, copying the arrays together costs less.
const gatheredBytes = 16 * 1024

const noInfo = new Uint8Array()

const x25519 = { kty: "OKP", crv: "X25519" }

const base64url = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64url")

function kept<A extends object>(keys: WeakMap<A, KeyObject>, of: A, make: () => KeyObject): KeyObject {
  const known = keys.get(of)
  if (known !== undefined) return known
  const key = make()
  keys.set(of, key)
  return key
}

// Noise copies each record together, to decrypt it in its own memory, which node's crypto does not need. And it looks
// for the next record until an exception says that there is none; making its stack costs more than a small record.
function lean<A extends { readonly connection: MessageStream }>(secured: A): A {
  const stream = secured.connection as MessageStream & Records
  const { decoder, decrypt, handshake } = stream
  decoder.lengthDecoder = lengthOf
  stream.decrypt = (record) =>
    // One record at a time, so never more than its length of two bytes can say.
    record.byteLength < smallBytes ? decrypt.call(stream, record) : handshake.decrypt(record)
  return secured
}

const noLength = new RangeError("the length of the next record has not arrived")

function lengthOf(list: Exclude<Bytes, Uint8Array>): number {
  if (list.byteLength < 2) throw noLength
  return list.getUint16(0)
}

type NoiseComponents = Parameters<ReturnType<typeof noise>>[0]

/** Noise with its operations, which the interface lacks. */
interface OpenEncrypter extends ConnectionEncrypter {
  crypto: Sealing & Exchange & { hkdf: typeof hkdf }
}

/** A secured connection's private members. */
interface Records {
  readonly decoder: { lengthDecoder: (list: Exclude<Bytes, Uint8Array>) => number }
  decrypt: (record: Bytes) => Bytes
  readonly handshake: { readonly decrypt: (record: Bytes) => Bytes }
}

function openList(decipher: DecipherChaCha20Poly1305, list: Exclude<Bytes, Uint8Array>): Bytes {
  const opened = list.sublist(0, 0)
  for (const bytes of list) opened.append(decipher.update(bytes))
  return opened
}
