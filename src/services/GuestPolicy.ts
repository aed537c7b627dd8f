/**
 * How long a peer that only the remote keeps has its slot for sure.
 */
import { Context, type Duration } from "effect"

/**
 * A guest is a transient peer whose own program keeps this node: it is never idle, and would have its slot for ever.
 */
export interface GuestPolicyOptions {
  /**
   * How long a guest is connected before it may make room for a newcomer. A guest that keeps this node anew does not
   * begin anew: the time counts from its connection.
   */
  readonly stay: Duration.Input
  /**
   * Guests make room only while they are so many of the peers that may be evicted at all, from 0 to 1. Below it other
   * strangers come and go, so that a slot becomes free without a guest.
   */
  readonly share: number
}

/** A guest has 10 minutes, and makes room while guests are half of the peers that may be evicted. */
export const defaultGuestPolicy: GuestPolicyOptions = { stay: "10 minutes", share: 0.5 }

/**
 * How long a guest keeps its slot. A guest ranks above other transient peers: whoever is wanted here evicts those
 * before it. When a full table has many guests, one whose stay is over makes room for a newcomer, the one that is
 * connected for longest first, unless it has other streams open. It is told so, and may come again.
 *
 * The default is {@link defaultGuestPolicy}. Read by the default of `EvictionPolicy`. Replace it with `Layer.succeed`.
 */
export const GuestPolicy = Context.Reference<GuestPolicyOptions>("codio-network/services/GuestPolicy", {
  defaultValue: () => defaultGuestPolicy
})
