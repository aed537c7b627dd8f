import { assert, describe, it } from "@effect/vitest"
import type { CircuitRelayService } from "@libp2p/circuit-relay-v2"
import { multiaddr } from "@multiformats/multiaddr"
import { Context, Effect, Exit, Fiber, Layer, Option, References, Schedule, Scope, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import * as FileIdentity from "../../src/layers/machine/FileIdentity.ts"
import * as KeyValuePeerStore from "../../src/layers/machine/KeyValuePeerStore.ts"
import { Libp2pHost, layer as hostLayer } from "../../src/layers/libp2p/Host.ts"
import * as Libp2pTransport from "../../src/layers/libp2p/Transport.ts"
import * as RelayClient from "../../src/layers/reach/RelayClient.ts"
import * as NodeNetworkMonitor from "../../src/layers/machine/NodeNetworkMonitor.ts"
import { RelayPolicy, type RelayPolicyOptions } from "../../src/services/RelayPolicy.ts"
import * as RelayReservations from "../../src/layers/reach/RelayReservations.ts"
import * as RelayServer from "../../src/layers/reach/RelayServer.ts"
import * as TcpListener from "../../src/layers/libp2p/TcpListener.ts"
import { Network } from "../../src/Network.ts"
import { DhtError, NotFound } from "../../src/schema/NetworkError.ts"
import type { NetworkEvent } from "../../src/schema/NetworkEvent.ts"
import type { Multiaddr, PeerId } from "../../src/schema/Peer.ts"
import { Dht } from "../../src/services/Dht.ts"
import { AddressGuard, type AddressGuardRule, anyAddress, ownSubnetsOnly } from "../../src/services/AddressGuard.ts"
import { Discovery } from "../../src/services/Discovery.ts"
import { Identity } from "../../src/services/Identity.ts"
import { NetworkConfig, type NetworkConfigInput } from "../../src/services/NetworkConfig.ts"
import { ReconnectPolicy } from "../../src/services/ReconnectPolicy.ts"
import { Transport } from "../../src/services/Transport.ts"
import { eventually } from "../contract/eventually.ts"
import { makeFault, strikingRead } from "../support/Fault.ts"
import * as Live from "../support/live.ts"
import * as LogLines from "../support/LogLines.ts"
import { record } from "../support/record.ts"

interface Options {
  readonly config?: NetworkConfigInput
  readonly relay?: RelayServer.RelayServerOptions
  readonly identity?: Identity["Service"]
  readonly policy?: Partial<RelayPolicyOptions>
  readonly guard?: AddressGuardRule
}

/** The hole punches of these specs lead to loopback, where only a peer that came over loopback itself may lead. */
const guard = anyAddress

const policy: RelayPolicyOptions = {
  relays: 2,
  retry: Schedule.spaced("50 millis"),
  refusals: 2,
  rest: "10 minutes",
  renew: "5 minutes"
}

const makeNode = Effect.fnUntraced(function*(options: Options = {}) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
  let reservations: CircuitRelayService["reservations"] | undefined
  const relay = options.relay === undefined ? Layer.empty : Layer.effectDiscard(
    Effect.map(RelayServer.make(options.relay), (service) => {
      reservations = service.reservations
    })
  )
  const layer = RelayReservations.layer.pipe(
    Layer.provideMerge(Layer.merge(TcpListener.layer, relay)),
    Layer.provideMerge(Network.layerCore),
    Layer.provideMerge(Layer.merge(Libp2pTransport.layer, RelayClient.layer)),
    Layer.provideMerge(hostLayer),
    Layer.provideMerge(
      options.identity === undefined ? FileIdentity.layerEphemeral : Layer.succeed(Identity)(options.identity)
    ),
    Layer.provideMerge(Layer.mergeAll(
      Discovery.layer,
      NodeNetworkMonitor.layer,
      KeyValuePeerStore.layer.pipe(Layer.provide(KeyValueStore.layerMemory)),
      Layer.mock(Dht)({
        findProviders: () => Stream.empty,
        findPeer: (subject) => Effect.fail(new DhtError({ operation: "findPeer", subject, reason: new NotFound({}) }))
      })
    )),
    Layer.provideMerge(
      NetworkConfig.layer({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], minPeers: 0, ...options.config })
    ),
    Layer.provide(Layer.succeed(AddressGuard)(options.guard ?? ownSubnetsOnly)),
    Layer.provide(Layer.succeed(RelayPolicy)({ ...policy, ...options.policy })),
    Layer.provide(Layer.succeed(References.MinimumLogLevel)("Fatal")),
    Layer.provide(Layer.succeed(ReconnectPolicy)(() => Schedule.spaced("50 millis")))
  )
  const context = yield* Layer.buildWithScope(Layer.fresh(layer), scope)
  const network = Context.get(context, Network)
  const events = yield* record(network)
  return {
    network,
    id: network.localPeer,
    identity: Context.get(context, Identity),
    host: Context.get(context, Libp2pHost),
    transport: Context.get(context, Transport),
    events,
    /** The reservations that peers hold on this relay. */
    reservations,
    address: Effect.map(
      network.addresses,
      (addresses) => addresses.find((address) => !address.includes("p2p-circuit"))!
    ),
    stop: Scope.close(scope, Exit.void)
  }
})

