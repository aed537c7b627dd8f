/**
 * The `Dht` of a simulated node as it is in production: Kademlia, by the engine that nodes run (`dht/Engine`) and
 * in the bytes of its messages.
 *
 * Used instead of `SimDht` where a spec is about Kademlia itself; it costs more for each node and each question:
 *
 * ```ts
 * const alice = yield* TestNetwork.start("alice", {}, { dht: SimKad.layer() })
 * ```
 *
 * The routing table is simulated, and so is what carries the questions. A question reaches every node that could be
 * dialled, in the time of two messages; there is no dial, no connection and no slot under `maxPeers`. A node that does
 * not answer costs the asker 5 s. A node looks up its own position when it meets another node, and every 5 minutes.
 *
 * A node may lie to nodes that ask it, for specs of the consequences:
 * `SimKad.layer({ lies: { withholds: true } })`.
 */
import { multiaddr } from "@multiformats/multiaddr"
import { Clock, Data, Duration, Effect, FiberSet, Latch, Layer, Schedule, type Scope } from "effect"
import type { KeyValueStore } from "effect/persistence"
import { base58btc } from "multiformats/bases/base58"
import * as Engine from "../../layers/dht/Engine.ts"
import { isPeerId, Node, Nodes, keyOf } from "../../layers/dht/wire/Nodes.ts"
import * as PublishedValue from "../../layers/dht/libp2p/PublishedValue.ts"
import * as Naming from "../../layers/dht/serve/Naming.ts"
import type { Refusal } from "../../layers/dht/serve/Server.ts"
import { encodePeer } from "../../layers/dht/wire/Message.ts"
import { DhtError, NoPeers } from "../../schema/NetworkError.ts"
import type { Multiaddr, PeerId } from "../../schema/Peer.ts"
import { anyAddress } from "../../services/AddressGuard.ts"
import { Dht } from "../../services/Dht.ts"
import { Discovery } from "../../services/Discovery.ts"
import type { NetworkConfig } from "../../services/NetworkConfig.ts"
import { Transport } from "../../services/Transport.ts"
import { deepened, SimKadTable, type TableNode } from "./SimKadTable.ts"
import { signerOf } from "../network/SimIdentity.ts"
import { lying, messagesIn, type SimKadLies } from "./SimKadLies.ts"
import { SimNetwork } from "../network/SimNetwork.ts"

export type { SimKadLies } from "./SimKadLies.ts"

/** How the simulated node takes part in Kademlia. */
export interface SimKadOptions {
  /** The lies that it tells to nodes that ask it. Defaults to none. */
  readonly lies?: SimKadLies | undefined
  /**
   * The subnet by which others count it, unless they are in it themselves: a subnet has a share of each bucket of their
   * tables, and of their records. Defaults to none, as on a local network.
   */
  readonly subnet?: string | undefined
}

/** What this layer needs. */
export type SimKadServices = SimNetwork | Transport | NetworkConfig | Discovery | KeyValueStore.KeyValueStore

