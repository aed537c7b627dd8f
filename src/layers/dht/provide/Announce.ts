/**
 * Announces keys in Kademlia: leaves a record of each key with the peers closest to it, each copy acknowledged.
 *
 * Few keys are announced one by one, each with a lookup of its own ({@link AnnounceOne}). Many keys go region by region
 * and share lookups ({@link AnnounceRegion}). Which is cheaper is estimated from the density of peers around this node.
 */
import { Effect } from "effect"
import * as AnnounceOne from "./AnnounceOne.ts"
import { Announcement, type AnnounceOptions, type AnnouncePeer } from "./Announcement.ts"
import * as AnnounceRegion from "./AnnounceRegion.ts"
import type { Batch, Cost } from "./Batches.ts"

/** `announce` for `ProvidedKeys`. */
export const make = <P extends AnnouncePeer>(options: AnnounceOptions<P>) => (batch: Batch): Effect.Effect<Cost> =>
  Effect.suspend(() => {
    const run = new Announcement(options, batch)
    return Effect.as(run.isWorthSweeping() ? AnnounceRegion.sweep(run) : AnnounceOne.announceAll(run), run.cost)
  })
