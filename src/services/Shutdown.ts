/**
 * How a node ends in time. Its parts are released one after the other, and none may hold up the others for ever.
 */
import { Context, Effect } from "effect"

/**
 * How much of `stopTimeout` a part may take: all of it, or `most` (four fifths), which leaves time for the parts after
 * it.
 */
export type ShutdownShare = "all" | "most"

/** Runs the release of each part of a node. */
export interface ShutdownParts {
  /**
   * Runs the release of a part while the stop has time for it. True when the release has ended; otherwise it is
   * interrupted and left behind. The names of parts that hold up the stop are logged.
   */
  readonly part: (name: string, release: Effect.Effect<void>, share?: ShutdownShare) => Effect.Effect<boolean>
}

/** Without a layer every part takes the time that it needs. `Network` replaces it with `BoundedShutdown`. */
export const Shutdown = Context.Reference<ShutdownParts>("codio-network/services/Shutdown", {
  defaultValue: () => ({ part: (_, release) => Effect.as(release, true) })
})
