/**
 * The machine's network interfaces, and the moments at which lost peers are worth another try.
 *
 * Gotchas
 * - After a sleep old sockets look open although the peers behind them are gone. Health checks find that out, not this.
 */
import type { Duration, Effect, Stream } from "effect"
import { Context } from "effect"

/**
 * An address of one of the machine's interfaces. `prefixLength` is the length of its subnet's prefix in bits;
 * `internal` is true for loopback.
 */
export interface NetworkInterface {
  readonly address: string
  readonly prefixLength: number
  readonly family: 4 | 6
  readonly internal: boolean
}

/**
 * What happened to the machine.
 *
 * - `AddressesChanged`: its interfaces have other addresses than before: another network, a cable, a tunnel.
 * - `Awoke`: the machine or this process did not run for `after`: a sleeping laptop, a suspended container, a debugger.
 */
export type NetworkChange =
  | { readonly _tag: "AddressesChanged" }
  | { readonly _tag: "Awoke"; readonly after: Duration.Duration }

/** Watches the machine's network and its sleep. */
export class NetworkMonitor extends Context.Service<NetworkMonitor, {
  /** The addresses of the interfaces, as of the last look. The same array until one has changed. */
  readonly interfaces: Effect.Effect<ReadonlyArray<NetworkInterface>>
  /** All changes from now on, without end. A reader that is more than 16 changes behind loses the oldest. */
  readonly changes: Stream.Stream<NetworkChange>
}>()("codio-network/services/NetworkMonitor") {}
