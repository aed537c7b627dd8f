/**
 * The `NetworkMonitor` of the machine that Node runs on. Node reports no changes of interfaces, so this looks every two
 * seconds.
 */
import { Clock, Duration, Effect, Layer, PubSub, Stream } from "effect"
import { networkInterfaces } from "node:os"
import { type NetworkChange, type NetworkInterface, NetworkMonitor } from "../../services/NetworkMonitor.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"

/** The time between two looks. */
export const interval = Duration.seconds(2)

/**
 * A look that comes this much too late means that the machine or the process stood still. A busy process is late by
 * less.
 */
export const lateness = Duration.seconds(8)

/**
 * A monitor that calls `read` every {@link interval} while the scope lives.
 */
export const make = Effect.fnUntraced(
  function*(read: Effect.Effect<ReadonlyArray<NetworkInterface>> = interfacesOfMachine) {
    const hub = yield* Effect.acquireRelease(PubSub.sliding<NetworkChange>(16), PubSub.shutdown)
    let current = yield* read
    const now = Elapsed.withSleep(yield* Clock.Clock)
    let looked = now()

    const look = Effect.gen(function*() {
      const away = Duration.millis(now() - looked)
      looked = now()
      const seen = yield* read
      const hasChanged = show(seen) !== show(current)
      if (hasChanged) current = seen
      if (Duration.isGreaterThan(away, Duration.sum(interval, lateness))) {
        yield* PubSub.publish(hub, { _tag: "Awoke", after: away })
      }
      if (hasChanged) yield* PubSub.publish(hub, { _tag: "AddressesChanged" })
    })
    yield* Supervised.forever("the watch over the interfaces", Effect.andThen(Effect.sleep(interval), look))

    return NetworkMonitor.of({ interfaces: Effect.sync(() => current), changes: Stream.fromPubSub(hub) })
  }
)

/** The addresses of this machine's interfaces now. */
export const interfacesOfMachine: Effect.Effect<ReadonlyArray<NetworkInterface>> = Effect.sync(() =>
  Object.values(networkInterfaces()).flatMap((addresses) =>
    (addresses ?? []).map(({ address, cidr, family, internal }) => ({
      address,
      prefixLength: Number(cidr?.split("/")[1] ?? (family === "IPv4" ? 32 : 128)),
      family: family === "IPv4" ? 4 : 6,
      internal
    }))
  )
)

/** The `NetworkMonitor` that looks every two seconds. */
export const layer: Layer.Layer<NetworkMonitor> = Layer.effect(NetworkMonitor, make())

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Sorted, since the system may list the same interfaces in another order.
const show = (interfaces: ReadonlyArray<NetworkInterface>): string =>
  interfaces.map(({ address, prefixLength }) => `${address}/${prefixLength}`).sort().join(" ")
