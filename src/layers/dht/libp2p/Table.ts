/**
 * The routing table of kad-dht, as the engine reads it. [libp2p]
 *
 * kad-dht keeps the table: it pings a newcomer before it takes it in, and the oldest peers of a full bucket before it
 * makes room. The instance is changed in five ways:
 * - A mirror of the table answers `closest`. kad-dht computes a distance and sorts a list for each of its peers, 0.9 ms
 *   at 200 peers, and a server asks once for every request.
 * - A newcomer whose connection is younger than 10 s is not pinged. A node that joins saves a ping in each direction
 *   for every peer that it meets.
 * - A bucket takes no more than a share from one subnet, so that the owner of a network cannot fill it.
 * - A bucket splits in one step. kad-dht waits between the peers of the bucket: two newcomers whose pings come back in
 *   the same turn both split it, and the peers that the first has added since are lost without an event.
 * - The bucket that this node itself would be in splits on, as Kademlia has it. kad-dht stops at prefixes of 6 bits,
 *   with 20 peers for each: among 10,000 nodes it does not know most of its own neighbours, and among 100,000 a lookup
 *   finds less than half of the closest (`docs/SCALING.md`).
 *
 * The members of kad-dht that this uses are private in its types; {@link of} asserts them.
 */
import type { PeerId as Libp2pPeerId } from "@libp2p/interface"
import { Effect, type Scope } from "effect"
import { keyOf } from "../wire/Nodes.ts"
import { closer, commonPrefixLength, ofDigest, type Position, positionBits, positionOf } from "../wire/Position.ts"
import type { Components } from "../../libp2p/wire/Components.ts"
import { assertMembers, type Members } from "../../libp2p/wire/LeanedOn.ts"
import * as Subnets from "./Subnets.ts"

/** A peer of the table. */
export interface TablePeer {
  readonly id: Libp2pPeerId
  /** The multihash of the id, as messages carry it. */
  readonly bytes: Uint8Array
  /** The same bytes as latin1 text, to look it up by. */
  readonly key: string
  readonly position: Position
}

/** A peer has come into the table, or left it. */
export interface TableChange {
  readonly type: "added" | "removed"
  readonly peer: TablePeer
}

export interface Table {
  /** How many peers are in the table. */
  readonly size: () => number
  /** All of them, in no order. The array is the table's own: it changes with it. */
  readonly peers: ReadonlyArray<TablePeer>
  readonly has: (key: string) => boolean
  /**
   * The `count` peers closest to a position, nearest first, without one if asked. 15 us at 200 peers, 45 us at 1,280,
   * which is what the table holds of a whole keyspace besides its own neighbours.
   */
  readonly closest: (target: Position, count: number, without?: string) => Array<TablePeer>
  /**
   * Proposes a peer: kad-dht pings it, and takes it in when it answers and there is room. Costs nothing for a peer that
   * is known.
   */
  readonly add: (id: Libp2pPeerId) => void
  /** Takes a peer out, because it did not answer. */
  readonly remove: (id: Libp2pPeerId) => void
  /** Tells of each change, synchronously, while the scope lives. */
  readonly onChange: (listener: (change: TableChange) => void) => Effect.Effect<void, never, Scope.Scope>
  /** How many times a peer was kept out because its subnet had its share. */
  readonly refused: () => number
}

export interface TableOptions {
  /**
   * The part of a bucket that one subnet may take, /24 of IPv4 or /56 of IPv6. At least 2 peers; 1 is no limit.
   * Defaults to a quarter, which is 5 of 20. Loopback, link-local and private addresses are not counted, since a local
   * network is one subnet. Nor are relayed addresses, or addresses of a subnet in which this node has one, since a data
   * centre may be one subnet too.
   */
  readonly subnetShare?: number | undefined
}

/**
 * The table of a kad-dht that has not been started yet. Throws a `HostError` that names the member when this kad-dht
 * lacks one of {@link members}.
 */
export const of = (
  kad: KadDhtInternals,
  components: TableComponents,
  { subnetShare = subnetShareMax }: TableOptions = {}
): Table => {
  assertMembers("@libp2p/kad-dht", kad, members)
  const table = kad.routingTable
  const { kb } = table
  const self = idKeyOf(components.peerId)

  const mirror = mirrorOf(kb)
  trustFresh(kb, components)
  const subnets = subnetsOf(kb, components, subnetShare)
  splitAtOnce(kb)
  const deepen = deepening(kb, components)
  // kad-dht calls it again after the ping and after a split, and the last call adds the peer before it waits.
  const add = kb._add.bind(kb)
  kb._add = (contact, ...rest) => {
    if (!subnets.admits(contact)) return Promise.resolve()
    deepen(contact)
    return add(contact, ...rest)
  }

  return {
    size: () => mirror.peers.length,
    peers: mirror.peers,
    has: (key) => mirror.has(key),
    closest: (target, count, without) => closest(mirror.peers, target, count, without),
    add: (id) => {
      const key = idKeyOf(id)
      if (key !== self && !mirror.has(key)) table.queueRoutingTableUpdate(id)
    },
    remove: (id) => {
      mirror.leave(idKeyOf(id))
      // Only kad-dht's note in the peer store can fail.
      void table.remove(id).catch(() => {})
    },
    onChange: (listener) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.sync(() => {
          // Of its own, so that a listener that subscribes twice is told twice.
          const own = (change: TableChange) => listener(change)
          mirror.listeners.add(own)
          return own
        }),
        (own) => Effect.sync(() => mirror.listeners.delete(own))
      )),
    refused: subnets.refused
  }
}

