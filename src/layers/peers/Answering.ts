/**
 * Wishes of the program for an address without a peer id: whoever answers there is the peer.
 *
 * A seed that comes back with another key, and another one of several peers behind one name, are as good as the first
 * that answered. So a wish stands for the peer that answered last, and when that peer cannot be dialled, the address is
 * dialled without its id: the wish moves to the peer that answers now.
 */
import { Effect } from "effect"
import type { ConnectError } from "../../schema/NetworkError.ts"
import type { Multiaddr, PeerId } from "../../schema/Peer.ts"
import * as Supervised from "../Supervised.ts"
import { Dialer } from "./Dialer.ts"
import { isRefusal, type PeerRecord } from "./PeerRecord.ts"

/** A wish for whoever answers at an address. */
interface Wish {
  readonly address: Multiaddr
  readonly kind: "wanted" | "kept"
  /** Whether the program still has the wish. */
  readonly isOpen: () => boolean
  /** Another peer answers at the address: from now on the wish stands for that one. */
  readonly moveTo: (id: PeerId) => Effect.Effect<void>
}

/** The wishes that stand for peers. */
export type Answering = Effect.Success<typeof make>

/** Moves wishes from peer to peer while the scope lives. */
export const make = Effect.gen(function*() {
  const dialer = yield* Dialer
  // By record, so that they go with it.
  const wishes = new WeakMap<PeerRecord, Set<Wish>>()
  const dials = yield* Supervised.makeMap<PeerId>("the dial of an address whose peer is away")

  const openWishes = (peer: PeerRecord): ReadonlyArray<Wish> => {
    const all = wishes.get(peer)
    for (const wish of all ?? []) if (!wish.isOpen()) all?.delete(wish)
    return [...all ?? []]
  }

  const dialAddress = Effect.fnUntraced(function*(peer: PeerRecord, address: Multiaddr, waiting: ReadonlyArray<Wish>) {
    const answered = yield* Effect.option(dialer.dialAddress(address))
    if (answered._tag === "None" || answered.value.id === peer.id) return
    const { id } = answered.value
    yield* Effect.logInfo(`${address} is answered by ${id} and no longer by ${peer.id}`)
    for (const wish of waiting) {
      wishes.get(peer)?.delete(wish)
      if (wish.isOpen()) yield* wish.moveTo(id)
    }
  })

  return {
    /** The wish stands for the peer, until it is no longer open or another peer answers. */
    standsFor: (peer: PeerRecord, wish: Wish): void => {
      const all = wishes.get(peer) ?? new Set()
      // The program may connect to one address again and again.
      for (const other of openWishes(peer)) {
        if (wish.kind === "wanted" && other.kind === "wanted" && other.address === wish.address) all.delete(other)
      }
      wishes.set(peer, all.add(wish))
    },
    /** Whether the peer is wanted only for an address. */
    isWanted: (peer: PeerRecord): boolean => openWishes(peer).some(({ kind }) => kind === "wanted"),
    /** The program wants the peer itself: its wish stays when another peer answers at the address. */
    ownWish: (peer: PeerRecord): void => {
      for (const wish of openWishes(peer)) if (wish.kind === "wanted") wishes.get(peer)?.delete(wish)
    },
    /**
     * A dial of the peer has failed. Dials the addresses of its wishes in the background, where another peer may
     * answer: where one did, and where several may be behind one name. A peer that refuses does answer.
     */
    failed: (peer: PeerRecord, error: ConnectError): Effect.Effect<void> =>
      Effect.suspend(() => {
        const byAddress = new Map<Multiaddr, Array<Wish>>()
        for (const wish of openWishes(peer)) {
          const isName = wish.address.startsWith("/dns")
          if (!isName && (isRefusal(error) || !peer.addresses.isOfAnotherNow(wish.address))) continue
          byAddress.set(wish.address, [...byAddress.get(wish.address) ?? [], wish])
        }
        if (byAddress.size === 0) return Effect.void
        const dial = Effect.forEach(byAddress, ([address, waiting]) => dialAddress(peer, address, waiting), {
          discard: true
        })
        return Effect.asVoid(dials.run(peer.id, Effect.annotateLogs(dial, { component: "connections" })))
      })
  }
})