/** The DHT of production, over the simulated network. */
export const make = Effect.fnUntraced(function*(
  { lies, subnet }: SimKadOptions = {}
): Effect.fn.Return<Dht["Service"], never, SimKadServices | Scope.Scope> {
  const network = yield* SimNetwork
  const { localPeer } = yield* Transport
  const { announce } = yield* Discovery
  const clock = yield* Clock.Clock
  const run = yield* FiberSet.makeRuntime()
  const now = () => clock.currentTimeMillisUnsafe()
  const servers = serversOf(network)
  const here = (): Multiaddr => SimNetwork.address(network.machine(localPeer).address)

  // ----- the nodes that are known

  const idBytes = bytesOf(localPeer)
  const self = new Node(idBytes, keyOf(idBytes))
  const table = new SimKadTable<Contact>(self.position, deepened)
  const contacts = new WeakMap<Node, Contact>()
  const book = new Nodes(nodesMax, (node) => table.has(contactOf(node)))
  const listeners = new Set<(change: Engine.PeersChange, peer?: Node) => void>()
  /** The connected nodes of which listeners were told. */
  let met: ReadonlySet<PeerId> = new Set()

  const contactOf = (node: Node): Contact => {
    const known = contacts.get(node)
    if (known !== undefined) return known
    const { bytes, key, position } = node
    const contact: Contact = {
      node,
      bytes,
      key,
      position,
      get isAlive() {
        return isOpenTo(node)
      },
      get subnet() {
        return subnetOf(node)
      }
    }
    contacts.set(node, contact)
    return contact
  }
  const subnetOf = ({ id }: Node): string | undefined => {
    const found = servers.get(id)?.subnet
    return found === subnet ? undefined : found
  }
  /** The connected nodes that serve the DHT. */
  const connected = (): ReadonlyArray<PeerId> => network.neighbours(localPeer).filter((peer) => servers.has(peer))
  const speakers = () => connected().map((peer) => book.of(bytesOf(peer)))
  const known = () => new Set([...table.nodes.map(({ node }) => node), ...speakers()])
  const tell = (change: Engine.PeersChange, peer?: Node) => {
    for (const listener of listeners) listener(change, peer)
  }
  /** A node is there, and has told its address, as identify does. */
  const meet = (node: Node, address: Multiaddr) => {
    book.identify(node, [multiaddr(address).bytes])
    const contact = contactOf(node)
    const wasThere = table.has(contact)
    table.add(contact, now())
    if (!wasThere && table.has(contact)) tell("more")
  }

  // ----- asking

  const isOpenTo = ({ id }: Node): boolean =>
    servers.has(id) && network.machine(id).isRunning &&
    network.reaches(localPeer, id) && network.reaches(id, localPeer) &&
    (network.isExposed(localPeer, id) || network.neighbours(localPeer).includes(id))

  /** Brings frames to a node, and what it answers to the last of them back. */
  const exchange = Effect.fnUntraced(function*(node: Node, frames: Uint8Array) {
    const server = isOpenTo(node) ? servers.get(node.id) : undefined
    if (server === undefined) {
      yield* Effect.sleep(timeout)
      table.remove(contactOf(node))
      return yield* new Unanswered({ reason: "silence" })
    }
    yield* network.delay
    meet(node, server.here())
    const frame = yield* Effect.mapError(
      server.answer(frames, self, here()),
      () => new Unanswered({ reason: "refusal" })
    )
    yield* network.delay
    return frame
  })

  const ask = Effect.fnUntraced(function*(node: Node, question: Uint8Array) {
    const [message] = messagesIn((yield* exchange(node, question)) ?? new Uint8Array())
    return message ?? (yield* new Unanswered({ reason: "refusal" }))
  })

  // ----- the engine

  const changed = yield* Latch.make()
  const { dht, introduce, server } = yield* Engine.make({
    peers: {
      self,
      ownBodyNow: () => {
        self.addresses = [multiaddr(here()).bytes]
        return encodePeer(self.bytes, self.addresses)
      },
      onChange: (listener) =>
        Effect.asVoid(Effect.acquireRelease(
          Effect.sync(() => listeners.add(listener)),
          () => Effect.sync(() => listeners.delete(listener))
        )),
      nodeOf: (id) => book.of(bytesOf(id)),
      known: () => [...known()],
      tableSize: () => table.nodes.length,
      isConnected: () => connected().length > 0,
      isThere: Effect.sync(() => known().size > 0),
      isAtHand: ({ id }) => network.neighbours(localPeer).includes(id),
      seeds: (target, count) => [
        ...new Set([...table.closest(target, count).map(({ node }) => node), ...speakers()])
      ],
      hear: (peers) => {
        const heard: Array<Node> = []
        for (const { addresses, id } of peers) {
          if (!isPeerId(id) || keyOf(id) === self.key) continue
          const node = book.of(id)
          heard.push(node)
          if (book.hear(node, addresses)) run(announce({ id: node.id, addresses: read(addresses) }, "dht"))
        }
        return heard
      },
      encodedOf: (id) => (keyOf(id) === self.key ? self : book.known(id))?.encodedBy(isNamed),
      isNamed,
      tellersAt: () => [],
      addressesOf: (id) => book.known(id)?.addresses ?? [],
      whereIs: (id) =>
        Effect.sync(() => {
          if (id === localPeer) return { isCertain: true, id, addresses: [{ address: here(), tellers: [] }] }
          const node = book.of(bytesOf(id))
          return {
            isCertain: connected().includes(id),
            id,
            addresses: node.isIdentified ? read(node.addresses).map((address) => ({ address, tellers: [] })) : []
          }
        }),
      ready: (operation, subject) =>
        Effect.suspend(() =>
          known().size > 0 ? Effect.void : Effect.fail(new DhtError({ operation, subject, reason: new NoPeers({}) }))
        )
    },
    request: (node, question, before) =>
      before === undefined
        ? Effect.map(ask(node, question), (message) => ({ message, tookBefore: true }))
        : ask(node, Buffer.concat([before, question])).pipe(
          Effect.map((message) => ({ message, tookBefore: true })),
          Effect.catchTag("Unanswered", (error) =>
            // The refused record has reset the stream, and the question with it.
            error.reason === "refusal"
              ? Effect.map(ask(node, question), (message) => ({ message, tookBefore: false }))
              : Effect.fail(error))
        ),
    isSilence: (error) => error instanceof Unanswered && error.reason === "silence",
    send: (node, frame) => Effect.asVoid(exchange(node, frame)),
    closest: (target, count, without) =>
      table.closest(target, count + 1).filter(({ key }) => key !== without).slice(0, count),
    addresses: () => [here()],
    read,
    namespaces: yield* PublishedValue.namespaces,
    signer: signerOf(localPeer),
    changed
  })

  // ----- what others ask

  const { answer } = lies === undefined ? server : lying(server, lies)
  const own: Server = {
    here,
    subnet,
    answer: Effect.fnUntraced(function*(frames, from, address) {
      const node = book.of(from.bytes)
      meet(node, address)
      let last: Uint8Array | undefined
      for (const message of messagesIn(frames)) {
        const frame = yield* Effect.try({
          try: () =>
            answer(message, {
              bytes: node.bytes,
              key: node.key,
              tellers: [],
              dialledAt: undefined,
              subnet: subnetOf(node)
            }),
          // It throws nothing else.
          catch: (error) => error as Refusal
        })
        last = Effect.isEffect(frame) ? yield* frame : frame
      }
      return last
    })
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => servers.set(localPeer, own)),
    // A killed node's successor may have taken the name.
    () => Effect.sync(() => servers.get(localPeer) === own && servers.delete(localPeer))
  )
  yield* network.watch(() => {
    const before = met
    met = new Set(connected())
    const fresh = [...met].filter((peer) => !before.has(peer))
    for (const [index, peer] of fresh.entries()) {
      const node = book.of(bytesOf(peer))
      meet(node, servers.get(peer)!.here())
      tell(before.size === 0 && index === 0 ? "first" : "more", node)
    }
    if (before.size > 0 && met.size === 0) tell("none")
  })
  yield* introduce.pipe(Effect.schedule(Schedule.spaced(refreshInterval)), Effect.forkScoped)

  return dht
})

