/**
 * How many connections one peer may have, with those that the gate has let in and the table has not admitted yet.
 *
 * Two nodes that dial each other at once have two, and a relayed peer to whom a hole is punched from both sides has
 * three for a moment. More would leave fewer of the process's sockets and of its memory to other peers.
 */
import type { PeerId } from "../../schema/Peer.ts"
import type { PeerConnections } from "./Connections.ts"

/** Connections of one peer at any time. */
export const connectionsMax = 3

/** Connections of one peer that stay. */
const standingMax = 2

export interface Arrivals {
  /** The gate lets a connection of the peer in. It is expected until `expires`. */
  readonly begin: (peer: PeerId, now: number, expires: number) => void
  /** One of the peer's connections was admitted, or has closed before. */
  readonly end: (peer: PeerId) => void
  /** Whether the peer may have one more connection beside those it has. */
  readonly isAllowed: (peer: PeerId, now: number, connections: PeerConnections | undefined) => boolean
}

/** Nothing has arrived yet. */
export const make = (): Arrivals => {
  /** By peer, when each of its connections stops being expected. Connections are expected for seconds. */
  const expected = new Map<PeerId, Array<number>>()

  const forgetExpired = (now: number) => {
    for (const [peer, times] of expected) {
      const left = times.filter((expires) => expires > now)
      if (left.length === 0) expected.delete(peer)
      else if (left.length < times.length) expected.set(peer, left)
    }
  }

  return {
    begin(peer, now, expires) {
      forgetExpired(now)
      expected.set(peer, [...expected.get(peer) ?? [], expires])
    },
    end(peer) {
      const times = expected.get(peer)
      if (times === undefined) return
      if (times.length < 2) expected.delete(peer)
      else expected.set(peer, times.slice(1))
    },
    isAllowed(peer, now, connections) {
      const arriving = expected.get(peer)?.filter((expires) => expires > now).length ?? 0
      const standing = connections?.size() ?? 0
      if (standing + arriving < standingMax) return true
      // Two that have stood for a while stay two; a third is let in while they become one.
      const isBecomingOne = standing < standingMax || connections?.isSettling() === true
      return isBecomingOne && standing + arriving < connectionsMax
    }
  }
}
