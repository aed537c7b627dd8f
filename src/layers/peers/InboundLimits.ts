/**
 * Refuses inbound connections before any cryptography, when their addresses alone show that there are too many.
 *
 * Every refusal of the gate is counted here, by reason.
 *
 * The token buckets are kept by hand: effect's `RateLimiter` never forgets one, and would hold a bucket for every host
 * that ever came. Here they are 4,096 at most; those unseen for longest go first.
 */
import { Effect, Metric } from "effect"
import type { RefusalReason } from "../../schema/NetworkEvent.ts"
import type { Multiaddr } from "../../schema/Peer.ts"
import { hostNetworkOf } from "../../schema/Subnet.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import * as NetworkMetrics from "../../services/NetworkMetrics.ts"
import { PeerTable } from "../../services/PeerTable.ts"
import type { GateRequest } from "../../services/Transport.ts"
import { BoundedMap } from "../BoundedMap.ts"
import * as Elapsed from "../Elapsed.ts"

/** How many hosts have a token bucket. A host whose bucket was dropped begins with a full burst. */
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
  const buckets = new BoundedMap<string, Bucket>(hostsMax)
  // The hosts of pending connections. Each arrival is compared with all of them, and parsing an address takes time.
  const hosts = new BoundedMap<Multiaddr, string>(2 * maxPendingInbound)
  const refusals: Partial<Record<RefusalReason, number>> = {}
  // Half for one host: a host that never speaks leaves room for others.
  const pendingPerHost = Math.ceil(maxPendingInbound / 2)

  const takes = (host: string, now: number): boolean => {
    const bucket = buckets.get(host) ?? { tokens: inboundBurst, filledAt: now }
    buckets.set(host, bucket)
    bucket.tokens = Math.min(inboundBurst, bucket.tokens + (now - bucket.filledAt) * inboundRate / 1000)
    bucket.filledAt = now
    // Sums of fractions are off by a rounding error.
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
    // One host can have this many only if there are this many in all.
    if (pending.length >= pendingPerHost) {
      let ofHost = 0
      for (const other of pending) if ((hosts.get(other) ?? hostOf(other)) === host) ofHost++
      if (ofHost >= pendingPerHost) return "pending"
    }
    if (!takes(host, yield* Elapsed.millis)) return "rate"
    hosts.set(remoteAddress, host)
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

// Peers that come through a relay have no address of their own here, so those of one relay are counted together. The
// last part of other kinds of address, such as the simulator's, is the port.
function hostOf(address: Multiaddr): string {
  const relayed = /\/p2p\/([^/]+)\/p2p-circuit/.exec(address)
  return relayed?.[1] ?? hostNetworkOf(address) ?? address.replace(/[:/][^:/]*$/, "")
}
