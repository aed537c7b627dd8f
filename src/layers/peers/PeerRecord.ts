/**
 * The record of one peer, connected or not: what this node knows of the peer and what it wants.
 *
 * The functions below are the only writers of a record, each a transition with a name: other files read. They are
 * synchronous, so that the gate can ask in one step; times are those of `Elapsed`, in milliseconds, and given by the
 * caller.
 */
import type { ConnectError } from "../../schema/NetworkError.ts"
import type { DisconnectReason, GoodbyeReason } from "../../schema/NetworkEvent.ts"
import type { Interest, Multiaddr, PeerId, Told } from "../../schema/Peer.ts"
import type { Departure } from "../../services/PeerTable.ts"
import type { Backoff } from "../Backoff.ts"
import { KnownAddresses, shortened } from "./Addresses.ts"

/** Dials that are remembered for each peer, and as many refusals. */
export const outcomesMax = 8

/** A connection must last this long to earn an immediate dial and a fresh backoff. */
const stableMillis = 15_000

/** The schedule of a peer's failed dials, as the policy gave it for the interest of that time. */
export interface PeerBackoff extends Backoff<ConnectError> {
  readonly interest: Interest
}

/** The record of one peer. */
export interface PeerRecord {
  readonly id: PeerId
  /** Run in one step with every transition after which {@link interestOf} may differ. */
  readonly interestChanged: (peer: PeerRecord) => void
  readonly addresses: KnownAddresses
  /** Open scopes of `keep`. */
  readonly keeps: number
  /** Calls of `connect` in flight. They make the peer wanted, and leave nothing behind when they fail. */
  readonly calls: number
  /** `connect` succeeded, and neither side has ended the connection on purpose since. */
  readonly wanted: boolean
  /** Dialled because discovery saw the peer, or because the node was isolated. */
  readonly discovered: boolean
  /** `disconnect` was called, and the program has not asked for the peer since. */
  readonly suspended: boolean
  /** Open scopes of `block`. */
  readonly blocks: number
  /**
   * The last connection was ended deliberately, by either side. Such a peer does not count as a way out of isolation.
   */
  readonly parted: boolean
  /** Until when discovery leaves the peer alone. */
  readonly restUntil: number
  /** A failed dial is not repeated before then. */
  readonly retryAt: number | undefined
  /** When a sighting last asked for a dial at once. */
  readonly hurriedAt: number
  /**
   * The supervisor's next dial fails at once as refused, instead of dialling: the last connection was lost early or
   * ended by the remote. The record has no error of it: an error that nobody prints keeps the frames of its stack, and
   * with them the connection, for as long as the peer is known.
   */
  readonly failsNextDial: boolean
  readonly connectedAt: number | undefined
  /**
   * The last connection was lost early or ended by the remote, or the last dial was refused: a sighting tells nothing
   * new.
   */
  readonly flapping: boolean
  /** The schedule of the dials that have failed since the last success. */
  readonly backoff: PeerBackoff | undefined
  /** The supervisor's dials that have failed by this schedule, or died. */
  readonly attempts: number
  /** A sighting or a call asks for a dial now instead of after the delay. */
  readonly hurried: boolean
  /** Newest first. */
  readonly dials: ReadonlyArray<{ readonly at: number; readonly outcome: string; readonly message: string | undefined }>
  readonly lastDisconnect: {
    readonly at: number
    readonly reason: DisconnectReason
    readonly remoteReason: GoodbyeReason | undefined
    readonly lasted: number
  } | undefined
}

/** How a peer's last connection ended. */
export interface ConnectionEnd extends Departure {
  readonly at: number
  /** This node ended it on purpose: idle, evicted, disconnect, blocked. */
  readonly isOurs: boolean
  /** A newer connection exists or is being dialled. */
  readonly isReplaced: boolean
}

