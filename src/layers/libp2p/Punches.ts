/**
 * Which direct connections came of a hole that was punched (DCUtR).
 *
 * libp2p does not tell. The two ends agree on the moment over a stream of the relayed connection, and the direct
 * connection opens while the stream is open, or a moment after the remote has ended it. A dial that the program asked
 * for is no punch.
 */
import type { Connection, Stream } from "@libp2p/interface"
import { BoundedMap } from "../BoundedMap.ts"
import { muxerOf } from "./wire/Yamux.ts"

export interface Punches {
  /** To be called when a relayed connection opens. */
  readonly watch: (relayed: Connection) => void
  /** Runs a dial of the peer whose connection is no punch. */
  readonly during: <A>(peer: string | undefined, dial: () => Promise<A>) => Promise<A>
  /** To be called when a direct connection opens, with all connections of its peer. */
  readonly isPunched: (direct: Connection, all: ReadonlyArray<Connection>) => boolean
}

export const make = (): Punches => {
  // When the last stream of DCUtR with a peer has ended, in milliseconds.
  const ends = new BoundedMap<string, number>(peersMax)
  // The dials of this node, by peer.
  const dials = new Map<string, number>()
  return {
    watch(relayed) {
      const note = (stream: Stream) =>
        stream.addEventListener("close", () => {
          // An attempt that this side has given up is aborted.
          if (stream.protocol !== dcutrProtocol || stream.status === "aborted") return
          ends.set(relayed.remotePeer.toString(), performance.now())
        }, { once: true })
      muxerOf(relayed)?.addEventListener("stream", ({ detail }) => note(detail))
      const newStream = relayed.newStream.bind(relayed)
      relayed.newStream = async (...options) => {
        const stream = await newStream(...options)
        note(stream)
        return stream
      }
    },
    async during(peer, dial) {
      if (peer === undefined) return dial()
      dials.set(peer, (dials.get(peer) ?? 0) + 1)
      try {
        return await dial()
      } finally {
        const left = (dials.get(peer) ?? 1) - 1
        if (left === 0) dials.delete(peer)
        else dials.set(peer, left)
      }
    },
    isPunched(direct, all) {
      if (direct.direction === "outbound" && dials.has(direct.remotePeer.toString())) return false
      if (all.some((one) => !one.direct && isUpgrading(one))) return true
      const endedAt = ends.get(direct.remotePeer.toString())
      return endedAt !== undefined && performance.now() - endedAt < punchMillis
    }
  }
}

/** Whether the two ends of a relayed connection are about to punch a hole. */
export const isUpgrading = (relayed: Connection): boolean =>
  relayed.streams.some(({ protocol, status }) => protocol === dcutrProtocol && status === "open")

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const dcutrProtocol = "/libp2p/dcutr"
const peersMax = 256
// Half a round trip of the relayed connection, and a handshake.
const punchMillis = 2000