type Node = Effect.Success<ReturnType<typeof makeNode>>

const until = <A, E, R>(label: string, read: Effect.Effect<A, E, R>, holds: (a: A) => boolean) =>
  Effect.repeat(read, { schedule: Schedule.spaced("10 millis"), until: holds }).pipe(
    Effect.timeoutOrElse({ duration: "1 minute", orElse: () => Effect.die(new Error(`never: ${label}`)) })
  )

const relayed = (node: Pick<Node, "network">, relay: PeerId) =>
  Effect.map(
    node.network.addresses,
    (addresses) => addresses.filter((address) => address.includes(`/p2p/${relay}/p2p-circuit`))
  )

const reserved = (node: Pick<Node, "network">, relay: PeerId) =>
  Effect.map(
    until("a reservation on the relay", relayed(node, relay), (addresses) => addresses.length > 0),
    (addresses) => addresses[0]!
  )

/** Each defect was counted, and one line logged of all. */
const toldOnce = Effect.fnUntraced(function*(network: Network["Service"], fault: { readonly times: number }) {
  const defects = Effect.map(network.status, ({ defects }) => defects)
  yield* until("all are counted", defects, (count) => count === fault.times)
  const lines = (yield* LogLines.lines).filter((line) => line.startsWith("Error: a defect in the work"))
  assert.lengthOf(lines, 1)
})

const happened = (node: Node, tag: NetworkEvent["_tag"]) => node.events.filter((event) => event._tag === tag)

const port = (address: Multiaddr) => /tcp\/(\d+)/.exec(address)![1]

