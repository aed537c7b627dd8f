/**
 * The identities of simulated nodes. The name of a node is the seed of its key: the same name is the same peer, and
 * signs as a real peer does.
 */
import { Redacted } from "effect"
import { sha256 } from "multiformats/hashes/sha2"
import * as SeededIdentity from "../../layers/machine/SeededIdentity.ts"
import type { PeerId } from "../../schema/Peer.ts"
import type { Identity } from "../../services/Identity.ts"

// Bounded by the names of nodes in use.
const byName = new Map<string, Identity["Service"]>()
const byPeer = new Map<PeerId, Identity["Service"]>()

/** The identity of the node of a name. */
export const identityOf = (name: string): Identity["Service"] => {
  const known = byName.get(name)
  if (known !== undefined) return known
  const { digest } = sha256.digest(new TextEncoder().encode(name)) as Digested
  const identity = SeededIdentity.make(digest)
  byName.set(name, identity)
  byPeer.set(identity.peerId, identity)
  return identity
}

/** The identity of a peer. Without a key, so that it cannot sign, unless the name of the peer was used before. */
export const signerOf = (peer: PeerId): Identity["Service"] =>
  byPeer.get(peer) ?? { peerId: peer, privateKey: Redacted.make(new Uint8Array()) }

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// The type allows a promise, but sha2-256 is synchronous on Node.
type Digested = Exclude<ReturnType<typeof sha256.digest>, Promise<unknown>>
