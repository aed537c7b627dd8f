/**
 * What a node knows and wants of other peers, connected or not: one record each, bounded in number and in size.
 *
 * The book is the connection manager's alone. Its steps are synchronous, so that the gate can ask it; times are in milliseconds.
 */
import { Context, DateTime, type Duration, Effect, Latch, Layer, type Pull } from "effect"
import type { ConnectError } from "../../schema/NetworkError.ts"
import type { DisconnectReason, GoodbyeReason, RefusalReason } from "../../schema/NetworkEvent.ts"
import type { Direction, Interest, Multiaddr, PeerId } from "../../schema/Peer.ts"
import { isMultiaddr, peerOf, withPeer } from "../../schema/Peer.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import type { RememberedPeer } from "../../services/PeerStore.ts"

/** Addresses of one peer that others told; a new one displaces the oldest that never worked. As many again may be given. */
export const addressesMax = 16

/** Dials and refusals that are remembered of one peer. */
export const outcomesMax = 8

/** Characters of an error's message that are remembered. */
const messageMax = 200

/** One step of a `Schedule` that is stepped by hand. */
export type Step = (now: number, error: ConnectError) => Pull.Pull<[unknown, Duration.Duration], never, unknown>

/** An address and how its dials went. */
export interface KnownAddress {
  /** Ends in `/p2p/<id>`. */
  readonly address: Multiaddr
  /** `given`, `worked`, or the source of a sighting. */
  source: string
  /** Told by a peer on this machine. */
  isToldLocally: boolean
  lastSuccess: number | undefined
  lastFailure: number | undefined
  problem: string | undefined
}

/** The record of one peer. */
export interface KnownPeer {
  readonly id: PeerId
  /** By address, newest last. */
  readonly addresses: Map<Multiaddr, KnownAddress>
  /** Opened by whatever may change what the supervisor does. Made with it: most peers never have one. */
  changed: Latch.Latch | undefined
  keeps: number
  /** Calls of `connect` in flight: they rank as wanted, and leave nothing behind when they fail. */
  claims: number
  wanted: boolean
  discovered: boolean
  /** `disconnect` was called and nobody has asked for the peer since. */
  suspended: boolean
  blocks: number
  /** It left on purpose, this side's or its own, so a lonely node does not count on it. */
  parted: boolean
  /** Discovery leaves the peer alone until then. */
  restUntil: number
  /** A failed dial is not repeated before then. */
  retryAt: number | undefined
  /** When a sighting last asked for a dial at once. */
  hurriedAt: number
  /** What counts as the last dial's error when a connection was lost early, or given up by the remote. */
  loss: ConnectError | undefined
  /** The remote said goodbye, so the loss that follows is its wish. */
  farewell: GoodbyeReason | undefined
  connectedAt: number | undefined
  /** The last connection was lost early, or the remote let go, or refused: being seen says nothing new. */
  flapping: boolean
  /** Whether a supervisor runs. */
  supervised: boolean
  step: Step | undefined
  attempts: number
  /** A sighting or a call asks for a dial now instead of after the delay. */
  hurried: boolean
  /** Newest first. */
  dials: ReadonlyArray<{ readonly at: number; readonly outcome: string; readonly message: string | undefined }>
  lastDisconnect: {
    readonly at: number
    readonly reason: DisconnectReason
    readonly remoteReason: GoodbyeReason | undefined
    readonly lasted: number
  } | undefined
}

/** A connection that the gate refused. */
export interface Refusal {
  readonly at: number
  readonly direction: Direction
  readonly reason: RefusalReason
}

export class KnownPeers extends Context.Service<KnownPeers, {
  readonly get: (id: PeerId) => KnownPeer | undefined
  /** The peer's record, made where there is none. Of too many, those without interest that are not connected go, the longest unseen first. */
  readonly record: (id: PeerId) => KnownPeer
  /** All records, the longest unseen first. */
  readonly all: () => Iterable<KnownPeer>
  readonly size: () => number
  /** A connection of the peer was refused. Kept of strangers too, without making them known. */
  readonly refused: (id: PeerId, refusal: Refusal) => void
  /** Newest first. */
  readonly refusalsOf: (id: PeerId) => ReadonlyArray<Refusal>
}>()("codio-network/layers/KnownPeers") {}

