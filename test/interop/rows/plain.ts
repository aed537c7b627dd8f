/**
 * What plain js-libp2p does where this library does something else: each fault with a stock peer of another
 * implementation.
 */
import { noise } from "@chainsafe/libp2p-noise"
import { yamux } from "@chainsafe/libp2p-yamux"
import { identify } from "@libp2p/identify"
import { kadDHT, passthroughMapper } from "@libp2p/kad-dht"
import { mdns } from "@libp2p/mdns"
import { peerIdFromString } from "@libp2p/peer-id"
import { ping } from "@libp2p/ping"
import { tcp } from "@libp2p/tcp"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect } from "effect"
import { createLibp2p } from "libp2p"
import { toError } from "../../../src/layers/libp2p/Faults.ts"
import { multicastProblem } from "../../../src/layers/discovery/MdnsDiscovery.ts"
import { type Bench, hold, knows } from "../Bench.ts"
import type { Fault } from "../Matrix.ts"
import { eventually, type Peer, saw } from "../Peer.ts"
import { drainProtocol, sinkProtocol } from "../TsPeer.ts"

const faults: Record<"bulk" | "key" | "crowd" | "mdns", Fault> = {
  bulk: {
    name: "js-yamux makes frames of the whole window, and rust-yamux ends a connection over a frame above 1 MiB",
    shows: /after \d+ bytes|^stream close$|reset/,
    // A window grows with the speed at which it is read, so a busy machine may never see such a frame.
    isChance: true
  },
  key: {
    name: "js-libp2p's DHT server decodes every key as a CID, and resets the stream of any other",
    shows: /never: found/
  },
  crowd: {
    name: "js-libp2p refuses more than five connections a second from one address by default",
    shows: /of 20$/
  },
  mdns: {
    name: "js-libp2p's mDNS puts its addresses among the answers, where rust-libp2p does not look",
    shows: /timed out/
  }
}

const make = (listen = "/ip4/127.0.0.1/tcp/0") =>
  Effect.acquireRelease(
    Effect.promise(() =>
      createLibp2p({
        addresses: { listen: [listen] },
        transports: [tcp()],
        connectionEncrypters: [noise()],
        streamMuxers: [yamux()],
        peerDiscovery: listen.includes("0.0.0.0") ? [mdns()] : [],
        services: {
          identify: identify(),
          ping: ping(),
          dht: kadDHT({ protocol: "/codio/kad/1.0.0", clientMode: false, peerInfoMapper: passthroughMapper })
        }
      })
    ),
    (node) => Effect.promise(async () => node.stop())
  )

type Plain = Effect.Success<ReturnType<typeof make>>

const meet = Effect.fnUntraced(function*(peer: Peer, plain: Plain) {
  yield* peer.run("connect", { addr: plain.getMultiaddrs()[0]!.toString() })
  yield* eventually(
    "identified",
    peer.run("identify", { peer: plain.peerId.toString() }),
    ({ agent }) => agent !== ""
  )
})

export const plain = (bench: Bench) =>
  Effect.gen(function*() {
    yield* bench.check("plain js-libp2p: 256 MiB in one stream", "ts>go", Effect.scoped(send(bench, "go")))
    yield* bench.check(
      "plain js-libp2p: 256 MiB in one stream",
      "ts>rust",
      Effect.scoped(send(bench, "rust")),
      faults.bulk
    )
    yield* bench.check("plain js-libp2p: stores a multihash", "rust>ts", stores(bench, `1220${"07".repeat(32)}`))
    const bytes = Buffer.from("my-content-key").toString("hex")
    yield* bench.check(
      "plain js-libp2p: stores a key that is no multihash",
      "rust>ts",
      stores(bench, bytes),
      faults.key
    )
    yield* bench.check(
      "plain js-libp2p: 20 connections at once from one address",
      "go>ts",
      Effect.scoped(Effect.gen(function*() {
        const target = yield* make()
        const source = yield* bench.make("go")
        const crowd = yield* source.run("crowd", { addr: target.getMultiaddrs()[0]!.toString(), count: 20 })
        yield* hold(crowd.connected === 20, `${crowd.connected} of 20`)
      })),
      faults.crowd
    )
    if ((yield* multicastProblem()) !== undefined) return
    yield* bench.check(
      "plain js-libp2p: seen by mDNS",
      "rust>ts",
      Effect.scoped(Effect.gen(function*() {
        const listen = "/ip4/0.0.0.0/tcp/0"
        const seer = yield* bench.make("rust", { mdns: true, listen })
        const seen = yield* make(listen)
        yield* Effect.timeout(
          saw(seer, "it", ({ event, peer }) => event === "mdns" && peer === seen.peerId.toString()),
          "4 seconds"
        )
      })).pipe(Effect.mapError((error) => error instanceof Error ? error : new Error(String(error)))),
      faults.mdns
    )
  })

// internal ------------------------------------------------------------------------------------------------------------

/** A provider of Rust tells a plain node, which a finder of Rust asks. */
const stores = Effect.fnUntraced(function*(bench: Bench, key: string) {
  const storer = yield* make()
  const provider = yield* bench.make("rust", { kad: "/codio/kad/1.0.0" })
  const finder = yield* bench.make("rust", { kad: "/codio/kad/1.0.0" })
  yield* meet(provider, storer)
  yield* knows(provider)
  yield* provider.run("provide", { key })
  yield* meet(finder, storer)
  yield* knows(finder)
  yield* eventually(
    "found",
    finder.run("find", { key }),
    ({ providers }) => providers.some(({ peer }) => peer === provider.id),
    "3 seconds"
  )
}, Effect.scoped)

/** Writes as plain libp2p says one should: until `send` says no, then after the next `drain`. */
const send = Effect.fnUntraced(function*(bench: Bench, kind: "rust" | "go") {
  const from = yield* make()
  const to = yield* bench.make(kind)
  yield* Effect.promise(() => from.dial(to.addresses.map((address) => multiaddr(address))))
  const bytes = 256 * 2 ** 20
  const piece = new Uint8Array(16 * 2 ** 20)
  yield* Effect.tryPromise({
    try: async (signal) => {
      const stream = await from.dialProtocol(peerIdFromString(to.id), sinkProtocol, { signal })
      for (let sent = 0; sent < bytes; sent += piece.length) {
        if (stream.status !== "open") throw new Error(`the stream is ${stream.status} after ${sent} bytes`)
        if (stream.send(piece)) continue
        await new Promise<void>((resolve, reject) => {
          stream.addEventListener("drain", () => resolve(), { once: true })
          stream.addEventListener("close", () => reject(new Error(`closed after ${sent} bytes`)), { once: true })
        })
      }
      await stream.close({ signal })
    },
    catch: toError
  })
  const received = yield* saw(
    to,
    "the bytes",
    ({ event, protocol }) => event === "received" && protocol !== drainProtocol
  )
  yield* hold(received.bytes === bytes, JSON.stringify(received))
})
