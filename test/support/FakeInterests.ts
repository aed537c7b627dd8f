/**
 * Interests that a spec of the peer table sets by hand, instead of the connection manager's book.
 */
import { Context, Effect, Layer } from "effect"
import { type Interest, interestRank, type PeerId } from "../../src/schema/Peer.ts"
import { Interests } from "../../src/services/Interests.ts"
import { PeerTable } from "../../src/services/PeerTable.ts"

/** What the spec has set: a peer that is absent is transient. */
export class FakeInterests extends Context.Service<FakeInterests, {
  readonly set: Map<PeerId, Interest>
  readonly blocked: Set<PeerId>
}>()("test/FakeInterests") {}

export const layer: Layer.Layer<Interests | FakeInterests> = Layer.effect(
  Interests,
  Effect.map(FakeInterests, ({ blocked, set }) => ({
    of: (peer: PeerId) => set.get(peer) ?? "transient",
    isBlocked: (peer: PeerId) => blocked.has(peer),
    *wanted() {
      for (const [peer, interest] of set) if (interestRank(interest) >= interestRank("wanted")) yield peer
    }
  }))
).pipe(
  Layer.provideMerge(
    Layer.sync(FakeInterests, () => ({ set: new Map<PeerId, Interest>(), blocked: new Set<PeerId>() }))
  )
)

/** Wants the peer as much as that from now on, and tells the table as the connection manager does. */
export const rank = Effect.fnUntraced(function*(peer: PeerId, interest: Interest) {
  const { set } = yield* FakeInterests
  const former = set.get(peer)
  set.set(peer, interest)
  if (former === "kept" && interest !== "kept") yield* (yield* PeerTable).interestFell(peer)
})
