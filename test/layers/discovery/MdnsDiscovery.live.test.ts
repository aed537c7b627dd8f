import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Deferred, Effect, Exit, Layer, Logger, Queue, Schedule, Scope } from "effect"
import { createSocket } from "node:dgram"
import { type Answer, decode, encode, type Packet } from "dns-packet"
import * as FileIdentity from "../../../src/layers/machine/FileIdentity.ts"
import * as Libp2pHost from "../../../src/layers/libp2p/Host.ts"
import * as MdnsDiscovery from "../../../src/layers/discovery/MdnsDiscovery.ts"
import * as TcpListener from "../../../src/layers/libp2p/TcpListener.ts"
import type { PeerId } from "../../../src/schema/Peer.ts"
import { Discovery, type Sighting } from "../../../src/services/Discovery.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"

const group = "224.0.0.251"

const makeNode = Effect.fnUntraced(function*(
  options: MdnsDiscovery.MdnsDiscoveryOptions & { readonly enableMdns?: boolean; readonly loggers?: Layer.Layer<never> }
) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
  const layer = MdnsDiscovery.layerWith(options).pipe(
    Layer.provideMerge(TcpListener.layer),
    Layer.provideMerge(Libp2pHost.layer),
    Layer.provideMerge(FileIdentity.layerEphemeral),
    Layer.provideMerge(Discovery.layer),
    Layer.provide(NetworkConfig.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], enableMdns: options.enableMdns })),
    Layer.provide(options.loggers ?? Layer.empty)
  )
  const context = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
  const host = Context.get(context, Libp2pHost.Libp2pHost)
  return {
    id: host.node.peerId.toString() as PeerId,
    addresses: host.node.getMultiaddrs().map(String),
    peers: Context.get(context, Discovery).peers,
    stop: Scope.close(scope, Exit.void)
  }
})

/** Takes sightings until each of the peers was seen. There may be sightings of other nodes on this network. */
const sees = Effect.fnUntraced(function*(peers: Queue.Dequeue<Sighting>, wanted: ReadonlyArray<PeerId>) {
  const missing = new Set(wanted)
  const found = new Map<PeerId, Sighting>()
  while (missing.size > 0) {
    const sighting = yield* Queue.take(peers)
    if (missing.delete(sighting.id)) found.set(sighting.id, sighting)
  }
  return wanted.map((id) => found.get(id)!)
}, Effect.timeout("1 minute"))

const problem = await Effect.runPromise(MdnsDiscovery.multicastProblem())
const specs: Array<() => void> = []
const needsMulticast = (name: string, body: () => Effect.Effect<void, unknown, Scope.Scope>) => {
  specs.push(() => it.live(name, body))
}

