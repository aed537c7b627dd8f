/**
 * What strangers tell, on real sockets with default options: no address of theirs leads a socket to this machine, by
 * identify, by the DHT, or handed back by the program.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { once } from "node:events"
import { type AddressInfo, createServer, type Socket } from "node:net"
import { ContentKey, type PeerId } from "../../src/index.ts"
import { AddressGuard, anyAddress } from "../../src/services/AddressGuard.ts"
import * as Live from "../support/live.ts"

/** A TCP server on both loopback addresses that never speaks, and counts the sockets that came. */
const trap = Effect.acquireRelease(
  Effect.promise(async () => {
    const seen = { came: 0 }
    const open = new Set<Socket>()
    // Without IPv6 on the machine, the address of IPv4 alone.
    const server = createServer((socket) => {
      seen.came++
      open.add(socket)
      socket.on("error", () => {})
      socket.resume()
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    const { port } = server.address() as AddressInfo
    const six = createServer((socket) => server.emit("connection", socket))
    six.on("error", () => {})
    six.listen(port, "::1")
    const close = () => {
      for (const socket of open) socket.destroy()
      server.close()
      six.close()
    }
    return { seen, port, close }
  }),
  ({ close }) => Effect.sync(close)
)

/** Ways of writing this machine that no stranger may use, whoever hears them. */
const waysTo = (port: number): ReadonlyArray<string> => [
  `/dns4/localhost/tcp/${port}`,
  `/dns6/localhost/tcp/${port}`,
  `/dns/localhost/tcp/${port}`,
  `/dns4/127.0.0.1/tcp/${port}`,
  `/dns/2130706433/tcp/${port}`,
  `/ip6zone/lo/ip6/::1/tcp/${port}`
]

const key = ContentKey.fromText("what strangers tell")

/** A stranger that cannot be reached, announces the ways to the trap, and provides the key. */
const stranger = (port: number) =>
  Effect.tap(
    Live.makeNode({ listenAddresses: [], announceAddresses: waysTo(port) }),
    (node) => node.startProviding(key)
  )

describe("addresses that a stranger tells of this machine", () => {
  it.live("by identify are not dialled, and those that the program gives are", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* trap
      const victim = yield* Live.makeNode({ minPeers: 0 })
      const evil = yield* stranger(port)
      yield* evil.connect((yield* victim.addresses)[0]!)
      const explained = Effect.map(victim.explain(evil.localPeer), ({ addresses }) => addresses)
      yield* Live.until(Effect.map(explained, ({ length }) => length >= waysTo(port).length))
      yield* victim.disconnect(evil.localPeer)
      yield* Live.until(Effect.map(victim.peerCount, (count) => count === 0))
      yield* Effect.flip(victim.connect(evil.localPeer))
      assert.strictEqual(seen.came, 0)
      // All but the name that is DNS's to resolve, which no server does.
      const open = (yield* explained).filter(({ isGuarded, source }) => !isGuarded && source === "identify")
      assert.deepStrictEqual(open.map(({ address }) => address.split("/").slice(1, 3).join("/")), ["dns/2130706433"])
      yield* Effect.flip(victim.connect({ id: evil.localPeer, addresses: [`/dns4/localhost/tcp/${port}`] }))
      assert.strictEqual(seen.came, 1)
    }))

  it.live("by the DHT are not dialled, by its own lookups or for the program", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* trap
      const victim = yield* Live.makeNode({ minPeers: 0 })
      // Names what it hears, as servers of other libraries do.
      const server = yield* Effect.provideService(Live.makeNode({ minPeers: 0 }), AddressGuard, anyAddress)
      const evil = yield* stranger(port)
      yield* evil.connect((yield* server.addresses)[0]!)
      yield* Live.until(Effect.map(server.explain(evil.localPeer), ({ addresses }) => addresses.length > 0))
      yield* victim.connect((yield* server.addresses)[0]!)
      const find = Stream.runCollect(victim.findProviders(key)).pipe(Effect.orElseSucceed(() => []))
      const found = (all: ReadonlyArray<{ readonly id: PeerId }>) => all.some(({ id }) => id === evil.localPeer)
      yield* Live.until(Effect.map(find, found))
      const provider = (yield* find).find(({ id }) => id === evil.localPeer)!
      assert.isAbove(provider.addresses.length, 3)
      for (const { address, isDialable } of provider.addresses) {
        assert.strictEqual(isDialable, address.startsWith("/dns/2130706433/"), address)
      }
      // The object itself, a copy, its JSON, and the answer of findPeer: each is dialled as the peer alone would be.
      const copy = JSON.parse(JSON.stringify(provider)) as typeof provider
      const where = yield* victim.findPeer(evil.localPeer)
      for (const target of [provider, { ...provider }, copy, where, evil.localPeer]) {
        yield* Effect.flip(victim.connect(target))
      }
      assert.strictEqual(seen.came, 0)
      const [first] = provider.addresses
      assert.isDefined(first)
      // Written by the program, the same address is its own.
      yield* Effect.flip(victim.connect({ id: provider.id, addresses: [`/dns4/localhost/tcp/${port}`] }))
      assert.strictEqual(seen.came, 1)
    }))
})
