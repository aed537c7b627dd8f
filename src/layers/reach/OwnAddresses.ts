/**
 * Announces the addresses that this machine gets while the node runs: another network, a cable, a tunnel. [libp2p]
 *
 * A listener on all interfaces is reachable at a new address at once. Fault: libp2p reads its addresses when it begins
 * to listen, so it announces no later address, and holds a public address back for ever.
 */
import { Effect, Layer, Stream } from "effect"
import { NetworkMonitor } from "../../services/NetworkMonitor.ts"
import { Libp2pHost } from "../libp2p/Host.ts"
import { confirmOwn } from "../libp2p/Listening.ts"
import * as Supervised from "../Supervised.ts"

/**
 * Announces the machine's addresses to the connected peers, and to the transport's `addresses`, after each change of
 * its interfaces while the scope lives.
 */
export const make = Effect.gen(function*() {
  const { components } = yield* Libp2pHost
  const { changes } = yield* NetworkMonitor
  yield* Supervised.fork(
    "own addresses",
    changes.pipe(
      Stream.filter(({ _tag }) => _tag === "AddressesChanged"),
      Stream.runForEach(() => Supervised.once("own addresses", Effect.sync(() => confirmOwn(components))))
    )
  )
})

/** {@link make} as a Layer. */
export const layer: Layer.Layer<never, never, Libp2pHost | NetworkMonitor> = Layer.effectDiscard(make)
