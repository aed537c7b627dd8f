/**
 * What the DHT found, as a program gets it: each address says whether this node would dial it.
 */
import { Effect } from "effect"
import { type FoundAddress, foundAddress, type FoundPeer, type ToldAddresses } from "../../schema/Peer.ts"
import { Dialer } from "./Dialer.ts"
import { PeerBook } from "./PeerBook.ts"

/** The judge of what was found. The book may know more of an address than the answer that named it. */
export const make = Effect.gen(function*() {
  const book = yield* PeerBook
  const dialer = yield* Dialer

  return Effect.fnUntraced(function*({ addresses, id }: ToldAddresses): Effect.fn.Return<FoundPeer> {
    const known = book.get(id)?.addresses
    const found: Array<FoundAddress> = []
    for (const told of addresses) {
      const entry = known?.get(told.address)
      const isGuarded = yield* dialer.isGuarded({
        address: told.address,
        isOwn: entry?.isOwn ?? false,
        tellers: [...told.tellers, ...entry?.tellers ?? []]
      })
      found.push(foundAddress(told, !isGuarded))
    }
    return { id, addresses: found }
  })
})
