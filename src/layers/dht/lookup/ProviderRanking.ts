/**
 * Who of several providers to ask first, by what this node knows of them.
 */
import { Array, DateTime, Duration, Effect, Option, Order } from "effect"
import type { Provider } from "../../../schema/Content.ts"
import type { PeerExplanation } from "../../../schema/NodeStatus.ts"
import type { PeerId, PeerInfo } from "../../../schema/Peer.ts"

export interface ProviderRankingOptions {
  /** A connected peer. */
  readonly peer: (id: PeerId) => Effect.Effect<Option.Option<PeerInfo>>
  readonly explain: (id: PeerId) => Effect.Effect<PeerExplanation>
}

/**
 * The providers, best first: connected ones straight before relayed, each by round-trip time; then those that a dial has reached before, the
 * latest first; then those of whom nothing is known, as they came; then those without an address; last those whom the last dial did not
 * reach, and those that this node has disconnected or blocked.
 */
export const rank = <A extends Provider>(
  options: ProviderRankingOptions,
  providers: Array.NonEmptyReadonlyArray<A>
): Effect.Effect<Array.NonEmptyReadonlyArray<A>> =>
  providers.length === 1
    ? Effect.succeed(providers)
    : Effect.map(
      Effect.forEach(providers, (provider) => Effect.map(placeOf(options, provider), (place) => ({ provider, place }))),
      // Sorting is stable.
      (ranked) => Array.map(Array.sort(ranked, byPlace), ({ provider }) => provider)
    )

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Place {
  readonly group: number
  /** The smaller, the better. */
  readonly within: number
}

const placeOf = Effect.fnUntraced(function*(options: ProviderRankingOptions, provider: Provider) {
  const connected = yield* options.peer(provider.id)
  if (Option.isSome(connected)) {
    const { path, roundTripTime } = connected.value
    // Not measured yet is worse than any measure.
    const within = roundTripTime === undefined ? Number.MAX_VALUE : Duration.toMillis(roundTripTime)
    return { group: path._tag === "Direct" ? groups.direct : groups.relayed, within }
  }
  const { addresses, isBlocked, isSuspended } = yield* options.explain(provider.id)
  let lastSuccess: number | undefined
  let lastFailure: number | undefined
  for (const address of addresses) {
    lastSuccess = latest(lastSuccess, address.lastSuccess)
    lastFailure = latest(lastFailure, address.lastFailure)
  }
  const isFailing = lastFailure !== undefined && lastFailure > (lastSuccess ?? -Infinity)
  const place: Place = isBlocked || isSuspended || isFailing
    ? { group: groups.failing, within: 0 }
    : lastSuccess !== undefined
    ? { group: groups.reached, within: -lastSuccess }
    : { group: provider.addresses.length > 0 ? groups.unknown : groups.nowhere, within: 0 }
  return place
})

const byPlace: Order.Order<{ readonly place: Place }> = Order.combine(
  Order.mapInput(Order.Number, ({ place }) => place.group),
  Order.mapInput(Order.Number, ({ place }) => place.within)
)

const groups = { direct: 0, relayed: 1, reached: 2, unknown: 3, nowhere: 4, failing: 5 }

function latest(one: number | undefined, other: DateTime.Utc | undefined): number | undefined {
  if (other === undefined) return one
  return Math.max(one ?? -Infinity, DateTime.toEpochMillis(other))
}
