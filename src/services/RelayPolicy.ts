/**
 * How many relays a node uses, and when it asks them.
 */
import { Context, type Duration, type Schedule } from "effect"
import { exponentialBackoff } from "./ReconnectPolicy.ts"

/** How a node looks for relays, and how many reservations it wants. */
export interface RelayPolicyOptions {
  /**
   * How many relays to use. Those of `relayPeers` are all used, also beyond this number; relays among connected peers
   * fill up the rest.
   */
  readonly relays: number
  /** The waits after a refusal. */
  readonly retry: Schedule.Schedule<unknown>
  /** After how many refusals in a row a relay that is not in `relayPeers` is left alone for `rest`. */
  readonly refusals: number
  readonly rest: Duration.Input
  /** The time between two renewals of a reservation. */
  readonly renew: Duration.Input
}

/**
 * Two relays, and a renewal every 5 minutes: a relay of plain js-libp2p forgets a reservation after some hours, and
 * answers a renewal with a new one. A refusal is followed by a wait of 1 s, doubling to 1 minute. A relay among the
 * connected peers is left for 10 minutes after its third refusal. Replace it with `Layer.succeed`.
 */
export const RelayPolicy = Context.Reference<RelayPolicyOptions>("codio-network/services/RelayPolicy", {
  defaultValue: () => ({
    relays: 2,
    retry: exponentialBackoff,
    refusals: 3,
    rest: "10 minutes",
    renew: "5 minutes"
  })
})
