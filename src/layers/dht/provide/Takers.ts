/**
 * The peers that could take a copy of what this node provides, and the addresses under which it announces itself. Keys
 * are announced again when either changes. Nothing is announced while no peer could take a copy, or while this node has
 * no address.
 *
 * A node is isolated when no peer is connected and the last announcement, for which known peers were dialled, has
 * reached nobody.
 */
import { hash } from "node:crypto"
import type { PeerId } from "../../../schema/Peer.ts"
import type { ProvideStatus } from "../../../schema/ProvideStatus.ts"
import { BoundedMap } from "../../BoundedMap.ts"

export interface TakersOptions {
  /** The peers that could take a copy. */
  readonly takers: () => ReadonlyArray<PeerId>
  /** Whether one of them is connected. */
  readonly isConnected: () => boolean
  /** This node's addresses as they would be announced. */
  readonly addresses: () => ReadonlyArray<string>
}

/** What has changed since the last look. */
export interface TakersChange {
  /** How many peers could take a copy. */
  readonly count: number
  /** This node has other addresses. */
  readonly hasMoved: boolean
  /** A peer has come that had never been a taker. */
  readonly isMore: boolean
  /** Announcing is possible again: there is a taker and an address, and there was not before. */
  readonly isBack: boolean
}

/** The circumstances in which an announcement is made. It is outdated when they differ at its end. */
export interface Moment {
  /** This node's addresses, as a short text that differs when they do. */
  readonly addresses: string
  /** How often a peer had come that had never been a taker. */
  readonly arrivals: number
  /** No peer was connected. */
  readonly wasAlone: boolean
}

export type Takers = ReturnType<typeof make>

export const make = ({ addresses, isConnected, takers }: TakersOptions) => {
  let latest = ""
  let isReachable = false
  let wasConnected = false
  let wasIsolated = false
  /** The last announcement reached nobody and no peer has connected since. */
  let isUnheard = false
  const met = new BoundedMap<PeerId, true>(metMax)
  let arrivals = 0
  const isIsolated = () => isUnheard && !isConnected()

  return {
    isIsolated,
    /** Whether there was a taker and an address at the last look. */
    isReachable: () => isReachable,
    count: () => takers().length,
    now: (): Moment => ({ addresses: latest, arrivals, wasAlone: !isConnected() }),

    look: (): TakersChange => {
      const all = takers()
      const fingerprint = fingerprintOf(addresses())
      const hasMoved = fingerprint !== "" && fingerprint !== latest
      if (hasMoved) latest = fingerprint
      const newcomers = all.filter((peer) => !met.has(peer))
      for (const peer of newcomers) met.set(peer, true)
      const isMore = newcomers.length > 0
      if (isMore) arrivals++
      // Servers drop a record without addresses and do not say so.
      const wasReachable = isReachable
      isReachable = all.length > 0 && fingerprint !== ""
      if (isConnected() && !wasConnected) isUnheard = false
      wasConnected = isConnected()
      const isFound = wasIsolated && !isIsolated()
      wasIsolated = isIsolated()
      return { count: all.length, hasMoved, isMore, isBack: isReachable && (isFound || !wasReachable) }
    },

    /** An announcement has reached nobody. */
    unheard: (): void => {
      isUnheard = true
    },

    /** An announcement has reached a peer. True when the one before had reached nobody. */
    heard: (): boolean => {
      const wasUnheard = isUnheard
      isUnheard = false
      return wasUnheard
    },

    /** Why nothing is announced. */
    paused: (): ProvideStatus["paused"] => {
      if (addresses().length === 0) return "NoAddresses"
      if (takers().length === 0) return "NoPeers"
      return isIsolated() ? "Isolated" : undefined
    }
  }
}

/**
 * Whether it is worth announcing a key again because peers have come: when copies are missing that `takers` peers could
 * take. With more than twice as many takers as copies wanted, only when half of the copies are missing.
 */
export const isShort = (copies: number, wanted: number, takers: number): boolean =>
  copies < takers && copies < (takers > 2 * wanted ? wanted / 2 : wanted)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** How many peers are remembered as takers. */
const metMax = 4096

const fingerprintOf = (addresses: ReadonlyArray<string>): string =>
  addresses.length === 0 ? "" : hash("sha256", addresses.toSorted().join("\n"), "base64").slice(0, 8)
