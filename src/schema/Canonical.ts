/**
 * Reads text that people and other programs write, each kind into its one canonical form: two texts that mean the same
 * become equal, so that they compare, hash and serve as keys of maps.
 *
 * Text is read once, where it enters the library: at the functions of `Network`, in options, and where a source of
 * peers reports what it sees. White space and line breaks around the text do not count. A failure is one line that
 * shows the text, cut to 80 characters.
 */
import { multiaddr as parse } from "@multiformats/multiaddr"
import { Result } from "effect"
import { base16, base16upper } from "multiformats/bases/base16"
import { base32, base32upper } from "multiformats/bases/base32"
import { base36, base36upper } from "multiformats/bases/base36"
import { base58btc } from "multiformats/bases/base58"
import { base64, base64url } from "multiformats/bases/base64"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"

/** How many bytes a content key may have. Go's servers take no more. */
export const keyBytesMax = 80

/** Characters of a text that is read at all: the time to read base58 grows with the square of its length. */
const textMax = 1024

/**
 * The base58btc multihash of a public key. Takes the CID of a key (`bafz...`, `k51...`), as Kubo prints it, too.
 */
export const peerId = (text: string): Result.Result<string, string> =>
  Result.flatMap(
    trimmed(text, "a peer id"),
    (id) => isOfKey(base58Multihash(id)) ? Result.succeed(id) : peerIdOfCid(id)
  )

/**
 * A multiaddr as its bytes print: base58 ids after `/p2p/`, which `/ipfs/` becomes, short IPv6 addresses, names in
 * lower case, no slash at the end. Refuses white space within the text, and a `/p2p/` without a peer id.
 */
export const multiaddr = (text: string): Result.Result<string, string> =>
  Result.flatMap(trimmed(text, "a multiaddr"), (address) => {
    if (!address.startsWith("/") || /[\s\p{Cc}]/u.test(address)) return Result.fail(notMultiaddr(text))
    try {
      const read = parse(address.replace(/\/+$/, ""))
      const components = read.getComponents()
      if (components.length === 0) return Result.fail(`${quoted(text)} is not a multiaddr: it is empty`)
      for (const { name, value } of components) {
        if (name === "p2p" && Result.isFailure(peerId(value ?? ""))) {
          return Result.fail(`${quoted(text)} has /p2p/ without a peer id`)
        }
      }
      return Result.succeed(parse(read.bytes).toString().replace(names, (name) => name.toLowerCase()))
    } catch {
      return Result.fail(notMultiaddr(text))
    }
  })

/** What is wrong with an address that need not be in its canonical form, such as one that a remote told. */
export const multiaddrProblem = (text: string): string | undefined => {
  try {
    return parse(text).getComponents().length === 0 ? `${quoted(text)} is not a multiaddr: it is empty` : undefined
  } catch {
    return notMultiaddr(text)
  }
}

/**
 * The base58btc bytes of a content key. Of a CID, whatever its version, codec and base, the key is its multihash.
 *
 * A CID is tried first, since a CID of base58 or base32 may read as base58 text, too. That base58 text of other bytes
 * reads as a CID takes 40 matching bits or more.
 */
export const contentKey = (text: string): Result.Result<string, string> =>
  Result.flatMap(trimmed(text, "a content key"), (key) => {
    const cid = cidOf(key)
    try {
      const bytes = cid === undefined ? base58btc.baseDecode(key) : cid.multihash.bytes
      const problem = keyLengthProblem(bytes.length)
      return problem === undefined ? Result.succeed(base58btc.baseEncode(bytes)) : Result.fail(problem)
    } catch {
      return Result.fail(notContentKey(text))
    }
  })

/** The content key of a CID; fails for every other text. */
export const contentKeyOfCid = (text: string): Result.Result<string, string> =>
  Result.flatMap(
    trimmed(text, "a CID"),
    (cid) =>
      cidOf(cid) === undefined
        ? Result.fail(`${quoted(text)} is not a CID: expected text such as bafy... or Qm...`)
        : contentKey(cid)
  )