export const make = Effect.map(NetworkConfig, ({ maxKnownPeers }) => {
  // In the order of the last mention, so that the first without interest is the longest unseen.
  const known = new Map<PeerId, KnownPeer>()
  const refusals = new Map<PeerId, ReadonlyArray<Refusal>>()

  return KnownPeers.of({
    get: (id) => known.get(id),
    record(id) {
      const found = known.get(id) ?? makeRecord(id)
      known.delete(id)
      if (known.size >= maxKnownPeers) {
        for (const other of known.values()) {
          if (isOfInterest(other)) continue
          known.delete(other.id)
          break
        }
      }
      known.set(id, found)
      return found
    },
    all: () => known.values(),
    size: () => known.size,
    refused(id, refusal) {
      const all = [refusal, ...refusals.get(id) ?? []].slice(0, outcomesMax)
      refusals.delete(id)
      refusals.set(id, all)
      if (refusals.size > maxKnownPeers) removeFirst(refusals)
    },
    refusalsOf: (id) => refusals.get(id) ?? []
  })
})

export const layer: Layer.Layer<KnownPeers, never, NetworkConfig> = Layer.effect(KnownPeers, make)

/** How much the peer is wanted now. */
export const interestOf = (peer: KnownPeer): Interest => {
  if (peer.suspended || peer.blocks > 0) return "transient"
  if (peer.keeps > 0) return "kept"
  if (peer.wanted || peer.claims > 0) return "wanted"
  return peer.discovered ? "discovered" : "transient"
}

/** Whether the peer is redialled whenever it is lost. */
export const isDesired = (peer: KnownPeer): boolean =>
  !peer.suspended && peer.blocks === 0 && (peer.keeps > 0 || peer.wanted)

/**
 * Whether a node without peers may count on this one: not on those that left on purpose, nor on those that only ever dialled in, such as
 * the clients of a server, of whom nothing is known but what they said themselves.
 */
export const isCandidate = (peer: KnownPeer): boolean => {
  if (isDesired(peer)) return true
  if (peer.suspended || peer.parted || peer.blocks > 0) return false
  for (const { source } of peer.addresses.values()) if (source !== "identify") return true
  return false
}

/** Whether somebody was there and had no place, here or there. */
export const isRefusal = (error: ConnectError): boolean =>
  error._tag === "PeerLimitExceeded" || (error._tag === "DialError" && error.reason._tag === "Refused")

/**
 * Notes an address; true when it is new. An address that is known keeps its results; one that was given stays given.
 */
export const learn = (peer: KnownPeer, address: Multiaddr, source: string, isToldLocally = false): boolean => {
  // Sources repeat themselves, and what is known is known by its whole address.
  const place = peer.addresses.has(address) ? address : withPeer(address, peer.id)
  const known = peer.addresses.get(place)
  peer.addresses.delete(place)
  const entry: KnownAddress = known ?? {
    address: place,
    source,
    isToldLocally,
    lastSuccess: undefined,
    lastFailure: undefined,
    problem: undefined
  }
  if (trustOf(source) > trustOf(entry.source)) entry.source = source
  entry.isToldLocally ||= isToldLocally
  peer.addresses.set(place, entry)
  if (known === undefined) displace(peer, source)
  return known === undefined
}

/** A connection to the address stood. */
export const worked = (peer: KnownPeer, address: Multiaddr, now: number): void => {
  learn(peer, address, "worked")
  const entry = peer.addresses.get(withPeer(address, peer.id))
  if (entry === undefined) return
  entry.lastSuccess = now
  entry.problem = undefined
}

/**
 * A dial of the address failed. One that is not worth another dial is forgotten: of a kept peer not the one that was given, since whoever
 * answers there instead may leave again.
 */
