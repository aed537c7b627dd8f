/**
 * `Health` from `Transport.ping`, by `HealthPolicy`.
 */
import { Duration, Effect, Layer, Result } from "effect"
import { PingError, PingTimeout } from "../schema/NetworkError.ts"
import { PeerUnhealthy } from "../schema/NetworkEvent.ts"
import type { PeerId } from "../schema/Peer.ts"
import { Health } from "../services/Health.ts"
import { HealthPolicy } from "../services/HealthPolicy.ts"
import { NetworkEvents } from "../services/NetworkEvents.ts"
import { PeerTable } from "../services/PeerTable.ts"
import { Transport } from "../services/Transport.ts"

export const make = Effect.gen(function*() {
  const policy = yield* HealthPolicy
  const transport = yield* Transport
  const table = yield* PeerTable
  const events = yield* NetworkEvents
  const timeout = Duration.fromInputUnsafe(policy.timeout)

  const ping = (peer: PeerId) =>
    transport.ping(peer).pipe(
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () => Effect.fail(new PingError({ peer, reason: new PingTimeout({ after: timeout }) }))
      }),
      Effect.tap((roundTripTime) => table.measured(peer, roundTripTime))
    )

  /** Closes the connections, not the entry: the loss then takes the same way as any other, and a kept peer is dialled again. */
  const giveUp = Effect.fnUntraced(function*(peer: PeerId) {
    yield* table.expect(peer, "unhealthy")
    const connections = yield* table.connections(peer)
    yield* Effect.forEach(connections, (connection) => connection.close, { concurrency: "unbounded", discard: true })
  })

  /** One ping, and after a miss the next at once, until an answer or the policy's limit. */
  const probe = Effect.fnUntraced(function*(peer: PeerId) {
    let misses = 0
    while (misses < policy.maxFailures) {
      const result = yield* Effect.result(ping(peer))
      if (Result.isSuccess(result) || result.failure.reason._tag === "PingUnsupported") return
      misses++
      yield* events.publish(new PeerUnhealthy({ peer, misses }))
      // A stream that breaks at once would otherwise use up the misses in one turn, and close a peer that is merely busy.
      if (result.failure.reason._tag === "StreamFailed" && misses < policy.maxFailures) {
        yield* Effect.sleep(timeout)
      }
    }
    yield* giveUp(peer)
  })

  // The first waits until the connection has settled: on both ends identify and the application come first.
  yield* table.eachPeer((peer) => Effect.asVoid(Effect.delay(Effect.repeat(probe(peer), policy.probe), "500 millis")))

  return Health.of({ ping })
})

export const layer: Layer.Layer<Health, never, Transport | PeerTable | NetworkEvents> = Layer.effect(Health, make)
