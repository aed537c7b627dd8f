/**
 * The peers of the DHT as this node knows them: those of the routing table, the connected ones, and those that others
 * name. [libp2p]
 */
import type { PeerId as Libp2pPeerId, PeerUpdate } from "@libp2p/interface"
import { peerIdFromMultihash, peerIdFromString } from "@libp2p/peer-id"
import { CODE_P2P, type Multiaddr as Libp2pMultiaddr, multiaddr } from "@multiformats/multiaddr"
import { Clock, Effect } from "effect"
import * as Digest from "multiformats/hashes/digest"
import { DhtError, NoPeers } from "../../../schema/NetworkError.ts"
import { type Multiaddr, type PeerId, type Told, withoutPeer } from "../../../schema/Peer.ts"
import { reachOf } from "../../../schema/Reach.ts"
import { directIpOf, hostOf } from "../../../schema/Subnet.ts"
import { Discovery } from "../../../services/Discovery.ts"
import { NetworkConfig } from "../../../services/NetworkConfig.ts"
import { encodePeer, type MessagePeer } from "../wire/Message.ts"
import { isPeerId, Node, Nodes, keyOf } from "../wire/Nodes.ts"
import { compareDistance, type Position } from "../wire/Position.ts"
import type { PeersChange } from "../Engine.ts"
import * as Naming from "../serve/Naming.ts"
import * as Elapsed from "../../Elapsed.ts"
import * as Supervised from "../../Supervised.ts"
import type { Table } from "./Table.ts"
import type { Components } from "../../libp2p/wire/Components.ts"
import { textOf } from "../../libp2p/Faults.ts"
import { Libp2pHost } from "../../libp2p/Host.ts"
import * as Pulse from "../../Pulse.ts"

