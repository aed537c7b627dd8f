/**
 * What is refused before any cryptography: inbound connections of which the address alone says that they are too many.
 *
 * Every refusal of the gate is counted here, by reason.
 *
 * A bucket of effect's `RateLimiter` stays in its store for ever, one for each address that ever came, so the buckets here are own ones:
 * 4,096 hosts at most, the longest unseen go first.
 */
import { Clock, Effect, Metric } from "effect"
import type { RefusalReason } from "../../schema/NetworkEvent.ts"
import type { Multiaddr } from "../../schema/Peer.ts"
import { hostNetworkOf } from "../../schema/Subnet.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import * as NetworkMetrics from "../../services/NetworkMetrics.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import type { GateRequest } from "../../services/Transport.ts"

/** Hosts whose rate is remembered. One that is forgotten begins with a full burst. */
const hostsMax = 4_096

interface Bucket {
  tokens: number
  filledAt: number
}

export interface InboundLimits {
  /** The gate's answer in its first stage. Never suspends. */
  readonly arrive: (request: GateRequest & { readonly stage: "address" }) => Effect.Effect<true | RefusalReason>
  /** Counts a refusal of either stage. */
  readonly count: (reason: RefusalReason) => Effect.Effect<void>
  /** Connections refused since the start, by reason. */
  readonly refusals: Effect.Effect<Readonly<Partial<Record<RefusalReason, number>>>>
}

export const make: Effect.Effect<InboundLimits, never, NetworkConfig | PeerTable> = Effect.gen(function*() {
  const { inboundBurst, inboundRate, maxPendingInbound } = yield* NetworkConfig
  const table = yield* PeerTable
  const buckets = new Map<string, Bucket>()
  const refusals: Partial<Record<RefusalReason, number>> = {}
  // A host that opens sockets and never speaks would take all of the others' too.
  const pendingPerHost = Math.ceil(maxPendingInbound / 2)

  const takes = (host: string, now: number): boolean => {
    const bucket = buckets.get(host) ?? { tokens: inboundBurst, filledAt: now }
    // The map's order is that of the last visit.
    buckets.delete(host)
    buckets.set(host, bucket)
    if (buckets.size > hostsMax) {
      for (const oldest of buckets.keys()) {
        buckets.delete(oldest)
        break
      }
    }
    bucket.tokens = Math.min(inboundBurst, bucket.tokens + (now - bucket.filledAt) * inboundRate / 1000)
    bucket.filledAt = now
    // Sums of fractions miss their mark by a rounding error.
    if (bucket.tokens < 1 - 1e-6) return false
    bucket.tokens -= 1
    return true
  }

  const count = (reason: RefusalReason) =>
    Effect.suspend(() => {
      refusals[reason] = (refusals[reason] ?? 0) + 1
      return Metric.update(Metric.withAttributes(NetworkMetrics.refusals, { reason }), 1)
    })

  const problem = Effect.fnUntraced(function*({ pending, remoteAddress }: GateRequest & { readonly stage: "address" }) {
    const host = hostOf(remoteAddress)
    if (pending.length >= maxPendingInbound) return "pending"
    // Counted only when there are so many in all.
    if (pending.length >= pendingPerHost) {
      let ofHost = 0
      for (const other of pending) if (hostOf(other) === host) ofHost++
      if (ofHost >= pendingPerHost) return "pending"
    }
    if (!takes(host, yield* Clock.currentTimeMillis)) return "rate"
    return (yield* table.accepts(remoteAddress)) ? undefined : "subnet"
  })

  return {
    arrive: Effect.fnUntraced(function*(request) {
      const reason = yield* problem(request)
      if (reason === undefined) return true
      yield* count(reason)
      return reason
    }),
    count,
    refusals: Effect.sync(() => ({ ...refusals }))
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Who comes through a relay has no address here: those of one relay are counted together. Of other kinds of address, such as the
// simulator's, the last part is the port.
function hostOf(address: Multiaddr): string {
  const relayed = /\/p2p\/([^/]+)\/p2p-circuit/.exec(address)
  return relayed?.[1] ?? hostNetworkOf(address) ?? address.replace(/[:/][^:/]*$/, "")
}
