/**
 * The view of kad-dht's routing table, on a real kad-dht that is on no network: its peers, their pings and their
 * connections are given.
 */
import { assert, describe, it } from "@effect/vitest"
import { type PeerId as Libp2pPeerId, TypedEventEmitter } from "@libp2p/interface"
import { kadDHT, type KadDHTComponents, passthroughMapper } from "@libp2p/kad-dht"
import { peerIdFromMultihash } from "@libp2p/peer-id"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect, Exit, Scope } from "effect"
import * as Digest from "multiformats/hashes/digest"
import { hash } from "node:crypto"
import { commonPrefixLength, compareDistance, positionOf } from "../../../../src/layers/dht/wire/Position.ts"
import * as Table from "../../../../src/layers/dht/libp2p/Table.ts"
import { versions } from "../../../../src/layers/libp2p/wire/LeanedOn.ts"

describe("Table", () => {
  it.live("answers as kad-dht does who is closest, 200 peers in its table", () =>
    Effect.gen(function*() {
      const { kad, settle, table } = yield* make()
      for (const id of ids(200)) table.add(id)
      yield* settle
      assert.strictEqual(kad.routingTable.size, 200)
      for (const count of [1, 20, 300]) {
        for (let i = 0; i < 10; i++) {
          const target = positionOf(Buffer.from(`target ${i}`))
          const expected = kad.routingTable.closestPeers(target.bytes, { count }).map(String)
          assert.deepStrictEqual(table.closest(target, count).map(({ id }) => id.toString()), expected)
          const without = table.closest(target, 1)[0]!.key
          const others = kad.routingTable.closestPeers(target.bytes, { count: count + 1 }).slice(1).map(String)
          assert.deepStrictEqual(table.closest(target, count, without).map(({ id }) => id.toString()), others)
        }
      }
      assert.deepStrictEqual(table.closest(positionOf(Buffer.from("target")), 0), [])
    }))

  it.live("follows the table, tells of each change once, and ends telling with the scope", () =>
    Effect.gen(function*() {
      const { kad, settle, table } = yield* make()
      const [a, b, c] = ids(3) as [Libp2pPeerId, Libp2pPeerId, Libp2pPeerId]
      const told: Array<string> = []
      const scope = yield* Scope.make()
      yield* table.onChange(({ peer, type }) => told.push(`${type} ${peer.id}`)).pipe(Scope.provide(scope))
      table.add(a)
      table.add(b)
      yield* settle
      assert.deepStrictEqual(told, [`added ${a}`, `added ${b}`])
      table.remove(a)
      // At once for who asks next, whatever kad-dht does with it.
      assert.deepStrictEqual(table.peers.map(({ id }) => id), [b])
      yield* Effect.promise(() => kad.routingTable.remove(b))
      assert.deepStrictEqual(told.slice(2), [`removed ${a}`, `removed ${b}`])
      assert.strictEqual(table.size(), 0)
      assert.strictEqual(kad.routingTable.size, 0)

      yield* Scope.close(scope, Exit.void)
      table.add(c)
      yield* settle
      assert.lengthOf(told, 4)
      assert.isTrue(table.has(table.peers[0]!.key))
      kad.routingTable.kb.stop()
      assert.strictEqual(table.size(), 0)
    }))

  it.live("stays right when the peer store cannot be written", () =>
    Effect.gen(function*() {
      const { kad, settle, table } = yield* make({ merge: () => Promise.reject(new Error("no space left")) })
      const [a] = ids(1) as [Libp2pPeerId]
      table.add(a)
      yield* settle
      assert.strictEqual(kad.routingTable.size, 1)
      assert.strictEqual(table.size(), 1)
      table.remove(a)
      yield* settle
      assert.strictEqual(table.size(), 0)
    }))

  it.live("proposes neither a peer that it has nor this node itself", () =>
    Effect.gen(function*() {
      const { kad, proposed, self, settle, table } = yield* make()
      const [a] = ids(1) as [Libp2pPeerId]
      table.add(a)
      yield* settle
      table.add(a)
      table.add(self)
      assert.deepStrictEqual(proposed, [a])
      assert.strictEqual(kad.routingTable.size, 1)
    }))

  it.live("pings a newcomer, unless its connection is younger than 10 s", () =>
    Effect.gen(function*() {
      for (const [age, pings, size] of [[11_000, 1, 0], [5_000, 0, 1]] as const) {
        let pinged = 0
        const { settle, table } = yield* make({ openedAt: Date.now() - age, onPing: () => pinged++ })
        table.add(ids(1)[0]!)
        yield* settle
        assert.deepStrictEqual([pinged, table.size()], [pings, size])
      }
    }))

  it.live("loses nobody when pings come back in one turn while a bucket splits", () =>
    Effect.gen(function*() {
      const { kad, settle, table } = yield* make({ pings: "together" })
      for (const id of ids(200)) table.add(id)
      yield* settle
      assert.strictEqual(table.size(), 200)
      assert.deepStrictEqual(
        new Set(kad.routingTable.closestPeers(new Uint8Array(32), { count: 200 }).map(String)),
        new Set(table.peers.map(({ id }) => id.toString()))
      )
    }))

  it.live("knows its own neighbours, however many there are, and no more than kad-dht of everybody else", () =>
    Effect.gen(function*() {
      const { kad, self, settle, table } = yield* make({ pings: "together" })
      const own = positionOf(self.toMultihash().bytes)
      const shared = (id: Libp2pPeerId) => commonPrefixLength(positionOf(id.toMultihash().bytes), own)
      const near = ids(4_000).filter((id) => shared(id) >= 6)
      const far = ids(4_000).filter((id) => shared(id) === 0).slice(0, 700)
      assert.isAbove(near.length, 40)
      for (const id of [...near, ...far]) table.add(id)
      yield* settle
      const byDistance = near.toSorted((a, b) =>
        compareDistance(positionOf(a.toMultihash().bytes), positionOf(b.toMultihash().bytes), own)
      )
      assert.deepStrictEqual(
        table.closest(own, 20).map(({ id }) => id.toString()),
        byDistance.slice(0, 20).map(String)
      )
      for (let bits = 6; bits < 12; bits++) {
        assert.strictEqual(
          table.peers.filter(({ id }) => shared(id) === bits).length,
          Math.min(20, near.filter((id) => shared(id) === bits).length),
          `${bits} bits`
        )
      }
      // kad-dht finds its way about in it.
      assert.deepStrictEqual(
        kad.routingTable.closestPeers(own.bytes, { count: 20 }).map(String),
        byDistance.slice(0, 20).map(String)
      )
      assert.isAtMost(table.peers.filter(({ id }) => shared(id) === 0).length, 32 * 20)
      assert.isBelow(table.peers.filter(({ id }) => shared(id) === 0).length, far.length)
    }))

  it.live("takes a quarter of a bucket from one public subnet, and all peers of other subnets", () =>
    Effect.gen(function*() {
      for (const pings of ["one by one", "together"] as const) {
        const { settle, table } = yield* make({
          pings,
          at: (i) => i % 2 === 0 ? `/ip4/203.0.113.${i}/tcp/4001` : `/ip4/198.51.${i}.1/tcp/4001`
        })
        for (const id of ids(28)) table.add(id)
        yield* settle
        assert.strictEqual(table.peers.filter(({ id }) => indexOf(id) % 2 === 0).length, 5)
        assert.strictEqual(table.peers.filter(({ id }) => indexOf(id) % 2 === 1).length, 14)
        assert.strictEqual(table.refused(), 9)
        // Who leaves makes room.
        table.remove(table.peers.find(({ id }) => indexOf(id) % 2 === 0)!.id)
        for (const id of ids(28)) table.add(id)
        yield* settle
        assert.strictEqual(table.peers.filter(({ id }) => indexOf(id) % 2 === 0).length, 5)
      }
    }))

  it.live("counts an IPv6 /56 as one subnet and no bucket's share below two", () =>
    Effect.gen(function*() {
      const at = (i: number) => `/ip6/2001:db8:0:1${i.toString(16).padStart(2, "0")}::1/tcp/4001`
      const { settle, table } = yield* make({ at }, { subnetShare: 0.01 })
      for (const id of ids(10)) table.add(id)
      yield* settle
      assert.strictEqual(table.size(), 2)
    }))

  it.live("does not count local addresses, relayed ones, those of this node's own subnet, nor any at a share of 1", () =>
    Effect.gen(function*() {
      const relay = "/ip4/203.0.113.9/tcp/4001/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC/p2p-circuit"
      const cases: ReadonlyArray<readonly [Options, Table.TableOptions]> = [
        [{ at: (i) => `/ip4/192.168.1.${i}/tcp/4001` }, {}],
        [{ at: (i) => `/ip4/127.0.0.1/tcp/${4000 + i}` }, {}],
        [{ at: () => relay }, {}],
        [{ at: (i) => `/ip4/203.0.113.${i}/tcp/4001`, own: ["/ip4/203.0.113.200/tcp/4001"] }, {}],
        [{ at: (i) => `/ip4/203.0.113.${i}/tcp/4001` }, { subnetShare: 1 }]
      ]
      for (const [options, tableOptions] of cases) {
        const { settle, table } = yield* make(options, tableOptions)
        for (const id of ids(15)) table.add(id)
        yield* settle
        assert.strictEqual(table.size(), 15)
      }
    }))

  it.live("does not take in who has hung up after the ping, so that nobody's address goes uncounted", () =>
    Effect.gen(function*() {
      const { settle, table } = yield* make({ at: () => undefined })
      for (const id of ids(3)) table.add(id)
      yield* settle
      assert.strictEqual(table.size(), 0)
    }))

  for (const path of Object.keys(Table.members)) {
    it(`refuses a kad-dht without ${path}, by its name and the version`, () => {
      const { components } = componentsOf({})
      const kad = kadDHT({ clientMode: false })(components)
      remove(kad, path)
      assert.throws(
        () => Table.of(kad as unknown as Table.KadDhtInternals, components),
        `@libp2p/kad-dht: this is not version ${versions["@libp2p/kad-dht"]}: its private member ${path} is undefined`
      )
    })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Hides a member, whether it is the object's own or its class's. */
function remove(object: unknown, path: string): void {
  const keys = path.split(".")
  const last = keys.pop()!
  const holder = keys.reduce((value, key) => (value as Record<string, unknown>)[key], object)
  Object.defineProperty(holder, last, { value: undefined })
}

interface Options {
  /** Where the peer of an index is connected from; undefined for nowhere. Defaults to loopback. */
  readonly at?: (index: number) => string | undefined
  /** This node's own addresses. */
  readonly own?: ReadonlyArray<string>
  /** Together: those that wait come back in one turn, a few steps apart. */
  readonly pings?: "one by one" | "together"
  readonly merge?: () => Promise<void>
  /** When the connections were opened; long ago unless said. */
  readonly openedAt?: number
  /** Told of each ping, which then fails. */
  readonly onPing?: () => void
}

const indices = new Map<string, number>()
const known: Array<Libp2pPeerId> = []

/** The first peers of a list that is always the same. */
function ids(count: number): ReadonlyArray<Libp2pPeerId> {
  while (known.length < count) {
    const id = peerIdFromMultihash(Digest.create(0x12, hash("sha256", `peer ${known.length}`, "buffer")))
    indices.set(id.toString(), known.length)
    known.push(id)
  }
  return known.slice(0, count)
}

function indexOf(id: Libp2pPeerId): number {
  return indices.get(id.toString())!
}

function componentsOf(options: Options) {
  const { at = () => "/ip4/127.0.0.1/tcp/4001", merge = () => Promise.resolve(), openedAt = 0, own = [] } = options
  const peerId = peerIdFromMultihash(Digest.create(0x12, hash("sha256", "this node", "buffer")))
  let pings = 0
  let turn: Promise<void> | undefined
  const together = async () => {
    const steps = (pings++ % 16) * 3
    turn ??= new Promise((resolve) =>
      setImmediate(() => {
        turn = undefined
        resolve()
      })
    )
    await turn
    for (let i = 0; i < steps; i++) await undefined
  }
  const log = Object.assign(() => {}, { error: () => {}, trace: () => {} })
  const components = {
    peerId,
    events: new TypedEventEmitter(),
    logger: { forComponent: () => log },
    peerStore: { merge },
    addressManager: { getAddresses: () => own.map((address) => multiaddr(address)) },
    connectionManager: {
      getConnections: (id: Libp2pPeerId) => {
        const address = at(indexOf(id))
        return address === undefined ? [] : [{ remoteAddr: multiaddr(address), timeline: { open: openedAt } }]
      }
    },
    ping: {
      ping: () => {
        if (options.onPing === undefined) return options.pings === "together" ? together() : Promise.resolve(1)
        options.onPing()
        return Promise.reject(new Error("nobody answers"))
      }
    }
  }
  // Of the parts of a node only what the table of kad-dht uses.
  return { components: components as unknown as Parameters<typeof Table.of>[1] & KadDHTComponents, peerId }
}

const make = Effect.fnUntraced(function*(options: Options = {}, tableOptions?: Table.TableOptions) {
  const { components, peerId } = componentsOf(options)
  const kad = kadDHT({ clientMode: false, peerInfoMapper: passthroughMapper })(components)
  // Public members of the class that its interface leaves out.
  const inside = kad as unknown as Table.KadDhtInternals & {
    readonly routingTable: {
      running: boolean
      readonly size: number
      readonly closestPeers: (position: Uint8Array, options: { readonly count: number }) => ReadonlyArray<Libp2pPeerId>
      readonly routingTableUpdateQueue: { readonly onIdle: () => Promise<void> }
    }
  }
  const proposed: Array<Libp2pPeerId> = []
  const propose = inside.routingTable.queueRoutingTableUpdate.bind(inside.routingTable)
  const table = Table.of(inside, components, tableOptions)
  Object.assign(inside.routingTable, {
    queueRoutingTableUpdate: (id: Libp2pPeerId) => {
      proposed.push(id)
      propose(id)
    }
  })
  inside.routingTable.running = true
  const settle = Effect.promise(() => inside.routingTable.routingTableUpdateQueue.onIdle())
  return { kad: inside, proposed, self: peerId, settle, table }
})