/** A record without a past. */
export const make = (id: PeerId, interestChanged: PeerRecord["interestChanged"]): PeerRecord => ({
  id,
  interestChanged,
  addresses: new KnownAddresses(id),
  keeps: 0,
  calls: 0,
  wanted: false,
  discovered: false,
  suspended: false,
  blocks: 0,
  parted: false,
  restUntil: 0,
  retryAt: undefined,
  hurriedAt: Number.NEGATIVE_INFINITY,
  failsNextDial: false,
  connectedAt: undefined,
  flapping: false,
  backoff: undefined,
  attempts: 0,
  hurried: false,
  dials: [],
  lastDisconnect: undefined
})

// ---------------------------------------------------------------------------------------------------------------------
// questions
// ---------------------------------------------------------------------------------------------------------------------

/** Whether the record must stay: its peer is connected, asked for, blocked or being dialled. */
export const isOfInterest = (peer: PeerRecord): boolean =>
  peer.keeps + peer.blocks + peer.calls > 0 || peer.wanted || peer.discovered || peer.connectedAt !== undefined

/** Whether a scope of `block` is open for the peer. */
export const isBlocked = (peer: PeerRecord | undefined): boolean => peer !== undefined && peer.blocks > 0

/** How much the peer is wanted now. */
export const interestOf = (peer: PeerRecord): Interest => {
  if (peer.suspended || isBlocked(peer)) return "transient"
  if (peer.keeps > 0) return "kept"
  if (peer.wanted || peer.calls > 0) return "wanted"
  return peer.discovered ? "discovered" : "transient"
}

/** Whether the peer is redialled whenever it is lost. */
export const isDesired = (peer: PeerRecord): boolean =>
  !peer.suspended && !isBlocked(peer) && (peer.keeps > 0 || peer.wanted)

/**
 * Whether an isolated node may hope for the peer. There is no hope for a peer that parted on purpose, nor for a peer
 * that has only ever dialled in, such as a client of a server: this node knows no addresses but those from its
 * identify.
 */
export const isCandidate = (peer: PeerRecord): boolean => {
  if (isDesired(peer)) return true
  if (peer.suspended || peer.parted || isBlocked(peer)) return false
  for (const { source } of peer.addresses.values()) if (source !== "identify") return true
  return false
}

/** Whether the dial reached the peer and there was no slot, at this node or at the remote. */
export const isRefusal = (error: ConnectError): boolean =>
  error._tag === "PeerLimitExceeded" || (error._tag === "DialError" && error.reason._tag === "Refused")

// ---------------------------------------------------------------------------------------------------------------------
// transitions: wishes
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The program asks for the peer, by `connect` or `keep`: a former `disconnect` is over, and the next dial starts now.
 */
export const asked = (peer: PeerRecord, addresses: ReadonlyArray<Multiaddr | Told>): void => {
  const record = draft(peer)
  record.suspended = false
  record.parted = false
  record.hurried = true
  for (const address of addresses) {
    if (typeof address === "string") peer.addresses.learn(address, "given")
    else if (!peer.addresses.isOfAnother(address.address)) {
      // The program hands on what the DHT found.
      peer.addresses.learn(address.address, "dht", address.tellers)
    }
  }
  peer.interestChanged(peer)
}

/** `connect` succeeded: the peer is redialled when it is lost. `Interest` of schema/Peer.ts says until when. */
export const wanted = (peer: PeerRecord): void => {
  draft(peer).wanted = true
  peer.interestChanged(peer)
}

/** Another peer answers at the address for which the peer was wanted. */
export const leftAddress = (peer: PeerRecord): void => {
  draft(peer).wanted = false
  peer.interestChanged(peer)
}

/** Counts a call of `connect` in flight, until the returned function is called. */
export const calledBy = (peer: PeerRecord): () => void => counted(peer, "calls")

/** Counts a scope that keeps the peer, until the returned function is called. */
export const keptBy = (peer: PeerRecord): () => void => counted(peer, "keeps")

