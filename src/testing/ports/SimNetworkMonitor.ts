/**
 * The `NetworkMonitor` of a simulated node: tells what `SimNetwork.stall`, `sleep`, `jump` and `readdress` do to its
 * machine, at the moment at which the monitor of a real machine, which looks every two seconds, would notice.
 */
import { Duration, Effect, FiberSet, Layer, PubSub, Stream } from "effect"
import { interval, lateness } from "../../layers/machine/NodeNetworkMonitor.ts"
import { type NetworkChange, NetworkMonitor } from "../../services/NetworkMonitor.ts"
import { SimNetwork } from "../network/SimNetwork.ts"

/**
 * The monitor of the machine of the given name.
 */
export const make = Effect.fnUntraced(function*(name: string) {
  const machine = (yield* SimNetwork).machine(name)
  const hub = yield* Effect.acquireRelease(PubSub.sliding<NetworkChange>(16), PubSub.shutdown)
  const run = yield* FiberSet.makeRuntime()
  let interfaces = machine.interfaces
  const listener = (change: NetworkChange, isDue: boolean) => {
    if (change._tag === "Awoke" && !Duration.isGreaterThan(change.after, Duration.sum(interval, lateness))) return
    const tell = Effect.suspend(() => {
      interfaces = machine.interfaces
      return PubSub.publish(hub, change)
    })
    run(Effect.asVoid(isDue ? tell : Effect.delay(tell, interval)))
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => machine.onChange.add(listener)),
    () => Effect.sync(() => machine.onChange.delete(listener))
  )
  return NetworkMonitor.of({ interfaces: Effect.sync(() => interfaces), changes: Stream.fromPubSub(hub) })
})

/** The `NetworkMonitor` of the named machine. */
export const layer = (name: string): Layer.Layer<NetworkMonitor, never, SimNetwork> =>
  Layer.effect(NetworkMonitor, make(name))