export const make = Effect.fnUntraced(function*(table: Table) {
  const { components } = yield* Libp2pHost
  const { kadProtocol } = yield* NetworkConfig
  const { announce } = yield* Discovery
  const run = yield* Supervised.makeRun("sightings by the DHT")
  const clock = yield* Clock.Clock
  const now = () => Elapsed.millisUnsafe(clock)
  const { addressManager, connectionManager, events, peerId, peerStore, registrar } = components

  const naming = yield* Naming.make

  const idBytes = peerId.toMultihash().bytes
  const self = new Node(idBytes, keyOf(idBytes))
  /** Connected peers that serve the DHT, also if the table has no room for them or has not pinged them yet. */
  const speakers = new Map<string, Node>()
  const nodes = new Nodes(nodesMax, ({ key }) => table.has(key) || speakers.has(key))
  const listeners = new Set<(change: PeersChange, peer?: Node) => void>()
  const arrival = Pulse.make()
  let ownUntil = 0
  let ownBody: Uint8Array = encodePeer(idBytes, [])

  /** Where a connected peer is seen, unless that is on the internet, where it tells the address guard nothing. */
  const nearOf = (id: Libp2pPeerId): Multiaddr | undefined => {
    for (const { remoteAddr } of connectionManager.getConnections(id)) {
      const ip = directIpOf(remoteAddr.toString() as Multiaddr)
      // Without its port, which differs from connection to connection.
      if (ip !== undefined && reachOf(ip) !== "public") return hostOf(ip)
    }
    return undefined
  }

  const isEmpty = () => table.size() === 0 && speakers.size === 0
  const tell = (change: PeersChange, peer?: Node) => {
    for (const listener of listeners) listener(change, peer)
  }
  const arrived = (change: PeersChange, peer?: Node) => {
    arrival.beatUnsafe()
    tell(change, peer)
  }

  const identify = (
    id: Libp2pPeerId,
    addresses: ReadonlyArray<{ readonly multiaddr: { readonly bytes: Uint8Array } }>
  ) => {
    const node = nodes.known(id.toMultihash().bytes)
    if (node !== undefined) nodes.identify(node, addresses.map((address) => address.multiaddr.bytes), nearOf(id))
  }
  const onPeerUpdate = ({ detail }: CustomEvent<PeerUpdate>) => identify(detail.peer.id, detail.peer.addresses)
  const onConnect = (id: Libp2pPeerId) => {
    const node = nodes.of(id.toMultihash().bytes)
    const change = speakers.size === 0 ? "first" : "more"
    speakers.set(node.key, node)
    peerStore.get(id).then(({ addresses }) => identify(id, addresses), () => {})
    arrived(change, node)
  }
  const onDisconnect = (id: Libp2pPeerId) => {
    const node = nodes.known(id.toMultihash().bytes)
    if (node === undefined) return
    const wasLast = speakers.delete(node.key) && speakers.size === 0
    // Its addresses may change while it is away.
    node.isIdentified = false
    if (wasLast) tell("none")
  }
  const onSelfUpdate = () => {
    ownUntil = 0
  }
  yield* table.onChange(({ type }) => {
    if (type === "added") arrived("more")
  })
  yield* Effect.acquireRelease(
    Effect.promise(async () => {
      events.addEventListener("peer:update", onPeerUpdate)
      events.addEventListener("self:peer:update", onSelfUpdate)
      return registrar.register(kadProtocol, { onConnect, onDisconnect })
    }),
    (topology) =>
      Effect.sync(() => {
        registrar.unregister(topology)
        events.removeEventListener("peer:update", onPeerUpdate)
        events.removeEventListener("self:peer:update", onSelfUpdate)
      })
  )

  /** This node with its addresses at this moment, as the body of a Peer in a message. */
  const ownBodyNow = (): Uint8Array => {
    ownUntil = now() + ownMillis
    self.addresses = addressManager.getAddresses().map((address) => address.decapsulateCode(CODE_P2P).bytes)
    return ownBody = encodePeer(self.bytes, self.addresses)
  }

  const all = () => new Set([...table.peers.map(({ bytes }) => nodes.of(bytes)), ...speakers.values()])

  return {
    self,
    ownBodyNow,

    /** Tells of each change, synchronously, while the scope lives. */
    onChange: (listener: (change: PeersChange, peer?: Node) => void) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.sync(() => listeners.add(listener)),
        () => Effect.sync(() => listeners.delete(listener))
      )),

    nodeOf: (id: PeerId): Node => nodes.of(peerIdFromString(id).toMultihash().bytes),

    /** The peers that can be asked. */
    known: (): ReadonlyArray<Node> => [...all()],

    tableSize: table.size,

    /** Whether a peer that serves the DHT is connected. */
    isConnected: (): boolean => speakers.size > 0,

    /** Whether there is a peer to ask, or may be one in a moment. */
    isThere: Effect.suspend(() => isEmpty() ? someoneSpeaks(components, kadProtocol) : Effect.succeed(true)),

    /** Whether a peer is connected and serves the DHT, so that it is asked without a dial. */
    isAtHand: ({ key }: Node): boolean => speakers.has(key),

    /** The peers that a lookup for `count` peers asks first. */
    seeds: (target: Position, count: number): ReadonlyArray<Node> => {
      const found = new Set(table.closest(target, count).map(({ bytes }) => nodes.of(bytes)))
      // When no further connection may be opened, only these can be asked. More than needed, since some may be leaving.
      for (const node of nearest([...speakers.values()], target, 2 * count)) found.add(node)
      return [...found]
    },

    /** The nodes of peers that somebody names, without ids that are malformed. Discovery is told of them. */
    hear: (peers: ReadonlyArray<MessagePeer>, from: Node): ReadonlyArray<Node> => {
      const heard: Array<Node> = []
      const teller = peers.length === 0 ? undefined : nearOf(libp2pId(from))
      for (const { addresses, id } of peers) {
        if (!isPeerId(id)) continue
        const node = nodes.of(id)
        if (node.key === self.key) continue
        heard.push(node)
        if (addresses.length === 0) continue
        const isNews = nodes.hear(node, addresses, teller)
        if (!isNews && now() < node.toldAt + tellMillis) continue
        node.toldAt = now()
        const tellers = teller === undefined ? [] : [teller]
        run(announce({ id: node.id, addresses: read(addresses).map((address) => ({ address, tellers })) }, "dht"))
      }
      return heard
    },

    /** Where a connected peer is seen, unless that is on the internet. */
    tellersAt: (node: Node): ReadonlyArray<Multiaddr> => {
      const near = nearOf(libp2pId(node))
      return near === undefined ? [] : [near]
    },

    /** A peer has answered, so it is proposed to the table. */
    answered: (node: Node): void => {
      if (!table.has(node.key)) table.add(libp2pId(node))
    },

    /**
     * A peer could not be asked. It leaves the table, unless it serves the DHT and is connected: then it may only be
     * slow.
     */
    gone: (node: Node, isServing: boolean): void => {
      if (table.has(node.key) && !(isServing && speakers.has(node.key))) table.remove(libp2pId(node))
    },

    /** A peer as it is named to others; undefined while no address of it may be named. */
    encodedOf: (id: Uint8Array): Uint8Array | undefined => {
      const node = nodes.known(id)
      if (node !== undefined) return node.encodedBy(naming())
      if (keyOf(id) !== self.key) return undefined
      return now() < ownUntil ? ownBody : ownBodyNow()
    },

    isNamed: (address: Uint8Array, tellers: ReadonlyArray<Multiaddr>): boolean => naming()(address, tellers),

    /**
     * The addresses that a connected peer has told of itself, never what others say. Of a peer that is not known here,
     * such as a client, they come from the peer store, which is read now and known to the next call.
     */
    addressesOf: (id: Uint8Array): ReadonlyArray<Uint8Array> => {
      const node = nodes.of(id)
      if (node.isIdentified) return node.addresses
      const peer = libp2pId(node)
      peerStore.get(peer).then(({ addresses }) => identify(peer, addresses), () => {})
      return []
    },

    /** Where a peer is, as far as this node knows without asking others. */
    whereIs: Effect.fnUntraced(function*(id: PeerId) {
      const libp2pId = peerIdFromString(id)
      if (libp2pId.equals(peerId)) {
        return { isCertain: true, id, addresses: told(show(addressManager.getAddresses())) }
      }
      const stored = yield* Effect.promise(() => peerStore.get(libp2pId).catch(() => undefined))
      const connections = connectionManager.getConnections(libp2pId)
      const dialled = connections.filter(({ direction }) => direction === "outbound").map(({ remoteAddr }) =>
        remoteAddr
      )
      const near = nearOf(libp2pId)
      const addresses = told(
        show([...dialled, ...(stored?.addresses ?? []).map((one) => one.multiaddr)]),
        near === undefined ? [] : [near]
      )
      return { isCertain: addresses.length > 0 && connections.length > 0, id, addresses }
    }),

    /** Waits until there is a peer to ask: 2 s at most, while a connected peer has not told its protocols yet. */
    ready: Effect.fnUntraced(function*(operation: DhtError["operation"], subject: string) {
      const deadline = now() + readyMillis
      while (isEmpty()) {
        const next = arrival.next()
        if (now() >= deadline || !(yield* someoneSpeaks(components, kadProtocol))) {
          return yield* new DhtError({ operation, subject, reason: new NoPeers({}) })
        }
        yield* Effect.raceFirst(next, Effect.sleep("50 millis"))
      }
    })
  }
})

