/**
 * The slots of the peer table: which peer may have one, which peers are evicted for it, and which slots are reserved.
 */
import { Duration, Effect } from "effect"
import type { Multiaddr, PeerId } from "../../schema/Peer.ts"
import { interestRank } from "../../schema/Peer.ts"
import type { EvictionCandidate, EvictionRule } from "../../services/EvictionPolicy.ts"
import type { GuestPolicyOptions } from "../../services/GuestPolicy.ts"
import type { Interests } from "../../services/Interests.ts"
import type { NetworkConfigValues } from "../../services/NetworkConfig.ts"
import type { PeerTable } from "../../services/PeerTable.ts"
import { type Connection, identifyTime } from "../../services/Transport.ts"
import { countedNetworkOf } from "../../schema/Subnet.ts"
import * as Elapsed from "../Elapsed.ts"
import { type Limit, limitsFor, missing, type Slot } from "./Limits.ts"

/**
 * How long a slot stays reserved between the gate's yes and the admission. An inbound connection is admitted in a later
 * turn, an outbound one after identify. A connection that closes gives its reservation back at once.
 */
export const reservationMillis = { inbound: 1_000, outbound: Duration.toMillis(identifyTime) + 1_000 }

/**
 * A connected peer, which has a slot.
 */
export interface Occupant extends Slot {
  readonly id: PeerId
  readonly connectedAt: number
  networks: ReadonlySet<string>
  /** Open streams that this side opened. */
  holds: number
  /** Open streams that the remote opened. */
  attends: number
  /** Those of them by which the remote's program keeps this node. */
  remoteKeeps: number
  idleSince: number
}

interface Reservation extends Slot {
  readonly expires: number
  /** Connections that count on it, such as those of a race of addresses. The last of them to close gives it back. */
  count: number
}

type NewConnection = Pick<Connection, "peer" | "direction" | "remoteAddress">

