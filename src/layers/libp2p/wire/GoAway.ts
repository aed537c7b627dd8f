/**
 * Why a connection is refused, said in the muxer's own goodbye: the frame by which yamux ends a session has room for a code, and libp2p's
 * spec of error codes (specs/error-codes) says which. Go reads the same codes; other software sees a close.
 *
 * A refused connection never exists on this side: when the gate says no, the handshake is over and the muxer made, so that the word can be
 * sent without a stream, and without letting the remote in for as long as a protocol would take.
 */
import type { Connection, MultiaddrConnection, StreamMuxer } from "@libp2p/interface"
import type { RefusalReason } from "../../../schema/NetworkEvent.ts"
import type { Farewell } from "../../../services/Transport.ts"
import { eachMuxer, type Muxers } from "./Muxer.ts"

/** The codes of the spec that have a meaning here. */
export const codes = {
  resourceLimitExceeded: 0x1001,
  rateLimited: 0x1002,
  garbageCollected: 0x1005,
  shutdown: 0x1006,
  gated: 0x1007
} as const

/**
 * Makes muxers, and ends the newest one with a reason.
 */
export interface RefusingMuxers {
  /** To be given the muxers of one host; the gate is asked in the turn in which a connection's muxer has been made. */
  readonly watch: <C>(factory: Muxers<C>) => Muxers<C>
  /**
   * Tells the remote of the connection whose muxer was made last. It is closed `lingerMillis` later at most, or when the remote has hung
   * up: a socket that is reset at once may take the word with it. At most so many wait at a time; others are closed at once.
   */
  readonly refuse: (connection: MultiaddrConnection, reason: RefusalReason) => Promise<void>
}

export const make = (options: { readonly lingerMillis: number; readonly most: number }): RefusingMuxers => {
  let newest: YamuxMuxer | undefined
  let lingering = 0
  return {
    watch: eachMuxer<YamuxMuxer>((muxer, connection) => {
      newest = muxer
      const handle = muxer.handleGoAway?.bind(muxer)
      if (handle === undefined) return
      // Yamux resets its streams and leaves the connection open, on which no other can be opened. It closes in a later turn: this may be
      // the one in which libp2p makes the connection of it.
      muxer.handleGoAway = (code) => {
        handle(code)
        if (code >= codesFrom) setImmediate(() => connection.abort(new Error(`the remote went away with ${code}`)))
      }
    }),
    refuse: async (connection, reason) => {
      const muxer = newest
      newest = undefined
      if (muxer?.sendGoAway === undefined || connection.status !== "open") return
      try {
        muxer.sendGoAway(codeOf[reason])
      } catch {
        // The socket is gone already.
        return
      }
      if (lingering >= options.most) return
      lingering++
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer)
          connection.removeEventListener("close", done)
          resolve()
        }
        const timer = setTimeout(done, options.lingerMillis)
        connection.addEventListener("close", done)
      })
      lingering--
    }
  }
}

/**
 * What the remote's muxer said when it ended the session; none while it has not, and where it said nothing.
 */
export const farewellOf = (connection: Connection): Farewell | undefined => {
  // Both fields are private, and no event tells of the code.
  const { muxer } = connection as { readonly muxer?: StreamMuxer & YamuxMuxer }
  switch (muxer?.remoteGoAway) {
    case codes.resourceLimitExceeded:
    case codes.rateLimited:
      return "full"
    case codes.garbageCollected:
      return "evicted"
    case codes.shutdown:
      return "shutdown"
    case codes.gated:
      return "blocked"
    default:
      return undefined
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// Yamux's own, not of the muxer interface, and private.
interface YamuxMuxer {
  handleGoAway?: (code: number) => void
  readonly remoteGoAway?: number
  readonly sendGoAway?: (code: number) => void
}

// Below are those of the transports: yamux's own 0 is an end in good order, after which it closes.
const codesFrom = 0x1000

const codeOf: Readonly<Record<RefusalReason, number>> = {
  full: codes.resourceLimitExceeded,
  inbound: codes.resourceLimitExceeded,
  subnet: codes.resourceLimitExceeded,
  connections: codes.resourceLimitExceeded,
  pending: codes.rateLimited,
  rate: codes.rateLimited,
  shutdown: codes.shutdown,
  blocked: codes.gated
}
