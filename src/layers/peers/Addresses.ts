/**
 * The addresses that a node knows of one peer, and how the dials of each went. Bounded in number and in size.
 */
import type { Clock } from "effect"
import type { ConnectError } from "../../schema/NetworkError.ts"
import type { Multiaddr, PeerId } from "../../schema/Peer.ts"
import { peerOf, withPeer } from "../../schema/Peer.ts"
import type { RememberedPeer } from "../../services/PeerStore.ts"
import * as Elapsed from "../Elapsed.ts"

/**
 * Addresses that other peers told; a new one displaces the oldest that never worked. As many again may be given by the
 * program.
 */
const addressesMax = 16

/** Characters of an address that others told. One with two certificate hashes and a relay has about 400. */
const addressLengthMax = 512

/** Characters of an error's message that are remembered. */
const messageMax = 200

/** An address and how its dials went; times are those of `Elapsed`, in milliseconds. */
export interface KnownAddress {
  /** Ends in `/p2p/<id>`. */
  readonly address: Multiaddr
  /** `given`, `worked`, or the source of a sighting. */
  readonly source: string
  /** Told by a peer on this machine. */
  readonly isToldLocally: boolean
  readonly lastSuccess: number | undefined
  readonly lastFailure: number | undefined
  readonly problem: string | undefined
}

/**
 * The addresses of the peer with the given id.
 */
export class KnownAddresses {
  private readonly id: PeerId
  private readonly entries = new Map<Multiaddr, Draft>()

  constructor(id: PeerId) {
    this.id = id
  }

  get size(): number {
    return this.entries.size
  }

  /** The newest last. */
  values(): IterableIterator<KnownAddress> {
    return this.entries.values()
  }

  has(address: Multiaddr): boolean {
    return this.entry(address) !== undefined
  }

  /** Whether the address names another peer. */
  isOfAnother(address: Multiaddr): boolean {
    if (this.entries.has(address)) return false
    const id = peerOf(address)
    return id !== undefined && id !== this.id
  }

  /** Notes an address; true when it is new. A known address keeps its results, and a given one stays given. */
  learn(address: Multiaddr, source: string, isToldLocally = false): boolean {
    const known = this.entry(address)
    if (known === undefined && address.length > addressLengthMax && trustOf(source) < trustOf("given")) return false
    const entry: Draft = known ?? {
      address: withPeer(address, this.id),
      source,
      isToldLocally,
      lastSuccess: undefined,
      lastFailure: undefined,
      problem: undefined
    }
    if (trustOf(source) > trustOf(entry.source)) entry.source = source
    entry.isToldLocally ||= isToldLocally
    this.entries.delete(entry.address)
    this.entries.set(entry.address, entry)
    if (known === undefined) this.displace(source)
    return known === undefined
  }

  /** A connection to the address stood. */
  worked(address: Multiaddr, now: number): void {
    this.learn(address, "worked")
    const entry = this.entry(address)
    if (entry === undefined) return
    entry.lastSuccess = now
    entry.problem = undefined
  }

  /**
   * A dial of the address failed. An address that is not worth another dial is forgotten; but a given address of a kept
   * peer stays although another peer answers there, since that one may leave again.
   */
  failed(address: Multiaddr, now: number, error: ConnectError, isKept: boolean): void {
    const entry = this.entry(address)
    if (entry === undefined) return
    entry.lastFailure = now
    entry.problem = shortened(error._tag === "DialError" ? error.reason.message : error.message)
    if (error._tag !== "DialError" || error.isRetryable) return
    if (error.reason._tag === "UnexpectedPeer" && entry.source === "given" && isKept) return
    this.entries.delete(entry.address)
  }

  /** Takes over what the peer store remembers. */
  recall({ addresses }: RememberedPeer, clock: Clock.Clock): void {
    // The address that worked last becomes the newest.
    for (const { address, lastSuccess } of [...addresses].reverse()) {
      // The wall clock may have been set back since.
      const at = Math.min(Elapsed.timeOf(clock, lastSuccess), Elapsed.millisUnsafe(clock))
      if (!this.has(address)) this.worked(address, at)
    }
  }

  private entry(address: Multiaddr): Draft | undefined {
    // Most questions are for a known address with its peer id: they cost no parsing.
    return this.entries.get(address) ?? this.entries.get(withPeer(address, this.id))
  }

  /**
   * Makes room among the given addresses, or among all others. A flood displaces neither given addresses nor those that
   * worked.
   */
  private displace(source: string): void {
    const isGiven = source === "given"
    const rivals = [...this.entries.values()].filter((entry) => (entry.source === "given") === isGiven)
    if (rivals.length <= addressesMax) return
    const victim = rivals.find((entry) => entry.lastSuccess === undefined) ?? rivals[0]
    if (victim !== undefined) this.entries.delete(victim.address)
  }
}

/**
 * The text, cut to what is remembered of an error. A copy in one piece: V8 keeps a text that was put together as its
 * parts, and a piece of a text together with the whole.
 */
export const shortened = (text: string): string =>
  Buffer.from(text.length > messageMax ? `${text.slice(0, messageMax)}...` : text).toString()

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

type Draft = { -readonly [K in keyof KnownAddress]: KnownAddress[K] }

const trustOf = (source: string) => source === "given" ? 2 : source === "worked" ? 1 : 0