export const make = <A extends Occupant>(options: {
  readonly config: NetworkConfigValues
  readonly policy: EvictionRule
  readonly guests: GuestPolicyOptions
  readonly entries: ReadonlyMap<PeerId, A>
  readonly interests: Interests["Service"]
  /** Whether the peer has streams open besides those by which its program keeps this node. */
  readonly isBusy: (entry: A) => Effect.Effect<boolean>
}) => {
  const { config, entries, guests, interests, isBusy, policy } = options
  const stayMillis = Duration.toMillis(Duration.fromInputUnsafe(guests.stay))
  const reservations = new Map<PeerId, Reservation>()

  const limitsOf = ({ direction, peer, remoteAddress }: NewConnection) =>
    limitsFor(
      config,
      { isInbound: direction === "inbound", network: countedNetworkOf(remoteAddress) },
      entries.get(peer)
    )

  const forgetExpired = (now: number) => {
    for (const [peer, { expires }] of reservations) if (expires <= now) reservations.delete(peer)
  }

  /**
   * Reservations that count against this peer. Reservations of lower interest do not count against a wanted or kept
   * peer: it takes the slot, and the peer of the reservation is evicted, or refused at its admission.
   */
  function* reservedForOthers(peer?: PeerId): Generator<Slot> {
    const rank = peer === undefined ? 0 : interestRank(interests.of(peer))
    const isWanted = rank >= interestRank("wanted")
    for (const [other, reservation] of reservations) {
      if (other !== peer && !(isWanted && interestRank(interests.of(other)) < rank)) yield reservation
    }
  }

  /**
   * Why the limit refuses the peer when so many slots are lacking after all evictions: without the reservations there
   * may be room.
   */
  const refusalBy = (limit: Limit, lacking: number, peer: PeerId): "promised" | Limit["name"] | undefined => {
    if (lacking <= 0) return undefined
    let promised = 0
    for (const slot of reservedForOthers(peer)) if (limit.counts(slot)) promised++
    return lacking <= promised ? "promised" : limit.name
  }

  function* remaining(evicted: ReadonlySet<A>): Generator<A> {
    for (const entry of entries.values()) if (!evicted.has(entry)) yield entry
  }

  const isGuest = ({ id, remoteKeeps }: A): boolean => remoteKeeps > 0 && interests.of(id) === "transient"

  /** The peers that the policy evicts for a connection, in its order. */
  const victims = Effect.fnUntraced(function*({ direction, peer }: Pick<NewConnection, "direction" | "peer">) {
    const now = yield* Elapsed.millis
    const candidates = new Map<PeerId, EvictionCandidate>()
    for (const entry of entries.values()) {
      const interest = interests.of(entry.id)
      if (entry.holds > 0 || interest === "kept" || entry.id === peer) continue
      candidates.set(entry.id, {
        id: entry.id,
        interest,
        direction: entry.isInbound ? "inbound" : "outbound",
        isGuest: isGuest(entry),
        isBusy: yield* isBusy(entry),
        idleDuration: Duration.millis(now - entry.idleSince),
        connectionDuration: Duration.millis(now - entry.connectedAt)
      })
    }
    const chosen = policy([...candidates.values()], { id: peer, interest: interests.of(peer), direction }, guests)
    // A policy may answer with peers that were no candidates.
    return chosen.flatMap(({ id }) => {
      const entry = candidates.has(id) ? entries.get(id) : undefined
      return entry === undefined ? [] : [entry]
    })
  })

  return {
    victims,

    /** Whether the connection may be admitted without an eviction. */
    hasRoom: (connection: NewConnection): boolean =>
      limitsOf(connection).every((limit) => missing(limit, entries.values()) <= 0),

    /**
     * Those of the candidates that must be evicted for the connection, or the limit for which there are too few. One
     * step. A candidate that has gone meanwhile, or that is held or kept by now, is none any more.
     */
    makeRoom: (
      connection: NewConnection,
      candidates: ReadonlyArray<A>
    ): { readonly evicted: Iterable<A>; readonly exceeded?: never } | { readonly exceeded: Limit } => {
      const evicted = new Set<A>()
      for (const limit of limitsOf(connection)) {
        while (missing(limit, remaining(evicted)) > 0) {
          const victim = candidates.find((candidate) =>
            entries.get(candidate.id) === candidate && candidate.holds === 0 && interests.of(candidate.id) !== "kept" &&
            !evicted.has(candidate) && limit.counts(candidate)
          )
          if (victim === undefined) return { exceeded: limit }
          evicted.add(victim)
        }
      }
      return { evicted }
    },

    /** See `PeerTable.reserve`. */
    reserve: Effect.fnUntraced(function*(connection: NewConnection) {
      const { direction, peer, remoteAddress } = connection
      const now = yield* Elapsed.millis
      forgetExpired(now)
      let candidates: ReadonlyArray<A> | undefined
      for (const limit of limitsOf(connection)) {
        const need = missing(limit, entries.values(), reservedForOthers(peer))
        if (need <= 0) continue
        candidates ??= yield* victims(connection)
        const refusal = refusalBy(limit, need - candidates.filter(limit.counts).length, peer)
        if (refusal !== undefined) return refusal
      }
      if (!entries.has(peer)) {
        const network = countedNetworkOf(remoteAddress)
        reservations.set(peer, {
          isInbound: direction === "inbound",
          networks: new Set(network === undefined ? [] : [network]),
          expires: now + reservationMillis[direction],
          count: (reservations.get(peer)?.count ?? 0) + 1
        })
      }
      return undefined
    }),

    /** Why a dial of the peer would find no slot, and no peer to evict, wherever the peer may answer from. */
    refusesDial: Effect.fnUntraced(function*(peer: PeerId) {
      if (entries.has(peer)) return undefined
      forgetExpired(yield* Elapsed.millis)
      // The network that the peer will answer from is not known, so that only the limit of all peers applies.
      for (const limit of limitsFor(config, { isInbound: false, network: undefined })) {
        const need = missing(limit, entries.values(), reservedForOthers(peer))
        if (need <= 0) continue
        const refusal = refusalBy(limit, need - (yield* victims({ peer, direction: "outbound" })).length, peer)
        if (refusal !== undefined) return refusal
      }
      return undefined
    }),

    /** See `PeerTable.accepts`. */
    accepts: Effect.fnUntraced(function*(remoteAddress: Multiaddr) {
      const connection = { isInbound: true, network: countedNetworkOf(remoteAddress) }
      const [limit] = limitsFor(config, connection)
      if (limit?.name !== "subnet") return true
      const now = yield* Elapsed.millis
      forgetExpired(now)
      if (missing(limit, entries.values(), reservedForOthers()) <= 0) return true
      // The dialler may be a peer for which another is evicted, once the handshake has told who it is.
      for (const peer of interests.wanted()) if (!entries.has(peer)) return true
      // A guest whose stay is over may make room for whoever it is.
      for (const entry of entries.values()) {
        if (isGuest(entry) && limit.counts(entry) && now - entry.connectedAt >= stayMillis) return true
      }
      return false
    }),

    /** Ends the peer's reservation, since the peer has its slot now. */
    settle: (peer: PeerId): void => void reservations.delete(peer),

    /** A connection has closed that may have counted on the peer's reservation. */
    cancel: (peer: PeerId): void => {
      const reservation = reservations.get(peer)
      if (reservation !== undefined && --reservation.count === 0) reservations.delete(peer)
    },

    /** See `PeerTable.slots`. */
    counts: Effect.map(Elapsed.millis, (now) => {
      forgetExpired(now)
      const slots = {
        limit: config.maxPeers,
        used: entries.size,
        inboundLimit: config.maxInboundPeers,
        inbound: 0,
        reserved: reservations.size,
        kept: 0,
        wanted: 0,
        discovered: 0,
        transient: 0
      }
      for (const entry of entries.values()) {
        slots[interests.of(entry.id)]++
        if (entry.isInbound) slots.inbound++
      }
      return slots
    }) satisfies PeerTable["Service"]["slots"]
  }
}