describe("MdnsDiscovery", () => {
  needsMulticast("three nodes of one process find each other within 2 s", () =>
    Effect.gen(function*() {
      const nodes = yield* Effect.all([makeNode({}), makeNode({}), makeNode({})])
      const begun = yield* Clock.currentTimeMillis
      for (const node of nodes) {
        const others = nodes.filter((other) => other !== node)
        const sightings = yield* sees(node.peers, others.map((other) => other.id))
        for (const [i, sighting] of sightings.entries()) {
          assert.strictEqual(sighting.source, "mdns")
          assert.deepStrictEqual(
            sighting.addresses.map(({ address }) => `${address}/p2p/${sighting.id}`),
            others[i]!.addresses
          )
          // The sender of the answer, by which the guard judges.
          for (const { tellers } of sighting.addresses) {
            assert.deepStrictEqual<unknown>(tellers, ["/ip4/127.0.0.1"])
          }
        }
      }
      assert.isBelow((yield* Clock.currentTimeMillis) - begun, 2000)
    }))

  needsMulticast("tells of a peer again each time it is seen", () =>
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode({ interval: "100 millis" }), makeNode({ interval: "100 millis" })])
      for (let i = 0; i < 4; i++) yield* sees(a.peers, [b.id])
    }))

  needsMulticast("answers in the form that rust-libp2p and go-libp2p read", () =>
    Effect.gen(function*() {
      const node = yield* makeNode({})
      const packet = yield* answerOf(node.id)
      const [pointer] = packet.answers ?? []
      assert.deepStrictEqual((packet.answers ?? []).map((answer) => answer.type), ["PTR"])
      assert.strictEqual(pointer?.name, "_p2p._udp.local")
      const name = pointer !== undefined && pointer.type === "PTR" ? pointer.data : ""
      const additionals = packet.additionals ?? []
      assert.deepStrictEqual(additionals.map((record) => record.type), ["TXT", "SRV", "A"])
      const [txt, srv, a] = additionals
      assert.deepStrictEqual([txt?.name, srv?.name], [name, name])
      assert.deepStrictEqual(texts(txt), node.addresses.map((address) => `dnsaddr=${address}`))
      const port = Number(/tcp\/(\d+)/.exec(node.addresses[0]!)![1])
      assert.strictEqual(srv?.type === "SRV" ? srv.data.port : undefined, port)
      assert.strictEqual(srv?.type === "SRV" ? srv.data.target : undefined, a?.name)
      assert.strictEqual(a?.type === "A" ? a.data : undefined, "127.0.0.1")
    }))

  needsMulticast("is silent once its scope has closed", () =>
    Effect.gen(function*() {
      const gone = yield* makeNode({ interval: "50 millis" })
      yield* gone.stop
      const stays = yield* makeNode({ interval: "50 millis" })
      const watcher = yield* makeNode({ interval: "50 millis" })
      // Ten answers of the node that stays; the node that left would have answered the same questions.
      for (let i = 0; i < 10; i++) yield* Effect.timeout(untilSeen(watcher.peers, stays.id, gone.id), "1 minute")
    }))

  needsMulticast("goes on after packets that are no DNS", () =>
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode({ interval: "100 millis" }), makeNode({ interval: "100 millis" })])
      yield* sees(a.peers, [b.id])
      const socket = yield* multicastSocket
      yield* Effect.promise(() =>
        new Promise((resolve) => socket.send(Buffer.from("no dns at all"), 5353, group, resolve))
      )
      const odd: Packet = {
        type: "response",
        answers: [{ name: "_p2p._udp.local", type: "PTR", data: "x" }],
        additionals: [
          { name: "x", type: "TXT", data: ["dnsaddr=/not/an/address"] }
        ]
      }
      yield* Effect.promise(() => new Promise((resolve) => socket.send(encode(odd), 5353, group, resolve)))
      yield* sees(a.peers, [b.id])
    }))

  it.live("starts and warns once, with the reason, where multicast cannot work", () =>
    Effect.gen(function*() {
      const warned = yield* Deferred.make<string>()
      let warnings = 0
      const logger = Logger.make((options) => {
        if (options.logLevel !== "Warn") return
        warnings++
        Deferred.doneUnsafe(warned, Effect.succeed(String(options.message)))
      })
      // A socket that does not share the port holds it.
      const holder = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createSocket>>((resume) => {
          const socket = createSocket({ type: "udp4" })
          socket.bind(0, () => resume(Effect.succeed(socket)))
        }),
        (socket) => Effect.sync(() => socket.close())
      )
      const { port } = holder.address()
      yield* makeNode({ port, interval: "20 millis", loggers: Logger.layer([logger]) })
      const text = yield* Effect.timeout(Deferred.await(warned), "1 minute")
      assert.include(text, "multicast does not work here: bind EADDRINUSE")
      assert.include(text, "bootstrapPeers")
      assert.strictEqual(warnings, 1)
    }))

  needsMulticast("is silent without enableMdns", () =>
    Effect.gen(function*() {
      const off = yield* makeNode({ interval: "50 millis", enableMdns: false })
      const on = yield* makeNode({ interval: "50 millis" })
      const watcher = yield* makeNode({ interval: "50 millis" })
      for (let i = 0; i < 10; i++) yield* Effect.timeout(untilSeen(watcher.peers, on.id, off.id), "1 minute")
    }))

  const leftOut = `multicast is not available here (${problem}): ${specs.length} specs left out`
  for (const spec of problem === undefined ? specs : [() => it(leftOut, () => console.warn(leftOut))]) spec()
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const untilSeen = Effect.fnUntraced(function*(peers: Queue.Dequeue<Sighting>, wanted: PeerId, unwanted: PeerId) {
  while (true) {
    const { id } = yield* Queue.take(peers)
    assert.notStrictEqual(id, unwanted)
    if (id === wanted) return
  }
})

const texts = (record: Answer | undefined) =>
  record?.type === "TXT" ? [record.data].flat().map((line) => line.toString()) : undefined

const multicastSocket = Effect.acquireRelease(
  Effect.callback<ReturnType<typeof createSocket>>((resume) => {
    const socket = createSocket({ type: "udp4", reuseAddr: true })
    socket.bind(5353, () => {
      socket.addMembership(group)
      resume(Effect.succeed(socket))
    })
  }),
  (socket) => Effect.promise(() => new Promise<void>((resolve) => socket.close(resolve)))
)

/** Asks, and gives the packet with the peer's answer. */
const answerOf = Effect.fnUntraced(function*(id: PeerId) {
  const socket = yield* multicastSocket
  const packets = yield* Queue.unbounded<Packet>()
  socket.on("message", (message) => {
    Queue.offerUnsafe(packets, decode(message))
  })
  const query = encode({ type: "query", questions: [{ name: "_p2p._udp.local", type: "PTR" }] })
  // Repeated, since a datagram may be lost.
  yield* Effect.forkScoped(
    Effect.repeat(Effect.sync(() => socket.send(query, 5353, group)), Schedule.spaced("500 millis"))
  )
  while (true) {
    const packet = yield* Queue.take(packets)
    const lines = [...(packet.answers ?? []), ...(packet.additionals ?? [])].flatMap((record) => texts(record) ?? [])
    if (lines.some((line) => line.includes(id))) return packet
  }
}, Effect.timeout("1 minute"))
