/**
 * How many relays are used, and how they are asked.
 */
import { Context, type Duration, Schedule } from "effect"

/** How a node looks for relays, and how many reservations it wants. */
export interface RelayPolicyOptions {
  /** Relays among the connected peers are used while fewer relays than this are. Those of `relayPeers` are all used. */
  readonly relays: number
  /** The waits after a refusal. */
  readonly retry: Schedule.Schedule<unknown>
  /** Refusals in a row after which a relay that is not of `relayPeers` is left alone for `rest`. */
  readonly refusals: number
  readonly rest: Duration.Input
  /** The time between two renewals of a place. */
  readonly renew: Duration.Input
}

/**
 * Two relays, since a relay of plain js-libp2p forgets a place after some hours, and a renewal every 5 minutes, which it answers with a new
 * place. A refusal is followed by 1 s, doubling to 1 minute; a relay that was met is left for 10 minutes after the third. Replace it with
 * `Layer.succeed`.
 */
export const RelayPolicy = Context.Reference<RelayPolicyOptions>("codio-network/services/RelayPolicy", {
  defaultValue: () => ({
    relays: 2,
    retry: Schedule.min([Schedule.exponential("1 second", 2), Schedule.spaced("1 minute")]).pipe(Schedule.jittered),
    refusals: 3,
    rest: "10 minutes",
    renew: "5 minutes"
  })
})
