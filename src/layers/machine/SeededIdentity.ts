/**
 * An identity made from 32 bytes, the same each time. Whoever knows the bytes can be the peer.
 */
import { Layer, Redacted } from "effect"
import { base58btc } from "multiformats/bases/base58"
import { createPrivateKey, createPublicKey } from "node:crypto"
import type { PeerId } from "../../schema/Peer.ts"
import { Identity } from "../../services/Identity.ts"

/** The Ed25519 identity of a seed. Throws unless it has 32 bytes. */
export const make = (seed: Uint8Array): Identity["Service"] => {
  if (seed.length !== 32) throw new RangeError(`a seed has 32 bytes, this one has ${seed.length}`)
  const key = createPrivateKey({ key: Buffer.concat([pkcs8, seed]), format: "der", type: "pkcs8" })
  // The last 32 bytes of the DER form are the key itself.
  const publicKey = createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32)
  return {
    // An identity multihash (00 24) of the public key in libp2p's protobuf form (08 01 12 20).
    peerId: base58btc.baseEncode(Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20, ...publicKey)) as PeerId,
    privateKey: Redacted.make(Uint8Array.of(0x08, 0x01, 0x12, 0x40, ...seed, ...publicKey), { label: "private key" })
  }
}

/** {@link make} as a Layer, for `Network.layer(options, { identity })`. Throws unless the seed has 32 bytes. */
export const layer = (seed: Uint8Array): Layer.Layer<Identity> => Layer.succeed(Identity, make(seed))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** What stands before the seed in PKCS #8, RFC 8410. */
const pkcs8 = Buffer.from("302e020100300506032b657004220420", "hex")
