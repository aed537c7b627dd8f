/**
 * Keys that somebody has crowded with ids of his own: told from others by `KadCrowding`, and looked beyond.
 */
import { Clock, Effect, Metric } from "effect"
import * as NetworkMetrics from "../../../services/NetworkMetrics.ts"
import * as KadCrowding from "./Crowding.ts"
import type { LookupPeer, LookupResult } from "./Lookup.ts"
import type { Position } from "../wire/Position.ts"

export interface KadBeyondOptions<P extends LookupPeer> {
  /** How many of the closest peers a lookup is for: k. */
  readonly count: number
  /** Looks up the peers closest to the position of these bytes. */
  readonly lookup: (bytes: Uint8Array) => Effect.Effect<LookupResult<P>>
}

export interface KadBeyond<P extends LookupPeer> {
  /** Learns from a lookup how large the network is. */
  readonly observe: (target: Position, closest: ReadonlyArray<P>) => void
  /**
   * Honest peers around a crowded key, beyond the crowd; none when it is not crowded, as far as can be told. Who provides and who looks for
   * the key finds the same ones. The warning comes at most once a minute.
   */
  readonly peersBeyond: (target: Position, closest: ReadonlyArray<P>) => Effect.Effect<ReadonlyArray<P>>
}

export const make = <P extends LookupPeer>({ count, lookup }: KadBeyondOptions<P>): KadBeyond<P> => {
  const size = KadCrowding.makeNetworkSize()
  let warnedAt = -Infinity

  return {
    observe: size.observe,
    peersBeyond: Effect.fnUntraced(function*(target, closest) {
      const estimate = size.estimate()
      if (estimate === undefined || !KadCrowding.crowdingOf(target, closest, estimate).isCrowded) return []
      yield* Metric.update(NetworkMetrics.crowdedLookups, 1)
      const now = yield* Clock.currentTimeMillis
      if (now >= warnedAt + warningMillis) {
        warnedAt = now
        yield* Effect.logWarning(
          `the ${closest.length} nodes closest to a key are improbably near to it; its records are kept beyond them, too`
        )
      }
      const { isInRegion, targets } = KadCrowding.beyond(target, estimate, count)
      const found = new Map<string, P>()
      for (const place of targets) {
        const result = yield* Effect.flatMap(KadCrowding.keyOf(place), lookup)
        for (const peer of result.closest) if (isInRegion(peer)) found.set(peer.key, peer)
      }
      // The crowd is in there too, and has been asked.
      for (const { key } of closest) found.delete(key)
      return [...found.values()]
    })
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const warningMillis = 60_000