/** How many peers of a bucket may be of one subnet; see {@link TableOptions.subnetShare}. */
export const subnetPeersMax = (bucketSize: number, share = subnetShareMax): number =>
  Math.max(2, Math.floor(bucketSize * share))

/** Private members of a kad-dht that has not been started. The root of its table is an empty bucket then. */
export const members = {
  "routingTable.queueRoutingTableUpdate": "function",
  "routingTable.remove": "function",
  "routingTable.kb.onAdd": "function",
  "routingTable.kb.onRemove": "function",
  "routingTable.kb.stop": "function",
  "routingTable.kb.verify": "function",
  "routingTable.kb._add": "function",
  "routingTable.kb._split": "function",
  "routingTable.kb._determineBucket": "function",
  "routingTable.kb.kBucketSize": "number",
  "routingTable.kb.prefixLength": "number",
  "routingTable.kb.root.depth": "number",
  "routingTable.kb.root.peers": "object"
} as const satisfies Members

/** Private members of a kad-dht that has been started. Only then is there an entry to look at, the node's own. */
export const startedMembers = {
  "routingTable.kb.localPeer.kadId": "object",
  "routingTable.kb.localPeer.lastPing": "number",
  "routingTable.kb.localPeer.peerId": "object"
} as const satisfies Members

