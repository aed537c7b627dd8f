/**
 * The identity of this node: its key pair and the peer id that follows from it.
 */
import type { Redacted } from "effect"
import { Context } from "effect"
import type { PeerId } from "../schema/Peer.ts"

/** The key pair of this node. */
export class Identity extends Context.Service<Identity, {
  /** The peer id that the key gives. */
  readonly peerId: PeerId
  /** The private key in libp2p's protobuf form, as rust-libp2p's `Keypair::from_protobuf_encoding` reads it. */
  readonly privateKey: Redacted.Redacted<Uint8Array>
}>()("codio-network/services/Identity") {}
