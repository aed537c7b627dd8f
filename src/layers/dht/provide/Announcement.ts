/**
 * What announcing one batch of keys knows: its keys with their records, the peers heard of, and what it has cost so
 * far.
 */
import { Effect } from "effect"
import { toBytes } from "../../../schema/Content.ts"
import type { PeersBeyond } from "../lookup/Crowding.ts"
import type { Doubts } from "../lookup/Doubts.ts"
import type { LookupPeer } from "../lookup/Lookup.ts"
import { encodeFrame, MessageType } from "../wire/Message.ts"
import { distanceOf, type Position, positionOf } from "../wire/Position.ts"
import type { AnnouncedKey, Batch } from "./Batches.ts"
import { inOrder, KnownPrefixes, nearest } from "./Subtrees.ts"

/** A peer that may keep records. */
export interface AnnouncePeer extends LookupPeer {
  /** The multihash that is the peer's id; `position` is its hash. */
  readonly bytes: Uint8Array
}

/** What a peer says to a question. */
export interface AnnounceAnswer<P> {
  readonly closer: ReadonlyArray<P>
  /** Whether the peer has read what was sent before the question. */
  readonly tookBefore: boolean
}

export interface AnnounceOptions<P extends AnnouncePeer> {
  readonly self: AnnouncePeer
  /** How many peers should keep a copy of each record: k. */
  readonly count: number
  /** The peers of the routing table nearest to a position, in any order: `count` of them if it has as many, or more. */
  readonly seeds: (target: Position, count: number) => ReadonlyArray<P>
  /** Asks a peer. `before` goes out in the same write. */
  readonly request: (peer: P, question: Uint8Array, before?: Uint8Array) => Effect.Effect<AnnounceAnswer<P>, unknown>
  /** Writes a message that has no answer. */
  readonly send: (peer: P, frame: Uint8Array) => Effect.Effect<void, unknown>
  /** Remembers which peers did not answer. None did by default. */
  readonly doubts?: Pick<Doubts, "isDoubtful" | "isMisleading" | "named">
  /** Learns from the outcome of a lookup. */
  readonly observe?: (target: Position, closest: ReadonlyArray<P>) => void
  /**
   * The peers that should keep a copy besides the closest, where the closest are not to be trusted. None by default.
   */
  readonly peersBeyond?: (target: Position, closest: ReadonlyArray<P>) => Effect.Effect<PeersBeyond<P>>
  /** This node with its addresses, as the body of a Peer. */
  readonly provider: () => Uint8Array
}

/** The most bytes of records in one write to a peer: the least that every implementation reads of a message. */
export const writeBytesMax = 16 * 1024

/** How many writes, or lookups of single keys, are under way at once. */
export const parallelMax = 8

/** A key with all that is sent for it. */
export interface PositionedKey extends AnnouncedKey {
  readonly bytes: Uint8Array
  readonly position: Position
  /** The message that announces the key. */
  readonly record: Uint8Array
}

export class Announcement<P extends AnnouncePeer> {
  readonly options: AnnounceOptions<P>
  readonly batch: Batch
  readonly keys: ReadonlyArray<PositionedKey>
  readonly cost = { lookups: 0, messages: 0 }
  /** Peers that have answered, or were named by others and not found dead. */
  readonly peers = new Map<string, P>()
  readonly dead = new Set<string>()
  readonly known = new KnownPrefixes()
  /** How many peers the network has, by their density around this node. */
  private readonly size: number

  constructor(options: AnnounceOptions<P>, batch: Batch) {
    this.options = options
    this.batch = batch
    const { count, seeds, self } = options
    const providers = [options.provider()]
    this.keys = batch.keys.map((key) => {
      const bytes = toBytes(key.key)
      const { ttlSeconds } = key
      const record = encodeFrame({ type: MessageType.ADD_PROVIDER, key: bytes, providers, ttlSeconds })
      return { ...key, bytes, position: positionOf(bytes), record }
    })
    const near = nearest(inOrder(seeds(self.position, count)), self.position, count)
    this.size = near.length < count
      ? near.length
      : Math.max(near.length, near.length / farthest(near, self.position))
  }

  /** Whether lookups by region take fewer messages than one lookup for each key. */
  isWorthSweeping(): boolean {
    const { count } = this.options
    const asked = Math.min(this.size, count)
    const span = (this.keys.at(-1)!.position.h0 - this.keys[0]!.position.h0) / 2 ** 32
    const lookups = this.size < count ? 1 : 2 + this.size * span / (count * peersPerLookup)
    const bytes = this.keys.reduce((sum, { record }) => sum + record.length, 0) * asked
    const writes = Math.max(Math.min(this.size, count + this.size * span), bytes / writeBytesMax)
    return lookups * asked + writes < (1 - savingMin) * this.keys.length * asked
  }

  /** How far from a target the last of its closest peers is likely to be. */
  get reach(): number {
    return this.options.count / Math.max(1, this.size)
  }

  /** See {@link AnnounceOptions.peersBeyond}. */
  beyond(target: Position, closest: ReadonlyArray<P>): Effect.Effect<PeersBeyond<P>> {
    return this.options.peersBeyond?.(target, closest) ?? Effect.succeed({ peers: [], isCrowded: false })
  }

  request(peer: P, about: Uint8Array, before?: Uint8Array): Effect.Effect<AnnounceAnswer<P>, unknown> {
    this.cost.messages++
    return this.options.request(peer, encodeFrame({ type: MessageType.FIND_NODE, key: about }), before)
  }

  /** Notes the peers that an answer names, besides those that did not answer lately. */
  hear(peers: ReadonlyArray<P>): void {
    const { doubts, self } = this.options
    for (const peer of peers) {
      if (peer.key === self.key || this.dead.has(peer.key) || doubts?.isDoubtful(peer.key) === true) continue
      this.peers.set(peer.key, peer)
    }
  }

  /** The peer does not answer: no record is left with it. */
  bury(peer: P): void {
    this.dead.add(peer.key)
    this.peers.delete(peer.key)
  }
}

/** The distance of the farthest of the peers; never zero. */
export const farthest = (peers: ReadonlyArray<AnnouncePeer>, target: Position): number =>
  peers.reduce((most, { position }) => Math.max(most, distanceOf(position, target)), 2 ** -53)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The share of messages that lookups by region must save: while they run, no peer keeps a copy of any of the keys yet.
 */
const savingMin = 0.2

/** How much of k peers a lookup makes known on average: the known subtree ends at the bit above the farthest peer. */
const peersPerLookup = 0.6
