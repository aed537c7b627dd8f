/**
 * Keys of content in the DHT, and who provides it.
 */
import { Predicate, Result, Schema } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { sha256 } from "multiformats/hashes/sha2"
import * as Canonical from "./Canonical.ts"
import { InvalidContentKey } from "./NetworkError.ts"
import { FoundPeer } from "./Peer.ts"

/**
 * The key under which content is provided and found: 1 to 80 bytes, written in base58btc.
 *
 * {@link fromText}, {@link fromBytes} and {@link fromCid} make the usual form, a sha2-256 multihash of 34 bytes
 * (`Qm...`). It reads as a CID of version 0, and servers of every implementation store it. {@link fromRustRecordKey}
 * takes any bytes as they are; servers of Codio, Rust and Go store those, plain js-libp2p refuses them.
 */
export const ContentKey = Schema.String.check(
  Schema.makeFilter((text) => keyProblem(text) ?? true, { expected: "a content key" })
).pipe(Schema.brand("ContentKey"))
export type ContentKey = typeof ContentKey.Type

export { keyBytesMax } from "./Canonical.ts"

/**
 * The key of a text: the sha2-256 multihash of its UTF-8 bytes. Throws an {@link InvalidContentKey} for what is no
 * text.
 */
export const fromText = (text: string): ContentKey => {
  // `undefined` would have the key of the empty text.
  if (typeof text !== "string") throw wrong("a text", text)
  return fromBytes(new TextEncoder().encode(text))
}

/**
 * The key of some bytes: their sha2-256 multihash. Throws an {@link InvalidContentKey} for what is no `Uint8Array`.
 */
export const fromBytes = (bytes: Uint8Array): ContentKey => {
  if (!Predicate.isUint8Array(bytes)) throw wrong("a Uint8Array", bytes)
  const digest = sha256.digest(bytes)
  if (digest instanceof Promise) throw new Error("sha2-256 is synchronous on Node")
  return fromKeyBytes(digest.bytes)
}

/**
 * The key of a CID in any base: its multihash, whatever its version and codec. Functions of `Network` take the text of
 * a CID as it is.
 */
export const fromCid = (cid: string): Result.Result<ContentKey, InvalidContentKey> =>
  checked(Canonical.contentKeyOfCid(cid))

/**
 * The key that a Rust program provides as `RecordKey::new(&bytes)`: the bytes themselves, or the UTF-8 bytes of a text,
 * without a hash. Throws an {@link InvalidContentKey} unless there are 1 to 80 bytes.
 *
 * Two programs find each other only when both use this form: `fromRustRecordKey("video")` is another key than
 * `fromText("video")`.
 */
export const fromRustRecordKey = (key: string | Uint8Array): ContentKey => {
  const bytes = typeof key === "string" ? new TextEncoder().encode(key) : key
  if (!Predicate.isUint8Array(bytes)) throw wrong("a text or a Uint8Array", bytes)
  const problem = Canonical.keyLengthProblem(bytes.length)
  if (problem !== undefined) throw new InvalidContentKey({ detail: problem })
  return fromKeyBytes(bytes)
}

/** Reads a key in any of its forms: base58 text, or a CID. */
export const parse = (text: string): Result.Result<ContentKey, InvalidContentKey> => checked(Canonical.contentKey(text))

/**
 * The bytes of a key as they travel in messages of Kademlia. Throws an {@link InvalidContentKey} for what is no key.
 */
export const toBytes = (key: ContentKey): Uint8Array => {
  try {
    return base58btc.baseDecode(key)
  } catch {
    throw typeof key === "string"
      ? new InvalidContentKey({ detail: Canonical.notContentKey(key) })
      : wrong("a content key", key)
  }
}

/** A peer that has the content of a key, with the addresses that the DHT gave for it. */
export const Provider = FoundPeer
export type Provider = FoundPeer

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function wrong(expected: string, given: unknown): InvalidContentKey {
  return new InvalidContentKey({ detail: `expected ${expected}, got ${Canonical.shortened(given)}` })
}

function fromKeyBytes(bytes: Uint8Array): ContentKey {
  return base58btc.baseEncode(bytes) as ContentKey
}

function keyProblem(text: string): string | undefined {
  try {
    return Canonical.keyLengthProblem(base58btc.baseDecode(text).length)
  } catch {
    return Canonical.notContentKey(text)
  }
}

function checked(read: Result.Result<string, string>): Result.Result<ContentKey, InvalidContentKey> {
  return Result.mapBoth(read, {
    onFailure: (detail) => new InvalidContentKey({ detail }),
    onSuccess: (key) => key as ContentKey
  })
}
