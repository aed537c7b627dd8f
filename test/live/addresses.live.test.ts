/**
 * The addresses of a peer on real sockets: which are dialled, and by how many sockets.
 */
import { peerIdFromString } from "@libp2p/peer-id"
import { multiaddr } from "@multiformats/multiaddr"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { once } from "node:events"
import { type AddressInfo, createServer, type Socket } from "node:net"
import type { Multiaddr } from "../../src/schema/Peer.ts"
import { peerOf, withoutPeer } from "../../src/schema/Peer.ts"
import { AddressGuard, anyAddress } from "../../src/services/AddressGuard.ts"
import type { GateRequest } from "../../src/services/Transport.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"
import * as Libp2pNode from "../support/Libp2pNode.ts"
import * as Live from "../support/live.ts"

/** A TCP server that never speaks, and counts its sockets: all that came, and those still open. */
const counter = Effect.acquireRelease(
  Effect.promise(async () => {
    const open = new Set<Socket>()
    const seen = { came: 0, open: () => open.size }
    const server = createServer((socket) => {
      seen.came++
      open.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => open.delete(socket))
      socket.resume()
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    const address = `/ip4/127.0.0.1/tcp/${(server.address() as AddressInfo).port}` as Multiaddr
    const close = () => {
      for (const socket of open) socket.destroy()
      server.close()
    }
    return { seen, address, close }
  }),
  ({ close }) => Effect.sync(close)
)

describe("the addresses of one peer, on real sockets", () => {
  it.live("are raced by a socket each, and the losers' sockets are closed", () =>
    Effect.gen(function*() {
      const alice = yield* Live.makeNode()
      const bob = yield* Live.makeNode()
      const [one, two] = yield* Effect.all([counter, counter])
      const [address] = yield* bob.addresses
      const begin = performance.now()
      const info = yield* alice.connect({ id: bob.localPeer, addresses: [address!, one.address, two.address] })
      // One after the other, the silent addresses would take 3 s each.
      assert.isBelow(performance.now() - begin, 5_500)
      assert.deepStrictEqual(info.addresses, [withoutPeer(address!)])
      assert.deepStrictEqual([one.seen.came, two.seen.came], [1, 1])
      yield* Live.until(Effect.sync(() => one.seen.open() + two.seen.open() === 0))
      const { addresses } = yield* alice.explain(bob.localPeer)
      assert.deepStrictEqual(
        addresses.filter(({ lastSuccess }) => lastSuccess !== undefined).map((one) => one.address),
        [
          address!
        ]
      )
    }))

  it.live("are not joined into one dial by libp2p, whose own dial of them takes one after another", () =>
    Effect.gen(function*() {
      const { host, transport } = yield* Libp2pNode.makeNode()
      const [one, two] = yield* Effect.all([counter, counter])
      const id = SimNetwork.peerId("nobody")
      const dial = (address: Multiaddr) => Effect.forkScoped(Effect.exit(transport.dial({ id, addresses: [address] })))
      yield* Effect.all([dial(one.address), dial(two.address)])
      yield* Live.until(Effect.sync(() => one.seen.came === 1 && two.seen.came === 1), "2.7 seconds")
      // When this fails, libp2p no longer joins dials, and `Transport.dial` may use its queue again.
      const plain = yield* Effect.all([counter, counter])
      const other = peerIdFromString(SimNetwork.peerId("somebody"))
      const giveUp = new AbortController()
      for (const { address } of plain) {
        host.node.dial(multiaddr(`${address}/p2p/${other}`), { signal: giveUp.signal }).catch(() => {})
      }
      yield* Live.until(Effect.sync(() => plain[0].seen.came === 1))
      assert.strictEqual(plain[1].seen.came, 0)
      giveUp.abort()
    }))
})

describe("addresses that this program did not give", () => {
  it.live("are asked of the gate when libp2p dials them, and those that it gave are not", () =>
    Effect.gen(function*() {
      const alice = yield* Libp2pNode.makeNode({ closed: true })
      const bob = yield* Libp2pNode.makeNode()
      const asked: Array<GateRequest> = []
      const allowed = { dials: false }
      yield* alice.transport.gate((request) =>
        Effect.sync(() => {
          asked.push(request)
          return request.stage !== "dial" || allowed.dials
        })
      )
      const address = yield* bob.address
      const id = peerOf(address)!
      yield* Effect.promise(() =>
        alice.host.node.peerStore.merge(peerIdFromString(id), { multiaddrs: [multiaddr(address)] })
      )
      const refused = yield* Effect.flip(alice.transport.dial(id))
      assert.strictEqual(refused.reason._tag, "Denied")
      assert.deepStrictEqual(asked, [{
        stage: "dial",
        direction: "outbound",
        remoteAddress: withoutPeer(address),
        tellers: [],
        peer: id
      }])
      const connection = yield* alice.transport.dial(address)
      assert.deepStrictEqual(asked.slice(1).map(({ stage }) => stage), ["peer"])
      yield* connection.close
      allowed.dials = true
      yield* alice.transport.dial(id)
    }))

  it.live("are not dialled in private networks that are not this machine's", () =>
    Effect.gen(function*() {
      const node = yield* Live.makeNode()
      const stranger = yield* Live.makeNode({ announceAddresses: ["/ip4/10.255.255.1/tcp/4001"] })
      yield* stranger.connect((yield* node.addresses)[0]!)
      yield* Live.until(
        Effect.map(node.explain(stranger.localPeer), ({ addresses }) => addresses.some(({ isGuarded }) => isGuarded))
      )
      const told = (yield* node.explain(stranger.localPeer)).addresses
      const guarded = told.filter(({ isGuarded }) => isGuarded).map((
        { address, source }
      ) => [withoutPeer(address), source])
      assert.deepStrictEqual<unknown>(guarded, [["/ip4/10.255.255.1/tcp/4001", "identify"]])
    }))

  it.live("are dialled everywhere with a guard that says so", () =>
    Effect.gen(function*() {
      const node = yield* Live.makeNode()
      const stranger = yield* Live.makeNode({ announceAddresses: ["/ip4/10.255.255.1/tcp/4001"] })
      yield* stranger.connect((yield* node.addresses)[0]!)
      const told = Effect.map(node.explain(stranger.localPeer), ({ addresses }) =>
        addresses.filter(({ address }) => address.startsWith("/ip4/10.")))
      yield* Live.until(Effect.map(told, (addresses) =>
        addresses.length > 0))
      assert.deepStrictEqual((yield* told).map(({ isGuarded }) => isGuarded), [false])
    }).pipe(Effect.provide(Layer.succeed(AddressGuard)(anyAddress))))
})