/** Counts a scope that blocks the peer, until the returned function is called. */
export const blockedBy = (peer: PeerRecord): () => void => counted(peer, "blocks")

/** The program disconnected the peer. Only a `keep` survives, and it sleeps until the program asks for the peer. */
export const suspended = (peer: PeerRecord): void => {
  const record = draft(peer)
  record.wanted = false
  record.discovered = false
  record.suspended = true
  peer.interestChanged(peer)
}

// ---------------------------------------------------------------------------------------------------------------------
// transitions: connections
// ---------------------------------------------------------------------------------------------------------------------

/** The table has admitted a connection of the peer. */
export const connected = (peer: PeerRecord, now: number): void => {
  const record = draft(peer)
  record.connectedAt ??= now
  record.failsNextDial = false
  record.parted = false
  record.retryAt = undefined
}

/** The remote said goodbye. Discovery pauses; the peer stays wanted only if it is restarting or evicted this node. */
export const saidGoodbye = (peer: PeerRecord, reason: GoodbyeReason, restUntil: number): void => {
  rests(peer, restUntil)
  if (isParting(reason)) draft(peer).wanted = false
  peer.interestChanged(peer)
}

/**
 * The last connection of the peer has ended. `restUntil`: until when discovery leaves the peer alone. Used only when
 * one side ended the connection on purpose.
 */
export const lost = (peer: PeerRecord, end: ConnectionEnd, restUntil: number): void => {
  const record = draft(peer)
  const lasted = end.at - (record.connectedAt ?? end.at)
  const hasLasted = lasted >= stableMillis
  record.lastDisconnect = { at: end.at, reason: end.reason, remoteReason: end.remoteReason, lasted }
  // The newer connection's own events will update the record.
  if (end.isReplaced) return
  // An expected goodbye came as a request, and was noted then.
  if (end.remoteReason !== undefined && !end.isExpected) saidGoodbye(peer, end.remoteReason, restUntil)
  record.connectedAt = undefined
  record.discovered = false
  record.parted = isParting(end.isOurs ? end.reason : end.remoteReason)
  if (end.isOurs) {
    record.wanted = false
    rests(peer, restUntil)
  } else if (end.remoteReason === undefined && hasLasted) {
    startAnew(peer)
  } else {
    // A peer that restarts after a connection that lasted is back soon: an outage of an hour ago must not delay it.
    if (end.remoteReason === "shutdown" && hasLasted) resetBackoff(peer)
    record.flapping = true
    record.failsNextDial = true
  }
  peer.interestChanged(peer)
}

/** Discovery leaves the peer alone until then. */
export const rests = (peer: PeerRecord, until: number): void => {
  const record = draft(peer)
  record.restUntil = Math.max(record.restUntil, until)
}

// ---------------------------------------------------------------------------------------------------------------------
// transitions: dials
// ---------------------------------------------------------------------------------------------------------------------

/** An unasked dial of the peer begins: for discovery or against isolation, not for a wish of the program. */
export const sought = (peer: PeerRecord): void => {
  draft(peer).discovered = true
  peer.interestChanged(peer)
}

/** An unasked dial has connected the peer. */
export const found = (peer: PeerRecord): void => resetBackoff(peer)

/** An unasked dial has failed, or was given up. */
export const missed = (peer: PeerRecord): void => {
  draft(peer).discovered = false
  peer.interestChanged(peer)
}

/** A dial by the supervisor begins. */
export const attemptBegins = (peer: PeerRecord): void => {
  const record = draft(peer)
  record.hurried = false
  record.retryAt = undefined
}

/** A dial by the supervisor has ended, and so has what a former loss meant to it. */
export const attemptEnds = (peer: PeerRecord): void => {
  draft(peer).failsNextDial = false
}

/** A refusal outranks a sighting: the peer lives and has no slot, so seeing it again must not reset the backoff. */
export const refused = (peer: PeerRecord): void => {
  draft(peer).flapping = true
}

