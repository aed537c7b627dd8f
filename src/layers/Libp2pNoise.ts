/**
 * Noise with its keys kept in the form that node's crypto works with.
 *
 * Stock noise hands over raw key bytes for every message, which are copied and checked each time: 10 % of the time of a bulk transfer.
 * Nothing else differs: the algorithm, the records and the handshake are noise's own, and so are messages below 1200 bytes, for which its
 * WebAssembly is faster.
 */
import { noise } from "@chainsafe/libp2p-noise"
import type { ConnectionEncrypter, MessageStream, StreamMessageEvent } from "@libp2p/interface"
import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  type DecipherChaCha20Poly1305,
  getCiphers,
  type KeyObject
} from "node:crypto"

// One array, or a list of arrays.
type Bytes = StreamMessageEvent["data"]

/** The two operations of noise that work on messages. A nonce has 12 bytes, a key 32, and the sealed bytes end in a tag of 16. */
export interface Sealing {
  encrypt: (plaintext: Bytes, nonce: Uint8Array, ad: Uint8Array, key: Uint8Array) => Bytes
  /** Throws when the bytes are not what was sealed. */
  decrypt: (ciphertext: Bytes, nonce: Uint8Array, ad: Uint8Array, key: Uint8Array, target?: Uint8Array) => Bytes
}

/**
 * The operations for messages from 1200 bytes up; smaller ones go to those that are given.
 */
export const withKeptKeys = (given: Sealing): Sealing => {
  // Each direction of a connection has one array of key bytes as long as it lives, which is never written to.
  const kept = new WeakMap<Uint8Array, KeyObject>()
  const keyOf = (bytes: Uint8Array): KeyObject => {
    const known = kept.get(bytes)
    if (known !== undefined) return known
    const key = createSecretKey(bytes)
    kept.set(bytes, key)
    return key
  }
  return {
    encrypt: (plaintext, nonce, ad, key) => {
      // Messages of connections come as lists; single arrays only during the handshake.
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
      // Nothing is given out before this has checked the tag.
      decipher.final()
      return opened
    }
  }
}

/**
 * Noise for a host. Where the machine's crypto lacks the cipher, or noise has changed inside, it is stock noise.
 */
export const fastNoise: ReturnType<typeof noise> = (components) => {
  const encrypter = noise()(components)
  // A public field of the class that the interface lacks.
  const open = encrypter as ConnectionEncrypter & { crypto?: Sealing }
  if (open.crypto !== undefined && getCiphers().includes(algorithm)) {
    open.crypto = { ...open.crypto, ...withKeptKeys(open.crypto) }
    const secureInbound = open.secureInbound.bind(open)
    const secureOutbound = open.secureOutbound.bind(open)
    open.secureInbound = async (connection, options) => withoutCopy(await secureInbound(connection, options))
    open.secureOutbound = async (connection, options) => withoutCopy(await secureOutbound(connection, options))
  }
  return encrypter
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const algorithm = "chacha20-poly1305"
const tagBytes = 16
const smallBytes = 1200
// Each array of a list is a write to the socket of its own; below this, copying it together costs less.
const gatheredBytes = 16 * 1024

// Noise copies each record together as a place for the plaintext, which node's crypto has no use for. The methods are private.
function withoutCopy<A extends { readonly connection: MessageStream }>(secured: A): A {
  const stream: Partial<Records> = secured.connection as MessageStream & Partial<Records>
  const { decrypt, handshake } = stream
  if (decrypt === undefined || handshake === undefined) return secured
  stream.decrypt = (record) =>
    // One record at a time, so never more than its length of two bytes can say.
    record.byteLength < smallBytes ? decrypt.call(stream, record) : handshake.decrypt(record)
  return secured
}

interface Records {
  decrypt: (record: Bytes) => Bytes
  readonly handshake: { readonly decrypt: (record: Bytes) => Bytes }
}

function openList(decipher: DecipherChaCha20Poly1305, list: Exclude<Bytes, Uint8Array>): Bytes {
  const opened = list.sublist(0, 0)
  for (const bytes of list) opened.append(decipher.update(bytes))
  return opened
}
