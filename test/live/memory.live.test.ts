/**
 * What the peers cost that a node remembers: a record in each of its books. Measured, since texts and arrays take more
 * bytes in V8 than they have.
 */
import { assert, describe, it } from "@effect/vitest"
import { peerIdFromString } from "@libp2p/peer-id"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, Layer } from "effect"
import { KeyValueStore } from "effect/persistence"
import { base58btc } from "multiformats/bases/base58"
import { Nodes } from "../../src/layers/dht/wire/Nodes.ts"
import * as Host from "../../src/layers/libp2p/Host.ts"
import * as FileIdentity from "../../src/layers/machine/FileIdentity.ts"
import * as KeyValuePeerStore from "../../src/layers/machine/KeyValuePeerStore.ts"
import * as PeerBook from "../../src/layers/peers/PeerBook.ts"
import * as PeerRecord from "../../src/layers/peers/PeerRecord.ts"
import { DialError, Unreachable } from "../../src/schema/NetworkError.ts"
import type { Multiaddr, PeerId } from "../../src/schema/Peer.ts"
import { NetworkConfig } from "../../src/services/NetworkConfig.ts"
import { PeerStore } from "../../src/services/PeerStore.ts"
import { usedBytes } from "../support/garbage.ts"

const peersMax = 4096

/** The id of an Ed25519 key that nobody has. */
const idOf = (index: number): PeerId => {
  const bytes = new Uint8Array(38)
  bytes.set([0, 36, 8, 1, 18, 32])
  new DataView(bytes.buffer).setUint32(6, (index * 2_654_435_761) >>> 0)
  new DataView(bytes.buffer).setUint32(20, index)
  return Buffer.from(base58btc.baseEncode(bytes)).toString() as PeerId
}

const addressesOf = (index: number): ReadonlyArray<Multiaddr> =>
  [4001, 4002, 4003, 4004].map((port) => `/ip4/203.0.${index >> 8}.${index & 255}/tcp/${port}` as Multiaddr)

const layer = Layer.mergeAll(
  PeerBook.layer,
  Host.layer.pipe(Layer.provide(FileIdentity.layerEphemeral)),
  KeyValuePeerStore.layer.pipe(Layer.provide(KeyValueStore.layerMemory))
).pipe(Layer.provide(NetworkConfig.layer({ maxKnownPeers: peersMax })))

/** The bytes that are used after the effect and were not before, for each peer. */
const bytesEach = Effect.fnUntraced(function*(one: (index: number) => Effect.Effect<void>) {
  const before = yield* usedBytes
  for (let index = 0; index < peersMax; index++) yield* one(index)
  return ((yield* usedBytes) - before) / peersMax
})

const lost = { reason: "lost", remoteReason: undefined, isExpected: false, isOurs: false, isReplaced: false } as const

describe("4,096 remembered peers", () => {
  it.live("cost less than 4 KiB each, all in all, when each came once with four addresses and was lost", () =>
    Effect.gen(function*() {
      const book = yield* PeerBook.PeerBook
      const host = yield* Host.Libp2pHost
      const nodes = new Nodes(2 * peersMax)
      const bytes = yield* bytesEach((index) =>
        Effect.promise(async () => {
          const id = idOf(index)
          const libp2pId = peerIdFromString(id)
          const addresses = addressesOf(index).map((address) => multiaddr(address))
          const peer = book.record(id)
          for (const address of addresses) peer.addresses.learn(address.toString() as Multiaddr, "identify")
          PeerRecord.connected(peer, index + 0.5)
          PeerRecord.lost(peer, { ...lost, at: index + 7.5 }, index + 9.5)
          await host.node.peerStore.merge(libp2pId, {
            multiaddrs: addresses,
            protocols: [
              "/ipfs/id/1.0.0",
              "/ipfs/id/push/1.0.0",
              "/ipfs/ping/1.0.0",
              "/codio/1.0.0",
              "/codio/kad/1.0.0"
            ],
            metadata: {
              AgentVersion: Buffer.from("codio-network/0.1.0 node/24.0.0"),
              ProtocolVersion: Buffer.from("codio/1.0.0")
            }
          })
          const node = nodes.of(libp2pId.toMultihash().bytes)
          nodes.hear(node, addresses.map((address) => address.bytes))
          // A comparison would make the text one piece.
          assert.lengthOf(node.id, id.length)
        })
      )
      assert.deepStrictEqual([book.size(), nodes.size], [peersMax, peersMax])
      assert.isBelow(bytes, 4096)
    }).pipe(Effect.provide(layer)))

  it.live("cost less than 3 KiB more when each was also reached once, refused, and dialled in vain for long", () =>
    Effect.gen(function*() {
      const book = yield* PeerBook.PeerBook
      const store = yield* PeerStore
      yield* bytesEach((index) =>
        Effect.sync(() => {
          const peer = book.record(idOf(index))
          for (const address of addressesOf(index)) peer.addresses.learn(address, "identify")
        })
      )
      const bytes = yield* bytesEach((index) =>
        Effect.gen(function*() {
          const id = idOf(index)
          const peer = book.get(id)!
          const [first] = addressesOf(index)
          yield* store.remember(id, first!)
          book.noteRefusal(id, { at: index + 0.5, direction: "inbound", reason: "full" })
          const detail = `nothing listens at ${first}: connection refused`
          for (let dial = 0; dial < 9; dial++) {
            const error = new DialError({ target: id, reason: new Unreachable({ detail: detail.repeat(9) }) })
            PeerRecord.dialled(peer, dial + 0.5, error)
            for (const address of addressesOf(index)) peer.addresses.failed(address, dial + 0.5, error, false)
          }
        })
      )
      assert.strictEqual((yield* store.peers).length, peersMax)
      assert.isBelow(bytes, 3072)
    }).pipe(Effect.provide(layer)))
})
