/**
 * Who could take a copy of what this node provides, and where this node says that it is: when that changes, keys are announced again, and
 * while nobody could take one, or there is no address to tell, nothing is announced.
 *
 * A node is isolated when nobody is connected and the last announcement, for which known peers were dialled, has reached nobody.
 */
import { hash } from "node:crypto"
import type { PeerId } from "../../../schema/Peer.ts"
import type { ProvideStatus } from "../../../schema/ProvideStatus.ts"

export interface ProvideTakersOptions {
  /** The peers that could take a copy. */
  readonly takers: () => ReadonlyArray<PeerId>
  /** Whether one of them is connected. */
  readonly isConnected: () => boolean
  /** This node's addresses as they would be announced. */
  readonly addresses: () => ReadonlyArray<string>
}

/** What has changed since somebody looked last. */
export interface ProvideTakersChange {
  /** How many could take a copy. */
  readonly count: number
  /** This node has other addresses. */
  readonly hasMoved: boolean
  /** Somebody has come who had never been a taker. */
  readonly isMore: boolean
  /** There is somebody to tell, and something to tell, and there was not before. */
  readonly isBack: boolean
}

/** What an announcement is made for. It is outdated when this is another one at its end. */
export interface ProvideMoment {
  /** This node's addresses, as a short text that differs when they do. */
  readonly addresses: string
  /** How often somebody had come who had never been a taker. */
  readonly arrivals: number
  /** Nobody was connected. */
  readonly wasAlone: boolean
}

export const make = ({ addresses, isConnected, takers }: ProvideTakersOptions) => {
  let latest = ""
  let isReachable = false
  let wasConnected = false
  let wasIsolated = false
  /** The last announcement has reached nobody, and nobody has come since there was nobody. */
  let isUnheard = false
  const met = new Set<PeerId>()
  let arrivals = 0
  const isIsolated = () => isUnheard && !isConnected()

  return {
    isIsolated,
    /** Whether there was somebody to tell and something to tell when somebody looked last. */
    isReachable: () => isReachable,
    count: () => takers().length,
    now: (): ProvideMoment => ({ addresses: latest, arrivals, wasAlone: !isConnected() }),

    look: (): ProvideTakersChange => {
      const all = takers()
      const fingerprint = fingerprintOf(addresses())
      const hasMoved = fingerprint !== "" && fingerprint !== latest
      if (hasMoved) latest = fingerprint
      const before = met.size
      for (const peer of all) met.add(peer)
      const isMore = met.size > before
      if (isMore) arrivals++
      for (const oldest of met) {
        if (met.size <= metMax) break
        met.delete(oldest)
      }
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

    /** One has reached somebody; whether that is news. */
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

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** As many peers are remembered to have been takers. */
const metMax = 4096

const fingerprintOf = (addresses: ReadonlyArray<string>): string =>
  addresses.length === 0 ? "" : hash("sha256", addresses.toSorted().join("\n"), "base64").slice(0, 8)
