/**
 * Finds the peers that have had no stream for `connectionIdleTimeout`.
 *
 * One fiber serves all peers: it sleeps until the first of them may be idle, so that a kept peer, or one with streams,
 * costs no wake.
 */
import { Duration, Effect, Latch } from "effect"
import type { Interest, PeerId } from "../../schema/Peer.ts"
import * as Elapsed from "../Elapsed.ts"
import * as Supervised from "../Supervised.ts"
import { activeStreams, type Entry } from "./Entry.ts"

/** Looks for idle peers while the scope lives, and runs `close` for each in one step with the look. */
export const make = Effect.fnUntraced(function*(options: {
  readonly entries: ReadonlyMap<PeerId, Entry>
  readonly timeout: Duration.Duration
  readonly interestOf: (peer: PeerId) => Interest
  readonly close: (entry: Entry) => Effect.Effect<void>
}) {
  const { close, entries, interestOf } = options
  const timeoutMillis = Duration.toMillis(options.timeout)
  // Closed while no peer can become idle: the fiber has no time to sleep until.
  const mayIdle = Latch.makeUnsafe(false)

  const isExempt = (entry: Entry) => entry.holds + entry.attends > 0 || interestOf(entry.id) === "kept"

  /** Closes the idle peers. Returns when to look again: idle times only move later, so no peer can be idle before. */
  const closeIdle = Effect.fnUntraced(function*(now: number) {
    let next = Number.POSITIVE_INFINITY
    for (const entry of [...entries.values()]) {
      if (isExempt(entry)) continue
      if (entry.idleSince + timeoutMillis - now < toleranceMillis) {
        const active = yield* activeStreams(entry)
        // The question may have taken more than one step.
        if (entries.get(entry.id) !== entry || isExempt(entry)) continue
        if (active === 0) {
          yield* close(entry)
          continue
        }
        // The stream is not the library's, such as a relay's: nobody tells when it ends, so the idle time starts over.
        entry.idleSince = now
      }
      next = Math.min(next, entry.idleSince + timeoutMillis)
    }
    return next
  })

  const watch = Effect.gen(function*() {
    yield* mayIdle.close
    const now = yield* Elapsed.millis
    const next = yield* closeIdle(now)
    yield* next === Number.POSITIVE_INFINITY ? mayIdle.await : Effect.sleep(next - now)
  })
  if (Number.isFinite(timeoutMillis)) yield* Supervised.forever("the end of idle peers", watch)

  return {
    /** The peer's idle time begins now. */
    begin: (entry: Entry) =>
      Effect.flatMap(Elapsed.millis, (now) => {
        entry.idleSince = now
        return mayIdle.open
      })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// A clock that stands at a fraction of a millisecond misses a sum of fractions by a rounding error.
const toleranceMillis = 0.001