export const failed = (peer: KnownPeer, address: Multiaddr, now: number, error: ConnectError): void => {
  const entry = peer.addresses.get(withPeer(address, peer.id))
  if (entry === undefined) return
  entry.lastFailure = now
  entry.problem = shorten(error._tag === "DialError" ? error.reason.message : error.message)
  if (error._tag !== "DialError" || error.isRetryable) return
  if (error.reason._tag === "UnexpectedPeer" && entry.source === "given" && peer.keeps > 0) return
  peer.addresses.delete(entry.address)
}

/** Takes over what the peer store remembers of the peer. */
export const recall = (peer: KnownPeer, { addresses }: RememberedPeer): void => {
  // The one that worked last is the newest.
  for (const { address, lastSuccess } of [...addresses].reverse()) {
    if (!peer.addresses.has(withPeer(address, peer.id))) worked(peer, address, lastSuccess.epochMilliseconds)
  }
}

/** How a dial of the peer went, all addresses together. */
export const dialled = (peer: KnownPeer, now: number, error?: ConnectError): void => {
  const outcome = error === undefined ? "Connected" : error._tag === "DialError" ? error.reason._tag : error._tag
  const message = error === undefined ? undefined : shorten(error.message)
  peer.dials = [{ at: now, outcome, message }, ...peer.dials].slice(0, outcomesMax)
}

/** The next dial starts at once, with a fresh backoff: the peer was seen, asked for, or the machine's network changed. */
export const startAnew = (peer: KnownPeer): void => {
  peer.step = undefined
  peer.attempts = 0
  peer.loss = undefined
  peer.flapping = false
  peer.hurried = true
}

/** What the peer's supervisor sleeps on. */
export const changesOf = (peer: KnownPeer): Latch.Latch => peer.changed ??= Latch.makeUnsafe(false)

/** Wakes the peer's supervisor, if it has one. */
export const notify = (peer: KnownPeer): Effect.Effect<void> =>
  peer.changed === undefined ? Effect.void : Effect.asVoid(peer.changed.open)

/** The addresses in a target that name them. */
export const addressesIn = (target: PeerId | Multiaddr | { readonly addresses: ReadonlyArray<Multiaddr> }) =>
  typeof target !== "string" ? target.addresses : isMultiaddr(target) ? [target] : []

/** Whether an address tells whose it is, and it is not this peer's. */
export const isOfAnother = (peer: KnownPeer, address: Multiaddr): boolean => {
  if (peer.addresses.has(address)) return false
  const id = peerOf(address)
  return id !== undefined && id !== peer.id
}

/** A time of the book for those outside. */
export const dateOf = (millis: number): DateTime.Utc => DateTime.makeUnsafe(Math.floor(millis))

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const makeRecord = (id: PeerId): KnownPeer => ({
  id,
  addresses: new Map(),
  changed: undefined,
  keeps: 0,
  claims: 0,
  wanted: false,
  discovered: false,
  suspended: false,
  blocks: 0,
  parted: false,
  restUntil: 0,
  retryAt: undefined,
  hurriedAt: Number.NEGATIVE_INFINITY,
  loss: undefined,
  farewell: undefined,
  connectedAt: undefined,
  flapping: false,
  supervised: false,
  step: undefined,
  attempts: 0,
  hurried: false,
  dials: [],
  lastDisconnect: undefined
})

const isOfInterest = (peer: KnownPeer) =>
  peer.keeps + peer.blocks + peer.claims > 0 || peer.wanted || peer.connectedAt !== undefined

const trustOf = (source: string) => source === "given" ? 2 : source === "worked" ? 1 : 0

/** What a flood of addresses may not displace is what the program gave, and what worked. */
const displace = (peer: KnownPeer, source: string) => {
  const isGiven = source === "given"
  const rivals = [...peer.addresses.values()].filter((entry) => (entry.source === "given") === isGiven)
  if (rivals.length <= addressesMax) return
  const victim = rivals.find((entry) => entry.lastSuccess === undefined) ?? rivals[0]
  if (victim !== undefined) peer.addresses.delete(victim.address)
}

const shorten = (text: string) => text.length > messageMax ? `${text.slice(0, messageMax)}...` : text

const removeFirst = (map: Map<unknown, unknown>) => {
  for (const first of map.keys()) {
    map.delete(first)
    return
  }
}
