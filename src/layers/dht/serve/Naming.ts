/**
 * Which addresses of others this node names to those that ask it.
 *
 * Whoever asks takes this node for the teller of what it answers. If a stranger on the internet could have this node
 * name `10.0.0.5`, the neighbours of this node would dial that address, since they trust a teller of their own subnet.
 * So a private address is named, or kept in a provider record, only where the address guard would let this node itself
 * dial it on the word of one of its tellers. A public address and a name are always named, over TCP or not: those who
 * ask judge them for themselves.
 */
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, type Scope, Stream } from "effect"
import type { NetAddress } from "effect/net"
import type { NetworkInterface } from "../../../services/NetworkMonitor.ts"
import { NetworkMonitor } from "../../../services/NetworkMonitor.ts"
import type { Multiaddr } from "../../../schema/Peer.ts"
import { ipOf } from "../../../schema/Subnet.ts"
import { reached, reachOf, toldHostOf } from "../../../schema/Reach.ts"
import { AddressGuard, type AddressGuardRule, isDialable } from "../../../services/AddressGuard.ts"
import * as Supervised from "../../Supervised.ts"
import type { NamingRule } from "../wire/Nodes.ts"

/**
 * The rule of this moment; another function after the interfaces of this machine have changed. A guard that throws has
 * no private address named.
 */
export const make: Effect.Effect<() => NamingRule, never, NetworkMonitor | Scope.Scope> = Effect.gen(function*() {
  const monitor = yield* NetworkMonitor
  const guard = yield* AddressGuard
  const run = yield* Supervised.makeRun(work)
  const guarded: AddressGuardRule = (address, machine) => {
    try {
      return guard(address, machine)
    } catch (error) {
      run(Effect.die(error))
      return false
    }
  }
  const read = Effect.map(monitor.interfaces, (interfaces) => ruleOf(guarded, interfaces))
  let rule = yield* read
  yield* Supervised.fork(
    work,
    monitor.changes.pipe(
      Stream.filter(({ _tag }) => _tag === "AddressesChanged"),
      Stream.runForEach(() =>
        Supervised.once(
          work,
          Effect.map(read, (next) => {
            rule = next
          })
        )
      )
    )
  )
  return () => rule
})

/** The rule of a guard on a machine with these interfaces. Bytes that are no address are not named. */
export const ruleOf =
  (guard: AddressGuardRule, interfaces: ReadonlyArray<NetworkInterface>): NamingRule => (bytes, tellers) => {
    const address = readable(bytes)
    if (address === undefined) return false
    const [, host = "", port] = hostAndPort.exec(address) ?? []
    if (isPublic(ipOf(host as Multiaddr))) return true
    const judged = host === "" ? address : `${host}/tcp/${port}` as Multiaddr
    return typeof toldHostOf(judged) === "string" || isDialable(guard, judged, interfaces, tellers)
  }

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const work = "the addresses that the DHT names"

/** The address as text. Some bytes are a multiaddr that throws when it is printed. */
function readable(bytes: Uint8Array): Multiaddr | undefined {
  try {
    const text = multiaddr(bytes).toString()
    return text === "/" ? undefined : text as Multiaddr
  } catch {
    return undefined
  }
}

/**
 * The host and port of an address, which the guard is asked about as if it were TCP: others may speak what the
 * transports here do not, such as QUIC. Of a relayed address those of the relay.
 */
const hostAndPort = /^(\/(?:ip4|ip6|dns|dns4|dns6)\/[^/]+)\/(?:tcp|udp)\/([1-9]\d*)/

const isPublic = (ip: NetAddress.IpAddress | undefined): boolean =>
  ip !== undefined && reached(ip).every((one) => reachOf(one) === "public")
