/**
 * The answer to "why is this peer connected, or why not?", made from the book's record on request.
 */
import { type Clock, DateTime, Duration, Effect } from "effect"
import { AddressRecord, PeerExplanation } from "../../schema/NodeStatus.ts"
import type { Path, PeerId } from "../../schema/Peer.ts"
import type { LastContact } from "../../services/ConnectionManager.ts"
import * as Elapsed from "../Elapsed.ts"
import type { KnownAddress } from "./Addresses.ts"
import type { Refusal } from "./PeerBook.ts"
import { interestOf, isBlocked, type PeerRecord } from "./PeerRecord.ts"

/**
 * All that an explanation takes. `isGuarded` asks the address guard.
 */
export interface Facts {
  readonly id: PeerId
  readonly peer: PeerRecord | undefined
  readonly clock: Clock.Clock
  /** The path to the peer if it is connected. */
  readonly path: Path | undefined
  readonly isDialing: boolean
  readonly refusals: ReadonlyArray<Refusal>
  readonly isGuarded: (address: KnownAddress) => Effect.Effect<boolean>
}

/** Explains a peer. */
export const make = Effect.fnUntraced(function*(options: Facts) {
  const { clock, id, isDialing, path, peer, refusals } = options
  const now = Elapsed.millisUnsafe(clock)
  const dateOf = (at: number) => Elapsed.dateOf(clock, at)
  const addresses: Array<AddressRecord> = []
  for (const known of peer?.addresses.values() ?? []) {
    addresses.unshift(addressRecord(known, dateOf, yield* options.isGuarded(known)))
  }
  const last = peer?.lastDisconnect
  const retryAt = peer?.retryAt !== undefined && peer.retryAt > now ? peer.retryAt : undefined
  const restUntil = peer !== undefined && peer.restUntil > now ? peer.restUntil : undefined
  return new PeerExplanation({
    id,
    summary: summaryOf(options, addresses),
    isConnected: path !== undefined,
    ...(path === undefined ? {} : { path }),
    interest: peer === undefined ? "transient" : interestOf(peer),
    isSuspended: peer?.suspended ?? false,
    isBlocked: isBlocked(peer),
    isDialing,
    addresses,
    dials: (peer?.dials ?? []).map(({ at, message, outcome }) => ({
      at: dateOf(at),
      outcome,
      ...(message === undefined ? {} : { message })
    })),
    refusals: refusals.map(({ at, direction, reason }) => ({ at: dateOf(at), direction, reason })),
    ...(last === undefined ? {} : {
      lastDisconnect: {
        at: dateOf(last.at),
        by: last.reason === "remote" ? "remote" : last.reason === "lost" ? "unknown" : "local",
        reason: last.reason,
        ...(last.remoteReason === undefined ? {} : { remoteReason: last.remoteReason }),
        connectionDuration: Duration.millis(last.lasted)
      }
    }),
    ...(retryAt === undefined ? {} : { nextRetry: { at: dateOf(retryAt), attempt: peer?.attempts ?? 0 } }),
    ...(restUntil === undefined ? {} : { restsUntil: dateOf(restUntil) })
  })
})

/** The latest dates over all of the peer's addresses. */
export const lastContactOf = (peer: PeerRecord | undefined): LastContact => {
  let reachedAt: number | undefined
  let failedAt: number | undefined
  for (const { lastFailure, lastSuccess } of peer?.addresses.values() ?? []) {
    if (lastSuccess !== undefined) reachedAt = Math.max(reachedAt ?? lastSuccess, lastSuccess)
    if (lastFailure !== undefined) failedAt = Math.max(failedAt ?? lastFailure, lastFailure)
  }
  return { reachedAt, failedAt, isDismissed: peer?.suspended === true || isBlocked(peer) }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const addressRecord = (known: KnownAddress, dateOf: (at: number) => DateTime.Utc, isGuarded: boolean): AddressRecord =>
  AddressRecord.make({
    address: known.address,
    source: known.source,
    ...(known.lastSuccess === undefined ? {} : { lastSuccess: dateOf(known.lastSuccess) }),
    ...(known.lastFailure === undefined ? {} : { lastFailure: dateOf(known.lastFailure) }),
    ...(known.problem === undefined ? {} : { problem: known.problem }),
    isGuarded
  })

/** How the last connection ended, in words. */
const departure = (peer: PeerRecord): string => {
  const last = peer.lastDisconnect
  if (last === undefined) return "it was never connected"
  switch (last.reason) {
    case "idle":
      return "it was idle, so this node closed the connection"
    case "evicted":
      return "this node made room for another peer"
    case "disconnect":
      return "this node disconnected it"
    case "blocked":
      return "this node blocked it"
    case "shutdown":
      return "this node stopped"
    case "unhealthy":
      return "it answered no pings, so this node closed the connection"
    case "remote":
      return `it said goodbye (${last.remoteReason ?? "without a reason"})`
    case "lost":
      return "the connection was lost without a word"
  }
}

const summaryOf = (
  { clock, isDialing, path, peer, refusals }: Facts,
  addresses: ReadonlyArray<AddressRecord>
): string => {
  const now = Elapsed.millisUnsafe(clock)
  const at = (time: number) => DateTime.formatIso(Elapsed.dateOf(clock, time))
  const [refusal] = refusals
  if (path !== undefined) {
    const way = path._tag === "Direct" ? "" : ` through the relay ${path.relay}`
    return `connected${way}, as a ${peer === undefined ? "transient" : interestOf(peer)} peer`
  }
  if (peer === undefined) {
    return refusal === undefined
      ? "nothing is known of this peer: it was never given, found or seen"
      : `it came at ${at(refusal.at)} and was refused: ${refusal.reason}`
  }
  if (isBlocked(peer)) return "blocked by this node, until the scope of block closes"
  if (peer.suspended) return "disconnected by this node; it stays so until somebody calls connect or keep"
  if (isDialing) return "being dialled now"
  const [dial] = peer.dials
  const failure = dial === undefined || dial.message === undefined || dial.at < (peer.lastDisconnect?.at ?? 0)
    ? undefined
    : dial.message
  const why = failure ?? departure(peer)
  const wanted = peer.keeps > 0 || peer.wanted
  if (peer.retryAt !== undefined && peer.retryAt > now) {
    return `${why}; dialled again at ${at(peer.retryAt)}${
      wanted ? ` (attempt ${peer.attempts})` : " if discovery sees it"
    }`
  }
  if (peer.restUntil > now) return `${why}; discovery leaves it alone until ${at(peer.restUntil)}`
  if (addresses.length === 0) return `${why}; no address is known${wanted ? ", waiting for a sighting" : ""}`
  if (addresses.every(({ isGuarded }) => isGuarded)) {
    return "every address that is known lies in a private network that is not this machine's, so the address guard does not dial it"
  }
  return wanted ? `${why}; about to be dialled` : `${why}; nobody asks for it, and discovery has peers enough`
}
