/** The names of simulated nodes. A name always has the same peer id. */
import { Schema } from "effect"
import { PeerId } from "../../schema/Peer.ts"
import { identityOf } from "./SimIdentity.ts"

/**
 * A node: by its name, by its peer id, or anything that knows its own peer id, such as a `Network` or a `Transport`.
 */
export type SimNode = string | { readonly localPeer: PeerId }

/** The beginning of a simulated address, before the name. */
export const memory = "/memory/"

// A short base58 text may happen to be a multihash, so a name is taken for a peer id only at the length of real ones.
const isPeerId = (name: string): name is PeerId => name.length >= 46 && Schema.is(PeerId)(name)

const peerIds = new Map<string, PeerId>()

/** The peer id of a node; for a peer id the same peer id. */
export function peerIdOf(node: SimNode): PeerId {
  if (typeof node !== "string") return node.localPeer
  const known = peerIds.get(node)
  if (known !== undefined) return known
  const found = isPeerId(node) ? node : identityOf(node).peerId
  peerIds.set(node, found)
  return found
}