describe("relay", () => {
  it.live("makes a reservation on a configured relay, is dialled through it, and shows the path with what is left", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: { dataLimit: 100_000, durationLimit: "1 minute" } })
      const listener = yield* makeNode({ config: { relayPeers: [yield* relay.address] } })
      const address = yield* reserved(listener, relay.id)
      assert.strictEqual(address, `${yield* relay.address}/p2p-circuit/p2p/${listener.id}`)
      const [event] = happened(listener, "RelayReserved")
      assert.deepInclude(event, { relay: relay.id, addresses: [address] })

      const dialer = yield* makeNode()
      const info = yield* dialer.network.connect(address)
      assert.strictEqual(info.id, listener.id)
      assert.strictEqual(info.path._tag, "Relayed")
      if (info.path._tag !== "Relayed") return
      assert.strictEqual(info.path.relay, relay.id)
      assert.isAbove(Number(info.path.bytesLeft), 50_000)
      assert.isBelow(Number(info.path.bytesLeft), 100_000)
      assert.isDefined(info.path.timeLeft)
      const seen = yield* until("the listener has it", listener.network.peer(dialer.id), Option.isSome)
      assert.strictEqual(Option.getOrThrow(seen).path._tag, "Relayed")
    }))

  it.live("carries streams, and says LimitReached when the byte limit cuts one", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: { dataLimit: 64 * 1024 } })
      const listener = yield* makeNode({ config: { relayPeers: [yield* relay.address] } })
      yield* listener.network.handle("/echo/1.0.0", (stream) =>
        Stream.runForEach(stream.read, stream.write).pipe(Effect.andThen(stream.closeWrite), Effect.ignore))
      const address = yield* reserved(listener, relay.id)
      const dialer = yield* makeNode()
      const ask = (bytes: number) =>
        Effect.scoped(Effect.gen(function*() {
          const stream = yield* dialer.network.open(address, "/echo/1.0.0")
          yield* Effect.forkScoped(
            Effect.ignore(Effect.andThen(stream.write(new Uint8Array(bytes)), stream.closeWrite))
          )
          return yield* Stream.runFold(stream.read, () =>
            0, (sum, chunk) => sum + chunk.byteLength)
        }))
      assert.strictEqual(yield* ask(1000), 1000)
      const error = yield* Effect.flip(ask(200_000))
      assert.strictEqual(error._tag === "StreamError" ? error.reason._tag : error._tag, "LimitReached")
    }))

  it.live("starts while the relay is down, and reserves when it is up", () =>
    Effect.gen(function*() {
      const first = yield* makeNode({ relay: {} })
      const address = yield* first.address
      yield* first.stop
      const listener = yield* makeNode({ config: { relayPeers: [address] } })
      assert.deepStrictEqual(yield* relayed(listener, first.id), [])
      const again = yield* makeNode({
        relay: {},
        identity: first.identity,
        config: { listenAddresses: [`/ip4/127.0.0.1/tcp/${port(address)}`] }
      })
      assert.strictEqual(again.id, first.id)
      yield* reserved(listener, again.id)
    }))

  it.live("reserves again when the relay was restarted", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: {} })
      const address = yield* relay.address
      const listener = yield* makeNode({ config: { relayPeers: [address] } })
      yield* reserved(listener, relay.id)
      yield* relay.stop
      yield* until("the address is withdrawn", relayed(listener, relay.id), (addresses) => addresses.length === 0)
      const again = yield* makeNode({
        relay: {},
        identity: relay.identity,
        config: { listenAddresses: [`/ip4/127.0.0.1/tcp/${port(address)}`] }
      })
      const through = yield* reserved(listener, again.id)
      const dialer = yield* makeNode()
      assert.strictEqual((yield* dialer.network.connect(through)).path._tag, "Relayed")
      assert.deepStrictEqual(
        listener.events.map((event) => event._tag).filter((tag) => tag.startsWith("Relay")),
        ["RelayReserved", "RelayLost", "RelayReserved"]
      )
    }))

  it.live("uses a relay that it meets, and keeps it from idling", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: {} })
      const listener = yield* makeNode({ config: { connectionIdleTimeout: "1 second" } })
      const plain = yield* makeNode({ config: { connectionIdleTimeout: "1 minute" } })
      yield* listener.network.connect(yield* plain.address)
      yield* listener.network.connect(yield* relay.address)
      yield* reserved(listener, relay.id)
      // The peer that is no relay is closed for idleness; the relay stays, since it is kept.
      yield* until("the other has idled out", listener.network.peer(plain.id), Option.isNone)
      const info = yield* listener.network.peer(relay.id)
      assert.strictEqual(Option.getOrThrow(info).interest, "kept")
    }))

  it.live("uses a relay that dialled this node, under the address where it listens", () =>
    Effect.gen(function*() {
      const listener = yield* makeNode()
      const relay = yield* makeNode({ relay: {} })
      yield* relay.network.connect(yield* listener.address)
      yield* reserved(listener, relay.id)
      assert.deepStrictEqual(yield* relayed(listener, relay.id), [
        `${yield* relay.address}/p2p-circuit/p2p/${listener.id}` as Multiaddr
      ])
    }))

  it.live("does not keep a relay that refuses, and takes the next one", () =>
    Effect.gen(function*() {
      const full = yield* makeNode({ relay: { maxReservations: 0 } })
      const free = yield* makeNode({ relay: {} })
      const listener = yield* makeNode({ policy: { relays: 1 } })
      yield* listener.network.connect(yield* full.address)
      yield* listener.network.connect(yield* free.address)
      yield* until("free", reserved(listener, free.id), () => true)
      assert.strictEqual(Option.getOrThrow(yield* listener.network.peer(full.id)).interest, "wanted")
      assert.deepStrictEqual(yield* relayed(listener, full.id), [])
    }))

  it.live("takes another relay when one that it met is gone for good", () =>
    Effect.gen(function*() {
      const listener = yield* makeNode({ policy: { relays: 1, rest: "300 millis" } })
      const first = yield* makeNode({ relay: {} })
      yield* listener.network.connect(yield* first.address)
      yield* reserved(listener, first.id)
      yield* first.stop
      const second = yield* makeNode({ relay: {} })
      yield* listener.network.connect(yield* second.address)
      yield* until("the second", reserved(listener, second.id), () => true)
    }))

  it.live("finds out by renewal that a relay has forgotten the reservation", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: {} })
      const listener = yield* makeNode({
        config: { relayPeers: [yield* relay.address] },
        policy: { renew: "100 millis" }
      })
      const address = yield* reserved(listener, relay.id)
      const reservations = relay.reservations!
      reservations.clear()
      yield* until("the reservation is back", Effect.sync(() => reservations.size), (size) => size === 1)
      const dialer = yield* makeNode()
      assert.strictEqual((yield* dialer.network.connect(address)).path._tag, "Relayed")
    }))

  it.live("tries a relay again, with waits, while a RelayPolicy throws, and reserves when that has ended", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: {} })
      const { fault, strike } = makeFault()
      fault.isOn = true
      const broken = strikingRead(policy, strike, ["retry"])
      const network = yield* Live.makeNode({ minPeers: 0, relayPeers: [yield* relay.address] }).pipe(
        Effect.provideService(RelayPolicy, broken)
      )
      yield* until("two tries", Effect.sync(() => fault.times), (times) => times >= 2)
      assert.deepStrictEqual(yield* relayed({ network }, relay.id), [])
      yield* toldOnce(network, fault)
      fault.isOn = false
      yield* reserved({ network }, relay.id)
      // Without waits there would be hundreds.
      assert.isBelow(fault.times, 6)
    }).pipe(LogLines.capture))

  it.live("keeps its reservation while a RelayPolicy throws, and renews it when that has ended", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: {} })
      const { fault, strike } = makeFault()
      fault.isOn = true
      const broken = strikingRead({ ...policy, renew: "100 millis" as const }, strike, ["renew"])
      const network = yield* Live.makeNode({ minPeers: 0, relayPeers: [yield* relay.address] }).pipe(
        Effect.provideService(RelayPolicy, broken)
      )
      const events = yield* record(network)
      yield* until("two tries", Effect.sync(() => fault.times), (times) => times >= 2)
      yield* reserved({ network }, relay.id)
      yield* toldOnce(network, fault)
      const reservations = relay.reservations!
      reservations.clear()
      fault.isOn = false
      yield* until("the reservation is back", Effect.sync(() => reservations.size), (size) => size === 1)
      assert.isAtMost(events.filter(({ _tag }) => _tag === "RelayReserved").length, 1)
    }).pipe(LogLines.capture))

  it.live("reserves nothing without enableRelay", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: {} })
      const off = yield* makeNode({ config: { enableRelay: false } })
      yield* off.network.connect(yield* relay.address)
      assert.notInclude(off.host.node.getProtocols(), "/libp2p/circuit/relay/0.2.0/stop")
      assert.deepStrictEqual(yield* relayed(off, relay.id), [])
    }))
})

