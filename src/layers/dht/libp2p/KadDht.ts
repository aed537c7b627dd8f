/**
 * The DHT: this library's engine over the routing table of kad-dht. [libp2p]
 *
 * Questions, lookups, the server and its records are this library's own (`Engine`, `Streams`, `Handler`). kad-dht stays
 * underneath for what is subtle and not hot: the routing table with its pings and evictions, its refresh, and the mode
 * (client or server). It gets a registrar that hands the protocol's streams to our server, and its table is read
 * through `Table`. When the private members of kad-dht that this relies on are missing, the layer fails with a
 * `HostError` that names them.
 *
 * Gotchas
 * - Kademlia opens connections on its own, to the peers that a lookup passes. They count against `maxPeers`, at the
 *   lowest interest.
 */
import { Effect, Latch, Layer, type Scope } from "effect"
import type { KeyValueStore } from "effect/persistence"
import type { HostError } from "../../../schema/NetworkError.ts"
import { Dht } from "../../../services/Dht.ts"
import type { Discovery } from "../../../services/Discovery.ts"
import { Identity } from "../../../services/Identity.ts"
import { NetworkConfig } from "../../../services/NetworkConfig.ts"
import type { NetworkMonitor } from "../../../services/NetworkMonitor.ts"
import * as Attachment from "./Attachment.ts"
import * as Engine from "../Engine.ts"
import * as Handler from "./Handler.ts"
import { RequestError } from "./PeerQueues.ts"
import * as Peers from "./Peers.ts"
import * as PublishedValue from "./PublishedValue.ts"
import * as Streams from "./Streams.ts"
import { Libp2pHost } from "../../libp2p/Host.ts"

/** Starts the DHT of this node. */
export const make: Effect.Effect<
  Dht["Service"],
  HostError,
  Libp2pHost | Identity | NetworkConfig | NetworkMonitor | Discovery | KeyValueStore.KeyValueStore | Scope.Scope
> = Effect.flatMap(Attachment.make, (attached) => engine(attached)).pipe(Effect.annotateLogs({ component: "dht" }))

/**
 * The DHT on the host's node. Provided keys outlive the process when the `KeyValueStore` does.
 */
export const layer: Layer.Layer<
  Dht,
  HostError,
  Libp2pHost | Identity | NetworkConfig | NetworkMonitor | Discovery | KeyValueStore.KeyValueStore
> = Layer.effect(Dht, make)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const engine = Effect.fnUntraced(function*(attached: Attachment.Attachment) {
  const { components } = yield* Libp2pHost
  const { kadProtocol } = yield* NetworkConfig
  const { addressManager, events } = components
  const peers = yield* Peers.make(attached.table)
  const streams = yield* Streams.make({ protocol: kadProtocol })

  const changed = yield* Latch.make()
  const onSelfUpdate = () => {
    changed.openUnsafe()
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      events.addEventListener("self:peer:update", onSelfUpdate)
      events.addEventListener("transport:listening", onSelfUpdate)
    }),
    () =>
      Effect.sync(() => {
        events.removeEventListener("self:peer:update", onSelfUpdate)
        events.removeEventListener("transport:listening", onSelfUpdate)
      })
  )

  const { askForPeer, dht, server } = yield* Engine.make({
    peers,
    request: (node, question, before) =>
      streams.request(node, question, before).pipe(
        Effect.tap(() => Effect.sync(() => peers.answered(node))),
        Effect.tapError(({ reason }) =>
          Effect.sync(() => {
            // A dial that this node's own gate refused says nothing about the peer.
            if (reason === "Unsupported" || reason === "Unreachable") peers.gone(node, reason === "Unreachable")
          })
        )
      ),
    isSilence: (error, isSlow) => {
      const reason = error instanceof RequestError ? error.reason : "Denied"
      return reason !== "Denied" && (isSlow || reason === "TimedOut" || reason === "Unreachable")
    },
    send: streams.send,
    closest: attached.table.closest,
    addresses: () => addressManager.getAddresses().map(String),
    read: Peers.read,
    namespaces: yield* PublishedValue.namespaces,
    signer: yield* Identity,
    changed
  })
  attached.findPeer = (id, signal) => Effect.runPromise(askForPeer(id), signal === undefined ? {} : { signal })
  attached.serve = yield* Handler.make(server, components)
  return dht
})
