/**
 * Three peers that know nothing of each other meet on the local network, by mDNS.
 *
 *     node scripts/run.mjs examples/02-three-peers.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { Network } from "../src/index.ts"

/** Resolves when the node has at least so many peers. */
const untilPeers = (node: Network["Service"], count: number) =>
  Stream.merge(
    node.events.pipe(Stream.filter((event) => event._tag === "PeerConnected"), Stream.mapEffect(() => node.peerCount)),
    // The peers may have come before the subscription to the events.
    Stream.fromEffectRepeat(Effect.delay(node.peerCount, "100 millis"))
  ).pipe(Stream.takeUntil((peers) => peers >= count), Stream.runDrain)

const program = Effect.gen(function*() {
  const nodes = yield* Effect.all([Network.make(), Network.make(), Network.make()], { concurrency: 3 })
  yield* Effect.forEach(nodes, (node) => untilPeers(node, 2), { concurrency: 3 })
  for (const node of nodes) {
    yield* Console.log(`${node.localPeer} has ${yield* node.peerCount} peers:`)
    for (const peer of yield* node.peers) yield* Console.log(`  ${peer.id} (${peer.direction})`)
  }
})

program.pipe(Effect.scoped, Effect.timeout("30 seconds"), NodeRuntime.runMain)
