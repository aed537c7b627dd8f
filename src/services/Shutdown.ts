/**
 * How a node ends in time: its parts are released one after the other, and none may hold the others for ever.
 */
import { Context, Effect } from "effect"

/**
 * How much of `stopTimeout` a release may use that began with the stop: all of it, or most, so that something is left for what comes after.
 */
export type ShutdownShare = "all" | "most"

/** Runs the release of each part of a node. */
export interface ShutdownParts {
  /**
   * Runs the release of a part, as long as the stop has time for it. True when the release has ended; else it is interrupted and left to
   * itself. A name under which a part held the stop for long is reported.
   */
  readonly part: (name: string, release: Effect.Effect<void>, share?: ShutdownShare) => Effect.Effect<boolean>
}

/**
 * Without a layer that replaces it every part takes the time that it needs. `Network` replaces it with `BoundedShutdown`.
 */
export const Shutdown = Context.Reference<ShutdownParts>("codio-network/services/Shutdown", {
  defaultValue: () => ({ part: (_, release) => Effect.as(release, true) })
})
