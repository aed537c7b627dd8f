/**
 * Keys of content in the DHT, and who provides it.
 */
import { Schema } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { CID } from "multiformats/cid"
import { sha256 } from "multiformats/hashes/sha2"
import { PeerAddresses } from "./Peer.ts"

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

/** How many bytes a key may have. Go's servers take no more. */
export const keyBytesMax = 80

/**
 * The key of a text: the sha2-256 multihash of its UTF-8 bytes.
 */
export const fromText = (text: string): ContentKey => fromBytes(new TextEncoder().encode(text))

/**
 * The key of some bytes: their sha2-256 multihash.
 */
export const fromBytes = (bytes: Uint8Array): ContentKey => {
  const digest = sha256.digest(bytes)
  if (digest instanceof Promise) throw new Error("sha2-256 is synchronous on Node")
  return fromKeyBytes(digest.bytes)
}

/**
 * The key of a CID: its multihash, whatever its version and codec. Throws a `SyntaxError` when the text is not a CID.
 */
export const fromCid = (cid: string): ContentKey => fromKeyBytes(CID.parse(cid).multihash.bytes)

/**
 * The key that a Rust program provides as `RecordKey::new(&bytes)`: the bytes themselves, or the UTF-8 bytes of a text,
 * without a hash. Throws a `RangeError` unless there are 1 to 80 bytes.
 *
 * Two programs find each other only when both use this form: `fromRustRecordKey("video")` is another key than
 * `fromText("video")`.
 */
export const fromRustRecordKey = (key: string | Uint8Array): ContentKey => {
  const bytes = typeof key === "string" ? new TextEncoder().encode(key) : key
  const problem = lengthProblem(bytes.length)
  if (problem !== undefined) throw new RangeError(problem)
  return fromKeyBytes(bytes)
}

/**
 * The bytes of a key as they travel in messages of Kademlia.
 */
export const toBytes = (key: ContentKey): Uint8Array => base58btc.baseDecode(key)

/** A peer that has the content of a key, with the addresses that the DHT gave for it. */
export const Provider = PeerAddresses
export type Provider = PeerAddresses

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

function fromKeyBytes(bytes: Uint8Array): ContentKey {
  return base58btc.baseEncode(bytes) as ContentKey
}

function keyProblem(text: string): string | undefined {
  try {
    return lengthProblem(base58btc.baseDecode(text).length)
  } catch {
    return `"${text}" is not a content key: expected base58 text such as Qm...`
  }
}

function lengthProblem(length: number): string | undefined {
  return length < 1 || length > keyBytesMax
    ? `a content key has 1 to ${keyBytesMax} bytes, this one has ${length}`
    : undefined
}
