/**
 * Addresses that the program announces while the node runs. [libp2p]
 *
 * libp2p takes the addresses to announce in its constructor and passes all of them through a filter, which adds these.
 */
import type { Multiaddr as Libp2pMultiaddr } from "@multiformats/multiaddr"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect } from "effect"
import { type Multiaddr, type PeerId, withPeer } from "../../schema/Peer.ts"
import type { Components } from "./wire/Components.ts"

/** The announced addresses of one node. The components must exist when the first address is announced. */
export const make = (components: () => Components) => {
  /** By address, how many scopes announce it. */
  const counts = new Map<Multiaddr, number>()

  /** Stores the node's addresses, of which identify tells the connected peers. */
  const tell = Effect.promise(async () => {
    const { addressManager, peerId, peerStore } = components()
    const own = `/p2p/${peerId.toString()}`
    const multiaddrs = addressManager.getAddresses().map((address) =>
      address.toString().endsWith(own) ? address.decapsulate(own) : address
    )
    // The store is in memory: writing to it does not fail.
    await peerStore.patch(peerId, { multiaddrs })
  })

  return {
    values: (): ReadonlyArray<Libp2pMultiaddr> => {
      const own = counts.size === 0 ? undefined : components().peerId.toString() as PeerId
      return own === undefined ? [] : Array.from(counts.keys(), (address) => multiaddr(withPeer(address, own)))
    },

    /** See `Transport.announce`. */
    announce: (address: Multiaddr) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.suspend(() => {
          counts.set(address, (counts.get(address) ?? 0) + 1)
          return tell
        }),
        () =>
          Effect.suspend(() => {
            const left = (counts.get(address) ?? 1) - 1
            if (left > 0) return Effect.sync(() => counts.set(address, left))
            counts.delete(address)
            return tell
          })
      ))
  }
}