/** The problem of a text that is no content key. */
export const notContentKey = (text: string): string =>
  `${quoted(text)} is not a content key: expected base58 text such as Qm..., or a CID such as bafy...`

/** What is wrong with the length of a content key, if anything. */
export const keyLengthProblem = (bytes: number): string | undefined =>
  bytes < 1 || bytes > keyBytesMax
    ? `a content key has 1 to ${keyBytesMax} bytes, this one has ${bytes}`
    : undefined

/**
 * The text on one line, cut to 80 characters. A program in plain JavaScript may pass anything for a text: another value
 * is shown as JSON, or named by its kind.
 */
export const shortened = (text: unknown): string => {
  const line = (typeof text === "string" ? text : printed(text)).replace(/\s+/g, " ")
  return line.length > 80 ? `${line.slice(0, 77)}...` : line
}

/** The text on one line of at most 200 characters: names in a file may have any length. */
export const line = (text: string): string => text.replace(/\s+/g, " ").slice(0, 200)

/** The text in quotes, on one line, cut to 80 characters. */
export const quoted = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const names = /(?<=\/(?:dns|dns4|dns6|dnsaddr)\/)[^/]+/g

const notMultiaddr = (text: string): string =>
  `${quoted(text)} is not a multiaddr: expected text such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...`

/** The codec of a CID that holds a public key. */
const libp2pKey = 0x72

const bases = {
  b: base32,
  B: base32upper,
  f: base16,
  F: base16upper,
  k: base36,
  K: base36upper,
  m: base64,
  u: base64url,
  z: base58btc
}

/** A value that is no text. Printing an object may run the program's own code, which may give nothing, or fail. */
function printed(value: unknown): string {
  if (typeof value === "function") return "a function"
  if (typeof value !== "object") return String(value)
  try {
    return JSON.stringify(value) ?? "an object"
  } catch {
    return "an object"
  }
}

function trimmed(text: unknown, what: string): Result.Result<string, string> {
  // A program in plain JavaScript may pass anything.
  if (typeof text !== "string") return Result.fail(`expected ${what}, got ${shortened(text)}`)
  return text.length > textMax
    ? Result.fail(`${quoted(text)} is not ${what}: it has ${text.length} characters, at most ${textMax} are read`)
    : Result.succeed(text.trim())
}

function cidOf(text: string): CID | undefined {
  try {
    if (text.startsWith("Q")) return CID.parse(text)
    const prefix = text.slice(0, 1)
    return Object.hasOwn(bases, prefix) ? CID.parse(text, bases[prefix as keyof typeof bases]) : undefined
  } catch {
    return undefined
  }
}

function base58Multihash(text: string): Digest.Digest<number, number> | undefined {
  try {
    return Digest.decode(base58btc.baseDecode(text))
  } catch {
    return undefined
  }
}

function peerIdOfCid(text: string): Result.Result<string, string> {
  const cid = cidOf(text)
  if (cid !== undefined && cid.code === libp2pKey && isOfKey(cid.multihash)) {
    return Result.succeed(base58btc.baseEncode(cid.multihash.bytes))
  }
  return Result.fail(
    cid === undefined
      ? `${quoted(text)} is not a peer id: expected base58 text such as 12D3KooW..., or its CID such as k51...`
      : `${quoted(text)} is not a peer id: it is the CID of content`
  )
}

// A short key is its own digest: protobuf with the key's type (Ed25519 1, secp256k1 2) and length. The digest of a
// longer key is its sha2-256.
function isOfKey(hash: { readonly code: number; readonly digest: Uint8Array } | undefined): boolean {
  if (hash === undefined) return false
  const { code, digest } = hash
  if (code === 0x12) return digest.length === 32
  if (code !== 0 || digest[0] !== 0x08 || digest[2] !== 0x12) return false
  return digest[1] === 1
    ? digest[3] === 32 && digest.length === 36
    : digest[1] === 2 && digest[3] === 33 && digest.length === 37
}
