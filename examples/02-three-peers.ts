/**
 * Three peers that know nothing of each other meet by mDNS; one provides a key, another finds it.
 *
 *     node examples/02-three-peers.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { ContentKey, Network } from "../src/index.ts"

/** Resolves when the node has so many peers. */
const untilPeers = (node: Network["Service"], count: number) =>
  Effect.gen(function*() {
    const connected = node.events.pipe(
      Stream.filter((event) => event._tag === "PeerConnected"),
      Stream.mapEffect(() => node.peerCount)
    )
    // The event may have been before the subscription, so the count is read as well.
    yield* Stream.merge(connected, Stream.fromEffectRepeat(Effect.delay(node.peerCount, "100 millis"))).pipe(
      Stream.takeUntil((peers) => peers >= count),
      Stream.runDrain
    )
  })

const program = Effect.gen(function*() {
  const nodes = yield* Effect.all([Network.make(), Network.make(), Network.make()], { concurrency: 3 })
  const [alice, bob, carol] = nodes
  yield* Effect.forEach(nodes, (node) => untilPeers(node, 2), { concurrency: 3 })
  for (const node of nodes) yield* Console.log(`${node.localPeer} has ${yield* node.peerCount} peers`)

  const key = ContentKey.fromText("the cat video")
  yield* alice.startProviding(key)
  yield* Console.log(`${alice.localPeer} provides ${key}`)

  // The announcement travels while the others ask, so each asks until somebody knows.
  for (const node of [bob, carol]) {
    const provider = yield* node.findProviders(key).pipe(
      Stream.concat(Stream.drain(Stream.fromEffect(Effect.sleep("100 millis")))),
      Stream.forever,
      Stream.runHead,
      Effect.flatMap(Effect.fromOption)
    )
    yield* Console.log(`${node.localPeer} found ${provider.id}`)
  }
})

program.pipe(Effect.scoped, Effect.timeout("30 seconds"), NodeRuntime.runMain)
