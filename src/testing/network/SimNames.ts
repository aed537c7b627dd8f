/**
 * How nodes of the simulated network are called: by a name, which always has the same peer id.
 */
import { Schema } from "effect"
import { PeerId } from "../../schema/Peer.ts"
import { identityOf } from "./SimIdentity.ts"

/**
 * A node: by its name, by its peer id, or anything that knows its own peer id, such as a `Network` or a `Transport`.
 */
export type SimNode = string | { readonly localPeer: PeerId }

/** How the addresses of simulated nodes begin; the name follows. */
export const memory = "/memory/"

// Short texts of base58 may happen to be multihashes, so a name is a peer id only from the length on that real ones
// have.
const isPeerId = (name: string): name is PeerId => name.length >= 46 && Schema.is(PeerId)(name)

const peerIds = new Map<string, PeerId>()

/** The peer id of a node. A peer id stands for itself. */
export function peerIdOf(node: SimNode): PeerId {
  if (typeof node !== "string") return node.localPeer
  const known = peerIds.get(node)
  if (known !== undefined) return known
  const found = isPeerId(node) ? node : identityOf(node).peerId
  peerIds.set(node, found)
  return found
}
