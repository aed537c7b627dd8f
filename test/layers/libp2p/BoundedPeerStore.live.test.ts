/**
 * The bound on libp2p's peer store, on a running node.
 */
import { assert, describe, it } from "@effect/vitest"
import { peerIdFromString } from "@libp2p/peer-id"
import { multiaddr } from "@multiformats/multiaddr"
import { Context, Effect, Layer } from "effect"
import { Libp2pHost } from "../../../src/layers/libp2p/Host.ts"
import { Network } from "../../../src/Network.ts"
import type { PeerId } from "../../../src/schema/Peer.ts"
import { SimNetwork } from "../../../src/testing/network/SimNetwork.ts"
import { type Libp2pNode, makeNode } from "../../support/Libp2pNode.ts"

const peersMax = 4
const names = (count: number, from = 0) =>
  Array.from({ length: count }, (_, index) => SimNetwork.peerId(`stranger ${from + index}`))

type Host = Libp2pNode["host"]

/** Somebody names the peer, at this port. */
const hear = ({ components }: Host, id: PeerId, port = 4001) =>
  Effect.promise(() =>
    components.peerStore.merge(peerIdFromString(id), { multiaddrs: [multiaddr(`/ip4/192.0.2.1/tcp/${port}`)] })
  )

/** The peers that the store knows. */
const known = ({ components }: Host) =>
  Effect.promise(async () => (await components.peerStore.all()).map(({ id }) => id.toString() as PeerId))

describe("libp2p's peer store", () => {
  it.live("remembers maxKnownPeers peers, and forgets those first of whom it heard longest ago", () =>
    Effect.gen(function*() {
      const { host } = yield* makeNode({ maxKnownPeers: peersMax })
      const [first, ...others] = names(peersMax)
      for (const id of [first!, ...others]) yield* hear(host, id)
      assert.sameMembers(yield* known(host), [first!, ...others])
      // News of the first peer, so that the second one is the oldest.
      yield* hear(host, first!, 4002)
      const [last] = names(1, peersMax)
      yield* hear(host, last!)
      assert.sameMembers(yield* known(host), [first!, ...others.slice(1), last!])
      // Its own record is none of them, and stays.
      const own = yield* Effect.promise(() => host.node.peerStore.get(host.node.peerId))
      assert.isAbove(own.protocols.length, 0)
      yield* Effect.promise(() => host.node.peerStore.delete(peerIdFromString(last!)))
      const [after] = names(1, peersMax + 1)
      yield* hear(host, after!)
      assert.sameMembers(yield* known(host), [first!, ...others.slice(1), after!])
    }))

  it.live("never forgets a connected peer, nor one that is of interest, until it is so no more", () =>
    Effect.gen(function*() {
      const { host, transport } = yield* makeNode({ maxKnownPeers: peersMax })
      const other = yield* makeNode()
      const connection = yield* transport.dial(yield* other.address)
      const wished = new Set(names(1))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* transport.retain((id) => wished.has(id))
        yield* hear(host, names(1)[0]!)
        for (const id of names(3 * peersMax, 1)) yield* hear(host, id)
        assert.sameMembers(yield* known(host), [connection.peer, ...wished, ...names(2, 3 * peersMax - 1)])
      }))
      yield* connection.close
      for (const id of names(peersMax, 100)) yield* hear(host, id)
      assert.sameMembers(yield* known(host), names(peersMax, 100))
    }))

  it.live("of a whole node remembers the peers that the program wants, whoever else is named", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Network.layer({
        listenAddresses: ["/ip4/127.0.0.1/tcp/0"],
        enableMdns: false,
        maxKnownPeers: peersMax
      }))
      const host = Context.get(context, Libp2pHost)
      const [kept, blocked] = names(2)
      yield* Context.get(context, Network).keep(kept!)
      yield* Context.get(context, Network).block(blocked!)
      for (const id of [kept!, blocked!, ...names(3 * peersMax, 2)]) yield* hear(host, id)
      const stored = yield* known(host)
      assert.includeMembers(stored, [kept!, blocked!])
      assert.lengthOf(stored, peersMax)
    }))
})
