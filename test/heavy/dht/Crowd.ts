/**
 * A network of many nodes of this library in one process, on sockets of loopback, which has settled.
 */
import { Context, Duration, Effect, Layer, Option, References, Schedule, type Scope } from "effect"
import { createHash } from "node:crypto"
import { ContentKey, HealthPolicy, Network, type NetworkStartError, type PeerId } from "../../../src/index.ts"
import { Libp2pHost } from "../../../src/layers/index.ts"
import { Dht } from "../../../src/services/Dht.ts"
import type { NetworkConfigInput } from "../../../src/services/NetworkConfig.ts"
import { peerIdFromString } from "@libp2p/peer-id"

export interface Member {
  readonly id: PeerId
  readonly network: Network["Service"]
  readonly dht: Dht["Service"]
  readonly address: string
  /** The peers in its routing table. */
  readonly known: Effect.Effect<ReadonlySet<string>>
  /** Has the node forget everything about a peer, as after days, except that it is in the routing table. */
  readonly forget: (id: PeerId) => Effect.Effect<void>
}

export class Crowd extends Context.Service<Crowd, { readonly members: ReadonlyArray<Member> }>()(
  "codio-network/test/Crowd"
) {
  /** So many nodes, each of which has its closest peers in its table. */
  static readonly layer = (size: number): Layer.Layer<Crowd, NetworkStartError> =>
    Layer.effect(
      Crowd,
      Effect.gen(function*() {
        const members: Array<Member> = []
        for (let i = 0; i < size; i++) members.push(yield* makeMember())
        for (const [index, member] of members.entries()) {
          // Two earlier members. The first few know each other, so that a path leads from each node to each other.
          for (const other of new Set([Math.floor(index / 2), index - 1])) {
            if (other < 0 || other === index) continue
            // With hundreds of nodes in one thread a handshake may be one too many, or take too long, and is reset.
            yield* member.network.connect(members[other]!.address).pipe(
              Effect.retry({ times: 10, schedule: Schedule.spaced("1 second") }),
              Effect.orDie
            )
          }
        }
        yield* settle(members, members.map(({ id }) => id))
        return { members }
      })
    )
}

/** A node that has a slot for every other node, and that pings no peer, since none dies here. */
export const makeMember = (
  options: NetworkConfigInput = {}
): Effect.Effect<Member, NetworkStartError, Scope.Scope> =>
  Effect.gen(function*() {
    const context = yield* Layer.build(Layer.fresh(Network.layer({
      listenAddresses: ["/ip4/127.0.0.1/tcp/0"],
      enableMdns: false,
      enableRelay: false,
      maxPeers: 250,
      minPeers: 0,
      inboundRate: 1_000,
      inboundBurst: 10_000,
      maxPendingInbound: 1_000,
      // Hundreds of nodes share one thread while they meet.
      dialTimeout: "2 minutes",
      ...options
    })))
    const network = Context.get(context, Network)
    const { peerStore } = Context.get(context, Libp2pHost.Libp2pHost).components
    const [address] = yield* network.addresses
    return {
      id: network.localPeer,
      network,
      dht: Context.get(context, Dht),
      address: address!,
      forget: (id: PeerId) => Effect.promise(async () => peerStore.delete(peerIdFromString(id))),
      // Kademlia tags the peers of its table.
      known: Effect.promise(async () => {
        const peers = await peerStore.all()
        return new Set(peers.filter(({ tags }) => tags.has("kad-peer")).map(({ id }) => id.toString()))
      })
    }
  }).pipe(
    Effect.provideService(References.MinimumLogLevel, "Error"),
    Effect.provideService(HealthPolicy, { probe: Schedule.spaced("1 hour"), timeout: "1 minute", maxFailures: 2 })
  )

/**
 * Waits until each member has its closest peers in its table. A member that lacks one looks up its own position, as
 * Kademlia does by itself every few minutes.
 */
export const settle = Effect.fnUntraced(function*(members: ReadonlyArray<Member>, all: ReadonlyArray<string>) {
  while (true) {
    const lacking: Array<Member> = []
    for (const member of members) {
      const known = yield* member.known
      if (closest(without(all, member.id), ownKey(member.id)).some((id) => !known.has(id))) lacking.push(member)
    }
    if (lacking.length === 0) return
    // On a busy machine a lookup may time out, after it has met some nodes.
    yield* Effect.forEach(lacking, ({ dht, id }) => Effect.option(dht.closestPeers(ownKey(id))), {
      concurrency: 4,
      discard: true
    })
    yield* Effect.sleep("100 millis")
  }
})

/** A key that nobody has used before. */
export const randomKey = (): ContentKey.ContentKey => ContentKey.fromBytes(crypto.getRandomValues(new Uint8Array(32)))

/** The key that has the position of a peer. */
const ownKey = (id: string): ContentKey.ContentKey =>
  ContentKey.fromRustRecordKey(peerIdFromString(id).toMultihash().bytes)

export const without = (all: ReadonlyArray<string>, ...some: ReadonlyArray<string>): ReadonlyArray<string> =>
  all.filter((id) => !some.includes(id))

/** The 20 of all ids that are closest to a key, nearest first: by the XOR of sha2-256, computed from all. */
export const closest = (all: ReadonlyArray<string>, key: ContentKey.ContentKey): ReadonlyArray<string> => {
  const target = sha256(ContentKey.toBytes(key))
  return all.map((id) => ({ id, distance: positionOf(id).map((byte, index) => byte ^ target[index]!) }))
    .sort((a, b) => Buffer.compare(a.distance, b.distance)).slice(0, 20).map(({ id }) => id)
}

/** Waits until a node that has just joined has so many to ask. */
export const meets = ({ dht, id }: Member, count = 3): Effect.Effect<void> =>
  Effect.repeat(Effect.option(dht.closestPeers(ownKey(id))), {
    until: (found) => Option.isSome(found) && found.value.length >= count,
    schedule: Schedule.spaced("50 millis")
  }).pipe(Effect.asVoid)

/**
 * The outcome of the last of three runs, and the milliseconds of the quickest: on a busy machine not every run is slow.
 */
export const quickest = <A, E>(run: Effect.Effect<A, E>): Effect.Effect<readonly [number, A], E> =>
  Effect.map(Effect.all([Effect.timed(run), Effect.timed(run), Effect.timed(run)]), (runs) => [
    Math.min(...runs.map(([took]) => Duration.toMillis(took))),
    runs[2][1]
  ])

// internal ------------------------------------------------------------------------------------------------------------

const positions = new Map<string, Uint8Array>()

function positionOf(id: string): Uint8Array {
  const position = positions.get(id) ?? sha256(peerIdFromString(id).toMultihash().bytes)
  positions.set(id, position)
  return position
}

function sha256(bytes: Uint8Array): Uint8Array {
  return createHash("sha256").update(bytes).digest()
}