/** Whether a connected peer speaks the protocol, or has not told its protocols yet. */
const someoneSpeaks = (
  { connectionManager, peerStore }: Pick<Components, "connectionManager" | "peerStore">,
  protocol: string
): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    for (const connection of connectionManager.getConnections()) {
      const peer = await peerStore.get(connection.remotePeer).catch(() => undefined)
      if (peer === undefined || !peer.metadata.has("AgentVersion") || peer.protocols.includes(protocol)) return true
    }
    return false
  })

/** The addresses that can be read, as text. */
export const read = (addresses: ReadonlyArray<Uint8Array>): ReadonlyArray<Multiaddr> =>
  show(addresses.flatMap((bytes) => {
    try {
      return [multiaddr(bytes)]
    } catch {
      return []
    }
  }))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How many peers of the DHT are remembered, besides those of the table and the connected ones. */
const nodesMax = 8192

/** How long a lookup waits for a connected peer to tell its protocols. */
const readyMillis = 2000

/** How long discovery is not told again of a peer that others name again. */
const tellMillis = 60_000

/** How long this node's own addresses are not read again for answers, unless they are known to have changed. */
const ownMillis = 1000

const nearest = (nodes: ReadonlyArray<Node>, target: Position, count: number): ReadonlyArray<Node> =>
  nodes.length <= count
    ? nodes
    : nodes.toSorted((a, b) => compareDistance(a.position, b.position, target)).slice(0, count)

const told = (addresses: ReadonlyArray<Multiaddr>, tellers: ReadonlyArray<Multiaddr> = []): ReadonlyArray<Told> =>
  addresses.map((address) => ({ address, tellers }))

const libp2pId = (node: Node): Libp2pPeerId => peerIdFromMultihash(Digest.decode(node.bytes))

const show = (addresses: ReadonlyArray<Libp2pMultiaddr>): ReadonlyArray<Multiaddr> => [
  ...new Set(addresses.flatMap((address) => {
    const text = textOf(address)
    return text === undefined ? [] : [withoutPeer(text)]
  }))
]
