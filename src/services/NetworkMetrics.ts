/**
 * Metrics of the library, as constants of the module: read them with `Metric.snapshot`, or export them with any of effect's exporters.
 */
import { Metric } from "effect"

/** Peers in the tables of the process. */
export const peers = Metric.gauge("codio_peers", { description: "Connected peers" })

/** Dials, by `outcome`: `connected`, or the reason of the failure. */
export const dials = Metric.counter("codio_dials_total", { description: "Dials", incremental: true })

/** Connections refused by the gate, by `reason`: a `RefusalReason`. */
export const refusals = Metric.counter("codio_refusals_total", {
  description: "Refused connections",
  incremental: true
})

/** Events that a slow subscriber lost. */
export const eventsDropped = Metric.counter("codio_events_dropped", {
  description: "Events lost by slow subscribers",
  incremental: true
})

/**
 * Lookups for a key whose closest nodes are improbably near to it: somebody may have made ids to take its records. One in four thousand is
 * counted by chance.
 */
export const crowdedLookups = Metric.counter("codio_dht_crowded_lookups_total", {
  description: "Lookups in the DHT that ended in a crowd of improbably near nodes",
  incremental: true
})
