/**
 * The node's identity in a file of the data directory.
 */
import { generateKeyPair, privateKeyToProtobuf } from "@libp2p/crypto/keys"
import { peerIdFromPrivateKey } from "@libp2p/peer-id"
import { Effect, Layer, Redacted } from "effect"
import type { PeerId } from "../schema/Peer.ts"
import { Identity } from "../services/Identity.ts"

/** A new identity, forgotten with the process. */
export const layerEphemeral: Layer.Layer<Identity> = Layer.effect(
  Identity,
  Effect.map(Effect.promise(() => generateKeyPair("Ed25519")), (key) =>
    Identity.of({
      peerId: peerIdFromPrivateKey(key).toString() as PeerId,
      privateKey: Redacted.make(privateKeyToProtobuf(key))
    }))
)