/** Kademlia for a node of `TestNetwork`, or for one of which there is no more than its `Transport`. */
export const layer = (options?: SimKadOptions): Layer.Layer<Dht, never, SimKadServices> =>
  Layer.effect(Dht, make(options))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How long a node waits for an answer, and how many nodes it remembers, as in production. */
const timeout = Duration.seconds(5)
const nodesMax = 8192

/** How often kad-dht looks itself up. */
const refreshInterval = Duration.minutes(5)

/** A node as an entry of the table. */
interface Contact extends TableNode {
  readonly node: Node
  readonly bytes: Uint8Array
}

/** A node as others reach it. */
interface Server {
  readonly here: () => Multiaddr
  readonly subnet: string | undefined
  readonly answer: (
    frames: Uint8Array,
    from: Node,
    address: Multiaddr
  ) => Effect.Effect<Uint8Array | undefined, Refusal>
}

class Unanswered extends Data.TaggedError("Unanswered")<{ readonly reason: "silence" | "refusal" }> {}

/** Addresses of the simulator are in no network. */
const isNamed = Naming.ruleOf(anyAddress, [])

const bytesOf = (peer: PeerId): Uint8Array => base58btc.baseDecode(peer)

const read = (addresses: ReadonlyArray<Uint8Array>): ReadonlyArray<Multiaddr> =>
  addresses.map((bytes) => multiaddr(bytes).toString() as Multiaddr)

const networks = new WeakMap<SimNetwork["Service"], Map<PeerId, Server>>()

function serversOf(network: SimNetwork["Service"]): Map<PeerId, Server> {
  const found = networks.get(network) ?? new Map<PeerId, Server>()
  networks.set(network, found)
  return found
}
