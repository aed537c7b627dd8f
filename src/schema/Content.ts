/**
 * Keys of content in the DHT, and who provides it.
 */
import { Schema } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"
import { sha256 } from "multiformats/hashes/sha2"
import { PeerAddresses } from "./Peer.ts"

/**
 * The key under which content is provided and found: 1 to 80 bytes, written in base58btc.
 *
 * The usual form is a sha2-256 multihash of 34 bytes (`Qm...`), the only one that Rust, Go and JavaScript servers all store; it reads as
 * a CID of version 0. {@link fromText}, {@link fromBytes} and {@link fromCid} make it.
 */
export const ContentKey = Schema.String.check(
  Schema.makeFilter((text) => keyProblem(text) ?? true, { expected: "a content key" })
).pipe(Schema.brand("ContentKey"))
export type ContentKey = typeof ContentKey.Type

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
 * The bytes of a key as they travel in messages of Kademlia.
 */
export const toBytes = (key: ContentKey): Uint8Array => base58btc.baseDecode(key)

/**
 * Someone who has the content of a key, and where to reach it as far as the DHT told.
 */
export const Provider = PeerAddresses
export type Provider = PeerAddresses

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const keyBytesMax = 80

function fromKeyBytes(bytes: Uint8Array): ContentKey {
  return base58btc.baseEncode(bytes) as ContentKey
}

function keyProblem(text: string): string | undefined {
  let bytes: Uint8Array
  try {
    bytes = base58btc.baseDecode(text)
  } catch {
    return `"${text}" is not a content key: expected base58 text such as Qm...`
  }
  if (bytes.length < 1 || bytes.length > keyBytesMax) {
    return `a content key has 1 to ${keyBytesMax} bytes, this one has ${bytes.length}`
  }
  // A JavaScript server decodes the key as a CID and resets the stream when that fails.
  try {
    Digest.decode(bytes)
    return undefined
  } catch {
    return `"${text}" is not a content key: its bytes are not a multihash`
  }
}