/** The failed dials of the peer follow this schedule from now on; without a schedule the next failure begins one. */
export const backsOff = (peer: PeerRecord, backoff: PeerBackoff | undefined): void => {
  const record = draft(peer)
  if (record.backoff !== undefined && record.backoff !== backoff) record.attempts = 0
  record.backoff = backoff
}

/** The next attempt of the supervisor waits until then. */
export const retriesAt = (peer: PeerRecord, at: number): void => {
  draft(peer).attempts++
  waitsUntil(peer, at)
}

/** The next dial waits until then. */
export const waitsUntil = (peer: PeerRecord, at: number): void => {
  draft(peer).retryAt = at
}

/** The wait for the next dial is over. */
export const waitEnds = (peer: PeerRecord): void => {
  draft(peer).retryAt = undefined
}

/** `ReconnectPolicy` has ended. A kept peer stays kept and waits for a sighting. */
export const givenUp = (peer: PeerRecord): void => {
  draft(peer).wanted = false
  resetBackoff(peer)
  peer.interestChanged(peer)
}

/**
 * The next dial starts at once, with a fresh backoff: the peer was seen, asked for, or the machine's network changed.
 */
export const startAnew = (peer: PeerRecord): void => {
  const record = draft(peer)
  resetBackoff(peer)
  record.failsNextDial = false
  record.flapping = false
  record.hurried = true
}

/** A sighting asks for a dial at once. */
export const hurried = (peer: PeerRecord, now: number): void => {
  draft(peer).hurriedAt = now
  startAnew(peer)
}

/**
 * Discovery has a new address of a peer that is not wanted: whatever ended the last connection, the peer is worth
 * another dial.
 */
export const reappeared = (peer: PeerRecord): void => {
  draft(peer).parted = false
}

/** A defect has ended what was done for the peer, such as a dial. */
export const died = (peer: PeerRecord, now: number, problem: string): void => {
  const record = draft(peer)
  const message = shortened(`a defect, which the log tells of: ${problem}`)
  record.dials = newest({ at: now, outcome: "Defect", message }, record.dials)
}

/** How a dial of the peer went, all addresses together. */
export const dialled = (peer: PeerRecord, now: number, error?: ConnectError): void => {
  const record = draft(peer)
  const outcome = error === undefined ? "Connected" : error._tag === "DialError" ? error.reason._tag : error._tag
  const text = error === undefined ? undefined : shortened(error.message)
  // Dials fail for the same reason again and again: all of them share one text.
  const message = record.dials.find((dial) => dial.message === text)?.message ?? text
  record.dials = newest({ at: now, outcome, message }, record.dials)
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

type Draft<A> = { -readonly [K in keyof A]: A[K] }

/** The last outcomes, with a new one in front. */
const newest = <A>(one: A, others: ReadonlyArray<A>): ReadonlyArray<A> => [one, ...others].slice(0, outcomesMax)

/** The same record, for the transitions of this file to write to. */
const draft = (peer: PeerRecord): Draft<PeerRecord> => peer

/** Counts one more until the returned function is called; calling that again changes nothing. */
const counted = (peer: PeerRecord, what: "keeps" | "calls" | "blocks"): () => void => {
  const record = draft(peer)
  record[what]++
  peer.interestChanged(peer)
  return once(() => {
    record[what]--
    peer.interestChanged(peer)
  })
}

/** A function that runs `end` at its first call only. */
export const once = (end: () => void): () => void => {
  let isOver = false
  return () => {
    if (isOver) return
    isOver = true
    end()
  }
}

const resetBackoff = (peer: PeerRecord): void => {
  const record = draft(peer)
  record.backoff = undefined
  record.attempts = 0
}

/** Whether neither side is to expect the other back: the connection was idle, or one side ended it for good. */
const isParting = (reason: DisconnectReason | undefined): boolean =>
  reason === "idle" || reason === "disconnect" || reason === "blocked"
