/**
 * The addresses that a node knows of one peer, and how the dials of each went. Bounded in number and in size.
 */
import type { Clock } from "effect"
import type { ConnectError } from "../../schema/NetworkError.ts"
import type { Multiaddr, PeerId } from "../../schema/Peer.ts"
import { peerOf, withoutPeer, withPeer } from "../../schema/Peer.ts"
import { directIpOf, hostOf } from "../../schema/Subnet.ts"
import { reachOf } from "../../schema/Reach.ts"
import { sourceTraits } from "../../services/Discovery.ts"
import type { RememberedPeer } from "../../services/PeerStore.ts"
import * as Elapsed from "../Elapsed.ts"

/**
 * Addresses that other peers told; a new one displaces the oldest that never worked. As many again may be given by the
 * program.
 */
const addressesMax = 16

/** Characters of an address that others told. One with two certificate hashes and a relay has about 400. */
const addressLengthMax = 512

/** Tellers of an address that are remembered; the newest stay. */
const tellersMax = 4

/** Characters of an error's message that are remembered. */
const messageMax = 200

/** An address and how its dials went; times are those of `Elapsed`, in milliseconds. */
export interface KnownAddress {
  /** Ends in `/p2p/<id>`. */
  readonly address: Multiaddr
  /** `given`, `worked`, or the source of a sighting. */
  readonly source: string
  /** The program gave it, so no guard judges it. */
  readonly isOwn: boolean
  /**
   * The hosts, as this node saw them, of those who told it, such as `/ip4/192.168.1.7`. Only those that may change the
   * guard's answer: hosts that are not public, and the address's own host, which may be this machine. The newest last.
   */
  readonly tellers: ReadonlyArray<Multiaddr>
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
  /** Where another peer answered when this one was dialled last. */
  private mistaken: Set<Multiaddr> | undefined

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

  /** The entry of an address, with its peer id or without. */
  get(address: Multiaddr): KnownAddress | undefined {
    return this.entry(address)
  }

  /** Whether the address names another peer. */
  isOfAnother(address: Multiaddr): boolean {
    if (this.entries.has(address)) return false
    const id = peerOf(address)
    return id !== undefined && id !== this.id
  }

  /** Whether another peer answered at the address when this one was dialled there last. */
  isOfAnotherNow(address: Multiaddr): boolean {
    return this.mistaken?.has(withPeer(address, this.id)) === true
  }

  /** Notes an address; true when it is new. A known address keeps its results, and a given one stays given. */
  learn(address: Multiaddr, source: string, tellers: ReadonlyArray<Multiaddr> = []): boolean {
    const known = this.entry(address)
    if (known === undefined && address.length > addressLengthMax && trustOf(source) < trustOf("given")) return false
    const entry: Draft = known ?? {
      address: withPeer(address, this.id),
      source,
      isOwn: false,
      tellers: nobody,
      lastSuccess: undefined,
      lastFailure: undefined,
      problem: undefined
    }
    if (trustOf(source) > trustOf(entry.source)) entry.source = source
    entry.isOwn ||= sourceTraits(source).isOwn
    for (const teller of tellers) {
      const host = nearHostOf(teller, address)
      if (host === undefined) continue
      entry.tellers = [...entry.tellers.filter((other) => other !== host), host].slice(-tellersMax)
    }
    this.entries.delete(entry.address)
    this.entries.set(entry.address, entry)
    if (known === undefined) this.displace(source)
    return known === undefined
  }

  /** A connection to the address stood. The peer lies there itself, so it is a teller of that network. */
  worked(address: Multiaddr, now: number): void {
    this.learn(address, "worked", [withoutPeer(address)])
    const entry = this.entry(address)
    if (entry === undefined) return
    entry.lastSuccess = now
    entry.problem = undefined
    this.mistaken?.delete(entry.address)
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
    const isOfAnother = error._tag === "DialError" && error.reason._tag === "UnexpectedPeer"
    this.mistaken?.delete(entry.address)
    if (isOfAnother && (this.mistaken?.size ?? 0) < addressesMax) {
      this.mistaken = (this.mistaken ?? new Set()).add(entry.address)
    }
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

// One array for the many addresses of which no teller matters.
const nobody: ReadonlyArray<Multiaddr> = []

const nearHostOf = (teller: Multiaddr, address: Multiaddr): Multiaddr | undefined => {
  const ip = directIpOf(teller)
  if (ip === undefined) return undefined
  const host = hostOf(ip)
  return reachOf(ip) !== "public" || address.startsWith(`${host}/`) ? host : undefined
}

const trustOf = (source: string) => source === "given" ? 2 : source === "worked" ? 1 : 0
