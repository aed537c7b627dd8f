/**
 * The notes of this node on each peer that it has heard of: one `PeerRecord` for each, bounded in number.
 */
import { Context, Effect, Layer } from "effect"
import type { RefusalReason } from "../../schema/NetworkEvent.ts"
import { type Direction, interestRank, type PeerId } from "../../schema/Peer.ts"
import { Interests } from "../../services/Interests.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import { BoundedMap } from "../BoundedMap.ts"
import * as PeerRecord from "./PeerRecord.ts"

/** A connection that the gate refused. */
export interface Refusal {
  readonly at: number
  readonly direction: Direction
  readonly reason: RefusalReason
}

/** What this node knows and wants of each peer, connected or not. */
export class PeerBook extends Context.Service<PeerBook, {
  /** The record of a peer, if it has one. */
  readonly get: (id: PeerId) => PeerRecord.PeerRecord | undefined
  /**
   * The peer's record, made where there is none. Past `maxKnownPeers`, the record that was mentioned longest ago goes,
   * of those whose peer is neither connected nor of interest.
   */
  readonly record: (id: PeerId) => PeerRecord.PeerRecord
  /** All records, the one mentioned longest ago first. */
  readonly all: () => Iterable<PeerRecord.PeerRecord>
  /** How many records there are. */
  readonly size: () => number
  /** Notes a connection that the gate refused, without making a record of a stranger. */
  readonly noteRefusal: (id: PeerId, refusal: Refusal) => void
  /** Newest first. */
  readonly refusalsOf: (id: PeerId) => ReadonlyArray<Refusal>
  /**
   * The peer answers at an address that is dialled without knowing whose it is. The peer is wanted, without becoming
   * known, until the returned function is called.
   */
  readonly answers: (id: PeerId) => () => void
}>()("codio-network/layers/PeerBook") {}

const make = Effect.gen(function*() {
  const { maxKnownPeers } = yield* NetworkConfig
  const records = new BoundedMap<PeerId, PeerRecord.PeerRecord>(maxKnownPeers, PeerRecord.isOfInterest)
  const refusals = new BoundedMap<PeerId, ReadonlyArray<Refusal>>(maxKnownPeers)
  /** How many dials each peer answers. Bounded by the dials. */
  const answering = new Map<PeerId, number>()
  /** The peers whose records are wanted or kept: the gate asks for them too often to look through all records. */
  const wanted = new Set<PeerId>()

  const interestChanged = (peer: PeerRecord.PeerRecord) => {
    // A record that has left the book counts no more.
    if (records.get(peer.id) !== peer) return
    if (interestRank(PeerRecord.interestOf(peer)) >= interestRank("wanted")) wanted.add(peer.id)
    else wanted.delete(peer.id)
  }

  const book = PeerBook.of({
    get: (id) => records.get(id),
    record(id) {
      const found = records.get(id) ?? PeerRecord.make(id, interestChanged)
      records.set(id, found)
      return found
    },
    all: () => records.values(),
    size: () => records.size,
    noteRefusal: (id, refusal) =>
      refusals.set(id, [refusal, ...refusals.get(id) ?? []].slice(0, PeerRecord.outcomesMax)),
    refusalsOf: (id) => refusals.get(id) ?? [],
    answers(id) {
      answering.set(id, (answering.get(id) ?? 0) + 1)
      return PeerRecord.once(() => {
        const left = (answering.get(id) ?? 1) - 1
        if (left > 0) answering.set(id, left)
        else answering.delete(id)
      })
    }
  })

  const interests = Interests.of({
    of(id) {
      const peer = records.get(id)
      const interest = peer === undefined ? "transient" : PeerRecord.interestOf(peer)
      return answering.has(id) && interest !== "kept" ? "wanted" : interest
    },
    isBlocked: (id) => PeerRecord.isBlocked(records.get(id)),
    *wanted() {
      yield* answering.keys()
      yield* wanted
    }
  })

  return Context.make(PeerBook, book).pipe(Context.add(Interests, interests))
})

/** The book, and what it tells the peer table. */
export const layer: Layer.Layer<PeerBook | Interests, never, NetworkConfig> = Layer.effectContext(make)
