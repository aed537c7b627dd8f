/**
 * Which of several providers to ask first, by what this node knows of them.
 */
import { Array, Duration, Effect, Option, Order } from "effect"
import type { PeerId, PeerInfo, ToldAddresses } from "../../../schema/Peer.ts"
import type { LastContact } from "../../../services/ConnectionManager.ts"

export interface ProviderRankingOptions {
  /** A connected peer. */
  readonly peer: (id: PeerId) => Effect.Effect<Option.Option<PeerInfo>>
  readonly lastContact: (id: PeerId) => Effect.Effect<LastContact>
}

/**
 * The providers, best first:
 * 1. connected directly, then connected over a relay, each by round-trip time;
 * 2. reached by their last dial, the latest first;
 * 3. unknown, in the order given, those without an address after the others;
 * 4. not reached by their last dial, or disconnected or blocked by this node.
 */
export const rank = <A extends ToldAddresses>(
  options: ProviderRankingOptions,
  providers: Array.NonEmptyReadonlyArray<A>
): Effect.Effect<Array.NonEmptyReadonlyArray<A>> =>
  providers.length === 1
    ? Effect.succeed(providers)
    : Effect.map(
      Effect.forEach(providers, (provider) => Effect.map(rankOf(options, provider), (rank) => ({ provider, rank }))),
      // Sorting is stable.
      (ranked) => Array.map(Array.sort(ranked, byRank), ({ provider }) => provider)
    )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Rank {
  readonly group: number
  /** Orders the providers of a group: the smaller, the better. */
  readonly within: number
}

const groups = { direct: 0, relayed: 1, reached: 2, unknown: 3, withoutAddress: 4, failing: 5 }

const rankOf = Effect.fnUntraced(function*(
  { lastContact, peer }: ProviderRankingOptions,
  { addresses, id }: ToldAddresses
): Effect.fn.Return<Rank> {
  const connected = yield* peer(id)
  if (Option.isSome(connected)) {
    const { path, roundTripTime } = connected.value
    // A round-trip time that is not measured yet comes after any that is.
    const within = roundTripTime === undefined ? Number.MAX_VALUE : Duration.toMillis(roundTripTime)
    return { group: path._tag === "Direct" ? groups.direct : groups.relayed, within }
  }
  const { failedAt = -Infinity, isDismissed, reachedAt = -Infinity } = yield* lastContact(id)
  if (isDismissed || failedAt > reachedAt) return { group: groups.failing, within: 0 }
  if (reachedAt > -Infinity) return { group: groups.reached, within: -reachedAt }
  return { group: addresses.length > 0 ? groups.unknown : groups.withoutAddress, within: 0 }
})

const byRank: Order.Order<{ readonly rank: Rank }> = Order.combine(
  Order.mapInput(Order.Number, ({ rank }) => rank.group),
  Order.mapInput(Order.Number, ({ rank }) => rank.within)
)
