/**
 * Tells a remote why its connection is refused, in the frame by which Yamux ends a session: the frame carries a code,
 * and libp2p's spec of error codes (specs/error-codes) gives it a meaning. Go reads the same codes; other software sees
 * a close.
 *
 * A refused connection never exists on this side. When the gate says no, the handshake is over and the muxer is made,
 * so the code is sent without a stream, and the remote need not be admitted for the time a goodbye would take.
 */
import type { Connection, MultiaddrConnection } from "@libp2p/interface"
import type { RefusalReason } from "../../../schema/NetworkEvent.ts"
import { type Farewell, farewellFor } from "../../../services/Transport.ts"
import { type Change, muxerOf, type YamuxMuxer } from "./Yamux.ts"

/** The codes of the spec that have a meaning here. */
export const codes = {
  resourceLimitExceeded: 0x1001,
  rateLimited: 0x1002,
  garbageCollected: 0x1005,
  shutdown: 0x1006,
  gated: 0x1007
} as const

/**
 * Watches the muxers of one host, and ends the newest with a reason.
 */
export interface RefusingMuxers {
  /** To be applied to each muxer; the gate is asked in the turn in which a connection's muxer is made. */
  readonly watch: Change
  /**
   * Tells the remote of the connection whose muxer was made last. The promise, after which libp2p closes the
   * connection, resolves when the remote has hung up, `lingerMillis` later at most: a socket that is reset at once may
   * lose the frame. At most `most` connections linger at a time; others are closed at once.
   */
  readonly refuse: (connection: MultiaddrConnection, reason: RefusalReason) => Promise<void>
}

export const make = (options: { readonly lingerMillis: number; readonly most: number }): RefusingMuxers => {
  // Weak, since the gate is asked in the turn in which the muxer is made, and the connection may last or go after it.
  let newest: WeakRef<YamuxMuxer> | undefined
  let lingering = 0
  return {
    watch: (muxer, connection) => {
      newest = new WeakRef(muxer)
      const handle = muxer.handleGoAway.bind(muxer)
      // Yamux resets its streams, and leaves a connection open that takes no other stream. It is closed in a later
      // turn, since libp2p may be about to make its own connection of it in this one.
      muxer.handleGoAway = (code) => {
        handle(code)
        if (code >= codesFrom) setImmediate(() => connection.abort(new Error(`the remote went away with ${code}`)))
      }
    },
    refuse: async (connection, reason) => {
      const muxer = newest?.deref()
      newest = undefined
      if (muxer === undefined || connection.status !== "open") return
      try {
        muxer.sendGoAway(codeOf[farewellFor(reason)])
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
 * The reason that the remote's muxer gave when it ended the session; undefined while it has not, or gave none.
 */
export const farewellOf = (connection: Connection): Farewell | undefined => {
  switch (muxerOf(connection)?.remoteGoAway) {
    case codes.resourceLimitExceeded:
      return "full"
    case codes.rateLimited:
      return "promised"
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

// Yamux's own codes are below. Its 0 is an orderly end, after which Yamux closes the connection itself.
const codesFrom = 0x1000

const codeOf: Readonly<Record<Farewell, number>> = {
  full: codes.resourceLimitExceeded,
  // "Come back later". An older node reads it as "full".
  promised: codes.rateLimited,
  evicted: codes.garbageCollected,
  blocked: codes.gated,
  shutdown: codes.shutdown
}