describe("RelayServer", () => {
  it.live("holds a reservation through more than one renewal, for longer than it lasts", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: { reservationDuration: "3 seconds" } })
      const listener = yield* makeNode({
        config: { relayPeers: [yield* relay.address] },
        policy: { renew: "300 millis" }
      })
      yield* reserved(listener, relay.id)
      const reservations = relay.reservations!
      const before = [...reservations.values()][0]
      // Plain js-libp2p drops the reservation one lifetime after its first renewal.
      yield* Effect.sleep("4 seconds")
      assert.strictEqual([...reservations.values()][0], before)
      assert.strictEqual(before?.signal.aborted, false)
    }))

  it.live("frees the reservation of a peer that left", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: { maxReservations: 1 } })
      const first = yield* makeNode({ config: { relayPeers: [yield* relay.address] } })
      yield* reserved(first, relay.id)
      yield* first.stop
      yield* until("the reservation is free", Effect.sync(() => relay.reservations!.size), (size) => size === 0)
      const second = yield* makeNode({ config: { relayPeers: [yield* relay.address] } })
      yield* reserved(second, relay.id)
    }))

  it.live("is told apart from a hole that was punched, which both sides see coming", () =>
    Effect.gen(function*() {
      const { address, dialer, listener } = yield* throughRelay
      yield* dialer.network.connect(address)
      const pathOf = (node: Node, other: Node) =>
        Effect.map(node.network.peer(other.id), (info) => Option.getOrThrow(info).path)
      assert.strictEqual((yield* pathOf(dialer, listener))._tag, "Relayed")
      // The two ends agree over such a stream. libp2p punches to public addresses alone, of which loopback has none.
      const stream = yield* Effect.promise(() =>
        relayedOf(dialer, listener.id)!.newStream("/libp2p/dcutr", { runOnLimitedConnection: true })
      )
      for (const [node, other] of [[dialer, listener], [listener, dialer]] as const) {
        yield* until("a hole is about to be punched", pathOf(node, other), (path) =>
          path._tag === "Relayed" && path.upgrading)
      }
      const direct = yield* listener.address
      const own = yield* dialer.transport.dial(direct)
      assert.deepStrictEqual(yield* own.path, { _tag: "Direct", holePunched: false })
      yield* own.close
      yield* Effect.promise(() =>
        dialer.host.node.dial(multiaddr(direct), { force: true })
      )
      for (const [node, other] of [[dialer, listener], [listener, dialer]] as const) {
        const path = yield* until("direct", pathOf(node, other), ({ _tag }) => _tag === "Direct")
        assert.deepStrictEqual(path, { _tag: "Direct", holePunched: true })
      }
      stream.abort(new Error("the spec has ended"))
    }))

  it.live(
    "gives a relayed connection up for a direct one, when its last stream has ended",
    () =>
      Effect.gen(function*() {
        const relay = yield* makeNode({ relay: {} })
        const listener = yield* makeNode({ config: { relayPeers: [yield* relay.address] } })
        const client = yield* makeNode()
        yield* listener.network.handle("/echo/1.0.0", (stream) => Stream.runForEach(stream.read, stream.write))
        const sides = [[client, listener], [listener, client]] as const
        const peers = Effect.forEach(
          sides,
          ([node, other]) => Effect.map(node.network.peer(other.id), Option.getOrThrow)
        )
        const addresses = Effect.forEach(
          sides,
          ([node, other]) =>
            Effect.map(
              node.network.peer(other.id),
              Option.match({ onNone: () => 0, onSome: (info) => info.addresses.length })
            )
        )
        const talk = (stream: Effect.Success<ReturnType<Network["Service"]["open"]>>) =>
          Effect.gen(function*() {
            yield* stream.write(Uint8Array.of(7))
            assert.deepStrictEqual(yield* Stream.runHead(stream.read), Option.some(Uint8Array.of(7)))
          })

        const held = yield* Scope.make()
        const stream = yield* Scope.provide(
          client.network.open(yield* reserved(listener, relay.id), "/echo/1.0.0"),
          held
        )
        assert.strictEqual((yield* stream.connection.path)._tag, "Relayed")
        yield* client.transport.dial(yield* listener.address)
        yield* until("two connections", addresses, (counts) => counts.every((count) => count > 1))
        assert.deepStrictEqual((yield* peers).map((info) => info.path._tag), ["Direct", "Direct"])
        const fresh = yield* client.network.open(listener.id, "/echo/1.0.0")
        assert.strictEqual((yield* fresh.connection.path)._tag, "Direct")
        // Longer than the idle time after which the connection would be closed without the stream.
        yield* Effect.sleep("2500 millis")
        yield* talk(stream)
        assert.isTrue(yield* stream.connection.isOpen)
        yield* Scope.close(held, Exit.void)
        yield* until("one connection", addresses, (counts) => counts.every((count) => count === 1))
        assert.isFalse(yield* stream.connection.isOpen)
        yield* talk(fresh)
        assert.deepStrictEqual(happened(client, "PeerDisconnected"), [])
        const changesOf = (node: Node) =>
          node.events.flatMap((event) => event._tag === "PeerPathChanged" ? [[event.from._tag, event.to] as const] : [])
        assert.deepStrictEqual<unknown>(changesOf(client), [["Relayed", { _tag: "Direct", holePunched: false }]])
        assert.deepStrictEqual(changesOf(listener).map(([from, to]) => [from, to._tag]), [["Relayed", "Direct"]])
      })
  )
})