/** The parts of kad-dht's class that are used here, and that its interface leaves out. */
export interface KadDhtInternals {
  readonly routingTable: {
    readonly kb: Buckets
    readonly queueRoutingTableUpdate: (id: Libp2pPeerId) => void
    readonly remove: (id: Libp2pPeerId) => Promise<void>
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

type TableComponents = Pick<Components, "addressManager" | "connectionManager" | "peerId">

const freshMillis = 10_000
const subnetShareMax = 0.25

interface Buckets {
  readonly kBucketSize: number
  readonly prefixLength: number
  readonly _determineBucket: (kadId: Uint8Array) => Bucket & { readonly peers: Array<Contact> }
  onAdd: (contact: Contact, ...rest: ReadonlyArray<unknown>) => Promise<void>
  onRemove: (contact: Contact, ...rest: ReadonlyArray<unknown>) => Promise<void>
  stop: () => void
  /** Whether a newcomer is there. */
  verify: (contact: Contact, ...rest: ReadonlyArray<unknown>) => Promise<boolean>
  _add: (contact: Contact, ...rest: ReadonlyArray<unknown>) => Promise<void>
  _split: (bucket: Bucket) => Promise<void>
}

interface Contact {
  readonly peerId: Libp2pPeerId
  /** Its position in the keyspace. */
  readonly kadId: Uint8Array
  /** In milliseconds since the epoch; 0 before the first. */
  readonly lastPing: number
}

/** A leaf has peers; any other bucket has two halves instead. The root loses its depth when it splits. */
interface Bucket {
  prefix?: string
  depth?: number
  peers?: Array<Contact>
}

/**
 * The peers of the table, entered and taken out in the step in which a bucket changes. kad-dht's own events come later,
 * when the peer store has been written, and not at all when that fails.
 */
function mirrorOf(kb: Buckets) {
  const peers: Array<TablePeer> = []
  const byKey = new Map<string, TablePeer>()
  const listeners = new Set<(change: TableChange) => void>()
  const tell = (change: TableChange) => {
    for (const listener of listeners) listener(change)
  }

  const enter = (id: Libp2pPeerId) => {
    const { bytes } = id.toMultihash()
    const key = keyOf(bytes)
    if (byKey.has(key)) return
    const peer: TablePeer = { id, bytes, key, position: positionOf(bytes) }
    byKey.set(key, peer)
    peers.push(peer)
    tell({ type: "added", peer })
  }
  const leave = (key: string) => {
    const peer = byKey.get(key)
    if (peer === undefined) return
    byKey.delete(key)
    const last = peers.pop()
    if (last !== undefined && last !== peer) peers[peers.indexOf(peer)] = last
    tell({ type: "removed", peer })
  }

  const onAdd = kb.onAdd
  kb.onAdd = (peer, ...rest) => {
    enter(peer.peerId)
    return onAdd(peer, ...rest)
  }
  const onRemove = kb.onRemove
  kb.onRemove = (peer, ...rest) => {
    leave(idKeyOf(peer.peerId))
    return onRemove(peer, ...rest)
  }
  const stop = kb.stop.bind(kb)
  kb.stop = () => {
    stop()
    for (const { key } of [...peers]) leave(key)
  }
  return { peers, has: (key: string) => byKey.has(key), leave, listeners }
}

/** A newcomer with a young connection needs no ping: it has just made a handshake. */
function trustFresh(kb: Buckets, { connectionManager }: TableComponents): void {
  const verify = kb.verify
  kb.verify = (contact, ...rest) =>
    connectionManager.getConnections(contact.peerId).some(({ timeline }) => {
        // A negative age is one of a wall clock that was set back.
        const age = Date.now() - timeline.open
        return age >= 0 && age < freshMillis
      })
      ? Promise.resolve(true)
      : verify(contact, ...rest)
}

/** Whether the subnet of a newcomer has room in the bucket, and how many were refused. */
function subnetsOf(kb: Buckets, { addressManager, connectionManager }: TableComponents, share: number) {
  const networks = new WeakMap<Contact, ReadonlyArray<string>>()
  const most = subnetPeersMax(kb.kBucketSize, share)
  let refused = 0
  const isOver = (bucket: ReadonlyArray<Contact>, network: string) => {
    let taken = 0
    for (const contact of bucket) if (networks.get(contact)?.includes(network) === true) taken++
    return taken >= most
  }
  const admits = (contact: Contact): boolean => {
    // A peer is counted where it is connected, since what it says of itself could be anything. A newcomer that is not
    // connected comes here again after its ping, which connects.
    const connections = connectionManager.getConnections(contact.peerId)
    if (connections.length === 0) return contact.lastPing === 0
    const counted = new Set<string>()
    for (const { remoteAddr } of connections) {
      const network = Subnets.subnetOf(remoteAddr)
      if (network !== undefined) counted.add(network)
    }
    networks.set(contact, [...counted])
    if (counted.size === 0 || share >= 1) return true
    const bucket = kb._determineBucket(contact.kadId).peers
    if (bucket.some(({ peerId }) => peerId.equals(contact.peerId))) return true
    const over = [...counted].filter((network) => isOver(bucket, network))
    if (over.length === 0) return true
    if (over.every((network) => Subnets.isOwn(addressManager, network))) return true
    refused++
    return false
  }
  return { admits, refused: () => refused }
}

/** Splits a bucket in one step, without waiting between its peers. */
function splitAtOnce(kb: Buckets): void {
  kb._split = (bucket) => {
    const { depth, peers } = bucket
    if (peers !== undefined && depth !== undefined) {
      const bit = (contact: Contact) => (contact.kadId[depth >> 3]! >> (7 - (depth & 7))) & 1
      const half = (side: number): Bucket => ({
        prefix: String(side),
        depth: depth + 1,
        peers: peers.filter((contact) => bit(contact) === side)
      })
      Object.assign(bucket, { left: half(0), right: half(1) })
      delete bucket.peers
      if (depth === 0) {
        delete bucket.depth
        delete bucket.prefix
      }
    }
    return Promise.resolve()
  }
}

/** Splits the bucket of a newcomer while it is full and this node itself would be in it. */
function deepening(kb: Buckets, self: TableComponents): (contact: Contact) => void {
  const selfPosition = positionOf(self.peerId.toMultihash().bytes)
  return ({ kadId, peerId }) => {
    const shared = commonPrefixLength(selfPosition, ofDigest(kadId))
    while (true) {
      const bucket = kb._determineBucket(kadId)
      const { depth = 0, peers } = bucket
      if (peers.length < kb.kBucketSize || depth < kb.prefixLength || shared < depth) return
      if (depth >= positionBits || peers.some((peer) => peer.peerId.equals(peerId))) return
      // One step, see splitAtOnce.
      void kb._split(bucket)
    }
  }
}

/** A sort by insertion, of those that are near enough alone. */
function closest(
  peers: ReadonlyArray<TablePeer>,
  target: Position,
  count: number,
  without: string | undefined
): Array<TablePeer> {
  const found: Array<TablePeer> = []
  for (const peer of peers) {
    if (peer.key === without) continue
    const isFull = found.length >= count
    if (isFull && (count === 0 || !closer(peer.position, found[count - 1]!.position, target))) continue
    let at = isFull ? count - 1 : found.length
    while (at > 0 && closer(peer.position, found[at - 1]!.position, target)) {
      found[at] = found[at - 1]!
      at--
    }
    found[at] = peer
  }
  return found
}

function idKeyOf(id: Libp2pPeerId): string {
  return keyOf(id.toMultihash().bytes)
}
