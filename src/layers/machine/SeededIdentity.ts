/**
 * An identity made from 32 bytes, the same each time. Whoever knows the bytes can be the peer.
 */
import { Effect, Layer, Predicate, Redacted } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { createPrivateKey, createPublicKey } from "node:crypto"
import { IdentityError } from "../../schema/NetworkError.ts"
import type { PeerId } from "../../schema/Peer.ts"
import { Identity } from "../../services/Identity.ts"

/** The Ed25519 identity of a seed. Throws an `IdentityError` unless it is a `Uint8Array` of 32 bytes. */
export const make = (seed: Uint8Array): Identity["Service"] => {
  if (!Predicate.isUint8Array(seed) || seed.length !== 32) {
    throw new IdentityError({
      path: "of a seed",
      detail: `expected a Uint8Array of 32 bytes, got ${kindOf(seed)}`
    })
  }
  const key = createPrivateKey({ key: Buffer.concat([pkcs8, seed]), format: "der", type: "pkcs8" })
  // The last 32 bytes of the DER form are the key itself.
  const publicKey = createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32)
  return {
    // An identity multihash (00 24) of the public key in libp2p's protobuf form (08 01 12 20).
    peerId: base58btc.baseEncode(Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...publicKey)) as PeerId,
    privateKey: Redacted.make(Uint8Array.of(0x08, 0x01, 0x12, 0x40, ...seed, ...publicKey), { label: "private key" })
  }
}

/**
 * {@link make} as a Layer, for `Network.layer(options, { identity })`. Fails with `IdentityError` unless the seed is a
 * `Uint8Array` of 32 bytes.
 */
export const layer = (seed: Uint8Array): Layer.Layer<Identity, IdentityError> =>
  Layer.effect(
    Identity,
    Effect.suspend(() => {
      try {
        return Effect.succeed(make(seed))
      } catch (error) {
        return error instanceof IdentityError ? Effect.fail(error) : Effect.die(error)
      }
    })
  )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** What was given for a seed, without a byte of it: the seed is the key. */
function kindOf(seed: unknown): string {
  if (Predicate.isUint8Array(seed)) return `${seed.length} bytes`
  if (typeof seed === "string") return "a text; decode it first, such as by Buffer.from(text, \"hex\")"
  return seed === undefined || seed === null ? String(seed) : `a value of type ${typeof seed}`
}

/** What stands before the seed in PKCS #8, RFC 8410. */
const pkcs8 = Buffer.from("302e020100300506032b657004220420", "hex")