/** A dialler that is connected to a listener through a relay, and the two ends of the relayed connection in libp2p. */
const throughRelay = Effect.gen(function*() {
  const relay = yield* makeNode({ relay: {} })
  const listener = yield* makeNode({ config: { relayPeers: [yield* relay.address] }, guard })
  const dialer = yield* makeNode({ guard })
  const address = yield* reserved(listener, relay.id)
  return { relay, listener, dialer, address }
})

const relayedOf = (node: Node, peer: PeerId) =>
  node.host.node.getConnections().find((one) => !one.direct && one.remotePeer.toString() === peer)

/** The private half of a relayed connection that knows the relay. */
const lowerOf = (node: Node, peer: PeerId) =>
  (relayedOf(node, peer) as unknown as {
    readonly maConn: { sendClose: () => Promise<void>; send: () => boolean; readonly stream: EventTarget }
  }).maConn

describe("a relayed connection that ends", () => {
  const punched = Effect.fnUntraced(function*(first: "direct" | "relayed") {
    const { address, dialer, listener } = yield* throughRelay
    const here = yield* dialer.address
    // Identify of the listener never answers, and it punches its way as DCUtR does, only sooner.
    const { node } = listener.host
    yield* Effect.promise(async () => {
      await node.unhandle("/ipfs/id/1.0.0")
      await node.handle("/ipfs/id/1.0.0", () => {}, { runOnLimitedConnection: true })
    })
    node.addEventListener("connection:open", ({ detail: connection }) => {
      if (connection.direct || connection.direction !== "inbound") return
      const punch = () => node.dial(multiaddr(here), { force: true })
      const end = () => connection.close()
      const [now, later] = first === "direct" ? [punch, end] : [end, punch]
      void now().then(() => setTimeout(() => void later(), 200))
    })
    const info = yield* dialer.network.connect(address)
    assert.deepStrictEqual([info.id, info.path._tag, info.direction], [listener.id, "Direct", "inbound"])
    assert.deepStrictEqual(happened(dialer, "DialFailed"), [])
  })

  it.live("before identify has answered on it is no failure of connect, since a direct one stands", () =>
    punched("direct"))

  it.live("before identify has answered on it is no failure of connect, when a direct one follows", () =>
    punched("relayed"))

  it.live(
    "counts as lost when it does not close in time, and its reads and writes fail within 10 s",
    () =>
      Effect.gen(function*() {
        const { address, dialer, listener } = yield* throughRelay
        yield* listener.network.handle("/mute/1.0.0", () => Effect.never)
        const stream = yield* dialer.network.open(address, "/mute/1.0.0")
        const reading = yield* Effect.forkChild(Stream.runDrain(stream.read))
        // A relay that ends its half alone, as one of Rust does at its limit, and takes nothing more.
        const lower = lowerOf(dialer, listener.id)
        lower.sendClose = () => new Promise(() => {})
        lower.send = () => true
        lower.stream.dispatchEvent(new Event("remoteCloseWrite"))
        yield* until(
          "it is closing",
          Effect.sync(() => relayedOf(dialer, listener.id)?.status),
          (status) => status === "closing"
        )
        const exits = yield* Effect.all([Fiber.await(reading), Effect.exit(stream.write(Uint8Array.of(7)))]).pipe(
          Effect.timeout("10 seconds")
        )
        assert.deepStrictEqual(exits.map(Exit.isFailure), [true, true])
        yield* until("it is lost", dialer.network.peer(listener.id), Option.isNone)
      })
  )

  it.live("reserves on a relay that the program names at run time, and gives it up with its scope", () =>
    Effect.gen(function*() {
      const relay = yield* makeNode({ relay: {} })
      const node = yield* Network.make({ listenAddresses: ["/ip4/127.0.0.1/tcp/0"], enableMdns: false })
      const events = yield* record(node)
      const scope = yield* Scope.make()
      const [address] = yield* relay.network.addresses
      yield* Scope.provide(node.reserve(address!), scope)
      const isReserved = Effect.map(
        node.addresses,
        (own) => own.some((one) => one.includes(`/p2p/${relay.id}/p2p-circuit`))
      )
      yield* eventually("reserved", isReserved)
      assert.isTrue(events.some((event) => event._tag === "RelayReserved" && event.relay === relay.id))
      yield* Scope.close(scope, Exit.void)
      yield* eventually("given up", Effect.map(isReserved, (reserved) => !reserved))
    }))
})
